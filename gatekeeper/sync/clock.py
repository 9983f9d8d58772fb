"""A clock that counts suspended time, and waits by it."""

import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

__all__ = ("Alarm", "Clock", "Sleep", "boot_clock", "boot_sleep")

MINUTE = 60.0  # seconds
TICK = 1.0  # seconds between two looks at the clock, which notice that the machine was suspended

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

# Seconds that never run backwards. CLOCK_BOOTTIME, where the system has it, counts the time that a machine is suspended.
# A partial object, because every allowed request reads it: a function around the call takes 30 ns longer.
boot_clock: Clock = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


async def boot_sleep(seconds: float, *, clock: Clock = boot_clock, nap: Sleep = anyio.sleep) -> None:
    """Sleep by `boot_clock`.

    Event loops stop counting while the machine is suspended.

    Args:
        seconds: how long.
        clock: seconds.
        nap: sleeps by the event loop's own clock.
    """
    end = clock() + seconds
    while (left := end - clock()) > 0:
        await nap(min(left, TICK))


class Alarm:
    """Waits until a moment, and measures how late its waits end.

    Args:
        clock: seconds; see `boot_clock`.
        sleep: waits for seconds.
    """

    def __init__(self, clock: Clock, sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._minute_began = clock()
        self._lag = self._lag_before = 0.0

    async def wait_until(self, moment: float) -> None:
        """Wait until a moment, which may be over.

        Args:
            moment: by the clock.
        """
        left = moment - self._clock()
        if left > 0:
            await self._sleep(left)
            self.note(moment)

    def note(self, due_at: float) -> None:
        """Note a wait that has just ended.

        Args:
            due_at: the moment at which it should have ended, by the clock.
        """
        self._turn_minute()
        self._lag = max(self._lag, self._clock() - due_at)

    @property
    def lag(self) -> float:
        """The worst lag of a wait in this minute and the last."""
        self._turn_minute()
        return max(self._lag, self._lag_before)

    def _turn_minute(self) -> None:
        minutes = (self._clock() - self._minute_began) // MINUTE
        if minutes >= 1:
            self._lag, self._lag_before = 0.0, self._lag if minutes == 1 else 0.0
            self._minute_began += minutes * MINUTE
