"""Waiting for a server program until it answers."""

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ("accepts", "wait_until_ready")

STARTED_WITHIN = 60.0  # seconds, on a busy machine
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


def accepts(port: int) -> bool:
    """Whether a server of this machine accepts connections at a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
