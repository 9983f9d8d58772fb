"""Source: where the list of widget keys comes from."""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from gatekeeper.client import (
    MAX_LIST,
    AsyncHubClient,
    KeyUsage,
    Listing,
    MakeHttp,
    TokenScope,
    account_of,
    http_maker,
    require_hub,
)
from gatekeeper.errors import ConfigError, InvalidRow, SourceError
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.sync.threads import in_thread

__all__ = (
    "Basis",
    "FileSource",
    "FullList",
    "HoldsToken",
    "HubSource",
    "NeverChanges",
    "ReportsRefused",
    "ReportsUsage",
    "Source",
    "StaticSource",
    "Unchanged",
    "Updates",
)


class Basis(msgspec.Struct, frozen=True):
    """The list that the gate has already.

    Attributes:
        validator: the validator of that list; None asks for the whole list in any case.
    """

    validator: str | None = None


class FullList(msgspec.Struct, frozen=True):
    """The whole list, whether or not it has changed.

    Attributes:
        listing: its bytes as they arrive, with its validator and its date.
    """

    listing: Listing


class Unchanged(msgspec.Struct, frozen=True):
    """The list is still the one that the basis names."""


Updates = Callable[[Basis], AbstractAsyncContextManager[FullList | Unchanged]]
"""Asks for the list. A failure raises SourceError or TimeoutError, when the context is opened or read."""


class Source(Protocol):
    """Where the list of widget keys comes from.

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
        account: the account of the keys; None if it is not known.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        fingerprint: a text that differs for each source and credential, and reveals neither; snapshots carry it.
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
        """Open what one event loop needs, shared with no other.

        Returns:
            A context manager that gives `updates(basis)`, itself a context manager of FullList or Unchanged.
        """
        ...


@runtime_checkable
class NeverChanges(Protocol):
    """A source with a fixed list; its gate needs no start.

    Attributes:
        never_changes: True.
        rows: the list.
    """

    never_changes: Literal[True]
    rows: Sequence[WidgetKey]


@runtime_checkable
class ReportsUsage(Protocol):
    """A source that takes reports on used keys."""

    async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Report used keys.

        Args:
            usage: the uses since the last report, by key id.

        Raises:
            SourceError: if that fails; the report is repeated later.
        """
        ...


@runtime_checkable
class ReportsRefused(Protocol):
    """A source that takes reports on refused pages."""

    async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
        """Report refused pages.

        Args:
            pages: the pages that were refused since the last report, 1,000 at most.

        Raises:
            SourceError: if that fails; the report is repeated later.
        """
        ...


@runtime_checkable
class HoldsToken(Protocol):
    """A source with a token, which all its gates share."""

    def last_token(self) -> str:
        """The token that was used last."""
        ...


class HubSource:
    """The hub's list endpoint.

    Args:
        base_url: the address of the hub, such as "https://hub.example"; it may end in "/api" or "/api/v1".
        token: a bearer token, `sk_live_<account>_…`, of scope `gate` where the hub has scopes; or a function that returns
            it, called at each fetch, so that the token can be replaced without a restart.
        account: the account, if the token does not carry one.
        timeout: seconds that connecting, and each wait for bytes, may take.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        max_list: bytes that the decompressed list may have.
        http: makes the httpx client of an event loop, with proxies, certificates or a transport; it is closed with the loop.

    Attributes:
        token_scope: the scope of the token, from the hub's last answer to a fetch; None if the answer did not say it.

    Raises:
        ConfigError: with one sentence for each wrong argument.
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
        self._last_token = self._token()
        self.account = account or account_of(self._last_token)
        self.suffix_field = suffix_field
        self.token_scope: TokenScope | None = None
        require_hub(base_url, self._last_token, account)
        RowReader(suffix_field)
        self._base_url = base_url
        self._max_list = max_list
        self._make_http = http or http_maker(timeout)
        self._client = partial(AsyncHubClient, base_url, account=account, suffix_field=suffix_field)

    @property
    def fingerprint(self) -> str:
        """See Source."""
        return hashlib.blake2b(f"{self._base_url}\n{self._token()}".encode(), digest_size=16).hexdigest()

    def last_token(self) -> str:
        """The token that was used last."""
        return self._last_token

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Open a pool of connections to the hub."""
        async with self._connected() as client:

            @asynccontextmanager
            async def updates(basis: Basis) -> AsyncIterator[FullList | Unchanged]:
                fetching = client().widget_keys.fetch(
                    basis.validator, max_list=self._max_list, on_token_scope=self._note_token_scope
                )
                async with fetching as listing:
                    yield Unchanged() if listing is None else FullList(listing)

            yield updates

    async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Report used keys to the hub.

        Args:
            usage: the uses since the last report, by key id.

        Raises:
            HubError: if that fails; its `status` is 404 or 405 if the hub has no such endpoint.
        """
        async with self._connected() as client:
            await client().widget_keys.report_usage(usage)

    async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
        """Report refused pages to the hub.

        Args:
            pages: the pages that were refused since the last report, 1,000 at most.

        Raises:
            HubError: if that fails; its `status` is 404 or 405 if the hub has no such endpoint.
        """
        async with self._connected() as client:
            await client().widget_keys.report_refused(pages)

    def _note_token_scope(self, scope: TokenScope | None) -> None:
        self.token_scope = scope

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Callable[[], AsyncHubClient]]:
        """A function that makes clients with the current token."""
        async with aclosing(self._make_http()) as http:

            def make_client() -> AsyncHubClient:
                token = self._token()
                try:
                    client = self._client(token, http=http)
                except ConfigError as error:
                    raise SourceError(f"the hub's token cannot be used: {error}") from error
                self._last_token = token
                return client

            yield make_client


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


class StaticSource:
    """Rows that never change, for tests and tools.

    Args:
        rows: widget keys, or mappings with the fields that the hub's JSON has.
        account: the account that client keys have to name; None for any.

    Attributes:
        rows: the widget keys.

    Raises:
        ConfigError: with one sentence for each row that is not a widget key.
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
        """Keep nothing open: the rows are in memory."""
        yield self._updates

    @asynccontextmanager
    async def _updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged]:
        validator = self.fingerprint
        is_known = basis.validator == validator
        yield Unchanged() if is_known else FullList(Listing.whole(msgspec.json.encode(self.rows), validator))
