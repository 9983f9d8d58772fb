"""Clocks that count suspended time, and waits by them."""

import time

import anyio
import anyio.lowlevel
import pytest

from gatekeeper.sync.clock import TICK, Alarm, boot_clock, boot_sleep
from gatekeeper.testing import FakeClock

pytestmark = pytest.mark.anyio


def test_the_clock_counts_suspended_time() -> None:
    wanted = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before = time.clock_gettime(wanted)
    now = boot_clock()
    assert before <= now <= time.clock_gettime(wanted)


async def test_a_sleep_reads_the_clock_once_a_second() -> None:
    fake, naps = FakeClock(), []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        fake.now += 100 if len(naps) == 2 else seconds  # the machine is suspended in the second nap
        await anyio.lowlevel.checkpoint()

    await boot_sleep(10, clock=fake, nap=nap)
    assert naps == [TICK, TICK]
    await boot_sleep(1.5, clock=fake, nap=nap)
    assert naps[2:] == [TICK, 0.5]
    await boot_sleep(0, clock=fake, nap=nap)
    assert len(naps) == 4


class Waits:
    """An alarm whose waits end late by some seconds."""

    def __init__(self) -> None:
        self.time = FakeClock()
        self.late = 0.0
        self.waits: list[float] = []
        self.alarm = Alarm(self.time, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time.now += seconds + self.late
        await anyio.lowlevel.checkpoint()


async def test_a_wait_ends_at_its_moment_and_a_past_moment_does_not_wait() -> None:
    it = Waits()
    await it.alarm.wait_until(it.time.now + 7)
    await it.alarm.wait_until(it.time.now)
    await it.alarm.wait_until(it.time.now - 7)
    assert it.waits == [7]
    assert it.alarm.lag == 0.0


async def test_the_worst_lag_of_the_last_two_minutes_is_known() -> None:
    it = Waits()
    for late in (0.25, 0.75, 0.5):
        it.late = late
        await it.alarm.wait_until(it.time.now + 1)
    assert it.alarm.lag == 0.75
    it.time.now += 60
    assert it.alarm.lag == 0.75
    it.late = 0.125
    await it.alarm.wait_until(it.time.now + 1)
    assert it.alarm.lag == 0.75
    it.time.now += 60
    assert it.alarm.lag == 0.125
    it.time.now += 120
    assert it.alarm.lag == 0.0
