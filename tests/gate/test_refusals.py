"""Refused pages: the most frequent ones, fairly for each key, in bounded memory."""

import gc
import random
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatekeeper import Decision, Reason, RefusedPage, WidgetKey
from gatekeeper.gate.refusals import MOST_PAGES, Refusals
from gatekeeper.matching.origins import MAX_ORIGIN_LENGTH
from tests.support.loops import threads_switching_often

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC).timestamp()
MEGABYTE = 1_000_000


def refused(key: int, origin: str | None, reason: Reason = Reason.ORIGIN_NOT_ALLOWED, add: str | None = None) -> Decision:
    last8 = f"{key:08d}"
    return Decision(reason, WidgetKey(f"key-{key}", "shop", last8, ("acme.com",)), last8, origin, add=add)


def noted(pages: Iterable[tuple[int, str | None]], most: int = MOST_PAGES) -> Refusals:
    refusals = Refusals(most)
    for key, origin in pages:
        refusals.note(refused(key, origin), NOON)
    return refusals


def counts(pages: Iterable[RefusedPage]) -> dict[tuple[str, str | None], int]:
    return {(page.key_id, page.origin): page.count for page in pages}


def made_up(number: int, length: int = 0) -> str:
    """An origin that no customer has, of this length at least."""
    name = f"p{number}"
    while len(name) < length - len("https://.evil.test"):
        name += "." + "a" * min(63, length - len("https://.evil.test") - len(name) - 1)
    return f"https://{name}.evil.test"


def size_of(root: object) -> int:
    """Bytes of an object and of what it refers to, without classes and constants."""
    seen: dict[int, object] = {}
    pending = [root]
    while pending:
        one = pending.pop()
        if id(one) not in seen and not isinstance(one, type | Reason):
            seen[id(one)] = one
            pending += gc.get_referents(one)
    return sum(map(sys.getsizeof, seen.values()))


# What is kept


def test_a_page_has_a_count_two_times_and_the_entry_to_add() -> None:
    refusals = Refusals()
    assert refusals.note(refused(1, "https://new.acme.com", add="new.acme.com"), NOON)
    assert not refusals.note(refused(1, "https://new.acme.com", add="new.acme.com"), NOON + 1)
    assert not refusals.note(refused(1, "https://new.acme.com", add="https://new.acme.com"), NOON + 60)
    (page,) = refusals.pages()
    assert page == RefusedPage(
        "key-1",
        "https://new.acme.com",
        "origin_not_allowed",
        3,
        datetime(2026, 1, 2, 12, 0, tzinfo=UTC),
        datetime(2026, 1, 2, 12, 1, tzinfo=UTC),
        "https://new.acme.com",  # as the key's allowlist is now
    )
    assert type(page.reason) is str


def test_pages_are_apart_by_key_origin_and_reason_the_most_frequent_first() -> None:
    refusals = Refusals()
    for times, decision in (
        (1, refused(2, "https://a.test")),
        (3, refused(1, None, Reason.ORIGIN_MISSING)),
        (2, refused(1, "https://a.test")),
        (4, refused(1, "https://a.test", Reason.KEY_DISABLED)),
        (2, refused(1, "null", Reason.ORIGIN_NULL)),
    ):
        for _ in range(times):
            refusals.note(decision, NOON)
    assert [(page.key_id, page.origin, page.reason, page.count) for page in refusals.pages()] == [
        ("key-1", "https://a.test", "key_disabled", 4),
        ("key-1", None, "origin_missing", 3),
        ("key-1", "https://a.test", "origin_not_allowed", 2),
        ("key-1", "null", "origin_null", 2),
        ("key-2", "https://a.test", "origin_not_allowed", 1),
    ]
    assert len(refusals) == 5


@pytest.mark.parametrize("reason", [Reason.KEY_UNKNOWN, Reason.KEY_MISSING, Reason.NOT_READY, Reason.GRANT_INVALID])
def test_a_refusal_without_a_known_key_is_not_kept(reason: Reason) -> None:
    refusals = Refusals()
    assert not refusals.note(Decision(reason, origin="https://evil.test"), NOON)
    assert refusals.pages() == ()
    assert refusals.take_new() == []


def test_a_wall_clock_that_is_set_back_leaves_the_times_in_order() -> None:
    refusals = Refusals()
    for now in (NOON, NOON + 10, NOON - 3600):
        refusals.note(refused(1, "https://a.test"), now)
    (page,) = refusals.pages()
    assert page.first_at <= page.last_at == datetime.fromtimestamp(NOON + 10, UTC)
    refusals.take_new()
    refusals.note(refused(1, "https://a.test"), NOON - 3600)
    (new,) = refusals.take_new()
    assert new.first_at <= new.last_at


# What is new


def test_only_what_is_new_is_taken_and_the_totals_stay() -> None:
    refusals = noted([(1, "https://a.test"), (1, "https://a.test"), (1, "https://b.test")])
    assert counts(refusals.take_new()) == {("key-1", "https://a.test"): 2, ("key-1", "https://b.test"): 1}
    assert refusals.take_new() == []
    refusals.note(refused(1, "https://a.test"), NOON + 30)
    (new,) = refusals.take_new()
    moment = datetime.fromtimestamp(NOON + 30, UTC)
    assert (new.count, new.first_at, new.last_at) == (1, moment, moment)
    (first, second) = refusals.pages()
    assert (first.count, first.first_at, first.last_at) == (3, datetime.fromtimestamp(NOON, UTC), moment)
    assert second.count == 1


# Bounds


def test_a_new_page_replaces_the_rarest_one_of_its_key() -> None:
    often, seldom, new = "https://often.test", "https://seldom.test", "https://new.test"
    refusals = noted([(1, often)] * 4 + [(1, seldom)] * 2 + [(1, new)], most=2)
    assert counts(refusals.pages()) == {("key-1", often): 4, ("key-1", new): 1}


def test_the_estimate_of_a_new_page_goes_on_from_the_replaced_one() -> None:
    """The new page has 3 requests, which makes 5 with those of the replaced one. The frequent page has 4."""
    often, seldom, new, newer = (f"https://{name}.test" for name in ("often", "seldom", "new", "newer"))
    refusals = noted([(1, often)] * 4 + [(1, seldom)] * 2 + [(1, new)] * 3 + [(1, newer)], most=2)
    assert counts(refusals.pages()) == {("key-1", new): 3, ("key-1", newer): 1}


def test_a_flood_with_one_key_leaves_the_pages_of_other_keys() -> None:
    others = [(key, f"https://{number}.test") for key in range(2, 12) for number in range(5)]
    flood = [(1, made_up(number)) for number in range(3 * MOST_PAGES)]
    for order in (others + flood, flood + others, flood + others + flood):
        refusals = noted(order)
        kept = counts(refusals.pages())
        assert len(kept) == len(refusals) == MOST_PAGES
        assert all(kept[f"key-{key}", origin] == 1 for key, origin in others)


def test_each_flooded_key_has_its_share() -> None:
    refusals = noted(((number % 4, made_up(number)) for number in range(1000)), most=100)
    assert Counter(page.key_id for page in refusals.pages()) == {f"key-{key}": 25 for key in range(4)}


def test_with_more_keys_than_pages_the_most_frequent_keys_are_kept() -> None:
    often = [(key, "https://often.test") for key in range(5)]
    refusals = Refusals(20)
    for round_ in range(50):
        for key, origin in often:
            refusals.note(refused(key, origin), NOON)
        for number in range(10):
            refusals.note(refused(1000 + 10 * round_ + number, made_up(number)), NOON)
    kept = counts(refusals.pages())
    assert len(kept) == len(refusals) == 20
    assert [kept.get((f"key-{key}", origin)) for key, origin in often] == [50] * 5
    # Keys whose only page is replaced by another one of theirs stay countable.
    for key in (0, 1, 0, 1, 2000, 0, 1):
        refusals.note(refused(key, made_up(key + len(refusals))), NOON)
    assert len(refusals.pages()) == len(refusals) == 20


def test_a_key_that_comes_often_is_kept_though_it_was_dropped_before() -> None:
    """More keys than pages. The estimate of a key goes on from that of the dropped ones."""
    order = [1] * 3 + [2, 2, 3] * 4
    refusals = noted([(key, "https://a.test") for key in order], most=2)
    assert "key-2" in {page.key_id for page in refusals.pages()}


@settings(max_examples=100, deadline=None)
@given(
    pages=st.lists(st.integers(1, 12).map(lambda number: f"https://{number}.test"), max_size=200),
    most=st.integers(1, 6),
)
# The frequent page is evicted before it comes again and again. It stays, as its estimate goes on from that of another.
@example(pages=["https://x.test"] * 3 + ["https://a.test", "https://a.test", "https://b.test"] * 4, most=2)
def test_each_page_with_more_than_its_part_is_kept(pages: list[str], most: int) -> None:
    # The guarantees of Space-Saving for n requests and k pages, beside a count of everything.
    refusals = noted([(1, page) for page in pages], most)
    true, kept = Counter(pages), {page.origin: page.count for page in refusals.pages()}
    assert len(kept) == len(refusals) <= most
    assert set(kept) >= {page for page, count in true.items() if count > len(pages) / most}
    assert all(true[str(page)] - len(pages) / most <= count <= true[str(page)] for page, count in kept.items())


@settings(max_examples=100, deadline=None)
@given(
    pages=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), max_size=200),
    most=st.integers(1, 6),
    takes=st.sets(st.integers(0, 200)),
)
def test_no_order_of_keys_and_pages_breaks_the_bounds(pages: list[tuple[int, int]], most: int, takes: set[int]) -> None:
    refusals, true, taken = Refusals(most), Counter[tuple[str, str | None]](), Counter[tuple[str, str | None]]()
    for step, (key, number) in enumerate(pages):
        origin = f"https://{number}.test"
        true[f"key-{key}", origin] += 1
        refusals.note(refused(key, origin), NOON)
        # The page of the last request is here, and no count is higher than what it counts.
        kept = counts(refusals.pages())
        assert (f"key-{key}", origin) in kept
        assert len(kept) == len(refusals) <= most
        assert all(1 <= count <= true[page] for page, count in kept.items())
        if step in takes:
            taken.update(counts(refusals.take_new()))
    taken.update(counts(refusals.take_new()))
    assert all(count <= true[page] for page, count in taken.items())
    if len(true) <= most:
        assert taken == true


@pytest.mark.slow
def test_a_million_made_up_pages_take_under_a_megabyte() -> None:
    """A flood of the longest origins with 3 keys, in which 20 pages come again and again; another key has one page."""
    often = [refused(1, f"https://{number}.often.test") for number in range(20)]
    keys = [refused(number, None).key for number in range(3)]
    host = made_up(0, MAX_ORIGIN_LENGTH - 7).removeprefix("https://")
    order = random.Random(7)
    single = refused(9, "https://staging.acme.com")

    def flood(numbers: range) -> None:
        for number in numbers:
            add = f"{number:07d}{host}"
            made = Decision(Reason.ORIGIN_NOT_ALLOWED, keys[number % 3], None, f"https://{add}", add=add)
            refusals.note(made, NOON + number)
            if not number % 4:
                # Each of them comes more often than the next one.
                refusals.note(often[min(int(order.triangular(0, 20, 0)), 19)], NOON + number)

    tracemalloc.start()
    try:
        refusals = Refusals()
        refusals.note(single, NOON)
        flood(range(50_000))
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()
    flood(range(50_000, 1_000_000))  # tracemalloc makes this five times as slow, so the objects are counted instead
    assert size_of(refusals) < MEGABYTE
    pages = refusals.pages()
    assert len(pages) == MOST_PAGES
    assert ("key-9", "https://staging.acme.com") in counts(pages)
    assert [page.origin for page in pages[:16]] == [decision.origin for decision in often[:16]]


# Threads


def test_a_page_that_cannot_be_added_is_added_by_its_next_request() -> None:
    refusals = Refusals()
    with refusals._lock:
        assert not refusals.note(refused(1, "https://a.test"), NOON)
    assert refusals.note(refused(1, "https://a.test"), NOON)
    assert [page.count for page in refusals.pages()] == [1]


def test_threads_note_and_read_at_the_same_time() -> None:
    refusals = Refusals(50)
    problems: list[BaseException] = []
    done = threading.Event()

    def note(key: int) -> None:
        try:
            for number in range(3000):
                refusals.note(refused(key, made_up(number % 97)), NOON)
        except BaseException as error:  # noqa: BLE001 - any error is a problem
            problems.append(error)

    def read() -> None:
        try:
            while not done.is_set():
                assert len(refusals.pages()) <= 50
                refusals.take_new()
        except BaseException as error:  # noqa: BLE001 - any error is a problem
            problems.append(error)

    with threads_switching_often():
        noting = [threading.Thread(target=note, args=(key,)) for key in range(3)]
        reading = threading.Thread(target=read)
        for thread in (*noting, reading):
            thread.start()
        for thread in noting:
            thread.join()
        done.set()
        reading.join()
    assert problems == []
    assert len(refusals.pages()) == len(refusals) == 50
