"""The freshness of a list by its age: pure calls."""

import math

import pytest

from gatekeeper.sync.freshness import Freshness
from gatekeeper.testing import FakeClock


def freshness(fake: FakeClock, *, soft: float = 60.0, hard: float = 3600.0) -> Freshness:
    return Freshness(soft_stale=soft, hard_stale=hard, clock=fake)


@pytest.mark.parametrize(
    ("age", "hard", "state", "expires_in"),
    [
        (0, 3600, "fresh", 3600),
        (59.5, 3600, "fresh", 3540.5),
        (60, 3600, "degraded", 3540),
        (3599.5, 3600, "degraded", 0.5),
        (3600, 3600, "expired", 0),
        (1e9, 3600, "expired", 3600 - 1e9),
        (1e9, 0, "degraded", math.inf),
        (30, 30, "expired", 0),
    ],
)
def test_the_state_of_a_list_follows_its_age(age: float, hard: float, state: str, expires_in: float) -> None:
    fake = FakeClock()
    fresh = freshness(fake, hard=hard)
    assert (fresh.state, fresh.age, fresh.expires_at, fresh.has_list) == ("never_loaded", None, math.inf, False)
    fresh.record_success(fake.now)
    fake.now += age
    assert (fresh.state, fresh.age, fresh.expires_at - fake.now) == (state, age, expires_in)
    assert fresh.has_list
    assert fresh.has_live_list


def test_the_moment_of_degradation_is_known_until_then() -> None:
    fake = FakeClock()
    fresh = freshness(fake)
    assert fresh.degrades_at is None
    fresh.record_success(fake.now)
    degrades_at = fake.now + 60
    for seconds in (0, 30, 29.5):
        fake.now += seconds
        assert fresh.degrades_at == degrades_at
    fake.now += 0.5
    assert fresh.degrades_at is None


def test_a_list_from_the_disk_is_degraded_and_expires_by_its_own_age() -> None:
    fake = FakeClock()
    fresh = freshness(fake)
    fresh.record_restored(5.0)
    assert (fresh.state, fresh.age, fresh.from_snapshot, fresh.degrades_at) == ("degraded", 5, True, None)
    assert (fresh.has_list, fresh.has_live_list) == (True, False)
    fake.now += 3595
    assert fresh.state == "expired"
    fresh.record_success(fake.now)
    assert (fresh.state, fresh.age, fresh.from_snapshot) == ("fresh", 0, False)


def test_a_list_requested_earlier_does_not_lower_the_age() -> None:
    fake = FakeClock()
    fresh = freshness(fake)
    assert not fresh.is_superseded(fake.now)
    fresh.record_success(fake.now)
    assert not fresh.is_superseded(fake.now)
    assert fresh.is_superseded(fake.now - 1)
    fresh.record_success(fake.now - 50)
    fresh.record_applied(fake.now - 50)
    assert fresh.age == 0


def test_an_age_is_never_negative() -> None:
    fake = FakeClock()
    fresh = freshness(fake)
    fresh.record_success(fake.now)
    fake.now -= 100
    assert fresh.age == 0


def test_an_answer_that_was_held_counts_from_its_arrival() -> None:
    fake = FakeClock()
    fresh = Freshness(soft_stale=60, hard_stale=0, clock=fake)
    fresh.record_success(fake.now)
    fake.now += 10
    fresh.record_success(fake.now - 9, as_of=fake.now - 1)
    assert fresh.age == 1
    assert not fresh.is_superseded(fake.now - 9)
    assert fresh.is_superseded(fake.now - 9.5)
    fresh.record_success(fake.now - 5)  # another event loop asked meanwhile
    assert fresh.age == 1


def test_a_restored_list_is_as_old_as_the_answer_that_confirms_it() -> None:
    fake = FakeClock()
    fresh = Freshness(soft_stale=60, hard_stale=0, clock=fake)
    fresh.record_restored(3.0)
    fresh.record_success(fake.now - 5)
    assert (fresh.age, fresh.state) == (5, "fresh")
