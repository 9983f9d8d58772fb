"""KeyIndex, Difference, EnabledOrigins: whose key it is, and what a list changes."""

from collections.abc import Iterable
from itertools import permutations
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import Origin, Reason, WidgetKey
from gatekeeper.index import Difference, EnabledOrigins, IndexedKey, KeyIndex
from gatekeeper.keys import ClientKey

FIRST = ClientKey.parse("pk_live_acme_first-0123456789")
SECOND = ClientKey.parse("pk_live_acme_second-0123456789")
THIRD = ClientKey.parse("pk_live_acme_third-0123456789")
OTHER = ClientKey.parse("pk_live_acme_other-abcdefghij")
STRANGER = ClientKey.parse("pk_live_globex_first-0123456789")
LAST8 = FIRST.last8
assert {key.last8 for key in (FIRST, SECOND, THIRD, STRANGER)} == {LAST8} != {OTHER.last8}

CLIENT_KEYS = (FIRST, SECOND, THIRD, OTHER, STRANGER)
ENTRIES = ("acme.com", "*.acme.com", "https://*.acme.com:8443", "*.shop.test", "shop.test:*", "localhost:*", "*", "")
ORIGINS = tuple(
    Origin.parse(origin)
    for origin in (
        "https://acme.com",
        "http://acme.com",
        "https://a.acme.com",
        "http://a.acme.com",
        "https://a.acme.com:8443",
        "https://a.shop.test",
        "https://shop.test:81",
        "http://localhost:3000",
        "https://unlike.test",
    )
)


def row(
    row_id: str,
    client_key: ClientKey = FIRST,
    *entries: str,
    digest: bool = False,
    disabled_at: object = None,
    name: str | None = None,
) -> WidgetKey:
    """Make a row for a client key."""
    return WidgetKey(
        row_id,
        name,
        client_key.last8,
        entries or ("acme.com",),
        disabled_at=disabled_at,
        key_sha256=client_key.sha256() if digest else None,
    )


def apply(index: KeyIndex, rows: Iterable[WidgetKey]) -> Difference:
    """Apply a list to an index."""
    difference = Difference(index)
    difference.see(rows)
    for steps in (difference.finish(), index.apply(difference)):
        for _ in steps:
            pass
    return difference


def index_of(*rows: WidgetKey, account: str | None = None, https_only: bool = False) -> KeyIndex:
    """Make an index of these rows."""
    index = KeyIndex(account=account, https_only=https_only)
    apply(index, rows)
    return index


def resolved(index: KeyIndex, client_key: ClientKey) -> str:
    """Tell the id of the row that a client key resolves to, or the reason why there is none."""
    found = index.resolve(client_key)
    return found.value if isinstance(found, Reason) else found.widget_key.id


# Whose key it is.


def test_an_empty_index_knows_no_key() -> None:
    index = KeyIndex()
    assert len(index) == 0
    assert list(index) == []
    assert index.get("a") is None
    assert index.ambiguous() == ()
    assert index.resolve(FIRST) is Reason.KEY_UNKNOWN


def test_a_key_is_resolved_by_its_last_8_characters() -> None:
    index = index_of(row("a", FIRST), row("b", OTHER))
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["a", "b"]
    assert resolved(index, ClientKey.parse("pk_live_acme_x-unlikely")) == "key_unknown"
    assert index.get("a") is index.resolve(FIRST)
    assert sorted(known.widget_key.id for known in index) == ["a", "b"]


@pytest.mark.parametrize(
    ("account", "client_key", "expected"),
    [
        (None, FIRST, "a"),
        (None, STRANGER, "a"),
        ("acme", FIRST, "a"),
        ("acme", STRANGER, "key_unknown"),
        ("globex", FIRST, "key_unknown"),
        ("globex", STRANGER, "a"),
        ("ACME", FIRST, "key_unknown"),
        ("", FIRST, "key_unknown"),
    ],
)
def test_where_the_account_is_known_a_key_of_another_one_is_unknown(
    account: str | None, client_key: ClientKey, expected: str
) -> None:
    assert resolved(index_of(row("a", FIRST), account=account), client_key) == expected


def test_where_a_row_tells_its_digest_the_whole_key_has_to_match() -> None:
    index = index_of(row("a", FIRST, digest=True))
    assert resolved(index, FIRST) == "a"
    assert resolved(index, SECOND) == "key_unknown"
    assert resolved(index, STRANGER) == "key_unknown"


COMPANY = [
    pytest.param([row("a", FIRST)], ["a", "a", "a"], id="one without a digest"),
    pytest.param([row("a", FIRST, digest=True)], ["a", "key_unknown", "key_unknown"], id="one with its digest"),
    pytest.param([row("a", FIRST), row("b", SECOND)], ["key_ambiguous"] * 3, id="two without"),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", SECOND, digest=True)], ["a", "b", "key_unknown"], id="two with theirs"
    ),
    pytest.param([row("a", FIRST, digest=True), row("b", SECOND)], ["a", "b", "b"], id="one with and one without"),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", FIRST, digest=True)],
        ["key_ambiguous", "key_unknown", "key_unknown"],
        id="two with the same",
    ),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", FIRST, digest=True), row("c", SECOND)],
        ["key_ambiguous", "c", "c"],
        id="two with the same and one without",
    ),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", SECOND), row("c", THIRD)],
        ["a", "key_ambiguous", "key_ambiguous"],
        id="one with and two without",
    ),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", SECOND, digest=True), row("c", THIRD)],
        ["a", "b", "c"],
        id="two with theirs and one without",
    ),
    pytest.param([row("a", FIRST), row("b", SECOND), row("c", THIRD)], ["key_ambiguous"] * 3, id="three without"),
]


@pytest.mark.parametrize(("rows", "expected"), COMPANY)
def test_of_rows_with_one_suffix_the_digest_tells_which_it_is_whatever_their_order(
    rows: list[WidgetKey], expected: list[str]
) -> None:
    for order in permutations(rows):
        index = index_of(*order, row("z", OTHER))
        assert [resolved(index, key) for key in (FIRST, SECOND, THIRD)] == expected
        assert index.ambiguous() == ((LAST8,) if "key_ambiguous" in expected else ())
        assert resolved(index, OTHER) == "z"


@pytest.mark.parametrize(("rows", "expected"), COMPANY)
def test_a_disabled_row_is_resolved_like_any_other(rows: list[WidgetKey], expected: list[str]) -> None:
    """Else a revoked key could come to life as another row with the same last 8 characters."""
    for number in range(len(rows)):
        changed = list(rows)
        changed[number] = msgspec.structs.replace(rows[number], disabled_at=False)
        index = index_of(*changed)
        assert [resolved(index, key) for key in (FIRST, SECOND, THIRD)] == expected
        known = index.get(rows[number].id)
        assert known is not None
        assert known.widget_key.disabled


def test_a_row_is_compiled_with_its_allowlist() -> None:
    known = KeyIndex().compile(row("a", FIRST, "acme.com", "*"))
    assert known.widget_key == row("a", FIRST, "acme.com", "*")
    assert known.allowlist.patterns == ("acme.com",)
    assert known.allowlist.allows("http://acme.com")


def test_an_index_for_https_compiles_allowlists_for_https() -> None:
    known = index_of(row("a", FIRST, "acme.com", "http://acme.com"), https_only=True).get("a")
    assert known is not None
    assert not known.allowlist.allows("http://acme.com")
    assert [rejected.reason for rejected in known.allowlist.rejected] == ["http_refused"]


# What a list changes.


def test_a_difference_tells_what_a_list_changes_before_anything_is_changed() -> None:
    index = index_of(row("same"), row("changed"), row("gone"))
    same, before = index.get("same"), index.get("changed")
    difference = Difference(index)
    for each in (row("same"), row("changed", FIRST, "shop.test"), row("new", OTHER)):
        difference.see(each)
    assert list(difference.put) == ["changed", "new"]
    assert difference.added == 1
    assert [known.widget_key.id for known in difference.removed] == ["gone"]
    assert difference.duplicate_ids == set()
    assert index.get("changed") is before
    assert index.get("new") is None
    assert len(index) == 3
    index.apply(difference)
    assert sorted(known.widget_key.id for known in index) == ["changed", "new", "same"]
    assert index.get("same") is same
    assert index.get("changed") is difference.put["changed"]
    assert index.get("gone") is None


def test_an_empty_list_removes_every_key() -> None:
    index = index_of(row("a"), row("b", OTHER))
    difference = apply(index, [])
    assert len(index) == 0
    assert difference.put == {}
    assert index.ambiguous() == ()
    assert [resolved(index, key) for key in CLIENT_KEYS] == ["key_unknown"] * len(CLIENT_KEYS)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Shop"},
        {"last8": OTHER.last8},
        {"domain_allowlist": ("acme.com", "shop.test")},
        {"domain_allowlist": ()},
        {"agent_id": "agent-7"},
        {"disabled_at": "2026-11-01T00:00:00Z"},
        {"disabled_at": False},
        {"key_sha256": FIRST.sha256()},
        {"last_used_at": "2026-11-01T00:00:00Z"},
    ],
    ids=repr,
)
def test_a_row_with_another_value_in_any_field_is_changed_and_one_without_is_not(change: dict[str, object]) -> None:
    before = row("a")
    after = msgspec.structs.replace(before, **change)
    index = index_of(before)
    assert apply(index, [row("a")]).put == {}
    assert list(apply(index, [after]).put) == ["a"]
    known = index.get("a")
    assert known is not None
    assert known.widget_key == after


def test_a_key_that_changes_its_suffix_is_found_by_the_new_one_only() -> None:
    index = index_of(row("a", FIRST), row("b", FIRST))
    apply(index, [row("a", OTHER), row("b", FIRST)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "a"]
    apply(index, [row("a", OTHER), row("b", OTHER)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["key_unknown", "key_ambiguous"]


def test_two_keys_may_change_places() -> None:
    index = index_of(row("a", FIRST), row("b", OTHER))
    apply(index, [row("a", OTHER), row("b", FIRST)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "a"]
    assert len(index) == 2


OPEN, OPEN_TOO = row("a", FIRST, "first.test"), row("a", FIRST, "second.test")
REVOKED, REVOKED_TOO = row("a", FIRST, "third.test", disabled_at="2026"), row("a", FIRST, "fourth.test", disabled_at=0)


@pytest.mark.parametrize(
    ("rows", "stands"),
    [
        pytest.param([OPEN, OPEN_TOO], OPEN, id="two enabled: the first"),
        pytest.param([OPEN, REVOKED], REVOKED, id="enabled, disabled: the disabled one"),
        pytest.param([REVOKED, OPEN], REVOKED, id="disabled, enabled: the disabled one"),
        pytest.param([REVOKED, REVOKED_TOO], REVOKED, id="two disabled: the first"),
        pytest.param([OPEN, OPEN_TOO, REVOKED], REVOKED, id="a disabled one at the end"),
        pytest.param([OPEN, REVOKED, OPEN_TOO, REVOKED_TOO], REVOKED, id="the first disabled one"),
        pytest.param([OPEN, OPEN], OPEN, id="twice the same"),
    ],
)
@pytest.mark.parametrize("known", [None, OPEN, OPEN_TOO, REVOKED, REVOKED_TOO], ids=["new", "o", "o2", "r", "r2"])
def test_of_rows_with_one_id_a_disabled_one_stands_else_the_first(
    rows: list[WidgetKey], stands: WidgetKey, known: WidgetKey | None
) -> None:
    index = index_of(*([] if known is None else [known]))
    difference = apply(index, [*rows, row("b", OTHER)])
    found = index.get("a")
    assert found is not None
    assert found.widget_key == stands
    assert found.allowlist.patterns == stands.domain_allowlist
    assert difference.duplicate_ids == {"a"}
    assert ("a" in difference.put) is (known != stands)
    assert len(index) == 2


def test_a_key_that_is_kept_stays_as_it_was() -> None:
    index = index_of(row("a"), row("b", OTHER))
    before = index.get("a")
    difference = Difference(index)
    difference.keep("a")
    assert [known.widget_key.id for known in difference.removed] == ["b"]
    index.apply(difference)
    assert index.get("a") is before
    assert len(index) == 1


def test_a_key_that_nobody_knows_cannot_be_kept() -> None:
    index = KeyIndex()
    difference = Difference(index)
    difference.keep("a")
    index.apply(difference)
    assert len(index) == 0
    difference = Difference(index)
    difference.keep("a")
    difference.see(row("a"))
    index.apply(difference)
    assert len(index) == 1


@pytest.mark.parametrize("keep_first", [True, False])
@pytest.mark.parametrize(
    ("known", "seen", "stands"),
    [
        pytest.param(OPEN, REVOKED, REVOKED, id="a readable row that is disabled"),
        pytest.param(REVOKED, REVOKED_TOO, None, id="a revoked key stays revoked"),
    ],
)
def test_an_unreadable_row_does_not_undo_a_revocation_of_the_same_id(
    known: WidgetKey, seen: WidgetKey, stands: WidgetKey | None, *, keep_first: bool
) -> None:
    index = index_of(known)
    difference = Difference(index)
    if keep_first:
        difference.keep("a")
        difference.see(seen)
    else:
        difference.see(seen)
        difference.keep("a")
    index.apply(difference)
    found = index.get("a")
    assert found is not None
    assert found.widget_key.disabled
    assert stands is None or found.widget_key == stands


def test_a_readable_row_that_follows_an_unreadable_one_with_its_id_is_a_duplicate() -> None:
    index = index_of(row("a", name="before"))
    difference = Difference(index)
    difference.keep("a")
    difference.see(row("a", name="after"))
    index.apply(difference)
    found = index.get("a")
    assert found is not None
    assert found.widget_key.name == "before"
    assert difference.duplicate_ids == {"a"}


# What the enabled keys allow between them.


def test_what_some_enabled_key_allows_is_allowed_between_them() -> None:
    origins = index_of(
        row("a", FIRST, "acme.com", "*"),
        row("b", SECOND, "*.shop.test"),
        row("c", OTHER, "revoked.test", disabled_at=False),
        row("d", THIRD, ""),
    ).enabled_origins()
    allowed = ["https://acme.com", "http://acme.com", "https://a.shop.test"]
    refused = ["https://shop.test", "https://a.acme.com", "https://revoked.test", "https://unlike.test"]
    assert [origin for origin in allowed if not origins.allows(Origin.parse(origin))] == []
    assert [origin for origin in refused if origins.allows(Origin.parse(origin))] == []


def test_an_origin_is_allowed_until_the_last_key_that_allows_it_is_gone() -> None:
    index = index_of(row("a", FIRST, "acme.com", "*.acme.com"), row("b", OTHER, "ACME.com", "*.acme.com:443"))
    origins = index.enabled_origins()
    apex, below = Origin.parse("https://acme.com"), Origin.parse("https://a.acme.com")
    assert (origins.allows(apex), origins.allows(below)) == (True, True)
    apply(index, [row("b", OTHER, "ACME.com", "*.acme.com:443")])
    assert (origins.allows(apex), origins.allows(below)) == (True, True)
    apply(index, [row("b", OTHER, "*.acme.com:443", "*.other.test")])
    assert (origins.allows(apex), origins.allows(below)) == (False, True)
    apply(index, [row("b", OTHER, "*.acme.com:443", disabled_at="2026")])
    assert (origins.allows(apex), origins.allows(below)) == (False, False)
    apply(index, [row("b", OTHER, "acme.com")])
    assert (origins.allows(apex), origins.allows(below)) == (True, False)
    assert index.enabled_origins() is origins


def test_with_https_only_no_page_over_http_is_allowed_between_them() -> None:
    index = index_of(row("a", FIRST, "acme.com", "localhost:*"), https_only=True)
    origins = index.enabled_origins()
    assert origins.allows(Origin.parse("https://acme.com"))
    assert not origins.allows(Origin.parse("http://acme.com"))
    assert origins.allows(Origin.parse("http://localhost:3000"))


def test_keys_are_counted_in_and_out() -> None:
    origins = EnabledOrigins(https_only=False)
    known = KeyIndex().compile(row("a", FIRST, "*.acme.com", "*.shop.test"))
    page = Origin.parse("https://a.shop.test")
    allowed = []
    changes: list[Literal[1, -1]] = [1, 1, -1, -1, 1]
    for change in changes:
        origins.count(known, change)
        allowed.append(origins.allows(page))
    assert allowed == [True, True, True, False, True]


def test_a_disabled_key_is_counted_neither_in_nor_out() -> None:
    origins = EnabledOrigins(https_only=False)
    enabled, disabled = (KeyIndex().compile(row("a", FIRST, "acme.com", disabled_at=value)) for value in (None, ""))
    page = Origin.parse("https://acme.com")
    origins.count(disabled, 1)
    assert not origins.allows(page)
    origins.count(enabled, 1)
    origins.count(disabled, -1)
    assert origins.allows(page)


# Whatever lists come.

MANY = settings(max_examples=200, deadline=None)
ROWS = st.builds(
    lambda row_id, key, entries, digest, disabled_at, name: row(
        row_id, key, *entries, digest=digest, disabled_at=disabled_at, name=name
    ),
    st.sampled_from("abcde"),
    st.sampled_from(CLIENT_KEYS),
    st.lists(st.sampled_from(ENTRIES), max_size=3),
    st.booleans(),
    st.sampled_from([None, None, None, "2026", False, ""]),
    st.sampled_from([None, "Shop"]),
)
LISTS = st.lists(st.lists(ROWS, max_size=7), min_size=1, max_size=6)


def decisions(index: KeyIndex) -> dict[str, object]:
    """Ask an index everything that can be asked."""

    def known(found: IndexedKey | Reason) -> object:
        return found if isinstance(found, Reason) else (found.widget_key, [found.allowlist.match(page) for page in ORIGINS])

    return {
        "rows": sorted((each.widget_key.id, repr(each.widget_key)) for each in index),
        "by id": {row_id: found and found.widget_key for row_id in "abcdef" for found in [index.get(row_id)]},
        "resolved": {key.value: known(index.resolve(key)) for key in CLIENT_KEYS},
        "ambiguous": set(index.ambiguous()),
        "enabled origins": [index.enabled_origins().allows(page) for page in ORIGINS],
        "size": len(index),
    }


@MANY
@given(lists=LISTS, account=st.sampled_from([None, "acme"]), https_only=st.booleans(), counted_from=st.integers(0, 6))
def test_an_index_decides_as_one_built_anew_from_the_last_list(
    *, lists: list[list[WidgetKey]], account: str | None, https_only: bool, counted_from: int
) -> None:
    index = KeyIndex(account=account, https_only=https_only)
    for number, rows in enumerate(lists):
        if number == counted_from:
            index.enabled_origins()
        apply(index, rows)
        if number + 1 == len(lists) or number >= counted_from:
            assert decisions(index) == decisions(index_of(*rows, account=account, https_only=https_only))


@MANY
@given(LISTS, st.lists(st.sets(st.sampled_from("abcdef")), min_size=6, max_size=6))
def test_kept_keys_stay_as_they_were_among_whatever_else_changes(
    lists: list[list[WidgetKey]], kept_ids: list[set[str]]
) -> None:
    index = KeyIndex()
    for rows, kept in zip(lists, kept_ids, strict=False):
        staying = [known.widget_key for known in index if known.widget_key.id in kept]
        readable = [each for each in rows if each.id not in kept]
        difference = Difference(index)
        for row_id in kept:
            difference.keep(row_id)
        for each in readable:
            difference.see(each)
        index.apply(difference)
        assert decisions(index) == decisions(index_of(*readable, *staying))


@MANY
@given(LISTS)
def test_a_difference_is_what_tells_two_lists_apart(lists: list[list[WidgetKey]]) -> None:
    index = KeyIndex()
    for rows in lists:
        before = {known.widget_key.id: known for known in index}
        difference = Difference(index)
        for each in rows:
            difference.see(each)
        added, removed = difference.added, {known.widget_key.id for known in difference.removed}
        index.apply(difference)
        after = {known.widget_key.id: known for known in index}
        assert removed == set(before) - set(after)
        assert added == len(set(after) - set(before))
        assert set(difference.put) == {row_id for row_id, known in after.items() if before.get(row_id) is not known}
        assert all(before[row_id].widget_key != after[row_id].widget_key for row_id in set(difference.put) & set(before))
        ids = [each.id for each in rows]
        assert difference.duplicate_ids == {row_id for row_id in ids if ids.count(row_id) > 1}
        assert apply(index, rows).put == {}


def test_an_indexed_key_cannot_be_changed() -> None:
    known = index_of(row("a")).get("a")
    assert known is not None
    with pytest.raises(AttributeError):
        known.widget_key = row("b")  # type: ignore[misc]
