"""Demo: all parts, running and connected."""

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from gatekeeper.client import AsyncHubClient, CreatedWidgetKey
from gatekeeper.demo.servers import listen, serving
from gatekeeper.demo.site import acme_site, globex_site
from gatekeeper.demo.widget import widget_service
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.hub import create_hub
from gatekeeper.sync.hub_source import HubSource
from gatekeeper.web.cors import CorsPolicy

__all__ = ("Demo", "OtherCustomer", "running_demo")

HUB_PORT, WIDGET_PORT, SITE_PORT, OTHER_SITE_PORT = 8700, 8701, 8702, 8703
ACCOUNTS = ("acme", "globex")


class OtherCustomer(NamedTuple):
    """Globex, whose keys are in an account of their own.

    Attributes:
        hub: a client of the demo's hub, with a token of this account.
        url: the customer's page.
        key: the key in that page, which allows no other page.
    """

    hub: AsyncHubClient
    url: str
    key: CreatedWidgetKey


class Demo(NamedTuple):
    """A running demo.

    Attributes:
        hub: a client of the demo's hub, with a token of scope admin of Acme's account.
        gate_hub: a client of the same hub with the token of the gate, of scope gate.
        hub_url: the URL of the hub.
        widget_url: the URL of the guarded widget service with open preflights.
        strict_url: the URL of the same service with strict preflights.
        allowed_url: the customer's page on a host that the key's allowlist has.
        refused_url: the same page on a host that the allowlist lacks.
        key: the key in that page.
        globex: another customer of the same service.
        headers_file: a file with the headers for the hub's API, readable only by its owner.
        refresh_interval: seconds between two refreshes of the gate's list.
    """

    hub: AsyncHubClient
    gate_hub: AsyncHubClient
    hub_url: str
    widget_url: str
    strict_url: str
    allowed_url: str
    refused_url: str
    key: CreatedWidgetKey
    globex: OtherCustomer
    headers_file: Path
    refresh_interval: float


@asynccontextmanager
async def running_demo(*, fixed_ports: bool, refresh_interval: float = 1.0) -> AsyncIterator[Demo]:
    """Run the demo while the context is open.

    Args:
        fixed_ports: whether to use ports 8700 to 8703 if they are free, instead of random ones.
        refresh_interval: seconds between two refreshes of the gate's list.

    Yields:
        The demo, once every part answers.
    """
    ports = (HUB_PORT, WIDGET_PORT, SITE_PORT, OTHER_SITE_PORT, 0)
    listeners = [listen(port if fixed_ports else 0) for port in ports]
    async with AsyncExitStack() as stack:
        for listener in listeners:
            stack.callback(listener.close)
        hub_listener, widget_listener, site_listener, other_listener, strict_listener = listeners
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatekeeper-demo-")))
        hub_app = create_hub(directory / "hub.sqlite", pepper=secrets.token_hex(32))
        hub_url = await stack.enter_async_context(serving(hub_app, hub_listener))
        site_port, other_port = (listener.getsockname()[1] for listener in (site_listener, other_listener))
        allowed_url, refused_url = f"http://localhost:{site_port}", f"http://127.0.0.1:{site_port}"
        mint = hub_app.state.hub.tokens.mint
        admin_token, other_admin_token = [await mint(account, name="demo", scope="admin") for account in ACCOUNTS]
        gate_token, other_gate_token = [await mint(account, name="the demo's gate", scope="gate") for account in ACCOUNTS]
        hub, gate_hub, other_hub = [
            await stack.enter_async_context(AsyncHubClient(hub_url, token))
            for token in (admin_token, gate_token, other_admin_token)
        ]
        key = await hub.widget_keys.create(
            "Acme Outdoor", domain_allowlist=[f"localhost:{site_port}"], agent_id="agent_robin"
        )
        other_key = await other_hub.widget_keys.create(
            "Globex Travel", domain_allowlist=[f"localhost:{other_port}"], agent_id="agent_kim"
        )
        gate = Gatekeeper(
            [HubSource(hub_url, gate_token), HubSource(hub_url, other_gate_token)],
            refresh_interval=refresh_interval,
            grant_secrets=[secrets.token_hex(32)],
        )
        widget_url = await stack.enter_async_context(serving(widget_service(gate), widget_listener))
        strict = widget_service(gate, CorsPolicy(preflight="strict"))
        strict_url = await stack.enter_async_context(serving(strict, strict_listener))
        site = acme_site(widget_url=widget_url, client_key=key.public_key, allowed_url=allowed_url, refused_url=refused_url)
        await stack.enter_async_context(serving(site, site_listener))
        other_site = globex_site(widget_url=widget_url, client_key=other_key.public_key)
        await stack.enter_async_context(serving(other_site, other_listener))
        yield Demo(
            hub,
            gate_hub,
            hub_url,
            widget_url,
            strict_url,
            allowed_url,
            refused_url,
            key,
            OtherCustomer(other_hub, f"http://localhost:{other_port}", other_key),
            _headers_file(directory, admin_token),
            refresh_interval,
        )


def _headers_file(directory: Path, token: str) -> Path:
    """Write the token to a file for curl. That keeps it out of the process list."""
    path = directory / "headers"
    path.touch(mode=0o600)
    path.write_text(f"authorization: Bearer {token}\ncontent-type: application/json\n", encoding="ascii")
    return path
