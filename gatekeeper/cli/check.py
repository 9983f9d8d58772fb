"""gatekeeper check: whether a page may use a key, and why."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from gatekeeper.cli.connection import (
    AccountOption,
    CaFileOption,
    HubOption,
    ProxyOption,
    SuffixFieldOption,
    TokenOption,
    connect,
    with_options,
)
from gatekeeper.cli.output import REFUSED, UNREACHABLE, USAGE, console, legible, stop, warn
from gatekeeper.client import account_of
from gatekeeper.errors import (
    ConfigError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    InvalidList,
    InvalidOrigin,
    SourceError,
)
from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import read_list
from gatekeeper.matching.origins import Origin
from gatekeeper.sync.loading import MAX_REJECTED_SHARE
from gatekeeper.sync.sources import FileSource

__all__ = ("check",)


def check(
    key: Annotated[str, typer.Argument(help="The client key, pk_live_…", show_default=False)],
    origin: Annotated[str, typer.Argument(help="The origin or the URL of the page.", show_default=False)],
    *,
    hub: HubOption = None,
    token: TokenOption = None,
    file: Annotated[Path | None, typer.Option(help="Read rows from a JSON file instead of a hub.")] = None,
    account: AccountOption = None,
    suffix_field: SuffixFieldOption = "last8",
    ca_file: CaFileOption = None,
    proxy: ProxyOption = None,
    https_only: Annotated[bool, typer.Option("--https-only", help="Decide like a gate with https_only=True.")] = False,
) -> None:
    """Decide like a gate, and explain the decision."""
    out = console()
    if (hub is None) == (file is None):
        stop(USAGE, "expected either a hub (--hub, or GATEKEEPER_HUB in the environment) or a file of rows (--file)")
    try:
        if file is not None:
            listing = FileSource(file).read()
            rows, rejected = read_list(RowReader(suffix_field), b"" if listing is None else listing[0])
        else:
            with connect(hub or "", token, account, suffix_field, ca_file, proxy) as client:
                listed = client.widget_keys.list()
                rows, rejected = list(listed), list(listed.rejected)
    except (HubTransportError, HubServerError, HubRateLimitedError) as error:
        stop(UNREACHABLE, with_options(error))
    except InvalidList as error:
        stop(USAGE, f"{hub or file}: {error}")
    except (ConfigError, SourceError) as error:
        stop(USAGE, with_options(error))
    for problem in rejected:
        warn(f"left out: {with_options(problem)}")
    if len(rejected) > MAX_REJECTED_SHARE * (len(rows) + len(rejected)):
        warn("a gate rejects a list with so many bad rows and keeps the previous list")
    known_account = account or (account_of(token) if file is None and token else None)
    gate = Gatekeeper.from_rows(rows, https_only=https_only, account=known_account)
    # Users paste the URL of a page. A browser would send its origin.
    decision = gate.decide(key, str(_origin_at(origin) or origin))
    for line in _verdict(decision, gate):
        out.print(line)
    if decision.reason is Reason.ORIGIN_MALFORMED and (page := _origin_at(f"https://{origin}")) is not None:
        out.print(f"  [yellow]hint[/]     name the page with its scheme, such as {escape(str(page))}")
    raise typer.Exit(0 if decision.allowed else REFUSED)


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
    yield f"  key      {mask(key.last8)} {escape(repr(key.name))}, id {legible(key.id)}"
    yield f"           {'disabled since ' + legible(str(key.disabled_at)) if key.disabled else 'enabled'}"
    if key.agent_id is not None:
        yield f"           pinned to agent {legible(key.agent_id)}"
    yield f"  page     {escape(decision.origin or 'none')}"
    if decision.matched is not None:
        yield f"  matched  {escape(decision.matched)}"
    allowlist = gate.allowlist(key)
    if allowlist is None:
        return
    if decision.reason is Reason.ORIGIN_NOT_ALLOWED and decision.origin is not None:
        nearest = allowlist.nearest(Origin.parse(decision.origin))
        yield f"  nearest  {escape(', '.join(nearest)) if nearest else f'none of its {len(allowlist)} entries is similar'}"
    if decision.add is not None:
        yield f"  add      {escape(decision.add)}"
    for entry in allowlist.rejected:
        yield f"  [yellow]ignored[/]  {escape(entry.hint)}"
