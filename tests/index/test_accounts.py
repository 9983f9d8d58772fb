"""KeyIndex with the rows of several accounts: whose key is whose."""

from collections.abc import Sequence
from itertools import permutations, product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import WidgetKey
from gatekeeper.index.delta_diff import DeltaDiff
from gatekeeper.index.packed import drain
from gatekeeper.index.precedence import Precedence
from gatekeeper.keys.client_key import ClientKey, share_keys
from tests.support.indexes import apply, index_of, resolved

LAST8 = "01234567"
MAX_SUFFIX_COLLISIONS = 16


def key_of(account: str, random: str = f"one_{LAST8}") -> ClientKey:
    return ClientKey.parse(f"pk_live_{account}_{random}")


def row(row_id: str, account: str | None, *, proves: ClientKey | None = None, last8: str = LAST8) -> WidgetKey:
    return WidgetKey(row_id, None, last8, ("acme.com",), key_sha256=proves.sha256() if proves else None, account=account)


ACME, SHOP, GLOBEX = key_of("acme"), key_of("acme_shop"), key_of("globex")
KEYS = (ACME, SHOP, GLOBEX)


@pytest.mark.parametrize(
    ("rows", "expected", "ambiguous"),
    [
        ([row("a", "acme")], ["a", "a", "unknown"], ()),
        ([row("s", "acme_shop")], ["unknown", "s", "unknown"], ()),
        ([row("a", "acme"), row("g", "globex")], ["a", "a", "g"], ()),
        ([row("a", "acme"), row("s", "acme_shop")], ["a", "ambiguous", "unknown"], (LAST8,)),
        ([row("a", "acme"), row("s", "acme_shop", proves=SHOP)], ["a", "s", "unknown"], ()),
        ([row("a", "acme", proves=ACME), row("s", "acme_shop")], ["a", "s", "unknown"], ()),
        ([row("a", "acme", proves=SHOP), row("s", "acme_shop")], ["unknown", "a", "unknown"], ()),
        ([row("a", "acme", proves=SHOP), row("s", "acme_shop", proves=SHOP)], ["unknown", "ambiguous", "unknown"], (LAST8,)),
        ([row("a", "acme"), row("b", "acme")], ["ambiguous", "ambiguous", "unknown"], (LAST8,)),
        ([row("a", "acme"), row("n", None)], ["ambiguous", "ambiguous", "n"], (LAST8,)),
        ([row("a", "acme", proves=ACME), row("n", None)], ["a", "n", "n"], ()),
        ([row("g", "globex", proves=ACME)], ["unknown", "unknown", "unknown"], ()),
        ([row("s", "acme_shop"), row("g", "globex"), row("a", "acme")], ["a", "ambiguous", "g"], (LAST8,)),
        ([row("i", "initech"), row("g", "globex"), row("m", "acm")], ["unknown", "unknown", "g"], ()),
        ([row("o", "ACME"), row("p", "Acme Inc."), row("e", "")], ["unknown", "unknown", "unknown"], ()),
    ],
    ids=[
        "one",
        "a longer account",
        "two accounts",
        "nested accounts",
        "the longer one is proven",
        "the shorter one is proven",
        "the shorter one is proven for a key that looks like one of the longer",
        "both are proven for one key",
        "one account twice",
        "one without an account",
        "one without an account, and a proven one",
        "proven for a key of another account",
        "nested accounts and another one",
        "other accounts only",
        "what no account is called",
    ],
)
def test_accounts_are_told_apart_by_the_client_key_and_digests(
    rows: list[WidgetKey], expected: list[str], ambiguous: tuple[str, ...]
) -> None:
    for order in permutations(rows):
        index = index_of(*order)
        assert [resolved(index, key) for key in KEYS] == expected
        assert index.ambiguous() == ambiguous


@pytest.mark.parametrize("named", ["acme", "globex", "acct_17", "Acme Inc.", None])
def test_an_index_of_one_account_ignores_the_accounts_of_rows(named: str | None) -> None:
    index = index_of(row("a", named), account="acme")
    assert [resolved(index, key) for key in KEYS] == ["a", "a", "unknown"]
    apply(index, [row("a", named), row("b", "initech")])
    assert [resolved(index, key) for key in KEYS] == ["ambiguous", "ambiguous", "unknown"]
    assert index.ambiguous() == (LAST8,)


def test_more_than_16_rows_with_one_suffix_are_ambiguous_in_all_accounts() -> None:
    """Comparing all of them takes long, and random keys never have so many."""
    rows = [row(f"r{number}", f"a{number}") for number in range(MAX_SUFFIX_COLLISIONS + 1)]
    index = index_of(*rows[:-1])
    assert (resolved(index, key_of("a3")), index.ambiguous()) == ("r3", ())
    apply(index, rows)
    assert (resolved(index, key_of("a3")), index.ambiguous()) == ("ambiguous", (LAST8,))


# A row of another account.


def test_a_row_that_gets_another_account_is_an_ordinary_change() -> None:
    index = index_of(row("a", "acme"), row("b", "globex", last8="abcdefgh"))
    moved = row("a", "globex")
    changes = apply(index, [moved, row("b", "globex", last8="abcdefgh")])
    assert (changes.added_count, changes.changed_count, changes.removed_count) == (0, 1, 0)
    assert [resolved(index, key) for key in (ACME, GLOBEX)] == ["unknown", "a"]
    diff = DeltaDiff(index)
    diff.add_rows([msgspec.structs.replace(moved, account=None)])
    delta = drain(diff.finish())
    assert (delta.added_count, delta.changed_count, delta.removed_count) == (0, 1, 0)
    drain(delta.apply())
    assert [resolved(index, key) for key in (ACME, GLOBEX)] == ["a", "a"]


def test_an_older_row_gives_its_key_no_other_account() -> None:
    older, newer = "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"
    held = msgspec.structs.replace(row("a", "acme"), updated_at=newer)
    listed = msgspec.structs.replace(row("a", "globex"), updated_at=older)
    index = index_of(held)
    changes = apply(index, [listed])
    assert (changes.is_empty, changes.overruled_count, resolved(index, ACME)) == (True, 1, "a")
    diff = DeltaDiff(index, precedence=Precedence())
    diff.add_rows([listed])
    assert drain(diff.finish()).overruled_count == 1


# A naive oracle.

NAMES = ("a", "a_", "a_b", "a_b_c", "a-b", "b", "ab", "a__b")
RANDOMS = (LAST8, f"x{LAST8}", f"b_{LAST8}", f"_{LAST8}", f"b_c_{LAST8}", "c_0123456", "01234568")
CLIENT_KEYS = [key_of(*each) for each in product(NAMES, RANDOMS)]
ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from([f"r{number}" for number in range(20)]),
        st.none() | st.sampled_from(NAMES),
        proves=st.none() | st.sampled_from(CLIENT_KEYS),
        last8=st.sampled_from((LAST8, LAST8, LAST8, "c_0123456"[-8:], "01234568")),
    ),
    unique_by=lambda each: each.id,
    max_size=18,
)


def naively_resolved(rows: Sequence[WidgetKey], client_key: ClientKey, account: str | None) -> str:
    def may_be_of(name: str | None) -> bool:
        return name is None or any(
            client_key.value == f"pk_live_{name}_{client_key.value[-length:]}"
            for length in range(1, len(client_key.value) + 1)
        )

    ending = [each for each in rows if client_key.value.endswith(each.last8)]
    if not may_be_of(account):
        return "unknown"
    if len(ending) > MAX_SUFFIX_COLLISIONS:
        return "ambiguous"
    theirs = [each for each in ending if account is not None or may_be_of(each.account)]
    proven = [each.id for each in theirs if each.key_sha256 == client_key.sha256()]
    hits = proven or [each.id for each in theirs if each.key_sha256 is None]
    return "unknown" if not hits else hits[0] if len(hits) == 1 else "ambiguous"


@given(rows=ROWS, account=st.none() | st.sampled_from(NAMES))
def test_every_client_key_resolves_as_a_naive_search_does(rows: list[WidgetKey], account: str | None) -> None:
    index = index_of(*rows, account=account)
    found = [resolved(index, key) for key in CLIENT_KEYS]
    assert found == [naively_resolved(rows, key, account) for key in CLIENT_KEYS]
    for key, row_id in zip(CLIENT_KEYS, found, strict=True):
        if row_id == "ambiguous":
            assert key.last8 in index.ambiguous()


@given(rows=ROWS, account=st.none() | st.sampled_from(NAMES))
def test_only_suffixes_that_some_client_key_cannot_resolve_are_ambiguous(rows: list[WidgetKey], account: str | None) -> None:
    """No client key is known that proves a row, so that only rows without a digest count."""
    without = [each for each in rows if each.key_sha256 is None]
    index = index_of(*without, account=account)
    names = {account} if account is not None else {each.account or "a" for each in without}
    keys = [key_of(name, f"unlike-any-other-{each.last8}") for name, each in product(names, without)]
    assert set(index.ambiguous()) == {key.last8 for key in keys if resolved(index, key) == "ambiguous"}


@given(st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_accounts_share_keys_if_some_key_may_be_of_both(first: str, second: str) -> None:
    both = [key for key in (key_of(first), key_of(second)) if key.may_be_of(first) and key.may_be_of(second)]
    assert share_keys(first, second) is bool(both)
    assert share_keys(first, None)
    assert share_keys(None, second)
