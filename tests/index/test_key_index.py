"""KeyIndex: resolving client keys, walking over keys, restoring them."""

import tracemalloc
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy
from itertools import permutations, product
from threading import Event

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import Origin, WidgetKey
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import MAX_COMPILED, MAX_IN_ONE, ROOM, KeyIndex
from gatekeeper.index.list_diff import load
from gatekeeper.index.packed import STEP, unpack
from gatekeeper.keys.client_key import ClientKey
from tests.support.indexes import (
    FIRST,
    LAST8,
    OTHER,
    SECOND,
    STRANGER,
    THIRD,
    apply,
    compare,
    decisions,
    index_of,
    known_as,
    resolved,
    row,
    used,
)
from tests.support.interleaving import at_each_step, interrupted_at_each_step
from tests.support.loops import threads_switching_often

# Resolving client keys.


def test_an_empty_index_has_no_keys() -> None:
    index = KeyIndex()
    assert len(index) == 0
    assert list(index) == []
    assert index.get(FIRST.last8, "a") is None
    assert index.ambiguous() == ()
    assert index.resolve(FIRST) == "unknown"


@pytest.mark.parametrize(("size", "most"), [(0, 2000), (50, 10_000)])
def test_indexes_of_small_accounts_take_little_memory(size: int, most: int) -> None:
    keys = list(index_of(*numbered(size)).walk())
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        indexes = [KeyIndex() for _ in range(20)]
        for index in indexes:
            for step in keys:
                index.restore(step)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / len(indexes) < most  # bytes


def test_a_key_is_resolved_by_its_last_8_characters() -> None:
    index = index_of(row("a", FIRST), row("b", OTHER))
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["a", "b"]
    assert resolved(index, ClientKey.parse("pk_live_acme_x-unlikely")) == "unknown"
    assert index.get(FIRST.last8, "a") is index.resolve(FIRST)
    assert index.get(FIRST.last8, "b") is None
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
def test_a_client_key_of_another_account_is_unknown(account: str | None, client_key: ClientKey, expected: str) -> None:
    assert resolved(index_of(row("a", FIRST), account=account), client_key) == expected


def test_a_row_with_a_digest_matches_the_whole_client_key() -> None:
    index = index_of(row("a", FIRST, digest=True))
    assert resolved(index, FIRST) == "a"
    assert resolved(index, SECOND) == "unknown"
    assert resolved(index, STRANGER) == "unknown"


COLLISIONS = [
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


@pytest.mark.parametrize(("rows", "expected"), COLLISIONS)
def test_colliding_suffixes_are_told_apart_by_digest_in_any_order(rows: list[WidgetKey], expected: list[str]) -> None:
    for order in permutations(rows):
        index = index_of(*order, row("z", OTHER))
        assert [resolved(index, key) for key in (FIRST, SECOND, THIRD)] == expected
        assert index.ambiguous() == ((LAST8,) if "ambiguous" in expected else ())
        assert resolved(index, OTHER) == "z"


@pytest.mark.parametrize(("rows", "expected"), COLLISIONS)
def test_a_disabled_row_is_resolved_like_any_other(rows: list[WidgetKey], expected: list[str]) -> None:
    """Otherwise a revoked key could resolve to a colliding row."""
    for number in range(len(rows)):
        changed = list(rows)
        changed[number] = msgspec.structs.replace(rows[number], disabled_at=False)
        index = index_of(*changed)
        assert [resolved(index, key) for key in (FIRST, SECOND, THIRD)] == expected
        known = index.get(rows[number].last8, rows[number].id)
        assert known is not None
        assert known.widget_key.disabled


def test_more_than_16_rows_with_one_suffix_are_ambiguous() -> None:
    """Otherwise every request could have to compare all rows of a list."""
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


def test_a_list_of_known_keys_is_compared_without_a_walk() -> None:
    rows = [row("a"), row("b", SECOND), row("c", OTHER)]
    index = index_of(*rows)
    walks = index.walks
    assert compare(index, rows).is_empty
    assert compare(index, [used(row("a")), *rows[1:]]).is_empty
    assert index.walks == walks
    assert not compare(index, rows[1:]).is_empty
    assert index.walks == walks + 1


def test_loading_20000_colliding_suffixes_takes_linear_time() -> None:
    index = KeyIndex()
    rows = [row(str(number)) for number in range(20_000)]
    apply(index, rows)
    changes = compare(index, reversed(rows))
    assert changes.is_empty
    assert changes.duplicate_ids == set()
    assert changes.removed_count == 0
    apply(index, rows[:1])
    assert resolved(index, FIRST) == "0"


def test_a_row_is_compiled_with_its_allowlist() -> None:
    known = known_as(index_of(row("a", FIRST, "acme.com", "*")), "a")
    assert known is not None
    assert known.widget_key == row("a", FIRST, "acme.com", "*")
    assert known.allowlist.patterns == ("acme.com",)
    assert known.allowlist.allows("http://acme.com")


def test_an_https_only_index_compiles_https_only_allowlists() -> None:
    known = known_as(index_of(row("a", FIRST, "acme.com", "http://acme.com"), https_only=True), "a")
    assert known is not None
    assert not known.allowlist.allows("http://acme.com")
    assert [rejected.reason for rejected in known.allowlist.rejected] == ["http_refused"]


def test_an_index_accepts_http_by_default() -> None:
    index = KeyIndex()
    load(index, [row("a")])
    known = index.resolve(FIRST)
    assert isinstance(known, IndexedKey)
    assert known.allowlist.allows("http://acme.com")
    assert index.enabled_origins().allows(Origin.parse("http://acme.com"))


def test_the_oldest_64_compiled_keys_are_evicted_after_4096() -> None:
    client_keys = [ClientKey.parse(f"pk_live_acme_{number:08}") for number in range(MAX_COMPILED + 1)]
    index = index_of(*(row(str(number), key) for number, key in enumerate(client_keys)))
    first = index.resolve(client_keys[0])
    for key in client_keys[1:-1]:
        index.resolve(key)
    assert index.resolve(client_keys[0]) is first
    evicted, kept = (index.resolve(client_keys[place]) for place in (ROOM - 1, ROOM))
    index.resolve(client_keys[-1])
    again = index.resolve(client_keys[0])
    assert again is not first
    assert again is index.resolve(client_keys[0])
    assert index.resolve(client_keys[ROOM - 1]) is not evicted
    assert index.resolve(client_keys[ROOM]) is kept


def test_resolving_never_waits_for_the_lock_of_the_compiled_keys() -> None:
    index = index_of(row("a"))
    with index._compiled_lock:  # another thread is caching a key
        assert resolved(index, FIRST) == "a"
    index._compiled_lock.acquire()  # held by a thread that the fork did not copy
    index.after_fork()
    assert index.resolve(FIRST) is index.resolve(FIRST)


# Walking over keys, and restoring them.


def test_walked_keys_can_be_restored_in_another_index() -> None:
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


def test_a_cleared_index_has_no_keys_and_can_be_filled_again() -> None:
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


@pytest.mark.parametrize(
    "rows", [[], [row(str(number)) for number in range(1, STEP + 2)]], ids=["removed", "one removed and one added"]
)
def test_a_walk_fails_if_keys_are_added_or_removed(rows: list[WidgetKey]) -> None:
    index = index_of(*(row(str(number)) for number in range(STEP + 1)))
    steps = index.walk()
    next(steps)
    apply(index, rows)
    with pytest.raises(RuntimeError):
        next(steps)


# The account of a client key.


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,30}", fullmatch=True),
    st.binary(min_size=24, max_size=24).map(lambda drawn: urlsafe_b64encode(drawn).decode()),
)
def test_a_key_with_any_base64url_random_part_is_found(account: str, random: str) -> None:
    """791 of 2,000 such keys hold "_" in their random part, and with the account known they were refused."""
    client_key = ClientKey.parse(f"pk_live_{account}_{random}")
    for known_account, digest in product((account, None), (True, False)):
        assert resolved(index_of(row("a", client_key, digest=digest), account=known_account), client_key) == "a"
    assert resolved(index_of(row("a", client_key), account=f"{account}0"), client_key) == "unknown"


def test_a_digest_decides_where_the_key_may_be_of_a_longer_account() -> None:
    """The account acme_shop has a key that begins like one of acme, and shares its last 8 characters."""
    ours, theirs = ClientKey.parse("pk_live_acme_shop_one_01234567"), ClientKey.parse("pk_live_acme_shop_two_01234567")
    index = index_of(row("a", ours, digest=True), account="acme")
    assert [resolved(index, key) for key in (ours, theirs)] == ["a", "unknown"]


# Threads. What another thread does is done between two bytecodes of the one that resolves a key, and the other way round.


def compiling(max_compiled: int, *rows: WidgetKey) -> KeyIndex:
    index = KeyIndex(max_compiled=max_compiled)
    load(index, rows)
    return index


def test_a_key_is_found_while_another_thread_evicts_it() -> None:
    """Threads decide about more than 4,096 keys. A cache that looks twice may not find the key at the second look."""

    def prepare() -> tuple[Callable[[], str], Callable[[], str]]:
        index = compiling(1, row("a", FIRST), row("z", OTHER))
        assert resolved(index, FIRST) == "a"
        return lambda: resolved(index, FIRST), lambda: resolved(index, OTHER)

    outcomes = list(interrupted_at_each_step(prepare))
    assert len(outcomes) > 10
    assert set(outcomes) == {"a"}
    index = compiling(1, row("a", FIRST), row("z", OTHER))
    assert resolved(index, FIRST) == "a"
    assert at_each_step(lambda: resolved(index, OTHER), lambda: outcomes.append(resolved(index, FIRST))) == "z"
    assert set(outcomes) == {"a"}


OURS = row("a", FIRST, digest=True)
THEIRS = row("b", SECOND, digest=True)
CHANGES = [
    pytest.param([[OURS, THEIRS], [OURS]], id="a colliding key is removed"),
    pytest.param([[THEIRS, OURS], [OURS], [OURS, THEIRS]], id="and added again"),
    pytest.param([[OURS], [OURS, THEIRS]], id="a colliding key is added"),
    pytest.param([[OURS], [THEIRS, OURS], [OURS]], id="and removed again"),
    pytest.param([[OURS, THEIRS, row("c", THIRD)], [row("c", THIRD), OURS]], id="one of two colliding keys is removed"),
    pytest.param([[OURS, THEIRS], [used(OURS), used(THEIRS)]], id="colliding keys are replaced"),
    pytest.param([[OURS], [used(OURS)]], id="the key is replaced"),
]


@pytest.mark.slow
@pytest.mark.parametrize("lists", CHANGES)
def test_a_key_is_found_while_another_thread_applies_a_list(lists: list[list[WidgetKey]]) -> None:
    """A key that stays was unknown in the moment when the only key that shared its last 8 characters was removed."""

    def prepare() -> tuple[Callable[[], str], Callable[[], None]]:
        index = index_of(*lists[0])
        return lambda: resolved(index, FIRST), lambda: apply_all(index)

    def apply_all(index: KeyIndex) -> None:
        for listed in lists[1:]:
            apply(index, listed)

    assert set(interrupted_at_each_step(prepare)) == {"a"}
    index, found = index_of(*lists[0]), set[str]()
    at_each_step(lambda: apply_all(index), lambda: found.add(resolved(index, FIRST)))
    assert found == {"a"}


@pytest.mark.slow
def test_a_key_is_found_while_another_thread_adds_the_first_of_many() -> None:
    rows = [row("a", FIRST), *numbered(MAX_IN_ONE)]
    index, found = index_of(*rows[:-1]), set[str]()
    (one_more,) = index_of(rows[-1]).walk()
    at_each_step(lambda: index.restore(one_more), lambda: found.add(resolved(index, FIRST)))
    assert found == {"a"}
    assert len(index) == MAX_IN_ONE + 1
    assert all(index.get(each.last8, each.id) for each in rows)


@pytest.mark.slow
def test_a_walk_begun_while_another_thread_adds_keys_hides_no_change() -> None:
    """A snapshot would keep a key as it was, though it was revoked before the walk came to it."""
    rows, walks = numbered(MAX_IN_ONE + 1), list[Iterator[list[tuple[str, bytes]]]]()
    index = index_of(*rows[:-1])
    (one_more,) = index_of(rows[-1]).walk()

    def begin() -> None:
        walks.append(walk := index.walk())
        next(walk)

    at_each_step(lambda: index.restore(one_more), begin)
    apply(index, [msgspec.structs.replace(each, disabled_at="2026") for each in rows])
    assert len(walks) > MAX_IN_ONE
    assert all(has_failed_or_shows_revocations(walk) for walk in walks)


def has_failed_or_shows_revocations(walk: Iterator[list[tuple[str, bytes]]]) -> bool:
    try:
        return all(unpack(packed).disabled for step in walk for _, packed in step)
    except RuntimeError:
        return True


def numbered(count: int) -> list[WidgetKey]:
    """Rows of keys that share nothing."""
    return [row(f"k{number}", ClientKey.parse(f"pk_live_acme_number-{number:08}")) for number in range(count)]


def test_the_version_of_a_row_is_looked_up_while_colliding_keys_go() -> None:
    """A refusal looks up the row of its key again, to explain it, while a list without the key is applied."""

    def prepare() -> tuple[Callable[[], str | None], Callable[[], object]]:
        index = index_of(row("a"), row("b"))

        def look_up() -> str | None:
            known = index.get(row("a").last8, "a")
            return None if known is None else known.widget_key.id

        return look_up, lambda: apply(index, [])

    assert set(interrupted_at_each_step(prepare)) == {"a", None}


def test_ambiguous_keys_are_listed_while_another_thread_applies_a_list() -> None:
    """The refresher of one event loop logs them while that of another one applies the next list."""

    def prepare() -> tuple[Callable[[], tuple[str, ...]], Callable[[], object]]:
        index = index_of(row("a"), row("b"), row("c", OTHER), row("d", OTHER))
        return index.ambiguous, lambda: apply(index, [row("a")])

    assert all(set(found) <= {LAST8, OTHER.last8} for found in interrupted_at_each_step(prepare))


def test_a_fork_in_the_middle_of_an_eviction_leaves_an_index_that_resolves() -> None:
    """The thread that evicts is not in the child. A cache of a library raised KeyError at each later eviction there."""
    third = ClientKey.parse("pk_live_acme_third-zyxwvuts")
    keys = {"a": FIRST, "z": OTHER, "c": third}
    index = compiling(1, *(row(row_id, key) for row_id, key in keys.items()))
    assert resolved(index, FIRST) == "a"

    def fork() -> None:
        child = copy(index)
        child._compiled = deepcopy(index._compiled)
        child.after_fork()
        for row_id, key in [*keys.items(), *keys.items()]:
            assert resolved(child, key) == row_id

    assert at_each_step(lambda: resolved(index, OTHER), fork) == "z"


def test_threads_resolve_keys_near_eviction_while_lists_are_applied() -> None:
    """Each thread resolves its own key, which the other threads evict over and over."""
    others = {f"other-{number}": ClientKey.parse(f"pk_live_acme_other_{number:08}") for number in range(6)}
    kept = [row(row_id, key) for row_id, key in others.items()]
    index = compiling(2, OURS, THEIRS, *kept)
    keys = [FIRST, *others.values()]
    done = Event()

    def resolve_all(number: int) -> set[str]:
        return {f"{key.last8} {resolved(index, key)}" for _ in range(1000) for key in [keys[number]] * 3}

    def apply_lists() -> set[str]:
        while not done.is_set():
            apply(index, [OURS, *kept])
            apply(index, [OURS, THEIRS, *kept])
        return set()

    with threads_switching_often(), ThreadPoolExecutor(8) as pool:
        applying = pool.submit(apply_lists)
        try:
            outcomes = [each.result() for each in [pool.submit(resolve_all, number) for number in range(7)]]
        finally:
            done.set()
        applying.result()
    assert set().union(*outcomes) == {f"{LAST8} a"} | {f"{key.last8} {row_id}" for row_id, key in others.items()}
