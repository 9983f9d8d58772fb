"""Tools for tests of tasks, event loops and threads."""

import asyncio
import selectors
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import pytest

__all__ = ("SkippingLoop", "asyncio_only", "leaving_nothing_behind", "run_skipping", "threads_switching_often")

Result = TypeVar("Result")


@asynccontextmanager
async def leaving_nothing_behind() -> AsyncIterator[None]:
    """Assert that no task of asyncio outlives the block."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def asyncio_only(test: Callable[..., Awaitable[None]]) -> Any:
    """Run a test on asyncio alone."""
    return pytest.mark.parametrize("anyio_backend", ["asyncio"])(pytest.mark.anyio(test))


@contextmanager
def threads_switching_often() -> Iterator[None]:
    """Switch threads as often as possible, to provoke races."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__(_SkippingSelector(self))
        self.skipped = 0.0

    def time(self) -> float:
        """The time in seconds."""
        return self.skipped


class _SkippingSelector(selectors.DefaultSelector):
    def __init__(self, loop: SkippingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """Wait for nothing."""
        found = super().select(0)
        if not found:
            assert timeout is not None, "the test waits forever"
            # Otherwise a timer may be due by less than the clock shows.
            self._loop.skipped += timeout + 1e-9 if timeout else 0.0
        return found


def run_skipping(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that waits for timers only, in no time."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(main)
