"""Child processes by os.fork, and their results."""

import contextlib
import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

__all__ = ("Child", "forked")

WELL = "well"
PATIENCE = 60.0


class Child:
    """A child process that calls a function and ends.

    Args:
        do: called in the child; it fails if this raises.

    Attributes:
        pid: process id.
    """

    def __init__(self, do: Callable[[], None]) -> None:
        self._read_end, write_end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads may deadlock
            self.pid = os.fork()
        if not self.pid:
            _do(do, write_end)
        os.close(write_end)

    def says(self) -> str:
        """Wait for the end; return "well", a traceback, or nothing after a kill."""
        said = b""
        try:
            while select.select([self._read_end], [], [], PATIENCE)[0] and (chunk := os.read(self._read_end, 65_536)):
                said += chunk
        finally:
            os.close(self._read_end)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        return said.decode()


def forked(do: Callable[[], None]) -> str:
    """Call a function in a child process; return its result, as `says`."""
    return Child(do).says()


def _do(do: Callable[[], None], write_end: int) -> NoReturn:
    said = "it ended without a result"
    try:
        do()
        said = WELL
    except BaseException:  # noqa: BLE001 - reported to the parent
        said = traceback.format_exc()
    finally:
        with contextlib.suppress(OSError):
            os.write(write_end, said.encode()[-4000:])
        os._exit(0)
