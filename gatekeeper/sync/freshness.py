"""Freshness, Status: how fresh the list is, whoever fetches it, and what has happened to it."""

import math
import time
from array import array
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Literal, NamedTuple

import anyio
import msgspec

__all__ = ("Clock", "Freshness", "KnownSlice", "RefreshReport", "State", "Status", "boot_clock", "boot_sleep")

MINUTE = 60.0  # seconds
TICK = 1.0  # seconds after which a sleeper looks at the clock again, so that it notices that the machine was suspended

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Clock = Callable[[], float]
State = Literal["never_loaded", "fresh", "degraded", "expired"]


def boot_clock() -> float:
    """Seconds that never run backwards and count a suspended machine's sleep, where the system has such a clock."""
    return time.clock_gettime(_CLOCK)


async def boot_sleep(seconds: float) -> None:
    """Sleep by `boot_clock`: event loops stop counting while the machine is suspended.

    Args:
        seconds: how long.
    """
    end = boot_clock() + seconds
    while (left := end - boot_clock()) > 0:  # noqa: ASYNC110 - time is all that it waits for
        await anyio.sleep(min(left, TICK))


class RefreshReport(msgspec.Struct, frozen=True):
    """What one fetch of the list came to.

    Attributes:
        outcome: "changed", "unchanged" or "failed".
        added, changed, removed: how many keys the list brought, altered and dropped.
        held: how many keys it lacks that are not dropped yet, because so many at once may be a mistake.
        rejected: how many of its rows could not be read.
        duration: seconds that it took.
        error: why it failed, as a sentence without secrets.
        retry_after: seconds after which the source wants to be asked again, where it said so.
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
    """How fresh the gate's list is.

    Attributes:
        state: never_loaded, fresh, degraded or expired.
        age: seconds since the last accepted list was asked for; None before the first.
        keys: how many keys there are.
        generation: how many lists have changed something.
        etag: what the source calls the list, where it does.
        last_error: why the last fetch failed, as a sentence; None if it did not.
        ambiguous: the last 8 characters of keys that cannot be told apart and are refused.
        rejected: what is wrong with the rows of the last list that could not be read, at most 10 of them.
        rejected_rows: how many there were.
        counters: how often what has happened since the start, by name.
        held: how many keys the last list lacks that are not dropped yet.
        from_snapshot: whether the list comes from the disk, and none from the source has been accepted yet.
        revocation_lag: seconds from the hub's revoking a key to its being refused here, for the slowest one of the last
            list that brought any; None before the first.
        event_loop_lag: seconds that the refresher's waits ended too late in the last minute or two, the worst of them.
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


class KnownSlice(NamedTuple):
    """A slice of a list whose rows need not be read again.

    Attributes:
        slots: where the index has them.
        size: see `Slice`.
    """

    slots: "array[int]"
    size: int


class Freshness:
    """How fresh a list is, and what is known of it; shared by the refreshers of all event loops.

    Args:
        soft_stale: seconds after which the list is degraded.
        hard_stale: seconds after which it is expired; 0 for never.
        clock: seconds; see `boot_clock`.

    Attributes:
        lock: held to begin or end applying a list.
        is_applying: whether some refresher is in the middle of it.
        generation: how many lists have changed something.
        validator: the source's own name for the list.
        dated_at: when the list was made, by the source's clock.
        digest: what tells the last list's bytes from any others.
        slices: the slices of the last list of which the index has every row as it is there, by their digests.
        kept_since: when keys were first kept as they are for a row that cannot be read, by id.
        told_state, told_error: what the log says last about the list's state and about why it could not be had.
        lists_in_a_row: how many lists have come since the last failure.
        held_since, held_lists: when so many keys were first missing that they were not dropped, and how many more lists
            have lacked as many since.

    The other attributes are those of Status.
    """

    def __init__(self, *, soft_stale: float, hard_stale: float, clock: Clock) -> None:
        self.hard_stale = hard_stale
        self._soft_stale = soft_stale
        self._clock = clock
        self._accepted_at: float | None = None
        self.lock = Lock()
        self.is_applying = False
        self.generation = 0
        self.validator: str | None = None
        self.dated_at: float | None = None
        self.digest: bytes | None = None
        self.slices: dict[bytes, KnownSlice] = {}
        self.kept_since: dict[str, float] = {}
        self.held_since: float | None = None
        self.held_lists = 0
        self.held = 0
        self.from_snapshot = False
        self.revocation_lag: float | None = None
        self.last_error: str | None = None
        self.ambiguous: tuple[str, ...] = ()
        self.rejected: tuple[str, ...] = ()
        self.rejected_rows = 0
        self.told_state: State = "never_loaded"
        self.told_error: str | None = None
        self.lists_in_a_row = 0
        self._lag_since = clock()
        self._lag = self._lag_before = 0.0
        self.counters: Counter[str] = Counter()

    @property
    def has_list(self) -> bool:
        """Whether there is a list, however old."""
        return self._accepted_at is not None

    @property
    def age(self) -> float | None:
        """Seconds since the last accepted list was asked for; None before the first."""
        return None if self._accepted_at is None else max(0.0, self._clock() - self._accepted_at)

    @property
    def state(self) -> State:
        """How fresh the list is now."""
        if self._accepted_at is None:
            return "never_loaded"
        age = self._clock() - self._accepted_at
        if self.hard_stale and age >= self.hard_stale:
            return "expired"
        return "degraded" if age >= self._soft_stale or self.from_snapshot else "fresh"

    @property
    def degrades_in(self) -> float | None:
        """Seconds until the list is degraded; None if it already is, or if there is none."""
        age = self.age
        if age is None or self.state != "fresh":
            return None
        return self._soft_stale - age

    @property
    def expires_in(self) -> float | None:
        """Seconds until the list expires; None if it never will, or already has."""
        age = self.age
        if age is None or not self.hard_stale or age >= self.hard_stale:
            return None
        return self.hard_stale - age

    @property
    def lapsed(self) -> frozenset[str]:
        """The ids of keys that were kept for rows that cannot be read for so long that they are trusted no more."""
        now = self._clock()
        return frozenset(row_id for row_id, since in self.kept_since.items() if 0 < self.hard_stale <= now - since)

    def status(self, keys: int) -> Status:
        """All of it at once.

        Args:
            keys: how many there are.
        """
        return Status(
            self.state,
            self.age,
            keys,
            self.generation,
            self.validator,
            self.last_error,
            self.ambiguous,
            self.rejected,
            dict(self.counters),
            self.held,
            self.from_snapshot,
            self.revocation_lag,
            self.rejected_rows,
            self.event_loop_lag,
        )

    @property
    def event_loop_lag(self) -> float:
        """Seconds that a wait ended too late, the worst of this minute and the one before it."""
        self._turn_minute()
        return max(self._lag, self._lag_before)

    def note_lag(self, seconds: float) -> None:
        """Note how much too late a wait has ended.

        Args:
            seconds: how much.
        """
        self._turn_minute()
        self._lag = max(self._lag, seconds)

    def _turn_minute(self) -> None:
        minutes = (self._clock() - self._lag_since) // MINUTE
        if minutes >= 1:
            self._lag, self._lag_before = 0.0, self._lag if minutes == 1 else 0.0
            self._lag_since += minutes * MINUTE

    def pin(self, ambiguous: tuple[str, ...]) -> None:
        """Note that there is a list, and that it is always fresh because it never changes.

        Args:
            ambiguous: as in `Status`.
        """
        self._soft_stale = self.hard_stale = math.inf
        self.ambiguous = ambiguous
        self.accept(self._clock())

    def is_superseded(self, asked_at: float) -> bool:
        """Whether a list that was asked for later has been accepted already, by the refresher of another event loop.

        Args:
            asked_at: when the list at hand was asked for, by the clock.
        """
        return self._accepted_at is not None and asked_at < self._accepted_at

    def accept(self, asked_at: float) -> None:
        """Note that a list was accepted from the source.

        Args:
            asked_at: when it was asked for, by the clock.
        """
        self.supersede(asked_at)
        self.last_error = None
        self.from_snapshot = False

    def restore(self, age: float) -> None:
        """Note that there is a list from the disk.

        Args:
            age: seconds since it was asked for.
        """
        self._accepted_at = self._clock() - age
        self.from_snapshot = True

    def supersede(self, asked_at: float) -> None:
        """Let no list that was asked for earlier be applied from now on.

        Args:
            asked_at: when the list at hand was asked for, by the clock.
        """
        if not self.is_superseded(asked_at):
            self._accepted_at = asked_at
