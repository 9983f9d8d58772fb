"""Decider: the decision for one key and one page, without memory."""

import pytest

from gatekeeper import Decision, Reason
from gatekeeper.gate.decider import Decider
from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.gate.page import read_page
from gatekeeper.gate.resolving import KeyResolver
from tests.support.indexes import FIRST, index_of, row
from tests.support.key_lists import OnlyList

PAGE = read_page(b"https://acme.com", None)


def resolver(account: str | None) -> KeyResolver:
    return KeyResolver(OnlyList(index_of(row("a"), account=account)), "pk_live_")


@pytest.mark.parametrize("account", ["acme", "acme_shop", None])
def test_a_new_key_with_underscores_in_its_random_part_may_become_known(account: str | None) -> None:
    """A key created a second ago is not in the list yet, so its request may wait for a fresher one."""
    key = b"pk_live_acme_shop_x_9-_yz01_4567"
    keys = resolver(account)
    assert Decider(keys).decide(key, PAGE).decision.reason is Reason.KEY_UNKNOWN
    assert keys.lists_to_come(key) == keys.lists.all


@pytest.mark.parametrize(
    "key", [b"pk_live_globex_0123456789", b"pk_live_acm_e_0123456789", b"pk_live_acmeshop_01234567", CONFLICT]
)
def test_a_key_of_no_known_account_never_becomes_known(key: bytes | Conflict) -> None:
    assert not resolver("acme").lists_to_come(key)


LISTED = ("*.acme.test", "acme.test", "*.localhost", "localhost:*", "*.foo-.acme.test")


def decide(origin: str, *entries: str, https_only: bool = False) -> Decision:
    keys = KeyResolver(OnlyList(index_of(row("a", FIRST, *entries), https_only=https_only)), "pk_live_")
    return Decider(keys).decide(FIRST.value.encode(), read_page(origin.encode(), None)).decision


@pytest.mark.parametrize(
    ("origin", "entry"),
    [
        ("http://foo-.acme.test", "*.acme.test"),
        ("https://-foo.acme.test", "*.acme.test"),
        ("https://a.foo-.acme.test", "*.foo-.acme.test"),
        ("https://foo-.acme.test", "foo-.acme.test"),
        ("http://foo-.acme.test", "http://FOO-.acme.test"),
    ],
)
def test_a_page_whose_label_begins_or_ends_with_a_hyphen_is_allowed(origin: str, entry: str) -> None:
    """Chromium goes to http://foo-.acme.test and sends it as its origin, though RFC 1123 has no such names."""
    decision = decide(origin, entry)
    assert (decision.reason, decision.matched) == (Reason.ALLOWED, entry)


def test_the_entry_suggested_for_a_label_with_a_hyphen_allows_it() -> None:
    refused = decide("http://foo-.acme.test", "other.test")
    assert refused.add == "http://foo-.acme.test"
    assert decide("http://foo-.acme.test", refused.add).allowed


@pytest.mark.parametrize(
    "origin",
    [
        "https://acme.test.",
        "https://shop.acme.test.",
        "https://shop.acme.test.:8443",
        "http://localhost.:3000",
        "http://a.localhost.",
        "capacitor://localhost.",
        "wss://acme.test:443",
        "ws://acme.test:80",
        "ftp://acme.test",
    ],
)
@pytest.mark.parametrize("https_only", [False, True])
def test_an_origin_that_no_entry_can_allow_is_refused_as_not_allowed(origin: str, *, https_only: bool) -> None:
    """A page at a trailing dot sends such an origin, so it is told which one it has."""
    decision = decide(origin, *LISTED, https_only=https_only)
    assert (decision.reason, decision.origin, decision.add) == (Reason.ORIGIN_NOT_ALLOWED, origin, None)
    assert origin in decision.detail


@pytest.mark.parametrize(
    "origin",
    [
        "capacitor://localhost",
        "capacitor://acme.test",
        "tauri://shop.acme.test",
        "https+x://acme.test",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    ],
)
@pytest.mark.parametrize("https_only", [False, True])
def test_a_refused_app_is_told_the_entry_that_would_allow_it(origin: str, *, https_only: bool) -> None:
    """No entry for the web allows an app or an extension. The entry to add is its origin, also with https_only."""
    refused = decide(origin, *LISTED, https_only=https_only)
    assert (refused.reason, refused.origin, refused.add) == (Reason.ORIGIN_NOT_ALLOWED, origin, origin)
    assert f"add '{origin}' to the key's allowed domains" in refused.detail
    allowed = decide(origin, *LISTED, origin, https_only=https_only)
    assert (allowed.reason, allowed.matched) == (Reason.ALLOWED, origin)


def test_a_key_without_entries_tells_an_app_the_entry_to_add() -> None:
    assert decide("capacitor://app.acme.test").add == "capacitor://app.acme.test"


@pytest.mark.parametrize("origin", ["https://acme.test..", "http://127.0.0.1.", "file://", "capacitor://", "9://acme.test"])
def test_an_origin_that_is_not_its_own_serialisation_is_malformed(origin: str) -> None:
    assert decide(origin, *LISTED).reason is Reason.ORIGIN_MALFORMED


def test_a_page_at_a_trailing_dot_is_told_to_open_it_without_the_dot() -> None:
    """No entry can allow it, and it is on a domain over https already."""
    for origin in ("https://acme.test.", "https://acme.test.:8443"):
        assert "open it without the dot at the end of its host" in decide(origin, *LISTED).detail
    assert "without the dot" not in decide("capacitor://acme.test", *LISTED).detail
