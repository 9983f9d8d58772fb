"""Child processes by os.fork, and what they say."""

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
    """A child process that does something and ends.

    Args:
        do: what it does; it has done it well unless that raises.

    Attributes:
        pid: its number.
    """

    def __init__(self, do: Callable[[], None]) -> None:
        self._read_end, write_end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that the child of a process with threads may deadlock
            self.pid = os.fork()
        if not self.pid:
            _do(do, write_end)
        os.close(write_end)

    def says(self) -> str:
        """Wait until it has ended: "well", a traceback, or nothing where it was killed or had to be."""
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
    """Do something in a child process, and give what it says of it."""
    return Child(do).says()


def _do(do: Callable[[], None], write_end: int) -> NoReturn:
    said = "it ended otherwise"
    try:
        do()
        said = WELL
    except BaseException:  # noqa: BLE001 - nothing may get out of here
        said = traceback.format_exc()
    finally:
        with contextlib.suppress(OSError):
            os.write(write_end, said.encode()[-4000:])
        os._exit(0)
