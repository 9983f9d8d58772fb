"""ClientKey: the key that a page sends."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from gatekeeper import InvalidClientKey
from gatekeeper.keys.client_key import ClientKey, mask

KEY = "pk_live_acme_Zb3xQ9-LmN0pRsTuVwXyZ"
MANY = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize(
    ("value", "accounts", "last8"),
    [
        (KEY, "acme", "sTuVwXyZ"),
        ("pk_live_acme_0123456789", "acme", "23456789"),
        ("pk_live_acme-shop_0123456789", "acme-shop", "23456789"),
        ("pk_live_acme_shop_0123456789", "acme acme_shop", "23456789"),
        ("pk_live_a_b_c_0123456789", "a a_b a_b_c", "23456789"),
        ("pk_live_acme__0123456789", "acme acme_", "23456789"),
        ("pk_live_acme_0123456789_", "acme", "3456789_"),
        ("pk_live___0123456789", "_", "23456789"),
        ("pk_live_pk_live_0123456789", "pk pk_live", "23456789"),
        ("pk_live_acme_-", "acme", "e_acme_-"),
        ("pk_live_a_b", "a", "live_a_b"),
        ("pk_live_ACME_0123456789", "ACME", "23456789"),
        ("pk_live_acme_" + "x" * 115, "acme", "xxxxxxxx"),
    ],
    ids=lambda value: value[:30],
)
def test_an_account_of_a_client_key_ends_at_any_underscore(value: str, accounts: str, last8: str) -> None:
    """Accounts and random parts both hold "_", so the key alone does not say where its account ends."""
    asked = {value[8:end] for end in range(9, len(value) + 1)} | {"globex", "acm", "Acme"}
    for key in (ClientKey.parse(value), ClientKey.parse(value.encode("ascii"))):
        assert (key.value, key.last8) == (value, last8)
        assert {account for account in asked if key.may_be_of(account)} == set(accounts.split())
        assert key.sha256() == hashlib.sha256(value.encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "does not begin with 'pk_live_'"),
        ("null", "does not begin with 'pk_live_'"),
        ("undefined", "does not begin with 'pk_live_'"),
        ("sk_live_acme_0123456789", "does not begin with 'pk_live_'"),
        ("pk_test_acme_0123456789", "does not begin with 'pk_live_'"),
        ("PK_LIVE_acme_0123456789", "does not begin with 'pk_live_'"),
        (" pk_live_acme_0123456789", "does not begin with 'pk_live_'"),
        ("pk_live-acme_0123456789", "does not begin with 'pk_live_'"),
        ("pk_live_acme_01234 56789", "characters other than"),
        ("pk_live_acme_0123456789 ", "characters other than"),
        ("pk_live_acme_0123456789\n", "characters other than"),
        ("pk_live_acme_0123456789\x00", "characters other than"),
        ("pk_live_acme_0123.456789", "characters other than"),
        ("pk_live_acme_0123%2056789", "characters other than"),
        ("pk_live_acme_012345678é", "characters other than"),
        ("pk_live_acme_01234567\u0668\u0669", "characters other than"),
        ("pk_live_acme_\ud800123456789", "characters other than"),
        ("pk_live_\u0430cme_0123456789", "characters other than"),
        ('pk_live_acme_0123456789", "x": "', "characters other than"),
        ("pk_live_", "pk_live_<account>_<random>"),
        ("pk_live_acme", "pk_live_<account>_<random>"),
        ("pk_live_acme0123456789", "pk_live_<account>_<random>"),
        ("pk_live__0123456789", "pk_live_<account>_<random>"),
        ("pk_live_acme_", "pk_live_<account>_<random>"),
        ("pk_live_" + "x" * 121, "at most 128"),
        ("é" * 129, "at most 128"),
    ],
    ids=lambda value: ascii(value[:40]),
)
def test_a_malformed_client_key_is_refused_and_not_shown(value: str, said: str) -> None:
    for given_value in (value, value.encode("utf-8", "surrogatepass")):
        with pytest.raises(InvalidClientKey) as refused:
            ClientKey.parse(given_value)
        assert said in str(refused.value)
        assert "0123" not in str(refused.value)
        assert "acme" not in str(refused.value)


@pytest.mark.parametrize("value", [b"pk_live_acme_\xff123456789", b"pk_live_acme_\xe9123456789", b"\xff" * 128])
def test_bytes_that_are_not_utf_8_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidClientKey):
        ClientKey.parse(value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("pk_live_acme_" + "x" * 116, id="129 characters"),
        pytest.param("pk_live_acme_" + "x" * 1_000_000, id="good except for its length"),
        pytest.param("\u0130" * 1_000_000, id="characters that grow in lower case"),
        pytest.param(b"\xff" * 1_000_000, id="bytes"),
    ],
)
def test_the_length_of_a_client_key_is_checked_first(value: str | bytes) -> None:
    with pytest.raises(InvalidClientKey, match=f"it has {len(value)} characters; a client key has at most 128"):
        ClientKey.parse(value)


def test_the_prefix_is_configurable() -> None:
    assert ClientKey.parse("wk-acme_0123456789", prefix="wk-").may_be_of("acme")
    assert ClientKey.parse("acme_0123456789", prefix="").may_be_of("acme")
    with pytest.raises(InvalidClientKey, match="does not begin with 'wk-'"):
        ClientKey.parse(KEY, prefix="wk-")
    with pytest.raises(InvalidClientKey, match="wk-<account>_<random>"):
        ClientKey.parse("wk-acme-0123456789", prefix="wk-")


def test_a_client_key_shorter_than_its_listed_suffix_is_refused() -> None:
    assert ClientKey.parse("k_abc_de", prefix="k_").last8 == "k_abc_de"
    with pytest.raises(InvalidClientKey, match="k_<account>_<random>"):
        ClientKey.parse("k_ab_de", prefix="k_")


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format, pretty_repr])
def test_a_client_key_is_never_shown_whole(show: Callable[[object], str]) -> None:
    key = ClientKey.parse(KEY)
    for shown in (show(key), show([key]), show({"key": key})):
        assert KEY not in shown
        assert KEY[-9:] not in shown
        assert KEY[-8:] in shown


def test_a_masked_key_shows_its_last_8_characters() -> None:
    assert mask("UVwXyZ-_") == "…UVwXyZ-_"
    assert repr(ClientKey.parse(KEY)) == f"ClientKey('…{KEY[-8:]}')"
    assert pretty_repr(ClientKey.parse(KEY)) == f"ClientKey(last8='…{KEY[-8:]}')"


@MANY
@given(
    st.text("abcXYZ019_-", min_size=1, max_size=59),
    st.text("abcXYZ019_-", min_size=1, max_size=59),
)
def test_any_account_and_random_part_are_parsed(account: str, random: str) -> None:
    key = ClientKey.parse(f"pk_live_{account}_{random}")
    assert key.value == f"pk_live_{account}_{random}"
    assert key.may_be_of(account)
    assert not key.may_be_of(f"{account}_{random}")
    assert not key.may_be_of(f"x{account}")


@MANY
@given(st.one_of(st.text(st.characters(exclude_categories=()), max_size=140), st.binary(max_size=140)))
def test_arbitrary_client_keys_raise_nothing_but_invalid_client_key(value: str | bytes) -> None:
    prefixed = "pk_live_" + value if isinstance(value, str) else b"pk_live_" + value
    for attempt in (value, prefixed):
        try:
            key = ClientKey.parse(attempt)
        except InvalidClientKey:
            continue
        assert key.value.isascii()
        assert len(key.last8) == 8


def test_client_keys_are_hashable() -> None:
    assert len({ClientKey.parse(KEY), ClientKey.parse(KEY.encode())}) == 1


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("x" * 129, "it has 129 characters; a client key has at most 128"),
        ("sk_live_", "it does not begin with 'pk_live_'"),
        ("pk_live_a.b_c", "it has characters other than letters, digits, '_' and '-'"),
        ("pk_live_a", "it is not of the form pk_live_<account>_<random>"),
    ],
)
def test_the_wording_for_a_refused_client_key(value: str, sentence: str) -> None:
    with pytest.raises(InvalidClientKey) as refused:
        ClientKey.parse(value)
    assert str(refused.value) == sentence
