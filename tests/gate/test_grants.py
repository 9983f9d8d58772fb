"""Grants: issuing, reading, renewal and secrets."""

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer
from itsdangerous.encoding import base64_encode

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


class Acme(Grants):
    """Grants for keys of one account."""

    def issue(self, key: IndexedKey, page: str | None, now: float, *, account: str | None = "acme") -> str:
        """Make one."""
        return super().issue(key, page, now, account=account)


def grants(*secrets: bytes, lifetime: float = LIFETIME) -> Acme:
    """Grants that are signed with the first of these secrets."""
    return Acme(lambda _: secrets or (b"secret",), lifetime)


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
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[position]))
    assert grants().read(text[:position] + bytes((other,)) + text[position + 1 :], NOW) is None


@pytest.mark.parametrize("added", [b"!", b"=", b"\n", b"\xe9", b"~~~~"])
@pytest.mark.parametrize("position", [1, 0])
def test_a_grant_has_one_spelling(added: bytes, position: int) -> None:
    """base64 skips what is not of its alphabet, so one grant had any number of spellings, each one remembered apart."""
    text = grants().issue(indexed(), PAGE, NOW).encode()
    end = len(text) - position
    assert grants().read(text[:end] + added + text[end:], NOW) is None


def test_a_signed_grant_of_another_version_is_not_read() -> None:
    signer = Signer(b"secret", salt=b"gatekeeper.grant", key_derivation="hmac", digest_method=hashlib.sha256)
    for payload in (b'["only one field"]', b"no JSON", b"\xff"):
        assert grants().read(signer.sign(base64_encode(payload)), NOW) is None


def test_a_grant_does_not_outlive_its_renewals_by_a_wrong_clock() -> None:
    """A server whose clock ran ahead by years issued a grant that counted for years on all the others."""
    ahead = NOW + 3 * LONGEST_LIFE
    grant = read(grants(), grants().issue(indexed(), PAGE, ahead))
    assert grants().has_ended(grant, NOW)
    assert not grants().has_ended(grant, ahead)


@given(st.binary(max_size=200))
def test_nothing_else_is_read_as_a_grant(text: bytes) -> None:
    assert grants().read(text, NOW) is None


def test_a_grant_of_unbounded_length_is_not_read() -> None:
    text = grants().issue(indexed(), "https://" + "a" * MAX_GRANT_LENGTH, NOW).encode()
    assert grants().read(text, NOW) is None


@pytest.mark.parametrize("account", ["acme", "globex", None])
def test_a_grant_names_the_account_that_issued_it(account: str | None) -> None:
    assert read(grants(), grants().issue(indexed(), PAGE, NOW, account=account)).account == account


def test_older_secrets_are_read_and_the_newest_signs() -> None:
    old, new = grants(b"old"), grants(b"new", b"old")
    assert read(new, old.issue(indexed(), PAGE, NOW)).page == PAGE
    assert old.read(new.issue(indexed(), PAGE, NOW).encode(), NOW) is None


def test_a_grant_is_not_read_once_its_secret_is_rotated_out() -> None:
    text = grants(b"old").issue(indexed(), PAGE, NOW).encode()
    assert grants(b"new").read(text, NOW) is None
    assert grants(b"new").reread(text).page == PAGE, "an open stream outlives the secret"


def test_a_grant_without_a_page_ends_where_https_becomes_required() -> None:
    """The document was served while its policy let an http page frame it."""
    grant = read(grants(), grants().issue(indexed("acme.com"), None, NOW))
    assert not digest_holds(grant, Allowlist.parse(["acme.com"], https_only=True))


@pytest.mark.parametrize("page", [PAGE, None])
def test_a_renewed_grant_differs_in_its_end_only(page: str | None) -> None:
    """It got a digest of the present list, which another thread may have changed since the decision."""
    grant = read(grants(), grants().issue(indexed(), page, NOW))
    text = grants().renewed(grant, NOW + 450)
    assert text is not None
    assert read(grants(), text) == msgspec.structs.replace(grant, ends_at=NOW + 450 + LIFETIME)


@pytest.mark.parametrize(("age", "renewed"), [(0, False), (449, False), (450, True), (899, True)])
def test_a_grant_is_renewed_past_half_its_life(age: float, *, renewed: bool) -> None:
    grant = read(grants(), grants().issue(indexed(), PAGE, NOW))
    text = grants().renewed(grant, NOW + age)
    assert (text is not None) == renewed
    if text is not None:
        new = read(grants(), text)
        assert (new.page, new.issued_at, new.ends_at) == (PAGE, NOW, NOW + age + LIFETIME)


def test_a_grant_ends_12_hours_after_the_first_issue() -> None:
    by, now = grants(), NOW
    grant = read(by, by.issue(indexed(), PAGE, now))
    renewals = 0
    while (text := by.renewed(grant, now := grant.ends_at - 1)) is not None:
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
