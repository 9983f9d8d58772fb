"""Text of the other side in messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.quoting import SHOWN, masked, quoted
from tests.support.client_keys import KEY
from tests.support.rows import TOKEN

ALL_ACCOUNTS = "sk_all_5Ea9f0c2b7d1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Invalid token", "'Invalid token'"),
        ("it's", '"it\'s"'),
        ("caf\xe9 🐢", "'caf\xe9 🐢'"),
        ("one\r\ntwo", r"'one\r\ntwo'"),
        ("\x1b[31m\x00\x7f\x9b", r"'\x1b[31m\x00\x7f\x9b'"),
        ("\u202eevil\u2066", r"'\u202eevil\u2066'"),
        ("a\u2028b\u2029c\x85d", r"'a\u2028b\u2029c\x85d'"),
        ("a\u200bb\xadc\xa0d", r"'a\u200bb\xadc\xa0d'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, shown: str) -> None:
    assert quoted(text) == shown


def test_long_text_is_cut() -> None:
    assert quoted("x" * SHOWN) == repr("x" * SHOWN)
    assert quoted("x" * (SHOWN + 1)) == repr("x" * SHOWN + "…")
    assert quoted("xyz", 2) == "'xy…'"


@pytest.mark.parametrize("secret", [TOKEN, KEY, ALL_ACCOUNTS])
def test_secrets_are_masked_before_the_text_is_cut(secret: str) -> None:
    for before in range(SHOWN - len(secret), SHOWN):
        assert secret[8:] not in quoted("x" * before + secret)
        assert secret[:-1] not in quoted("x" * before + secret)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Bearer {TOKEN}", "Bearer sk_live_…"),
        (f"<script data-client-key='{KEY}' async>", "<script data-client-key='pk_live_…' async>"),
        (f"{KEY} {TOKEN}", "pk_live_… sk_live_…"),
        (f"{ALL_ACCOUNTS} sk_all_{'x' * 300}", "sk_all_… sk_all_…"),
        ("sk_all_<random>", "sk_all_<random>"),
        ("sk_live_<account>_<random>", "sk_live_<account>_<random>"),
        ("pk_test_acme_1", "pk_test_acme_1"),
    ],
)
def test_only_the_prefixes_of_secrets_are_kept(text: str, shown: str) -> None:
    assert masked(text) == shown


@given(text=st.text(st.characters(), max_size=400))
def test_any_text_is_one_printable_line_of_bounded_length(text: str) -> None:
    assert quoted(text).isprintable()
    assert len(quoted(text)) <= 10 * SHOWN + 3
