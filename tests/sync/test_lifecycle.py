"""Start, run and stop a gate in tasks, event loops, threads and processes."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import anyio
import pytest
from anyio.lowlevel import RunVar
from starlette.applications import Starlette

from gatekeeper import Basis, Decision, FullList, Gatekeeper, Listing, Reason, Source, StaticSource, Unchanged
from gatekeeper.gate.memo import Remembered
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.sync.lifecycle import RESTART_DELAY
from gatekeeper.sync.per_loop import PerLoop
from gatekeeper.sync.sources import Updates
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer
from tests.support.forked import forked
from tests.support.guarded import gate_of
from tests.support.loops import asyncio_only, leaving_nothing_behind, threads_switching_often
from tests.support.memory_source import MemorySource
from tests.support.remembered import leases_of, remembered_by
from tests.support.rows import ORIGIN, as_json, bad_row, client_key, row

# Starting at the first request


@asyncio_only
async def test_a_gate_starts_itself_at_its_first_request(hub: FakeHub) -> None:
    gate = gate_of(hub)
    assert hub.requests == []
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    assert len(hub.fetches) == 1


@asyncio_only
async def test_a_gate_that_started_itself_keeps_refreshing(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    hub.lists(row(1, disabled_at="now"))
    await fake.advance(10)
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED


@asyncio_only
async def test_a_hundred_concurrent_first_requests_start_one_refresher(hub: FakeHub) -> None:
    gate = gate_of(hub)
    decisions = await asyncio.gather(*(gate.check(client_key(1), ORIGIN) for _ in range(100)))
    assert {decision.reason for decision in decisions} == {Reason.ALLOWED}
    assert len(hub.fetches) == 1


@asyncio_only
async def test_the_refresher_does_not_run_in_the_context_of_a_request() -> None:
    user: ContextVar[str] = ContextVar("user", default="none")
    seen: list[str] = []
    source = MemorySource(row(1))
    source.on_fetch = lambda: seen.append(user.get())
    user.set("the first to come")
    await Gatekeeper(source).check(client_key(1), ORIGIN)
    assert seen == ["none"]


@asyncio_only
async def test_cancelling_the_first_request_does_not_stop_the_start(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic)
    with hub.held():
        with anyio.move_on_after(0.05):
            await gate.check(client_key(1), ORIGIN)
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    assert len(hub.fetches) == 1


@pytest.mark.skipif(find_spec("trio") is None, reason="trio is not installed")
def test_a_gate_on_asyncio_decides_on_trio_in_another_thread(hub: FakeHub) -> None:
    gate = gate_of(hub)
    decisions: list[Decision] = []

    async def on_trio() -> None:
        decisions.append(await gate.check(client_key(1), ORIGIN))

    async def on_asyncio() -> None:
        async with gate:
            await anyio.to_thread.run_sync(lambda: anyio.run(on_trio, backend="trio"))

    asyncio.run(on_asyncio())
    assert [decision.reason for decision in decisions] == [Reason.ALLOWED]


@pytest.mark.skipif(find_spec("trio") is None, reason="trio is not installed")
@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.anyio
async def test_under_trio_a_gate_starts_only_where_it_is_entered(hub: FakeHub) -> None:
    gate = gate_of(hub)
    assert (await gate.check(client_key(1), ORIGIN)).reason is Reason.NOT_READY
    assert hub.requests == []
    async with gate:
        assert (await gate.check(client_key(1), ORIGIN)).allowed


# async with, lifespan


@pytest.mark.anyio
async def test_an_entered_gate_is_ready(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate as entered:
        assert entered is gate
        assert gate.status.state == "fresh"
        assert gate.decide(client_key(1), ORIGIN).allowed


@asyncio_only
async def test_leaving_a_gate_leaves_no_task_behind(hub: FakeHub) -> None:
    async with leaving_nothing_behind():
        async with gate_of(hub, sleep=anyio.sleep) as gate:
            await gate.check(client_key(2), ORIGIN)
        with hub.held():
            async with gate_of(hub, start_timeout=0.01):
                pass


@asyncio_only
async def test_entering_a_started_gate_leaves_no_task_behind(hub: FakeHub) -> None:
    gate = gate_of(hub, sleep=anyio.sleep)
    async with leaving_nothing_behind():
        await gate.check(client_key(1), ORIGIN)
        async with gate:
            await gate.check(client_key(1), ORIGIN)


@asyncio_only
async def test_entering_a_started_gate_causes_no_more_fetches(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    await gate.check(client_key(1), ORIGIN)
    await fake.asleep()
    async with gate:
        await fake.asleep()
        before = len(hub.fetches)
        assert before <= 2
        await fake.advance(100)
        assert len(hub.fetches) - before <= 10


@pytest.mark.anyio
async def test_a_gate_that_was_left_fetches_nothing_and_ages(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate:
        pass
    fake.now += 99
    assert gate.decide(client_key(1), ORIGIN).allowed
    fake.now += 2
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.EXPIRED
    assert (gate.status.state, gate.status.age) == ("expired", 101)
    assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_a_gate_can_be_entered_again(hub: FakeHub) -> None:
    gate = gate_of(hub)
    for number in range(1, 4):
        async with gate:
            await gate.refresh()
            assert gate.decide(client_key(1), ORIGIN).allowed
        assert len(hub.fetches) == 2 * number


@pytest.mark.anyio
@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), ExceptionGroup("x", [OSError()])])
async def test_an_exception_inside_propagates_unchanged(hub: FakeHub, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with gate_of(hub):
            raise error
    assert caught.value is error


@pytest.mark.anyio
async def test_an_outer_timeout_cancels_a_gate(hub: FakeHub) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with gate_of(hub):
            await anyio.sleep(5)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_starting_can_be_cancelled(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=30)
    with hub.held():
        with anyio.move_on_after(0.05) as scope:
            async with gate:
                pytest.fail("there is no list to start with")
        assert scope.cancelled_caught
    async with gate:
        assert gate.decide(client_key(1), ORIGIN).allowed


@asyncio_only
async def test_a_gate_whose_start_was_cancelled_leaves_no_task_behind(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=30)
    async with leaving_nothing_behind():
        with hub.held(), anyio.move_on_after(0.05):
            async with gate:
                pytest.fail("there is no list to start with")
        async with gate:
            pass


@asyncio_only
async def test_a_gate_that_is_left_by_cancellation_leaves_no_task_behind(hub: FakeHub) -> None:
    async with leaving_nothing_behind():
        with anyio.move_on_after(0.05):
            async with gate_of(hub):
                await anyio.sleep(5)


@asyncio_only
async def test_a_gate_entered_while_another_task_leaves_it_runs() -> None:
    class SlowToClose(MemorySource):
        @asynccontextmanager
        async def connect(self) -> AsyncIterator[Updates]:
            async with super().connect() as updates:
                try:
                    yield updates
                finally:
                    await may_close.wait()

    may_close = anyio.Event()
    source, fake = SlowToClose(row(1)), FakeClock()
    gate = Gatekeeper(source, clock=fake, sleep=fake.sleep, jitter=lambda: 0.5)
    await gate.__aenter__()
    await fake.asleep()
    leaving = asyncio.create_task(gate.__aexit__(None, None, None))
    await anyio.wait_all_tasks_blocked()
    entering = asyncio.create_task(gate.__aenter__())
    await anyio.wait_all_tasks_blocked()
    may_close.set()
    await leaving
    await entering
    source.rows = [row(1, disabled_at="now")]
    with anyio.move_on_after(5):
        await fake.advance(20)
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED, "it was refreshed"
    await gate.__aexit__(None, None, None)


@pytest.mark.anyio
async def test_a_gate_entered_twice_runs_until_it_is_left_twice(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    async with gate:
        await fake.asleep()
        async with gate:
            assert gate.decide(client_key(1), ORIGIN).allowed
            assert len(hub.fetches) == 1
        hub.lists(row(1, disabled_at="now"))
        await fake.advance(10)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED
    assert len(hub.fetches) == 2


@pytest.mark.parametrize("first_to_leave", [0, 1])
@asyncio_only  # under trio the task that starts another one has to stop it
async def test_two_tasks_may_share_a_gate_and_leave_in_any_order(hub: FakeHub, first_to_leave: int) -> None:
    gate = gate_of(hub)
    may_leave = [anyio.Event(), anyio.Event()]
    have_left = [anyio.Event(), anyio.Event()]

    async def use(number: int) -> None:
        async with gate:
            assert gate.decide(client_key(1), ORIGIN).allowed
            await may_leave[number].wait()
        have_left[number].set()

    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(use, number)
                await hub.asked(1)
                await anyio.wait_all_tasks_blocked()
            for number in (first_to_leave, 1 - first_to_leave):
                may_leave[number].set()
                await have_left[number].wait()
    assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_a_lifespan_runs_the_gate(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate.lifespan(object()):
        assert gate.decide(client_key(1), ORIGIN).allowed
        hub.lists(row(1), row(2))
        assert (await gate.check(client_key(2), ORIGIN)).allowed
    assert not remembered_by(gate)


@pytest.mark.anyio
async def test_an_app_runs_the_gate_as_its_lifespan(hub: FakeHub) -> None:
    gate = gate_of(hub)
    app = Starlette(lifespan=gate.lifespan)
    async with app.router.lifespan_context(app):
        assert gate.status.state == "fresh"
    assert len(hub.fetches) == 1


# start, stop


@asyncio_only
async def test_a_gate_runs_from_its_start_to_its_stop(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    async with leaving_nothing_behind():
        await gate.start()
        assert gate.status.state == "fresh"
        hub.lists(row(1, disabled_at="now"))
        await fake.advance(10)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED
        await gate.stop()
    assert not remembered_by(gate)
    assert not gate.status.is_refreshing


@asyncio_only
async def test_a_gate_started_twice_runs_until_it_is_stopped_twice(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    async with leaving_nothing_behind():
        await gate.start()
        await gate.start()
        await gate.stop()
        hub.lists(row(1, disabled_at="now"))
        await fake.advance(10)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED
        await gate.stop()


@asyncio_only
async def test_stopping_a_gate_that_does_not_run_does_nothing(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with leaving_nothing_behind():
        await gate.stop()
        await gate.start()
        await gate.stop()
        await gate.stop()
    await Gatekeeper.from_rows([row(1)]).stop()
    assert len(hub.fetches) == 1


@asyncio_only
async def test_a_stop_ends_a_gate_that_started_at_its_first_request(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with leaving_nothing_behind():
        await gate.check(client_key(1), ORIGIN)
        await gate.stop()


@pytest.mark.parametrize("first_to_end", [0, 1])
@asyncio_only
async def test_a_start_and_an_entry_end_in_any_order(hub: FakeHub, first_to_end: int) -> None:
    gate = gate_of(hub)
    async with leaving_nothing_behind():
        await gate.start()
        await gate.__aenter__()
        ends: list[Callable[[], Awaitable[None]]] = [gate.stop, lambda: gate.__aexit__(None, None, None)]
        await ends[first_to_end]()
        assert gate.status.is_refreshing
        await ends[1 - first_to_end]()
    assert len(hub.fetches) == 1


@asyncio_only
async def test_a_stop_too_many_does_not_end_an_entered_gate(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate:
        await gate.stop()
        assert gate.status.is_refreshing


@asyncio_only
async def test_a_stopped_gate_can_be_started_again(hub: FakeHub) -> None:
    gate = gate_of(hub)
    for number in range(1, 4):
        await gate.start()
        hub.lists(row(number))
        await gate.refresh()
        assert gate.decide(client_key(number), ORIGIN).allowed
        await gate.stop()


@asyncio_only
async def test_a_start_that_was_cancelled_needs_no_stop(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=30)
    async with leaving_nothing_behind():
        with hub.held(), anyio.move_on_after(0.05) as scope:
            await gate.start()
        assert scope.cancelled_caught
        await gate.start()
        await gate.stop()


def test_a_stop_leaves_the_refreshers_of_other_event_loops(hub: FakeHub) -> None:
    gate = gate_of(hub, sleep=anyio.sleep)

    async def start_and_stop() -> None:
        await gate.start()
        await gate.stop()

    async def use() -> None:
        await gate.start()
        await anyio.to_thread.run_sync(lambda: asyncio.run(start_and_stop()))
        assert gate.status.is_refreshing
        await gate.stop()
        assert not gate.status.is_refreshing

    asyncio.run(use())


@asyncio_only
async def test_the_next_request_restarts_a_cancelled_refresher() -> None:
    source = MemorySource(row(1))
    fake = FakeClock()
    gate = Gatekeeper(source, clock=fake, sleep=fake.sleep)
    async with leaving_nothing_behind(), gate:
        source.broken = asyncio.CancelledError()
        await gate.refresh()
        source.broken, source.rows = None, [row(2)]
        assert (await gate.check(client_key(2), ORIGIN)).allowed
        await fake.asleep()


# Event loops, threads, processes


async def check_once(gate: Gatekeeper, number: int = 1) -> Decision:
    return await gate.check(client_key(number), ORIGIN)


def test_consecutive_event_loops_each_refresh(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    assert asyncio.run(check_once(gate)).allowed
    hub.lists(row(1), row(2))
    assert asyncio.run(check_once(gate, 2)).allowed
    assert not remembered_by(gate)

    async def enter() -> Decision:
        async with gate:
            return await check_once(gate, 2)

    assert asyncio.run(enter()).allowed
    assert asyncio.run(enter()).allowed


def test_a_new_event_loop_decides_by_the_last_list_while_the_hub_is_silent(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=3600, unknown_key_wait=0.05, clock=time.monotonic, sleep=anyio.sleep)
    assert asyncio.run(check_once(gate)).allowed
    with hub.held():
        assert asyncio.run(check_once(gate)).allowed
        assert len(hub.requests) == 2


def test_closing_an_event_loop_during_a_fetch_harms_no_other(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=0.05, clock=time.monotonic, sleep=anyio.sleep)
    with hub.held():
        assert asyncio.run(check_once(gate)).reason is Reason.NOT_READY

    async def refresh() -> None:
        await gate.refresh()
        assert (await check_once(gate)).allowed

    asyncio.run(refresh())


def test_two_event_loops_in_two_threads_share_the_list(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    both_are_in = threading.Barrier(2, timeout=5)
    decisions: list[list[bool]] = []

    async def use() -> None:
        seen = [(await check_once(gate)).allowed]
        await anyio.to_thread.run_sync(both_are_in.wait)
        seen.append((await check_once(gate)).allowed)
        await gate.refresh()
        seen.append((await check_once(gate)).allowed)
        await anyio.to_thread.run_sync(both_are_in.wait)
        decisions.append(seen)

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert decisions == [[True, True, True]] * 2
    assert not remembered_by(gate)


def test_a_gate_is_kept_fresh_as_long_as_one_of_its_loops_runs(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    remembered: list[int] = []

    async def stay() -> None:
        await check_once(gate)
        await anyio.to_thread.run_sync(lambda: asyncio.run(check_once(gate)))
        await check_once(gate)
        remembered.append(len(remembered_by(gate)))

    asyncio.run(stay())
    assert remembered == [1]


def test_a_late_list_does_not_undo_a_revocation_of_another_loop(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    hold = hub.hold()
    decisions: list[Reason] = []

    async def see_the_revocation() -> None:
        await check_once(gate)
        await gate.refresh()
        decisions.append((await check_once(gate)).reason)

    async def be_late() -> None:
        await check_once(gate)
        hub.then(HubAnswer(200, as_json(row(1), row(2)), hold=hold))
        asked = len(hub.fetches)
        late = asyncio.create_task(gate.refresh())
        await hub.asked(asked + 1)
        hub.lists(row(1, disabled_at="now"))
        await anyio.to_thread.run_sync(lambda: asyncio.run(see_the_revocation()))
        hold.release()
        await late
        decisions.append((await check_once(gate)).reason)

    asyncio.run(be_late())
    assert decisions == [Reason.KEY_DISABLED, Reason.KEY_DISABLED]


class Stuck(logging.Handler):
    """A log handler that blocks at its first record until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stuck, self.may_go_on = threading.Event(), threading.Event()

    def emit(self, _: logging.LogRecord) -> None:
        self.is_stuck.set()
        self.may_go_on.wait(15)


def test_a_late_list_does_not_undo_a_revocation_that_is_being_applied(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    log, hold = Stuck(), hub.hold()
    reasons: list[Reason] = []

    async def be_late() -> None:
        await check_once(gate)
        hub.then(HubAnswer(200, as_json(row(1), row(2)), hold=hold))
        asked = len(hub.fetches)
        late = asyncio.create_task(gate.refresh())
        await hub.asked(asked + 1)
        hub.lists(row(1, disabled_at="now"), *(row(number) for number in range(10, 20)), bad_row(20))
        other = threading.Thread(target=lambda: asyncio.run(gate.refresh()))
        other.start()
        await anyio.to_thread.run_sync(log.is_stuck.wait, 15)
        reasons.append(gate.decide(client_key(1), ORIGIN).reason)
        hold.release()
        await late
        reasons.append(gate.decide(client_key(1), ORIGIN).reason)
        log.may_go_on.set()
        await anyio.to_thread.run_sync(other.join)

    logging.getLogger("gatekeeper").addHandler(log)
    try:
        asyncio.run(be_late())
    finally:
        log.may_go_on.set()
        logging.getLogger("gatekeeper").removeHandler(log)
    assert reasons == [Reason.KEY_DISABLED, Reason.KEY_DISABLED]


def test_concurrent_refreshes_in_threads_do_not_fail_each_other() -> None:
    lists = [
        [row(number, disabled_at=number % 3 == which or None) for number in range(20 * which + 50)] for which in range(3)
    ]
    source = MemorySource(*lists[0])
    source.on_fetch = lambda: setattr(source, "rows", lists[len(source.validators) % 3])
    gate = Gatekeeper(source)
    outcomes: set[str] = set()
    end = time.monotonic() + 1

    async def refresh_again_and_again() -> None:
        while time.monotonic() < end:
            outcomes.add((await gate.refresh()).outcome)

    with threads_switching_often():
        threads = [threading.Thread(target=lambda: asyncio.run(refresh_again_and_again())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (outcomes - {"changed", "unchanged"}, gate.status.last_error) == (set(), None)
    source.on_fetch = lambda: None
    for rows in [*lists, *lists]:
        source.rows = rows
        asyncio.run(gate.refresh())
        for number in range(50):
            assert gate.decide(client_key(number), ORIGIN).allowed == (rows[number]["disabled_at"] is None)


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_forgets_decisions_and_refreshes() -> None:
    source = MemorySource(row(1))
    gate = Gatekeeper(source)

    def in_child() -> None:
        assert not remembered_by(gate), "it remembers what its parent decided"
        assert gate.decide(client_key(1), ORIGIN).allowed
        assert not remembered_by(gate), "it remembers without a refresher"
        fetched = len(source.validators)
        source.rows = [row(1, disabled_at="now")]
        leases_of(gate).end()

        async def use() -> None:
            await gate.refresh()
            assert len(source.validators) > fetched
            assert (await check_once(gate)).reason is Reason.KEY_DISABLED
            assert len(remembered_by(gate)) == 1

        asyncio.run(use())

    async def fork_while_running() -> str:
        assert (await check_once(gate)).allowed
        assert len(remembered_by(gate)) == 1
        said = forked(in_child)
        assert len(remembered_by(gate)) == 1
        assert (await check_once(gate)).allowed
        return said

    assert asyncio.run(fork_while_running()) == "well"


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_a_thread_decides_can_decide() -> None:
    gate = Gatekeeper(MemorySource(row(1)))
    parent, is_deciding, may_go_on = os.getpid(), threading.Event(), threading.Event()

    class Slow(dict[RequestIdentity, Remembered]):
        def __setitem__(self, *entry: Any) -> None:
            if os.getpid() == parent:
                is_deciding.set()
                may_go_on.wait(5)
            super().__setitem__(*entry)

    def in_child() -> None:
        signal.alarm(10)

        async def use() -> None:
            await gate.refresh()
            assert (await check_once(gate)).allowed
            assert len(remembered_by(gate)) == 1

        asyncio.run(use())

    async def fork_while_deciding() -> str:
        await check_once(gate)
        leases_of(gate).end()
        gate.memo.allowed = Slow()
        thread = threading.Thread(target=gate.decide, args=(client_key(1), ORIGIN))
        thread.start()
        is_deciding.wait(5)
        said = forked(in_child)
        may_go_on.set()
        thread.join()
        return said

    assert asyncio.run(fork_while_deciding()) == "well"


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("source", [StaticSource([row(1)]), MemorySource(row(1))], ids=["static", "not started"])
def test_a_child_forked_while_a_thread_holds_locks_can_count(source: Source) -> None:
    """A server may fork its workers before the gate starts, and a gate with static rows never starts."""
    gate = Gatekeeper(source)
    gate.decide(client_key(1), "https://evil.com")
    holds_locks, may_go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with gate._enforcement.refusals._lock, gate.memo._lock:
            holds_locks.set()
            may_go_on.wait(20)

    def in_child() -> None:
        signal.alarm(10)
        assert (gate.refusals, gate.decisions.total()) == ((), 0)
        assert asyncio.run(check_once(gate)).allowed
        assert len(remembered_by(gate)) == int(isinstance(source, StaticSource)), "no refresher runs any more"
        assert gate.decisions == {Reason.ALLOWED: 1}

    thread = threading.Thread(target=hold)
    thread.start()
    holds_locks.wait(5)
    said = forked(in_child)
    may_go_on.set()
    thread.join()
    assert said == "well"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_gate_that_is_gone_is_not_kept_for_forks() -> None:
    gone = weakref.ref(Gatekeeper.from_rows([row(1)]))
    gc.collect()
    assert gone() is None


# Crashes


class Died(BaseException):
    """An exception that `except Exception` does not catch."""


def gate_and_source(restart_delay: float = RESTART_DELAY) -> tuple[Gatekeeper, MemorySource]:
    source, fake = MemorySource(row(1)), FakeClock()
    gate = Gatekeeper(source, clock=fake, sleep=fake.sleep, unknown_key_wait=15)
    gate._lifecycle.restart_delay = restart_delay
    return gate, source


DEATHS = pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), Died("of old age")], ids=repr)


@DEATHS
@asyncio_only
async def test_a_crashed_refresher_restarts_without_a_request(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    gate, source = gate_and_source()
    async with leaving_nothing_behind(), gate:
        source.broken = error
        assert (await gate.refresh()).outcome == "failed"
        source.broken, source.rows = None, [row(1), row(2)]
        began = time.monotonic()
        while not gate.decide(client_key(2), ORIGIN).allowed:
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 30
        assert gate.decide(client_key(1), ORIGIN).allowed
    assert gate.status.counters["refresher_restarts"] == 1
    (told,) = [record for record in caplog.records if "died and is brought back" in record.message]
    assert told.levelno == logging.ERROR
    assert isinstance(error, asyncio.CancelledError) or (told.exc_info and told.exc_info[1] is error)


@DEATHS
@asyncio_only
async def test_the_next_request_restarts_a_crashed_refresher_immediately(
    error: BaseException,
) -> None:
    gate, source = gate_and_source(restart_delay=60)
    async with leaving_nothing_behind(), gate:
        source.broken = error
        await gate.refresh()
        source.broken, source.rows = None, [row(2)]
        assert (await gate.check(client_key(2), ORIGIN)).allowed
        assert gate.status.counters["refresher_restarts"] == 1


@asyncio_only
async def test_a_refresher_that_keeps_crashing_keeps_restarting() -> None:
    gate, source = gate_and_source(restart_delay=0.001)
    async with leaving_nothing_behind(), gate:
        source.broken = Died()
        await gate.refresh()
        while gate.status.counters.get("refresher_restarts", 0) < 5:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.001)
        assert gate.decide(client_key(1), ORIGIN).allowed
        source.broken, source.rows = None, [row(2)]
        assert (await gate.check(client_key(2), ORIGIN)).allowed


@asyncio_only
async def test_a_crashed_refresher_does_not_restart_after_leaving() -> None:
    gate, source = gate_and_source(restart_delay=0.001)
    async with leaving_nothing_behind():
        async with gate:
            source.broken = Died()
            await gate.refresh()
        fetched = len(source.validators)
        await asyncio.sleep(0.01)
    assert len(source.validators) == fetched
    assert not remembered_by(gate)


ENDINGS = {
    "after its first request": "await gate.check(client_key(1), ORIGIN)",
    "as it begins": "asyncio.create_task(gate.refresh()); await asyncio.sleep(0)",
    "while it is entered": "await gate.__aenter__()",
    "after it was left": "\n    async with gate: await gate.refresh()",
    "after it died": "await gate.refresh(); source.broken = GeneratorExit(); await gate.refresh(); source.broken = None",
}


@pytest.mark.process
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_event_loop_ends_silently_in_any_state_of_the_gate(ending: str) -> None:
    program = f"""\
import asyncio, logging
from gatekeeper import Gatekeeper
from tests.support.memory_source import MemorySource
from tests.support.remembered import leases_of, remembered_by
from tests.support.rows import ORIGIN, client_key, row

logging.getLogger("gatekeeper").addHandler(logging.NullHandler())
source = MemorySource(row(1))
gate = Gatekeeper(source)

async def main():
    asyncio.get_running_loop().slow_callback_duration = 3600  # a busy machine may be slow
    {ENDINGS[ending]}

for _ in range(3):
    asyncio.run(main())
    assert not remembered_by(gate)
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# PerLoop


def test_each_event_loop_has_its_own_thing_until_it_is_forgotten() -> None:
    things = PerLoop("a thing", object)

    async def use() -> tuple[object, object, object]:
        first, again = things.here(), things.here()
        things.forget()
        return first, again, things.here()

    first, again, another = asyncio.run(use())
    assert first is again
    assert another is not first
    assert first not in asyncio.run(use())


@pytest.mark.anyio
async def test_a_thing_that_is_forgotten_leaves_nothing_in_its_event_loop() -> None:
    def use() -> None:
        things = PerLoop("a thing that is forgotten", object)
        things.here()
        things.forget()
        things.forget()

    use()
    gc.collect()
    kept = [each for each in gc.get_objects() if type(each) is RunVar]  # isinstance asks lazy objects of others
    assert "a thing that is forgotten" not in str(kept)


class VersionedSource(MemorySource):
    """Says that nothing has changed to one that names its version."""

    version = "1"

    @asynccontextmanager
    async def updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged]:
        self.validators.append(basis.validator)
        known = basis.validator == self.version
        yield Unchanged() if known else FullList(Listing.whole(as_json(*self.rows), self.version))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_a_list_is_applied_keeps_no_half_of_it() -> None:
    """The hub takes the change back meanwhile, so that its list has the name that the parent knew before."""
    old, new = [row(number) for number in range(3000)], [row(number, disabled_at="now") for number in range(3000)]
    source = VersionedSource(*old)
    gate = Gatekeeper(source)

    def in_child() -> None:
        source.rows, source.version = old, "1"

        async def use() -> None:
            await gate.refresh()
            assert all([(await check_once(gate, number)).allowed for number in range(0, 3000, 7)])

        asyncio.run(use())

    async def fork_while_applying() -> str:
        await check_once(gate)
        source.rows, source.version = new, "2"
        refreshing = asyncio.create_task(gate.refresh())
        while gate.decide(client_key(0), ORIGIN).allowed and gate.decide(client_key(2999), ORIGIN).allowed:  # noqa: ASYNC110 - half of it is applied
            await asyncio.sleep(0)
        assert gate.decide(client_key(0), ORIGIN).allowed != gate.decide(client_key(2999), ORIGIN).allowed
        said = forked(in_child)
        await refreshing
        return said

    assert asyncio.run(fork_while_applying()) == "well"
