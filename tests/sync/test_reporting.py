"""Reporting: each report is sent once for all event loops, at its time, and nothing is lost between them."""

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping

import anyio
import anyio.lowlevel
import pytest

from gatekeeper import Gatekeeper, HubServerError
from gatekeeper.client import KeyUsage
from gatekeeper.sync.reporting import Reporting, Turns
from gatekeeper.sync.reports import Reporter
from gatekeeper.sync.usage import usage_report
from gatekeeper.testing import FakeClock
from tests.support.loops import threads_switching_often
from tests.support.memory_source import MemorySource
from tests.support.rows import ORIGIN, client_key, row

pytestmark = pytest.mark.anyio


class Noted:
    """Reports that note the moments at which they are sent."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.began = clock.now
        self.sent: list[float] = []
        self.last = 0
        self.forgot = 0
        self.may_end = anyio.Event()
        self.may_end.set()

    async def report(self) -> None:
        self.sent.append(self.clock.now - self.began)
        await self.may_end.wait()

    async def flush(self) -> None:
        self.last += 1

    def forget(self) -> None:
        self.forgot += 1


async def at_once() -> None:
    """There is no first fetch to wait for."""


# When a report is due


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 24.0), (0.5, 30.0), (1.0, 36.0)])
def test_turns_are_an_interval_apart_give_or_take_a_fifth(jitter: float, seconds: float) -> None:
    clock = FakeClock()
    turns = Turns(30, clock, lambda: jitter)
    for _ in range(3):
        clock.now = turns.due_at - 0.001
        assert not turns.take()
        clock.now = turns.due_at
        assert turns.take()
        assert not turns.take()
        assert turns.due_at - clock.now == pytest.approx(seconds)


def test_turns_that_were_missed_are_not_made_up_for() -> None:
    clock = FakeClock()
    turns = Turns(30, clock, lambda: 0.5)
    clock.now += 1000
    assert [turns.take() for _ in range(3)] == [True, False, False]
    assert turns.due_at == clock.now + 30


@pytest.mark.slow
def test_of_many_threads_one_takes_the_turn() -> None:
    clock = FakeClock()
    turns = Turns(30, clock, lambda: 0.5)
    taken: list[bool] = []
    for _ in range(200):
        clock.now = turns.due_at
        start = threading.Barrier(4)

        def take(start: threading.Barrier = start) -> None:
            start.wait()
            taken.append(turns.take())

        with threads_switching_often():
            threads = [threading.Thread(target=take) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert sum(taken) == 200


# In event loops


async def test_each_report_is_sent_at_its_own_time() -> None:
    clock = FakeClock()
    often, seldom = Noted(clock), Noted(clock)
    reporting = Reporting(clock, clock.sleep)
    reporting.add(often, Turns(30, clock, lambda: 0.5))
    reporting.add(seldom, Turns(70, clock, lambda: 0.5))
    async with anyio.create_task_group() as group:
        group.start_soon(reporting.run, at_once)
        await clock.advance(145)
        group.cancel_scope.cancel()
    assert (often.sent, seldom.sent) == ([30, 60, 90, 120], [70, 140])
    await reporting.flush()
    assert (often.last, seldom.last) == (1, 1)


async def test_nothing_is_sent_before_the_first_fetch_has_ended() -> None:
    clock, fetched = FakeClock(), anyio.Event()
    noted = Noted(clock)
    reporting = Reporting(clock, clock.sleep)
    reporting.add(noted, Turns(30, clock, lambda: 0.5))
    async with anyio.create_task_group() as group:
        group.start_soon(reporting.run, fetched.wait)
        clock.now += 40
        await anyio.wait_all_tasks_blocked()
        assert (noted.sent, clock.sleeps) == ([], [])
        fetched.set()
        await clock.asleep()
        await clock.wake()
        assert noted.sent == [40]
        group.cancel_scope.cancel()


async def test_of_several_event_loops_one_reports_and_the_others_can_go_on() -> None:
    clock = FakeClock()
    noted = Noted(clock)
    reporting = Reporting(clock, clock.sleep)
    reporting.add(noted, Turns(30, clock, lambda: 0.5))
    async with anyio.create_task_group() as group:
        stops: list[anyio.CancelScope] = []

        async def run() -> None:
            with anyio.CancelScope() as scope:
                stops.append(scope)
                await reporting.run(at_once)

        for number in range(3):
            group.start_soon(run)
            await clock.asleep(number + 1)
        await clock.advance(90)
        assert noted.sent == [30, 60, 90]
        stops[0].cancel()
        stops[1].cancel()
        await anyio.wait_all_tasks_blocked()
        await clock.advance(60)
        assert noted.sent == [30, 60, 90, 120, 150]
        group.cancel_scope.cancel()


async def test_a_forked_child_forgets_and_has_times_of_its_own() -> None:
    clock = FakeClock()
    jitter = iter([0.5, 1.0, 0.5])
    noted, turns = Noted(clock), Turns(30, clock, lambda: next(jitter))
    reporting = Reporting(clock, clock.sleep)
    reporting.add(noted, turns)
    clock.now += 10
    with turns._lock:  # another thread of the parent holds it at the fork
        reporting.after_fork()
        assert (noted.forgot, turns.due_at) == (1, clock.now + 36)
        clock.now += 36
        assert turns.take()


def test_threads_that_report_at_once_lose_nothing_and_repeat_nothing() -> None:
    """Every second report fails, so that counts are kept, taken and kept again by all threads."""
    told = Counter[str]()
    sent, written = [0], threading.Lock()

    class Unsteady(MemorySource):
        async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
            with written:
                sent[0] += 1
                if sent[0] % 2:
                    raise HubServerError("the hub answered 500", status=500)
                told.update({row_id: used.count for row_id, used in usage.items()})

    def new_uses() -> Counter[str]:
        return Counter({f"key-{number}": 1 for number in range(20)})

    report = usage_report(Unsteady(), new_uses, lambda: 0.0)
    reporter = Reporter(report, timeout=15, clock=FakeClock(), counters=Counter())

    async def report_again_and_again() -> None:
        for _ in range(25):
            await reporter.report()

    with threads_switching_often():
        threads = [threading.Thread(target=lambda: asyncio.run(report_again_and_again())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told.update({row_id: used.count for row_id, used in reporter._kept.items()})
    assert told == Counter({f"key-{number}": 100 for number in range(20)})


def test_two_event_loops_of_a_gate_report_each_use_once() -> None:
    told = Counter[str]()

    class Told(MemorySource):
        async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
            told.update({row_id: used.count for row_id, used in usage.items()})

    gate = Gatekeeper(Told(row(1)), usage_interval=0.001)
    both = threading.Barrier(2, timeout=15)

    async def use() -> None:
        async with gate:
            await anyio.to_thread.run_sync(both.wait)
            for _ in range(100):
                assert gate.decide(client_key(1), ORIGIN).allowed
                await anyio.lowlevel.checkpoint()

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {"key-1": 200}
