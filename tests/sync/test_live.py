"""LiveWait and Lead: how long to wait for changes, and which event loop does. Pure calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.sync.live import Lead, LiveWait
from gatekeeper.testing import FakeClock

HERE, THERE = object(), object()


def wait(interval: float = 10.0, jitter: float = 0.5) -> LiveWait:
    return LiveWait(interval, lambda: jitter)


# How long


@pytest.mark.parametrize(
    ("interval", "shortest", "longest"),
    [(1.0, 1, 1), (1.9, 1, 1), (2.0, 2, 2), (4.9, 4, 4), (10.0, 8, 10), (60.0, 48, 60), (3600.0, 48, 60)],
)
def test_a_wait_is_80_to_100_percent_of_the_interval(interval: float, shortest: int, longest: int) -> None:
    assert [wait(interval, jitter).seconds() for jitter in (0.0, 0.999, 1.0)] == [shortest, longest, longest]


def test_all_waits_of_a_span_are_as_likely() -> None:
    waits = [wait(10.0, jitter / 300).seconds() for jitter in range(300)]
    assert [waits.count(seconds) for seconds in (8, 9, 10)] == [100, 100, 100]


@given(interval=st.floats(0.01, 1e6), jitter=st.floats(0, 1))
def test_a_wait_is_whole_seconds_and_never_longer_than_the_interval(interval: float, jitter: float) -> None:
    live = wait(interval, jitter)
    assert live.may_wait == live.is_untried == (interval >= 1)
    if live.may_wait:
        assert 1 <= live.seconds() <= min(interval, 60)


# What ends a wait without an answer


def test_two_waits_that_end_alike_meet_a_limit_of_idle_time() -> None:
    live = wait()
    live.note_cut(9, 5.0)
    assert live.seconds() == 9
    live.note_cut(10, 5.1)
    assert live.seconds() == 4


@pytest.mark.parametrize(
    "ends",
    [
        [(9, 5.0)],
        [(9, 5.0), (9, 8.0)],  # not alike
        [(9, 0.01), (9, 0.01)],  # a hub that is restarted
        [(9, 5.0), (9, 2.0), (9, 5.0)],
    ],
)
def test_other_ends_of_waits_leave_them_as_long(ends: list[tuple[int, float]]) -> None:
    live = wait()
    for seconds, after in ends:
        live.note_cut(seconds, after)
    assert live.seconds() == 9


def test_an_answer_between_two_ends_shows_that_there_is_no_limit() -> None:
    live = wait()
    live.note_cut(9, 5.0)
    live.note_answer(is_granted=True)
    live.note_cut(9, 5.0)
    assert live.seconds() == 9


def test_waits_that_nothing_ends_become_shorter_than_they_were() -> None:
    """A firewall that drops idle connections ends none: each wait ends at its deadline, 5 s late."""
    live = wait()
    live.note_cut(9, 14.0)
    live.note_cut(10, 15.0)
    assert live.seconds() == 8


def test_below_a_second_the_list_is_polled() -> None:
    live = wait()
    live.note_answer(is_granted=True)
    live.note_cut(9, 1.1)
    live.note_cut(9, 1.1)
    assert not live.may_wait
    assert not live.is_granted


def test_another_connection_may_have_no_limit() -> None:
    live = wait()
    live.note_cut(9, 5.0)
    live.note_cut(9, 5.0)
    live.renew()
    assert live.seconds() == 9
    live.note_cut(9, 5.0)
    assert live.seconds() == 9


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 480.0), (0.5, 600.0), (1.0, 720.0)])
def test_a_live_connection_is_renewed_every_ten_minutes(jitter: float, seconds: float) -> None:
    live = wait(jitter=jitter)
    live.renew()
    assert not live.is_over(1e6)  # polled over connections of their own
    live.note_answer(is_granted=True)
    assert not live.is_over(seconds - 1)
    assert live.is_over(seconds)


def test_a_connection_with_a_limit_is_renewed_too() -> None:
    live = wait()
    live.note_cut(9, 1.1)
    live.note_cut(9, 1.1)
    assert live.is_over(720)


def test_the_first_wait_is_a_trial_whatever_comes_of_it() -> None:
    answered, cut = wait(), wait()
    answered.note_answer(is_granted=False)
    cut.note_cut(9, 3.0)
    assert not answered.is_untried
    assert not cut.is_untried


# Which event loop


def lead() -> tuple[Lead, FakeClock]:
    fake = FakeClock()
    return Lead(15.0, fake), fake


def test_one_event_loop_waits_until_its_promise_ends() -> None:
    its, fake = lead()
    assert its.take(HERE)
    assert not its.take(THERE)
    fake.now += 14
    its.renew(HERE)
    its.renew(THERE)
    fake.now += 14
    assert not its.take(THERE)
    fake.now += 1
    assert its.take(THERE)
    assert not its.take(HERE)


def test_others_follow_while_the_list_is_live() -> None:
    its, fake = lead()
    assert its.followed_until(THERE) < fake.now
    its.take(HERE)
    assert its.followed_until(THERE) < fake.now
    its.note(HERE, is_live=True)
    assert its.followed_until(THERE) == fake.now + 15
    assert its.followed_until(HERE) < fake.now


def test_only_the_event_loop_that_waits_says_whether_the_list_is_live() -> None:
    its, _ = lead()
    its.take(HERE)
    assert not its.note(THERE, is_live=True)
    assert not its.is_live


def test_a_change_is_told_once_whatever_event_loop_waits() -> None:
    its, fake = lead()
    its.take(HERE)
    assert [its.note(HERE, is_live=live) for live in (False, True, True, False, True)] == [False, True, False, True, True]
    fake.now += 15
    its.take(THERE)
    assert not its.is_live  # before its first answer
    assert not its.note(THERE, is_live=True)


def test_an_event_loop_that_ends_leaves_the_wait_to_others() -> None:
    its, _ = lead()
    its.take(HERE)
    its.leave(THERE)
    assert not its.take(THERE)
    its.leave(HERE)
    assert its.take(THERE)


def test_a_forked_child_waits_for_itself() -> None:
    its, _ = lead()
    its.take(HERE)
    its.note(HERE, is_live=True)
    its.after_fork()
    assert not its.is_live
    assert its.take(THERE)
