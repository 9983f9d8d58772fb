"""ListSync: the parts that keep the list of one source fresh."""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from gatekeeper.client import TokenScope
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import load
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.sync.account_log import Logger
from gatekeeper.sync.applying import Applier, RemovalGuard, SharedList
from gatekeeper.sync.cadence import Cadence, UnknownKeyBudget, WholeLists
from gatekeeper.sync.clock import Alarm, Clock, Sleep, boot_clock, boot_sleep
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.gate_reporter import FIRST, INTERVAL, GateReporter, ReportsGate
from gatekeeper.sync.heartbeat import Heartbeat
from gatekeeper.sync.hub_source import HubSource
from gatekeeper.sync.live import LiveWait
from gatekeeper.sync.loading import MAX_ROWS, ListLoader
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.refresher import Refresher
from gatekeeper.sync.refused import refused_report
from gatekeeper.sync.reporting import Reporting, Turns
from gatekeeper.sync.reports import Report, Reporter
from gatekeeper.sync.schedule import Schedule
from gatekeeper.sync.snapshot import Snapshot
from gatekeeper.sync.snapshot_keeper import SnapshotKeeper
from gatekeeper.sync.sources import NeverChanges, ReportsRefused, ReportsUsage, Source, covers_all_accounts
from gatekeeper.sync.status import Status
from gatekeeper.sync.updating import ListUpdater
from gatekeeper.sync.usage import usage_report

__all__ = ("ListSync", "SyncOptions", "negative", "not_positive")

logger = logging.getLogger("gatekeeper")


class SyncOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the list is kept fresh. Most are options of Gatekeeper, which says what they mean.

    Attributes:
        usage_timeout: seconds that one report to the hub may take.
        max_rows: rows that a list may have.
    """

    refresh_interval: float = 10.0
    snapshot_path: str | Path | None = None
    soft_stale: float = 60.0
    hard_stale: float = 86_400.0
    fetch_timeout: float = 30.0
    usage_interval: float = 30.0
    usage_timeout: float = 5.0
    max_rows: int = MAX_ROWS
    clock: Clock = boot_clock
    wall_clock: Clock = time.time
    sleep: Sleep = boot_sleep
    jitter: Callable[[], float] = random.random

    def problems(self) -> Iterator[str]:
        """Say what is wrong with the values, a sentence each."""
        yield from not_positive(
            refresh_interval=self.refresh_interval, fetch_timeout=self.fetch_timeout, soft_stale=self.soft_stale
        )
        yield from negative(hard_stale=self.hard_stale, usage_interval=self.usage_interval)


class ListSync:
    """Keeps the list of one source in an index.

    Its parts are shared by the refreshers of all event loops, each of which is made of them and a few of its own.

    Args:
        source: where the list comes from.
        index: where it is kept.
        options: how.
        on_change: called after decisions may have changed.
        on_deadline: called with the moment up to which decisions may be remembered, whenever it moves.
        take_used_keys: gives the allowed requests by key id since it was last called.
        take_refused: gives the pages that were refused since it was last called.
        log_to: where it is logged.

    Attributes:
        freshness: the age of the list.
        log: what has happened to it.
        is_static: whether the list never changes, so that nothing has to run.
        reporting: sends what the source is told, beside the refreshers.
    """

    def __init__(
        self,
        source: Source,
        index: KeyIndex,
        options: SyncOptions,
        *,
        on_change: Callable[[], None],
        on_deadline: Callable[[float], None],
        take_used_keys: Callable[[], Counter[str]],
        take_refused: Callable[[], Sequence[RefusedPage]],
        log_to: Logger = logger,
    ) -> None:
        clock, wall_clock = options.clock, options.wall_clock
        self.is_static = isinstance(source, NeverChanges)
        soft_stale, hard_stale = (math.inf, 0.0) if self.is_static else (options.soft_stale, options.hard_stale)
        self.freshness = Freshness(soft_stale=soft_stale, hard_stale=hard_stale, clock=clock)
        self.log = RefreshLog(log_to, wall_clock)
        self._source = source
        self._options = options
        self._shared = SharedList()
        self._applier = Applier(index, self._shared, self.freshness, RemovalGuard(), self.log, on_change, clock)
        self._alarm = Alarm(clock, options.sleep)
        self._heartbeat = Heartbeat(options.refresh_interval, clock, lambda: on_deadline(self.deadline))
        self._whole_lists = WholeLists(clock, options.jitter)
        self._snapshots = self._snapshot_keeper()
        self.reporting = Reporting(clock, options.sleep)
        if options.usage_interval:
            if isinstance(source, ReportsUsage):
                self._add_reporter(usage_report(source, take_used_keys, wall_clock), log_to)
            if isinstance(source, ReportsRefused):
                self._add_reporter(refused_report(source, take_refused), log_to)
            if isinstance(source, ReportsGate):
                timeout, counters = options.usage_timeout, self.log.counters
                reporter = GateReporter(source, lambda: self.status, timeout=timeout, counters=counters, log_to=log_to)
                self.reporting.add(reporter, Turns(INTERVAL, clock, options.jitter, first=FIRST))
        if isinstance(source, NeverChanges):
            load(index, source.rows)
            self.freshness.record_success(clock())
            self.log.ambiguous = index.ambiguous()
        on_deadline(self.deadline)

    @property
    def generation(self) -> int:
        """How many lists have changed something."""
        return self._shared.generation

    @property
    def deadline(self) -> float:
        """The moment up to which decisions may be remembered, by the clock."""
        return math.inf if self.is_static else min(self.freshness.expires_at, self._heartbeat.overdue_at)

    @property
    def is_overdue(self) -> bool:
        """Whether there is a list, and no refresher keeps to its schedule."""
        return not self.is_static and self.freshness.has_list and self._heartbeat.is_overdue

    @property
    def is_live(self) -> bool:
        """Whether the source tells of each change."""
        return self._heartbeat.lead.is_live and self.freshness.state == "fresh" and self.log.last_error is None

    @property
    def status(self) -> Status:
        """How fresh the list is, and what has happened to it."""
        freshness, log, shared = self.freshness, self.log, self._shared
        return Status(
            state=freshness.state,
            age=freshness.age,
            keys=len(self._applier.index),
            generation=shared.generation,
            etag=shared.basis.validator,
            last_error=log.last_error,
            ambiguous=tuple(log.ambiguous),
            rejected=log.rejected,
            counters=dict(log.counters),
            held=shared.held,
            from_snapshot=freshness.from_snapshot,
            revocation_lag=log.revocation_lag,
            rejected_rows=log.rejected_rows,
            event_loop_lag=self._alarm.lag,
            is_refreshing=not self._heartbeat.is_overdue,
            is_live=self.is_live,
            token_scope=self._token_scope,
        )

    def new_refresher(self) -> Refresher:
        """Make a refresher for one event loop."""
        options, clock = self._options, self._options.clock
        rows = RowReader(self._source.suffix_field, needs_account=covers_all_accounts(self._source))
        loader = ListLoader(self._applier.index, rows, self._whole_lists, clock, max_rows=options.max_rows)
        updater = ListUpdater(
            loader, self._applier, self._shared, self.freshness, self._whole_lists, self.log, options.fetch_timeout, clock
        )
        return Refresher(
            self._source,
            updater,
            Schedule(self._heartbeat, self._alarm, clock),
            Cadence(options.refresh_interval, options.jitter),
            UnknownKeyBudget(clock),
            LiveWait(options.refresh_interval, options.jitter),
            self.freshness,
            self._log_state,
            clock,
            self._snapshots,
            options.sleep,
        )

    def after_fork(self) -> None:
        """Forget the refreshers, the locks and the counts of the parent."""
        self._shared.after_fork()
        self._heartbeat.stop()
        self.reporting.after_fork()

    def _add_reporter(self, report: Report[Any, Any], log_to: Logger) -> None:
        options = self._options
        timeout, counters = options.usage_timeout, self.log.counters
        reporter = Reporter(report, timeout=timeout, clock=options.clock, counters=counters, log_to=log_to)
        self.reporting.add(reporter, Turns(options.usage_interval, options.clock, options.jitter))

    @property
    def _token_scope(self) -> TokenScope | None:
        return self._source.token_scope if isinstance(self._source, HubSource) else None

    def _log_state(self) -> None:
        self.log.state(self.freshness.state, self.freshness.age, len(self._applier.index))
        self.log.token_scope(self._token_scope)

    def _snapshot_keeper(self) -> SnapshotKeeper | None:
        options, source = self._options, self._source
        if options.snapshot_path is None or self.is_static:
            return None
        wall_clock = options.wall_clock
        snapshot = Snapshot(
            options.snapshot_path,
            account=self._applier.index.account,
            fingerprint=lambda: source.fingerprint,
            wall_clock=wall_clock,
        )
        return SnapshotKeeper(
            snapshot, self._applier.index, self._shared, self.freshness, self.log, options.clock, wall_clock
        )


def not_positive(**seconds: object) -> Iterator[str]:
    """Say which options are not seconds, more than 0."""
    for name, value in seconds.items():
        if not (_is_number(value) and value > 0):
            yield f"{name} is {value!r}: expected seconds, more than 0"


def negative(**seconds: object) -> Iterator[str]:
    """Say which options are not seconds, 0 or more."""
    for name, value in seconds.items():
        if not (_is_number(value) and value >= 0):
            yield f"{name} is {value!r}: expected seconds, 0 or more"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
