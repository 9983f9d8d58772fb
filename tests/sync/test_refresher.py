"""The refresher over sockets and a fake clock: when it fetches, what a list changes, and that failures change nothing.

Cadence, RemovalGuard and RefreshLog have tables of their own in test_cadence.py, test_applying.py and test_log.py.
"""

import logging
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import anyio
import pytest

from gatekeeper import Basis, HubSource, Unchanged
from gatekeeper.keys.slices import ListReader, Slice
from gatekeeper.sync.status import RefreshReport
from gatekeeper.testing import FakeClock
from gatekeeper.testing.fake_hub import GARBAGE, HANG_UP, PATH, FakeHub, HubAnswer, json_answer
from tests.support.memory_source import MemorySource
from tests.support.refreshing import Running, running
from tests.support.rows import TOKEN, as_json, bad_row, row

pytestmark = pytest.mark.anyio

FAILURE = HubAnswer(500)
FAILURES = {
    "500": FAILURE,
    "401": json_answer("Invalid token", 401),
    "403": HubAnswer(403),
    "404": HubAnswer(404),
    "400": json_answer("Missing X-Account-ID header", 400),
    "429": HubAnswer(429),
    "a redirect": HubAnswer(302, headers={"location": "https://login.example"}),
    "hangs up": HANG_UP,
    "garbage": GARBAGE,
    "too short": HubAnswer(200, as_json(row(2)), {"content-length": "10000"}, hang_up=True),
    "truncated": HubAnswer(200, as_json(row(2), row(3))[:-5]),
    "HTML": HubAnswer(200, b"<html>log in</html>", {"content-type": "text/html"}),
    "an object": json_answer({"data": [row(2)]}),
    "null": json_answer(None),
    "a string": json_answer("[]"),
    "a number": json_answer(7),
    "nothing": HubAnswer(200, b""),
    "NaN": HubAnswer(200, b"NaN"),
    "UTF-16": HubAnswer(200, "[]".encode("utf-16")),
    "Latin-1": HubAnswer(200, b'["\xe9"]'),
    "deep": HubAnswer(200, b"[" * 100_000),
    "deep rows": HubAnswer(200, b"[" + b'{"id":' * 100_000 + b"]"),
    "foreign rows": json_answer([{"user": "alice"}, {"user": "bob"}]),
    "no rows": json_answer([1, None, "x"]),
}


# Cadence


async def test_the_first_fetch_is_made_immediately(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))
    async with running(hub) as it:
        assert it.ids == ["key-1", "key-2"]
        assert len(hub.requests) == 1
        assert it.time.now == FakeClock().now


async def test_an_unchanged_list_is_polled_at_the_interval(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub) as it:
        await it.time.advance(100)
        assert it.time.sleeps == [10.0] * 11
        assert len(hub.requests) == 11


async def test_a_success_resets_the_backoff(hub: FakeHub) -> None:
    async with running(hub, jitter=1.0) as it:
        hub.then(FAILURE, FAILURE, FAILURE)
        await it.time.advance(12 + 1 + 2 + 4)
        assert it.time.sleeps[1:] == [1, 2, 4, 12]
        hub.then(FAILURE)
        await it.time.advance(12)
        assert it.time.sleeps[5:] == [1]


# Single-flight


async def test_refreshes_during_a_fetch_share_exactly_one_more(hub: FakeHub) -> None:
    hub.lists()
    async with running(hub) as it:
        reports: list[RefreshReport] = []

        async def refresh() -> None:
            reports.append(await it.refresher.refresh())

        async with anyio.create_task_group() as group:
            with hub.held() as hold:
                group.start_soon(it.refresher.refresh)
                await hub.asked(2)
                hub.lists(row(1))
                for _ in range(50):
                    group.start_soon(refresh)
                await anyio.wait_all_tasks_blocked()
                assert len(hub.requests) == 2
                hold.release()
                await hub.asked(3)
        await it.time.asleep(2)
        assert len(hub.requests) == 3
        assert {report.outcome for report in reports} == {"changed"}
        assert it.ids == ["key-1"]


async def test_a_refresh_reports_what_has_changed(hub: FakeHub) -> None:
    hub.lists(row(1), row(2), row(3))
    async with running(hub) as it:
        hub.lists(row(2, name="new"), row(3), row(4), row(5), row(6), bad_row(7))
        report = await it.refresh()
        assert (report.outcome, report.added, report.changed, report.removed, report.rejected) == ("changed", 3, 1, 1, 1)
        assert report.error is None
        assert it.status.counters["refresh_changed"] == 2


async def test_a_failed_refresh_reports_its_error_and_duration(hub: FakeHub) -> None:
    async with running(hub) as it, anyio.create_task_group() as group:
        hub.then(HubAnswer(429, headers={"retry-after": "7"}, hold=(hold := hub.hold())))

        async def take_time() -> None:
            await hub.asked(2)
            it.time.now += 3
            hold.release()

        group.start_soon(take_time)
        report = await it.refresh()
        assert (report.outcome, report.retry_after, report.lasting, report.duration) == ("failed", 7.0, False, 3.0)
        assert report.error is not None
        assert "429" in report.error


async def test_stopping_releases_waiting_requests(hub: FakeHub) -> None:
    reports: list[RefreshReport] = []
    fake = FakeClock()
    it = Running(HubSource(hub.url, TOKEN, timeout=60), fake, {})

    async def refresh() -> None:
        reports.append(await it.refresher.refresh())

    with hub.held():
        async with anyio.create_task_group() as waiting, anyio.create_task_group() as group:
            group.start_soon(it.refresher.run)
            await hub.asked(1)
            waiting.start_soon(refresh)
            waiting.start_soon(refresh)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert [(report.outcome, report.error) for report in reports] == [("failed", "the refresher was stopped")] * 2


async def test_a_stopped_refresher_fails_a_refresh_immediately(hub: FakeHub) -> None:
    async with running(hub) as it:
        pass
    with anyio.fail_after(15):
        assert (await it.refresher.refresh()).outcome == "failed"
    assert len(hub.requests) == 1


# Lists


async def test_a_304_for_the_known_list_makes_it_fresh(hub: FakeHub) -> None:
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


async def test_a_304_without_a_known_list_fails(hub: FakeHub) -> None:
    hub.then(HubAnswer(304))
    hub.lists(row(1))
    async with running(hub) as it:
        assert it.status.state == "never_loaded"
        await it.time.advance(2)
        assert it.ids == ["key-1"]


async def test_unchanged_without_a_known_list_fails() -> None:
    class Empty(MemorySource):
        @asynccontextmanager
        async def updates(self, basis: Basis) -> AsyncIterator[Unchanged]:
            self.validators.append(basis.validator)
            yield Unchanged()

    async with running(Empty()) as it:
        assert it.status.state == "never_loaded"


async def test_equal_bytes_under_another_etag_are_not_parsed(hub: FakeHub) -> None:
    rows = [*(row(number) for number in range(9)), bad_row(9)]
    hub.lists(*rows, etag='"1"')
    async with running(hub) as it:
        counters, changes = dict(it.status.counters), it.changes
        assert counters["rows_rejected"] == 1
        hub.lists(*rows, etag='"2"')
        assert (await it.refresh()).outcome == "unchanged"
        assert it.status.counters["rows_rejected"] == 1
        assert (it.changes, it.status.generation, it.status.etag) == (changes, 1, '"2"')


async def test_equal_rows_in_other_bytes_change_nothing(hub: FakeHub) -> None:
    hub.always(HubAnswer(200, as_json(row(1))))
    async with running(hub) as it:
        changes = it.changes
        hub.always(HubAnswer(200, b" \n" + as_json(row(1))))
        assert (await it.refresh()).outcome == "unchanged"
        assert (it.changes, it.status.generation) == (changes, 1)


async def test_each_change_calls_on_change(hub: FakeHub) -> None:
    hub.lists(row(1))
    async with running(hub) as it:
        changes = it.changes
        for change in (row(1, disabled_at="now"), row(1), row(1, domain_allowlist=[])):
            hub.lists(change)
            await it.refresh()
            assert it.changes > changes
            changes = it.changes
        assert it.status.generation == 4


@pytest.mark.parametrize("fault", FAILURES)
async def test_a_failure_changes_no_decision(hub: FakeHub, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub) as it:
        known, changes, generation = it.resolve(1), it.changes, it.status.generation
        hub.always(FAILURES[fault])
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
        assert len(warnings) == 1, "the same failure is logged once, and is no bug"
        hub.lists(row(1), row(2))
        assert (await it.refresh()).outcome == "changed"
        assert (it.status.last_error, it.status.age) == (None, 0)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("fault", FAILURES)
async def test_a_first_list_that_fails_leaves_nothing_behind(hub: FakeHub, fault: str) -> None:
    hub.always(FAILURES[fault])
    async with running(hub) as it:
        assert (it.status.state, it.status.age, it.ids) == ("never_loaded", None, [])
        assert it.status.last_error
        hub.lists(row(1), etag='"1"')
        await it.refresh()
        assert (it.status.state, it.ids) == ("fresh", ["key-1"])
        assert all("if-none-match" not in request.headers for request in hub.requests)


async def test_a_name_that_is_not_utf_8_rejects_no_row(hub: FakeHub) -> None:
    rows = as_json(*(row(number) for number in range(9)), row(9, name="cafe"))
    hub.always(HubAnswer(200, rows.replace(b"cafe", "café".encode("latin-1"))))
    async with running(hub) as it:
        assert len(it.index) == 10
        assert it.status.counters["rows_rejected"] == 0


@pytest.mark.parametrize(("good", "bad"), [(0, 1), (3, 1), (7, 2), (79, 20)])
async def test_a_list_with_over_20_percent_bad_rows_changes_nothing(hub: FakeHub, good: int, bad: int) -> None:
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


async def test_a_first_list_with_over_20_percent_bad_rows_is_fetched_again(hub: FakeHub) -> None:
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


async def test_a_bad_row_leaves_its_key_unchanged_and_others_apply(hub: FakeHub) -> None:
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


async def test_a_bad_row_with_disabled_at_still_revokes_its_key(hub: FakeHub) -> None:
    neighbours = [row(number) for number in range(10, 20)]
    hub.lists(row(1), row(2, disabled_at="before"), *neighbours)
    async with running(hub) as it:
        hub.lists(bad_row(1, disabled_at="now"), bad_row(2), *neighbours)
        assert (await it.refresh()).changed == 1
        disabled = [it.get(row_id).disabled_at for row_id in ("key-1", "key-2")]
        assert disabled == ["now", "before"]


async def test_at_most_ten_bad_rows_are_logged(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists(*(row(number) for number in range(80)), *(bad_row(number) for number in range(80, 100)))
    async with running(hub) as it:
        assert len(it.status.rejected) == 10
        assert it.status.counters["rows_rejected"] == 20
    assert sum("set aside" in record.message for record in caplog.records) == 10


async def test_reading_a_long_list_yields_to_the_event_loop() -> None:
    source = MemorySource()
    async with running(source) as it, anyio.create_task_group() as group:
        turns = turns_before = 0

        async def count_turns() -> None:
            nonlocal turns
            while not it.ids:
                turns += 1
                await anyio.lowlevel.checkpoint()

        def note_turns() -> None:
            nonlocal turns_before
            turns_before = turns

        source.rows, source.on_fetch = [row(number) for number in range(5000)], note_turns
        group.start_soon(count_turns)
        await it.refresh()
        assert len(it.index) == 5000
        assert turns - turns_before > 5000 // 512


async def test_a_refresher_stopped_during_a_load_leaves_no_partial_list() -> None:
    rows = [row(number) for number in range(2000)]
    for turns in range(0, 20, 3):
        it = Running(MemorySource(*rows), FakeClock(), {})
        async with anyio.create_task_group() as group:
            group.start_soon(it.refresher.run)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert len(it.index) in {0, 2000}
        assert (it.sync._shared.basis.digest is None) == (len(it.index) == 0)


# Unknown keys


@pytest.mark.slow
async def test_unknown_keys_cause_fewer_fetches_from_a_slow_hub(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=1e9) as it:
        asked = 1

        async def a_slow_fetch() -> None:
            nonlocal asked
            hub.then(HubAnswer(200, b"[]", hold=(hold := hub.hold())))
            async with anyio.create_task_group() as group:
                group.start_soon(it.refresher.refresh_for_unknown_key, 4.9)
                await hub.asked(asked := asked + 1)
                it.time.now += 4
                hold.release()

        for _ in range(3):
            await a_slow_fetch()
        it.time.now += 7
        await it.refresher.refresh_for_unknown_key(4.9)
        assert len(hub.requests) == 4
        it.time.now += 14
        await it.refresher.refresh_for_unknown_key(4.9)
        assert len(hub.requests) == 5


async def test_concurrent_unknown_keys_share_a_fetch(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=1e9) as it:
        for round_number in range(1, 4):
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(it.refresher.refresh_for_unknown_key, 4.9)
            assert len(hub.requests) - 1 == round_number
        await it.refresher.refresh_for_unknown_key(4.9)
        assert len(hub.requests) - 1 == 3


async def test_an_unknown_key_may_join_a_fetch_beyond_its_budget(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=1e9) as it:
        for _ in range(3):
            await it.refresher.refresh_for_unknown_key(4.9)
        async with anyio.create_task_group() as group:
            with hub.held():
                group.start_soon(it.refresher.refresh)
                await hub.asked(5)
                group.start_soon(it.refresher.refresh)
                await anyio.wait_all_tasks_blocked()
                hub.lists(row(1))
            await it.refresher.refresh_for_unknown_key(4.9)
            assert it.ids == ["key-1"]
        assert len(hub.requests) == 6


async def test_an_unknown_key_has_waited_although_no_fetch_was_allowed_then(hub: FakeHub) -> None:
    """Another fetch may have ended meanwhile, and brought the key."""
    async with running(hub, refresh_interval=1e9) as it:
        for _ in range(3):
            assert await it.refresher.refresh_for_unknown_key(4.9)
        assert not await it.refresher.refresh_for_unknown_key(4.9)
        it.time.now += 0.5
        waited: list[bool] = []

        async def ask() -> None:
            waited.append(await it.refresher.refresh_for_unknown_key(4.9))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            it.refresher.left_alone_until = math.inf
            it.time.now += 4.5
            await it.time.wake_all()
        assert waited == [True]
        assert len(hub.requests) == 4


async def test_an_unknown_key_waits_no_longer_than_its_timeout(hub: FakeHub) -> None:
    async with running(hub) as it:
        with hub.held():
            began = time.monotonic()
            await it.refresher.refresh_for_unknown_key(0.05)
            assert time.monotonic() - began < 30
            assert len(hub.requests) == 2
        await it.time.asleep(2)


async def test_forced_refreshes_are_not_bounded_by_the_budget(hub: FakeHub) -> None:
    async with running(hub) as it:
        for _ in range(10):
            await it.refresher.refresh_for_unknown_key(4.9)
        before = len(hub.requests)
        for _ in range(10):
            await it.refresher.refresh()
        assert len(hub.requests) - before == 10


# Bugs and broken sources


async def test_a_source_that_cannot_be_opened_is_retried(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_a_refresh_of_an_unopenable_source_reports_it() -> None:
    source = MemorySource(row(1))
    source.unopenable = "no such device"
    async with running(source) as it:
        report = None
        with anyio.move_on_after(5):
            report = await it.refresher.refresh()
        assert report is not None, "the refresh never returned"
        assert report.outcome == "failed"
        assert it.status.last_error is not None
        assert "no such device" in it.status.last_error


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), MemoryError(), RecursionError(), ExceptionGroup("many", [OSError()])]
)
async def test_a_bug_in_a_source_does_not_end_the_loop(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
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


async def test_a_timeout_in_a_source_is_a_failure() -> None:
    source = MemorySource(row(1))
    async with running(source) as it:
        source.broken = TimeoutError()
        assert (await it.refresh()).outcome == "failed"
        source.broken = None
        assert (await it.refresh()).outcome == "unchanged"


# Log and status


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines since the last call, without their common prefix."""
    lines = [record.getMessage().removeprefix("gatekeeper: the list of widget keys ") for record in caplog.records]
    caplog.clear()
    return lines


@pytest.mark.slow
async def test_each_change_of_state_is_logged_when_it_happens(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists()
    caplog.set_level(logging.INFO, "gatekeeper")
    async with running(hub, soft_stale=60, hard_stale=100) as it:
        hub.always(HubAnswer(503, headers={"retry-after": "300"}))
        await it.time.advance(59)
        fresh, failed = logged(caplog)
        assert (fresh, "answered 503" in failed) == ("is fresh: 0 keys", True)
        await it.time.advance(1)
        (degraded,) = logged(caplog)
        assert degraded.startswith("is degraded: it is 60 s old, and still decides; ")
        assert "answered 503" in degraded
        await it.time.advance(39)
        assert logged(caplog) == []
        await it.time.advance(1)
        (expired,) = logged(caplog)
        assert expired.startswith("is expired: it is 100 s old, and lets no key in; ")
        await it.time.advance(1000)
        assert logged(caplog) == []
        hub.lists(row(1))
        await it.refresh()
        assert logged(caplog) == ["is fresh again: 1 keys"]
        await it.time.advance(1000)
        assert logged(caplog) == []


async def test_a_lasting_bug_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    source = MemorySource(row(1))
    async with running(source, soft_stale=1000) as it:
        source.broken = RuntimeError("a bug")
        await it.time.advance(100)
        assert it.status.counters["refresh_failed"] > 3
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert record.exc_info[1] is source.broken


async def test_the_status_has_the_worst_lag_of_the_event_loop() -> None:
    async with running(MemorySource()) as it:
        await it.time.advance(30)
        assert it.status.event_loop_lag == 0
        it.time.now += 12.5  # the current wait should take 10
        await it.time.wake()
        assert it.status.event_loop_lag == 2.5
        await it.time.advance(60)
        assert it.status.event_loop_lag == 2.5
        await it.time.advance(60)
        assert it.status.event_loop_lag == 0


async def test_a_pause_ended_by_a_refresh_is_not_late() -> None:
    async with running(MemorySource()) as it:
        it.time.now += 1
        await it.refresh()
        assert it.status.event_loop_lag == 0


async def test_rejected_rows_are_counted_by_reason(hub: FakeHub) -> None:
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


# The first list


async def test_requests_wait_for_the_first_list(hub: FakeHub) -> None:
    hub.lists(row(1))
    it = Running(HubSource(hub.url, TOKEN, timeout=60), FakeClock(), {})
    async with anyio.create_task_group() as group:
        group.start_soon(it.refresher.run)
        await it.refresher.schedule.first_list(15)
        assert it.ids == ["key-1"]
        await it.refresher.schedule.first_list(15)
        group.cancel_scope.cancel()


async def test_requests_wait_for_the_first_list_no_longer_than_allowed(hub: FakeHub) -> None:
    it = Running(HubSource(hub.url, TOKEN, timeout=60), FakeClock(), {})
    with hub.held():
        async with anyio.create_task_group() as group:
            group.start_soon(it.refresher.run)
            began = time.monotonic()
            await it.refresher.schedule.first_list(0.05)
            assert time.monotonic() - began < 30
            it.time.now += 1
            await it.refresher.schedule.first_list(0.05)
            assert it.status.state == "never_loaded"
            group.cancel_scope.cancel()


async def test_a_revocation_in_a_bad_row_applies(hub: FakeHub) -> None:
    rows = [row(number) for number in range(10)]
    hub.lists(*rows)
    async with running(hub) as it:
        hub.lists(*rows[1:], {**rows[0], "disabled_at": "2026-11-22", "agent_id": 7})
        report = await it.refresh()
        assert (report.outcome, report.changed, report.rejected) == ("changed", 1, 1)
        assert it.get(rows[0]["id"]).disabled


# Old, large, bad and known lists


def dated(seconds: float, **headers: str) -> dict[str, str]:
    return {"date": formatdate(1_767_225_600 + seconds, usegmt=True), **headers}


async def test_the_whole_list_is_fetched_every_ten_minutes(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub) as it:
        hub.clock = it.time
        began = it.time.now
        await it.time.advance(1900)
        whole = [request.at - began for request in hub.requests[1:] if "if-none-match" not in request.headers]
        assert whole == [600, 1200, 1800]
        assert it.status.counters["refresh_unchanged"] == 190


@pytest.mark.parametrize("seconds", [-1, -5])
async def test_lists_may_be_older_by_up_to_five_seconds(hub: FakeHub, seconds: float) -> None:
    hub.always(HubAnswer(200, as_json(row(1)), dated(0)))
    async with running(hub) as it:
        hub.always(HubAnswer(200, as_json(row(2)), dated(seconds)))
        assert (await it.refresh()).outcome == "changed"


async def test_an_older_list_whose_date_goes_on_is_accepted_after_ten_minutes(hub: FakeHub) -> None:
    """The clock of the hub was set back by an hour."""
    hub.always(HubAnswer(200, as_json(row(1)), dated(0)))
    async with running(hub, hard_stale=0) as it:
        began = it.time.now
        hub.always(lambda _: HubAnswer(200, as_json(row(2)), dated(it.time.now - began - 3600)))
        await it.refresh()
        assert it.ids == ["key-1"]
        assert "3600 s before the last one" in str(it.status.last_error)
        await it.time.advance(590)
        assert it.ids == ["key-1"]
        await it.time.advance(60)
        assert it.ids == ["key-2"]
        assert it.status.last_error is None
        assert (await it.refresh()).outcome == "unchanged"


@pytest.mark.slow
async def test_an_older_list_whose_date_stands_still_is_never_accepted(hub: FakeHub) -> None:
    """A cache that says neither its age nor a date of its own keeps the list."""
    hub.always(HubAnswer(200, as_json(row(1, disabled_at="now"), row(2)), dated(0)))
    async with running(hub, hard_stale=0) as it:
        hub.always(HubAnswer(200, as_json(row(1), row(3)), dated(-10)))
        await it.time.advance(3600)
        assert it.ids == ["key-1", "key-2"]
        assert it.get("key-1").disabled
        assert it.status.age == 3600


async def test_an_older_list_revokes_keys_immediately(hub: FakeHub) -> None:
    """The clock of the hub was set back, and a key was revoked since."""
    hub.always(HubAnswer(200, as_json(row(1), row(2, disabled_at="now")), dated(0)))
    async with running(hub) as it:
        revoked = as_json(row(1, disabled_at="2026-01-01", name="renamed"), row(2), row(3))
        hub.always(HubAnswer(200, revoked, dated(-3600)))
        report = await it.refresh()
        assert (report.outcome, it.status.state) == ("failed", "fresh")
        assert [(key.id, key.disabled, key.name) for key in sorted(it.index, key=lambda key: key.id)] == [
            ("key-1", True, "shop"),
            ("key-2", True, "shop"),
        ]
        assert it.status.generation == 2
        changes = it.changes
        await it.refresh()
        assert it.changes == changes


async def test_of_a_row_with_an_older_updated_at_only_a_revocation_counts(hub: FakeHub) -> None:
    """Nginx writes a Date of its own and no Age, so that an old copy of the list looks like a new one."""
    noon, one = "2026-01-02T12:00:00Z", "2026-01-02T13:00:00Z"
    hub.lists(row(1, updated_at=one, disabled_at=one), row(2, updated_at=one), etag='"2"')
    async with running(hub) as it:
        hub.lists(row(1, updated_at=noon), row(2, updated_at=noon, disabled_at=noon, name="renamed"), etag='"1"')
        assert (await it.refresh()).outcome == "changed"
        assert [(it.get(each).disabled, it.get(each).name) for each in it.ids] == [(True, "shop"), (True, "shop")]
        assert it.status.counters["rows_overruled"] == 2
        assert it.status.etag is None  # the index is not equal to the list of that name
        await it.refresh()
        assert "if-none-match" not in hub.requests[-1].headers
        hub.lists(row(1, updated_at=one), row(2, updated_at="2026-01-02T14:00:00Z"), etag='"3"')
        await it.refresh()
        assert [it.get(each).disabled for each in it.ids] == [False, False]
        assert it.status.etag == '"3"'


async def test_a_trusted_refresh_takes_a_restored_hub_as_it_is(hub: FakeHub) -> None:
    noon, one = "2025-12-31T12:00:00Z", "2025-12-31T13:00:00Z"
    rows = [row(number, updated_at=one, disabled_at=one) for number in range(20)]
    hub.always(HubAnswer(200, as_json(*rows), dated(0, etag='"2"')))
    async with running(hub) as it:
        hub.always(HubAnswer(200, as_json(row(1, updated_at=noon)), dated(-3600, etag='"1"')))
        assert (await it.refresh()).outcome == "failed"
        slept = len(it.time.sleeps)
        report = await it.refresher.refresh(trust=True)
        await it.time.asleep(slept + 1)
        assert (report.outcome, report.changed, report.removed, report.held) == ("changed", 1, 19, 0)
        assert "if-none-match" not in hub.requests[-1].headers
        assert not it.get("key-1").disabled
        hub.always(HubAnswer(200, as_json(row(1, updated_at="2025-12-31T11:00:00Z", name="older")), dated(-3600)))
        await it.refresh()
        assert it.get("key-1").name == "shop"  # the next one is not trusted


@pytest.mark.slow
async def test_an_older_copy_of_a_cache_is_never_accepted(hub: FakeHub) -> None:
    hub.always(HubAnswer(200, as_json(row(1)), dated(0)))
    async with running(hub, hard_stale=0) as it:
        hub.always(HubAnswer(200, as_json(row(2)), dated(10, age="11")))
        await it.time.advance(3600)
        assert it.ids == ["key-1"]


@pytest.mark.slow
async def test_a_newer_list_restarts_the_ten_minutes(hub: FakeHub) -> None:
    hub.always(HubAnswer(200, as_json(row(1)), dated(0)))
    async with running(hub, hard_stale=0) as it:
        for _ in range(3):
            hub.always(HubAnswer(200, as_json(row(2)), dated(-3600)))
            await it.time.advance(400)
            assert it.ids == ["key-1"]
            hub.always(HubAnswer(200, as_json(row(1)), dated(1)))
            await it.refresh()


async def test_a_list_with_too_many_rows_changes_nothing(hub: FakeHub) -> None:
    hub.lists(*map(row, range(100)))
    async with running(hub, max_rows=100) as it:
        assert len(it.index) == 100
        hub.lists(*map(row, range(1, 102)))
        report = await it.refresh()
        said = "answered 200 with no usable list: the list has more than 100 rows: expected fewer"
        assert (report.outcome, report.error) == ("failed", f"the hub at {hub.url}{PATH} {said}")
        assert it.get("key-0")


async def test_the_next_fetch_waits_five_times_as_long_as_the_list_took() -> None:
    fake = FakeClock()

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
        # By this clock each slice takes a second to read, and the list one more to apply.
        assert all(seconds >= 5 * 2 for seconds in fake.sleeps)
        group.cancel_scope.cancel()


async def test_a_key_retained_for_a_bad_row_expires_as_a_list_does(hub: FakeHub) -> None:
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


async def test_a_key_is_retained_for_ever_where_lists_never_expire(hub: FakeHub) -> None:
    others = [row(number) for number in range(2, 10)]
    hub.lists(row(1), *others)
    async with running(hub, hard_stale=0) as it:
        hub.lists(bad_row(1), *others)
        it.time.now += 1e9
        await it.refresh()
        it.time.now += 1e9
        await it.refresh()
        assert "key-1" in it.ids


async def test_a_held_list_is_fetched_unconditionally(hub: FakeHub) -> None:
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


async def test_known_slices_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.slow
async def test_known_slices_stay_right_through_any_changes() -> None:
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


@pytest.mark.slow
async def test_a_refresher_stopped_while_applying_leaves_no_partial_list() -> None:
    old = [row(number) for number in range(3000)]
    new = [row(number, disabled_at="now") for number in range(1500)] + [row(number) for number in range(5000, 6500)]
    before = {key["id"]: False for key in old}
    after = {key["id"]: key["disabled_at"] is not None for key in new}

    async def stopped_after(turns: int) -> tuple[dict[str, bool], int]:
        """Stop a refresh after some turns of the event loop; return the keys found and the turns taken."""
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
    assert after in outcomes, "it was never stopped while applying"
