"""KeyIndex, Difference, EnabledOrigins: whose key it is, and what a list changes."""

from array import array
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from itertools import permutations
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import InvalidRow, Origin, Reason, WidgetKey
from gatekeeper.allowlist import Allowlist
from gatekeeper.index import MAX_PACKED, READY, SLOT, STEP, Difference, EnabledOrigins, IndexedKey, KeyIndex
from gatekeeper.keys import ClientKey
from gatekeeper.rows import RowReader

FIRST = ClientKey.parse("pk_live_acme_first-0123456789")
SECOND = ClientKey.parse("pk_live_acme_second-0123456789")
THIRD = ClientKey.parse("pk_live_acme_third-0123456789")
OTHER = ClientKey.parse("pk_live_acme_other-abcdefghij")
STRANGER = ClientKey.parse("pk_live_globex_first-0123456789")
LAST8 = FIRST.last8
assert {key.last8 for key in (FIRST, SECOND, THIRD, STRANGER)} == {LAST8} != {OTHER.last8}

Listed = WidgetKey | InvalidRow

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


def used(widget_key: WidgetKey) -> WidgetKey:
    """The same row after its key was used."""
    return msgspec.structs.replace(widget_key, last_used_at="2026-11-22T00:00:00Z")


def nested() -> object:
    """A list in a list in a list, deeper than can be packed."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    return value


def compiled(widget_key: WidgetKey) -> IndexedKey:
    """The key, ready to be asked about pages."""
    return IndexedKey(widget_key, Allowlist.parse(widget_key.domain_allowlist))


def unreadable(row_id: str | None, disabled_at: object = None) -> InvalidRow:
    """Make what stands for a row that cannot be read."""
    return InvalidRow(0, "unreadable", row_id=row_id, disabled_at=disabled_at)


def take(steps: Iterable[None]) -> None:
    """Take all steps."""
    for _ in steps:
        pass


def compare(index: KeyIndex, rows: Iterable[Listed], *, lapsed: Collection[str] = ()) -> Difference:
    """Work out what a list changes in an index."""
    difference = Difference(index, lapsed=lapsed)
    difference.see(rows)
    take(difference.finish())
    return difference


def apply(index: KeyIndex, rows: Iterable[Listed]) -> Difference:
    """Apply a list to an index, and return the difference, of which only what is no row is left."""
    difference = compare(index, rows)
    take(index.apply(difference))
    return difference


def index_of(*rows: WidgetKey, account: str | None = None, https_only: bool = False) -> KeyIndex:
    """Make an index of these rows."""
    index = KeyIndex(account=account, https_only=https_only)
    index.load(rows)
    return index


def known_as(index: KeyIndex, row_id: str) -> IndexedKey | None:
    """The key with this id."""
    widget_key = next((each for each in index if each.id == row_id), None)
    return None if widget_key is None else index.get(widget_key)


def ids(packed: Iterable[bytes]) -> list[str]:
    """The ids of packed rows, without a slot's number before them."""
    return [msgspec.msgpack.decode(each)[0] for each in packed]


def packed_size(widget_key: WidgetKey) -> int:
    """How many bytes a row takes when it is packed."""
    return len(msgspec.msgpack.encode(msgspec.structs.astuple(widget_key)))


def resolved(index: KeyIndex, client_key: ClientKey) -> str:
    """Tell the id of the row that a client key resolves to, or the reason why there is none."""
    found = index.resolve(client_key)
    return found.value if isinstance(found, Reason) else found.widget_key.id


# Whose key it is.


def test_an_empty_index_knows_no_key() -> None:
    index = KeyIndex()
    assert len(index) == 0
    assert list(index) == []
    assert index.get(row("a")) is None
    assert index.ambiguous() == ()
    assert index.resolve(FIRST) is Reason.KEY_UNKNOWN


def test_a_key_is_resolved_by_its_last_8_characters() -> None:
    index = index_of(row("a", FIRST), row("b", OTHER))
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["a", "b"]
    assert resolved(index, ClientKey.parse("pk_live_acme_x-unlikely")) == "key_unknown"
    assert index.get(row("a", FIRST, "other.test")) is index.resolve(FIRST)
    assert index.get(row("b", FIRST)) is None
    assert sorted(known.id for known in index) == ["a", "b"]


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
        known = index.get(rows[number])
        assert known is not None
        assert known.widget_key.disabled


def test_more_rows_with_one_suffix_than_chance_explains_are_ambiguous_whatever_their_digests() -> None:
    """Else a list whose suffixes are all alike would make every request walk over all of it."""
    keys = [ClientKey.parse(f"pk_live_acme_{number}-0123456789") for number in range(17)]
    rows = [row(str(number), key, digest=True) for number, key in enumerate(keys)]
    index = index_of(*rows[:-1])
    assert [resolved(index, key) for key in keys] == [*map(str, range(16)), "key_unknown"]
    assert index.ambiguous() == ()
    apply(index, rows)
    assert {resolved(index, key) for key in keys} == {"key_ambiguous"}
    assert index.ambiguous() == (LAST8,)
    apply(index, rows[1:])
    assert [resolved(index, key) for key in keys] == ["key_unknown", *map(str, range(1, 17))]


def test_whoever_looks_at_keys_with_one_suffix_is_not_disturbed_by_those_that_come_and_go() -> None:
    """Tools decide in threads, while a list is applied."""
    index = index_of(row("a"), row("b"), row("c"))
    found = index.with_last8(LAST8)
    apply(index, [row("b", OTHER), row("d")])
    assert ids(packed[SLOT:] for packed in found) == ["a", "b", "c"]


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
    index.load([row("a")])
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


# What a list changes.


def test_a_difference_tells_what_a_list_changes_before_anything_is_changed() -> None:
    index = index_of(row("same"), row("changed"), row("used"), row("gone"))
    rows = [row("same"), row("changed", FIRST, "shop.test"), used(row("used")), row("new", OTHER)]
    same, before = known_as(index, "same"), known_as(index, "changed")
    difference = compare(index, rows)
    assert ids(each[SLOT:] for each in difference.changed.values()) == ["changed"]
    assert ids(each[SLOT:] for each in difference.used.values()) == ["used"]
    assert ids(difference.new) == ["new"]
    assert [(last8, *ids([packed[SLOT:]])) for last8, packed in difference.removed] == [(LAST8, "gone")]
    assert (difference.duplicate_ids, difference.kept, difference.rejected) == (set(), [], [])
    assert (difference.count, difference.is_empty, difference.slots_hold) == (4, False, True)
    assert known_as(index, "changed") is before
    assert known_as(index, "new") is None
    assert len(index) == 4
    take(index.apply(difference))
    assert sorted(index, key=lambda each: each.id) == sorted(rows, key=lambda each: each.id)
    assert known_as(index, "same") is same
    assert len(index) == 4
    assert difference.is_empty
    assert difference.used == {}


def test_nothing_stands_alone_between_two_steps_that_is_refused_before_and_after() -> None:
    """A key that looks like another is refused; it may not work for a moment because the other one goes first."""
    index = index_of(row("a"), row("b"))
    difference = compare(index, [row("a", disabled_at="2026"), *(row(str(n), OTHER) for n in range(STEP))])
    for _ in index.apply(difference):
        found = index.resolve(FIRST)
        assert found is Reason.KEY_AMBIGUOUS or (isinstance(found, IndexedKey) and found.widget_key.disabled)
    index = index_of(row("a"), row("b"))
    for _ in index.apply(compare(index, [row("a"), row("c")])):
        assert resolved(index, FIRST) == "key_ambiguous"


def test_no_step_is_about_more_than_some_keys() -> None:
    index = KeyIndex()
    lists = [
        [row(str(n), key, entry) for n in range(start, start + 3 * STEP)]
        for start, key, entry in (
            (0, FIRST, "a.test"),
            (0, FIRST, "b.test"),
            (10_000, OTHER, "a.test"),
            (0, OTHER, "a.test"),
        )
    ]
    for rows in lists:
        difference = compare(index, rows)
        touched = len(difference.new) + len(difference.changed) + len(difference.removed)
        steps = list(index.apply(difference))
        assert len(steps) * STEP == touched


def test_slots_are_given_to_other_keys_once_theirs_are_gone() -> None:
    index = index_of(*(row(str(number)) for number in range(10)))
    assert index.slots == 10
    apply(index, [row("0")])
    apply(index, [row(str(number), OTHER) for number in range(10)])
    assert index.slots == 10 + 1
    assert len({packed[:SLOT] for step in index.walk() for _, packed in step}) == len(index) == 10


def test_an_empty_list_removes_every_key() -> None:
    index = index_of(row("a"), row("b", OTHER))
    difference = apply(index, [])
    assert len(index) == 0
    assert (difference.new, difference.changed) == ([], {})
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
        {"created_at": "2026-11-01T00:00:00Z"},
        {"updated_at": "2026-11-01T00:00:00Z"},
        {"name": "Shop", "last_used_at": "2026-11-01T00:00:00Z"},
    ],
    ids=repr,
)
def test_a_row_with_another_value_in_any_field_is_changed_and_one_without_is_not(change: dict[str, object]) -> None:
    before = row("a")
    after = msgspec.structs.replace(before, **change)
    index = index_of(before)
    assert compare(index, [row("a")]).is_empty
    difference = compare(index, [after])
    assert not difference.is_empty
    assert difference.used == {}
    take(index.apply(difference))
    assert list(index) == [after]


def test_a_row_whose_only_news_is_when_it_was_used_changes_no_decision_and_is_kept() -> None:
    index = index_of(row("a"), row("b", OTHER))
    for rows in ([used(row("a")), row("b", OTHER)], [row("a"), row("b", OTHER)]):
        difference = compare(index, rows)
        assert difference.is_empty
        assert ids(each[SLOT:] for each in difference.used.values()) == ["a"]
        take(index.apply(difference))
        assert sorted(index, key=lambda each: each.id) == rows


@pytest.mark.parametrize("client_key", [FIRST, OTHER], ids=["the same suffix", "another suffix"])
def test_of_a_row_that_comes_used_and_then_disabled_only_the_latter_is_applied(client_key: ClientKey) -> None:
    index = index_of(row("a"))
    difference = compare(index, [used(row("a")), row("a", client_key, disabled_at="2026")])
    assert difference.used == {}
    take(index.apply(difference))
    assert list(index) == [row("a", client_key, disabled_at="2026")]


def test_what_newly_revokes_a_key_is_told_and_nothing_else() -> None:
    index = index_of(*(row(row_id, disabled_at="2024" if row_id in "dg" else None) for row_id in "abcdefg"))
    rows: list[Listed] = [
        row("a", disabled_at="2025"),
        row("b", FIRST, "shop.test"),
        unreadable("c", "2026"),
        row("d", disabled_at="2027"),
        row("e"),
        unreadable("f"),
        row("g"),
        row("new", disabled_at="2028"),
    ]
    assert compare(index, rows).revoked_at == ["2025", "2026"]


@pytest.mark.parametrize(
    "disabled_at",
    [10**30, {1, 2}, object(), [[]] * 3, {"at": None}, -0.0, b"2026", datetime(2026, 11, 1, tzinfo=UTC), nested()],
    ids=lambda value: type(value).__name__,
)
def test_whatever_says_that_a_key_is_disabled_it_is_and_another_list_with_it_changes_nothing(disabled_at: object) -> None:
    revoked = row("a", disabled_at=disabled_at)
    index = index_of(revoked)
    known = index.resolve(FIRST)
    assert isinstance(known, IndexedKey)
    assert known.widget_key.disabled
    assert compare(index, [revoked]).is_empty
    index = index_of(row("a"))
    apply(index, [unreadable("a", disabled_at)])
    assert [each.disabled for each in index] == [True]


def test_a_row_without_an_allowlist_is_the_same_however_it_was_read() -> None:
    raw = b'{"id":"a","last8":"abcdefgh","domain_allowlist":null}'
    index = KeyIndex()
    index.load(RowReader().tidy(b"[" + raw + b"]") or ())
    assert [each.domain_allowlist for each in index] == [()]
    assert Difference(index).see([RowReader().read(0, raw)]) is not None


def test_a_row_that_takes_too_much_room_is_one_that_cannot_be_read() -> None:
    around = packed_size(row("a", FIRST, name="x" * 50_000)) - 50_000
    largest = row("a", FIRST, name="x" * (MAX_PACKED - around))
    assert packed_size(largest) == MAX_PACKED
    index = index_of(row("a"), row("b", OTHER))
    assert not compare(index, [largest, row("b", OTHER)]).rejected
    too_large = msgspec.structs.replace(largest, name="x" * MAX_PACKED)
    difference = apply(index, [too_large, row("b", OTHER)])
    (rejected,) = difference.rejected
    assert (rejected.index, rejected.row_id) == (0, "a")
    assert rejected.problem == f"Expected at most 65536 bytes in a row, got {packed_size(too_large)}"
    assert difference.kept == ["a"]
    assert list(index) == [row("a"), row("b", OTHER)]
    apply(index, [row("b", OTHER), msgspec.structs.replace(too_large, disabled_at="2026")])
    assert sorted((each.id, each.disabled) for each in index) == [("a", True), ("b", False)]


def test_a_long_id_keeps_its_own_key_and_no_other() -> None:
    long_id = "a" * 300
    rows = [row(long_id), row("a" * 200, OTHER)]
    index = index_of(*rows)
    apply(index, [msgspec.structs.replace(rows[0], name="x" * MAX_PACKED, disabled_at="2026"), rows[1]])
    assert {len(each.id): each.disabled for each in index} == {300: True, 200: False}


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


def test_a_key_that_changes_its_suffix_counts_as_another_one() -> None:
    index = index_of(row("a", FIRST))
    difference = compare(index, [row("a", OTHER)])
    assert (ids(difference.new), len(difference.removed), difference.duplicate_ids) == (["a"], 1, set())


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
    index = index_of(row("b", OTHER), *([] if known is None else [known]))
    difference = compare(index, [*rows, row("b", OTHER)])
    assert difference.is_empty is (known == stands)
    take(index.apply(difference))
    found = known_as(index, "a")
    assert found is not None
    assert found.widget_key == stands
    assert found.allowlist.patterns == stands.domain_allowlist
    assert difference.duplicate_ids == {"a"}
    assert len(index) == 2


def test_of_rows_with_one_id_it_is_the_same_where_their_last_characters_differ() -> None:
    """Whichever of them is known, in whatever order they come."""
    there = [OPEN, REVOKED]
    elsewhere = [msgspec.structs.replace(each, last8=OTHER.last8, name="elsewhere") for each in (OPEN_TOO, REVOKED_TOO)]
    for rows in permutations([*there, *elsewhere]):
        for length in (2, 3, 4):
            listed = rows[:length]
            stands = next((each for each in listed if each.disabled), listed[0])
            for known in ([], *([each] for each in (*there, *elsewhere))):
                index = index_of(*known, row("b"))
                difference = apply(index, [*listed, row("b")])
                assert by_id(index) == {"a": stands, "b": row("b")}
                assert difference.duplicate_ids == {"a"}


# Rows that cannot be read.


def test_a_key_whose_row_cannot_be_read_stays_as_it_was() -> None:
    index = index_of(row("a"), row("b", OTHER))
    before = known_as(index, "a")
    difference = compare(index, [unreadable("a")])
    assert difference.kept == ["a"]
    assert ids(packed[SLOT:] for _, packed in difference.removed) == ["b"]
    take(index.apply(difference))
    assert known_as(index, "a") is before
    assert len(index) == 1


def test_a_row_that_cannot_be_read_makes_no_key() -> None:
    index = KeyIndex()
    difference = apply(index, [unreadable("a"), unreadable(None), unreadable("b", "2026"), row("c")])
    assert list(index) == [row("c")]
    assert (difference.count, difference.kept, len(difference.rejected)) == (4, [], 3)


@pytest.mark.parametrize("disabled_at", ["2026-11-01T00:00:00Z", False, 0, "", [], 10**30])
def test_what_says_that_a_key_is_disabled_counts_whatever_else_is_wrong_with_its_row(disabled_at: object) -> None:
    index = index_of(row("a", name="Shop"), row("b", OTHER))
    apply(index, [unreadable("a", disabled_at), row("b", OTHER)])
    assert sorted((each.id, each.name, each.disabled) for each in index) == [("a", "Shop", True), ("b", None, False)]


def test_a_revoked_key_stays_revoked_as_it_was() -> None:
    index = index_of(REVOKED)
    assert compare(index, [unreadable("a", "2027")]).is_empty
    assert compare(index, [unreadable("a")]).is_empty


@pytest.mark.parametrize("known", [None, OPEN, REVOKED, msgspec.structs.replace(OPEN, last8=OTHER.last8)], ids=str)
@pytest.mark.parametrize("listed", [OPEN_TOO, REVOKED_TOO, used(OPEN)], ids=str)
def test_a_row_that_can_be_read_stands_over_one_of_its_id_that_cannot_but_for_a_revocation(
    known: WidgetKey | None, listed: WidgetKey
) -> None:
    for disabled_at, stands in (
        (None, listed),
        ("2030", listed if listed.disabled else msgspec.structs.replace(listed, disabled_at="2030")),
    ):
        listings: list[Listed] = [listed, unreadable("a", disabled_at), unreadable("a")]
        for rows in permutations(listings):
            index = index_of(*([] if known is None else [known]))
            difference = apply(index, rows)
            assert list(index) == [stands]
            assert difference.duplicate_ids == set()
            assert difference.kept == []


def test_a_lapsed_key_is_removed_where_its_row_cannot_be_read_and_neither_says_that_it_is_disabled() -> None:
    index = index_of(row("a"), row("b"), row("c"), row("d"), row("e", disabled_at=""))
    rows: list[Listed] = [unreadable("a"), unreadable("b"), unreadable("c", ""), row("d"), unreadable("d"), unreadable("e")]
    difference = compare(index, rows, lapsed={"a", "c", "d", "e", "unlike"})
    take(index.apply(difference))
    assert sorted((each.id, each.disabled) for each in index) == [("b", False), ("c", True), ("d", False), ("e", True)]
    assert sorted(difference.kept) == ["b", "c", "e"]


# Rows that are known to be as they were.


def seen_slots(index: KeyIndex, rows: Iterable[Listed]) -> "array[int]":
    """The slots of rows that are all known."""
    slots = Difference(index).see(rows)
    assert slots is not None
    return slots


def test_rows_that_are_known_as_they_are_need_not_be_seen_again() -> None:
    rows = [row("a"), row("b"), row("c", OTHER)]
    index = index_of(*rows)
    difference = Difference(index)
    assert difference.see_slots(seen_slots(index, rows[:2]))
    assert difference.see([rows[2]]) is not None
    take(difference.finish())
    assert (difference.is_empty, difference.count, difference.slots_hold) == (True, 3, True)
    difference = Difference(index)
    difference.see_slots(seen_slots(index, rows[1:]))
    take(difference.finish())
    assert ids(packed[SLOT:] for _, packed in difference.removed) == ["a"]


@pytest.mark.parametrize(
    "other", [row("new"), row("a", name="changed"), used(row("a")), unreadable("a"), unreadable(None), row("b")], ids=str
)
def test_rows_that_are_not_all_known_as_they_are_have_no_slots(other: Listed) -> None:
    index = index_of(row("a"), row("b"))
    assert Difference(index).see([row("b"), other]) is None


def test_rows_of_which_one_has_come_already_are_seen_one_by_one() -> None:
    index = index_of(row("a"), row("b"))
    slots = seen_slots(index, [row("a"), row("b")])
    difference = Difference(index)
    assert difference.see([row("b", disabled_at="2026")]) is None
    assert not difference.see_slots(slots)
    assert difference.count == 1
    assert difference.see([row("a"), row("b")]) is None
    take(difference.finish())
    take(index.apply(difference))
    assert difference.duplicate_ids == {"b"}
    assert sorted((each.id, each.disabled) for each in index) == [("a", False), ("b", True)]


@pytest.mark.parametrize(
    "later",
    [row("a", disabled_at="2026"), row("a", OTHER, disabled_at="2026"), unreadable("a", "2026")],
    ids=["a duplicate", "one with other last characters", "one that cannot be read"],
)
def test_slots_do_not_hold_once_a_later_row_has_touched_a_key_that_was_as_it_is_known(later: Listed) -> None:
    index = index_of(row("a"), row("b"))
    difference = Difference(index)
    assert difference.see([row("a"), row("b")]) is not None
    difference.see([later])
    take(difference.finish())
    assert not difference.slots_hold


@pytest.mark.parametrize("later", [row("a"), row("a", OTHER), row("c"), unreadable("a"), unreadable("c", "2026")], ids=str)
def test_slots_hold_as_long_as_no_later_row_touches_a_key_that_was_as_it_is_known(later: Listed) -> None:
    index = index_of(row("a"), row("b"))
    difference = Difference(index)
    assert difference.see([row("a"), row("b")]) is not None
    difference.see([later])
    take(difference.finish())
    assert difference.slots_hold


@pytest.mark.parametrize(
    "news",
    [
        [unreadable("b", "2026")],
        [unreadable("b")],
        [row("b", OTHER)],
        [row("b", OTHER), unreadable("b")],
        [row("new")],
        [],
    ],
    ids=["revoked", "kept", "moved", "moved and unreadable", "new", "gone"],
)
def test_slots_hold_whatever_becomes_of_keys_that_have_none_of_them(news: list[Listed]) -> None:
    index = index_of(row("a"), row("b", SECOND))
    difference = Difference(index)
    slots = difference.see([row("a")])
    assert slots is not None
    difference.see(news)
    take(difference.finish())
    assert difference.slots_hold
    take(index.apply(difference))
    assert seen_slots(index, [row("a")]) == slots


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
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["key_unknown"] * 2
    assert not origins.allows(Origin.parse("https://acme.com"))
    index.load([row("b", SECOND)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "key_unknown"]
    assert origins.allows(Origin.parse("https://acme.com"))
    assert index.slots == 3


def test_to_walk_over_keys_that_come_and_go_meanwhile_fails() -> None:
    index = index_of(*(row(str(number), ClientKey.parse(f"pk_live_acme_{number:08}")) for number in range(STEP + 1)))
    steps = index.walk()
    next(steps)
    apply(index, [])
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


# Whatever lists come.

MANY = settings(max_examples=300, deadline=None)
ROWS = st.builds(
    lambda row_id, key, entries, digest, disabled_at, name, last_used_at: msgspec.structs.replace(
        row(row_id, key, *entries, digest=digest, disabled_at=disabled_at, name=name), last_used_at=last_used_at
    ),
    st.sampled_from("abcde"),
    st.sampled_from(CLIENT_KEYS),
    st.lists(st.sampled_from(ENTRIES), max_size=2),
    st.booleans(),
    st.sampled_from([None, None, None, "2026", False, "", 10**30]),
    st.sampled_from([None, None, "Shop", "x" * MAX_PACKED]),
    st.sampled_from([None, "2026", "2027"]),
)
UNREADABLE = st.builds(unreadable, st.sampled_from([*"abcde", None]), st.sampled_from([None, None, "2028", 0]))
LISTS = st.lists(st.lists(ROWS | ROWS | ROWS | UNREADABLE, max_size=8), min_size=1, max_size=6)


def expected(before: dict[str, WidgetKey], listed: Iterable[Listed], lapsed: Collection[str] = ()) -> dict[str, WidgetKey]:
    """Tell what a list makes of some keys, id by id, from the rules as they are written down."""
    rows = list(listed)
    after = {}
    for row_id in {*before, *(each.id for each in rows if isinstance(each, WidgetKey))}:
        readable = [each for each in rows if isinstance(each, WidgetKey) and each.id == row_id and not is_too_large(each)]
        others = [each for each in rows if row_id == (each.row_id if isinstance(each, InvalidRow) else each.id)]
        revocations = [each.disabled_at for each in others if each not in readable and each.disabled_at is not None]
        stands: WidgetKey | None
        if readable:
            stands = next((each for each in readable if each.disabled), readable[0])
        elif others and row_id in before and (row_id not in lapsed or revocations or before[row_id].disabled):
            stands = before[row_id]
        else:
            stands = None
        if stands is not None:
            revoked = revocations and not stands.disabled
            after[row_id] = msgspec.structs.replace(stands, disabled_at=revocations[0]) if revoked else stands
    return after


def is_too_large(each: WidgetKey) -> bool:
    return each.name is not None and len(each.name) >= MAX_PACKED


def by_id(index: KeyIndex) -> dict[str, WidgetKey]:
    keys = list(index)
    assert len({each.id for each in keys}) == len(keys) == len(index)
    return {each.id: each for each in keys}


def stored(keys: dict[str, WidgetKey]) -> dict[str, WidgetKey]:
    """The keys as an index gives them back, which does not keep a number as large as 10**30."""
    return {
        row_id: msgspec.structs.replace(each, disabled_at=True) if each.disabled_at == 10**30 else each
        for row_id, each in keys.items()
    }


def decisions(index: KeyIndex) -> dict[str, object]:
    """Ask an index everything that can be asked."""

    def known(found: IndexedKey | Reason | None) -> object:
        return (
            (found.widget_key, [found.allowlist.match(page) for page in ORIGINS]) if isinstance(found, IndexedKey) else found
        )

    return {
        "rows": sorted((each.id, repr(each)) for each in index),
        "by row": {row_id: known(known_as(index, row_id)) for row_id in "abcdef"},
        "resolved": {key.value: known(index.resolve(key)) for key in CLIENT_KEYS},
        "ambiguous": set(index.ambiguous()),
        "enabled origins": [index.enabled_origins().allows(page) for page in ORIGINS],
        "size": len(index),
        "slots": len({packed[:SLOT] for step in index.walk() for _, packed in step}),
    }


@MANY
@given(
    lists=LISTS,
    account=st.sampled_from([None, "acme"]),
    https_only=st.booleans(),
    counted_from=st.integers(0, 6),
    lapsed=st.sets(st.sampled_from("abcde")),
)
def test_an_index_decides_as_one_built_anew_from_what_the_lists_come_to(
    *, lists: list[list[Listed]], account: str | None, https_only: bool, counted_from: int, lapsed: set[str]
) -> None:
    index = KeyIndex(account=account, https_only=https_only)
    keys: dict[str, WidgetKey] = {}
    for number, rows in enumerate(lists):
        if number == counted_from:
            index.enabled_origins()
        keys = stored(expected(keys, rows, lapsed))
        take(index.apply(compare(index, rows, lapsed=lapsed)))
        assert by_id(index) == keys
        if number + 1 == len(lists) or number >= counted_from:
            assert decisions(index) == decisions(index_of(*keys.values(), account=account, https_only=https_only))


@MANY
@given(LISTS)
def test_a_difference_is_what_tells_two_lists_apart(lists: list[list[Listed]]) -> None:
    index = KeyIndex()
    for rows in lists:
        before = by_id(index)
        difference = compare(index, rows)
        new, removed = ids(difference.new), ids(packed[SLOT:] for _, packed in difference.removed)
        changed, used_ids = (
            ids(packed[SLOT:] for packed in each.values()) for each in (difference.changed, difference.used)
        )
        is_empty = difference.is_empty
        take(index.apply(difference))
        after = by_id(index)
        staying = {row_id for row_id in before.keys() & after.keys() if before[row_id].last8 == after[row_id].last8}
        assert sorted(removed) == sorted(before.keys() - staying)
        assert sorted(new) == sorted(after.keys() - staying)
        # By what they look like, for a key that is disabled by 0 equals one that is disabled by False.
        news = {row_id for row_id in staying if repr(before[row_id]) != repr(after[row_id])}
        uses = {row_id for row_id in news if but_for_use(before[row_id]) == but_for_use(after[row_id])}
        assert (sorted(changed), sorted(used_ids)) == (sorted(news - uses), sorted(uses))
        assert is_empty == ({*map(but_for_use, before.values())} == {*map(but_for_use, after.values())})
        readable = [each.id for each in rows if isinstance(each, WidgetKey) and not is_too_large(each)]
        assert difference.duplicate_ids == {row_id for row_id in readable if readable.count(row_id) > 1}
        assert sorted(difference.kept) == sorted(after.keys() - set(readable))
        assert difference.count == len(rows)
        again = compare(index, rows)
        assert again.is_empty
        assert again.used == {}


def but_for_use(each: WidgetKey) -> str:
    return repr(msgspec.structs.replace(each, last_used_at=None))


@MANY
@given(
    lists=st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=2, max_size=6),
    slices=st.lists(st.lists(ROWS | UNREADABLE, max_size=4), min_size=6, max_size=6),
)
def test_slices_that_are_skipped_make_no_difference(*, lists: list[list[int]], slices: list[list[Listed]]) -> None:
    """As the refresher does it: a slice whose rows were all known as they are is not seen again as long as slots hold."""
    index = KeyIndex()
    keys: dict[str, WidgetKey] = {}
    known: dict[int, array[int]] = {}
    for numbers in lists:
        difference = Difference(index)
        now_known: dict[int, array[int]] = {}
        for number in numbers:
            slots = known.get(number)
            if slots is None or not difference.see_slots(slots):
                slots = difference.see(slices[number])
            if slots is not None:
                now_known[number] = slots
        take(difference.finish())
        keys = stored(expected(keys, [each for number in numbers for each in slices[number]]))
        known = now_known if difference.slots_hold else {}
        take(index.apply(difference))
        assert by_id(index) == keys


def test_an_indexed_key_cannot_be_changed() -> None:
    known = known_as(index_of(row("a")), "a")
    assert known is not None
    with pytest.raises(AttributeError):
        known.widget_key = row("b")  # type: ignore[misc]
