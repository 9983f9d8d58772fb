"""gatekeeper keys refused: the pages that gates have refused."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
import typer

from gatekeeper.cli.connection import given_options, with_client, with_options
from gatekeeper.cli.explanation import problem_of_entry
from gatekeeper.cli.lookup import fetch_keys, require_one
from gatekeeper.cli.output import REFUSED, USAGE, console, legible, moment, print_json, several, stop
from gatekeeper.client import HubClient
from gatekeeper.errors import HubNotFoundError, HubProtocolError
from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.origins import Origin, is_secure

__all__ = ("AdvisedPage", "advise", "show_refused")

# What the owner of a key can change at the hub. The other reasons are in the request itself.
BY_OWNER: Final = (Reason.KEY_DISABLED, Reason.ALLOWLIST_EMPTY, Reason.ORIGIN_NOT_ALLOWED)

_NO_ENDPOINT: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_OWN_HOST: Final = (
    "If it is the widget's own host, do not allow it, or every page could use the "
    'key: see "Frames" in the reference of gatekeeper.web.'
)
_NO_ENTRY: Final = f"The gate names no entry for this page. {_OWN_HOST}"
_OVER_HTTP: Final = "The page is served over http, which gates with https_only=True refuse: serve it over https."


_UNKNOWN_REASON: Final = "This version of gatekeeper does not know the reason: update it to the version of the gate."


class AdvisedPage(RefusedPage, frozen=True, kw_only=True):
    """A refused page, as `gatekeeper keys refused --json` prints it.

    Attributes:
        last8: the last 8 characters of the key; None if the list has no such key any more.
        name: the key's name.
        matched: the entry, as written, that allows the page now.
        command: the command that would allow the page.
        detail: what was seen and what to do, where no command allows the page.
    """

    last8: str | None = None
    name: str | None = None
    matched: str | None = None
    command: str | None = None
    detail: str | None = None

    def lines(self) -> Iterator[str]:
        """Yield lines of rich markup for a person."""
        yield f"  {legible(self.origin or 'a page without an origin')}"
        yield f"    refused  {several(self.count, 'time')}: {legible(self.reason)}"
        yield f"    between  {moment(self.first_at)} and {moment(self.last_at)}"
        if self.matched is not None:
            yield f"    [green]allowed[/]  now, by {legible(self.matched)}"
        if self.command is not None:
            yield f"    to allow {legible(self.command)}"
        if self.detail is not None:
            yield f"    advice   {legible(self.detail)}"


def _stripped(key: str | None) -> str | None:
    return None if key is None else key.strip()


@with_client
def show_refused(
    client: HubClient,
    *,
    context: typer.Context,
    key: Annotated[
        str | None,
        typer.Argument(
            help="The key's last 8 characters, its id, or the whole key. Default: all keys.",
            callback=_stripped,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the pages that gates refuse, and how to allow each."""
    rows = fetch_keys(client)
    only = None if key is None else require_one(rows, key, account=client.account)
    options, secret = given_options(context)
    try:
        pages = client.widget_keys.refused(None if only is None else only.id)
    except (HubNotFoundError, HubProtocolError) as error:
        if error.status not in _NO_ENDPOINT and error.status != HTTPStatus.OK:
            raise
        problem = f"this hub does not list refused pages; newer versions of the reference hub do ({with_options(error)})"
        stop(REFUSED if error.status in _NO_ENDPOINT else USAGE, problem)
    advised = advise(pages, rows, options)
    if as_json:
        print_json(advised)
    else:
        for line in _grouped(advised):
            console().print(line)
    if not advised:
        which = "this account" if only is None else f"the key {mask(only.last8)}"
        console(stderr=True).print(
            f"gates have reported no refused page of {which}. At most once in usage_interval (30 s by default), a gate "
            "reports what it refuses, or would refuse with enforce=False."
        )
    elif secret and any(page.command for page in advised):
        console(stderr=True).print(f"the commands need your {' and '.join(secret)}, too")


def advise(pages: Sequence[RefusedPage], rows: Sequence[WidgetKey], options: Sequence[str] = ()) -> list[AdvisedPage]:
    """Say how to allow each page, or that it is allowed now.

    Args:
        pages: the refused pages.
        rows: the keys of the account.
        options: the options that lead to the hub, for the commands.

    Returns:
        The pages, in the same order.
    """
    found = {row.id: row for row in rows}
    ends = Counter(row.last8 for row in rows)
    gates: dict[str, Gatekeeper] = {}
    advised = []
    for page in pages:
        reported, row = msgspec.structs.asdict(page), found.get(page.key_id)
        if row is None:
            advised.append(AdvisedPage(**reported, detail="The list of keys has no such key any more."))
            continue
        if row.id not in gates:
            # A gate sees a whole key. Any key with this end stands for the one of the row, so its digest and its account
            # count as none.
            gates[row.id] = Gatekeeper.from_rows([msgspec.structs.replace(row, key_sha256=None, account=None)])
        matched, add, detail = _advice(page, _decide(page, row, gates[row.id]))
        # Not the entry of the report: a gate's token must not choose what an administrator runs.
        named = row.last8 if ends[row.last8] == 1 and not row.last8.startswith("-") else row.id
        command = None if add is None else _command(named, add, options)
        advised.append(
            AdvisedPage(**reported, last8=row.last8, name=row.name, matched=matched, command=command, detail=detail)
        )
    return advised


def _decide(page: RefusedPage, row: WidgetKey, gate: Gatekeeper) -> Decision | None:
    """Decide again if the owner of the key can change the decision; None for an unknown reason."""
    if page.reason in BY_OWNER:
        return gate.decide(f"pk_live_any_{row.last8}", page.origin)
    if page.reason in set(Reason):
        return Decision(Reason(page.reason), key=row, last8=row.last8, origin=page.origin)
    return None


def _advice(page: RefusedPage, decision: Decision | None) -> tuple[str | None, str | None, str | None]:
    """The entry that allows the page now, the entry to add, or what else to do."""
    if decision is None:
        return None, None, _UNKNOWN_REASON
    matched, add = decision.matched, decision.add
    if matched is None and add is None:
        return None, None, decision.detail
    # A refusal of a disabled key never has an entry.
    if page.entry is None and page.reason != Reason.KEY_DISABLED and not is_secure(Origin.parse(decision.origin or "")):
        others = _OWN_HOST if matched is None else f"Other gates allow it now, by {matched}."
        return None, None, f"{_OVER_HTTP} {others}"
    if matched is not None:
        return matched, None, None
    if page.entry is None:
        return None, None, _NO_ENTRY
    problem = problem_of_entry(add)
    return None, add if problem is None else None, problem


def _command(named: str, entry: str, options: Sequence[str]) -> str:
    arguments = (named, entry)
    ending = ("--",) if any(argument.startswith("-") for argument in arguments) else ()
    return shlex.join(("gatekeeper", "keys", "allow", *options, *ending, *arguments))


def _grouped(pages: Sequence[AdvisedPage]) -> Iterator[str]:
    """Yield the lines of all pages, those of a key together."""
    by_key: dict[str, list[AdvisedPage]] = {}
    for page in pages:
        by_key.setdefault(page.key_id, []).append(page)
    for first, *others in by_key.values():
        yield f"[bold]{legible(first.key_id) if first.last8 is None else mask(first.last8)}[/] {legible(first.name or '')}"
        for page in (first, *others):
            yield from page.lines()
