"""Cadence and UnknownKeyBudget: pure calls."""

from contextlib import ExitStack
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import RefreshReport
from gatekeeper.sync.cadence import MOST_AWAITING, Cadence, UnknownKeyBudget, WholeLists, backoff
from gatekeeper.testing import FakeClock

CHANGED = RefreshReport("changed")
UNCHANGED = RefreshReport("unchanged")
FAILED = RefreshReport("failed")
LASTING = RefreshReport("failed", lasting=True)


def delay(
    report: RefreshReport,
    failures: int = 0,
    *,
    jitter: float = 1.0,
    work: float = 0.0,
    live: bool = True,
    every: float = 10.0,
) -> float:
    return Cadence(every, lambda: jitter).delay(report, failures=failures, work=work, has_live_list=live)


@pytest.mark.parametrize("report", [CHANGED, UNCHANGED])
@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 8.0), (0.25, 9.0), (0.5, 10.0), (1.0, 12.0)])
def test_a_list_is_followed_by_the_interval_with_20_percent_jitter(
    report: RefreshReport, jitter: float, seconds: float
) -> None:
    assert delay(report, jitter=jitter) == pytest.approx(seconds)


@pytest.mark.parametrize(("work", "seconds"), [(0.0, 10.0), (2.0, 10.0), (2.1, 10.5), (20.0, 100.0)])
def test_a_list_that_took_long_is_followed_by_five_times_as_long(work: float, seconds: float) -> None:
    assert delay(CHANGED, jitter=0.5, work=work) == pytest.approx(seconds)


@pytest.mark.parametrize("work", [0.0, 100.0])
@pytest.mark.parametrize(
    ("report", "live", "seconds"),
    [
        (FAILED, True, [1, 2, 4, 8, 16, 30, 30, 30]),
        (FAILED, False, [0.25, 0.5, 1, 2, 2, 2]),
        (LASTING, True, [1, 2, 4, 8, 16, 32, 60, 60, 60]),
        (LASTING, False, [0.25, 0.5, 1, 2, 2, 2]),
    ],
)
def test_failures_back_off(report: RefreshReport, seconds: list[float], work: float, *, live: bool) -> None:
    for jitter in (1.0, 0.5, 0.0):
        waits = [delay(report, failures, jitter=jitter, live=live, work=work) for failures in range(1, len(seconds) + 1)]
        assert waits == [jitter * each for each in seconds]


@pytest.mark.parametrize(
    ("asked", "seconds"), [(0.0, 1.0), (-5.0, 1.0), (1.0, 1.0), (7.5, 7.5), (300.0, 300.0), (86_400.0, 300.0)]
)
def test_retry_after_is_clamped(asked: float, seconds: float) -> None:
    for live in (True, False):
        assert delay(RefreshReport("failed", retry_after=asked, lasting=True), 9, live=live, jitter=0.3) == seconds


@given(st.integers(1, 10**9), st.floats(0.001, 1e3), st.floats(0.001, 1e3))
def test_backoff_doubles_up_to_its_ceiling_and_never_overflows(failures: int, first: float, ceiling: float) -> None:
    most = backoff(failures, first, ceiling)
    assert 0 < most <= ceiling
    if failures < 30:
        assert backoff(failures + 1, first, ceiling) == min(ceiling, 2 * most) or most == ceiling


def test_backoff_begins_with_its_first_wait() -> None:
    assert backoff(1, 0.25, 2.0) == 0.25
    assert backoff(1, 5.0, 2.0) == 2.0


def test_unknown_keys_cause_three_fetches_and_then_one_every_five_seconds() -> None:
    fake = FakeClock()
    budget = UnknownKeyBudget(fake)
    assert [budget.take(0.1) for _ in range(5)] == [True, True, True, False, False]
    taken = []
    for _ in range(20):
        fake.now += 1
        taken.append(budget.take(0.1))
    assert taken == ([False] * 4 + [True]) * 4


def test_unknown_keys_cause_fewer_fetches_from_a_slow_source() -> None:
    fake = FakeClock()
    budget = UnknownKeyBudget(fake)
    assert [budget.take(10.0) for _ in range(4)] == [True, True, True, False]
    fake.now += 49
    assert not budget.take(10.0)
    fake.now += 1
    assert budget.take(10.0)


def test_a_budget_saves_three_fetches_at_most() -> None:
    fake = FakeClock()
    budget = UnknownKeyBudget(fake)
    fake.now += 1e6
    assert [budget.take(0.1) for _ in range(4)] == [True, True, True, False]


def test_few_requests_wait_for_the_budget_at_a_time() -> None:
    budget = UnknownKeyBudget(FakeClock())
    with ExitStack() as waiting:
        for _ in range(MOST_AWAITING):
            assert not budget.is_awaited
            waiting.enter_context(budget.awaited())
        assert budget.is_awaited
    assert not budget.is_awaited


# Live lists


def test_a_live_list_is_asked_for_again_after_five_times_the_work() -> None:
    cadence = Cadence(10.0, lambda: 0.5)
    assert [cadence.live_delay(work, held=0.0) for work in (0.0, 0.001, 2.0)] == [0.0, 0.005, 10.0]


def test_the_time_for_which_a_hub_held_its_answer_counts_as_a_pause() -> None:
    cadence = Cadence(10.0, lambda: 0.5)
    assert [cadence.live_delay(2.0, held=held) for held in (0.0, 4.0, 10.0, 60.0)] == [10.0, 6.0, 0.0, 0.0]


def test_the_first_wait_begins_at_once_however_long_the_first_list_took() -> None:
    assert Cadence(10.0, lambda: 0.5).live_delay(4.0, held=None) == 0.0


@pytest.mark.parametrize(
    ("every", "seconds"), [(10.0, [10, 10, 10, 10, 16, 30, 30]), (1.0, [1, 2, 4, 8, 16, 30, 30]), (600.0, [60] * 7)]
)
def test_a_refused_connection_is_repeated_over_an_interval(every: float, seconds: list[float]) -> None:
    for jitter in (0.0, 0.5, 1.0):
        cadence = Cadence(every, partial(float, jitter))
        assert [cadence.refused_delay(failures) for failures in range(1, 8)] == [jitter * each for each in seconds]


@pytest.mark.parametrize(("read_ago", "seconds"), [(0.0, 10.0), (4.0, 6.0), (10.0, 0.0), (1e9, 0.0)])
def test_one_whole_list_in_an_interval_is_enough(read_ago: float, seconds: float) -> None:
    assert Cadence(10.0, lambda: 0.5).misfit_delay(read_ago) == seconds


@pytest.mark.parametrize(
    ("work", "jitter", "polled", "live"),
    [(0.0, 0.5, 600, 21_600), (3.0, 0.0, 600, 17_280), (3.1, 1.0, 620, 25_920), (200.0, 0.5, 40_000, 21_600)],
)
def test_whole_lists_are_due_now_and_then(work: float, jitter: float, polled: float, live: float) -> None:
    fake = FakeClock()
    lists = WholeLists(fake, lambda: jitter)
    lists.note(work)
    for is_live, seconds in ((False, polled), (True, live)):
        fake.now += seconds - 1
        assert not lists.is_due(is_live=is_live)
        fake.now += 1
        assert lists.is_due(is_live=is_live)
        lists.note(work)
    assert lists.read_ago == 0
