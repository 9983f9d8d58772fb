"""The signal that ends all waits."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from gatekeeper.hub.stop_signal import on_stop_signal

pytestmark = pytest.mark.anyio


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Handle SIGTERM as a server does, and record it."""
    numbers: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)

    former = signal.signal(signal.SIGTERM, handle)
    yield numbers
    signal.signal(signal.SIGTERM, former)


async def test_a_signal_reaches_the_server_and_the_hub(handled: list[int]) -> None:
    stopped = asyncio.Event()
    with on_stop_signal(stopped.set):
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await stopped.wait()
    assert handled == [signal.SIGTERM]


async def test_at_the_end_the_handler_of_the_server_is_back(handled: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    acts: list[int] = []
    with on_stop_signal(lambda: acts.append(1)):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    assert (handled, acts) == ([signal.SIGTERM], [])


async def test_a_handler_that_was_set_later_stays(handled: list[int]) -> None:
    def later(_number: int, _frame: FrameType | None) -> None: ...

    with on_stop_signal(lambda: None):
        signal.signal(signal.SIGTERM, later)
    assert signal.getsignal(signal.SIGTERM) is later
    assert handled == []


@pytest.mark.parametrize("former", [signal.SIG_DFL, signal.SIG_IGN])
async def test_a_signal_that_no_server_handles_is_left_alone(handled: list[int], former: Any) -> None:
    signal.signal(signal.SIGTERM, former)
    with on_stop_signal(lambda: None):
        assert signal.getsignal(signal.SIGTERM) == former
    assert handled == []


async def test_in_another_thread_no_handler_is_set(handled: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    async def run() -> None:
        with on_stop_signal(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert seen == [before]
    assert handled == []


def test_a_signal_after_the_loop_has_gone_reaches_the_server_alone(handled: list[int]) -> None:
    async def run() -> Any:
        left = on_stop_signal(lambda: None)
        left.__enter__()
        return left

    left = asyncio.run(run())
    signal.raise_signal(signal.SIGTERM)
    assert handled == [signal.SIGTERM]
    left.__exit__(None, None, None)
