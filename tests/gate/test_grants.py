"""Grants: issuing, reading, renewal and secrets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import Allowlist
from gatekeeper.gate.grants import LONGEST_LIFE, MAX_GRANT_LENGTH, DerivedSecrets, Grant, Grants, digest_holds
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.keys.reader import RowReader
from tests.support.rows import row

NOW = 1_800_000_000.0
PAGE = "https://shop.acme.com"
LIFETIME = 900.0


def indexed(*entries: str, number: int = 1) -> IndexedKey:
    """A key with these entries."""
    key = RowReader().convert(0, row(number, domain_allowlist=list(entries or ("acme.com",))))
    return IndexedKey(key, Allowlist.parse(key.domain_allowlist))


def grants(*secrets: bytes, account: str | None = "acme", lifetime: float = LIFETIME) -> Grants:
    """Grants that are signed with the first of these secrets."""
    return Grants(lambda _: secrets or (b"secret",), account, lifetime)


def read(by: Grants, text: str, now: float = NOW) -> Grant:
    """Read a valid grant."""
    grant = by.read(text.encode(), now)
    assert grant is not None
    return grant


def test_a_grant_names_the_key_the_account_and_the_page() -> None:
    grant = read(grants(), grants().issue(indexed(), PAGE, NOW))
    key = indexed().widget_key
    assert grant == Grant(key.id, key.last8, "acme", PAGE, None, NOW, NOW + LIFETIME)


def test_a_grant_without_a_page_names_the_allowlist() -> None:
    grant = read(grants(), grants().issue(indexed("acme.com", "*.acme.com"), None, NOW))
    assert grant.page is None
    assert digest_holds(grant, indexed("*.acme.com", "acme.com").allowlist), "the order does not matter"
    assert not digest_holds(grant, indexed("acme.com").allowlist)
    assert not digest_holds(grant, indexed("acme.com", "*.acme.com", "evil.test").allowlist)


def test_a_grant_needs_no_encoding_in_headers_and_urls() -> None:
    text = grants().issue(indexed(), "https://xn--bcher-kva.example:8443", NOW)
    assert text.isascii()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


@given(st.data())
def test_an_edited_grant_is_not_read(data: st.DataObject) -> None:
    text = grants().issue(indexed(), PAGE, NOW).encode()
    position = data.draw(st.integers(0, len(text) - 2))  # the last character has bits that base64 ignores
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[position]))
    assert grants().read(text[:position] + bytes((other,)) + text[position + 1 :], NOW) is None


@given(st.binary(max_size=200))
def test_nothing_else_is_read_as_a_grant(text: bytes) -> None:
    assert grants().read(text, NOW) is None


def test_a_grant_of_unbounded_length_is_not_read() -> None:
    text = grants().issue(indexed(), "https://" + "a" * MAX_GRANT_LENGTH, NOW).encode()
    assert grants().read(text, NOW) is None


def test_a_grant_of_another_account_is_not_read() -> None:
    text = grants(account="globex").issue(indexed(), PAGE, NOW).encode()
    assert grants().read(text, NOW) is None
    assert grants(account=None).read(text, NOW) is None


def test_older_secrets_are_read_and_the_newest_signs() -> None:
    old, new = grants(b"old"), grants(b"new", b"old")
    assert read(new, old.issue(indexed(), PAGE, NOW)).page == PAGE
    assert old.read(new.issue(indexed(), PAGE, NOW).encode(), NOW) is None


def test_a_grant_is_not_read_once_its_secret_is_rotated_out() -> None:
    text = grants(b"old").issue(indexed(), PAGE, NOW).encode()
    assert grants(b"new").read(text, NOW) is None
    assert grants(b"new").reread(text).page == PAGE, "an open stream outlives the secret"


@pytest.mark.parametrize(("age", "renewed"), [(0, False), (449, False), (450, True), (899, True)])
def test_a_grant_is_renewed_past_half_its_life(age: float, *, renewed: bool) -> None:
    grant = read(grants(), grants().issue(indexed(), PAGE, NOW))
    text = grants().renewed(grant, indexed(), NOW + age)
    assert (text is not None) == renewed
    if text is not None:
        new = read(grants(), text)
        assert (new.page, new.issued_at, new.ends_at) == (PAGE, NOW, NOW + age + LIFETIME)


def test_a_grant_ends_12_hours_after_the_first_issue() -> None:
    by, now = grants(), NOW
    grant = read(by, by.issue(indexed(), PAGE, now))
    renewals = 0
    while (text := by.renewed(grant, indexed(), now := grant.ends_at - 1)) is not None:
        grant = read(by, text)
        renewals += 1
        assert grant.ends_at <= NOW + LONGEST_LIFE
    assert grant.ends_at == NOW + LONGEST_LIFE
    assert renewals > 12 * 4 - 2


def test_the_secret_of_a_replaced_token_counts_for_one_lifetime() -> None:
    tokens = ["sk_live_acme_first"]
    secrets = DerivedSecrets(lambda: tokens[-1], LIFETIME)
    (first,) = secrets(NOW)
    tokens.append("sk_live_acme_second")
    second, replaced = secrets(NOW + 1)
    assert replaced == first != second
    assert secrets(NOW + LIFETIME) == [second, first]
    assert secrets(NOW + 1 + LIFETIME) == [second]


def test_gates_with_the_same_token_have_the_same_secret() -> None:
    one, other = (DerivedSecrets(lambda: "sk_live_acme_token", LIFETIME) for _ in range(2))
    assert one(NOW) == other(NOW)
    assert b"sk_live_acme_token" not in one(NOW)[0]


@given(page=st.none() | st.just(PAGE), number=st.integers(1, 50), now=st.floats(0, 4e9))
def test_what_was_issued_is_read(page: Any, number: int, now: float) -> None:
    grant = read(grants(), grants().issue(indexed(number=number), page, now), now)
    assert (grant.key_id, grant.page, grant.issued_at) == (indexed(number=number).widget_key.id, page, now)
