"""The command line: gatekeeper demo, check and lint. Exit codes: 0 yes, 1 no, 2 usage, 3 the hub cannot be reached."""

import signal as signals
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

if any(find_spec(needed) is None for needed in ("typer", "rich")):
    _missing = "the command line needs the extra `cli`: pip install 'widget-gatekeeper[cli]'"
    raise ImportError(_missing)

import anyio
import typer
from rich.console import Console
from rich.markup import escape

from gatekeeper.allowlist import Allowlist, Pattern
from gatekeeper.client import HubClient, account_of
from gatekeeper.decisions import Decision, Reason
from gatekeeper.errors import (
    ConfigError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    InvalidList,
    InvalidOrigin,
    SourceError,
)
from gatekeeper.gate import Gatekeeper
from gatekeeper.keys import RowReader, WidgetKey, mask
from gatekeeper.origins import Origin
from gatekeeper.refresh import MAX_REJECTED_SHARE
from gatekeeper.sources import FileSource

if TYPE_CHECKING:
    from gatekeeper.demo import Demo

__all__ = ("app",)

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
_ENDINGS = tuple(signal for name in ("SIGINT", "SIGTERM", "SIGHUP") if (signal := getattr(signals, name, None)))

app = typer.Typer(
    name="gatekeeper",
    help="May this page use this client key?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    *,
    check_itself: Annotated[
        bool, typer.Option("--self-test", help="Check everything that the demo shows, and exit.")
    ] = False,
) -> None:
    """Run a hub, a guarded widget service and a customer's site, on this machine only."""
    try:
        from gatekeeper.demo import running_demo, self_test  # noqa: PLC0415 - an extra of its own
    except ImportError as error:
        _stop(USAGE, str(error))
    out = _console()

    async def test_it() -> bool:
        async with running_demo(fixed_ports=False, refresh_interval=0.3) as running:
            return await self_test(running, lambda line: out.print(escape(line)))

    async def run_it() -> None:
        # Whatever ends it, a closed terminal included, its servers stop in order and its directory goes.
        with anyio.open_signal_receiver(*_ENDINGS) as endings:
            async with running_demo(fixed_ports=True, refresh_interval=1.0) as running:
                for line in _guide(running):
                    out.print(line)
                await anext(aiter(endings))

    if check_itself:
        raise typer.Exit(0 if anyio.run(test_it) else REFUSED)
    anyio.run(run_it)


@app.command()
def check(
    key: Annotated[str, typer.Argument(help="The client key, pk_live_…", show_default=False)],
    origin: Annotated[str, typer.Argument(help="The page: its origin, or its address.", show_default=False)],
    *,
    hub: Annotated[str | None, typer.Option(envvar="GATEKEEPER_HUB", help="The hub's URL.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="GATEKEEPER_TOKEN", help="The hub's token; better in the environment than here.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A JSON file of rows, in place of a hub.")] = None,
    account: Annotated[str | None, typer.Option(help="The account, where the token does not carry it.")] = None,
    suffix_field: Annotated[str, typer.Option(help="The field with the last 8 characters of a key.")] = "last8",
    https_only: Annotated[bool, typer.Option("--https-only", help="Decide as a gate with https_only=True does.")] = False,
) -> None:
    """Decide as the gate does, and say why: whose key it is, and which entry allows the page or would."""
    out = _console()
    rows = _rows(hub, token, file, account, suffix_field)
    known_account = account or (account_of(token) if file is None and token else None)
    gate = Gatekeeper.from_rows(rows, https_only=https_only, account=known_account)
    # People paste addresses, and mean the page at them: a browser would send its origin.
    decision = gate.decide(key, str(_origin_at(origin) or origin))
    for line in _verdict(decision, gate):
        out.print(line)
    if decision.reason is Reason.ORIGIN_MALFORMED and (page := _origin_at(f"https://{origin}")) is not None:
        out.print(f"  [yellow]hint[/]     name the page with its scheme, such as {escape(str(page))}")
    raise typer.Exit(0 if decision.allowed else REFUSED)


@app.command()
def lint(
    entries: Annotated[list[str] | None, typer.Argument(help="Allowlist entries.", show_default=False)] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="A file with one entry a line, or a JSON file of rows.")] = None,
    https_only: Annotated[bool, typer.Option("--https-only", help="Read them as a gate with https_only=True does.")] = False,
) -> None:
    """Say what each entry means, how it is normalised, or why it is rejected."""
    if bool(entries) == (file is not None):
        _stop(USAGE, "give entries, or --file with a file of them")
    out = _console()
    rejected = False
    lists = [("", tuple(entries or ()))] if file is None else _lists_in(file)
    for title, written in lists:
        if title:
            out.print(f"[bold]{escape(title)}[/]")
        allowlist = Allowlist.parse(written, https_only=https_only)
        rejected = rejected or bool(allowlist.rejected)
        for line in _explained(written, allowlist, https_only=https_only):
            out.print(line)
    raise typer.Exit(REFUSED if rejected else 0)


def _guide(running: "Demo") -> Iterator[str]:
    key_url = f"{running.hub_url}/api/v1/widget-keys/{running.key.id}"
    curl = f"curl -X PATCH {key_url} -H @{running.headers_file} -d"
    yield ""
    yield "  [bold]Open[/]"
    yield f"    {running.allowed_url}   a page that the key allows: the widget greets you"
    yield f"    {running.refused_url}   the same page elsewhere: the widget says why it is refused"
    yield ""
    yield f"  [bold]Change the key[/] {mask(running.key.last8)} at the hub, and watch the open pages follow within 3 s"
    for what, body in (
        ("disable it", '{"disabled": true}'),
        ("enable it again", '{"disabled": false}'),
        ("allow the other page too", '{"domain_allowlist": ["localhost:*", "127.0.0.1:*"]}'),
        ("and no more", '{"domain_allowlist": ["localhost:*"]}'),
    ):
        yield f"    [dim]# {what}[/]"
        yield f"    {escape(curl)} '{escape(body)}'"
    yield ""
    yield "  Ctrl-C ends it; nothing is left behind."


def _rows(
    hub: str | None, token: str | None, file: Path | None, account: str | None, suffix_field: str
) -> Iterable[WidgetKey]:
    if (hub is None) == (file is None):
        _stop(USAGE, "name the hub (--hub, or GATEKEEPER_HUB in the environment) or a file of rows (--file), and not both")
    if file is None and not token:
        _stop(USAGE, "there is no token for the hub: put it into the environment as GATEKEEPER_TOKEN")
    try:
        if file is not None:
            listing = FileSource(file).read()
            rows, rejected = RowReader(suffix_field).read_all(b"" if listing is None else listing.body)
        else:
            with HubClient(hub or "", token or "", account=account, suffix_field=suffix_field) as client:
                listed = client.widget_keys.list()
                rows, rejected = list(listed), list(listed.rejected)
    except (HubTransportError, HubServerError, HubRateLimitedError) as error:
        _stop(UNREACHABLE, str(error))
    except InvalidList as error:
        _stop(USAGE, f"{hub or file}: {error}")
    except (ConfigError, SourceError) as error:
        _stop(USAGE, str(error))
    for problem in rejected:
        _warn(f"left out: {problem}")
    if len(rejected) > MAX_REJECTED_SHARE * (len(rows) + len(rejected)):
        _warn("a gate does not trust a list with so many bad rows, and goes on with the one before")
    return rows


def _origin_at(address: str) -> Origin | None:
    try:
        return Origin.from_referer(address)
    except InvalidOrigin:
        return None


def _verdict(decision: Decision, gate: Gatekeeper) -> Iterator[str]:
    colour = "green" if decision.allowed else "red"
    yield (
        f"[bold {colour}]allowed[/]"
        if decision.allowed
        else f"[bold {colour}]refused[/]  {decision.reason} ({decision.status})"
    )
    yield f"  {escape(decision.detail)}"
    if decision.key is None:
        return
    key = decision.key
    yield f"  key      {mask(key.last8)} {escape(repr(key.name))}, id {escape(key.id)}"
    yield f"           {'disabled since ' + escape(str(key.disabled_at)) if key.disabled else 'enabled'}"
    if key.agent_id is not None:
        yield f"           pinned to agent {escape(key.agent_id)}"
    yield f"  page     {escape(decision.origin or 'none')}"
    if decision.matched is not None:
        yield f"  matched  {escape(decision.matched)}"
    allowlist = gate.allowlist(key)
    if allowlist is None:
        return
    if decision.reason is Reason.ORIGIN_NOT_ALLOWED and decision.origin is not None:
        nearest = allowlist.nearest(Origin.parse(decision.origin))
        yield f"  nearest  {escape(', '.join(nearest)) if nearest else f'none of its {len(allowlist)} entries is alike'}"
    if decision.add is not None:
        yield f"  add      {escape(decision.add)}"
    for entry in allowlist.rejected:
        yield f"  [yellow]ignored[/]  {escape(entry.hint)}"


def _explained(written: Iterable[str], allowlist: Allowlist, *, https_only: bool) -> Iterator[str]:
    rejected = {entry.entry: entry for entry in allowlist.rejected}
    warnings, suggestions = allowlist.warnings, allowlist.suggestions
    if not allowlist:
        yield "[yellow]blocked[/]   without an entry that is right no page can use the key"
    for entry in written:
        if entry in rejected:
            yield f"[red]rejected[/]  {escape(entry)}  ({rejected[entry].reason})\n          {escape(rejected[entry].hint)}"
            continue
        pattern = Pattern.parse(entry, https_only=https_only)
        normalised = "" if str(pattern) == entry else f" -> {escape(str(pattern))}"
        yield f"[green]ok[/]        {escape(entry)}{normalised}\n          {escape(pattern.meaning)}"
        for warning in warnings:
            if warning.entry == entry:
                yield f"          [yellow]warning[/] {escape(warning.hint)}"
        for suggestion in suggestions:
            if suggestion.entry == entry:
                yield f"          [cyan]tip[/] {escape(suggestion.hint)}"


def _lists_in(file: Path) -> list[tuple[str, tuple[str, ...]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows, rejected = RowReader().read_all(text.encode())
    except (OSError, UnicodeDecodeError) as error:
        _stop(USAGE, f"cannot read {str(file)!r}: {error}")
    except InvalidList:
        return [("", tuple(line for line in text.splitlines() if line.strip()))]
    for problem in rejected:
        _warn(f"left out: {problem}")
    return [(f"{row.name or row.id} ({mask(row.last8)})", row.domain_allowlist) for row in rows]


def _console() -> Console:
    # Lines are for people to copy from, so they are never wrapped, and nothing in them is coloured by guesswork.
    return Console(highlight=False, soft_wrap=True)


def _warn(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[yellow]gatekeeper:[/] {escape(message)}")


def _stop(code: int, message: str) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[red]gatekeeper:[/] {escape(message.removeprefix('gatekeeper: '))}"
    )
    raise typer.Exit(code)
