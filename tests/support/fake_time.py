"""A clock that stands still until a test moves it, sleeps that end by that clock, and dice that always fall the same."""

import anyio

PATIENCE = 15.0  # seconds of real time, on a machine that has much else to do


class FakeTime:
    """A clock, and those who sleep by it.

    Attributes:
        now: what the clock shows.
        sleeps: how long every sleep was to be.
        jitter: what the dice show, from 0 to 1.
    """

    def __init__(self, *, jitter: float = 0.5) -> None:
        self.now = 1_000_000.0
        self.sleeps: list[float] = []
        self.jitter = jitter
        self._sleepers: list[tuple[float, anyio.Event]] = []
        self._fell_asleep: anyio.Event | None = None

    def clock(self) -> float:
        """Tell the time."""
        return self.now

    def dice(self) -> float:
        """Throw the dice."""
        return self.jitter

    async def sleep(self, seconds: float) -> None:
        """Sleep until a test has moved the clock so far."""
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
        """Wait until somebody sleeps, and there were so many sleeps in all."""
        with anyio.fail_after(PATIENCE):
            while not self._sleepers or len(self.sleeps) < sleeps:
                self._fell_asleep = anyio.Event()
                await self._fell_asleep.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass; whoever wakes up meanwhile does so at its time, and is awaited until it sleeps again."""
        end = self.now + seconds
        await self.asleep()
        while (deadline := min(deadline for deadline, _ in self._sleepers)) <= end:
            self.now = deadline
            await self.wake()
        self.now = end

    async def wake(self) -> None:
        """End the sleep that is due first, wherever the clock stands, and wait until its sleeper sleeps again."""
        await self.asleep()
        slept = len(self.sleeps)
        min(self._sleepers, key=lambda sleeper: sleeper[0])[1].set()
        await self.asleep(slept + 1)

    async def wake_all(self) -> None:
        """End all sleeps that are due."""
        for deadline, event in self._sleepers:
            if deadline <= self.now:
                event.set()
