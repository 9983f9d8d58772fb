"""HubSource: the hub's list endpoint."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial

from gatekeeper.client import (
    MAX_LIST,
    AsyncHubClient,
    KeyUsage,
    ListQuestion,
    MakeHttp,
    TlsContext,
    TokenScope,
    account_of,
    http_maker,
    require_hub,
)
from gatekeeper.errors import ConfigError, SourceError
from gatekeeper.keys.gate_report import GateReport
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.quoting import quoted
from gatekeeper.sync.sources import Basis, Delta, FullList, Unchanged, Updates

__all__ = ("HubSource",)


class HubSource:
    """The hub's list endpoint.

    Args:
        base_url: the address of the hub, such as "https://hub.example"; it may end in "/api" or "/api/v1".
        token: a bearer token of scope `gate`, where the hub has scopes: `sk_live_<account>_…`, or `sk_all_…` for the keys of
            all accounts. Or a function that returns it, called at each fetch, so that the token can be replaced without a
            restart.
        account: the account, if the token does not carry one.
        timeout: seconds that connecting, and each wait for bytes, may take; where the hub holds its answer, beyond that.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        max_list: bytes that the decompressed list may have.
        http: makes the httpx client of an event loop, with proxies, certificates or a transport; it is closed with the loop.

    Attributes:
        account: the account of the keys; None if the token is for all accounts.
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
        self._default_http = partial(http_maker, timeout) if http is None else None
        self._make_http = http or http_maker(timeout)
        self._given_account = account
        self._client = partial(AsyncHubClient, base_url, account=account, suffix_field=suffix_field)

    @property
    def covers_all_accounts(self) -> bool:
        """Whether the token is for all accounts. Then each row must have an `account`."""
        return self.account is None

    @property
    def fingerprint(self) -> str:
        """See Source."""
        return hashlib.blake2b(f"{self._base_url}\n{self._token()}".encode(), digest_size=16).hexdigest()

    def last_token(self) -> str:
        """The token that was used last."""
        return self._last_token

    def share_tls(self, tls: TlsContext) -> None:
        """Use a TLS context for each connection from now on.

        With an `http` of one's own this does nothing.

        Args:
            tls: the context, which several sources share.
        """
        if self._default_http is not None:
            self._make_http = self._default_http(tls)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Open a pool of connections. With an `http` of one's own, waits have another one."""
        async with AsyncExitStack() as opened:
            client = await opened.enter_async_context(self._connected())
            waiting = client if self._default_http is not None else None

            @asynccontextmanager
            async def updates(basis: Basis) -> AsyncIterator[FullList | Unchanged | Delta]:
                nonlocal waiting
                if basis.wait is not None and waiting is None:
                    # A wait that is cut off takes its connection along, and a pool of one's own may have only one.
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

    def _check_account(self, token: str) -> None:
        """Refuse a token that lists the keys of other accounts."""
        account = self._given_account or account_of(token)
        if account != self.account:
            problem = f"the hub's token is now for {_named(account)}: expected one for {_named(self.account)}, as at first"
            raise SourceError(f"{problem}; another account needs a source of its own")

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
                        its_client = self._client(token, http=http)
                    except ConfigError as error:
                        raise SourceError(f"the hub's token cannot be used: {error}") from error
                    self._check_account(token)
                    made = token, its_client
                self._last_token = token
                return made[1]

            yield client


def _named(account: str | None) -> str:
    return "all accounts" if account is None else f"the account {quoted(account)}"
