"""FakeClock: a clock that a test moves, and sleeps by it."""

from collections.abc import Callable
from typing import Final

import anyio

__all__ = ("FakeClock",)

PATIENCE: Final = 15.0  # seconds for what takes milliseconds, on a busy machine
BEGINNING: Final = 1_000_000.0  # seconds


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
        self._sleepers: list[tuple[float, anyio.Event]] = []
        self._fell_asleep: anyio.Event | None = None
        self._known: set[int] = set()  # the tasks that have slept
        self._again = 0  # sleeps of a task that had slept before

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Sleep until a test has moved the clock.

        Args:
            seconds: how far.
        """
        sleeper = (self.now + seconds, anyio.Event())
        self._sleepers.append(sleeper)
        self.sleeps.append(seconds)
        task = anyio.get_current_task().id
        self._again += task in self._known
        self._known.add(task)
        if self._fell_asleep is not None:
            self._fell_asleep.set()
        try:
            await sleeper[1].wait()
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
        await self._until(lambda: bool(self._sleepers) and len(self.sleeps) >= sleeps)

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
        while (deadline := min(deadline for deadline, _ in self._sleepers)) <= end:
            self.now = max(self.now, deadline)
            await self.wake()
        self.now = end

    async def wake(self) -> None:
        """End the earliest sleep now, and wait until its task sleeps again.

        Raises:
            TimeoutError: as `asleep`.
        """
        await self.asleep()
        again = self._again  # a task that falls asleep for the first time was not woken
        min(self._sleepers, key=lambda sleeper: sleeper[0])[1].set()
        await self._until(lambda: self._again > again)

    async def wake_all(self) -> None:
        """End all sleeps that are due. It waits for no task."""
        for deadline, event in self._sleepers:
            if deadline <= self.now:
                event.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        reason = f"no task sleeps by this clock: expected a running gate with sleep=clock.sleep, within {self._patience:g} s"
        with anyio.fail_after(self._patience, reason=reason):
            while not condition():
                self._fell_asleep = anyio.Event()
                await self._fell_asleep.wait()
