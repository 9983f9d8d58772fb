"""Files that only their owner can read."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ("create_private", "whole_file")

OWNER_ONLY: Final = 0o600
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


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
def whole_file(path: Path, *, link: Callable[[Path, Path], None] = os.link) -> Iterator[Path]:
    """Make a file that appears under its name once it is complete.

    Args:
        path: the file, which must not exist.
        link: gives a file a second name.

    Yields:
        The path of an empty file to write to. It is synced and gets its name when the block ends without an exception.

    Raises:
        FileExistsError: the file exists; it stays as it is.
        OSError: the file cannot be written.
    """
    _require_absent(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        unfinished = Path(directory, path.name)
        create_private(unfinished)
        yield unfinished
        try:
            _sync(unfinished)
            _give_name(unfinished, path, link)
            _sync(path.parent)
        except FileExistsError:
            raise
        except OSError as error:  # which names no file, or the unfinished one
            raise OSError(error.errno, error.strerror, str(path)) from error


def _give_name(unfinished: Path, path: Path, link: Callable[[Path, Path], None]) -> None:
    # A rename would replace a file that has appeared meanwhile, but some file systems, such as FAT, have no hard links.
    try:
        link(unfinished, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _require_absent(path)
        unfinished.rename(path)


def _require_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
