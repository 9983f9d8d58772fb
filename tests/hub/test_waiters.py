"""Requests that wait for a change, over fake reads and a clock that skips."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message

from gatekeeper.errors import DatabaseDown
from gatekeeper.hub.accounts import ALL_ACCOUNTS, Revision
from gatekeeper.hub.changes import Watch
from gatekeeper.hub.deltas import Delta, ListState, Look
from gatekeeper.hub.list_request import ListRequest
from gatekeeper.hub.problems import Problem
from gatekeeper.hub.tokens import Bearer
from gatekeeper.hub.waiters import Reads, Waiters
from gatekeeper.hub.waiting_room import Waited
from tests.support.loops import run_skipping

TICK = 0.1


def revision(number: int) -> Revision:
    return Revision(number, f"{number:016}")


def skipping(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test on a clock that skips."""

    @wraps(test)
    def run(*arguments: object, **named: object) -> None:
        run_skipping(test(*arguments, **named))

    return run


class World:
    """The database of a hub, other processes, and requests.

    Attributes:
        revisions: the present revision of each account.
        valid: the ids of valid tokens.
        latency: how long a read takes, in seconds.
        step: how long it takes to find out whether any account has changed, in seconds.
        log: the time and name of each read.
        asked_for: the accounts whose revisions have been read.
        hints: the accounts that may have changed, for each read of a state.
        is_down: whether the reads fail.
        work: the processor time that the process has used.
        waiters: what is tested.
    """

    def __init__(self, *, bound: int = 1000) -> None:
        self.revisions = {"acme": revision(1)}
        self.valid = {"t"}
        self.latency = 0.0
        self.step = 0.0
        self.log: list[tuple[float, str]] = []
        self.asked_for: list[str] = []
        self.hints: list[set[str]] = []
        self.is_down = False
        self.during: Callable[[], None] = lambda: None
        self.work: Callable[[], float] = lambda: 0.0
        reads = Reads(self._revisions, self._tokens, self._look)
        self.waiters = Waiters(reads, self, bound=bound, used=self._used)
        self.follows = 0
        self.broken = 0
        self.breaks_at_end = False

    async def follow(self, watch: Watch) -> None:
        """Tell of nothing."""
        self.follows += 1
        if self.follows <= self.broken:
            raise RuntimeError("broken")
        await watch.begun()
        try:
            await asyncio.Event().wait()
        finally:
            if self.breaks_at_end:
                raise RuntimeError("broken")

    def change(self, account: str = "acme", *, tell: bool = True) -> None:
        """Commit a change."""
        number = self.revisions[account].number + 1
        self.revisions[account] = revision(number)
        if tell:
            self.waiters.look(account)

    def asked(self, account: str = "acme", *, deltas: bool = True) -> ListRequest:
        """A request that holds the present list."""
        return ListRequest(frozenset({self.revisions[account].etag}), takes_delta=deltas, takes_gzip=False, wait=9)

    def begin(
        self,
        seconds: int = 9,
        *,
        asked: ListRequest | None = None,
        account: str = "acme",
        token: str = "t",
        left: asyncio.Event | None = None,
    ) -> "asyncio.Task[Waited | None]":
        """Begin a request."""
        messages: list[Message] = [{"type": "http.request"}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await (left or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        bearer = Bearer(account, "gate", "gate", token)
        return asyncio.create_task(self.waiters.wait(bearer, asked or self.asked(account), seconds, receive))

    def reads(self, name: str) -> list[float]:
        """The times of the reads of this name."""
        return [at for at, read in self.log if read == name]

    def _used(self) -> float:
        return self.work()

    async def _read(self, name: str) -> None:
        self.log.append((now(), name))
        if self.is_down:
            raise DatabaseDown("down")
        self.during()
        await asyncio.sleep(self.latency)

    async def _revisions(self, accounts: Collection[str]) -> dict[str, Revision]:
        found = {account: self.revisions[account] for account in accounts if account in self.revisions}
        self.asked_for += accounts
        await self._read("revisions")
        if ALL_ACCOUNTS in accounts:
            await asyncio.sleep(self.step)
        return found

    async def _tokens(self, ids: Collection[str]) -> set[str]:
        await self._read("tokens")
        return self.valid & set(ids)

    async def _look(
        self, account: str, bases: Collection[Revision], changed: Collection[str], token_ids: Collection[str]
    ) -> Look:
        self.hints.append(set(changed))
        await self._read("state")
        present, base = self.revisions[account], max(bases)
        state = ListState(present, None if base == present else Delta(base, present, b"[]", b""))
        return Look(state, self.valid & set(token_ids))


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def world(*, bound: int = 1000) -> AsyncIterator[World]:
    """Open the waiters of a world."""
    made = World(bound=bound)
    async with made.waiters.open():
        yield made


async def settled() -> None:
    """Let everything happen that waits for no timer."""
    for _ in range(200):
        await asyncio.sleep(0)


def result(task: "asyncio.Task[Waited | None]") -> Waited:
    outcome = task.result()
    assert outcome is not None
    return outcome


async def told(task: "asyncio.Task[Waited | None]") -> Waited:
    await asyncio.wait([task])
    return result(task)


@skipping
async def test_requests_with_the_same_list_are_answered_from_one_delta() -> None:
    async with world() as acme:
        waiting = [acme.begin() for _ in range(100)]
        await settled()
        assert not any(task.done() for task in waiting)
        assert acme.reads("state") == []
        acme.change()
        await settled()
        assert {(result(task).state.revision, result(task).is_last) for task in waiting} == {(revision(2), False)}
        assert len({id(result(task).state.delta) for task in waiting}) == 1
        assert len(acme.reads("state")) == 1
        assert len(acme.waiters) == 0


@skipping
async def test_a_change_that_is_told_takes_one_read() -> None:
    async with world() as acme:
        waiting = [acme.begin() for _ in range(3)]
        await settled()
        acme.log.clear()
        acme.change()
        await settled()
        assert [name for _, name in acme.log] == ["state"]
        assert {result(task).state.revision.number for task in waiting} == {2}


@skipping
async def test_a_change_is_acknowledged_once_those_who_wait_are_answered() -> None:
    async with world() as hub:
        hub.revisions[ALL_ACCOUNTS] = revision(7)
        waiting = [hub.begin() for _ in range(25)] + [hub.begin(account=ALL_ACCOUNTS)]
        await settled()
        hub.latency = 0.001
        hub.change(ALL_ACCOUNTS, tell=False)
        hub.change(tell=False)
        await hub.waiters.tell("acme")
        assert {result(task).state.revision.number for task in waiting} == {2, 8}


@skipping
async def test_a_change_during_a_look_is_acknowledged_after_another_one() -> None:
    async with world() as acme:
        acme.latency = 0.004
        waiting = acme.begin()
        await asyncio.sleep(0.001)  # the look for the new request has read the list of before
        acme.change(tell=False)
        await acme.waiters.tell("acme")
        assert result(waiting).state.revision.number == 2


@skipping
async def test_a_change_that_no_request_waits_for_is_acknowledged_at_once() -> None:
    async with world() as acme:
        begun = now()
        acme.change(tell=False)
        await acme.waiters.tell("acme")
        assert now() == begun
        assert acme.log == []


@skipping
async def test_a_slow_database_delays_an_acknowledgement_little() -> None:
    async with world() as acme:
        waiting = acme.begin()
        await settled()
        acme.latency, begun = 3.0, now()
        acme.change(tell=False)
        await acme.waiters.tell("acme")
        assert 0 < now() - begun < 0.02
        assert not waiting.done()
        assert (await told(waiting)).state.revision.number == 2


@skipping
async def test_a_database_that_is_down_delays_no_acknowledgement() -> None:
    async with world() as acme:
        acme.begin()
        await settled()
        acme.is_down, begun = True, now()
        await acme.waiters.tell("acme")
        await acme.waiters.tell("acme")
        assert now() == begun


@skipping
async def test_a_hub_stops_although_what_tells_of_changes_fails_then() -> None:
    async with asyncio.timeout(100), world() as acme:
        acme.breaks_at_end = True
        acme.begin()
        await settled()


@skipping
async def test_a_pause_between_two_sweeps_delays_no_acknowledgement() -> None:
    async with world() as acme:
        acme.latency = 0.1
        first = acme.begin()
        await asyncio.sleep(1)
        acme.change()
        await told(first)
        waiting, begun = acme.begin(), now()
        acme.change(tell=False)
        await acme.waiters.tell("acme")
        assert now() == begun
        assert not waiting.done()
        assert (await told(waiting)).state.revision.number == 3


@skipping
async def test_the_token_of_a_request_that_comes_during_the_read_is_checked() -> None:
    async with world() as acme:
        acme.valid = {"t", "later"}
        waiting = [acme.begin()]
        await settled()
        held = acme.asked()
        acme.change()
        acme.latency = 1
        await settled()
        waiting += [acme.begin(asked=held, token=token) for token in ("later", "revoked")]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Waited, Waited, Problem]


def naming(*revisions: Revision) -> ListRequest:
    """A request that names lists."""
    return ListRequest(frozenset(each.etag for each in revisions), takes_delta=True, takes_gzip=False, wait=9)


@skipping
async def test_those_who_name_other_lists_too_share_the_delta() -> None:
    async with world() as acme:
        waiting = [acme.begin(asked=naming(revision(1), revision(100 + number))) for number in range(50)]
        await settled()
        acme.change()
        await settled()
        assert {result(task).state.revision.number for task in waiting} == {2}
        assert {delta and delta.base for delta in (result(task).state.delta for task in waiting)} == {revision(1)}
        assert len(acme.reads("state")) == 1


@skipping
async def test_those_who_name_many_lists_delay_no_other() -> None:
    async with world() as acme:
        acme.latency = 0.01
        waiting = acme.begin()
        await asyncio.sleep(0.1)
        others = [acme.begin(asked=naming(revision(100 + number))) for number in range(200)]
        await asyncio.sleep(0.05)
        assert acme.reads("state")
        acme.change()
        begun = now()
        assert (await told(waiting)).state.revision.number == 2
        assert now() - begun < 1
        assert not all(task.done() for task in others)
        assert {(await told(task)).state.revision.number for task in others} <= {1, 2}


@skipping
async def test_each_list_that_clients_hold_has_a_delta_of_its_own() -> None:
    async with world() as acme:
        older = acme.asked()
        acme.change()
        waiting = [acme.begin(asked=asked) for asked in (older, acme.asked(), older)]
        await settled()
        assert [task.done() for task in waiting] == [True, False, True]
        acme.change()
        waiting += [acme.begin(asked=older), acme.begin(asked=acme.asked(deltas=False))]
        await asyncio.sleep(1)
        bases = [delta and delta.base.number for delta in (result(task).state.delta for task in waiting[:4])]
        assert bases == [1, 2, 1, 1]
        assert len(acme.reads("state")) == 3
        assert not waiting[4].done()


@skipping
async def test_a_client_that_takes_no_delta_learns_that_its_list_is_another() -> None:
    async with world() as acme:
        waiting = acme.begin(asked=acme.asked(deltas=False))
        acme.change()
        state = result(await finished(waiting)).state
        assert state == ListState(revision(2), None)
        assert acme.reads("state") == []


async def finished(task: "asyncio.Task[Waited | None]") -> "asyncio.Task[Waited | None]":
    await asyncio.wait([task], timeout=100)
    return task


@skipping
async def test_an_unchanged_list_is_answered_after_the_wait_and_not_before() -> None:
    async with world() as acme:
        begun = now()
        acme.begin(50)
        answer = result(await finished(acme.begin(7)))
        assert begun + 7 <= now() <= begun + 7 + 2 * TICK
        assert answer.state == ListState(revision(1), None)
        # One read when the request came, and one after its time.
        assert len(acme.reads("revisions")) == 2
        assert acme.reads("revisions")[-1] >= begun + 7
        await settled()
        acme.log.clear()
        acme.begin()
        await settled()
        assert acme.reads("tokens") == []  # an answered request is forgotten


@skipping
async def test_waits_that_end_together_share_a_read() -> None:
    async with world() as acme:
        await asyncio.sleep(0.001)
        waiting = []
        for _ in range(90):
            waiting.append(acme.begin(2))
            await asyncio.sleep(0.001)
        acme.log.clear()
        await asyncio.wait(waiting)
        assert len(acme.reads("revisions")) == 1
        assert len(acme.reads("tokens")) == 1


@skipping
async def test_a_change_between_the_request_and_the_read_is_not_lost() -> None:
    async with world() as acme:
        acme.latency = 0.05
        waiting = acme.begin()
        await asyncio.sleep(0.02)  # the read has begun, and has seen the list of before
        acme.change()
        await asyncio.sleep(0.3)
        assert result(waiting).state.revision.number == 2


@skipping
async def test_a_read_that_began_before_a_request_does_not_answer_it() -> None:
    async with world() as acme:
        acme.latency = 0.05
        acme.begin()
        await asyncio.sleep(0.02)
        acme.change(tell=False)  # by another worker, where the second client has its list from
        waiting = acme.begin()
        await asyncio.sleep(1)
        assert not waiting.done()


@skipping
async def test_requests_beyond_the_bounds_are_not_taken_on() -> None:
    async with world(bound=8) as acme:
        acme.revisions["globex"] = revision(1)
        waiting = [acme.begin() for _ in range(7)]
        await settled()
        assert [task.done() for task in waiting] == [False] * 6 + [True]
        assert waiting[6].result() is None
        others = [acme.begin(account="globex") for _ in range(3)]
        await settled()
        assert [task.done() for task in others] == [False, False, True]
        assert len(acme.waiters) == 8
        acme.change()
        await settled()
        assert len(acme.waiters) == 2


@skipping
async def test_a_client_that_leaves_frees_its_place() -> None:
    async with world() as acme:
        left = asyncio.Event()
        leaving, staying = acme.begin(left=left), acme.begin()
        await settled()
        left.set()
        await settled()
        assert len(acme.waiters) == 1
        with pytest.raises(ClientDisconnect):
            leaving.result()
        acme.change()
        await settled()
        assert result(staying).state.revision.number == 2
        await asyncio.sleep(1)
        assert not acme.waiters._rooms


@skipping
async def test_a_cancelled_request_frees_its_place() -> None:
    async with world() as acme:
        waiting = acme.begin()
        await settled()
        waiting.cancel()
        await settled()
        assert waiting.cancelled()
        assert len(acme.waiters) == 0


@pytest.mark.parametrize("changes", [True, False])
@skipping
async def test_a_token_that_was_revoked_meanwhile_gets_a_401(*, changes: bool) -> None:
    async with world() as acme:
        acme.valid.add("revoked")
        revoked, valid = acme.begin(token="revoked"), acme.begin()
        await settled()
        acme.valid.remove("revoked")
        if changes:
            acme.change()
        await finished(revoked)
        await finished(valid)
        with pytest.raises(Problem) as raised:
            revoked.result()
        assert (raised.value.status, raised.value.code) == (401, "token_unknown")
        assert result(valid).state.revision == acme.revisions["acme"]


@skipping
async def test_sweeps_pause_for_as_long_as_they_took() -> None:
    async with world() as acme:
        acme.latency = 0.05  # a sweep reads three times
        answered = 0
        first = now()
        while now() < first + 3:
            waiting = acme.begin(50)
            acme.change()
            await finished(waiting)
            answered += 1
        sweeps = acme.reads("state")
        assert answered == len(sweeps)
        assert all(later - earlier >= 0.3 for earlier, later in pairwise(sweeps))
        assert answered <= 11


@skipping
async def test_after_an_outage_the_next_change_is_told_soon() -> None:
    """The sweep before it has taken seconds."""
    async with world() as acme:
        waiting = acme.begin()
        await settled()
        acme.latency = 4.0
        acme.change()
        await finished(waiting)
        acme.latency = 0.0
        waiting = acme.begin()
        acme.change()
        begun = now()
        assert (await told(waiting)).state.revision.number == 3
        assert now() - begun < 0.3


@skipping
async def test_short_sweeps_are_5_ms_apart() -> None:
    async with world() as acme:
        for _ in range(20):
            waiting = acme.begin()
            acme.change()
            await finished(waiting)
        sweeps = acme.reads("state")
        assert len(sweeps) == 20
        assert all(later - earlier >= 0.005 for earlier, later in pairwise(sweeps))
        assert sweeps[-1] - sweeps[0] < 0.2


async def told_twice(acme: World, work: Callable[[float], float]) -> float:
    """Tell 400 requests of a change, and one of the next; the seconds from the first change to the last answer.

    Args:
        acme: the account.
        work: the processor time that the process has used, by the seconds since the first change.
    """
    waiting = [acme.begin() for _ in range(400)]
    await settled()
    told_at = now()
    acme.work = lambda: work(now() - told_at)
    acme.change()
    for each in waiting:
        await finished(each)
    next_one = acme.begin()
    acme.change()
    await finished(next_one)
    return now() - told_at


@skipping
async def test_a_sweep_pauses_for_as_long_as_its_answers_take() -> None:
    async with world() as acme:
        # The answers and the next requests take 0.1 s.
        assert await told_twice(acme, lambda passed: min(passed, 0.1)) == pytest.approx(0.2, abs=0.01)


@skipping
async def test_other_work_prolongs_a_pause_by_1_ms_an_answer_at_most() -> None:
    async with world() as acme:
        assert await told_twice(acme, lambda passed: passed) == pytest.approx(0.4, abs=0.01)


@skipping
async def test_a_pause_without_work_is_short() -> None:
    async with world() as acme:
        assert await told_twice(acme, lambda _: 0.0) < 0.02


@skipping
async def test_a_sweep_lets_others_have_their_turn() -> None:
    async with world() as acme:
        waiting = [acme.begin() for _ in range(500)]
        await settled()
        acme.change()
        turns = set()
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0)
            turns.add(sum(task.done() for task in waiting))
        assert len(turns) >= 40


@skipping
async def test_during_an_outage_new_requests_fail_and_others_go_on_waiting() -> None:
    async with world() as acme:
        waiting, ending = acme.begin(), acme.begin(1)
        await settled()
        acme.is_down = True
        acme.change()
        late = acme.begin(asked=acme.asked())
        await asyncio.sleep(3)
        for failed in (late, ending):
            with pytest.raises(DatabaseDown):
                failed.result()
        assert not waiting.done()
        # It is asked once a second, and at the end of each wait.
        assert len(acme.reads("revisions")) <= 6
        acme.is_down = False
        await asyncio.sleep(1.1)
        assert result(waiting).state.revision.number == 2


@skipping
async def test_an_error_of_the_hub_reaches_every_request() -> None:
    async with world() as acme:
        waiting = [acme.begin(), acme.begin()]
        await settled()

        def fail() -> None:
            raise ZeroDivisionError

        acme.during = fail
        acme.change()
        await settled()
        for task in waiting:
            with pytest.raises(ZeroDivisionError):
                task.result()


@skipping
async def test_a_standby_takes_on_no_wait() -> None:
    async with world() as acme:
        asked = acme.asked()
        del acme.revisions["acme"]
        waiting = acme.begin(asked=asked)
        await settled()
        assert waiting.result() is None


@skipping
async def test_the_stop_of_the_hub_ends_all_waits_after_a_read() -> None:
    async with world() as acme:
        acme.revisions["globex"] = revision(1)
        waiting = [acme.begin(), acme.begin(), acme.begin(account="globex")]
        await settled()
        acme.change("globex", tell=False)
        acme.log.clear()
        acme.waiters.stop()
        waiting.append(acme.begin())
        await settled()
        assert [(result(task).state.revision.number, result(task).is_last) for task in waiting] == [
            (1, True),
            (1, True),
            (2, True),
            (1, True),
        ]
        assert acme.reads("revisions")
        late = acme.begin()
        await settled()
        assert result(late).is_last


@skipping
async def test_the_stop_does_not_wait_for_the_pause_after_a_sweep() -> None:
    async with world() as acme:
        acme.latency = 10.0
        unknown = acme.asked()._replace(tags=frozenset({revision(9).etag}))
        assert (await finished(acme.begin(asked=unknown))).done()
        acme.latency = 0.0
        waiting = acme.begin(60)
        acme.waiters.stop()
        begun = now()
        await finished(waiting)
        assert now() - begun < 1


@skipping
async def test_the_end_of_the_lifespan_ends_all_waits_and_tasks() -> None:
    before = asyncio.all_tasks()
    async with world() as acme:
        waiting = acme.begin()
        await settled()
    await settled()
    assert result(waiting).is_last
    assert asyncio.all_tasks() == before


@skipping
async def test_a_hub_can_run_again() -> None:
    async with world() as acme:
        acme.begin()
        await settled()
    async with acme.waiters.open():
        waiting = acme.begin()
        await settled()
        assert not waiting.done()
        acme.change()
        await settled()
        assert not result(waiting).is_last


@skipping
async def test_a_look_at_all_accounts_is_one_read_and_finds_those_that_changed() -> None:
    async with world() as acme:
        names = [f"account-{number}" for number in range(20)]
        acme.revisions |= dict.fromkeys(names, revision(1))
        waiting = {name: acme.begin(account=name) for name in names}
        await settled()
        acme.change("account-7", tell=False)
        acme.log.clear()
        acme.asked_for.clear()
        await acme.waiters.look_at_all()
        assert [name for _, name in acme.log] == ["revisions"]
        await settled()
        assert acme.asked_for == names
        assert [name for name, task in waiting.items() if task.done()] == ["account-7"]


@skipping
async def test_a_look_at_an_account_without_requests_reads_nothing() -> None:
    async with world() as acme:
        for account in ("acme", "unknown"):
            acme.waiters.look(account)
        await settled()
        assert acme.log == []


@skipping
async def test_following_changes_begins_anew_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    made = World()
    made.broken = 2
    with caplog.at_level(logging.ERROR):
        async with made.waiters.open():
            await asyncio.sleep(10)
            assert made.follows == 3
    assert len(caplog.records) == 2


STEP = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(["acme", "globex"])),
    st.tuples(st.just("wait"), st.sampled_from(["acme", "globex"])),
    st.tuples(st.just("sleep"), st.floats(0.0, 0.3)),
    st.tuples(st.just("slow"), st.floats(0.0, 0.2)),
)


@given(st.lists(STEP, max_size=40))
@settings(max_examples=60, deadline=None)
def test_each_request_gets_a_list_that_its_client_lacks_or_a_304_in_time(steps: list[tuple[str, object]]) -> None:
    async def run() -> None:
        async with world() as hub:
            hub.revisions["globex"] = revision(1)
            waiting: list[tuple[float, int, str, asyncio.Task[Waited | None]]] = []
            changed: dict[str, list[float]] = {"acme": [], "globex": []}
            for action, value in steps:
                if isinstance(value, str) and action == "change":
                    hub.change(value)
                    changed[value].append(now())
                elif isinstance(value, str):
                    waiting.append((now(), hub.revisions[value].number, value, hub.begin(3, account=value)))
                elif isinstance(value, float) and action == "sleep":
                    await asyncio.sleep(value)
                elif isinstance(value, float):
                    hub.latency = value
            ends: dict[object, float] = {}
            for _, _, _, task in waiting:
                task.add_done_callback(lambda task: ends.setdefault(task, now()))
            await asyncio.sleep(30)
            for begun, held, account, task in waiting:
                answer = result(task).state.revision.number
                later = changed[account][held - 1 :]
                if answer == held:
                    assert ends[task] >= begun + 3
                    assert not [at for at in later if at < begun + 3]
                else:
                    assert answer > held
                    # A sweep and its pause take six reads of at most 0.2 s, twice at most before its own sweep.
                    assert ends[task] <= later[0] + 3.2

    run_skipping(run())


# Requests for the list of all accounts


@skipping
async def test_a_change_of_an_account_ends_the_waits_for_all_with_a_hint() -> None:
    async with world() as hub:
        hub.revisions[ALL_ACCOUNTS] = revision(7)
        mine, every = hub.begin(), hub.begin(account=ALL_ACCOUNTS)
        await settled()
        hub.change(ALL_ACCOUNTS, tell=False)
        hub.change("acme")
        await settled()
        assert (result(mine).state.revision.number, result(every).state.revision.number) == (2, 8)
        assert hub.hints == [{"acme"}, {"acme"}]


@skipping
async def test_an_unknown_account_ends_the_waits_for_all_too() -> None:
    """It is a new one."""
    async with world() as hub:
        hub.revisions[ALL_ACCOUNTS] = revision(7)
        mine, every = hub.begin(), hub.begin(account=ALL_ACCOUNTS)
        await settled()
        hub.change(ALL_ACCOUNTS, tell=False)
        hub.waiters.look("new")
        hub.waiters.look("newer")
        await settled()
        assert (mine.done(), result(every).state.revision.number) == (False, 8)
        assert hub.hints == [{"new", "newer"}]


@skipping
async def test_a_request_that_begins_with_a_change_relies_on_no_hint() -> None:
    """Another change may have been told before it came."""
    async with world() as hub:
        hub.revisions[ALL_ACCOUNTS] = revision(7)
        hub.begin(account=ALL_ACCOUNTS)
        await asyncio.sleep(0)
        hub.waiters.look("acme")
        await settled()
        assert hub.hints == [{ALL_ACCOUNTS}]
        hub.waiters.look("acme")
        await settled()
        assert hub.hints == [{ALL_ACCOUNTS}, {"acme"}]


@skipping
async def test_a_wait_that_ends_with_a_change_relies_on_no_hint() -> None:
    """Another change may not have been told yet."""
    async with world() as hub:
        hub.revisions[ALL_ACCOUNTS] = revision(7)
        waiting = hub.begin(5, account=ALL_ACCOUNTS)
        await settled()
        hub.latency = 1.0
        hub.during = lambda: hub.waiters.look("acme")
        hub.waiters.look("acme")
        await finished(waiting)
        assert hub.hints[0] == {"acme"}
        assert hub.hints[-1] == {ALL_ACCOUNTS}


@skipping
async def test_a_look_at_all_accounts_looks_for_any_change() -> None:
    async with world() as hub:
        hub.revisions[ALL_ACCOUNTS] = revision(7)
        waiting = [hub.begin(), hub.begin(account=ALL_ACCOUNTS)]
        await settled()
        hub.change(ALL_ACCOUNTS, tell=False)
        hub.asked_for.clear()
        await hub.waiters.look_at_all()
        await settled()
        assert [task.done() for task in waiting] == [False, True]
        assert (hub.asked_for, hub.hints) == (["acme"], [{ALL_ACCOUNTS}])


@skipping
async def test_a_long_step_delays_no_other_account() -> None:
    async with world() as hub:
        hub.revisions |= {ALL_ACCOUNTS: revision(7), "globex": revision(1)}
        hub.step = 30.0
        every, mine = hub.begin(account=ALL_ACCOUNTS), hub.begin(2)
        begun = now()
        await finished(mine)
        await finished(hub.begin(2, account="globex"))
        assert now() - begun < 5
        assert not every.done()
