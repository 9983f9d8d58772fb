"""Files that only their owner can read."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ("create_private", "whole_file")

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


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Make a file that appears under its name once it is complete.

    Args:
        path: the file, which must not exist.

    Yields:
        The path of an empty file to write to. It is synced and gets its name when the block ends without an exception.

    Raises:
        FileExistsError: the file exists; it stays as it is.
        OSError: the file cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        unfinished = Path(directory, path.name)
        create_private(unfinished)
        yield unfinished
        _sync(unfinished)
        # A rename would replace a file that has appeared meanwhile.
        os.link(unfinished, path)
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
