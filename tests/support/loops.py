"""Tools for tests of tasks, event loops and threads."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

__all__ = ("asyncio_only", "leaving_nothing_behind", "threads_switching_often")


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
