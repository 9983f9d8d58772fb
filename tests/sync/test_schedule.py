"""Schedule and Heartbeat: waiting requests, and the promise of the refreshers."""

import math
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from gatekeeper import RefreshReport
from gatekeeper.sync.clock import Alarm
from gatekeeper.sync.heartbeat import Heartbeat
from gatekeeper.sync.schedule import Schedule
from gatekeeper.testing import FakeClock

pytestmark = pytest.mark.anyio

CHANGED, FAILED = RefreshReport("changed"), RefreshReport("failed")


class Scheduled:
    """A schedule and its clock."""

    def __init__(self, interval: float = 10.0) -> None:
        self.time = FakeClock()
        self.beats: list[float] = []
        self.heartbeat = Heartbeat(interval, self.time, lambda: self.beats.append(self.heartbeat.overdue_at))
        self.alarm = Alarm(self.time, self.time.sleep)
        self.schedule = self.new()

    def new(self) -> Schedule:
        schedule = Schedule(self.heartbeat, self.alarm, self.time)
        schedule.start()
        return schedule

    def fetch(self) -> None:
        """Fetch a list immediately."""
        self.schedule.begin()
        self.schedule.finish(CHANGED)

    @property
    def ahead(self) -> float:
        """Seconds until the refreshers are overdue."""
        return self.heartbeat.overdue_at - self.time.now


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(15):
        while not condition():
            await anyio.lowlevel.checkpoint()


# The heartbeat


def test_before_the_first_fetch_there_is_no_promise() -> None:
    it = Scheduled()
    assert it.heartbeat.overdue_at == -math.inf
    it.schedule.begin()
    assert it.heartbeat.is_overdue
    it.schedule.finish(CHANGED)
    assert not it.heartbeat.is_overdue


@pytest.mark.parametrize(("interval", "ahead"), [(0.5, 5.5), (10.0, 15.0), (60.0, 65.0), (3600.0, 65.0)])
def test_the_promise_lasts_an_interval_and_five_seconds(interval: float, ahead: float) -> None:
    it = Scheduled(interval)
    for promise in (
        lambda: it.schedule.finish(FAILED),
        lambda: it.schedule.plan(it.time.now + 300),
        it.schedule.note_restored,
        it.schedule.beat,
    ):
        it.time.now += 1
        promise()
        assert it.ahead == ahead
    assert len(it.beats) == 4


def test_a_long_pause_renews_the_promise_until_its_end() -> None:
    it = Scheduled()
    it.schedule.plan(it.time.now + 300)
    it.time.now += 299  # frozen, or waiting because the source asked for it
    assert it.heartbeat.is_overdue
    assert it.schedule.beat()
    it.time.now += 16
    assert not it.schedule.beat()
    assert it.heartbeat.is_overdue


def test_a_slow_fetch_renews_the_promise_while_the_loop_runs() -> None:
    it = Scheduled()
    it.fetch()
    it.schedule.begin()
    for _ in range(10):
        it.time.now += 14
        assert it.schedule.beat()
    it.time.now += 15
    assert not it.schedule.beat()  # frozen meanwhile: the answer may be older


def test_only_the_end_of_a_fetch_renews_an_overdue_promise() -> None:
    it = Scheduled()
    it.schedule.plan(it.time.now + 10)
    it.time.now += 3600
    it.schedule.begin()
    assert not it.schedule.beat()
    it.schedule.finish(FAILED)
    assert it.schedule.beat()


def test_the_last_refresher_that_ends_takes_the_promise_back() -> None:
    it = Scheduled()
    other = it.new()
    other.finish(CHANGED)
    it.schedule.end()
    assert not it.heartbeat.is_overdue
    other.end()
    assert it.heartbeat.overdue_at == -math.inf
    assert not other.beat()


def test_a_forked_child_has_no_refresher() -> None:
    it = Scheduled()
    it.fetch()
    it.heartbeat.stop()
    assert it.heartbeat.is_overdue
    assert it.beats[-1] == -math.inf


async def test_the_heartbeat_beats_twice_per_promise() -> None:
    it = Scheduled()
    it.fetch()
    naps = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        it.time.now += seconds
        if len(naps) > 3:
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(it.schedule.keep_beating, nap)
        await until(lambda: len(naps) > 3)
        group.cancel_scope.cancel()
    assert naps == [7.5] * 4
    assert it.beats[-1] == it.time.now - 7.5 + 15


async def test_an_answer_held_since_before_a_freeze_is_cut_off() -> None:
    """Its connection has often gone, and nothing would tell before the end of the wait."""
    it = Scheduled()
    it.fetch()
    it.schedule.begin()
    ends: list[object] = []

    async def nap(seconds: float) -> None:
        it.time.now += seconds + 3600
        if ends:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()

    async def hold() -> None:
        ends.append(await it.schedule.hold(lambda _: anyio.sleep_forever(), None))

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(it.schedule.keep_beating, nap)
        with anyio.fail_after(2):
            await until(lambda: ends == [None])
        group.cancel_scope.cancel()


async def test_a_late_beat_shows_that_the_event_loop_lags() -> None:
    it = Scheduled()
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        it.time.now += seconds + 0.25 * len(naps)
        naps.append(seconds)
        if len(naps) > 2:
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(it.schedule.keep_beating, nap)
        await until(lambda: len(naps) > 2)
        group.cancel_scope.cancel()
    assert it.alarm.lag == 0.25


# Waiting requests


async def wait_for_next_fetch(it: Scheduled, reports: list[RefreshReport]) -> None:
    reports.append(await it.schedule.next_fetch())


async def test_a_request_waits_for_the_fetch_that_begins_next() -> None:
    it = Scheduled()
    it.schedule.begin()
    reports: list[RefreshReport] = []

    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_next_fetch, it, reports)
        await until(lambda: it.schedule.is_wanted)
        it.schedule.finish(FAILED)
        await anyio.wait_all_tasks_blocked()
        assert reports == []
        it.schedule.begin()
        it.schedule.finish(CHANGED)
    assert reports == [CHANGED]


async def test_a_request_ends_the_pause() -> None:
    it = Scheduled()
    woken = []

    async def pause() -> None:
        woken.append(await it.schedule.wait_until(it.time.now + 300))

    async with anyio.create_task_group() as group:
        group.start_soon(pause)
        await it.time.asleep()
        group.start_soon(it.schedule.next_fetch)
        await until(lambda: woken == [True])
        assert await it.schedule.wait_until(it.time.now + 300)  # the next pause ends before it begins
        it.schedule.end()


async def test_the_end_releases_all_waiting_requests() -> None:
    it = Scheduled()
    it.schedule.begin()
    reports: list[RefreshReport] = []

    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_next_fetch, it, reports)
        await until(lambda: it.schedule.is_wanted)
        it.schedule.end()
    assert reports == [RefreshReport("failed", error="the refresher was stopped")]


async def test_a_request_on_schedule_does_not_wait() -> None:
    it = Scheduled()
    it.schedule.plan(it.time.now + 300)
    it.time.now += 100
    await it.schedule.catch_up(15)
    assert not it.schedule.is_wanted
    assert not it.heartbeat.is_overdue


async def test_an_overdue_request_waits_for_a_fetch_that_begins_afterwards() -> None:
    """A fetch that was running when the process was frozen may bring an old list."""
    it = Scheduled()
    it.fetch()
    it.schedule.begin()
    it.time.now += 3600
    async with anyio.create_task_group() as group:
        group.start_soon(it.schedule.catch_up, 15)
        await until(lambda: it.schedule.is_wanted)
        group.cancel_scope.cancel()


async def test_an_overdue_request_joins_the_fetch_that_runs() -> None:
    it = Scheduled()
    it.fetch()
    it.time.now += 3600
    it.schedule.begin()
    caught_up = []

    async def catch_up() -> None:
        await it.schedule.catch_up(15)
        caught_up.append(it.time.now)

    async with anyio.create_task_group() as group:
        group.start_soon(catch_up)
        await anyio.wait_all_tasks_blocked()
        assert not it.schedule.is_wanted
        assert caught_up == []
        it.schedule.finish(CHANGED)
    assert caught_up


@pytest.mark.parametrize("wait", [0.0, 0.01])
async def test_only_one_request_waits_in_vain(wait: float) -> None:
    it = Scheduled()
    it.schedule.begin()
    await it.schedule.catch_up(wait)
    assert it.ahead == 15


# Answers that are held


async def test_a_held_answer_is_cut_off_for_a_wanted_fetch_until_it_begins() -> None:
    it, arriving, ended = Scheduled(), anyio.Event(), anyio.Event()

    async def ask(let_it_end: Callable[[], None]) -> str:
        await arriving.wait()
        let_it_end()
        await ended.wait()
        return "answer"

    answers: list[str | None] = []

    async def hold() -> None:
        answers.append(await it.schedule.hold(ask, None))

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        it.schedule.want()
        await anyio.wait_all_tasks_blocked()
        assert answers == [None]
        group.start_soon(hold)
        arriving.set()
        await anyio.wait_all_tasks_blocked()
        it.schedule.want()
        ended.set()
    assert answers == [None, "answer"]


async def test_a_held_answer_may_have_a_deadline_until_it_begins() -> None:
    it = Scheduled()

    async def answer(let_it_end: Callable[[], None]) -> str:
        let_it_end()
        await anyio.sleep(0.02)
        return "answer"

    async def silence(_: Callable[[], None]) -> str:
        await anyio.sleep_forever()
        return "never"

    assert await it.schedule.hold(answer, 0.01) == "answer"
    assert await it.schedule.hold(silence, 0.01) is None


def test_an_answer_from_before_a_freeze_renews_no_promise() -> None:
    it = Scheduled()
    it.fetch()
    it.schedule.begin()
    it.time.now += 3600
    it.schedule.finish(CHANGED)
    it.schedule.plan(it.time.now + 10)
    assert it.heartbeat.is_overdue
    it.fetch()
    assert not it.heartbeat.is_overdue


def test_the_event_loop_that_waits_renews_its_promise_as_it_beats() -> None:
    it = Scheduled()
    it.fetch()
    other = it.new()
    assert it.schedule.lead.take(it.schedule)
    for _ in range(3):
        it.time.now += 10
        it.schedule.beat()
        other.beat()
        assert not other.lead.take(other)
    it.schedule.end()
    assert other.lead.take(other)
