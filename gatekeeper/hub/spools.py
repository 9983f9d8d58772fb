"""Spools: bytes that one task writes and many read meanwhile."""

import tempfile
import threading
from collections.abc import Callable
from typing import BinaryIO, Final

import anyio

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.accounts import described
from gatekeeper.hub.shares import Shares
from gatekeeper.hub.turns import Turns

__all__ = ("PIECE", "Spool", "Spools")

# Bytes. Larger bodies go to a file: the lists of 5,000 keys stay in memory, compressed.
IN_MEMORY: Final = 256 * 1024

# Bytes of all files. An account can have half of them if it is alone: the list of a million keys has 450 MB, uncompressed.
MAX_SPOOLED: Final = 2 * 1024**3

READS: Final = 4  # Reads from the disk at once.
PIECE: Final = 256 * 1024  # Bytes; one is in memory for each reader.


def _open_file() -> BinaryIO:
    # It has no name, and is gone with the process.
    return tempfile.TemporaryFile(buffering=0)


class Spools:
    """The spools of a hub, which share the disk.

    Args:
        in_memory: the most bytes of a spool that are kept in memory; more go to a file.
        most: the most bytes of all files. An account can have as many as it leaves to the others.
        open_file: makes an unbuffered file for reading and writing.
    """

    def __init__(
        self, *, in_memory: int = IN_MEMORY, most: int = MAX_SPOOLED, open_file: Callable[[], BinaryIO] = _open_file
    ) -> None:
        self.in_memory = in_memory
        self.open_file = open_file
        self.shares = Shares(most)
        # In turns, so that many readers leave the event loop to other requests.
        self.turns = Turns(READS, "to read from the disk", patience=None)

    def new(self, account: str) -> "Spool":
        """Make an empty spool.

        Args:
            account: the account to which the disk is charged.
        """
        return Spool(self, account)


class Spool:
    """Bytes that one task appends, and others read meanwhile.

    Args:
        spools: the spools with which it shares the disk.
        account: the account to which the disk is charged.

    Attributes:
        length: the bytes that can be read.
        in_file: whether they are in a file.
    """

    def __init__(self, spools: Spools, account: str) -> None:
        self._spools = spools
        self._account = account
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._positioning = threading.Lock()
        self._last_read = (0, b"")
        self._charged = 0
        self.length = 0

    @property
    def in_file(self) -> bool:
        """Whether the bytes are in a file."""
        return self._file is not None

    async def append(self, content: bytes) -> None:
        """Append bytes. One task at a time may do so.

        Args:
            content: the bytes.

        Raises:
            HubOverloaded: the disk is full, or fails, or the account has too much on it.
        """
        if self._file is None and self.length + len(content) <= self._spools.in_memory:
            self._memory += content
        else:
            new = content if self._file is not None else bytes(self._memory) + content
            if not self._spools.shares.take(self._account, len(new)):
                raise HubOverloaded(f"lists of {described(self._account)} that wait for slow clients take too much disk")
            self._charged += len(new)
            try:
                # A disk may be slow.
                start = 0 if self._file is None else self.length
                self._file = await anyio.to_thread.run_sync(self._write, self._file, new, start)
            except OSError as error:
                where = tempfile.gettempdir()
                problem = f"a list cannot be written to {where}, the directory of temporary files: {error.strerror}"
                raise HubOverloaded(problem) from error
            self._memory.clear()
        self.length += len(content)

    async def read(self, start: int) -> bytes:
        """Read at most PIECE bytes.

        Args:
            start: the position of the first.

        Returns:
            The bytes; empty if there are none yet.

        Raises:
            OSError: the disk fails.
        """
        length = min(PIECE, self.length - start)
        if length <= 0 or self._file is None:
            return bytes(self._memory[start : start + length])
        async with self._spools.turns.taking(self._account):
            # Readers that keep up with the writing ask for the same bytes.
            if self._last_read[0] != start or len(self._last_read[1]) != length:
                self._last_read = start, await anyio.to_thread.run_sync(self._read, self._file, start, length)
            return self._last_read[1]

    def close(self) -> None:
        """Give back memory and disk. Nothing may be read any more."""
        self._spools.shares.give_back(self._account, self._charged)
        self._charged = 0
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    def _write(self, present: BinaryIO | None, content: bytes, start: int) -> BinaryIO:
        file = present or self._spools.open_file()
        rest = memoryview(content)
        try:
            with self._positioning:
                file.seek(start)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError:
            if present is None:
                file.close()
            raise
        return file

    def _read(self, file: BinaryIO, start: int, length: int) -> bytes:
        with self._positioning:
            file.seek(start)
            return file.read(length)
