"""AsyncHubClient: HubClient for programs with an event loop."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Self

import anyio
import httpx
from msgspec import UNSET, UnsetType

from gatekeeper.client.address import account_of
from gatekeeper.client.calls import Calls, KeyEvents, RefusedPages
from gatekeeper.client.gates import AsyncGates, GateCalls
from gatekeeper.client.listing import MAX_LIST, ListAnswer, Listing, ListQuestion, TokenScope, fetch
from gatekeeper.client.records import CreatedWidgetKey, KeyUsage, VersionedWidgetKey, WidgetKeyList
from gatekeeper.client.retries import Retries
from gatekeeper.client.sending import AsyncSender
from gatekeeper.client.tls import TlsContext
from gatekeeper.keys.refused_page import RefusedPage

__all__ = ("AsyncHubClient", "AsyncWidgetKeys", "MakeHttp", "http_maker")

MakeHttp = Callable[[], httpx.AsyncClient]


def http_maker(timeout: float, tls: TlsContext | None = None) -> MakeHttp:
    """Make a factory of httpx clients with one TLS context.

    Args:
        timeout: seconds for connecting, and for each wait for bytes.
        tls: the context; None for one of this factory.
    """
    shared = TlsContext() if tls is None else tls
    return lambda: httpx.AsyncClient(timeout=timeout, trust_env=False, verify=shared.get())


class AsyncHubClient:
    """HubClient for programs with an event loop.

    Args, Raises: as for `HubClient`; `http` is an `httpx.AsyncClient`, and `sleep` is awaited.

    Attributes:
        account: as for `HubClient`.
        http: the httpx client that sends the requests.
        widget_keys: the methods: list, fetch, ask, get, create, update, delete, events, refused, report_usage and
            report_refused.
        gates: the methods on gates that run: list, report.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        account: str | None = None,
        timeout: float = 10.0,
        suffix_field: str = "last8",
        http: httpx.AsyncClient | None = None,
        max_attempts: int = 3,
        retry_within: float = 30.0,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        retries = Retries(max_attempts, retry_within)
        calls = Calls(base_url, token, account, suffix_field, other_problems=retries.problems)
        self.account = account or account_of(token)
        self._owns_http = http is None
        self.http = httpx.AsyncClient(timeout=timeout, trust_env=False) if http is None else http
        sender = AsyncSender(self.http, partial(retries.awaiting, sleep=sleep))
        self.widget_keys = AsyncWidgetKeys(calls, sender)
        self.gates = AsyncGates(GateCalls(base_url, token, account), sender)

    async def aclose(self) -> None:
        """Close the connections, unless `http` was passed in."""
        if self._owns_http:
            await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncWidgetKeys:
    """WidgetKeys with methods to await, `fetch` and `ask`.

    Arguments, results and errors are documented in `WidgetKeys`.
    """

    def __init__(self, calls: Calls, sender: AsyncSender) -> None:
        self._calls = calls
        self._sender = sender

    async def list(self) -> WidgetKeyList:
        """List every key of the account. See `WidgetKeys.list`."""
        return await self._sender.send(self._calls, self._calls.list())

    @asynccontextmanager
    async def fetch(
        self,
        validator: str | None = None,
        *,
        max_list: int = MAX_LIST,
        on_token_scope: Callable[[TokenScope | None], None] | None = None,
    ) -> AsyncIterator[Listing | None]:
        """Stream the account's list, if it has changed.

        Args:
            validator: the validator of the last listing; None fetches the list in any case.
            max_list: bytes of the list at most, uncompressed.
            on_token_scope: called with the scope of the token, before the listing is given; with None if the hub's answer
                does not say it.

        Returns:
            A context with the listing, which is read while the context is open; None if the hub answers that the list has
            not changed. Entering the context and reading the listing may raise a HubError. InvalidList leaves the context
            as a HubProtocolError.
        """
        async with self.ask(ListQuestion(validator, max_list=max_list), on_token_scope=on_token_scope) as answer:
            yield answer.listing

    def ask(
        self, question: ListQuestion, *, on_token_scope: Callable[[TokenScope | None], None] | None = None
    ) -> AbstractAsyncContextManager[ListAnswer]:
        """Stream the account's list, or what has changed in it, perhaps later.

        Args:
            question: what is asked. Where the hub may hold its answer, it has so much more time for the first byte.
            on_token_scope: as for `fetch`.

        Returns:
            A context with the answer, as for `fetch`.
        """
        return fetch(self._calls, self._sender.http, question, on_token_scope)

    async def get(self, key_id: str) -> VersionedWidgetKey:
        """Read a key. See `WidgetKeys.get`."""
        return await self._sender.send(self._calls, self._calls.get(key_id))

    async def create(
        self, name: str, *, domain_allowlist: Iterable[str] = (), agent_id: str | None = None
    ) -> CreatedWidgetKey:
        """Create a key. See `WidgetKeys.create`."""
        return await self._sender.send(self._calls, self._calls.create(name, domain_allowlist, agent_id))

    async def update(
        self,
        key_id: str,
        *,
        name: str | UnsetType = UNSET,
        domain_allowlist: Iterable[str] | UnsetType = UNSET,
        agent_id: str | None | UnsetType = UNSET,
        disabled: bool | UnsetType = UNSET,
        if_match: str | None = None,
    ) -> VersionedWidgetKey:
        """Change the given fields of a key. See `WidgetKeys.update`."""
        return await self._sender.send(
            self._calls, self._calls.update(key_id, name, domain_allowlist, agent_id, disabled, if_match)
        )

    async def delete(self, key_id: str, *, if_match: str | None = None) -> VersionedWidgetKey | None:
        """Delete or revoke a key. See `WidgetKeys.delete`."""
        return await self._sender.send(self._calls, self._calls.delete(key_id, if_match))

    async def events(self, key_id: str) -> KeyEvents:
        """List the audit trail of a key. See `WidgetKeys.events`."""
        return await self._sender.send(self._calls, self._calls.events(key_id))

    async def refused(self, key_id: str | None = None) -> RefusedPages:
        """List the pages that gates have refused. See `WidgetKeys.refused`."""
        return await self._sender.send(self._calls, self._calls.refused(key_id))

    async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Report which keys were used. See `WidgetKeys.report_usage`."""
        await self._sender.send(self._calls, self._calls.report_usage(usage))

    async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
        """Report which pages were refused. See `WidgetKeys.report_refused`."""
        await self._sender.send(self._calls, self._calls.report_refused(pages))
