"""Wakers: sleeps in several event loops, which any thread ends."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from gatekeeper.sync.waking import Waker, Wakers
from tests.support.forked import forked
from tests.support.loops import asyncio_only

pytestmark = pytest.mark.anyio

HOUR = 3600.0
BACKENDS: tuple[Any, ...] = ("asyncio", "trio")


class Naps:
    """Sleeps that tell how many there are."""

    def __init__(self) -> None:
        self.begun = 0
        self.asleep = 0

    async def sleep(self, seconds: float) -> None:
        self.begun += 1
        self.asleep += 1
        try:
            await anyio.sleep(seconds)
        finally:
            self.asleep -= 1


async def test_a_sleep_ends_by_itself() -> None:
    with Wakers(anyio.sleep).here() as waker:
        await waker.sleep(0)
        with anyio.move_on_after(0.01) as scope:
            await waker.sleep(HOUR)
        assert scope.cancelled_caught


async def test_a_sleep_ends_when_it_is_woken() -> None:
    wakers = Wakers(anyio.sleep)
    woken = 0

    async def sleeper() -> None:
        nonlocal woken
        with wakers.here() as waker:
            while True:
                await waker.sleep(HOUR)
                woken += 1

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(sleeper)
        for count in (3, 6, 9):
            await anyio.wait_all_tasks_blocked()
            wakers.wake()
            await anyio.wait_all_tasks_blocked()
            assert woken == count
        group.cancel_scope.cancel()


async def test_the_next_sleep_ends_if_it_is_woken_before() -> None:
    """What is new between a look and the sleep after it is not missed."""
    naps = Naps()
    wakers = Wakers(naps.sleep)
    with wakers.here() as waker:
        for _ in range(3):
            wakers.wake()
        await anyio.wait_all_tasks_blocked()
        await waker.sleep(HOUR)
        waker.wake()
        await waker.sleep(HOUR)
        assert naps.begun == 0
        with anyio.move_on_after(0.01) as scope:
            await waker.sleep(HOUR)
        assert (scope.cancelled_caught, naps.begun, naps.asleep) == (True, 1, 0)


@asyncio_only
async def test_an_event_loop_that_is_busy_is_called_once() -> None:
    arrived = 0

    class Counting(Waker):
        def wake(self) -> None:
            nonlocal arrived
            arrived += 1
            super().wake()

    waker = Counting(anyio.sleep)
    for _ in range(100):
        waker.call()
    await asyncio.sleep(0)
    assert arrived == 1
    waker.call()
    await asyncio.sleep(0)
    assert arrived == 2


def test_a_function_can_wake_after_it_was_called() -> None:
    called: list[float] = []
    wakers = Wakers(anyio.sleep)
    call = wakers.woken_after(called.append)
    call(1.0)
    assert called == [1.0]


# Several event loops.


class Elsewhere:
    """An event loop in another thread, in which a task sleeps.

    Attributes:
        woken: set once the task was woken.
    """

    def __init__(self, portal: BlockingPortal, wakers: Wakers) -> None:
        self.woken = threading.Event()
        self._asleep = threading.Event()
        self._wakers = wakers
        portal.start_task_soon(self._sleep)
        assert self._asleep.wait(20)

    async def _sleep(self) -> None:
        with self._wakers.here() as waker:
            self._asleep.set()
            await waker.sleep(HOUR)
            self.woken.set()


@contextmanager
def loops_elsewhere(wakers: Wakers) -> Iterator[list[Elsewhere]]:
    """Run event loops of each kind in threads of their own."""
    with ExitStack() as stack:
        yield [Elsewhere(stack.enter_context(start_blocking_portal(backend)), wakers) for backend in BACKENDS * 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_event_loop_wakes_the_others(backend: str) -> None:
    wakers = Wakers(anyio.sleep)

    async def wake() -> None:
        wakers.wake()

    with loops_elsewhere(wakers) as others:
        anyio.run(wake, backend=backend)
        assert all(other.woken.wait(20) for other in others)


def test_a_thread_without_an_event_loop_wakes_them() -> None:
    wakers = Wakers(anyio.sleep)
    with loops_elsewhere(wakers) as others:
        threading.Thread(target=wakers.wake).start()
        assert all(other.woken.wait(20) for other in others)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_event_loop_that_was_closed_stops_no_other(backend: str) -> None:
    """Its tasks were never ended, as those of a server that only stops its event loop."""
    wakers = Wakers(anyio.sleep)
    stack = ExitStack()  # never closed

    async def leave() -> None:
        stack.enter_context(wakers.here())

    anyio.run(leave, backend=backend)
    with loops_elsewhere(wakers) as others:
        for _ in range(2):
            wakers.wake()
        assert all(other.woken.wait(20) for other in others)
    assert not wakers._wakers


def test_an_event_loop_that_has_left_is_not_held() -> None:
    wakers = Wakers(anyio.sleep)

    async def sleep() -> "weakref.ref[Any]":
        with wakers.here() as waker:
            await waker.sleep(0)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(sleep())
    gc.collect()
    assert loop() is None


def test_a_child_wakes_its_own_event_loops_alone() -> None:
    wakers = Wakers(anyio.sleep)

    def in_child() -> None:
        wakers.after_fork()
        assert not wakers._wakers
        with loops_elsewhere(wakers) as others:
            wakers.wake()
            assert all(other.woken.wait(20) for other in others)

    with loops_elsewhere(wakers) as others:
        assert forked(in_child) == "well"
        assert not any(other.woken.is_set() for other in others)
        wakers.wake()
        assert all(other.woken.wait(20) for other in others)
