"""Moment: an event that takes little memory until it is awaited."""

import anyio
import anyio.lowlevel

__all__ = ("Moment",)


class Moment:
    """Something for which tasks of one event loop may wait.

    An `anyio.Event` takes 1 KB under asyncio. A gate has several of these for each of its lists, and seldom waits for any.

    Attributes:
        has_come: whether it has happened.
    """

    def __init__(self) -> None:
        self.has_come = False
        self._event: anyio.Event | None = None

    def come(self) -> None:
        """Let it happen, and wake those who wait."""
        self.has_come = True
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until it has happened."""
        if self.has_come:
            await anyio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
