"""When the list is fetched, what becomes of it, and what failures change: nothing.

Lists come over sockets from a hub that misbehaves on demand; time passes when a test says so.
"""

import logging
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from importlib.util import find_spec
from typing import Any

import anyio
import pytest

from gatekeeper import Basis, HubSource, Unchanged
from gatekeeper.keys.slices import ListReader, Slice
from gatekeeper.sync.status import RefreshReport
from tests.support.fake_hub import GARBAGE, HANG_UP, Answer, FakeHub, json_answer
from tests.support.fake_time import FakeTime
from tests.support.memory_source import MemorySource
from tests.support.refreshing import Running, running
from tests.support.rows import TOKEN, as_json, bad_row, row

pytestmark = pytest.mark.anyio

FAILURE = Answer(500)
FAULTS = {
    "500": FAILURE,
    "401": json_answer("Invalid token", 401),
    "403": Answer(403),
    "404": Answer(404),
    "400": json_answer("Missing X-Account-ID header", 400),
    "429": Answer(429),
    "a redirect": Answer(302, headers={"location": "https://login.example"}),
    "hangs up": HANG_UP,
    "garbage": GARBAGE,
    "too short": Answer(200, as_json(row(2)), {"content-length": "10000"}, hang_up=True),
    "truncated": Answer(200, as_json(row(2), row(3))[:-5]),
    "HTML": Answer(200, b"<html>log in</html>", {"content-type": "text/html"}),
    "an object": json_answer({"data": [row(2)]}),
    "null": json_answer(None),
    "a string": json_answer("[]"),
    "a number": json_answer(7),
    "nothing": Answer(200, b""),
    "NaN": Answer(200, b"NaN"),
    "UTF-16": Answer(200, "[]".encode("utf-16")),
    "Latin-1": Answer(200, b'["\xe9"]'),
    "deep": Answer(200, b"[" * 100_000),
    "deep rows": Answer(200, b"[" + b'{"id":' * 100_000 + b"]"),
    "foreign rows": json_answer([{"user": "alice"}, {"user": "bob"}]),
    "no rows": json_answer([1, None, "x"]),
}


@pytest.fixture(params=["asyncio", *(["trio"] if find_spec("trio") else [])])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


# Cadence


async def test_the_first_fetch_is_made_at_once(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))
    async with running(hub) as it:
        assert it.ids == ["key-1", "key-2"]
        assert len(hub.requests) == 1
        assert it.time.now == FakeTime().now


async def test_an_unchanged_list_keeps_the_cadence(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub) as it:
        await it.time.advance(100)
        assert it.time.sleeps == [10.0] * 11
        assert len(hub.requests) == 11


async def test_one_success_ends_the_backoff(hub: FakeHub) -> None:
    async with running(hub, jitter=1.0) as it:
        hub.then(FAILURE, FAILURE, FAILURE)
        await it.time.advance(12 + 1 + 2 + 4)
        assert it.time.sleeps[1:] == [1, 2, 4, 12]
        hub.then(FAILURE)
        await it.time.advance(12)
        assert it.time.sleeps[5:] == [1]


async def test_a_hub_that_fails_every_other_time_is_never_asked_in_a_tight_loop(hub: FakeHub) -> None:
    async with running(hub, jitter=1.0) as it:
        for _ in range(5):
            hub.then(FAILURE)
            await it.time.advance(13)
        assert it.time.sleeps == [12] + [1, 12] * 5


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [("0", 1), ("1", 1), ("7", 7), ("300", 300), ("301", 300), ("86400", 300)]
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_hub_that_says_when_to_come_back_is_asked_then_within_reason(
    hub: FakeHub, retry_after: str, seconds: float, status: int
) -> None:
    async with running(hub, soft_stale=1000) as it:
        hub.then(Answer(status, headers={"retry-after": retry_after}))
        await it.time.advance(10)
        assert it.time.sleeps[1:] == [seconds]


async def test_a_hub_that_names_a_date_long_past_is_asked_in_a_second(hub: FakeHub) -> None:
    hub.then(Answer(503, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}))
    async with running(hub) as it:
        assert it.time.sleeps == [1]


async def test_a_hub_that_says_nonsense_about_when_to_come_back_is_not_obeyed(hub: FakeHub) -> None:
    async with running(hub, jitter=1.0) as it:
        hub.always(Answer(429, headers={"retry-after": "soon"}))
        await it.time.advance(12 + 1 + 2)
        assert it.time.sleeps[1:] == [1, 2, 4]


async def test_a_forced_refresh_does_not_wait_until_the_hub_wants_to_be_asked(hub: FakeHub) -> None:
    async with running(hub, soft_stale=1000) as it:
        hub.then(Answer(429, headers={"retry-after": "300"}))
        await it.time.advance(10)
        assert it.time.sleeps[-1] == 300
        assert (await it.refresh()).outcome == "unchanged"
        assert it.time.sleeps[-1] == 10


# One fetch at a time


async def test_a_hundred_who_want_a_fresher_list_at_once_share_at_most_two_fetches(hub: FakeHub) -> None:
    async with running(hub) as it:
        hub.lists(row(1))
        reports: list[RefreshReport] = []

        async def want() -> None:
            reports.append(await it.refresher.refresh())

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(want)
        assert len(reports) == 100
        assert len(hub.requests) - 1 <= 2
        assert it.ids == ["key-1"]


async def test_a_refresh_wanted_during_a_fetch_begins_exactly_one_more_after_it(hub: FakeHub) -> None:
    async with running(hub) as it:
        reports: list[RefreshReport] = []

        async def want() -> None:
            reports.append(await it.refresher.refresh())

        async with anyio.create_task_group() as group:
            with hub.held() as hold:
                group.start_soon(it.refresher.refresh)
                await hub.asked(2)
                hub.lists(row(1))
                for _ in range(50):
                    group.start_soon(want)
                await anyio.wait_all_tasks_blocked()
                assert len(hub.requests) == 2
                hold.release()
                await hub.asked(3)
        await it.time.asleep(2)
        assert len(hub.requests) == 3
        assert {report.outcome for report in reports} == {"changed"}
        assert it.ids == ["key-1"]


async def test_a_refresh_reports_what_the_list_brought(hub: FakeHub) -> None:
    hub.lists(row(1), row(2), row(3))
    async with running(hub) as it:
        hub.lists(row(2, name="new"), row(3), row(4), row(5), row(6), bad_row(7))
        report = await it.refresh()
        assert (report.outcome, report.added, report.changed, report.removed, report.rejected) == ("changed", 3, 1, 1, 1)
        assert report.error is None
        assert it.status.counters["refresh_changed"] == 2


async def test_a_refresh_reports_why_it_failed_and_how_long_that_took(hub: FakeHub) -> None:
    async with running(hub) as it, anyio.create_task_group() as group:
        hub.then(Answer(429, headers={"retry-after": "7"}, hold=(hold := hub.hold())))

        async def take_time() -> None:
            await hub.asked(2)
            it.time.now += 3
            hold.release()

        group.start_soon(take_time)
        report = await it.refresh()
        assert (report.outcome, report.retry_after, report.lasting, report.duration) == ("failed", 7.0, False, 3.0)
        assert report.error is not None
        assert "429" in report.error


async def test_stopping_releases_those_who_wait(hub: FakeHub) -> None:
    reports: list[RefreshReport] = []
    fake = FakeTime()
    it = Running(HubSource(hub.url, TOKEN, timeout=60), fake, {})

    async def want() -> None:
        reports.append(await it.refresher.refresh())

    with hub.held():
        async with anyio.create_task_group() as waiting, anyio.create_task_group() as group:
            group.start_soon(it.refresher.run)
            await hub.asked(1)
            waiting.start_soon(want)
            waiting.start_soon(want)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert [(report.outcome, report.error) for report in reports] == [("failed", "the refresher was stopped")] * 2


async def test_a_stopped_refresher_keeps_nobody_waiting(hub: FakeHub) -> None:
    async with running(hub) as it:
        pass
    with anyio.fail_after(15):
        assert (await it.refresher.refresh()).outcome == "failed"
    assert len(hub.requests) == 1


# What becomes of a list


async def test_the_hub_is_told_which_list_is_known_and_its_not_modified_renews_it(hub: FakeHub) -> None:
    hub.lists(row(1), etag='W/"1"')
    async with running(hub) as it:
        assert it.status.etag == 'W/"1"'
        changes = it.changes
        await it.time.advance(9)
        assert it.status.age == 9
        report = await it.refresh()
        assert (report.outcome, it.status.age, it.changes) == ("unchanged", 0, changes)
        assert [request.headers.get("if-none-match") for request in hub.requests] == [None, 'W/"1"']
        assert it.status.counters["refresh_unchanged"] == 1


async def test_not_modified_is_no_list_for_whoever_has_none(hub: FakeHub) -> None:
    hub.then(Answer(304))
    hub.lists(row(1))
    async with running(hub) as it:
        assert it.status.state == "never_loaded"
        await it.time.advance(2)
        assert it.ids == ["key-1"]


async def test_not_modified_about_another_list_than_the_known_one_says_nothing(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub) as it:
        await it.time.advance(9)
        hub.then(Answer(304, headers={"etag": '"another"'}))
        assert (await it.refresh()).outcome == "failed"
        assert it.status.age == 9


async def test_a_source_that_gives_nothing_to_whoever_has_no_list_has_failed() -> None:
    class Empty(MemorySource):
        @asynccontextmanager
        async def updates(self, basis: Basis) -> AsyncIterator[Unchanged]:
            self.validators.append(basis.validator)
            yield Unchanged()

    async with running(Empty()) as it:
        assert it.status.state == "never_loaded"


async def test_the_same_bytes_are_not_read_again_whatever_they_are_called(hub: FakeHub) -> None:
    rows = [*(row(number) for number in range(9)), bad_row(9)]
    hub.lists(*rows, etag='"1"')
    async with running(hub) as it:
        counters, changes = dict(it.status.counters), it.changes
        assert counters["rows_rejected"] == 1
        hub.lists(*rows, etag='"2"')
        assert (await it.refresh()).outcome == "unchanged"
        assert it.status.counters["rows_rejected"] == 1
        assert (it.changes, it.status.generation, it.status.etag) == (changes, 1, '"2"')


async def test_other_bytes_that_say_the_same_change_nothing(hub: FakeHub) -> None:
    hub.always(Answer(200, as_json(row(1))))
    async with running(hub) as it:
        changes = it.changes
        hub.always(Answer(200, b" \n" + as_json(row(1))))
        assert (await it.refresh()).outcome == "unchanged"
        assert (it.changes, it.status.generation) == (changes, 1)


async def test_a_changed_list_is_told_to_whoever_remembers_decisions(hub: FakeHub) -> None:
    hub.lists(row(1))
    async with running(hub) as it:
        changes = it.changes
        for change in (row(1, disabled_at="now"), row(1), row(1, domain_allowlist=[])):
            hub.lists(change)
            await it.refresh()
            assert it.changes > changes
            changes = it.changes
        assert it.status.generation == 4


async def test_a_list_may_be_empty(hub: FakeHub) -> None:
    async with running(hub) as it:
        assert (it.status.state, it.ids) == ("fresh", [])
        hub.lists(row(1))
        await it.refresh()
        hub.lists()
        assert (await it.refresh()).removed == 1
        assert it.ids == []


async def test_a_list_may_begin_with_a_byte_order_mark_and_call_itself_what_it_likes(hub: FakeHub) -> None:
    hub.always(Answer(200, b"\xef\xbb\xbf" + as_json(row(1)), {"content-type": "text/plain"}))
    async with running(hub) as it:
        assert it.ids == ["key-1"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failure_changes_no_decision(hub: FakeHub, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub) as it:
        known, changes, generation = it.resolve(1), it.changes, it.status.generation
        hub.always(FAULTS[fault])
        await it.time.advance(9)
        for _ in range(2):
            report = await it.refresh()
            assert report.outcome == "failed"
            assert report.error
        assert it.resolve(1) is known
        assert it.ids == ["key-1"]
        assert (it.changes, it.status.generation, it.status.etag) == (changes, generation, '"1"')
        assert it.status.age == 9
        assert it.status.last_error == report.error
        assert it.status.counters["refresh_failed"] == 2
        assert hub.requests[-1].headers["if-none-match"] == '"1"'
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1, "the same failure is said once, and is no bug"
        hub.lists(row(1), row(2))
        assert (await it.refresh()).outcome == "changed"
        assert (it.status.last_error, it.status.age) == (None, 0)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_first_list_that_fails_leaves_nothing_behind(hub: FakeHub, fault: str) -> None:
    hub.always(FAULTS[fault])
    async with running(hub) as it:
        assert (it.status.state, it.status.age, it.ids) == ("never_loaded", None, [])
        assert it.status.last_error
        hub.lists(row(1), etag='"1"')
        await it.refresh()
        assert (it.status.state, it.ids) == ("fresh", ["key-1"])
        assert all("if-none-match" not in request.headers for request in hub.requests)


async def test_a_name_that_is_no_utf_8_keeps_no_change_of_its_row_away(hub: FakeHub) -> None:
    rows = as_json(*(row(number) for number in range(9)), row(9, name="cafe"))
    hub.always(Answer(200, rows.replace(b"cafe", "café".encode("latin-1"))))
    async with running(hub) as it:
        assert len(it.index) == 10
        assert it.status.counters["rows_rejected"] == 0


@pytest.mark.parametrize(("good", "bad"), [(0, 1), (3, 1), (7, 2), (79, 20)])
async def test_a_list_with_more_than_20_percent_bad_rows_changes_nothing(hub: FakeHub, good: int, bad: int) -> None:
    hub.lists(row(1), row(2, name="old"), etag='"1"')
    async with running(hub) as it:
        rows = [row(2, name="new"), *(row(number) for number in range(3, 100))][:good]
        hub.lists(*rows, *(bad_row(1000 + number) for number in range(bad)), etag='"2"')
        report = await it.refresh()
        assert report.outcome == "failed"
        assert report.error is not None
        assert report.error.startswith(f"{bad} of {good + bad} rows are not widget keys")
        assert it.ids == ["key-1", "key-2"]
        assert it.status.etag == '"1"'
        await it.refresh()
        assert [request.headers.get("if-none-match") for request in hub.requests] == [None, '"1"', '"1"']


async def test_a_first_list_with_more_than_20_percent_bad_rows_is_asked_for_again_whole(hub: FakeHub) -> None:
    hub.lists(row(1), bad_row(2), etag='"1"')
    async with running(hub) as it:
        assert it.status.state == "never_loaded"
        await it.refresh()
        assert [request.headers.get("if-none-match") for request in hub.requests] == [None, None]
        assert it.status.counters["refresh_failed"] == 2


async def test_a_list_with_20_percent_bad_rows_is_accepted(hub: FakeHub) -> None:
    hub.lists(*(row(number) for number in range(4)), bad_row(4))
    async with running(hub) as it:
        assert it.ids == ["key-0", "key-1", "key-2", "key-3"]
        assert it.status.counters["rows_rejected"] == 1
        assert len(it.status.rejected) == 1
        assert "key-4" in it.status.rejected[0]


async def test_a_list_of_a_schema_without_the_suffix_field_says_what_it_has_instead(hub: FakeHub) -> None:
    hub.lists({"id": "key-1", "key_suffix": "00000001"})
    async with running(hub) as it:
        assert it.status.last_error is not None
        assert "'key_suffix'" in it.status.last_error
        assert "suffix_field=" in it.status.last_error


async def test_a_bad_row_leaves_its_key_as_it_was_and_its_neighbours_go_on(hub: FakeHub) -> None:
    neighbours = [row(number) for number in range(10, 20)]
    hub.lists(row(1), row(2), row(3), *neighbours)
    async with running(hub) as it:
        known = it.resolve(1)
        hub.lists(bad_row(1), bad_row(4), row(3, disabled_at="now"), *neighbours)
        report = await it.refresh()
        assert (report.added, report.changed, report.removed, report.rejected) == (0, 1, 1, 2)
        assert it.resolve(1) is known
        assert it.resolve(2) == "unknown"
        assert it.resolve(4) == "unknown"
        hub.lists(row(1, name="new"), *neighbours)
        await it.refresh()
        assert it.resolve(1) not in (known, "unknown")


async def test_a_bad_row_that_says_disabled_revokes_its_key_all_the_same(hub: FakeHub) -> None:
    neighbours = [row(number) for number in range(10, 20)]
    hub.lists(row(1), row(2, disabled_at="before"), *neighbours)
    async with running(hub) as it:
        hub.lists(bad_row(1, disabled_at="now"), bad_row(2), *neighbours)
        assert (await it.refresh()).changed == 1
        disabled = [it.get(row_id).disabled_at for row_id in ("key-1", "key-2")]
        assert disabled == ["now", "before"]


async def test_no_more_than_ten_bad_rows_are_told_about(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists(*(row(number) for number in range(80)), *(bad_row(number) for number in range(80, 100)))
    async with running(hub) as it:
        assert len(it.status.rejected) == 10
        assert it.status.counters["rows_rejected"] == 20
    assert sum("set aside" in record.message for record in caplog.records) == 10


async def test_an_id_that_comes_twice_is_counted_and_told(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists(row(1), row(1, disabled_at="now"), row(2))
    async with running(hub) as it:
        assert it.status.counters["duplicate_ids"] == 1
        assert it.get("key-1").disabled
    assert "'key-1' more than once" in caplog.text


async def test_keys_that_look_alike_are_told_about_once(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists(row(1), row(2, last8="00000001"))
    async with running(hub) as it:
        assert list(it.status.ambiguous) == ["00000001"]
        hub.lists(row(1), row(2, last8="00000001"), row(3))
        await it.refresh()
        assert it.resolve(1) == "ambiguous"
        hub.lists(row(1), row(3))
        await it.refresh()
        assert not it.status.ambiguous
    assert sum("…00000001" in record.message for record in caplog.records) == 1


async def test_a_long_list_is_read_with_pauses_for_others() -> None:
    source = MemorySource()
    async with running(source) as it, anyio.create_task_group() as group:
        turns = turns_before = 0

        async def take_turns() -> None:
            nonlocal turns
            while not it.ids:
                turns += 1
                await anyio.lowlevel.checkpoint()

        def note_turns() -> None:
            nonlocal turns_before
            turns_before = turns

        source.rows, source.on_fetch = [row(number) for number in range(5000)], note_turns
        group.start_soon(take_turns)
        await it.refresh()
        assert len(it.index) == 5000
        assert turns - turns_before > 5000 // 512


async def test_a_list_is_applied_whole_or_not_at_all_when_the_refresher_is_stopped_meanwhile() -> None:
    rows = [row(number) for number in range(2000)]
    for turns in range(0, 20, 3):
        it = Running(MemorySource(*rows), FakeTime(), {})
        async with anyio.create_task_group() as group:
            group.start_soon(it.refresher.run)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert len(it.index) in {0, 2000}
        assert (it.sync._shared.basis.digest is None) == (len(it.index) == 0)


# The deadline


async def test_a_fetch_is_cut_at_its_deadline_however_steadily_it_drips(hub: FakeHub) -> None:
    hub.lists(row(1))
    async with running(hub, fetch_timeout=0.5) as it:
        hub.then(Answer(200, as_json(row(2)), drip=0.05))  # it would take 12 s
        began = time.monotonic()
        report = await it.refresh()
        assert 0.4 < time.monotonic() - began < 6
        assert (report.outcome, report.error) == ("failed", "the list did not come within 0.5 s")
        assert it.ids == ["key-1"]
        assert (await it.refresh()).outcome == "unchanged"


# Strangers


async def test_strangers_cause_three_fetches_and_then_one_every_five_seconds(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=1e9) as it:

        async def ask_again_and_again() -> int:
            before = len(hub.requests)
            for _ in range(10):
                await it.refresher.refresh_for_unknown_key(15)
            return len(hub.requests) - before

        assert await ask_again_and_again() == 3
        it.time.now += 4.9
        assert await ask_again_and_again() == 0
        it.time.now += 0.2
        assert await ask_again_and_again() == 1
        it.time.now += 10
        assert await ask_again_and_again() == 2
        it.time.now += 3600
        assert await ask_again_and_again() == 3


async def test_where_fetching_takes_long_strangers_cause_one_fetch_in_five_times_as_long(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=1e9) as it:
        asked = 1

        async def a_slow_fetch() -> None:
            nonlocal asked
            hub.then(Answer(200, b"[]", hold=(hold := hub.hold())))
            async with anyio.create_task_group() as group:
                group.start_soon(it.refresher.refresh_for_unknown_key, 15)
                await hub.asked(asked := asked + 1)
                it.time.now += 4
                hold.release()

        for _ in range(3):
            await a_slow_fetch()
        it.time.now += 7
        await it.refresher.refresh_for_unknown_key(15)
        assert len(hub.requests) == 4
        it.time.now += 14
        await it.refresher.refresh_for_unknown_key(15)
        assert len(hub.requests) == 5


async def test_strangers_who_come_at_once_share_a_fetch(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=1e9) as it:
        for round_number in range(1, 4):
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(it.refresher.refresh_for_unknown_key, 15)
            assert len(hub.requests) - 1 == round_number
        await it.refresher.refresh_for_unknown_key(15)
        assert len(hub.requests) - 1 == 3


async def test_a_stranger_may_wait_for_a_fetch_that_somebody_else_wants(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=1e9) as it:
        for _ in range(3):
            await it.refresher.refresh_for_unknown_key(15)
        async with anyio.create_task_group() as group:
            with hub.held():
                group.start_soon(it.refresher.refresh)
                await hub.asked(5)
                group.start_soon(it.refresher.refresh)
                await anyio.wait_all_tasks_blocked()
                hub.lists(row(1))
            await it.refresher.refresh_for_unknown_key(15)
            assert it.ids == ["key-1"]
        assert len(hub.requests) == 6


async def test_a_stranger_waits_no_longer_than_told(hub: FakeHub) -> None:
    async with running(hub) as it:
        with hub.held():
            began = time.monotonic()
            await it.refresher.refresh_for_unknown_key(0.05)
            assert time.monotonic() - began < 4
            assert len(hub.requests) == 2
        await it.time.asleep(2)


async def test_owners_are_not_bounded_by_what_strangers_do(hub: FakeHub) -> None:
    async with running(hub) as it:
        for _ in range(10):
            await it.refresher.refresh_for_unknown_key(15)
        before = len(hub.requests)
        for _ in range(10):
            await it.refresher.refresh()
        assert len(hub.requests) - before == 10


# Nothing but shutdown ends it


async def test_a_source_that_cannot_be_opened_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    source = MemorySource(row(1))
    source.unopenable = "no such device"
    async with running(source, jitter=1.0) as it:
        await it.time.advance(10)
        assert it.time.sleeps[:6] == [0.25, 0.5, 1, 2, 2, 2]
        assert source.connections == len(it.time.sleeps)
        source.unopenable = None
        await it.time.advance(2)
        assert it.ids == ["key-1"]
    assert "could not be opened" in caplog.text


async def test_whoever_wants_a_list_of_a_source_that_cannot_be_opened_is_told_so() -> None:
    source = MemorySource(row(1))
    source.unopenable = "no such device"
    async with running(source) as it:
        report = None
        with anyio.move_on_after(5):
            report = await it.refresher.refresh()
        assert report is not None, "it waits for ever"
        assert report.outcome == "failed"
        assert it.status.last_error is not None
        assert "no such device" in it.status.last_error


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), MemoryError(), RecursionError(), ExceptionGroup("many", [OSError()])]
)
async def test_a_bug_in_a_source_ends_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    source = MemorySource(row(1))
    async with running(source) as it:
        source.broken = error
        report = await it.refresh()
        assert (report.outcome, it.ids) == ("failed", ["key-1"])
        assert report.error is not None
        assert type(error).__name__ in report.error
        source.broken, source.rows = None, [row(2)]
        await it.time.advance(10)
        assert it.ids == ["key-2"]
    assert "is a bug" in caplog.text


async def test_a_timeout_of_the_sources_own_is_a_failure_like_any_other() -> None:
    source = MemorySource(row(1))
    async with running(source) as it:
        source.broken = TimeoutError()
        assert (await it.refresh()).outcome == "failed"
        source.broken = None
        assert (await it.refresh()).outcome == "unchanged"


# What the log says


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says since it was last asked, without what stands before every line."""
    lines = [record.getMessage().removeprefix("gatekeeper: the list of widget keys ") for record in caplog.records]
    caplog.clear()
    return lines


async def test_a_failure_is_told_when_it_begins_when_it_changes_and_when_it_has_long_ended(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gatekeeper")
    async with running(hub) as it:
        assert told(caplog) == ["is fresh: 0 keys"]
        for answer in (FAILURE, FAILURE, Answer(401), Answer(401)):
            hub.then(answer)
            await it.refresh()
        failed, changed = told(caplog)
        assert "stays as it is" in failed
        assert "answered 500" in failed
        assert "answered 401" in changed
        for _ in range(5):
            await it.refresh()
        assert told(caplog) == []
        await it.refresh()
        await it.refresh()
        assert told(caplog) == ["comes again, 6 times in a row"]
        hub.then(FAILURE)
        await it.refresh()
        assert "answered 500" in told(caplog)[0]


async def test_row_8_a_hub_that_fails_every_other_time_is_told_about_once(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(hub) as it:
        caplog.set_level(logging.INFO, "gatekeeper")
        for _ in range(50):
            hub.then(FAILURE)
            await it.refresh()
            await it.refresh()
        assert len(told(caplog)) == 1


async def test_p19_each_change_of_state_is_one_line_at_the_moment_it_comes(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gatekeeper")
    async with running(hub, soft_stale=60, hard_stale=100) as it:
        hub.always(Answer(503, headers={"retry-after": "300"}))
        await it.time.advance(59)
        fresh, failed = told(caplog)
        assert (fresh, "answered 503" in failed) == ("is fresh: 0 keys", True)
        await it.time.advance(1)
        (degraded,) = told(caplog)
        assert degraded.startswith("is degraded: it is 60 s old, and still decides; ")
        assert "answered 503" in degraded
        await it.time.advance(39)
        assert told(caplog) == []
        await it.time.advance(1)
        (expired,) = told(caplog)
        assert expired.startswith("is expired: it is 100 s old, and lets no key in; ")
        await it.time.advance(1000)
        assert told(caplog) == []
        hub.lists(row(1))
        await it.refresh()
        assert told(caplog) == ["is fresh again: 1 keys"]
        await it.time.advance(1000)
        assert told(caplog) == []


async def test_p19_a_list_that_is_degraded_without_any_failure_is_told_about_too(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(hub, soft_stale=60, refresh_interval=100) as it:
        caplog.set_level(logging.INFO, "gatekeeper")
        await it.time.advance(99)
        assert told(caplog) == ["is degraded: it is 60 s old, and still decides"]
        await it.time.advance(1)
        assert told(caplog) == ["is fresh again: 0 keys"]


async def test_p20_a_wrong_token_is_told_once_without_the_token(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gatekeeper")
    hub.always(Answer(401))
    async with running(hub) as it:
        await it.time.advance(50)
        (line,) = told(caplog)
        assert "answered 401" in line
        assert TOKEN not in line
        assert TOKEN.rpartition("_")[2] not in line


async def test_a_bug_that_stays_is_told_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    source = MemorySource(row(1))
    async with running(source, soft_stale=1000) as it:
        source.broken = RuntimeError("a bug")
        await it.time.advance(100)
        assert it.status.counters["refresh_failed"] > 3
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert record.exc_info[1] is source.broken


async def test_the_worst_wait_of_the_last_minutes_is_known(hub: FakeHub) -> None:
    async with running(hub) as it:
        await it.time.advance(30)
        assert it.status.event_loop_lag == 0
        it.time.now += 12.5  # of which the wait under way was to take 10
        await it.time.wake()
        assert it.status.event_loop_lag == 2.5
        await it.time.advance(60)
        assert it.status.event_loop_lag == 2.5
        await it.time.advance(60)
        assert it.status.event_loop_lag == 0


async def test_a_wait_that_somebody_ends_is_not_late(hub: FakeHub) -> None:
    async with running(hub) as it:
        it.time.now += 1
        await it.refresh()
        assert it.status.event_loop_lag == 0


async def test_rows_that_cannot_be_read_are_counted_by_what_is_wrong(hub: FakeHub) -> None:
    bad = [bad_row(1), row(2, domain_allowlist="acme.com"), row(3, key_sha256="x"), "x", row(4, name="x" * 70_000)]
    good = [row(number) for number in range(10, 40)]
    hub.lists(*good, *bad, bad_row(5))
    async with running(hub) as it:
        counters = it.status.counters
        by_reason = {name: number for name, number in counters.items() if name.startswith("rows_rejected_")}
        assert by_reason == {
            "rows_rejected_suffix": 2,
            "rows_rejected_allowlist": 1,
            "rows_rejected_digest": 1,
            "rows_rejected_not_an_object": 1,
            "rows_rejected_too_long": 1,
        }
        assert (counters["rows_rejected"], it.status.rejected_rows) == (6, 6)
        hub.lists(*good)
        await it.refresh()
        assert (counters["rows_rejected"], it.status.rejected_rows) == (6, 0)


# Waiting for the first list


async def test_the_first_list_is_waited_for(hub: FakeHub) -> None:
    hub.lists(row(1))
    it = Running(HubSource(hub.url, TOKEN, timeout=60), FakeTime(), {})
    async with anyio.create_task_group() as group:
        group.start_soon(it.refresher.run)
        await it.refresher.schedule.first_list(15)
        assert it.ids == ["key-1"]
        await it.refresher.schedule.first_list(15)
        group.cancel_scope.cancel()


async def test_the_first_list_is_waited_for_no_longer_than_told(hub: FakeHub) -> None:
    it = Running(HubSource(hub.url, TOKEN, timeout=60), FakeTime(), {})
    with hub.held():
        async with anyio.create_task_group() as group:
            group.start_soon(it.refresher.run)
            began = time.monotonic()
            await it.refresher.schedule.first_list(0.05)
            assert time.monotonic() - began < 4
            it.time.now += 1
            await it.refresher.schedule.first_list(0.05)
            assert it.status.state == "never_loaded"
            group.cancel_scope.cancel()


async def test_a_revocation_counts_even_in_a_row_that_is_otherwise_bad(hub: FakeHub) -> None:
    rows = [row(number) for number in range(10)]
    hub.lists(*rows)
    async with running(hub) as it:
        hub.lists(*rows[1:], {**rows[0], "disabled_at": "2026-11-22", "agent_id": 7})
        report = await it.refresh()
        assert (report.outcome, report.changed, report.rejected) == ("changed", 1, 1)
        assert it.get(rows[0]["id"]).disabled


# Lists that are old, large, spoiled or known already


def dated(seconds: float, **headers: str) -> dict[str, str]:
    return {"date": formatdate(1_767_225_600 + seconds, usegmt=True), **headers}


async def test_every_ten_minutes_the_list_is_asked_for_whole(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub) as it:
        hub.clock = it.time.clock
        began = it.time.now
        await it.time.advance(1900)
        whole = [request.at - began for request in hub.requests[1:] if "if-none-match" not in request.headers]
        assert whole == [600, 1200, 1800]
        assert it.status.counters["refresh_unchanged"] == 190


@pytest.mark.parametrize("seconds", [-1, -5])
async def test_machines_of_one_hub_may_disagree_about_the_time_by_seconds(hub: FakeHub, seconds: float) -> None:
    hub.always(Answer(200, as_json(row(1)), dated(0)))
    async with running(hub) as it:
        hub.always(Answer(200, as_json(row(2)), dated(seconds)))
        assert (await it.refresh()).outcome == "changed"


async def test_a_source_whose_clock_was_set_back_is_believed_after_ten_minutes(hub: FakeHub) -> None:
    hub.always(Answer(200, as_json(row(1)), dated(0)))
    async with running(hub, hard_stale=0) as it:
        hub.always(Answer(200, as_json(row(2)), dated(-3600)))
        await it.refresh()
        assert it.ids == ["key-1"]
        assert "3600 s before the last one" in str(it.status.last_error)
        await it.time.advance(590)
        assert it.ids == ["key-1"]
        await it.time.advance(60)
        assert it.ids == ["key-2"]
        assert it.status.last_error is None
        hub.always(Answer(200, as_json(row(3)), dated(-3590)))
        assert (await it.refresh()).outcome == "changed"


async def test_the_copy_of_a_cache_is_never_believed_however_long_it_says_so(hub: FakeHub) -> None:
    hub.always(Answer(200, as_json(row(1)), dated(0)))
    async with running(hub, hard_stale=0) as it:
        hub.always(Answer(200, as_json(row(2)), dated(10, age="11")))
        await it.time.advance(3600)
        assert it.ids == ["key-1"]


async def test_clocks_that_are_right_between_two_lists_begin_the_ten_minutes_anew(hub: FakeHub) -> None:
    hub.always(Answer(200, as_json(row(1)), dated(0)))
    async with running(hub, hard_stale=0) as it:
        for _ in range(3):
            hub.always(Answer(200, as_json(row(2)), dated(-3600)))
            await it.time.advance(400)
            assert it.ids == ["key-1"]
            hub.always(Answer(200, as_json(row(1)), dated(1)))
            await it.refresh()


async def test_a_list_may_have_so_many_rows_and_no_more(hub: FakeHub) -> None:
    hub.lists(*map(row, range(100)))
    async with running(hub, max_rows=100) as it:
        assert len(it.index) == 100
        hub.lists(*map(row, range(1, 102)))
        report = await it.refresh()
        assert (report.outcome, report.error) == (
            "failed",
            "the list has more than 100 rows: expected those of one account",
        )
        assert it.get("key-0")


async def test_where_a_list_takes_long_to_read_the_next_one_comes_after_five_times_as_long() -> None:
    fake = FakeTime()

    def ticking() -> float:
        fake.now += 1
        return fake.now

    source = MemorySource(*map(row, range(2000)))
    it = Running(source, fake, {"clock": ticking, "refresh_interval": 3.0, "hard_stale": 0})
    async with anyio.create_task_group() as group:
        group.start_soon(it.refresher.run)
        await fake.asleep()
        await it.refresh()
        assert len(fake.sleeps) == 2
        # To read each of the slices took a second by this clock, and to apply them took one more.
        assert all(seconds >= 5 * 2 for seconds in fake.sleeps)
        group.cancel_scope.cancel()


async def test_a_key_that_is_kept_for_a_bad_row_is_trusted_no_longer_than_a_list(hub: FakeHub) -> None:
    others = [row(number) for number in range(2, 10)]
    hub.lists(row(1), *others)
    async with running(hub, hard_stale=100) as it:
        hub.lists(bad_row(1), *others)
        await it.refresh()
        await it.time.advance(95)
        assert "key-1" in it.ids
        assert it.status.state == "fresh"
        await it.time.advance(20)
        assert "key-1" not in it.ids
        assert len(it.index) == len(others)
        hub.lists(row(1), *others)
        await it.refresh()
        assert "key-1" in it.ids
        hub.lists(bad_row(1), *others)
        await it.time.advance(60)
        assert "key-1" in it.ids


async def test_a_key_is_kept_for_a_bad_row_for_ever_where_lists_never_expire(hub: FakeHub) -> None:
    others = [row(number) for number in range(2, 10)]
    hub.lists(row(1), *others)
    async with running(hub, hard_stale=0) as it:
        hub.lists(bad_row(1), *others)
        it.time.now += 1e9
        await it.refresh()
        it.time.now += 1e9
        await it.refresh()
        assert "key-1" in it.ids


async def test_nobody_is_told_unchanged_about_a_list_that_is_held(hub: FakeHub) -> None:
    hub.lists(*map(row, range(20)), etag='"all"')
    async with running(hub) as it:
        hub.lists(row(0), etag='"one"')
        reports = [await it.refresh() for _ in range(4)]
        assert [request.headers.get("if-none-match") for request in hub.requests] == [None, '"all"', None, None, '"one"']
        assert [(report.outcome, report.held, report.removed) for report in reports] == [
            ("unchanged", 19, 0),
            ("unchanged", 19, 0),
            ("changed", 0, 19),
            ("unchanged", 0, 0),
        ]
        assert it.status.counters["removals_held"] == 2
        assert it.status.held == 0


async def test_what_the_last_list_had_too_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_slice = ListReader.read

    def reading(reader: ListReader, piece: Slice) -> Any:
        read.append(len(piece.raw))
        return read_slice(reader, piece)

    monkeypatch.setattr(ListReader, "read", reading)
    rows_now = [row(number, name="n" * 300) for number in range(4000)]
    source = MemorySource(*rows_now)
    async with running(source) as it:
        in_all = sum(read)
        read.clear()
        assert (await it.refresh()).outcome == "unchanged"
        assert read == []
        for number in (0, 2000, 3999):
            read.clear()
            rows_now[number] = row(number, disabled_at="now", name="n" * 300)
            source.rows = list(rows_now)
            assert (await it.refresh()).changed == 1
            assert 0 < sum(read) < in_all / 2
            assert it.get(f"key-{number}").disabled
        read.clear()
        await it.refresh()
        assert read == []
        assert it.status.generation == 4


async def test_what_is_not_read_again_stays_right_whatever_changes() -> None:
    dice = random.Random(17)
    rows = {f"key-{number}": row(number, name="n" * 300) for number in range(1500)}
    source = MemorySource(*rows.values())
    async with running(source) as it:
        for turn in range(25):
            for row_id in dice.sample(sorted(rows), 3):
                kind = dice.choice(["revoke", "remove", "move", "add"])
                if kind == "revoke":
                    rows[row_id] = {**rows[row_id], "disabled_at": None if rows[row_id]["disabled_at"] else "now"}
                elif kind == "remove":
                    del rows[row_id]
                elif kind == "move":
                    rows[row_id] = rows.pop(row_id)
                else:
                    number = 10_000 + 10 * turn + dice.randrange(10)
                    rows = {f"key-{number}": row(number), **rows}
            source.rows = list(rows.values())
            await it.refresh()
            assert {key.id: key.disabled for key in it.index} == {
                row_id: bool(one["disabled_at"]) for row_id, one in rows.items()
            }


@pytest.mark.parametrize(
    ("disabled_at", "lag"),
    [
        (["2026-01-01T00:00:00Z"], 60),
        (["2026-01-01T00:00:30+00:00", "2026-01-01T00:00:50Z"], 30),
        (["2026-01-01T00:00:40"], 20),
        (["2026-01-01T09:00:00Z"], 0),
        (["now", True], None),
        (["now", "2026-01-01T00:00:59Z"], 1),
        ([], None),
    ],
)
async def test_the_lag_of_a_revocation_is_told_for_the_slowest_of_a_list(
    hub: FakeHub, disabled_at: list[Any], lag: float | None
) -> None:
    hub.lists(*map(row, range(5)), row(9, disabled_at="2020-01-01T00:00:00Z"))
    async with running(hub, wall_clock=lambda: 1_767_225_660.0) as it:
        assert it.status.revocation_lag is None
        hub.lists(
            *(row(number, disabled_at=at) for number, at in enumerate(disabled_at)), *map(row, range(len(disabled_at), 5))
        )
        await it.refresh()
        assert it.status.revocation_lag == lag
        await it.refresh()
        assert it.status.revocation_lag == lag


async def test_whoever_stops_it_while_a_list_is_applied_finds_the_old_list_or_the_new_one() -> None:
    old = [row(number) for number in range(3000)]
    new = [row(number, disabled_at="now") for number in range(1500)] + [row(number) for number in range(5000, 6500)]
    before = {key["id"]: False for key in old}
    after = {key["id"]: key["disabled_at"] is not None for key in new}

    async def stopped_after(turns: int) -> tuple[dict[str, bool], int]:
        """Stop it so many turns after it was told to fetch the new list; what is there then, and how many it took."""
        source, taken = MemorySource(*old), 0
        async with running(source) as it:
            source.rows = new
            async with anyio.create_task_group() as group:
                group.start_soon(it.refresher.refresh)
                while taken < turns and it.status.generation == 1:
                    taken += 1
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
                it.stop()
        found = {key.id: key.disabled for key in it.index}
        assert it.status.generation == 1 + (found == after)
        assert not it.sync._shared.is_overtaken(it.status.generation)
        return found, taken

    found, turns = await stopped_after(10_000)
    assert found == after
    outcomes = [(await stopped_after(turn))[0] for turn in range(0, turns, max(1, turns // 60))]
    assert all(found in (before, after) for found in outcomes)
    assert before in outcomes
    assert after in outcomes, "it was never stopped while it was applying"
