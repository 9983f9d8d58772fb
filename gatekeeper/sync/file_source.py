"""FileSource: a file with the list of widget keys."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock

from gatekeeper.client import Listing
from gatekeeper.errors import SourceError
from gatekeeper.keys.reader import RowReader
from gatekeeper.sync.sources import Basis, FullList, Unchanged, Updates
from gatekeeper.sync.threads import in_thread

__all__ = ("FileSource",)


class FileSource:
    """A JSON file with an array of rows, followed for changes.

    Args:
        path: the file.
        account: the account that client keys have to name; None for any.
        suffix_field: the field of a row that holds the last 8 characters of its key.
    """

    def __init__(self, path: str | Path, *, account: str | None = None, suffix_field: str = "last8") -> None:
        RowReader(suffix_field)
        self.path = Path(path)
        self.account = account
        self.suffix_field = suffix_field

    @property
    def fingerprint(self) -> str:
        """See Source."""
        return hashlib.blake2b(os.fsencode(self.path.absolute()), digest_size=16).hexdigest()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Keep nothing open between two readings."""
        reading = Lock()

        def read(validator: str | None) -> tuple[bytes, str] | None:
            # A disk that hangs, or a pipe without a writer, keeps the thread of an abandoned reading.
            if not reading.acquire(blocking=False):
                raise SourceError(f"cannot read the rows in {str(self.path)!r}: an earlier reading has not ended yet")
            try:
                return self.read(validator)
            finally:
                reading.release()

        @asynccontextmanager
        async def updates(basis: Basis) -> AsyncIterator[FullList | Unchanged]:
            rows = await in_thread(read, basis.validator, abandon_on_cancel=True)
            yield Unchanged() if rows is None else FullList(Listing.whole(*rows))

        yield updates

    def read(self, validator: str | None = None) -> tuple[bytes, str] | None:
        """Read the file if it has changed.

        Args:
            validator: the validator of the last reading; None to read in any case.

        Returns:
            The content of the file and its validator; None if the file has not changed.

        Raises:
            SourceError: if the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                # Stat the open file before reading it, so that the next call notices a write or a replacement in between.
                stat = os.fstat(file.fileno())
                current = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
                return None if current == validator else (file.read(), current)
        except OSError as error:
            problem = f"cannot read the rows in {str(self.path)!r}: {error.strerror or error}"
            raise SourceError(problem) from error
