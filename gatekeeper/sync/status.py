"""State, Status, RefreshReport: what a refresher tells about the list."""

from typing import Literal

import msgspec

from gatekeeper.client import TokenScope

__all__ = ("RefreshReport", "State", "Status")

State = Literal["never_loaded", "fresh", "degraded", "expired"]


class RefreshReport(msgspec.Struct, frozen=True):
    """The outcome of one fetch of the list.

    Attributes:
        outcome: "changed", "unchanged" or "failed".
        added, changed, removed: how many keys the list brought, altered and dropped.
        held: how many missing keys stay for now, because so many removals at once may be a mistake.
        rejected: how many of its rows could not be read.
        duration: seconds that it took.
        error: why it failed, as a sentence without secrets.
        retry_after: seconds after which the source asks to be asked again, if it said so.
        lasting: whether only a person can mend the failure.
    """

    outcome: Literal["changed", "unchanged", "failed"]
    added: int = 0
    changed: int = 0
    removed: int = 0
    held: int = 0
    rejected: int = 0
    duration: float = 0.0
    error: str | None = None
    retry_after: float | None = None
    lasting: bool = False


class Status(msgspec.Struct, frozen=True):
    """How fresh the gate's list is. A report: it has a field for everything that operators ask.

    Attributes:
        state: never_loaded, fresh, degraded or expired.
        age: seconds since the last accepted list was asked for; None before the first.
        keys: how many keys there are.
        generation: how many lists have changed something.
        etag: the source's name for the list, if it has one.
        last_error: why the last fetch failed, as a sentence; None if it did not.
        ambiguous: the last 8 characters of keys that cannot be told apart and are refused.
        rejected: what is wrong with the rows of the last list that could not be read, at most 10 of them.
        counters: how often each event has happened since the start, by name.
        held: how many keys the last list lacks that are not dropped yet.
        from_snapshot: whether the list comes from the disk, and none from the source has been accepted yet.
        revocation_lag: seconds from the hub's revoking a key to its being refused here, for the slowest one of the last
            list that brought any; None before the first.
        rejected_rows: how many rows of the last list could not be read.
        event_loop_lag: seconds that the refresher's waits ended too late in the last minute or two, the worst of them.
        is_refreshing: whether a refresher runs in this process and keeps to its schedule.
        is_live: whether the hub tells of each change at once; otherwise its list is polled.
        token_scope: the scope of the hub's token, "gate" or "admin", from the last answer; None if it did not say it.
        enforce: whether the gate turns refused requests away; otherwise it only observes.
        observed: how many requests it has let through that it would have refused.
    """

    state: State
    age: float | None
    keys: int
    generation: int
    etag: str | None
    last_error: str | None
    ambiguous: tuple[str, ...]
    rejected: tuple[str, ...]
    counters: dict[str, int]
    held: int = 0
    from_snapshot: bool = False
    revocation_lag: float | None = None
    rejected_rows: int = 0
    event_loop_lag: float = 0.0
    is_refreshing: bool = False
    is_live: bool = False
    token_scope: TokenScope | None = None
    enforce: bool = True
    observed: int = 0
