"""Rows and client keys that are derived from names."""

import pytest

from gatekeeper import ConfigError, Gatekeeper, Reason
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.testing import client_key, row

NAMES = ("shop", "blog", "a name with spaces", "ünïcode", "x" * 1000)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_resolves_its_client_key(name: str) -> None:
    decision = Gatekeeper.from_rows([row(name, "shop.acme.com")]).decide(client_key(name), "https://shop.acme.com")
    assert decision.allowed
    assert decision.key is not None
    assert (decision.key.id, decision.key.name) == (name, name)


def test_each_name_has_a_key_of_its_own() -> None:
    gate = Gatekeeper.from_rows([row(name, "shop.acme.com") for name in NAMES])
    decided = [gate.decide(client_key(name), "https://shop.acme.com").key for name in NAMES]
    assert [key.id for key in decided if key is not None] == list(NAMES)


def test_a_key_is_the_same_in_every_run() -> None:
    assert ClientKey.parse(client_key("shop")).last8 == row("shop")["last8"] == "115050f3"


def test_the_last_8_characters_alone_are_not_enough() -> None:
    """As at a hub that sends digests."""
    gate = Gatekeeper.from_rows([row("shop", "shop.acme.com")])
    assert gate.decide(f"pk_live_test_0000{row('shop')['last8']}", "https://shop.acme.com").reason is Reason.KEY_UNKNOWN


def test_a_row_takes_other_fields() -> None:
    gate = Gatekeeper.from_rows([row("shop", "shop.acme.com", agent_id="agent_7", disabled_at="2026-01-02T03:04:05Z")])
    decision = gate.decide(client_key("shop"), "https://shop.acme.com")
    assert (decision.agent_id, decision.reason) == ("agent_7", Reason.KEY_DISABLED)


def test_a_row_may_be_broken() -> None:
    with pytest.raises(ConfigError, match="last8"):
        Gatekeeper.from_rows([row("shop", last8="short")])


def test_a_row_of_another_account_names_it_and_has_its_client_key() -> None:
    gate = Gatekeeper.from_rows([row("shop", "shop.acme.com", account="acme"), row("blog", "b.test")])
    assert gate.decide(client_key("shop", account="acme"), "https://shop.acme.com").allowed
    assert gate.decide(client_key("shop"), "https://shop.acme.com").reason is Reason.KEY_UNKNOWN
    assert gate.decide(client_key("blog"), "https://b.test").allowed
    assert row("shop", account="acme")["account"] == "acme"
    assert "account" not in row("blog")
