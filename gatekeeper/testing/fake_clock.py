"""FakeClock: a clock that a test moves, and sleeps by it."""

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import anyio

__all__ = ("FakeClock",)

PATIENCE: Final = 15.0  # seconds for what takes milliseconds, on a busy machine
BEGINNING: Final = 1_000_000.0  # seconds


class _Sleeper(NamedTuple):
    """A task that sleeps."""

    deadline: float
    woken: anyio.Event
    task: int


class FakeClock:
    """A clock, and tasks that sleep by it.

    clock = FakeClock()
    gate = Gatekeeper(source, clock=clock, wall_clock=clock, sleep=clock.sleep)

    Args:
        patience: seconds of real time after which a wait for a task fails.

    Attributes:
        now: seconds. Setting it moves the clock, and wakes no task.
        sleeps: seconds of every sleep, in order.
    """

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self.now = BEGINNING
        self.sleeps: list[float] = []
        self._patience = patience
        self._sleepers: list[_Sleeper] = []
        self._slept: Counter[int] = Counter()  # how often each task has begun to sleep
        self._fell_asleep: anyio.Event | None = None

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Sleep until a test has moved the clock.

        Args:
            seconds: how far.
        """
        sleeper = _Sleeper(self.now + seconds, anyio.Event(), anyio.get_current_task().id)
        self._sleepers.append(sleeper)
        self.sleeps.append(seconds)
        self._slept[sleeper.task] += 1
        if self._fell_asleep is not None:
            self._fell_asleep.set()
        try:
            await sleeper.woken.wait()
        finally:
            self._sleepers.remove(sleeper)

    async def asleep(self, sleeps: int = 0) -> None:
        """Wait until a task sleeps.

        Args:
            sleeps: the number of sleeps in all to wait for.

        Raises:
            TimeoutError: no task does: the gate does not run in this event loop, has rows that never change, or does not
                sleep by this clock.
        """
        await self._wait_for(lambda: bool(self._sleepers) and len(self.sleeps) >= sleeps)

    async def advance(self, seconds: float) -> None:
        """Move the clock, and wake each sleeping task at its time.

        A task works until it sleeps again before the next one is woken. So a gate has fetched its list at every interval
        when this returns. Call it in the event loop of the gate: `client.portal.call(clock.advance, 60)` with a TestClient.

        Args:
            seconds: how far.

        Raises:
            TimeoutError: as `asleep`.
        """
        end = self.now + seconds
        await self.asleep()
        while (deadline := min(sleeper.deadline for sleeper in self._sleepers)) <= end:
            self.now = max(self.now, deadline)
            await self.wake()
        self.now = end

    async def wake(self) -> None:
        """End the earliest sleep now, and wait until its task sleeps again.

        Raises:
            TimeoutError: as `asleep`.
        """
        await self.asleep()
        earliest = min(self._sleepers, key=lambda sleeper: sleeper.deadline)
        slept = self._slept[earliest.task]
        earliest.woken.set()
        await self._wait_for(lambda: self._slept[earliest.task] > slept)

    async def wake_all(self) -> None:
        """End all sleeps that are due. It waits for no task."""
        for sleeper in self._sleepers:
            if sleeper.deadline <= self.now:
                sleeper.woken.set()

    async def _wait_for(self, is_met: Callable[[], bool]) -> None:
        reason = f"no task sleeps by this clock: expected a running gate with sleep=clock.sleep, within {self._patience:g} s"
        with anyio.fail_after(self._patience, reason=reason):
            while not is_met():
                self._fell_asleep = anyio.Event()
                await self._fell_asleep.wait()
