"""gatekeeper gates: the gates that run, and how fresh each one is."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

import typer

from gatekeeper.cli.connection import with_client, with_options
from gatekeeper.cli.output import REFUSED, USAGE, console, plain, print_columns, print_json, several, stop, warn
from gatekeeper.client import HubClient
from gatekeeper.errors import HubNotFoundError, HubProtocolError
from gatekeeper.keys.gate_report import GateRow

__all__ = ("concerns", "list_gates", "span")

TITLES: Final = ("ID", "HOST", "VERSION", "LIST", "STATE", "AGE", "KEYS", "SEEN")
HOST: Final = 1
LEAST: Final = {HOST: 12}  # the column that may be folded, with its least width

SILENT_AFTER: Final = timedelta(minutes=3)  # a gate reports once a minute
NAMED: Final = 3  # ids in a warning
TENTHS_BELOW: Final = 9.95  # seconds

_NO_ENDPOINT: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_SPANS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


@with_client
def list_gates(client: HubClient, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the gates that run, and warn of those that lag behind."""
    try:
        gates = client.gates.list()
    except (HubNotFoundError, HubProtocolError) as error:
        if error.status not in _NO_ENDPOINT and error.status != HTTPStatus.OK:
            raise
        problem = f"this hub does not list gates; newer versions of the reference hub do ({with_options(error)})"
        stop(REFUSED if error.status in _NO_ENDPOINT else USAGE, problem)
    now = datetime.now(UTC)
    if as_json:
        print_json(gates)
    elif gates:
        print_columns([TITLES, *(_cells(gate, now) for gate in gates)], foldable=LEAST)
    else:
        console(stderr=True).print(
            "no gate has reported itself within 24 hours. A gate does so in its first minute, and then once a minute, "
            "unless its usage_interval is 0."
        )
    for concern in concerns(gates, now):
        warn(concern)


def concerns(gates: Sequence[GateRow], now: datetime) -> Iterator[str]:
    """Say what is wrong with gates, a sentence for each kind.

    Args:
        gates: as the hub lists them.
        now: the current time, with a time zone.
    """
    silent = [gate for gate in gates if now - gate.seen_at > SILENT_AFTER]
    heard = [gate for gate in gates if gate not in silent]
    newest = max((_order(gate.version) for gate in gates), default=())
    old = [gate for gate in heard if () < _order(gate.version) < newest]
    stale = [gate for gate in heard if gate.state != "fresh"]
    if stale:
        yield f"{_named(stale)} no fresh list: see the log and /healthz there"
    if old:
        latest = next(gate.version for gate in gates if _order(gate.version) == newest)
        yield f"{_named(old)} an older version than {latest}, which others have: update gatekeeper there"
    if silent:
        yield f"{_named(silent)} not reported for 3 minutes: stopped, or cut off from the hub"


def span(seconds: float) -> str:
    """Format seconds, such as "0.4 s", "3 min" or "2 h"."""
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < TENTHS_BELOW else f"{seconds:.0f} s"


def _cells(gate: GateRow, now: datetime) -> tuple[str, ...]:
    return (
        plain(gate.id),
        plain(gate.host or ""),
        plain(gate.version),
        "live" if gate.is_live else "polled",
        plain(gate.state),
        "none" if gate.list_age is None else span(gate.list_age),
        str(gate.keys),
        # The clock of the hub may be ahead.
        f"{span(max(0.0, (now - gate.seen_at).total_seconds()))} ago",
    )


def _named(gates: Sequence[GateRow]) -> str:
    ids = ", ".join(plain(gate.id) for gate in gates[:NAMED])
    more = f" and {len(gates) - NAMED} more" if len(gates) > NAMED else ""
    return f"{several(len(gates), 'gate')} ({ids}{more}) {'has' if len(gates) == 1 else 'have'}"


def _order(version: str) -> tuple[int, ...]:
    """The numbers of a version, by which versions compare; empty for any other text."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else ()
