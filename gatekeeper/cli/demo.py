"""gatekeeper demo: a hub, a guarded service, two customers' sites."""

import json
import signal as signals
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from rich.markup import escape

from gatekeeper.cli.output import REFUSED, USAGE, console, stop
from gatekeeper.keys.client_key import mask

if TYPE_CHECKING:
    from gatekeeper.demo import Demo

__all__ = ("demo",)

_ENDINGS = tuple(signal for name in ("SIGINT", "SIGTERM", "SIGHUP") if (signal := getattr(signals, name, None)))


def demo(
    *,
    check_itself: Annotated[
        bool, typer.Option("--self-test", help="Check everything that the demo shows, and exit.")
    ] = False,
) -> None:
    """Run a hub, a guarded widget service and two customers' sites locally."""
    try:
        from gatekeeper.demo import running_demo, self_test  # noqa: PLC0415 - an extra of its own
    except ImportError as error:
        stop(USAGE, str(error))
    out = console()

    async def test_it() -> bool:
        async with running_demo(fixed_ports=False, refresh_interval=0.3) as running:
            return await self_test(running, lambda line: out.print(escape(line)))

    async def run_it() -> None:
        # On any of these signals (SIGHUP: a closed terminal), stop the servers and delete the directory.
        with anyio.open_signal_receiver(*_ENDINGS) as endings:
            async with running_demo(fixed_ports=True, refresh_interval=1.0) as running:
                for line in _guide(running):
                    out.print(line)
                await anext(aiter(endings))

    if check_itself:
        raise typer.Exit(0 if anyio.run(test_it) else REFUSED)
    anyio.run(run_it)


def _guide(running: "Demo") -> Iterator[str]:
    key_url = f"{running.hub_url}/api/v1/widget-keys/{running.key.id}"
    allowed = running.key.domain_allowlist
    curl = f"curl -X PATCH {key_url} -H @{running.headers_file} -d"
    yield ""
    yield "  [bold]Open[/]"
    yield f"    {running.allowed_url}   a page that the key allows: the widget greets you"
    yield f"    {running.refused_url}   the same page on another host: the widget says why it is refused"
    yield f"    {running.globex.url}   another customer's page, with a key of another account: the changes below spare it"
    yield "    The switch at the top of the page puts the widget into a frame; reload a refused frame once it is allowed."
    yield ""
    yield f"  [bold]Change the key[/] {mask(running.key.last8)} at the hub, and watch its open pages follow within 3 s"
    for what, body in (
        ("disable it", '{"disabled": true}'),
        ("enable it again", '{"disabled": false}'),
        ("allow the second page too", json.dumps({"domain_allowlist": [*allowed, running.refused_url]})),
        ("block it again", json.dumps({"domain_allowlist": allowed})),
    ):
        yield f"    [dim]# {what}[/]"
        yield f"    {escape(curl)} '{escape(body)}'"
    yield ""
    yield "  Press Ctrl-C to stop. Nothing is left behind."
