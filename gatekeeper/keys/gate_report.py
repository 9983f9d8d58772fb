"""GateReport, GateRow: what a gate tells the hub about itself."""

from datetime import datetime

import msgspec

__all__ = ("GateReport", "GateRow")


class GateReport(msgspec.Struct, frozen=True):
    """A gate, as it describes itself to the hub once a minute.

    Attributes:
        id: random, and the same for as long as the process runs.
        version: of gatekeeper, such as "0.1.0".
        is_live: whether the hub answers it as soon as the list changes; otherwise it polls.
        state: of its list, such as "fresh"; see `Status`.
        list_age: seconds since its list was asked for; None before the first one.
        keys: how many keys its list has.
        host: the name of its machine; None if it is not known.
    """

    id: str
    version: str
    is_live: bool
    state: str
    list_age: float | None = None
    keys: int = 0
    host: str | None = None


class GateRow(GateReport, frozen=True, kw_only=True):
    """A gate as the hub lists it.

    Attributes:
        seen_at: the time of its last report, by the clock of the hub.
    """

    seen_at: datetime
