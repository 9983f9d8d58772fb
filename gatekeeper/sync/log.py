"""RefreshLog: events of the list, for log, status and metrics.

The log has one line for each change of the list's state, at the moment it comes. Repeated failures are logged once. After
six successes in a row the recovery is logged, and the next failure is logged again. A token that may do more than a gate
needs is logged once.
"""

import logging
from collections import Counter
from collections.abc import Sequence

from gatekeeper.client import TokenScope
from gatekeeper.errors import SnapshotError
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.precedence import seconds
from gatekeeper.keys.client_key import mask
from gatekeeper.quoting import quoted
from gatekeeper.sync.account_log import Logger
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.loading import Loaded
from gatekeeper.sync.status import RefreshReport, State

__all__ = ("RefreshLog",)

NO_LIST = "every request is refused, because the list of widget keys has not come yet"
SETTLED_AFTER = 6  # successes in a row, which take a minute by default
MAX_DUPLICATES = 10  # ids that come more than once, and are logged


class RefreshLog:
    """Logs and counts what happened to the list.

    Args:
        logger: where it is logged.
        wall_clock: seconds since 1970.

    Attributes:
        logger: as given.
        counters: how often each event has happened, by name.
        last_error, ambiguous, rejected, rejected_rows, revocation_lag: as in `Status`.
    """

    def __init__(self, logger: Logger, wall_clock: Clock) -> None:
        self.counters: Counter[str] = Counter()
        self.last_error: str | None = None
        self.ambiguous: Sequence[str] = ()
        self.rejected: tuple[str, ...] = ()
        self.rejected_rows = 0
        self.revocation_lag: float | None = None
        self.logger = logger
        self._wall_clock = wall_clock
        self._logged_state: State = "never_loaded"
        self._logged_error: str | None = None
        self._successes = 0
        self._has_logged_admin = False

    def failure(self, report: RefreshReport, bug: Exception | None, *, has_list: bool) -> None:
        """Record a failed fetch; `bug` is an exception that nothing expects."""
        self.counters["refresh_failed"] += 1
        self.last_error = report.error
        self._successes = 0
        if self._logged_error != report.error:
            level = logging.WARNING if bug is None else logging.ERROR
            effect = "the list of widget keys stays as it is" if has_list else NO_LIST
            self.logger.log(level, "gatekeeper: %s: %s", effect, report.error, exc_info=bug)
        self._logged_error = report.error

    def success(self, report: RefreshReport) -> None:
        """Record a fetch that brought a list, or found it unchanged."""
        self.counters[f"refresh_{report.outcome}"] += 1
        self.last_error = None
        self._successes += 1
        if self._logged_error is not None and self._successes >= SETTLED_AFTER:
            self._logged_error = None
            # A warning, because uvicorn's default logging shows nothing below it.
            self.logger.warning("gatekeeper: the list of widget keys comes again, %d times in a row", self._successes)

    def state(self, state: State, age: float | None, keys: int) -> None:
        """Record the state of the list, and log a change."""
        before, self._logged_state = self._logged_state, state
        if state == before:
            return
        why = "" if self.last_error is None else f"; {self.last_error}"
        seconds = age or 0.0
        if state == "fresh":
            again = "" if before == "never_loaded" else " again"
            level = logging.WARNING if again or self._logged_error else logging.INFO
            self._logged_error = None
            self.logger.log(level, "gatekeeper: the list of widget keys is fresh%s: %d keys", again, keys)
        elif state == "degraded":
            text = "gatekeeper: the list of widget keys is degraded: it is %.0f s old, and still decides%s"
            self.logger.warning(text, seconds, why)
        elif state == "expired":
            text = "gatekeeper: the list of widget keys is expired: it is %.0f s old, and lets no key in%s"
            self.logger.error(text, seconds, why)

    def token_scope(self, scope: TokenScope | None) -> None:
        """Record the scope of the hub's token, and log admin once."""
        if scope == "admin" and not self._has_logged_admin:
            self._has_logged_admin = True
            self.logger.warning(
                "gatekeeper: the hub's token has the scope admin, so it can create, change and delete keys. "
                "A gate needs only the scope gate: gatekeeper hub token create --scope gate"
            )

    def live(self, *, is_live: bool) -> None:
        """Log whether the hub tells of each change at once."""
        if is_live:
            self.logger.info("gatekeeper: the list of widget keys is live: the hub tells of each change at once")
        else:
            self.logger.warning("gatekeeper: the list of widget keys is polled again: the hub holds no answers")

    def restored(self, state: State, age: float, keys: int, ambiguous: Sequence[str]) -> None:
        """Record that the list comes from the snapshot on disk."""
        self._logged_state = state
        self.ambiguous = ambiguous
        self.logger.info("gatekeeper: %d widget keys come from the snapshot, %.0f s old", keys, age)

    def removals_held(self, missing: int, total: int, *, is_first: bool) -> None:
        """Record that removals are held; log the first of several lists."""
        self.counters["removals_held"] += 1
        if is_first:
            self.logger.error(
                "gatekeeper: the list lacks %d of %d widget keys; they stay until two more lists lack as many, or for 60 s",
                missing,
                total,
            )

    def list_applied(self, loaded: Loaded, changes: ChangeSet, ambiguous: Sequence[str]) -> None:
        """Record what a list brought."""
        rejected_rows = sum(loaded.rejected_reasons.values())
        before = self.rejected
        if loaded.changed_ids is None or rejected_rows:  # changes do not tell of the other rows of the list
            self.rejected, self.rejected_rows = tuple(str(error) for error in loaded.rejected), rejected_rows
        self.counters["rows_rejected"] += rejected_rows
        for reason, count in loaded.rejected_reasons.items():
            self.counters[f"rows_rejected_{reason}"] += count
        self.counters["revocations"] += len(changes.revoked_at)
        self.counters["duplicate_ids"] += len(changes.duplicate_ids)
        self.counters["rows_overruled"] += changes.overruled_count
        for problem in self.rejected:
            if problem not in before:
                self.logger.warning("gatekeeper: set aside, its key stays as it was: %s", problem)
        for row_id in sorted(changes.duplicate_ids)[:MAX_DUPLICATES]:
            text = "gatekeeper: the list has id %s more than once; a disabled row stands, else the first"
            self.logger.warning(text, quoted(row_id))
        for last8 in set(ambiguous).difference(self.ambiguous):
            text = "gatekeeper: several widget keys end with %s and are refused, for they look alike"
            self.logger.error(text, mask(last8))
        self.ambiguous = ambiguous
        lags = [self._wall_clock() - since for since in map(seconds, changes.revoked_at) if since is not None]
        if lags:
            self.revocation_lag = max(0.0, *lags)

    def crash(self, error: BaseException | None) -> None:
        """Record that a refresher has crashed and is restarted."""
        self.counters["refresher_restarts"] += 1
        text = "gatekeeper: the refresher of the list of widget keys died and is brought back"
        self.logger.error(text, exc_info=error)

    def snapshot_failed(self, error: Exception) -> None:
        """Record that the snapshot could not be read or written."""
        self.counters["snapshot_failed"] += 1
        if isinstance(error, SnapshotError):
            self.logger.warning("gatekeeper: %s", error)
        else:
            self.logger.error("gatekeeper: the snapshot failed in a way that is a bug", exc_info=error)
