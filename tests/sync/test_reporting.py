"""Reporting: each report is sent once for all event loops, at its time, and nothing is lost between them."""

import asyncio
import dataclasses
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


def test_of_two_threads_one_takes_the_turn() -> None:
    """The second one comes while the first takes it."""
    clock, looks = FakeClock(), threading.Event()
    others: list[bool] = []

    def look() -> float:
        if threading.current_thread() is thread:
            looks.set()
        return clock.now

    def jitter() -> float:
        if clock.now == began + 30 and not thread.is_alive():
            thread.start()
            looks.wait(0.05)  # in vain, as it waits for the lock
        return 0.5

    thread = threading.Thread(target=lambda: others.append(turns.take()))
    began = clock.now
    turns = Turns(30, look, jitter)
    clock.now += 30
    assert turns.take()
    thread.join()
    assert others == [False]


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


def test_a_count_that_is_being_kept_is_not_taken_meanwhile() -> None:
    """Two reports have failed. While the second one adds its counts to those of the first, another thread reports."""
    told, takes = Counter[str](), threading.Event()
    uses = [Counter(a=1), Counter(a=1)]

    class Down(MemorySource):
        """It fails as long as there are new uses."""

        async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
            if threading.current_thread() is thread:
                takes.set()
            elif not told and not thread.is_alive():
                if uses:
                    await reporter.report()
                raise HubServerError("the hub answered 500", status=500)
            told.update({row_id: used.count for row_id, used in usage.items()})

    def add(old: KeyUsage, new: KeyUsage) -> KeyUsage:
        thread.start()
        takes.wait(0.05)  # in vain, as it waits for the lock
        return report.add(old, new)

    thread = threading.Thread(target=lambda: asyncio.run(reporter.report()))
    report = usage_report(Down(), lambda: uses.pop() if uses else Counter(), lambda: 0.0)
    reporter = Reporter(dataclasses.replace(report, add=add), timeout=15, clock=FakeClock(), counters=Counter())
    asyncio.run(reporter.report())
    thread.join()
    asyncio.run(reporter.report())
    assert told == {"a": 2}


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
