"""A clock that tests move, sleeps by that clock, and constant jitter."""

import anyio

PATIENCE = 15.0  # seconds of real time, on a busy machine


class FakeTime:
    """A clock, and tasks that sleep by it.

    Attributes:
        now: seconds.
        sleeps: seconds of every sleep, in order.
        jitter: from 0 to 1.
    """

    def __init__(self, *, jitter: float = 0.5) -> None:
        self.now = 1_000_000.0
        self.sleeps: list[float] = []
        self.jitter = jitter
        self._sleepers: list[tuple[float, anyio.Event]] = []
        self._fell_asleep: anyio.Event | None = None

    def clock(self) -> float:
        """The time in seconds."""
        return self.now

    def dice(self) -> float:
        """The jitter."""
        return self.jitter

    async def sleep(self, seconds: float) -> None:
        """Sleep until a test has moved the clock by these seconds."""
        sleeper = (self.now + seconds, anyio.Event())
        self._sleepers.append(sleeper)
        self.sleeps.append(seconds)
        if self._fell_asleep is not None:
            self._fell_asleep.set()
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    async def asleep(self, sleeps: int = 0) -> None:
        """Wait until a task sleeps, and there were `sleeps` in all."""
        with anyio.fail_after(PATIENCE):
            while not self._sleepers or len(self.sleeps) < sleeps:
                self._fell_asleep = anyio.Event()
                await self._fell_asleep.wait()

    async def advance(self, seconds: float) -> None:
        """Advance the clock, waking each sleeper at its time and waiting until it sleeps again."""
        end = self.now + seconds
        await self.asleep()
        while (deadline := min(deadline for deadline, _ in self._sleepers)) <= end:
            self.now = deadline
            await self.wake()
        self.now = end

    async def wake(self) -> None:
        """End the earliest sleep now, and wait until its task sleeps again."""
        await self.asleep()
        slept = len(self.sleeps)
        min(self._sleepers, key=lambda sleeper: sleeper[0])[1].set()
        await self.asleep(slept + 1)

    async def wake_all(self) -> None:
        """End all sleeps that are due."""
        for deadline, event in self._sleepers:
            if deadline <= self.now:
                event.set()
