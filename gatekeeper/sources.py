"""Source: where the list of widget keys comes from."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio

from gatekeeper.client import AsyncHubClient, Listing, account_of, require_hub
from gatekeeper.errors import ConfigError, InvalidRow, SourceError
from gatekeeper.keys import WidgetKey
from gatekeeper.rows import RowReader

__all__ = ("Fetch", "FileSource", "HubSource", "Source", "StaticSource")

Fetch = Callable[[str | None], Awaitable[Listing | None]]
"""Get the list, if it is another one than the validator names. Raises SourceError."""


class Source(Protocol):
    """Where a list of widget keys can be had, again and again.

    Attributes:
        account: the account whose keys these are; None where it is not known.
        suffix_field: the field of a row that holds the last 8 characters of its key.
    """

    @property
    def account(self) -> str | None:
        """See the class."""
        ...

    @property
    def suffix_field(self) -> str:
        """See the class."""
        ...

    def connect(self) -> AbstractAsyncContextManager[Fetch]:
        """Open what one event loop needs to fetch the list; nothing of it is shared with another loop or process."""
        ...


class HubSource:
    """The hub's list endpoint.

    Args:
        base_url: where the hub is, such as "https://hub.example"; "/api" or "/api/v1" may be part of it.
        token: a bearer token, `sk_live_<account>_…`.
        account: the account, where the token does not carry one.
        timeout: seconds that connecting, and every wait for bytes, may take.
        suffix_field: the field of a row that holds the last 8 characters of its key.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        account: str | None = None,
        timeout: float = 5.0,
        suffix_field: str = "last8",
    ) -> None:
        self.account = account or account_of(token)
        self.suffix_field = suffix_field
        require_hub(base_url, token, account)
        RowReader(suffix_field)
        self._client = partial(AsyncHubClient, base_url, token, account=account, timeout=timeout, suffix_field=suffix_field)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Fetch]:
        """Open a pool of connections to the hub."""
        async with self._client() as client:
            yield client.widget_keys.fetch


class FileSource:
    """A file with a JSON array of rows, read again when it changes.

    Args:
        path: the file.
        account: the account that client keys have to name; None to take them as they are.
        suffix_field: the field of a row that holds the last 8 characters of its key.
    """

    def __init__(self, path: str | Path, *, account: str | None = None, suffix_field: str = "last8") -> None:
        RowReader(suffix_field)
        self.path = Path(path)
        self.account = account
        self.suffix_field = suffix_field

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Fetch]:
        """Nothing is kept open between two readings."""
        yield self._fetch

    async def _fetch(self, validator: str | None) -> Listing | None:
        return await anyio.to_thread.run_sync(self.read, validator, abandon_on_cancel=True)

    def read(self, validator: str | None = None) -> Listing | None:
        """Read the file, if it is another one than the validator names.

        Args:
            validator: that of the listing that is known; None to read in any case.

        Returns:
            The listing; None if the file has not changed since.

        Raises:
            SourceError: if the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                # Taken before the bytes, of the very file that is open: a write or a swap in between is seen next time.
                stat = os.fstat(file.fileno())
                current = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
                return None if current == validator else Listing(file.read(), current)
        except OSError as error:
            problem = f"cannot read the rows in {str(self.path)!r}: {error.strerror or error}"
            raise SourceError(problem) from error


class StaticSource:
    """Rows that are given once and never change: for tests and tools.

    Args:
        rows: widget keys, or mappings with the fields that the hub's JSON has.
        account: the account that client keys have to name; None to take them as they are.

    Attributes:
        rows: the widget keys.

    Raises:
        ConfigError: listing every row that is not a widget key, and why.
    """

    def __init__(self, rows: Iterable[WidgetKey | Mapping[str, Any]], *, account: str | None = None) -> None:
        self.account = account
        reader = RowReader()
        self.rows: list[WidgetKey] = []
        problems = []
        for index, row in enumerate(rows):
            try:
                self.rows.append(reader.convert(index, row))
            except InvalidRow as error:
                problems.append(str(error))
        if problems:
            raise ConfigError(problems)
