"""The demo's self-test: checks everything that it shows, over real sockets."""

import re
from collections.abc import Awaitable, Callable

import anyio
import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from gatekeeper.demo.running import Demo
from gatekeeper.errors import HubPermissionError

__all__ = ("self_test",)

CONFIG = "/api/v1/widget/config"
PATIENCE = 10.0  # seconds for a change at the hub to take effect, ten times the usual


class _Checks:
    def __init__(self, demo: Demo, http: httpx.AsyncClient) -> None:
        self.demo = demo
        self.http = http
        self.key = demo.key.public_key

    async def config(self, origin: str | None, key: str | None) -> httpx.Response:
        headers = {} if origin is None else {"origin": origin}
        params = {} if key is None else {"client_key": key}
        return await self.http.get(self.demo.widget_url + CONFIG, params=params, headers=headers)

    async def preflight(self, url: str, origin: str) -> httpx.Response:
        headers = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,data-client-key",
        }
        return await self.http.options(f"{url}/api/v1/widget/chat", headers=headers)

    async def until(self, reason: str, origin: str, key: str) -> None:
        """Repeat a request until the gate's next refresh brings the expected answer."""
        seen = ""
        with anyio.move_on_after(PATIENCE):
            while (seen := _reason(await self.config(origin, key))) != reason:  # noqa: ASYNC110 - it polls a server
                await anyio.sleep(0.05)
        _require(seen == reason, f"still {seen} after {PATIENCE:g} s")

    async def page(self) -> None:
        """The customer's page has the script tag with the key."""
        for url in (self.demo.allowed_url, self.demo.refused_url):
            body = (await self.http.get(url)).text
            _require(f'data-client-key="{self.key}"' in body, f"no script tag at {url}")

    async def script(self) -> None:
        """The widget's script and the loader are served without a key."""
        for path in ("/widget.js", "/gatekeeper/widget.mjs"):
            response = await self.http.get(self.demo.widget_url + path)
            _require(response.status_code == httpx.codes.OK, f"{response.status_code} at {path}")

    async def allowed(self) -> None:
        """An allowed page gets its config, its pinned agent and CORS headers."""
        response = await self.config(self.demo.allowed_url, self.key)
        _require(_reason(response) == "allowed", response.text)
        _require(response.json()["agent_id"] == self.demo.key.agent_id, response.text)
        _require(response.headers["access-control-allow-origin"] == self.demo.allowed_url, str(response.headers))

    async def foreign_origin(self) -> None:
        """A page that is not allowed is refused and can read why."""
        response = await self.config(self.demo.refused_url, self.key)
        _require(_reason(response) == "origin_not_allowed", response.text)
        _require(response.headers["access-control-allow-origin"] == "*", str(response.headers))

    async def missing_key(self) -> None:
        """A request without a key is refused."""
        response = await self.config(self.demo.allowed_url, None)
        _require(_reason(response) == "key_missing", response.text)

    async def unknown_key(self) -> None:
        """An unknown key is refused."""
        response = await self.config(self.demo.allowed_url, "pk_live_acme_thisKeyDoesNotExistAtAll")
        _require(_reason(response) == "key_unknown", response.text)

    async def other_customer(self) -> None:
        """The page of a customer with another account works with its own key."""
        globex = self.demo.globex
        body = (await self.http.get(globex.url)).text
        _require(f'data-client-key="{globex.key.public_key}"' in body, f"no script tag at {globex.url}")
        response = await self.config(globex.url, globex.key.public_key)
        _require(_reason(response) == "allowed", response.text)
        _require(response.json()["agent_id"] == globex.key.agent_id, response.text)

    async def crossed_keys(self) -> None:
        """Neither customer's page can use the other's key."""
        globex = self.demo.globex
        for page, key in ((self.demo.allowed_url, globex.key.public_key), (globex.url, self.key)):
            response = await self.config(page, key)
            _require(_reason(response) == "origin_not_allowed", f"{response.text} for {page}")

    async def unknown_account(self) -> None:
        """A key of an account that the gate does not have is unknown."""
        response = await self.config(self.demo.allowed_url, f"pk_live_initech_{self.key.rpartition('_')[2]}")
        _require(_reason(response) == "key_unknown", response.text)

    async def open_preflight(self) -> None:
        """An open preflight answers every page, because it carries no key."""
        for origin in (self.demo.allowed_url, self.demo.refused_url):
            response = await self.preflight(self.demo.widget_url, origin)
            _require(response.status_code == httpx.codes.NO_CONTENT, f"{response.status_code} for {origin}")
            _require("data-client-key" in response.headers["access-control-allow-headers"], str(response.headers))

    async def strict_preflight(self) -> None:
        """A strict preflight answers only pages that some enabled key allows."""
        response = await self.preflight(self.demo.strict_url, self.demo.allowed_url)
        _require(response.status_code == httpx.codes.NO_CONTENT, response.text)
        response = await self.preflight(self.demo.strict_url, self.demo.refused_url)
        _require(_reason(response) == "origin_not_allowed", response.text)

    async def chat(self) -> None:
        """An allowed page can chat by POST, another page cannot."""
        url = f"{self.demo.widget_url}/api/v1/widget/chat"
        for origin, status in ((self.demo.allowed_url, httpx.codes.OK), (self.demo.refused_url, httpx.codes.FORBIDDEN)):
            headers = {"origin": origin, "data-client-key": self.key}
            response = await self.http.post(url, json={"message": "hello"}, headers=headers)
            _require(response.status_code == status, f"{response.status_code} for {origin}")

    async def websocket_allowed(self) -> None:
        """The WebSocket of an allowed page is accepted."""
        async with connect(self._live_url(), origin=Origin(self.demo.allowed_url), proxy=None) as websocket:
            await websocket.send("ping")
            _require(await websocket.recv() == "ping", "no echo")

    async def websocket_refused(self) -> None:
        """The WebSocket of another page is refused before it is accepted."""
        try:
            async with connect(self._live_url(), origin=Origin(self.demo.refused_url), proxy=None):
                _require(condition=False, seen="it was accepted")
        except InvalidStatus as error:
            body = (error.response.body or b"").decode()
            _require('"origin_not_allowed"' in body, f"{error.response.status_code} {body}")

    async def frame(self) -> None:
        """A frame on an allowed page gets a grant, and can chat with it."""
        response = await self.frame_document(self.demo.allowed_url)
        _require(response.status_code == httpx.codes.OK, response.text)
        _require("frame-ancestors" in response.headers["content-security-policy"], str(response.headers))
        for origin, expected in ((self.demo.widget_url, "allowed"), (self.demo.refused_url, "grant_foreign")):
            headers = {"origin": origin, "data-client-grant": _grant_in(response)}
            answer = await self.http.post(
                f"{self.demo.widget_url}/api/v1/widget/chat", json={"message": "hi"}, headers=headers
            )
            _require(_reason(answer) == expected, f"{answer.text} for {origin}")

    async def frame_refused(self) -> None:
        """A frame on another page shows why it is refused."""
        response = await self.frame_document(self.demo.refused_url)
        _require(response.headers["content-type"].startswith("text/html"), str(response.headers))
        _require("origin_not_allowed" in response.text, response.text)

    async def frame_document(self, page: str) -> httpx.Response:
        headers = {"referer": f"{page}/", "sec-fetch-dest": "iframe"}
        return await self.http.get(f"{self.demo.widget_url}/embed", params={"client_key": self.key}, headers=headers)

    async def disabled(self) -> None:
        """A key that was disabled at the hub is refused."""
        await self.demo.hub.widget_keys.update(self.demo.key.id, disabled=True)
        await self.until("key_disabled", self.demo.allowed_url, self.key)

    async def enabled_again(self) -> None:
        """A key that was enabled again works again."""
        await self.demo.hub.widget_keys.update(self.demo.key.id, disabled=False)
        await self.until("allowed", self.demo.allowed_url, self.key)

    async def disabled_alone(self) -> None:
        """Disabling a key of one account leaves the keys of the other alone."""
        globex = self.demo.globex
        await globex.hub.widget_keys.update(globex.key.id, disabled=True)
        await self.until("key_disabled", globex.url, globex.key.public_key)
        response = await self.config(self.demo.allowed_url, self.key)
        _require(_reason(response) == "allowed", response.text)

    async def newly_allowed(self) -> None:
        """A page whose host was added to the allowlist works."""
        entries = [*self.demo.key.domain_allowlist, self.demo.refused_url]
        await self.demo.hub.widget_keys.update(self.demo.key.id, domain_allowlist=entries)
        await self.until("allowed", self.demo.refused_url, self.key)

    async def new_key(self) -> None:
        """A new key works from its first request on."""
        created = await self.demo.hub.widget_keys.create("new", domain_allowlist=["localhost:*"])
        response = await self.config(self.demo.allowed_url, created.public_key)
        _require(_reason(response) == "allowed", response.text)

    async def least_privilege(self) -> None:
        """The gate's token can read the list, and change no key."""
        await self.demo.gate_hub.widget_keys.list()
        try:
            await self.demo.gate_hub.widget_keys.update(self.demo.key.id, disabled=True)
        except HubPermissionError:
            return
        _require(condition=False, seen="it disabled the key")

    async def deleted(self) -> None:
        """A key that was deleted at the hub is unknown."""
        await self.demo.hub.widget_keys.delete(self.demo.key.id)
        await self.until("key_unknown", self.demo.allowed_url, self.key)

    def _live_url(self) -> str:
        return f"{self.demo.widget_url.replace('http', 'ws', 1)}/api/v1/widget/live?client_key={self.key}"


async def self_test(demo: Demo, say: Callable[[str], None]) -> bool:
    """Check a running demo.

    Args:
        demo: the demo, whose key is disabled, enabled again and deleted.
        say: the function that prints one line for each check.

    Returns:
        Whether all checks passed.
    """
    passed = True
    async with httpx.AsyncClient(trust_env=False) as http:
        checks = _Checks(demo, http)
        for check in (
            checks.page,
            checks.script,
            checks.allowed,
            checks.foreign_origin,
            checks.missing_key,
            checks.unknown_key,
            checks.other_customer,
            checks.crossed_keys,
            checks.unknown_account,
            checks.open_preflight,
            checks.strict_preflight,
            checks.chat,
            checks.websocket_allowed,
            checks.websocket_refused,
            checks.frame,
            checks.frame_refused,
            checks.disabled,
            checks.enabled_again,
            checks.disabled_alone,
            checks.newly_allowed,
            checks.new_key,
            checks.least_privilege,
            checks.deleted,
        ):
            problem = await _outcome(check)
            passed = passed and problem is None
            say(f"ok      {check.__doc__}" if problem is None else f"FAILED  {check.__doc__} {problem}")
    return passed


async def _outcome(check: Callable[[], Awaitable[None]]) -> str | None:
    try:
        await check()
    except Exception as error:  # noqa: BLE001 - a failed check must not stop the others
        return f"{type(error).__name__}: {error}"
    return None


def _reason(response: httpx.Response) -> str:
    """The reason of a refusal, or "allowed"."""
    return "allowed" if response.is_success else str(response.json().get("reason"))


def _grant_in(document: httpx.Response) -> str:
    found = re.search(r'data-grant="([^"]+)"', document.text)
    return "" if found is None else found[1]


def _require(condition: bool, seen: str) -> None:  # noqa: FBT001 - reads as assert does
    if not condition:
        raise AssertionError(seen)
