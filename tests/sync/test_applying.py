"""RemovalGuard and SharedList: pure calls."""

import threading
from array import array

import pytest

from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import ListDiff
from gatekeeper.index.packed import drain
from gatekeeper.sync.applying import OvertakenError, RemovalGuard, SharedList
from gatekeeper.sync.loading import KnownSlice, ListBasis

NONE_MISSING = (0, 10)


@pytest.mark.parametrize(
    ("missing", "total", "held"),
    [(0, 100, False), (50, 100, False), (51, 100, True), (100, 100, True), (9, 9, False), (5, 10, False), (6, 10, True)],
)
def test_more_than_half_of_ten_keys_or_more_are_held(missing: int, total: int, *, held: bool) -> None:
    assert RemovalGuard().holds(missing, total, 0.0) is held


@pytest.mark.parametrize(
    ("lists", "held"),
    [
        # (keys missing, keys in all, asked at)
        ([(9, 10, 0), (9, 10, 1), (9, 10, 2)], [True, True, False]),  # two more lists agree
        ([(9, 10, 0), (9, 10, 59), (9, 10, 60)], [True, True, False]),
        ([(9, 10, 0), (9, 10, 60)], [True, False]),  # or some time has passed
        ([(9, 10, 0), (*NONE_MISSING, 1), (9, 10, 2), (9, 10, 3), (9, 10, 4)], [True, False, True, True, False]),
        ([(9, 10, 0), (9, 10, 1), (9, 10, 2), (9, 10, 3)], [True, True, False, True]),  # then it starts again
    ],
)
def test_removals_are_held_for_two_lists_or_a_minute(lists: list[tuple[int, int, float]], held: list[bool]) -> None:
    guard = RemovalGuard()
    assert [guard.holds(*each) for each in lists] == held


def test_the_first_held_list_is_distinguished_from_the_next() -> None:
    guard = RemovalGuard()
    counts = []
    for asked_at in range(3):
        guard.holds(9, 10, asked_at)
        counts.append(guard.lists)
    assert counts == [1, 2, 0]


def test_one_list_is_applied_at_a_time() -> None:
    shared = SharedList()
    with shared.applying(0):
        assert shared.is_overtaken(0)
        with pytest.raises(OvertakenError), shared.applying(0):
            pytest.fail("a second list was applied meanwhile")
    assert not shared.is_overtaken(0)


def test_a_list_compared_with_an_older_index_is_not_applied() -> None:
    shared = SharedList()
    shared.generation += 1
    with pytest.raises(OvertakenError), shared.applying(0):
        pytest.fail("it was applied")


def test_a_crash_while_a_list_is_applied_releases_the_others() -> None:
    shared = SharedList()
    with pytest.raises(ZeroDivisionError), shared.applying(0):
        raise ZeroDivisionError
    with shared.applying(0):
        pass


def test_of_concurrent_threads_one_applies() -> None:
    shared, applied, together = SharedList(), [], threading.Barrier(8)

    def apply() -> None:
        together.wait()
        try:
            with shared.applying(0):
                applied.append(threading.get_ident())
                shared.generation += 1
        except OvertakenError:
            pass

    threads = [threading.Thread(target=apply) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(applied) == 1


def test_applying_a_list_forgets_the_last_validator() -> None:
    """Otherwise a child forked meanwhile would keep half of a list, and a 304 would confirm it."""
    shared = SharedList()
    shared.basis = ListBasis("v1", 7.0, b"digest", {b"slice": KnownSlice(slots=array("I"), size=1)})
    shared.begin(held=0)
    assert shared.basis == ListBasis(None, 7.0)


def test_a_list_that_is_applied_meanwhile_keeps_its_own_basis() -> None:
    """An event loop whose answer does not fit might otherwise put back slices of the list before, with changes missed."""
    shared = SharedList()
    changes = drain(ListDiff(KeyIndex()).finish())
    with shared.applying(0):
        shared.begin(held=0)
        shared.end(ListBasis("v2"), changes, 0.0)
        shared.forget_validator()
    assert shared.basis == ListBasis("v2")
    shared.forget_validator()
    assert shared.basis == ListBasis(None)


def test_a_held_list_is_fetched_whole_next_time() -> None:
    shared = SharedList()
    changes = drain(ListDiff(KeyIndex()).finish())
    shared.begin(held=6)
    shared.end(ListBasis("v2", 8.0, b"digest"), changes, 0.0)
    assert shared.basis == ListBasis(None, 8.0)
    shared.begin(held=0)
    shared.end(ListBasis("v2", 8.0, b"digest"), changes, 0.0)
    assert shared.basis == ListBasis("v2", 8.0, b"digest")


def test_a_validator_is_not_renamed_once_another_list_was_applied() -> None:
    shared = SharedList()
    shared.rename(ListBasis("v1"), generation=0)
    shared.generation += 1
    shared.rename(ListBasis("v2"), generation=0)
    assert shared.basis.validator == "v1"


def test_a_forked_child_may_apply_although_its_parent_was_applying() -> None:
    shared = SharedList()
    applying = shared.applying(0)
    applying.__enter__()
    shared.after_fork()
    with shared.applying(0):
        pass
