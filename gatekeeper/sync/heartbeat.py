"""Heartbeat: the moment at which the refreshers of a process are overdue."""

import math
from collections.abc import Callable

from gatekeeper.sync.clock import Clock
from gatekeeper.sync.live import Lead

__all__ = ("Heartbeat",)

LONGEST = 60.0  # seconds
GRACE = 5.0  # seconds


class Heartbeat:
    """The moment from which on the refreshers are overdue.

    A refresher renews it for as long as it keeps to its schedule. It passes where none can: in a frozen process, an event
    loop that was stopped, a forked child. Any refresher of the process counts.

    Attributes:
        ahead: seconds from a beat to the moment: at most the interval, or 60 s, and 5 s.
        overdue_at: the moment, by the clock; minus infinity while no refresher runs.
        lead: which of their event loops waits for the source.
    """

    def __init__(self, interval: float, clock: Clock, on_beat: Callable[[], None]) -> None:
        self.ahead = min(interval, LONGEST) + GRACE
        self.overdue_at = -math.inf
        self.lead = Lead(self.ahead, clock)
        self._clock = clock
        self._on_beat = on_beat
        self._running = 0

    @property
    def is_overdue(self) -> bool:
        """Whether no refresher keeps to its schedule."""
        return self._clock() >= self.overdue_at

    def begin(self) -> None:
        """Note that a refresher begins to run."""
        self._running += 1

    def renew(self) -> None:
        """Move the moment to `ahead` seconds from now."""
        self.overdue_at = self._clock() + self.ahead
        self._on_beat()

    def end(self) -> None:
        """Note that a refresher has ended. After the last one, all are overdue."""
        self._running -= 1
        if self._running <= 0:
            self.stop()

    def stop(self) -> None:
        """Note that no refresher runs, so all are overdue."""
        self._running = 0
        self.lead.after_fork()
        self.overdue_at = -math.inf
        self._on_beat()
