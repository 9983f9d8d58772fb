"""ListUpdater: one fetch of the list, from the question to the index.

A failure changes no decision: the last accepted list stays, with its age. The age runs from the moment at which the list was
asked for, and where the source has held its answer, from the moment at which that came.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import msgspec

from gatekeeper.client import if_nothing_was_sent
from gatekeeper.errors import HubError, HubTransportError, SourceError
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.quoting import quoted
from gatekeeper.sync.applying import Applier, Asked, OvertakenError, SharedList
from gatekeeper.sync.cadence import WholeLists
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.live import CUT_FROM
from gatekeeper.sync.loading import ListBasis, ListLoader, Loaded
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.sources import Basis, Delta, FullList, Unchanged, Updates
from gatekeeper.sync.status import RefreshReport

__all__ = ("GRACE", "Fetch", "ListUpdater")

# At applying a list while other event loops apply theirs. Of three loops that never pause, one may lose ten times in a row.
ATTEMPTS = 100
GRACE = 5.0  # seconds beyond a wait until its answer has to begin
# Seconds by which a held answer may come before its time: the clocks of two machines, and of their timers, run apart.
EARLY = 0.25
FAILED = HTTPStatus.INTERNAL_SERVER_ERROR  # the first status of a server that has failed


@dataclass(eq=False)
class Fetch:
    """One fetch of the list, and what has become of it.

    Attributes:
        wait: seconds for which the source may hold its answer; None for not at all.
        is_trusted: whether the list counts as it is.
        is_live: whether the source tells of each change, so that whole lists are rarely needed.
        let_it_end: called once the answer is not to be cut off any more.
        asked_at: when the source was asked, by the clock.
        answered_at: when its answer began to arrive.
        answer: the answer; None before.
        work: seconds that it took to read and apply the answer.
        cut_after: seconds after which a wait has ended without an answer.
        is_refused: whether no connection was made.
        is_misfit: whether the answer fits no list that is held, so that the whole list is needed.
    """

    wait: int | None = None
    is_trusted: bool = False
    is_live: bool = False
    let_it_end: Callable[[], None] = lambda: None
    asked_at: float = -math.inf
    answered_at: float = math.inf
    answer: FullList | Unchanged | Delta | None = None
    work: float = 0.0
    cut_after: float | None = None
    is_refused: bool = False
    is_misfit: bool = False

    @property
    def held(self) -> float | None:
        """Seconds for which the answer was held. None if it could not be."""
        return None if self.wait is None else self.answered_at - self.asked_at

    @property
    def granted(self) -> float | None:
        """Seconds for which the source has held its answer, or would have."""
        answer, wait = self.answer, self.wait
        if answer is None or answer.granted is None or wait is None or not 0 < answer.granted <= wait:
            return None
        tells_nothing = isinstance(answer, Unchanged) or (
            isinstance(answer, Delta) and answer.listing.validator == answer.base
        )
        return None if self.is_early and tells_nothing and not self.is_farewell else answer.granted

    @property
    def is_farewell(self) -> bool:
        """Whether the source stops, and has ended the wait early."""
        return isinstance(self.answer, Unchanged) and self.answer.is_last and self.is_early

    @property
    def is_early(self) -> bool:
        """Whether the answer came before the granted seconds were over."""
        granted = None if self.answer is None else self.answer.granted
        return granted is not None and self.answered_at - self.asked_at < granted - EARLY

    @property
    def invites_wait(self) -> bool:
        """Whether the answer says that the source may hold the next one."""
        return self.answer is not None and self.answer.may_wait

    @property
    def as_of(self) -> float:
        """The moment as of which the answer counts."""
        # A process that was frozen meanwhile finds an answer that has come long ago.
        return self.asked_at if self.granted is None else min(self.answered_at, self.asked_at + self.granted)


@dataclass(eq=False)
class ListUpdater:
    """Fetches and applies lists, and records how that went."""

    loader: ListLoader
    applier: Applier
    shared: SharedList
    freshness: Freshness
    whole_lists: WholeLists
    log: RefreshLog
    timeout: float  # seconds that one fetch may take in all, from its answer where the source may hold that
    clock: Clock
    failures: int = 0  # fetches in a row
    work: float = 0.0  # seconds that it took to read and apply the last list
    last_duration: float = 0.0  # seconds of the last fetch, without its wait

    async def update(self, updates: Updates, fetch: Fetch) -> RefreshReport:
        """Fetch the list once, and apply what it changes. Nothing but cancellation is raised."""
        began_at, bug = self.clock(), None
        try:
            report = await self._fetch_and_apply(updates, fetch)
        except TimeoutError as error:
            report = RefreshReport("failed", error=f"the list did not come within {self.timeout:g} s")
            self._note_failure(fetch, error)
            if fetch.cut_after is not None:
                problem = f"no answer came within {GRACE:g} s after the wait of {fetch.wait} s that was asked for"
                report = RefreshReport("failed", error=problem)
        except SourceError as error:
            report = RefreshReport("failed", error=str(error), retry_after=error.retry_after, lasting=error.lasting)
            self._note_failure(fetch, error)
        except Exception as error:  # noqa: BLE001 - nothing ends the loop; it is logged with its traceback
            problem = f"refreshing failed in a way that is a bug: {type(error).__name__}: {quoted(str(error))}"
            report, bug = RefreshReport("failed", error=problem), error
            self.shared.forget_validator()
        ended_at = self.clock()
        if fetch.wait is not None:
            began_at = ended_at if fetch.answer is None else fetch.answered_at
        report = msgspec.structs.replace(report, duration=ended_at - began_at)
        self.last_duration = report.duration
        if report.outcome == "failed":
            self.record_failure(report, bug)
        else:
            self.failures = 0
            self.log.success(report)
        return report

    def record_failure(self, report: RefreshReport, bug: Exception | None) -> None:
        """Record a failed fetch, or a source that cannot be opened."""
        self.failures += 1
        self.log.failure(report, bug, has_list=self.freshness.has_list)

    def _note_failure(self, fetch: Fetch, error: Exception) -> None:
        fetch.is_refused = if_nothing_was_sent(error)
        status = error.status if isinstance(error, HubError) else None
        is_cut = isinstance(error, TimeoutError | HubTransportError) and not fetch.is_refused
        if fetch.wait is not None and fetch.answer is None:
            after = self.clock() - fetch.asked_at
            # A proxy says so where no answer comes in its time: most with 504, others with 408, 502, 503 or 524.
            is_late = status is not None and (status == HTTPStatus.REQUEST_TIMEOUT or status >= FAILED) and after >= CUT_FROM
            fetch.cut_after = after if is_cut or is_late else None
        # Changes that break off are asked for once more: something on the way may never let them through.
        breaks_off = is_cut and not self.failures
        fetch.is_misfit = status == HTTPStatus.IM_USED or (isinstance(fetch.answer, Delta) and not breaks_off)
        if fetch.is_misfit or status == HTTPStatus.NOT_MODIFIED:
            self.shared.forget_validator()  # it was about another list, so the next answer has to bring one

    async def _fetch_and_apply(self, updates: Updates, fetch: Fetch) -> RefreshReport:
        shared, hard_stale, wait = self.shared, self.freshness.hard_stale, fetch.wait
        for _ in range(ATTEMPTS):
            asked = Asked(self.clock(), shared.generation, shared.basis.validator)
            fetch.asked_at, basis = asked.at, shared.basis
            expired_ids = shared.expired_ids(asked.at - hard_stale) if hard_stale else ()
            try:
                loaded = await self._load(updates, fetch, basis, expired_ids)
                fetch.work = self.loader.work
                if loaded is not None and loaded.changed_ids is None:
                    self.work = fetch.work
                if shared.basis.validator != asked.validator and (loaded is None or loaded.changed_ids is not None):
                    raise OvertakenError  # the answer is about a list that another event loop has replaced
                if loaded is not None and loaded.changes is not None:
                    report = await self._apply(loaded, loaded.changes, fetch, asked)
                else:
                    report = RefreshReport("unchanged")
                    if loaded is not None:
                        shared.rename(loaded.basis, asked.generation)
            except (OvertakenError, RuntimeError, LookupError) as error:
                # An index that changes while it is read does not hold together.
                if not (isinstance(error, OvertakenError) or shared.is_overtaken(asked.generation)):
                    raise
                if wait is not None:
                    return RefreshReport("unchanged")  # what that event loop has applied counts, and the next answer
            else:
                self.freshness.record_success(asked.at, as_of=fetch.as_of)
                return report
        raise SourceError(f"the lists of other event loops were applied {ATTEMPTS} times while this one was read")

    async def _load(self, updates: Updates, fetch: Fetch, basis: ListBasis, expired_ids: Collection[str]) -> Loaded | None:
        is_due = fetch.is_trusted or self.whole_lists.is_due(is_live=fetch.is_live and basis.is_exact)
        question = Basis(None) if is_due or basis.validator is None else Basis(basis.validator, fetch.wait)
        fetch.wait = question.wait
        if question.wait is None:
            fetch.let_it_end()
        within = self.timeout if question.wait is None else question.wait + GRACE
        with anyio.fail_after(within) as scope:

            def note_answer(answer: FullList | Unchanged | Delta) -> None:
                if question.wait is not None:
                    scope.deadline = anyio.current_time() + self.timeout
                fetch.answered_at, fetch.answer = self.clock(), answer
                fetch.let_it_end()
                if scope.cancel_called and not isinstance(answer, Unchanged):
                    raise TimeoutError  # its time is over, which ends the reading, too, as if nothing had changed

            return await self.loader.load(
                updates,
                question,
                basis,
                expired_ids,
                has_list=self.freshness.has_list,
                is_trusted=fetch.is_trusted,
                on_answer=note_answer,
            )

    async def _apply(self, loaded: Loaded, changes: ChangeSet, fetch: Fetch, asked: Asked) -> RefreshReport:
        if loaded.problem is not None and changes.is_empty:
            raise SourceError(loaded.problem)
        report = await self.applier.apply(loaded, changes, asked, as_of=fetch.as_of)
        fetch.work += self.applier.work
        if loaded.changed_ids is None:
            self.work = fetch.work
        else:
            fetch.is_misfit = self.shared.basis.validator is None
        if loaded.problem is not None:
            raise SourceError(loaded.problem)
        return report
