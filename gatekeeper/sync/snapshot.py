"""Snapshot: the last known good list, on disk.

The file is a line that names the format, a header that says whose list it is, the packed rows of the index in frames, and
a checksum over all of it. It is written to a temporary file and then renamed, so that a reader finds the old list or the
new one, even after a crash.
"""

import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from gatekeeper.errors import SnapshotError
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.packed import widened
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.quoting import quoted
from gatekeeper.sync.suffixes import load_suffixes_for
from gatekeeper.sync.threads import in_thread

if sys.platform != "win32":  # has no such lock: two processes may replace the file in any order
    import fcntl

__all__ = ("Saved", "Snapshot")

# Increment the number when a field changes its type or meaning. The header names the fields.
FORMAT = b"gatekeeper snapshot 2\n"
MODE = 0o600
FOLDER_MODE = 0o700
MAX_SIZE = 2 * 1024**3  # bytes: four times the size of two million keys
CHECKSUM = 32  # bytes
LENGTH = 4  # bytes that say how long a frame is
CHUNK = 1024 * 1024  # bytes that are read or written at once, in a thread
PATIENCE = 5.0  # seconds
LOCK_INTERVAL = 0.02  # seconds between two attempts at the lock, which is held for a few milliseconds
FIELDS = WidgetKey.__struct_fields__
FIRST_FIELDS = FIELDS[: FIELDS.index("key_sha256") + 1]  # the fields of the first version with this format
LEFT_BEHIND = 600.0  # seconds after which the temporary file of a killed process is removed


class _Header(msgspec.Struct, omit_defaults=True):
    fields: tuple[str, ...]
    account: str | None
    fingerprint: str
    asked_at: float
    keys: int
    validator: str | None = None


class Saved(NamedTuple):
    """What is known of the list on disk.

    Attributes:
        age: seconds since it was asked for.
        validator: the source's name for it; None if the keys on disk may differ from that list, such as those that an
            earlier version has written, with fewer fields.
    """

    age: float
    validator: str | None


class Snapshot:
    """The list of one gate on disk.

    Args:
        path: the file; several processes may share it.
        account: the account of the keys.
        fingerprint: gives the fingerprint of the source; see `Source`.
        wall_clock: seconds since 1970.
        max_size: bytes that the file may have.
        patience: seconds to wait for the lock of another process.

    Attributes:
        saved_at: when the list on disk was asked for, in seconds since 1970, if this process has read or written it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        account: str | None,
        fingerprint: Callable[[], str],
        wall_clock: Callable[[], float],
        max_size: int = MAX_SIZE,
        patience: float = PATIENCE,
    ) -> None:
        self.path = Path(path)
        self.saved_at: float | None = None
        self._account = account
        self._fingerprint = fingerprint
        self._wall_clock = wall_clock
        self._max_size = max_size
        self._patience = patience

    async def load(self, index: KeyIndex, *, max_age: float) -> Saved | None:
        """Load the list into an empty index.

        Args:
            index: the index; it stays empty if that fails.
            max_age: seconds since the list was asked for, at most; 0 for any.

        Returns:
            Its age and validator; None if there is no file.

        Raises:
            SnapshotError: if the file cannot be used. A damaged or foreign file is set aside with the suffix `.bad`.
        """
        try:
            file = await in_thread(self._open)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._set_aside(f"cannot be opened ({error.strerror or error})") from error
        with file:
            header = await self._verified(file)
            age = self._wall_clock() - header.asked_at
            if age < 0:
                raise SnapshotError(f"{self._named} is from the future by {-age:.0f} s, so its age is unknown")
            if max_age and age >= max_age:
                raise SnapshotError(f"{self._named} is {age:.0f} s old, more than the {max_age:.0f} s that a list may be")
            try:
                await self._restore(file, index, is_narrow=header.fields != FIELDS)
            except BaseException:
                index.clear()
                raise
        self.saved_at = header.asked_at
        return Saved(age, header.validator if header.fields == FIELDS else None)

    async def save(self, index: KeyIndex, asked_at: float, validator: str | None = None) -> None:
        """Write the list to disk, in place of an older one.

        The directory is made where only that is missing.

        Args:
            index: the list.
            asked_at: when it was asked for, in seconds since 1970.
            validator: the source's name for it, if the index equals the list of that name.

        Raises:
            SnapshotError: if that fails, or another process keeps the lock; what was on disk stays as it was.
        """
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
        try:
            with suppress(FileExistsError):
                await in_thread(self.path.parent.mkdir, FOLDER_MODE)
            await self._write(new, index, asked_at, validator)
            # Another process may have been stopped while it holds the lock. A thread that waits for the lock would stay.
            with anyio.fail_after(self._patience, reason=f"another process has held its lock for {self._patience:g} s"):
                while not await in_thread(self._put_in_place, new, asked_at):  # noqa: ASYNC110 - no event
                    await anyio.sleep(LOCK_INTERVAL)
        except (OSError, RuntimeError) as error:
            problem = getattr(error, "strerror", None) or error
            raise SnapshotError(f"the snapshot could not be written to {str(self.path)!r}: {problem}") from error
        finally:
            with suppress(OSError):
                new.unlink()
        self.saved_at = asked_at

    @property
    def _named(self) -> str:
        return f"the snapshot {str(self.path)!r}"

    def _open(self) -> BinaryIO:
        # A symbolic link may lead anywhere, and opening a pipe would block until it has a writer.
        descriptor = os.open(self.path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT)
        try:
            return os.fdopen(descriptor, "rb")
        except OSError:  # a directory
            os.close(descriptor)
            raise

    async def _verified(self, file: BinaryIO) -> _Header:
        """The header of a file, once the whole file is verified."""
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise self._set_aside("is no file")
        if hasattr(os, "geteuid") and (about.st_mode & 0o077 or about.st_uid != os.geteuid()):
            raise self._set_aside(f"may have been written by others (mode {about.st_mode & 0o777:o}, expected {MODE:o})")
        if about.st_size > self._max_size:
            raise self._set_aside(f"has {about.st_size} bytes, more than {self._max_size}")
        if not await in_thread(_is_whole, file, about.st_size):
            raise self._set_aside("is damaged, or of another format")
        file.seek(len(FORMAT))
        try:
            header = msgspec.msgpack.decode(_frame(file), type=_Header)
        except msgspec.MsgspecError as error:
            raise self._set_aside(f"is of another format ({error})") from error
        # Rows are packed by position, and decoded at requests. Later versions append fields.
        if header.fields != FIELDS[: len(header.fields)] or len(header.fields) < len(FIRST_FIELDS):
            fields = quoted(", ".join(header.fields))
            raise self._set_aside(f"has rows with the fields {fields}: expected {', '.join(FIELDS)}")
        if (header.account, header.fingerprint) != (self._account, self._fingerprint()):
            raise self._set_aside("is of another account, hub or credential")
        return header

    async def _restore(self, file: BinaryIO, index: KeyIndex, *, is_narrow: bool) -> None:
        decode = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode
        while frame := _frame(file):
            await load_suffixes_for(frame)
            keys = decode(frame)
            index.restore([(last8, widened(packed)) for last8, packed in keys] if is_narrow else keys)
            await anyio.lowlevel.checkpoint()

    async def _write(self, new: Path, index: KeyIndex, asked_at: float, validator: str | None) -> None:
        header = _Header(FIELDS, self._account, self._fingerprint(), asked_at, len(index), validator)
        encode = msgspec.msgpack.Encoder().encode
        checksum = hashlib.blake2b(digest_size=CHECKSUM)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb", buffering=0) as file:
            pending = bytearray(FORMAT + _framed(encode(header)))
            for step in index.walk():
                pending += _framed(encode(step))
                if len(pending) >= CHUNK:
                    checksum.update(pending)
                    await in_thread(file.write, pending)
                    pending = bytearray()
                else:
                    await anyio.lowlevel.checkpoint()
            pending += _framed(b"")
            checksum.update(pending)
            await in_thread(file.write, pending + checksum.digest())
            await in_thread(os.fsync, file.fileno())

    def _put_in_place(self, new: Path, asked_at: float) -> bool:
        """Rename the new file, unless another process holds the lock."""
        with self._locked() as is_locked:
            if not is_locked:
                return False
            # Processes race for the file: the newer list wins.
            if not self._has_newer(asked_at):
                new.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._sweep()
        return True

    def _has_newer(self, asked_at: float) -> bool:
        with suppress(OSError, msgspec.MsgspecError), self._open() as file:
            if file.read(len(FORMAT)) == FORMAT:
                header = msgspec.msgpack.decode(_frame(file), type=_Header)
                ours = (header.account, header.fingerprint) == (self._account, self._fingerprint())
                # A file from the future would never be replaced.
                return ours and asked_at < header.asked_at <= self._wall_clock()
        return False

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Take the lock without waiting; False if another process holds it."""
        lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | _NO_FOLLOW, MODE)
        try:
            if sys.platform != "win32":
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                    return
            yield True
        finally:
            os.close(lock)

    def _sweep(self) -> None:
        """Remove the temporary files of killed processes."""
        ours = re.compile(rf"\.{re.escape(self.path.name)}\.\d+\.[0-9a-f]{{8}}\.new")
        for path in self.path.parent.iterdir():
            with suppress(OSError):
                if ours.fullmatch(path.name) and self._wall_clock() - path.stat().st_mtime > LEFT_BEHIND:
                    path.unlink()

    def _set_aside(self, problem: str) -> SnapshotError:
        aside = self.path.with_name(f"{self.path.name}.bad")
        with suppress(OSError):
            self.path.replace(aside)
        return SnapshotError(f"{self._named} {problem}; it is not used, and set aside as {aside.name!r}")


_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(LENGTH) + content


def _frame(file: BinaryIO) -> bytes:
    return file.read(int.from_bytes(file.read(LENGTH)))


def _is_whole(file: BinaryIO, size: int) -> bool:
    checksum = hashlib.blake2b(digest_size=CHECKSUM)
    left = size - CHECKSUM
    if file.read(len(FORMAT)) != FORMAT:
        return False
    checksum.update(FORMAT)
    left -= len(FORMAT)
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        checksum.update(chunk)
        left -= len(chunk)
    return left == 0 and file.read() == checksum.digest()
