"""Waiting for programs: until they answer, until an answer changes, until they end."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_not_result, stop_after_delay, wait_fixed

__all__ = ("accepts", "ending", "wait_until", "wait_until_ready")

Seen = TypeVar("Seen")

STARTED_WITHIN = 60.0  # seconds, on a busy machine
CHANGED_WITHIN = 20.0
ENDED_WITHIN = 20.0
PAUSE = 0.02  # seconds between two attempts


def wait_until_ready(process: subprocess.Popen[Any], is_ready: Callable[[], bool], describe: Callable[[], str]) -> None:
    """Ask a server again and again until it is ready.

    Args:
        process: the server.
        is_ready: a function that asks it.
        describe: a function that tells which server it is, and what it wrote.

    Raises:
        RuntimeError: the server has ended, or is not ready after 60 seconds.
    """
    deadline = time.monotonic() + STARTED_WITHIN
    while not is_ready():
        with suppress(subprocess.TimeoutExpired):
            process.wait(PAUSE)
        if process.returncode is not None or time.monotonic() > deadline:
            problem = f"{describe()} did not start"
            raise RuntimeError(problem)


def wait_until(see: Callable[[], Seen], is_met: Callable[[Seen], bool] = bool) -> Seen:
    """Look again and again until what another program has done fulfils a condition.

    Args:
        see: a function that looks.
        is_met: the condition.

    Returns:
        What was seen at last.

    Raises:
        AssertionError: the condition is not fulfilled within 20 seconds; with what was seen at last.
    """
    looking = Retrying(
        retry=retry_if_not_result(is_met),
        stop=stop_after_delay(CHANGED_WITHIN),
        wait=wait_fixed(PAUSE),
        retry_error_callback=_fail,
    )
    return looking(see)


def _fail(state: RetryCallState) -> NoReturn:
    assert state.outcome is not None
    raise AssertionError(state.outcome.result())


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Terminate a program at the end of the block, and kill it if it does not end."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(ENDED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()


def accepts(port: int) -> bool:
    """Whether a server of this machine accepts connections at a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
