"""The options of a client, and closing it."""

import pytest

from gatekeeper import (
    ConfigError,
)
from gatekeeper.client import account_of
from tests.client.support import Connect
from tests.support.callers import Caller
from tests.support.fake_hub import FakeHub
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
    ],
)
def test_the_account_of_a_token_ends_at_the_last_underscore(token: str, account: str | None) -> None:
    assert account_of(token) == account


# Closing


def test_a_given_httpx_client_stays_open(connect: Connect, hub: FakeHub) -> None:
    call = connect(hub.url, own={"trust_env": False})
    call("list")
    call.close_client()
    assert call.http is not None
    assert not call.http.is_closed
    call("list")
    assert len(hub.requests) == 2


def test_a_closed_client_sends_nothing_more(call: Caller, hub: FakeHub) -> None:
    call("list")
    call.close_client()
    with pytest.raises(RuntimeError, match="closed"):
        call("list")
    assert len(hub.requests) == 1


def test_all_calls_of_a_client_share_one_pool_of_connections(call: Caller, hub: FakeHub) -> None:
    for _ in range(5):
        call("list")
    assert (len(hub.requests), len(hub._connections)) == (5, 1)
