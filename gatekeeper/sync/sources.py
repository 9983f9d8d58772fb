"""Source: where the list of widget keys comes from."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import msgspec

from gatekeeper.client import (
    MAX_LIST,
    AsyncHubClient,
    KeyUsage,
    Listing,
    ListQuestion,
    MakeHttp,
    TokenScope,
    account_of,
    http_maker,
    require_hub,
)
from gatekeeper.errors import ConfigError, SourceError
from gatekeeper.keys.gate_report import GateReport
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey

__all__ = (
    "Basis",
    "Delta",
    "FullList",
    "HoldsToken",
    "HubSource",
    "NeverChanges",
    "ReportsRefused",
    "ReportsUsage",
    "Source",
    "Unchanged",
    "Updates",
)


class Basis(msgspec.Struct, frozen=True):
    """The list that the gate has already.

    Attributes:
        validator: the validator of that list; None asks for the whole list in any case.
        wait: seconds for which the source may hold its answer, until the list changes; None for not at all.
    """

    validator: str | None = None
    wait: int | None = None


class FullList(msgspec.Struct, frozen=True):
    """The whole list, whether or not it has changed.

    Attributes:
        listing: its bytes as they arrive, with its validator and its date.
        granted: seconds for which the source holds an answer, at most the `wait` of the basis; None if it holds none.
        may_wait: whether it may hold the next one. Without it, that is tried after an interval.
    """

    listing: Listing
    granted: float | None = None
    may_wait: bool = False


class Unchanged(msgspec.Struct, frozen=True):
    """The list is still the one that the basis names.

    Attributes:
        granted: as for FullList. An answer that comes before these seconds are over is taken for one that was not held,
            unless it is the last one.
        may_wait: as for FullList.
        is_last: whether the source stops or restarts, and ends its waits before their time.
    """

    granted: float | None = None
    may_wait: bool = False
    is_last: bool = False


class Delta(msgspec.Struct, frozen=True):
    """What has changed since the list that the basis names.

    Attributes:
        listing: a JSON array of the rows that are new or have changed, each as the whole list has it, and of
            `{"id": …, "last8": …, "removed": true}` for each row that is gone. Its validator is that of the list now.
        base: the validator of the basis.
        granted: as for FullList.
        may_wait: as for FullList.
    """

    listing: Listing
    base: str
    granted: float | None = None
    may_wait: bool = False


Updates = Callable[[Basis], AbstractAsyncContextManager[FullList | Unchanged | Delta]]
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

    It is polled. A source that can tell of a change waits for one, for `basis.wait` seconds at most, and says so with
    `granted`. It is then asked again at once. It may answer with a Delta in place of the whole list.

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
            A context manager that gives `updates(basis)`, itself a context manager of FullList, Unchanged or Delta.
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
        timeout: seconds that connecting, and each wait for bytes, may take; where the hub holds its answer, beyond that.
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
        """Open a pool of connections, and another one once it waits."""
        async with AsyncExitStack() as opened:
            client = await opened.enter_async_context(self._connected())
            waiting: Callable[[], AsyncHubClient] | None = None

            @asynccontextmanager
            async def updates(basis: Basis) -> AsyncIterator[FullList | Unchanged | Delta]:
                nonlocal waiting
                if basis.wait is not None and waiting is None:
                    # A wait that is cut off takes its connection along, and a pool may have only one.
                    waiting = await opened.enter_async_context(self._connected())
                make_client = client if basis.wait is None or waiting is None else waiting
                question = ListQuestion(basis.validator, takes_changes=True, wait=basis.wait, max_list=self._max_list)
                asking = make_client().widget_keys.ask(question, on_token_scope=self._note_token_scope)
                async with asking as answer:
                    if answer.listing is None:
                        yield Unchanged(answer.granted, answer.may_wait, answer.is_last)
                    elif answer.base is None:
                        yield FullList(answer.listing, answer.granted, answer.may_wait)
                    else:
                        yield Delta(answer.listing, answer.base, answer.granted, answer.may_wait)

            yield updates

    # Each report has a connection of its own. A server closes an idle one long before the next report (uvicorn after 5 s),
    # and opening one takes 1.5 ms of processor time with TLS.

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

    async def report_gate(self, gate: GateReport) -> None:
        """Report to the hub that the gate runs.

        Args:
            gate: what it says of itself, in place of its last report.

        Raises:
            HubError: if that fails; its `status` is 404 or 405 if the hub has no such endpoint.
        """
        async with self._connected() as client:
            await client().gates.report(gate)

    def _note_token_scope(self, scope: TokenScope | None) -> None:
        self.token_scope = scope

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Callable[[], AsyncHubClient]]:
        """A function that gives a client with the current token."""
        async with aclosing(self._make_http()) as http:
            made: tuple[str, AsyncHubClient] | None = None

            def client() -> AsyncHubClient:
                nonlocal made
                token = self._token()
                if made is None or made[0] != token:
                    try:
                        made = token, self._client(token, http=http)
                    except ConfigError as error:
                        raise SourceError(f"the hub's token cannot be used: {error}") from error
                self._last_token = token
                return made[1]

            yield client
