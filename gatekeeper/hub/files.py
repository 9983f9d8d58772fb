"""Files that only their owner can read."""

import os
from pathlib import Path
from typing import Final

__all__ = ("create_private",)

OWNER_ONLY: Final = 0o600


def create_private(path: Path) -> None:
    """Create an empty file that only its owner can read.

    Args:
        path: the file; a symbolic link is followed.

    Raises:
        FileExistsError: the file exists. It is not opened, which would release SQLite's locks on it when it is closed
            (https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
        OSError: the file cannot be created.
    """
    os.close(os.open(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY))
