"""The options of a client, and closing it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gatekeeper import AsyncHubClient, ClientClosed, ConfigError, HubClient
from gatekeeper.client import account_of, covers_all_accounts
from gatekeeper.testing import FakeHub, HubAnswer
from tests.client.support import METHODS, Connect
from tests.support.callers import Caller, method_of
from tests.support.rows import TOKEN

# Options


def test_all_wrong_options_are_reported_together(connect: Connect) -> None:
    with pytest.raises(ConfigError) as caught:
        connect("hub.example", "sk live", account=" acme ")
    assert str(caught.value).startswith("gatekeeper: ")
    assert [problem.split()[0] for problem in caught.value.problems] == ["base_url", "token", "account"]


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "hub.example",
        "/api/v1",
        "ftp://hub.example",
        "https://",
        "https://:443",
        "http://hub.example:port",
        "http://hub.example:99999",
        "https://user:secret@hub.example",
        "https://hub.example/?account=acme",
        "https://hub.example/#here",
        "https://hub.example/?",
        "https://hub.example#",
    ],
)
def test_a_base_url_is_scheme_host_port_and_path(connect: Connect, base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        connect(base_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("token", ["", " ", "sk live", "sk_live_acme_\r\nx: y", "sk_live_acme_ü", f"{TOKEN}\n", f" {TOKEN}"])
def test_a_token_must_fit_into_a_header(connect: Connect, token: str) -> None:
    with pytest.raises(ConfigError, match="token") as caught:
        connect("https://hub.example", token, account="acme")
    assert not token.strip() or token not in str(caught.value)


@pytest.mark.parametrize("token", ["abcdef", "sk_live_abcdef", "sk_live__abc", "sk_live_acme_", "pk_live_acme_abc"])
def test_a_token_without_an_account_needs_the_account_option(connect: Connect, token: str) -> None:
    with pytest.raises(ConfigError, match="account=") as caught:
        connect("https://hub.example", token)
    assert token not in str(caught.value)
    connect("https://hub.example", token, account="acme")


@pytest.mark.parametrize("account", ["", " ", "acme ", "ac\nme", "äcme"])
def test_an_account_must_fit_into_a_header(connect: Connect, account: str) -> None:
    with pytest.raises(ConfigError, match="account"):
        connect("https://hub.example", TOKEN, account=account)


def test_a_token_in_the_place_of_another_option_is_not_shown(connect: Connect) -> None:
    with pytest.raises(ConfigError, match=r"base_url is 'sk_live_…'.* account is 'sk_live_…\\n'") as caught:
        connect(TOKEN, "acme", account=f"{TOKEN}\n")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "account"),
    [
        ("sk_live_acme_abc123", "acme"),
        ("sk_live_acme_corp-eu_abc123", "acme_corp-eu"),
        ("sk_live_acme__abc", "acme_"),
        ("sk_live_acme", None),
        ("sk_live_acme_", None),
        ("sk_live__abc", None),
        ("sk_live_", None),
        ("", None),
        ("acme_abc", None),
        ("pk_live_acme_abc", None),
        ("SK_LIVE_acme_abc", None),
        ("xsk_live_acme_abc", None),
        ("sk_all_abc", None),
        ("sk_all_acme_abc", None),
    ],
)
def test_the_account_of_a_token_ends_at_the_last_underscore(token: str, account: str | None) -> None:
    assert account_of(token) == account


@pytest.mark.parametrize(
    ("tokens", "is_for_all"),
    [
        (("sk_all_abc", "sk_all_acme_abc", "sk_all_-"), True),
        (("sk_all_", "sk_all", "sk_live_all_abc", "SK_ALL_abc", "xsk_all_abc", ""), False),
    ],
)
def test_a_token_for_all_accounts_has_its_own_prefix(tokens: tuple[str, ...], is_for_all: object) -> None:
    assert [covers_all_accounts(token) for token in tokens] == [is_for_all] * len(tokens)


def test_a_token_for_all_accounts_needs_no_account_and_takes_none(connect: Connect) -> None:
    connect("https://hub.example", "sk_all_abc")
    with pytest.raises(ConfigError, match=r"account is 'acme', and the token is for all accounts"):
        connect("https://hub.example", "sk_all_abc", account="acme")


def test_a_client_knows_whose_keys_it_lists() -> None:
    cases = [(TOKEN, None, "acme"), ("bearer", "globex", "globex"), ("sk_all_abc", None, None)]
    for token, given, account in cases:
        assert HubClient("https://hub.example", token, account=given).account == account
        assert AsyncHubClient("https://hub.example", token, account=given).account == account


# Closing


def test_a_given_httpx_client_stays_open(connect: Connect, hub: FakeHub) -> None:
    call = connect(hub.url, own={"trust_env": False})
    call("list")
    call.close_client()
    assert call.http is not None
    assert not call.http.is_closed
    call("list")
    assert len(hub.requests) == 2


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_a_closed_client_sends_nothing_more(call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...]) -> None:
    call("list")
    call.close_client()
    with pytest.raises(ClientClosed, match=r"the client of the hub at .* is closed") as caught:
        call(method, *arguments)
    assert caught.value.status is None
    assert (len(hub.requests), call.naps) == (1, [])


def test_a_closed_httpx_client_is_a_closed_client() -> None:
    http = httpx.Client(trust_env=False)
    http.close()
    with pytest.raises(ClientClosed):
        HubClient("http://hub.example", TOKEN, http=http).widget_keys.list()


def test_a_client_that_is_closed_during_a_call_says_so(hub: FakeHub) -> None:
    client = HubClient(hub.url, TOKEN, max_attempts=1)
    with hub.held() as hold, ThreadPoolExecutor() as thread:
        listed = thread.submit(client.widget_keys.list)
        hub.wait_for_requests(1)
        client.close()
        hold.release()
        with pytest.raises(ClientClosed):
            listed.result()


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "arguments"), METHODS)
async def test_an_async_client_that_is_closed_during_a_call_says_so(
    hub: FakeHub, method: str, arguments: tuple[Any, ...]
) -> None:
    client = AsyncHubClient(hub.url, TOKEN)
    with hub.held():
        call = asyncio.create_task(method_of(client, method)(*arguments))
        await hub.asked(1)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await call


@pytest.mark.anyio
async def test_a_list_that_is_read_while_its_client_is_closed_says_so(hub: FakeHub) -> None:
    client = AsyncHubClient(hub.url, TOKEN)
    hub.always(HubAnswer(200, b"[", {"content-length": "100000"}))
    async with client.widget_keys.fetch() as listing:
        assert listing is not None
        await client.aclose()
        with pytest.raises(ClientClosed):
            await listing.read()
    with pytest.raises(ClientClosed):
        await client.widget_keys.fetch().__aenter__()


def test_all_calls_of_a_client_share_one_pool_of_connections(call: Caller, hub: FakeHub) -> None:
    for _ in range(5):
        call("list")
    assert (len(hub.requests), len({request.port for request in hub.requests})) == (5, 1)
