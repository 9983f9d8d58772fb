"""A clock for tests, as a gate sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from gatekeeper import Gatekeeper, HubSource, Reason, StaticSource
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer, client_key, row

PAGE = "https://shop.acme.com"
SHOP = row("shop", "shop.acme.com")

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def gate_of(hub: FakeHub, clock: FakeClock, **options: Any) -> AsyncIterator[Gatekeeper]:
    options = {"unknown_key_wait": 0, "jitter": lambda: 0.5, **options}
    source = HubSource(hub.url, hub.token)
    async with Gatekeeper(source, clock=clock, wall_clock=clock, sleep=clock.sleep, **options) as gate:
        yield gate


def test_it_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    began = clock()
    assert clock() == began
    clock.now += 60
    assert clock() == began + 60


async def test_a_gate_does_in_a_moment_what_it_does_in_a_minute() -> None:
    clock = FakeClock()
    with FakeHub(SHOP) as hub:
        hub.clock = clock
        async with gate_of(hub, clock) as gate:
            began = clock()
            await clock.advance(60)
            assert clock() == began + 60
            assert [request.at - began for request in hub.fetches] == [0, 10, 20, 30, 40, 50, 60]
            assert gate.status.state == "fresh"


async def test_an_outage_makes_the_list_degraded_and_then_expired() -> None:
    clock = FakeClock()
    with FakeHub(SHOP) as hub:
        async with gate_of(hub, clock, soft_stale=60, hard_stale=3600) as gate:
            hub.always(HubAnswer(503))
            await clock.advance(120)
            assert (gate.status.state, gate.decide(client_key("shop"), PAGE).reason) == ("degraded", Reason.ALLOWED)
            clock.now += 3600
            assert (gate.status.state, gate.decide(client_key("shop"), PAGE).reason) == ("expired", Reason.EXPIRED)
            hub.lists(*hub.rows)
            await clock.advance(60)
            assert gate.decide(client_key("shop"), PAGE).allowed


async def test_tasks_that_sleep_are_woken_in_order_and_not_too_early() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def work(name: str, seconds: float) -> None:
        while True:
            began = clock()
            await clock.sleep(seconds)
            assert clock() == began + seconds
            woken.append((name, clock() - start))

    start = clock()
    async with anyio.create_task_group() as group:
        group.start_soon(work, "slow", 5)
        group.start_soon(work, "fast", 2)
        await clock.asleep(2)
        await clock.advance(6)
        assert woken == [("fast", 2), ("fast", 4), ("slow", 5), ("fast", 6)]
        assert clock() == start + 6
        group.cancel_scope.cancel()


async def test_only_the_woken_task_ends_the_wait_for_it() -> None:
    """Meanwhile another one begins to sleep, or is woken by something else and sleeps again."""
    clock = FakeClock()
    works = anyio.Event()
    worked: list[float] = []

    async def work() -> None:
        while True:
            await clock.sleep(10)
            works.set()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            worked.append(clock() - start)

    async def begin_late() -> None:
        await works.wait()
        await clock.sleep(1000)

    async def sleep_again() -> None:
        with anyio.CancelScope() as scope:
            group.start_soon(end_early, scope)
            await clock.sleep(1000)
        await clock.sleep(1000)

    async def end_early(scope: anyio.CancelScope) -> None:
        await works.wait()
        scope.cancel()

    start = clock()
    async with anyio.create_task_group() as group:
        for task in (work, begin_late, sleep_again):
            group.start_soon(task)
        await clock.asleep(2)
        await clock.advance(10)
        assert worked == [10]
        group.cancel_scope.cancel()


async def test_the_clock_never_runs_backwards() -> None:
    """A test has set it past the end of a sleep."""
    clock = FakeClock()
    moments: list[float] = []

    async def work() -> None:
        while True:
            await clock.sleep(10)
            moments.append(clock())

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await clock.asleep()
        clock.now = 5_000_000
        await clock.advance(15)
        assert moments == [5_000_000, 5_000_010]
        group.cancel_scope.cancel()


async def test_a_sleep_that_is_cancelled_is_forgotten() -> None:
    clock = FakeClock()
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 1)
        await clock.asleep()
        group.cancel_scope.cancel()
    with pytest.raises(TimeoutError):
        await FakeClock(patience=0.01).advance(1)


async def test_nothing_to_wake_is_an_error() -> None:
    clock = FakeClock(patience=0.01)
    Gatekeeper(StaticSource([SHOP]), clock=clock, sleep=clock.sleep)
    with pytest.raises(TimeoutError, match="no task sleeps by this clock"):
        await clock.advance(60)
