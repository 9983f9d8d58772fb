"""ListUpdater: one fetch of the list, from the question to the index.

A failure changes no decision: the last accepted list stays, with its age, which runs from the moment it was asked for.
"""

from dataclasses import dataclass
from http import HTTPStatus

import anyio
import msgspec

from gatekeeper.errors import HubError, SourceError
from gatekeeper.quoting import quoted
from gatekeeper.sync.applying import Applier, OvertakenError, SharedList
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.loading import ListLoader
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.sources import Updates
from gatekeeper.sync.status import RefreshReport

__all__ = ("ListUpdater",)

# At applying a list while other event loops apply theirs. Of three loops that never pause, one may lose ten times in a row.
ATTEMPTS = 100


@dataclass(eq=False)
class ListUpdater:
    """Fetches and applies lists, and records how that went."""

    loader: ListLoader
    applier: Applier
    shared: SharedList
    freshness: Freshness
    log: RefreshLog
    timeout: float  # seconds that one fetch may take in all
    clock: Clock
    failures: int = 0  # fetches in a row
    work: float = 0.0  # seconds that it took to read and apply the last list
    last_duration: float = 0.0  # seconds

    async def update(self, updates: Updates, *, is_trusted: bool = False) -> RefreshReport:
        """Fetch the list once, and apply what it changes. Nothing but cancellation is raised."""
        asked_at, bug = self.clock(), None
        try:
            report = await self._fetch_and_apply(updates, is_trusted=is_trusted)
        except TimeoutError:
            report = RefreshReport("failed", error=f"the list did not come within {self.timeout:g} s")
        except SourceError as error:
            report = RefreshReport("failed", error=str(error), retry_after=error.retry_after, lasting=error.lasting)
            if isinstance(error, HubError) and error.status == HTTPStatus.NOT_MODIFIED:
                self.shared.forget_validator()  # it was about another list, so the next answer has to bring one
        except Exception as error:  # noqa: BLE001 - nothing ends the loop; it is logged with its traceback
            problem = f"refreshing failed in a way that is a bug: {type(error).__name__}: {quoted(str(error))}"
            report, bug = RefreshReport("failed", error=problem), error
            self.shared.forget_validator()
        self.last_duration = self.clock() - asked_at
        report = msgspec.structs.replace(report, duration=self.last_duration)
        if report.outcome == "failed":
            self.record_failure(report, bug)
        else:
            self.failures = 0
            self.freshness.record_success(asked_at)
            self.log.success(report)
        return report

    def record_failure(self, report: RefreshReport, bug: Exception | None) -> None:
        """Record a failed fetch, or a source that cannot be opened."""
        self.failures += 1
        self.log.failure(report, bug, has_list=self.freshness.has_list)

    async def _fetch_and_apply(self, updates: Updates, *, is_trusted: bool) -> RefreshReport:
        shared, hard_stale = self.shared, self.freshness.hard_stale
        for _ in range(ATTEMPTS):
            asked_at, generation, basis = self.clock(), shared.generation, shared.basis
            expired_ids = shared.expired_ids(asked_at - hard_stale) if hard_stale else ()
            try:
                with anyio.fail_after(self.timeout):
                    loaded = await self.loader.load(
                        updates, basis, expired_ids, has_list=self.freshness.has_list, is_trusted=is_trusted
                    )
                if loaded is None:
                    return RefreshReport("unchanged")
                self.work = self.loader.work
                if loaded.changes is None:
                    shared.rename(loaded.basis, generation)
                    return RefreshReport("unchanged")
                if loaded.problem is not None and loaded.changes.is_empty:
                    raise SourceError(loaded.problem)
                began = self.clock()
                report = await self.applier.apply(loaded, loaded.changes, asked_at, generation)
                self.work += self.clock() - began
            except (OvertakenError, RuntimeError, LookupError):
                # An index that changes while it is read does not hold together.
                if not shared.is_overtaken(generation):
                    raise
            else:
                if loaded.problem is not None:
                    raise SourceError(loaded.problem)
                return report
        raise SourceError(f"the lists of other event loops were applied {ATTEMPTS} times while this one was read")
