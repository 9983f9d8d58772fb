"""Source: where the list of widget keys comes from."""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import anyio
import msgspec

from gatekeeper.client import MAX_LIST, AsyncHubClient, KeyUsage, Listing, MakeHttp, account_of, http_maker, require_hub
from gatekeeper.errors import ConfigError, InvalidRow, SourceError
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.widget_key import WidgetKey

__all__ = (
    "Basis",
    "FileSource",
    "FullList",
    "HubSource",
    "NeverChanges",
    "ReportsUsage",
    "Source",
    "StaticSource",
    "Unchanged",
    "Updates",
)


class Basis(msgspec.Struct, frozen=True):
    """What the gate has already, as far as a source needs to know.

    Attributes:
        validator: that of the last list; None asks for the whole list in any case.
    """

    validator: str | None = None


class FullList(msgspec.Struct, frozen=True):
    """The whole list, whether or not it has changed.

    Attributes:
        listing: its bytes as they arrive, and what is known about them.
    """

    listing: Listing


class Unchanged(msgspec.Struct, frozen=True):
    """The list is still the one that the basis names."""


Updates = Callable[[Basis], AbstractAsyncContextManager[FullList | Unchanged]]
"""Asks for the list. Opening the context, and reading in it, raise SourceError or TimeoutError for what fails."""


class Source(Protocol):
    """Where a list of widget keys comes from, again and again.

    A source of one's own needs no base class:

        class BucketSource:
            account = "acme"
            suffix_field = "last8"
            fingerprint = "bucket://widget-keys"

            @asynccontextmanager
            async def connect(self):
                yield self.updates

            @asynccontextmanager
            async def updates(self, basis):
                body, etag = await bucket.read("keys.json")
                yield Unchanged() if etag == basis.validator else FullList(Listing.whole(body, etag))

    Attributes:
        account: the account whose keys these are; None where it is not known.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        fingerprint: text that tells this source's lists from any other's, and from those for another credential, without
            giving it away; a snapshot on disk carries it.
    """

    @property
    def account(self) -> str | None:
        """See the class."""
        ...

    @property
    def suffix_field(self) -> str:
        """See the class."""
        ...

    @property
    def fingerprint(self) -> str:
        """See the class."""
        ...

    def connect(self) -> AbstractAsyncContextManager[Updates]:
        """Open what one event loop needs; nothing of it is shared with another loop or process.

        Returns:
            A context manager that gives `updates(basis)`, itself a context manager of FullList or Unchanged.
        """
        ...


@runtime_checkable
class NeverChanges(Protocol):
    """A source whose list is known from the start, so that a gate decides without being started.

    Attributes:
        never_changes: True.
        rows: the list.
    """

    never_changes: Literal[True]
    rows: Sequence[WidgetKey]


@runtime_checkable
class ReportsUsage(Protocol):
    """A source that wants to know which keys are used."""

    async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Report which keys were used.

        Args:
            usage: what is new since the last report, by the row's id.

        Raises:
            SourceError: if that fails; the report is repeated later.
        """
        ...


class HubSource:
    """The hub's list endpoint.

    Args:
        base_url: where the hub is, such as "https://hub.example"; "/api" or "/api/v1" may be part of it.
        token: a bearer token, `sk_live_<account>_…`, or what returns it whenever the list is fetched, so that it can be
            replaced without a restart.
        account: the account, where the token does not carry one.
        timeout: seconds that connecting, and every wait for bytes, may take.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        max_list: bytes that the list may have, unzipped.
        http: makes the httpx client of an event loop, with proxies, certificates, a transport; closed with it.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str],
        *,
        account: str | None = None,
        timeout: float = 5.0,
        suffix_field: str = "last8",
        max_list: int = MAX_LIST,
        http: MakeHttp | None = None,
    ) -> None:
        self._token = token if callable(token) else lambda: token
        self.account = account or account_of(self._token())
        self.suffix_field = suffix_field
        require_hub(base_url, self._token(), account)
        RowReader(suffix_field)
        self._base_url = base_url
        self._max_list = max_list
        self._make_http = http or http_maker(timeout)
        self._client = partial(AsyncHubClient, base_url, account=account, suffix_field=suffix_field)

    @property
    def fingerprint(self) -> str:
        """See Source."""
        return hashlib.blake2b(f"{self._base_url}\n{self._token()}".encode(), digest_size=16).hexdigest()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Open a pool of connections to the hub."""
        async with self._connected() as client:

            @asynccontextmanager
            async def updates(basis: Basis) -> AsyncIterator[FullList | Unchanged]:
                async with client().widget_keys.fetch(basis.validator, max_list=self._max_list) as listing:
                    yield Unchanged() if listing is None else FullList(listing)

            yield updates

    async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Tell the hub which keys were used.

        Args:
            usage: what is new since the last report, by the row's id.

        Raises:
            HubError: of the kind that fits; its `status` is 404 or 405 where the hub has no place for reports.
        """
        async with self._connected() as client:
            await client().widget_keys.report_usage(usage)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Callable[[], AsyncHubClient]]:
        """What makes clients over one pool of connections, each with the token of its moment."""
        async with aclosing(self._make_http()) as http:

            def client() -> AsyncHubClient:
                try:
                    return self._client(self._token(), http=http)
                except ConfigError as error:
                    raise SourceError(f"the hub's token cannot be used: {error}") from error

            yield client


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

    @property
    def fingerprint(self) -> str:
        """See Source."""
        return hashlib.blake2b(os.fsencode(self.path.absolute()), digest_size=16).hexdigest()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Keep nothing open between two readings."""
        yield self._updates

    @asynccontextmanager
    async def _updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged]:
        read = await anyio.to_thread.run_sync(self.read, basis.validator, abandon_on_cancel=True)
        yield Unchanged() if read is None else FullList(Listing.whole(*read))

    def read(self, validator: str | None = None) -> tuple[bytes, str] | None:
        """Read the file, if it is another one than the validator names.

        Args:
            validator: that of the reading that is known; None to read in any case.

        Returns:
            What the file holds, and its validator; None if the file has not changed since.

        Raises:
            SourceError: if the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                # Taken before the bytes, of the very file that is open: a write or a swap in between is seen next time.
                stat = os.fstat(file.fileno())
                current = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
                return None if current == validator else (file.read(), current)
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

    never_changes: Literal[True] = True
    suffix_field = "last8"

    def __init__(self, rows: Iterable[WidgetKey | Mapping[str, Any]], *, account: str | None = None) -> None:
        self.account = account
        reader = RowReader()
        keys: list[WidgetKey] = []
        problems = []
        for index, row in enumerate(rows):
            try:
                keys.append(reader.convert(index, row))
            except InvalidRow as error:
                problems.append(str(error))
        if problems:
            raise ConfigError(problems)
        self.rows: Sequence[WidgetKey] = keys

    @property
    def fingerprint(self) -> str:
        """See Source."""
        return hashlib.blake2b(msgspec.json.encode(self.rows), digest_size=16).hexdigest()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Keep nothing open: the rows are there."""
        yield self._updates

    @asynccontextmanager
    async def _updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged]:
        validator = self.fingerprint
        is_known = basis.validator == validator
        yield Unchanged() if is_known else FullList(Listing.whole(msgspec.json.encode(self.rows), validator))
