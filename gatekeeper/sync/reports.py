"""Reporter: sends counts to the hub in the background, in batches."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from http import HTTPStatus
from itertools import islice
from threading import Lock
from typing import Generic, Protocol, TypeVar

import anyio

from gatekeeper.errors import HubError, SourceError
from gatekeeper.sync.account_log import Logger
from gatekeeper.sync.clock import Clock

__all__ = ("NO_SUCH_ENDPOINT", "Report", "Reporter")

PAUSE = 3600.0  # seconds without reports to a hub that does not take them; a newer hub may
MAX_REJECTIONS = 20  # in one report; finding one bad item among 1,000 takes 10
NO_SUCH_ENDPOINT = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_REJECTED = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)

logger = logging.getLogger("gatekeeper")


class Counted(Protocol):
    """What a report says of one thing."""

    @property
    def count(self) -> int:
        """How often it has happened."""
        ...


Name = TypeVar("Name", bound=Hashable)
Item = TypeVar("Item", bound=Counted)


@dataclass(frozen=True)
class Report(Generic[Name, Item]):
    """A kind of report: what it says, and how it is sent.

    Attributes:
        name: the name of its counters.
        on: what it is about, for the log.
        send: sends a batch; raises SourceError.
        take: gives what is new since it was last called.
        add: adds two items of one name.
        batch: how many items are sent at once.
        most: how many items are kept for the next report after a failure; None for all.
        drops_rejected: whether an item that the hub rejects is dropped, so that it does not hold up the others.
    """

    name: str
    on: str
    send: Callable[[Mapping[Name, Item]], Awaitable[None]]
    take: Callable[[], Mapping[Name, Item]]
    add: Callable[[Item, Item], Item]
    batch: int
    most: int | None = None
    drops_rejected: bool = False


class Reporter(Generic[Name, Item]):
    """Sends one kind of report, each item once in a batch.

    All event loops of a process share it, and may use it at once.

    Args:
        report: the kind of report.
        timeout: seconds that one may take.
        clock: seconds; see `boot_clock`.
        counters: counts of batches.
        log_to: where it is logged.
    """

    def __init__(
        self, report: Report[Name, Item], *, timeout: float, clock: Clock, counters: Counter[str], log_to: Logger = logger
    ) -> None:
        self._report = report
        self._timeout = timeout
        self._clock = clock
        self._counters = counters
        self._log = log_to
        self._kept: dict[Name, Item] = {}
        self._lock = Lock()  # of what is kept
        self._paused_until = clock()
        self._has_warned = False

    async def report(self) -> None:
        """Report what is new since the last report."""
        report = self._report
        new = report.take()
        if self._clock() < self._paused_until:
            return
        with self._lock:
            unreported, self._kept = self._kept, {}
        self._add(unreported, new)
        try:
            with anyio.fail_after(self._timeout, reason=f"it has taken {self._timeout:g} s"):
                await self._send(unreported)
        except Exception as error:  # noqa: BLE001 - a source of the user's own raises anything; it is logged
            self._counters[f"{report.name}_failed"] += 1
            if isinstance(error, HubError) and error.status in NO_SUCH_ENDPOINT:
                self._paused_until = self._clock() + PAUSE
                unreported.clear()
                self._log.info("gatekeeper: the hub takes no reports on %s; it is asked again after 1 h", report.on)
            else:
                bug = None if isinstance(error, SourceError | TimeoutError) else error
                self._log.debug("gatekeeper: a report on %s has failed: %s", report.on, error, exc_info=bug)
        finally:
            # Rather count twice than lose a count: an owner may delete a key that looks unused.
            with self._lock:
                self._add(self._kept, unreported)
                if report.most is not None and len(self._kept) > report.most:
                    self._kept = dict(nlargest(report.most, self._kept.items(), key=lambda item: item[1].count))

    async def flush(self) -> None:
        """Report what is left, as the gate stops."""
        await self.report()

    def forget(self) -> None:
        """Drop what is unreported, because the parent process reports it."""
        self._kept = {}
        self._lock = Lock()

    async def _send(self, unreported: dict[Name, Item]) -> None:
        """Send items in batches, and take out what is sent or dropped.

        A batch that the hub rejects is halved until the bad item is alone, so that the others are reported.
        """
        report, rejections = self._report, 0
        size = report.batch
        while batch := dict(islice(unreported.items(), size)):
            try:
                await report.send(batch)
                self._counters[f"{report.name}_reported"] += 1
            except HubError as error:
                if not report.drops_rejected or error.status not in _REJECTED:
                    raise
                rejections += 1
                if len(batch) > 1 and rejections < MAX_REJECTIONS:
                    size = len(batch) // 2
                    continue
                self._drop(batch, error)
                size = report.batch
            for name in batch:
                del unreported[name]

    def _drop(self, batch: Mapping[Name, Item], error: HubError) -> None:
        self._counters[f"{self._report.name}_failed"] += 1
        level = logging.DEBUG if self._has_warned else logging.WARNING
        self._has_warned = True
        text = "gatekeeper: the hub has rejected %d of the reports on %s, which are dropped: %s"
        self._log.log(level, text, len(batch), self._report.on, error)

    def _add(self, items: dict[Name, Item], more: Mapping[Name, Item]) -> None:
        for name, new in more.items():
            old = items.get(name)
            items[name] = new if old is None else self._report.add(old, new)
