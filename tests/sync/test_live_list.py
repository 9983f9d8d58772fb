"""The refresher and a live hub, over sockets and a clock that both share: what each change and each end of a wait does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from gatekeeper import Basis, Delta, HubTransportError, Listing, Unchanged
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.sync.live import MOST_VAIN
from gatekeeper.sync.refresher import AFTER_CHANGE
from gatekeeper.sync.snapshot import Snapshot
from gatekeeper.sync.updating import Fetch
from gatekeeper.testing import FakeClock
from gatekeeper.testing.fake_hub import HANG_UP, FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.held_source import HeldSource, Update
from tests.support.loops import SkippingLoop, run_skipping
from tests.support.refreshing import Running, living, running, until
from tests.support.rows import as_json, bad_row, row

pytestmark = pytest.mark.anyio

WAITS = {f"wait={seconds}" for seconds in (8, 9, 10)}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(row(1), row(2), live=True) as hub:
        yield hub


def preferred(requests: list[HubRequest]) -> list[bool]:
    """Whether each request says that its answer may wait."""
    return ["prefer" in request.headers for request in requests]


async def change(it: Running, hub: FakeHub, *rows: Any) -> None:
    """List other rows, and wait until the refresher has them and waits again."""
    before = len(hub.requests)
    hub.lists(*rows)
    await until(lambda: it.status.etag is not None and len(hub.requests) > before)
    await hub.waits()


async def asked(source: HeldSource, count: int) -> None:
    """Wait until a source was asked so often."""
    await until(lambda: len(source.asked) >= count)


# Changes


async def test_a_change_is_applied_as_soon_as_it_comes(hub: FakeHub) -> None:
    async with living(hub) as it:
        hub.revoke("key-1")
        await until(lambda: it.get("key-1").disabled)
        await hub.waits()
        assert it.time.sleeps == []
        assert it.status.is_live
        assert (it.status.generation, it.sync.log.counters["revocations"]) == (2, 1)


async def test_every_request_but_the_first_asks_for_changes_and_may_wait(hub: FakeHub) -> None:
    async with living(hub) as it:
        await change(it, hub, row(1))
        first, *others = (request.headers for request in hub.requests)
        assert not {"if-none-match", "a-im", "prefer"} & set(first)
        assert [headers["a-im"] for headers in others] == ["rows", "rows"]
        assert {headers["prefer"] for headers in others} <= WAITS
        assert others[1]["if-none-match"] == it.status.etag


async def test_changes_add_change_and_remove_keys(hub: FakeHub) -> None:
    async with living(hub) as it:
        await change(it, hub, row(2, name="new"), row(3))
        assert it.ids == ["key-2", "key-3"]
        assert it.get("key-2").name == "new"
        assert it.sync.log.counters["refresh_changed"] == 2


async def test_an_answer_without_a_change_makes_the_list_fresh(hub: FakeHub) -> None:
    async with living(hub) as it:
        it.time.now += 6
        assert it.status.age == 6  # a wait that runs is no answer
        it.time.now += 3
        await hub.asked(3)
        await until(lambda: it.status.is_live)
        assert it.status.age == 0
        assert it.sync.log.counters["refresh_unchanged"] == 1


async def test_a_busy_event_loop_waits_for_the_next_change_without_a_rest() -> None:
    """What others do between two steps of an apply is no work of the list, after which the next question would rest."""
    source = HeldSource(row(1), row(2))
    async with living(source) as it, anyio.create_task_group() as group:

        async def work() -> None:
            while it.ids != ["key-1", "key-2", "key-3"]:
                it.time.now += 0.02
                await anyio.lowlevel.checkpoint()

        group.start_soon(work)
        source.give(Delta(Listing.whole(as_json(row(1, name="new"), row(3)), "2"), "1", granted=8))
        await asked(source, 3)
        assert it.ids == ["key-1", "key-2", "key-3"]
        assert it.time.sleeps == []


async def test_after_a_change_the_next_question_leaves_time_to_other_gates() -> None:
    source = HeldSource(row(1))
    async with living(source):
        given_at = anyio.current_time()
        source.give(Delta(Listing.whole(as_json(row(2)), "2"), "1", granted=8))
        await asked(source, 3)
        assert anyio.current_time() - given_at >= 0.99 * AFTER_CHANGE  # clocks have a resolution


FEW = [row(1, disabled_at="now")]
MANY = [*(row(number, name=10_000 * "x") for number in range(3, 43)), *FEW]  # more than are read in one step


@pytest.mark.parametrize(("changed", "is_in_one_turn"), [(FEW, True), (MANY, False)], ids=["few", "many"])
async def test_few_changes_are_applied_in_the_turn_in_which_they_come(*, changed: list[Any], is_in_one_turn: bool) -> None:
    source = HeldSource(row(1), row(2))
    async with living(source) as it, anyio.create_task_group() as group:
        turns, come_in = 0, None

        class Chunks:
            """A body that has come."""

            def __init__(self) -> None:
                self.rest = [as_json(*changed)]

            def __aiter__(self) -> AsyncIterator[bytes]:
                return self

            async def __anext__(self) -> bytes:
                nonlocal come_in
                if not self.rest:
                    raise StopAsyncIteration
                come_in = turns
                return self.rest.pop()

        async def count_turns() -> None:
            nonlocal turns
            while not it.get("key-1").disabled:
                turns += 1
                await anyio.lowlevel.checkpoint()

        group.start_soon(count_turns)
        source.give(Delta(Listing(Chunks(), "2"), "1", granted=8))
        await until(lambda: it.get("key-1").disabled)
        assert (come_in == turns) == is_in_one_turn


class TickingClock(FakeClock):
    """A clock of which some looks take half a second each."""

    slow_looks = 0

    def __call__(self) -> float:
        """The time in seconds."""
        if self.slow_looks:
            self.slow_looks -= 1
            self.now += 0.5
        return self.now


@pytest.mark.parametrize(("held", "is_followed_by_pause"), [(0, True), (5, False)])
async def test_a_pause_makes_up_for_a_wait_that_was_short(*, held: int, is_followed_by_pause: bool) -> None:
    source, clock = HeldSource(row(1), row(2)), TickingClock()
    async with living(source, clock=clock, sleep=clock.sleep):
        clock.now += held
        clock.slow_looks = 8  # reading and applying takes two of them
        source.give(Delta(Listing.whole(as_json(row(1, name="new")), "2"), "1", granted=8))
        await (clock.asleep() if is_followed_by_pause else asked(source, 3))
        assert [0 < pause < 5 for pause in clock.sleeps] == [True] * is_followed_by_pause
        assert len(source.asked) == 3 - is_followed_by_pause


class HastySource(HeldSource):
    """Answers a hundred times at once, without IO, and then never."""

    def __init__(self, *, has_changes: bool) -> None:
        super().__init__(row(1), row(2))
        self.has_changes = has_changes

    @asynccontextmanager
    async def ask(self, basis: Basis) -> AsyncIterator[Update]:
        """Give what is always there."""
        if basis.wait is not None and len(self.asked) < 100:
            number = f"v{len(self.asked)}"
            delta = Delta(Listing.whole(as_json(row(1, name=number)), number), basis.validator or "", granted=basis.wait)
            self.give(delta if self.has_changes else Unchanged(granted=0.2))
        async with super().ask(basis) as answer:
            yield answer


@pytest.mark.parametrize("has_changes", [True, False])
async def test_a_source_that_answers_at_once_leaves_turns_to_others(*, has_changes: bool) -> None:
    source, turns = HastySource(has_changes=has_changes), 0
    it = Running(source, FakeClock(), {})
    async with anyio.create_task_group() as group:
        group.start_soon(it.refresher.run)
        with anyio.fail_after(15):
            while len(source.asked) < 100:
                turns += 1
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert turns > 50


async def test_named_removals_are_never_held(hub: FakeHub) -> None:
    rows = [row(number) for number in range(20)]
    hub.lists(*rows)
    async with living(hub) as it:
        await change(it, hub, *rows[:3])
        assert len(it.ids) == 3
        assert it.status.held == 0


async def test_a_list_that_lacks_most_keys_is_held_and_polled(hub: FakeHub) -> None:
    rows = [row(number) for number in range(20)]
    hub.lists(*rows)
    async with living(hub) as it:
        hub.restores(*rows[:3])
        await it.time.asleep()
        assert (it.status.held, it.status.etag, len(it.ids)) == (17, None, 20)
        await it.time.advance(10)
        it.time.now += 10
        await it.time.wake_all()
        await hub.waits()
        assert (it.status.held, len(it.ids)) == (0, 3)
        assert preferred(hub.requests) == [False, True, False, False, True]


async def test_a_row_that_cannot_be_read_causes_a_whole_list(hub: FakeHub) -> None:
    """The rest of the changes counts at once, and one whole list in an interval is enough."""
    rows = [row(number) for number in range(2, 10)]
    hub.lists(row(1), *rows)
    async with living(hub) as it:
        before = len(hub.requests)
        it.time.now += 7
        hub.lists(row(1, disabled_at="now"), bad_row(0), *rows)
        await it.time.asleep()
        assert it.get("key-1").disabled
        assert it.status.rejected_rows == 1
        assert it.time.sleeps == [3.0]
        it.time.now += 3
        await it.time.wake_all()
        await hub.waits()
        assert "if-none-match" not in hub.requests[before].headers
        assert len(it.ids) == 9


async def test_a_row_that_stays_unreadable_retains_its_key_no_longer() -> None:
    """Each change of such a row comes again."""
    others = [row(number) for number in range(2, 10)]
    source = HeldSource(row(1), *others)
    async with living(source) as it:
        source.rows = [bad_row(1), *others]
        lists: list[float] = []
        for base in ("1", "3"):
            source.give(Delta(Listing.whole(as_json(bad_row(1)), "2"), base, granted=8))
            source.etag = "3"
            await it.time.asleep()
            it.time.now += 10
            lists.append(it.time.now)
            await it.time.wake_all()
            await until(lambda: source.held)
        assert it.ids == [f"key-{number}" for number in range(1, 10)]
        assert it.sync._shared.expired_ids(lists[0]) == {"key-1"}


async def test_more_changes_than_a_gate_takes_cause_a_whole_list(hub: FakeHub) -> None:
    """They are in memory as a whole, and could be compressed by a thousand."""
    async with living(hub, max_rows=100) as it:
        it.time.now += 10
        await hub.asked(3)
        hub.lists(*map(row, range(1, 8)))  # five more
        await until(lambda: len(it.ids) == 7)
        await hub.waits()
        asked = len(hub.requests)
        hub.lists(*map(row, range(8, 12)))
        await it.time.asleep()
        assert it.status.last_error is not None
        assert "the changes have more than 5 rows" in it.status.last_error
        it.time.now += 10
        await it.time.wake_all()
        await hub.waits()
        assert "if-none-match" not in hub.requests[asked].headers
        assert it.ids == sorted(f"key-{number}" for number in range(8, 12))


async def test_a_row_older_than_the_held_one_causes_a_whole_list(hub: FakeHub) -> None:
    async with living(hub) as it:
        it.time.now += 10
        await hub.asked(3)
        before = len(hub.requests)
        hub.lists(row(1, domain_allowlist=["evil.example"], updated_at="2020-01-01T00:00:00Z"), row(2))
        await hub.asked(before + 1)
        await until(lambda: it.sync.log.counters["rows_overruled"] == 2)  # of the changes, and of the list
        assert it.get("key-1").domain_allowlist == ("acme.com",)
        assert "if-none-match" not in hub.requests[before].headers


async def test_changes_of_another_list_are_refused(hub: FakeHub) -> None:
    async with living(hub) as it:
        etag = it.status.etag
        headers = {"etag": '"new"', "im": "rows", "delta-base": '"other"'}
        hub.then(HubAnswer(226, as_json(row(9)), headers))
        it.time.now += 10
        await it.time.asleep()
        assert it.ids == ["key-1", "key-2"]
        assert "of the list '\"other\"'" in str(it.status.last_error)
        assert (it.status.etag, etag) == (None, 'W/"1-' + str(etag).partition("-")[2])
        assert it.time.sleeps == [0.5]


async def test_an_answer_that_changes_nothing_does_not_spin(hub: FakeHub) -> None:
    """A hub that says it waits, and does not, is polled."""
    async with living(hub) as it:
        etag = str(it.status.etag)
        headers = {"etag": etag, "preference-applied": "wait=9"}
        delta = HubAnswer(226, b"[]", {**headers, "im": "rows", "delta-base": etag})
        hub.always(HubAnswer(304, headers=headers))
        it.time.now += 10
        await it.time.asleep()
        await it.time.advance(20)
        hub.always(delta)
        await it.time.advance(20)
        assert it.time.sleeps == [10] * 5
        assert not it.status.is_live


@pytest.mark.parametrize("status", [200, 226])
async def test_early_answers_that_change_nothing_do_not_spin(hub: FakeHub, status: int) -> None:
    """A hub that knows no If-None-Match sends the same list again and again, or gives it another name each time."""

    def vain(request: HubRequest) -> HubAnswer:
        named = {"etag": f'"{len(hub.requests)}"', "preference_applied": request.headers.get("prefer", "")}
        base = request.headers.get("if-none-match", "")
        rows = [row(1), row(2)]
        return (
            json_answer(rows, 200, **named) if status == 200 else json_answer([], 226, **named, im="rows", delta_base=base)
        )

    async with living(hub) as it:
        asked = len(hub.requests)
        hub.always(vain)
        it.time.now += 10
        await it.time.asleep()
        assert (it.status.is_live, it.status.state) == (False, "fresh")
        assert len(hub.requests) - asked == 10
        await it.time.advance(30)
        assert it.time.sleeps == [10.0] * 4
        hub.lists(row(1), row(2), row(3))
        it.time.now += 10
        await it.time.wake_all()
        await hub.waits()
        assert (it.status.is_live, len(it.ids)) == (True, 3)


@pytest.mark.parametrize("failure", [HubAnswer(500), HubAnswer(400), HANG_UP, HubAnswer(304, headers={"etag": '"other"'})])
async def test_a_list_is_polled_after_three_waits_that_fail(hub: FakeHub, failure: HubAnswer) -> None:
    """Though the questions between them are answered, which would otherwise cause the next wait at once."""

    def fail(request: HubRequest) -> HubAnswer:
        return failure if "prefer" in request.headers else json_answer([row(1), row(2)], etag='"1"')

    async with living(hub) as it:
        asked = len(hub.requests)
        hub.always(fail)
        it.time.now += 10
        for _ in range(3):
            await it.time.asleep()
            it.time.now += 0.5
            await it.time.wake()
        assert it.time.sleeps == [0.5, 0.5, 0.5, 10.0]
        assert (it.status.is_live, it.status.last_error) == (False, None)
        assert preferred(hub.requests[asked:]) == [True, False] * 3


async def test_a_source_that_stops_is_asked_again_within_a_second() -> None:
    """Its last answer comes before the time. A source that gives one again and again does not wait."""
    source = HeldSource()
    async with living(source) as it:
        it.time.now += 9
        source.give(Unchanged(granted=9))
        await asked(source, 3)
        live = []
        for number in range(MOST_VAIN):
            await until(lambda: source.held)
            source.give(Unchanged(granted=9, is_last=True))
            await it.time.asleep()
            live.append(it.status.is_live)
            if number < MOST_VAIN - 1:
                it.time.now += 0.5
                await it.time.wake_all()
        assert live == [True] * (MOST_VAIN - 1) + [False]
        assert it.time.sleeps == [0.5] * (MOST_VAIN - 1) + [10]


# Hubs that do not wait


async def test_a_hub_that_does_not_wait_is_polled() -> None:
    with FakeHub(row(1), live=True) as hub:
        hub.ignores = {"prefer"}
        async with running(hub) as it:
            hub.clock = it.time
            await it.time.advance(100)
            assert it.time.sleeps == [10.0] * 11
            assert not it.status.is_live
            assert preferred(hub.requests) == [False, *[True] * 11]
            hub.revoke("key-1")
            await it.time.advance(10)
            assert it.get("key-1").disabled


async def test_a_hub_that_stops_waiting_is_polled_within_an_interval(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gatekeeper")
    async with living(hub) as it:
        await change(it, hub, row(1))
        assert it.status.is_live
        hub.ignores = {"prefer"}
        hub.lists(row(1), row(3))
        await it.time.asleep()
        assert it.ids == ["key-1", "key-3"]
        assert not it.sync.status.is_live
        assert it.time.sleeps == [10]
        hub.ignores = set()
        it.time.now += 10
        await it.time.wake_all()
        await hub.waits()
        said = [record.getMessage() for record in caplog.records if "live" in record.getMessage() or "polled" in record.msg]
        assert len(said) == 2
        assert "is live" in said[0]
        assert "polled again" in said[1]


async def test_an_interval_below_a_second_is_polled(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=0.9) as it:
        await it.time.advance(9.1)
        assert it.time.sleeps == pytest.approx([0.9] * 11)
        assert not any(preferred(hub.requests))


# What cuts a wait off


async def test_a_wanted_fetch_cuts_the_wait_off(hub: FakeHub) -> None:
    async with living(hub) as it:
        assert (await it.refresher.refresh()).outcome == "unchanged"
        await hub.asked(4)
        await until(lambda: hub.waiting == 1)
        assert preferred(hub.requests) == [False, True, False, True]
        assert await it.refresher.refresh_for_unknown_key(15.0)
        await hub.asked(6)
        assert preferred(hub.requests)[4:] == [False, True]
        assert it.time.sleeps == []


async def test_a_wait_that_is_cut_off_takes_only_its_connection_along(hub: FakeHub) -> None:
    async with living(hub) as it:
        await it.refresher.refresh()
        await hub.asked(4)
        first, held, wanted, again = (request.port for request in hub.requests)
        assert (first, wanted) == (held, again)
        assert held != wanted


async def test_after_a_freeze_the_first_request_waits_for_a_new_answer(hub: FakeHub) -> None:
    """What came before the freeze says nothing: it is as old as the list."""
    async with living(hub, jitter=lambda: 0.0) as it:
        with hub.held() as hold:
            it.time.now += 3600  # the hub's answer comes after 8 s, and is read now
            assert it.sync.is_overdue
            hold.release()
            await until(lambda: it.sync.log.counters["refresh_unchanged"])
        await until(lambda: len(hub.requests) >= 3)
        await it.refresher.schedule.catch_up(15.0)
        await hub.waits()
        assert not preferred(hub.requests)[2]
        assert it.status.age == 0
        assert not it.sync.is_overdue


async def test_an_answer_from_before_a_freeze_is_as_old_as_its_wait(hub: FakeHub) -> None:
    async with living(hub, jitter=lambda: 0.0) as it:
        hub.then(HubAnswer(500, hold=(hold := hub.hold())))
        it.time.now += 30
        await until(lambda: it.sync.log.counters["refresh_unchanged"] == 1)
        assert it.status.age == 22
        hold.release()


# Failures


async def test_a_wait_that_is_cut_is_repeated_within_a_second(hub: FakeHub) -> None:
    """A proxy on the way that ends idle connections after 5 s is met twice, and then never again."""
    async with living(hub, jitter=lambda: 0.5) as it:
        holds = [hub.hold(), hub.hold()]
        first, second = [HubAnswer(raw=b"", hang_up=True, hold=hold) for hold in holds]
        hub.then(first, HubAnswer(304, headers={"etag": str(it.status.etag)}), second)
        it.time.now += 10
        for number, hold in enumerate(holds, 1):
            await hub.asked(1 + 2 * number)
            it.time.now += 5
            hold.release()
            await it.time.asleep(number)
            assert it.time.sleeps == [0.5] * number
            assert it.sync.log.counters["refresh_failed"] == number
            it.time.now += 0.5
            await it.time.wake_all()
        await hub.waits()
        assert hub.requests[-1].headers["prefer"] == "wait=4"
        assert preferred(hub.requests)[-2:] == [False, True]  # after a failure an answer is wanted at once


async def test_a_refused_connection_is_repeated_within_an_interval() -> None:
    """All gates of a hub that has gone are told at once, and come back over an interval."""
    source = HeldSource(row(1))
    async with living(source) as it:
        source.give(Unchanged(granted=8))
        it.time.now += 10
        await asked(source, 3)
        for number, sleeps in enumerate([5.0, 5.0, 5.0, 5.0, 8.0], 1):
            refused = HubTransportError("refused")
            refused.__cause__ = httpx.ConnectError("refused")
            source.give(refused)
            source.broken = refused
            await it.time.asleep(number)
            assert it.time.sleeps[-1] == sleeps
            await it.time.wake_all()
            it.time.now += sleeps
            await it.time.wake_all()


async def test_failures_of_a_live_list_back_off_as_others_do(hub: FakeHub) -> None:
    async with living(hub) as it:
        hub.always(HubAnswer(500))
        it.time.now += 10
        await it.time.asleep()
        await it.time.advance(0.5 + 1 + 2)
        assert it.time.sleeps == [0.5, 1, 2, 4]
        assert not any(preferred(hub.requests)[3:])


@pytest.mark.slow
async def test_a_half_open_connection_fails_five_seconds_after_the_wait(hub: FakeHub) -> None:
    async with living(hub, refresh_interval=1.0) as it:
        hub.then(HubAnswer(304, hold=hub.hold()))
        it.time.now += 1
        await it.time.asleep()
        assert "no answer came within 5 s after the wait of 1 s" in str(it.status.last_error)


# The connection


async def test_a_live_connection_is_renewed_after_ten_minutes() -> None:
    source = HeldSource(row(1))
    async with living(source) as it:
        for number in range(1, 80):
            it.time.now += 9
            source.give(Unchanged(granted=9))
            await asked(source, 2 + number)
            assert source.connections == (1 if 9 * number < 600 else 2)


# Several event loops


async def test_one_event_loop_of_a_process_waits(hub: FakeHub) -> None:
    async with living(hub) as it:
        await change(it, hub, row(1))
        other = it.sync.new_refresher()
        async with anyio.create_task_group() as group:
            group.start_soon(other.run)
            await it.time.asleep()
            before = len(hub.requests)
            await change(it, hub, row(3))
            assert it.ids == ["key-3"]
            assert hub.waiting == 1
            await other.refresh()
            assert preferred(hub.requests)[before:] == [True, False]
            await it.time.asleep()
            for _ in range(4):
                it.time.now += 9
                it.refresher.schedule.beat()
                await it.time.wake_all()
                await it.time.asleep()
            await until(lambda: hub.waiting == 1)
            assert sum(preferred(hub.requests)[before + 2 :]) == len(hub.requests) - before - 2
            group.cancel_scope.cancel()


async def test_another_event_loop_takes_over_when_the_promise_ends(hub: FakeHub) -> None:
    async with living(hub) as it:
        await change(it, hub, row(1))
        other = it.sync.new_refresher()
        async with anyio.create_task_group() as group:
            group.start_soon(other.run)
            await it.time.asleep()
            it.stop_refresher()
            await until(lambda: hub.waiting == 0)
            it.time.now += 15
            await it.time.wake_all()
            await hub.waits()
            hub.revoke("key-1")
            await until(lambda: it.get("key-1").disabled)
            group.cancel_scope.cancel()


async def test_the_first_fetch_of_an_event_loop_is_not_held() -> None:
    """Its start and its reports wait for the end of it, though the event loop that waited has gone."""
    source = HeldSource(row(1))
    async with living(source) as it:
        it.refresher.schedule.lead.leave(it.refresher.schedule)
        other = it.sync.new_refresher()
        async with anyio.create_task_group() as group:
            group.start_soon(other.run)
            await asked(source, 3)
            assert source.asked[2].wait is None
            await other.schedule.first_fetch()
            group.cancel_scope.cancel()


async def test_changes_of_a_list_that_was_replaced_are_dropped() -> None:
    source = HeldSource(row(1))
    async with living(source) as it:
        other = it.sync.new_refresher().updater
        source.rows, source.etag = [row(2)], "3"
        assert (await other.update(source.ask, Fetch())).outcome == "changed"
        source.give(Delta(Listing.whole(as_json(row(1, name="old")), "2"), "1", granted=9))
        await asked(source, 4)
        assert source.asked[-1].validator == "3"
        assert it.ids == ["key-2"]
        assert it.sync.log.counters["refresh_failed"] == 0
        source.give(Delta(Listing.whole(as_json(row(3)), "4"), "3", granted=9))
        await asked(source, 5)
        assert it.ids == ["key-2", "key-3"]


async def test_no_news_of_a_list_that_was_replaced_does_not_count() -> None:
    source = HeldSource(row(1))
    async with living(source) as it:
        other = it.sync.new_refresher().updater
        it.time.now += 1
        source.rows, source.etag = [row(2)], "3"
        await other.update(source.ask, Fetch())
        it.time.now += 9
        source.give(Unchanged(granted=9))
        await asked(source, 4)
        assert it.status.age == 9


# Sources of one's own


async def test_a_source_of_ones_own_may_hold_its_answers_and_give_changes() -> None:
    source = HeldSource(row(1), row(2))
    async with living(source) as it:
        gone = {"id": "key-1", "last8": "00000001", "removed": True}
        source.give(Delta(Listing.whole(as_json(gone, row(3)), "2"), "1", granted=8))
        await asked(source, 3)
        assert it.ids == ["key-2", "key-3"]
        assert it.status.is_live
        assert source.asked[0] == Basis()
        assert source.asked[2].validator == "2"


@pytest.mark.parametrize("granted", [0, -1, 11, 60, float("nan")])
async def test_seconds_that_were_not_asked_for_are_not_granted(granted: float) -> None:
    source = HeldSource(row(1))
    async with living(source) as it:
        it.time.now += 10
        source.give(Unchanged(granted=granted))
        await it.time.asleep()
        assert not it.status.is_live


async def test_changes_of_another_list_from_a_source_of_ones_own_fail() -> None:
    source = HeldSource(row(1))
    async with living(source) as it:
        source.give(Delta(Listing.whole(as_json(row(2)), "2"), "7", granted=8))
        await it.time.asleep()
        assert it.status.last_error == "the source gave changes of the list '7': expected those of '1'"
        assert (it.ids, it.status.etag) == (["key-1"], None)
        assert it.time.sleeps == [10.0]  # one whole list in an interval is enough


async def test_changes_that_break_off_are_asked_for_again() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"["
        raise HubTransportError("reset")

    source = HeldSource(row(1))
    async with living(source) as it:
        source.give(Delta(Listing(broken(), "2"), "1", granted=8))
        await it.time.asleep()
        assert (it.ids, it.status.etag) == (["key-1"], "1")
        assert it.time.sleeps == [0.5]


async def test_changes_that_break_off_twice_are_replaced_by_the_whole_list(hub: FakeHub) -> None:
    """Something on the way may never let them through, and no revocation would come."""

    def answer(request: HubRequest) -> HubAnswer:
        if "if-none-match" not in request.headers:
            return json_answer([row(2)], etag='"9"')
        base = request.headers["if-none-match"]
        headers = {"etag": '"9"', "im": "rows", "delta-base": base, "content-length": "100"}
        return HubAnswer(226, b"[", headers, hang_up=True)

    async with living(hub) as it:
        hub.always(answer)
        it.time.now += 10
        await it.time.asleep()
        it.time.now += 10
        await it.time.wake()
        await it.time.wake()
        assert it.ids == ["key-2"]


def test_an_answer_that_comes_when_its_time_is_over_is_asked_for_again() -> None:
    """A process that was frozen finds both. An answer that is not read is no news that nothing has changed."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        source = HeldSource(row(1), row(2))
        async with living(source) as it:
            gone = {"id": "key-1", "last8": "00000001", "removed": True}
            counters = it.sync.log.counters

            def freeze() -> None:
                loop.skipped += 100
                loop.call_soon(source.give, Delta(Listing.whole(as_json(gone), "2"), "1", granted=8))

            loop.call_soon(freeze)
            while not counters["refresh_failed"] + counters["refresh_unchanged"]:
                await anyio.lowlevel.checkpoint()
            assert (counters["refresh_failed"], counters["refresh_unchanged"]) == (1, 0)
            assert (it.ids, it.status.etag) == (["key-1", "key-2"], "1")

    run_skipping(run())


# Snapshots


async def test_a_snapshot_brings_only_the_changes_at_the_next_start(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "keys.snapshot"
    async with living(hub, snapshot_path=path):
        pass
    hub.lists(row(1, disabled_at="now"), row(2))
    async with living(hub, snapshot_path=path) as it:
        assert it.get("key-1").disabled
        first = hub.requests[2]
        assert first.headers["if-none-match"].startswith('W/"1-')
        assert (first.headers["a-im"], preferred(hub.requests)[2:]) == ("rows", [False, True])


async def test_changes_that_do_not_fit_a_snapshot_are_replaced_at_once(hub: FakeHub, tmp_path: Path) -> None:
    """No whole list was read yet, and what was revoked since the snapshot is not known."""
    path = tmp_path / "keys.snapshot"
    async with living(hub, snapshot_path=path):
        pass
    hub.then(HubAnswer(226, b"[]", {"etag": '"new"', "im": "rows", "delta-base": '"other"'}))
    async with running(hub, snapshot_path=path) as it:
        assert it.time.sleeps == [0.125]


@pytest.mark.parametrize("rows", [[row(1), row(1)], [*map(row, range(9)), bad_row(9)]], ids=["an id twice", "a bad row"])
async def test_a_snapshot_that_differs_from_the_list_has_not_its_name(
    hub: FakeHub, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    hub.lists(*rows)
    path = tmp_path / "keys.snapshot"
    async with living(hub, snapshot_path=path):
        pass
    before = len(hub.requests)
    async with living(hub, snapshot_path=path):
        assert "if-none-match" not in hub.requests[before].headers


class SlowSnapshot(Snapshot):
    """Takes 10 ms to write, so that the next writing follows 0.05 s later."""

    @classmethod
    def keep(cls, it: Running, path: Path) -> None:
        """Save the list with it."""
        keeper = it.refresher.snapshots
        assert keeper is not None
        keeper.snapshot = cls(path, account="acme", fingerprint=lambda: "", wall_clock=it.time)
        keeper.snapshot.time = it.time

    time: FakeClock

    async def save(self, index: KeyIndex, asked_at: float, validator: str | None = None) -> None:
        await super().save(index, asked_at, validator)
        self.time.now += 0.01


async def test_a_fetch_that_is_wanted_when_a_snapshot_is_due_is_made(tmp_path: Path) -> None:
    """The snapshot follows. A caller of `refresh` would wait for a fetch that was cut off, for ever."""
    with FakeHub(row(1)) as hub:
        async with running(hub, snapshot_path=tmp_path / "keys.snapshot") as it:
            SlowSnapshot.keep(it, tmp_path / "keys.snapshot")
            for number in (2, 3):
                hub.lists(row(number))
                await it.refresh()
            assert it.sync.log.counters["snapshot_saved"] == 2
            it.time.now += 1
            with anyio.fail_after(5):
                assert (await it.refresh()).outcome == "unchanged"
            assert it.sync.log.counters["snapshot_saved"] == 3


async def test_a_change_within_the_pause_is_saved_before_the_end(hub: FakeHub, tmp_path: Path) -> None:
    """Otherwise a restart while the hub is down would undo a revocation."""
    async with living(hub, snapshot_path=tmp_path / "keys.snapshot") as it:
        SlowSnapshot.keep(it, tmp_path / "keys.snapshot")
        for number in (3, 4):
            await change(it, hub, row(number))
        assert it.sync.log.counters["snapshot_saved"] == 2
    assert it.sync.log.counters["snapshot_saved"] == 3


async def test_a_writing_that_is_cut_off_is_made_before_the_end(hub: FakeHub, tmp_path: Path) -> None:
    class HangingSnapshot(SlowSnapshot):
        hangs = True

        async def save(self, index: KeyIndex, asked_at: float, validator: str | None = None) -> None:
            if self.hangs:
                self.hangs = False
                await anyio.sleep_forever()
            await super().save(index, asked_at, validator)

    async with living(hub, snapshot_path=tmp_path / "keys.snapshot") as it:
        HangingSnapshot.keep(it, tmp_path / "keys.snapshot")
        hub.lists(row(3))
        await until(lambda: it.ids == ["key-3"])
        await anyio.wait_all_tasks_blocked()
    assert it.sync.log.counters["snapshot_saved"] == 2


async def test_a_polled_change_soon_after_a_snapshot_is_saved_too(tmp_path: Path) -> None:
    with FakeHub(row(1)) as hub:
        async with running(hub, snapshot_path=tmp_path / "keys.snapshot") as it:
            SlowSnapshot.keep(it, tmp_path / "keys.snapshot")
            for number in (2, 3):
                hub.lists(row(number))
                await it.refresher.refresh()
            await it.time.asleep()
            assert it.sync.log.counters["snapshot_saved"] == 2
            await it.time.advance(it.time.sleeps[-1])
            assert it.sync.log.counters["snapshot_saved"] == 3
            assert len(hub.fetches) == 3


async def test_a_change_that_comes_soon_after_a_snapshot_is_saved_too(hub: FakeHub, tmp_path: Path) -> None:
    """Within the pause after a writing, and then nothing changes any more."""
    async with living(hub, snapshot_path=tmp_path / "keys.snapshot") as it:
        SlowSnapshot.keep(it, tmp_path / "keys.snapshot")
        await change(it, hub, row(3))
        assert it.sync.log.counters["snapshot_saved"] == 2
        await change(it, hub, row(4))
        assert it.sync.log.counters["snapshot_saved"] == 2
        it.time.now += 1
        await until(lambda: it.sync.log.counters["snapshot_saved"] == 3)
        await hub.waits()
