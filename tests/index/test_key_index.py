"""KeyIndex, EnabledOrigins: whose key it is, and what some key allows."""

from itertools import permutations
from typing import Literal

import msgspec
import pytest

from gatekeeper import Origin, WidgetKey
from gatekeeper.index.key_index import READY, STEP, EnabledOrigins, IndexedKey, KeyIndex
from gatekeeper.index.list_diff import load
from gatekeeper.keys.widget_key import ClientKey
from tests.support.indexes import (
    FIRST,
    LAST8,
    OTHER,
    SECOND,
    STRANGER,
    THIRD,
    apply,
    compare,
    compiled,
    decisions,
    ids,
    index_of,
    known_as,
    resolved,
    row,
    used,
)

# Whose key it is.


def test_an_empty_index_knows_no_key() -> None:
    index = KeyIndex()
    assert len(index) == 0
    assert list(index) == []
    assert index.get(row("a")) is None
    assert index.ambiguous() == ()
    assert index.resolve(FIRST) == "unknown"


def test_a_key_is_resolved_by_its_last_8_characters() -> None:
    index = index_of(row("a", FIRST), row("b", OTHER))
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["a", "b"]
    assert resolved(index, ClientKey.parse("pk_live_acme_x-unlikely")) == "unknown"
    assert index.get(row("a", FIRST, "other.test")) is index.resolve(FIRST)
    assert index.get(row("b", FIRST)) is None
    assert sorted(known.id for known in index) == ["a", "b"]


@pytest.mark.parametrize(
    ("account", "client_key", "expected"),
    [
        (None, FIRST, "a"),
        (None, STRANGER, "a"),
        ("acme", FIRST, "a"),
        ("acme", STRANGER, "unknown"),
        ("globex", FIRST, "unknown"),
        ("globex", STRANGER, "a"),
        ("ACME", FIRST, "unknown"),
        ("", FIRST, "unknown"),
    ],
)
def test_where_the_account_is_known_a_key_of_another_one_is_unknown(
    account: str | None, client_key: ClientKey, expected: str
) -> None:
    assert resolved(index_of(row("a", FIRST), account=account), client_key) == expected


def test_where_a_row_tells_its_digest_the_whole_key_has_to_match() -> None:
    index = index_of(row("a", FIRST, digest=True))
    assert resolved(index, FIRST) == "a"
    assert resolved(index, SECOND) == "unknown"
    assert resolved(index, STRANGER) == "unknown"


COMPANY = [
    pytest.param([row("a", FIRST)], ["a", "a", "a"], id="one without a digest"),
    pytest.param([row("a", FIRST, digest=True)], ["a", "unknown", "unknown"], id="one with its digest"),
    pytest.param([row("a", FIRST), row("b", SECOND)], ["ambiguous"] * 3, id="two without"),
    pytest.param([row("a", FIRST, digest=True), row("b", SECOND, digest=True)], ["a", "b", "unknown"], id="two with theirs"),
    pytest.param([row("a", FIRST, digest=True), row("b", SECOND)], ["a", "b", "b"], id="one with and one without"),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", FIRST, digest=True)],
        ["ambiguous", "unknown", "unknown"],
        id="two with the same",
    ),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", FIRST, digest=True), row("c", SECOND)],
        ["ambiguous", "c", "c"],
        id="two with the same and one without",
    ),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", SECOND), row("c", THIRD)],
        ["a", "ambiguous", "ambiguous"],
        id="one with and two without",
    ),
    pytest.param(
        [row("a", FIRST, digest=True), row("b", SECOND, digest=True), row("c", THIRD)],
        ["a", "b", "c"],
        id="two with theirs and one without",
    ),
    pytest.param([row("a", FIRST), row("b", SECOND), row("c", THIRD)], ["ambiguous"] * 3, id="three without"),
]


@pytest.mark.parametrize(("rows", "expected"), COMPANY)
def test_of_rows_with_one_suffix_the_digest_tells_which_it_is_whatever_their_order(
    rows: list[WidgetKey], expected: list[str]
) -> None:
    for order in permutations(rows):
        index = index_of(*order, row("z", OTHER))
        assert [resolved(index, key) for key in (FIRST, SECOND, THIRD)] == expected
        assert index.ambiguous() == ((LAST8,) if "ambiguous" in expected else ())
        assert resolved(index, OTHER) == "z"


@pytest.mark.parametrize(("rows", "expected"), COMPANY)
def test_a_disabled_row_is_resolved_like_any_other(rows: list[WidgetKey], expected: list[str]) -> None:
    """Else a revoked key could come to life as another row with the same last 8 characters."""
    for number in range(len(rows)):
        changed = list(rows)
        changed[number] = msgspec.structs.replace(rows[number], disabled_at=False)
        index = index_of(*changed)
        assert [resolved(index, key) for key in (FIRST, SECOND, THIRD)] == expected
        known = index.get(rows[number])
        assert known is not None
        assert known.widget_key.disabled


def test_more_rows_with_one_suffix_than_chance_explains_are_ambiguous_whatever_their_digests() -> None:
    """Else a list whose suffixes are all alike would make every request walk over all of it."""
    keys = [ClientKey.parse(f"pk_live_acme_{number}-0123456789") for number in range(17)]
    rows = [row(str(number), key, digest=True) for number, key in enumerate(keys)]
    index = index_of(*rows[:-1])
    assert [resolved(index, key) for key in keys] == [*map(str, range(16)), "unknown"]
    assert index.ambiguous() == ()
    apply(index, rows)
    assert {resolved(index, key) for key in keys} == {"ambiguous"}
    assert index.ambiguous() == (LAST8,)
    apply(index, rows[1:])
    assert [resolved(index, key) for key in keys] == ["unknown", *map(str, range(1, 17))]


def test_whoever_looks_at_keys_with_one_suffix_is_not_disturbed_by_those_that_come_and_go() -> None:
    """Tools decide in threads, while a list is applied."""
    index = index_of(row("a"), row("b"), row("c"))
    found = index.with_last8(LAST8)
    apply(index, [row("b", OTHER), row("d")])
    assert sorted(ids(found)) == ["a", "b", "c"]


def test_a_list_of_nothing_but_what_is_known_is_finished_without_a_look_at_every_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row("a"), row("b", SECOND), row("c", OTHER)]
    index = index_of(*rows)
    monkeypatch.setattr(index, "walk", lambda: pytest.fail("every key was looked at"))
    assert compare(index, rows).is_empty
    assert compare(index, [used(row("a")), *rows[1:]]).is_empty


def test_a_list_whose_suffixes_are_all_alike_is_loaded_without_comparing_each_row_with_each() -> None:
    index = KeyIndex()
    rows = [row(str(number)) for number in range(20_000)]
    apply(index, rows)
    difference = compare(index, reversed(rows))
    assert difference.is_empty
    assert difference.duplicate_ids == set()
    assert difference.removed == []
    apply(index, rows[:1])
    assert resolved(index, FIRST) == "0"


def test_a_row_is_compiled_with_its_allowlist() -> None:
    known = known_as(index_of(row("a", FIRST, "acme.com", "*")), "a")
    assert known is not None
    assert known.widget_key == row("a", FIRST, "acme.com", "*")
    assert known.allowlist.patterns == ("acme.com",)
    assert known.allowlist.allows("http://acme.com")


def test_an_index_for_https_compiles_allowlists_for_https() -> None:
    known = known_as(index_of(row("a", FIRST, "acme.com", "http://acme.com"), https_only=True), "a")
    assert known is not None
    assert not known.allowlist.allows("http://acme.com")
    assert [rejected.reason for rejected in known.allowlist.rejected] == ["http_refused"]


def test_an_index_is_not_for_https_only_unless_it_is_said() -> None:
    index = KeyIndex()
    load(index, [row("a")])
    known = index.resolve(FIRST)
    assert isinstance(known, IndexedKey)
    assert known.allowlist.allows("http://acme.com")
    assert index.enabled_origins().allows(Origin.parse("http://acme.com"))


def test_a_key_stays_compiled_until_many_others_were_asked_about() -> None:
    client_keys = [ClientKey.parse(f"pk_live_acme_{number:08}") for number in range(READY + 1)]
    index = index_of(*(row(str(number), key) for number, key in enumerate(client_keys)))
    first = index.resolve(client_keys[0])
    for key in client_keys[1:-1]:
        index.resolve(key)
    assert index.resolve(client_keys[0]) is first
    index.resolve(client_keys[-1])
    again = index.resolve(client_keys[0])
    assert again is not first
    assert again is index.resolve(client_keys[0])


def test_what_would_have_to_wait_for_another_thread_does_without() -> None:
    index = index_of(row("a"))
    with index._ready_lock:  # another thread is just about to remember a key
        assert resolved(index, FIRST) == "a"
    index._ready_lock.acquire()  # a thread had it that has not come along in the fork
    index.after_fork()
    assert index.resolve(FIRST) is index.resolve(FIRST)


# Keys of another process.


def test_keys_that_were_walked_over_can_be_restored_elsewhere() -> None:
    index = index_of(row("gone"), row("a"), row("b"), row("c", OTHER, disabled_at="2026"))
    apply(index, [row("a"), row("b"), row("c", OTHER, disabled_at="2026")])
    other = index_of(row("z", THIRD))
    origins = other.enabled_origins()
    apply(other, [])
    for step in index.walk():
        other.restore(step)
    assert decisions(other) == decisions(index)
    assert origins.allows(Origin.parse("https://acme.com"))
    assert compare(other, list(index)).is_empty


def test_an_index_that_was_cleared_knows_no_key_and_can_be_filled_again() -> None:
    index = index_of(row("a"), row("b", SECOND), row("c", OTHER))
    origins = index.enabled_origins()
    index.clear()
    assert len(index) == 0
    assert list(index) == []
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["unknown"] * 2
    assert not origins.allows(Origin.parse("https://acme.com"))
    load(index, [row("b", SECOND)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "unknown"]
    assert origins.allows(Origin.parse("https://acme.com"))
    assert index.slots == 3


@pytest.mark.parametrize("rows", [[], [row(str(number)) for number in range(1, STEP + 2)]], ids=["gone", "one for another"])
def test_to_walk_over_keys_that_come_and_go_meanwhile_fails(rows: list[WidgetKey]) -> None:
    index = index_of(*(row(str(number)) for number in range(STEP + 1)))
    steps = index.walk()
    next(steps)
    apply(index, rows)
    with pytest.raises(RuntimeError):
        next(steps)


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
    known = compiled(row("a", FIRST, "*.acme.com", "*.shop.test"))
    page = Origin.parse("https://a.shop.test")
    allowed = []
    changes: list[Literal[1, -1]] = [1, 1, -1, -1, 1]
    for change in changes:
        origins.count(known, change)
        allowed.append(origins.allows(page))
    assert allowed == [True, True, True, False, True]


def test_a_disabled_key_is_counted_neither_in_nor_out() -> None:
    origins = EnabledOrigins(https_only=False)
    enabled, disabled = (compiled(row("a", FIRST, "acme.com", disabled_at=value)) for value in (None, ""))
    page = Origin.parse("https://acme.com")
    origins.count(disabled, 1)
    assert not origins.allows(page)
    origins.count(enabled, 1)
    origins.count(disabled, -1)
    assert origins.allows(page)


def test_an_indexed_key_cannot_be_changed() -> None:
    known = known_as(index_of(row("a")), "a")
    assert known is not None
    with pytest.raises(AttributeError):
        known.widget_key = row("b")  # type: ignore[misc]
