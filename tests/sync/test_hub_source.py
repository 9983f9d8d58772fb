"""HubSource: the hub's list endpoint, its tokens and its connections."""

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import pytest

from gatekeeper import (
    Basis,
    ClientClosed,
    ConfigError,
    Delta,
    FullList,
    Gatekeeper,
    GateReport,
    HubSource,
    HubTransportError,
    KeyUsage,
    Reason,
    RefusedPage,
    SourceError,
    Updates,
)
from gatekeeper.client import TlsContext
from gatekeeper.sync.sources import SharesTls, covers_all_accounts
from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer
from tests.support.certificates import Certificates
from tests.support.rows import ORIGIN, TOKEN, as_json, client_key, row
from tests.support.updates import read


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The TLS contexts that read certificates, in order."""
    noted: list[object] = []
    load = ssl.SSLContext.load_verify_locations

    def note(context: ssl.SSLContext, *args: Any, **options: Any) -> None:
        noted.append(context)
        load(context, *args, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", note)
    return noted


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_hub_is_asked_for_its_list(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with HubSource(hub.url, TOKEN).connect() as fetch:
        assert await read(fetch, None) == (as_json(row(1)), '"1"')
        assert await read(fetch, '"1"') is None
        hub.lists(row(2), etag='"2"')
        assert await read(fetch, '"1"') == (as_json(row(2)), '"2"')
    first = hub.requests[0]
    assert (first.method, first.target, first.headers["authorization"]) == ("GET", PATH, f"Bearer {TOKEN}")
    assert [request.headers.get("if-none-match") for request in hub.requests] == [None, '"1"', '"1"']


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_hub_that_fails_is_a_source_error(hub: FakeHub) -> None:
    source = HubSource(hub.url, TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    nowhere = HubSource(f"http://127.0.0.1:{port}", TOKEN)
    async with source.connect(), nowhere.connect() as fetch:
        with pytest.raises(HubTransportError):
            await read(fetch, None)


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_hub_source_times_out_waiting_for_bytes(hub: FakeHub) -> None:
    async with HubSource(hub.url, TOKEN, timeout=0.05).connect() as fetch:
        with hub.held(), pytest.raises(HubTransportError, match="ReadTimeout"):
            await read(fetch, None)


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_each_connection_of_a_hub_source_has_its_own_pool(hub: FakeHub) -> None:
    source = HubSource(hub.url, TOKEN)
    async with source.connect() as kept:
        async with source.connect() as closed:
            assert await read(closed, None) is not None
        assert await read(kept, None) is not None
        with pytest.raises(ClientClosed):
            await read(closed, None)


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_hub_source_sends_its_account(hub: FakeHub) -> None:
    async with HubSource(hub.url, "another-bearer", account="globex").connect() as fetch:
        await read(fetch, None)
    assert hub.requests[0].headers["x-account-id"] == "globex"


@pytest.mark.parametrize(
    ("token", "given", "account"),
    [(TOKEN, None, "acme"), (TOKEN, "acme", "acme"), ("another-bearer", "globex", "globex"), (TOKEN, "globex", "globex")],
)
def test_a_hub_source_takes_its_account_from_its_token(token: str, given: str | None, account: str) -> None:
    assert HubSource("https://hub.example", token, account=given).account == account


def test_all_wrong_options_of_a_hub_source_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        HubSource("hub.example", "a token", account="")
    assert [problem.split()[0] for problem in caught.value.problems] == ["base_url", "token", "account"]


def test_a_suffix_field_that_is_another_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="suffix_field"):
        HubSource("https://hub.example", TOKEN, suffix_field="name")


def test_a_hub_source_does_not_show_its_token() -> None:
    source = HubSource("https://hub.example", TOKEN)
    assert TOKEN not in repr(source)
    assert TOKEN not in str(source)


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_certificate_authorities_are_read_once(hub: FakeHub, contexts: list[object]) -> None:
    source = HubSource(hub.url, TOKEN)
    hub.always(HubAnswer(204))
    for _ in range(3):
        await source.report_usage({})
    hub.lists(row(1))
    async with source.connect() as fetch:
        assert await read(fetch, None) is not None
    assert len(contexts) == 1
    assert len(hub.requests) == 4


# Connections


@pytest.fixture
def live_hub() -> Iterator[FakeHub]:
    with FakeHub(row(1), live=True) as hub:
        yield hub


def one_connection() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=1))


async def first_tag(updates: Updates) -> str:
    async with updates(Basis()) as first:
        assert isinstance(first, FullList)
        await first.listing.read()
        assert first.listing.validator is not None
        return first.listing.validator


@pytest.mark.anyio
@pytest.mark.asyncio
@pytest.mark.parametrize("http", [None, one_connection], ids=["default", "own http with one connection"])
async def test_a_wait_that_is_cut_off_holds_up_no_fetch(
    live_hub: FakeHub, http: Callable[[], httpx.AsyncClient] | None
) -> None:
    source = HubSource(live_hub.url, TOKEN, http=http)
    async with source.connect() as updates, anyio.create_task_group() as group:
        tag = await first_tag(updates)

        async def wait() -> None:
            async with updates(Basis(tag, wait=30)):
                raise AssertionError("the wait is cut off")

        group.start_soon(wait)
        await live_hub.waits()
        assert await read(updates, None) is not None
        group.cancel_scope.cancel()
    assert len({request.port for request in live_hub.requests}) == 2


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_wait_uses_the_connection_of_the_first_list(live_hub: FakeHub) -> None:
    """A gate of many accounts has half the connections."""
    async with HubSource(live_hub.url, TOKEN).connect() as updates:
        tag = await first_tag(updates)
        async with anyio.create_task_group() as group:

            async def change() -> None:
                await live_hub.waits()
                live_hub.lists(row(1), row(2))

            group.start_soon(change)
            async with updates(Basis(tag, wait=30)) as update:
                assert isinstance(update, Delta)
                await update.listing.read()
    assert len({request.port for request in live_hub.requests}) == 1


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_sources_share_one_tls_context(hub: FakeHub, contexts: list[object]) -> None:
    tls = TlsContext()
    assert contexts == []
    sources = [HubSource(hub.url, f"sk_live_{account}_x") for account in ("acme", "globex", "initech")]
    for source in sources:
        assert isinstance(source, SharesTls)
        source.share_tls(tls)
        async with source.connect() as updates:
            assert await read(updates, None) is not None
    assert contexts == [tls.get()]


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_shared_tls_context_trusts_no_unknown_authority() -> None:
    with FakeHub(row(1), tls=Certificates().right()) as hub:
        source = HubSource(hub.url, TOKEN)
        source.share_tls(TlsContext())
        async with source.connect() as updates:
            with pytest.raises(HubTransportError, match="certificate verify failed"):
                await read(updates, None)


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_an_http_of_ones_own_keeps_its_tls() -> None:
    certificates, tls = Certificates(), TlsContext()
    with FakeHub(row(1), tls=certificates.right()) as hub:
        source = HubSource(hub.url, TOKEN, http=certificates.client)
        source.share_tls(tls)
        async with source.connect() as updates:
            assert await read(updates, None) is not None


# Tokens for all accounts


ALL_ACCOUNTS = "sk_all_5Ea9f0c2b7d1"


def test_a_token_for_all_accounts_carries_none() -> None:
    source = HubSource("https://hub.example", ALL_ACCOUNTS)
    assert (source.account, source.covers_all_accounts, covers_all_accounts(source)) == (None, True, True)
    assert not covers_all_accounts(HubSource("https://hub.example", TOKEN))
    assert not covers_all_accounts(HubSource("https://hub.example", "another-bearer", account="acme"))
    assert source.fingerprint != HubSource("https://hub.example", f"{ALL_ACCOUNTS}2").fingerprint


@pytest.mark.parametrize(
    ("token", "account", "problem"),
    [
        (ALL_ACCOUNTS, "acme", "account is 'acme', and the token is for all accounts (sk_all_…): pass one or the other"),
        ("sk_all_", None, "token carries no account"),
        ("sk_all", None, "token carries no account"),
        ("SK_ALL_abc", None, "it is neither sk_live_<account>_… nor sk_all_…, for all accounts): pass account="),
        ("", None, "expected 'sk_live_<account>_…' or 'sk_all_…'"),
    ],
)
def test_a_token_is_for_one_account_or_for_all(token: str, account: str | None, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        HubSource("https://hub.example", token, account=account)
    assert problem in str(refused.value)
    assert len(refused.value.problems) == 1


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_rows_of_all_accounts_are_decided_by_their_own(hub: FakeHub) -> None:
    hub.lists(row(1, account="acme"), row(1, id="key-9", account="globex", domain_allowlist=["globex.com"]))
    async with Gatekeeper(HubSource(hub.url, ALL_ACCOUNTS)) as gate:
        decided = [gate.decide(client_key(1, account), ORIGIN) for account in ("acme", "globex", "initech")]
    assert [each.reason for each in decided] == [Reason.ALLOWED, Reason.ORIGIN_NOT_ALLOWED, Reason.KEY_UNKNOWN]
    assert [each.key.account for each in decided if each.key is not None] == ["acme", "globex"]
    assert {request.headers.get("x-account-id") for request in hub.requests} == {None}
    assert hub.requests[0].headers["authorization"] == f"Bearer {ALL_ACCOUNTS}"


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_rows_without_an_account_are_set_aside_in_a_list_of_all(hub: FakeHub) -> None:
    """They would be found by the client keys of every account."""
    good = [row(number, account="acme") for number in range(10)]
    hub.lists(*good, row(10), row(11, account="Acme Inc."))
    async with Gatekeeper(HubSource(hub.url, ALL_ACCOUNTS)) as gate:
        assert [gate.decide(client_key(number), ORIGIN).reason for number in (9, 10, 11)] == [
            Reason.ALLOWED,
            Reason.KEY_UNKNOWN,
            Reason.KEY_UNKNOWN,
        ]
        assert [message.partition(":")[0] for message in gate.status.rejected] == [
            "row 10 (id 'key-10')",
            "row 11 (id 'key-11')",
        ]
        assert gate.status.rejected_rows == 2


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_list_of_one_account_is_not_read_as_one_of_all(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))
    async with Gatekeeper(HubSource(hub.url, ALL_ACCOUNTS), start_timeout=10) as gate:
        assert gate.status.state == "never_loaded"
        assert "2 of 2 rows are not widget keys" in str(gate.status.last_error)
        assert "as in each row of all accounts" in str(gate.status.last_error)


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_gate_of_all_accounts_reports_as_any_other(hub: FakeHub) -> None:
    source, now = HubSource(hub.url, ALL_ACCOUNTS), datetime(2026, 1, 2, tzinfo=UTC)
    await source.report_usage({"key-1": KeyUsage(3, now)})
    await source.report_refused([RefusedPage("key-1", ORIGIN, "key_disabled", 1, now, now)])
    await source.report_gate(GateReport("g", "0.1.0", is_live=False, state="fresh"))
    assert [request.target.rpartition("/")[2] for request in hub.requests] == ["usage", "refused", "gates"]
    for request in hub.requests:
        assert "x-account-id" not in request.headers
        assert request.headers["authorization"] == f"Bearer {ALL_ACCOUNTS}"


@pytest.mark.anyio
@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (TOKEN, ALL_ACCOUNTS, "token is now for all accounts: expected one for the account 'acme', as at first"),
        (ALL_ACCOUNTS, TOKEN, "token is now for the account 'acme': expected one for all accounts, as at first"),
        (TOKEN, "sk_live_globex_1", "token is now for the account 'globex': expected one for the account 'acme'"),
    ],
)
async def test_a_new_token_must_be_for_the_same_account(hub: FakeHub, before: str, after: str, problem: str) -> None:
    """Its list would replace that of the account. A fetch fails, and the keys stay."""
    token = before
    source = HubSource(hub.url, lambda: token)
    async with source.connect() as updates:
        assert await read(updates, None) is not None
        token = after
        for _ in range(2):
            with pytest.raises(SourceError) as refused:
                await read(updates, None)
            assert problem in str(refused.value)
            assert after not in str(refused.value)
        token = f"{before}2"
        assert await read(updates, None) is not None
    assert [request.headers["authorization"] for request in hub.requests] == [f"Bearer {before}", f"Bearer {before}2"]


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_hub_without_tokens_for_all_accounts_is_explained(hub: FakeHub) -> None:
    hub.always(HubAnswer(400, b"Missing X-Account-ID header"))
    async with HubSource(hub.url, ALL_ACCOUNTS).connect() as updates:
        with pytest.raises(
            SourceError, match=r"knows no token for all accounts \(sk_all_…\); use a source for each account"
        ):
            await read(updates, None)
