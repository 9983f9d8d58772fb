"""Reports on used keys: no count is lost, and no request waits."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gatekeeper import Gatekeeper, GatekeeperMiddleware, HubClient, HubSource, Reason, Source
from gatekeeper.client import KeyUsage
from gatekeeper.errors import HubServerError
from gatekeeper.gate.memo import MOST_ALLOWED
from gatekeeper.sync.reports import Reporter
from gatekeeper.sync.usage import BATCH, usage_report
from gatekeeper.testing import FakeClock
from gatekeeper.testing.fake_hub import GARBAGE, HANG_UP, PATH, FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.forked import forked
from tests.support.guarded import Guarded, guarded, hub_source
from tests.support.memory_source import MemorySource
from tests.support.real_hub import served_hub
from tests.support.refreshing import running
from tests.support.remembered import leases_of
from tests.support.rows import ORIGIN, TOKEN, as_json, client_key, row

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
TAKEN = HubAnswer(204)
ROWS = [row(1), row(2), row(3, disabled_at="now")]

pytestmark = pytest.mark.anyio


def reporting(hub: FakeHub | Source, **options: Any) -> AbstractAsyncContextManager[Guarded]:
    """Run a gate that reports every 30 seconds by default."""
    return guarded(hub, **{"usage_interval": 30.0, **options})


class Taker(FakeHub):
    """A hub with keys, whose answers to reports can be set."""

    def __init__(self) -> None:
        super().__init__(*ROWS)
        self.answer = TAKEN
        self.listed = ROWS
        self.always(lambda request: self.answer if request.method == "POST" else HubAnswer(200, as_json(*self.listed)))

    @property
    def reports(self) -> list[HubRequest]:
        """The requests with reports."""
        return [request for request in self.requests if request.target == f"{PATH}/usage"]

    @property
    def counts(self) -> list[dict[str, int]]:
        """The counts by key, report by report."""
        return [{row_id: usage["count"] for row_id, usage in request.json.items()} for request in self.reports]


@pytest.fixture
def hub() -> Iterator[Taker]:
    with Taker() as hub:
        yield hub


def use(it: Guarded | Gatekeeper, number: int = 1, times: int = 1) -> None:
    gate = it.gate if isinstance(it, Guarded) else it
    for _ in range(times):
        assert gate.decide(client_key(number), ORIGIN).allowed


# Counts


async def test_each_used_key_is_reported_once_with_its_count_and_time(hub: Taker) -> None:
    async with reporting(hub, wall_clock=NOON.timestamp) as it:
        use(it, 1, times=3)
        use(it, 2)
        assert (await it.gate.check(client_key(2), None, referer="https://acme.com/page")).allowed
        assert it.gate.decide(client_key(1), "http://acme.com").allowed
        await it.time.advance(30)
        (report,) = hub.reports
    assert (report.method, report.target) == ("POST", f"{PATH}/usage")
    assert report.headers["authorization"] == f"Bearer {TOKEN}"
    at = "2026-01-02T12:00:00Z"
    assert report.json == {"key-1": {"count": 4, "last_used_at": at}, "key-2": {"count": 2, "last_used_at": at}}
    assert it.status.counters["usage_reported"] == 1


async def test_requests_through_the_middleware_are_uses_and_preflights_are_not(hub: Taker) -> None:
    async def widget(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - an ASGI app
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = {"origin": ORIGIN, "data-client-key": client_key(1)}
    preflight = {"origin": ORIGIN, "access-control-request-method": "GET"}
    async with reporting(hub) as it:
        transport = httpx.ASGITransport(GatekeeperMiddleware(widget, gatekeeper=it.gate))
        async with httpx.AsyncClient(transport=transport, base_url="http://widgets.test") as browser:
            for _ in range(5):
                assert (await browser.get("/", headers=headers)).status_code == 204
                assert (await browser.options("/", headers=preflight)).status_code == 204
                assert (await browser.get("/", headers={**headers, "origin": "https://evil.com"})).status_code == 403
        await it.time.advance(30)
        assert hub.counts == [{"key-1": 5}]


async def test_a_refused_request_is_not_counted(hub: Taker) -> None:
    async with reporting(hub) as it:
        for key, origin in (
            (client_key(1), "https://evil.com"),
            (client_key(1), "null"),
            (client_key(1), None),
            (client_key(3), ORIGIN),
            (client_key(99), ORIGIN),
            ("nonsense", ORIGIN),
            (None, ORIGIN),
        ):
            for _ in range(3):
                assert not it.gate.decide(key, origin).allowed
        await it.time.advance(100)
    assert hub.reports == []


async def test_nothing_is_reported_where_no_key_was_used(hub: Taker) -> None:
    async with reporting(hub) as it:
        await it.time.advance(300)
    assert hub.reports == []


async def test_no_count_is_lost_when_decisions_are_evicted(hub: Taker) -> None:
    hub.listed = [row(1, domain_allowlist=["*.acme.com"]), row(2)]
    async with reporting(hub) as it:
        for number in range(MOST_ALLOWED + 500):
            assert it.gate.decide(client_key(1), f"https://p{number}.acme.com").allowed
        use(it, 2, times=5)
        hub.listed = [row(1, disabled_at="now"), row(2)]
        await it.refresh()
        assert it.reason(1) is Reason.KEY_DISABLED
        use(it, 2, times=7)
        leases_of(it.gate).end()
        use(it, 2)
        await it.time.advance(30)
        assert hub.counts == [{"key-1": MOST_ALLOWED + 500, "key-2": 13}]


async def test_the_reference_hub_lists_what_was_reported(tmp_path: Path) -> None:
    with served_hub(tmp_path) as real:
        with HubClient(real.url, real.token) as client:
            used = client.widget_keys.create("used", domain_allowlist=["acme.com"])
            unused = client.widget_keys.create("unused", domain_allowlist=["acme.com"])
        for _ in range(2):
            async with Gatekeeper(HubSource(real.url, real.gate_token, timeout=60)) as gate:
                for _ in range(3):
                    assert gate.decide(used.public_key, ORIGIN).allowed
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {real.token}"}) as http:
            rows = {key["id"]: key for key in (await http.get(f"{real.url}{PATH}")).json()}
    assert (rows[used.id]["use_count"], rows[unused.id]["use_count"]) == (6, 0)
    assert rows[unused.id]["last_used_at"] is None
    assert abs(time.time() - datetime.fromisoformat(rows[used.id]["last_used_at"]).timestamp()) < 60


# Intervals


async def test_reports_are_30_seconds_apart(hub: Taker) -> None:
    async with reporting(hub, refresh_interval=7.0) as it:
        for _ in range(60):
            use(it)
            await it.time.advance(5)
            await it.refresh()
        times = [request.at - 1_000_000 for request in hub.reports]
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert all(30 <= gap <= 30 + 7 for gap in gaps), gaps
    assert len(times) >= 8


async def test_the_interval_of_reports_is_an_option(hub: Taker) -> None:
    async with reporting(hub, usage_interval=60.0) as it:
        use(it)
        await it.time.advance(59)
        assert hub.reports == []
        await it.time.advance(10)
        assert hub.counts == [{"key-1": 1}]


async def test_leaving_the_gate_reports_what_is_left(hub: Taker) -> None:
    async with reporting(hub) as it:
        use(it, 2, times=3)
    assert hub.counts == [{"key-2": 3}]
    async with it.gate:
        pass
    assert hub.counts == [{"key-2": 3}]


async def test_an_interval_of_0_turns_reports_off(hub: Taker) -> None:
    async with reporting(hub, usage_interval=0.0) as it:
        use(it)
        await it.time.advance(300)
    assert hub.reports == []


async def test_static_rows_are_not_reported() -> None:
    async with Gatekeeper.from_rows(ROWS) as gate:
        use(gate)
    async with reporting(MemorySource(*ROWS)) as it:
        use(it)
        await it.time.advance(60)
        assert it.status.state == "fresh"


# Failures


@pytest.mark.parametrize("status", [404, 405])
async def test_a_hub_without_the_endpoint_is_sent_no_more_reports(
    hub: Taker, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub.answer = json_answer("Not Found", status)
    async with reporting(hub) as it:
        for _ in range(5):
            use(it)
            await it.time.advance(40)
        assert (it.status.state, it.status.last_error) == ("fresh", None)
    assert len(hub.reports) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


FAILURES = {
    "400": json_answer("Bad HubRequest", 400),
    "401": json_answer("Invalid token", 401),
    "413": HubAnswer(413),
    "429": HubAnswer(429, headers={"retry-after": "300"}),
    "500": HubAnswer(500),
    "503": HubAnswer(503),
    "hangs up": HANG_UP,
    "garbage": GARBAGE,
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_an_unreported_count_is_added_to_the_next_report(
    hub: Taker, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    wall = FakeClock()
    wall.now = NOON.timestamp()
    hub.answer = FAILURES[failure]
    async with reporting(hub, wall_clock=wall) as it:
        use(it, 1, times=3)
        use(it, 2)
        await it.time.advance(30)
        assert hub.counts == [{"key-1": 3, "key-2": 1}]
        assert (it.status.state, it.status.last_error) == ("fresh", None)
        hub.answer = TAKEN
        use(it, 1)
        wall.now += 30
        await it.time.advance(30)
        assert hub.counts[1:] == [{"key-1": 4, "key-2": 1}]
        # A key that was not used since keeps its time.
        said = {row_id: usage["last_used_at"] for row_id, usage in hub.reports[1].json.items()}
        assert said == {"key-1": "2026-01-02T12:00:30Z", "key-2": "2026-01-02T12:00:00Z"}
        await it.time.advance(60)
    assert len(hub.reports) == 2
    assert (it.status.counters["usage_failed"], it.status.counters["usage_reported"]) == (1, 1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_failed_report_does_not_stop_the_list(hub: Taker) -> None:
    is_being_replaced = False

    def token() -> str:
        if is_being_replaced:
            raise OSError("the file with the token is being replaced")
        return TOKEN

    def replace_the_token(_: HubRequest) -> HubAnswer:
        nonlocal is_being_replaced
        is_being_replaced = True
        return HubAnswer(200, as_json(*hub.listed))

    async with reporting(HubSource(hub.url, token, timeout=60), refresh_interval=60.0) as it:
        use(it)
        hub.always(replace_the_token)
        assert (await it.refresh()).outcome == "unchanged"
        await it.time.advance(30)
        assert (it.status.last_error, it.status.counters["usage_failed"]) == (None, 1)
        assert hub.reports == []


@pytest.mark.slow
async def test_many_keys_are_reported_in_batches(hub: Taker) -> None:
    number = 2 * BATCH + 1000
    hub.listed = [row(one) for one in range(number)]
    async with reporting(hub) as it:
        for one in range(number):
            use(it, one)
        use(it, 0)
        await it.time.advance(30)
        assert [len(counts) for counts in hub.counts] == [BATCH, BATCH, 1000]
        assert sum(map(Counter, hub.counts), Counter()) == Counter({f"key-{one}": 1 for one in range(number)} | {"key-0": 2})
        assert max(len(report.body) for report in hub.reports) < 1_000_000


@pytest.mark.slow
async def test_batches_that_were_taken_are_not_reported_again(hub: Taker) -> None:
    number = 2 * BATCH + 1000
    hub.listed = [row(one) for one in range(number)]
    async with reporting(hub) as it:
        for one in range(number):
            use(it, one)
        answers = [TAKEN, HubAnswer(500)]
        hub.always(
            lambda request: answers.pop(0) if request.target == f"{PATH}/usage" else HubAnswer(200, as_json(*hub.listed))
        )
        await it.time.advance(30)
        assert [len(counts) for counts in hub.counts] == [BATCH, BATCH]
        answers += [TAKEN, TAKEN]
        await it.time.advance(30)
        first, _, *others = hub.counts
        assert [len(counts) for counts in others] == [BATCH, 1000]
        assert sum(map(Counter, [first, *others]), Counter()) == Counter({f"key-{one}": 1 for one in range(number)})


# No delay of requests or lists


async def test_no_request_and_no_refresh_waits_for_a_report(hub: Taker) -> None:
    async with reporting(hub, refresh_interval=60.0) as it, anyio.create_task_group() as group:
        use(it)
        hub.answer = HubAnswer(204, hold=(hold := hub.hold()))
        group.start_soon(it.time.advance, 30)
        await hub.asked(2)
        assert len(hub.reports) == 1
        with anyio.fail_after(4):  # a report may take 5 s
            assert (await it.gate.check(client_key(1), ORIGIN)).allowed
            hub.listed = [*ROWS, row(4)]
            assert (await it.gate.check(client_key(4), ORIGIN)).allowed
            assert (await it.gate.refresh()).outcome == "unchanged"
        hub.answer = TAKEN
        group.cancel_scope.cancel()
    hold.release()
    assert hub.counts == [{"key-1": 1}, {"key-1": 2, "key-4": 1}]  # leaving the gate has cut the first one off


async def test_a_report_that_hangs_times_out_and_keeps_its_counts(hub: Taker) -> None:
    hub.answer = HubAnswer(204, hold=hub.hold())
    async with running(hub, usage_interval=30.0, usage_timeout=0.05) as it:
        it.used["key-1"] = 1
        await it.time.advance(30)
        assert len(hub.reports) == 1
        assert (it.status.last_error, it.status.counters["usage_failed"]) == (None, 1)
        hub.answer = TAKEN
        it.used["key-1"] = 1
        await it.time.advance(30)
        assert hub.counts[-1] == {"key-1": 2}


async def test_a_report_that_hangs_does_not_delay_the_next_list(hub: Taker) -> None:
    async with reporting(hub, refresh_interval=40.0) as it, anyio.create_task_group() as group:
        use(it)
        hub.answer = HubAnswer(204, hold=(hold := hub.hold()))
        group.start_soon(it.time.advance, 30)
        await hub.asked(2)
        await it.time.advance(10)
        assert [request.at - 1_000_000 for request in hub.requests] == [0, 30, 40]
        assert [request.method for request in hub.requests] == ["GET", "POST", "GET"]
        group.cancel_scope.cancel()
    hold.release()


@pytest.mark.parametrize("moment", ["during a report", "before any"])
async def test_a_hub_that_hangs_does_not_delay_leaving(hub: Taker, moment: str) -> None:
    hub.answer = HubAnswer(204, hold=hub.hold())
    gate = Gatekeeper(hub_source(hub.url), usage_interval=0.01 if moment == "during a report" else 30.0, jitter=lambda: 0.5)
    async with gate:
        use(gate)
        if moment == "during a report":
            await hub.asked(2)
        began = time.monotonic()
    assert time.monotonic() - began < 30
    hub.answer = TAKEN
    async with gate:
        pass
    assert hub.counts[-1] == {"key-1": 1}


# Processes


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_and_its_parent_report_their_own_uses() -> None:
    told: list[dict[str, int]] = []
    failing = [True]

    class Told(MemorySource):
        async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
            if failing:
                raise HubServerError("the hub answered 500", status=500)
            told.append({row_id: used.count for row_id, used in usage.items()})

    gate = Gatekeeper(Told(*ROWS))

    async def run(do: Callable[[], object]) -> Any:
        async with gate:
            return do()

    def in_child() -> None:
        asyncio.run(run(lambda: use(gate, 2)))
        assert told == [{"key-2": 1}], told

    asyncio.run(run(lambda: use(gate, 1, times=3)))  # the report fails, and the counts are kept
    failing.clear()

    def use_and_fork() -> str:
        use(gate, 1, times=4)
        return forked(in_child)

    assert asyncio.run(run(use_and_fork)) == "well"
    assert told == [{"key-1": 7}]


# A source alone


async def test_concurrent_reports_report_nothing_twice() -> None:
    may_go_on = anyio.Event()
    told: list[Mapping[str, KeyUsage]] = []
    used = [Counter(a=1), Counter(b=1)]

    class Slow(MemorySource):
        async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
            told.append(usage)
            await may_go_on.wait()

    report = usage_report(Slow(), lambda: used.pop(0), NOON.timestamp)
    reporter = Reporter(report, timeout=5, clock=FakeClock(), counters=Counter())
    async with anyio.create_task_group() as group:
        group.start_soon(reporter.report)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(reporter.report)
        await anyio.wait_all_tasks_blocked()
        may_go_on.set()
    assert told == [{"a": KeyUsage(1, NOON)}, {"b": KeyUsage(1, NOON)}]


async def test_a_bug_in_a_custom_report_is_logged_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemorySource):
        async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
            raise ZeroDivisionError(len(usage))

    caplog.set_level(logging.DEBUG, "gatekeeper")
    counters: Counter[str] = Counter()
    report = usage_report(Broken(), lambda: Counter(a=1), NOON.timestamp)
    await Reporter(report, timeout=5, clock=FakeClock(), counters=counters).report()
    assert counters == {"usage_failed": 1}
    assert "ZeroDivisionError" in caplog.text
