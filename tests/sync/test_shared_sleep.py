"""SharedSleep: many sleeps, one timer."""

import asyncio
import gc
import weakref
from typing import Any

import anyio
import pytest

from gatekeeper.sync.shared_sleep import SharedSleep
from tests.support.loops import SkippingLoop, run_skipping


def clocked() -> tuple[SharedSleep, list[float]]:
    """A sleep by the clock of the running event loop, and the moments at which it looked at the clock."""
    looks: list[float] = []

    def clock() -> float:
        looks.append(asyncio.get_running_loop().time())
        return looks[-1]

    return SharedSleep(clock), looks


def test_each_sleep_ends_in_its_turn() -> None:
    sleep, _ = clocked()
    ended: list[float] = []

    async def nap(seconds: float) -> None:
        await sleep(seconds)
        ended.append(seconds)

    async def main() -> float:
        await asyncio.gather(*(nap(seconds) for seconds in (5.0, 0.25, 3.5, 0.0, 1.0, -1.0, 12.0)))
        return asyncio.get_running_loop().time()

    took = run_skipping(main())
    assert ended == [0.0, -1.0, 0.25, 1.0, 3.5, 5.0, 12.0]
    assert took == pytest.approx(12.0, abs=0.01)


def test_many_sleeps_look_at_the_clock_once_a_second() -> None:
    sleep, looks = clocked()

    async def main() -> None:
        await asyncio.gather(*(sleep(60.0) for _ in range(100)))

    run_skipping(main())
    assert len(looks) < 500


def test_a_sleep_ends_soon_after_a_suspension() -> None:
    """The event loop's own clock stood still, and the boot clock did not."""
    now = 0.0
    sleep = SharedSleep(lambda: now)

    async def main() -> float:
        nonlocal now
        napping = asyncio.create_task(sleep(3600.0))
        await asyncio.sleep(0)
        now = 3600.0
        await napping
        return asyncio.get_running_loop().time()

    assert run_skipping(main()) < 1.5


def test_cancelled_sleeps_are_forgotten() -> None:
    sleep, _ = clocked()

    async def main() -> None:
        for _ in range(50):
            with anyio.move_on_after(0.001):
                await sleep(1e6)
        long = [asyncio.create_task(sleep(1e6)) for _ in range(10)]
        await asyncio.sleep(0)
        sleepers = sleep._sleepers.here()
        assert len(sleepers._ends) == 10
        for number, task in enumerate(long):
            task.cancel()
            await asyncio.wait([task])
            assert len(sleepers._ends) <= 2 * (9 - number) + 1
        assert sleepers._timer is None
        await sleep(1.0)

    run_skipping(main())


def test_a_cancelled_sleep_beside_others_wakes_none_of_them_early() -> None:
    sleep, _ = clocked()

    async def main() -> float:
        first, second, third = (asyncio.create_task(sleep(seconds)) for seconds in (1.0, 2.0, 3.0))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([second])
        at = asyncio.get_running_loop().time()
        await third
        return at

    assert run_skipping(main()) == pytest.approx(2.0, abs=0.01)


def test_each_event_loop_has_its_own_timer() -> None:
    sleep, _ = clocked()
    for _ in range(3):
        run_skipping(sleep(2.0))


def test_it_keeps_no_event_loop_alive() -> None:
    sleep, _ = clocked()
    loop = SkippingLoop()
    gone: Any = weakref.ref(loop)
    loop.run_until_complete(sleep(1.0))
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


@pytest.mark.anyio
async def test_it_sleeps_in_any_event_loop() -> None:
    with anyio.fail_after(10):
        await SharedSleep()(0.01)
