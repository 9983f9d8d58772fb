"""Wakers: end sleeps in all event loops of a process."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import anyio

from gatekeeper.sync.clock import Sleep

__all__ = ("Waker", "Wakers")

Parameters = ParamSpec("Parameters")


class Waker:
    """Sleeps in one event loop, which it must be made in.

    Args:
        sleep: waits for seconds.
    """

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self._call_soon = _call_soon_here()
        self._is_called = False
        self._is_woken = False
        self._nap: anyio.CancelScope | None = None

    def call(self) -> None:
        """End the sleep, or the next one; any thread may.

        Raises:
            RuntimeError: the event loop is closed.
        """
        # What happened before a call that has not arrived yet is seen when it does. So one is enough.
        if not self._is_called:
            self._is_called = True
            self._call_soon(self.wake)

    def wake(self) -> None:
        """End the sleep, or the next one, from within the event loop."""
        self._is_called = False
        self._is_woken = True
        if self._nap is not None:
            self._nap.cancel()

    async def sleep(self, seconds: float) -> None:
        """Sleep until it is woken.

        Args:
            seconds: how long, at most.
        """
        try:
            if not self._is_woken:
                with anyio.CancelScope() as self._nap:
                    await self._sleep(seconds)
        finally:
            self._nap = None
        self._is_woken = False


class Wakers:
    """The sleeps of all event loops of a process.

    Args:
        sleep: waits for seconds.
    """

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self._wakers: set[Waker] = set()

    @contextmanager
    def here(self) -> Iterator[Waker]:
        """Make a waker for the current event loop.

        Returns:
            A context manager that gives the waker.
        """
        waker = Waker(self._sleep)
        self._wakers.add(waker)
        try:
            yield waker
        finally:
            self._wakers.discard(waker)

    def wake(self) -> None:
        """End the sleeps; any thread may."""
        for waker in self._wakers.copy():
            try:
                waker.call()
            except RuntimeError:  # its event loop was closed without an end of its tasks
                self._wakers.discard(waker)

    def woken_after(self, call: Callable[Parameters, None]) -> Callable[Parameters, None]:
        """Make a function that calls another one, and then wakes.

        Args:
            call: the function.
        """

        def call_and_wake(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
            call(*args, **kwargs)
            self.wake()

        return call_and_wake

    def after_fork(self) -> None:
        """Forget the event loops of the parent, which run in it alone."""
        self._wakers = set()


def _call_soon_here() -> Callable[[Callable[[], None]], object]:
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        from trio.lowlevel import current_trio_token  # noqa: PLC0415 - gatekeeper does not need it, and it runs here

        return current_trio_token().run_sync_soon
