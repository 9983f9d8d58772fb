"""Reports on the gate itself: one a minute, traffic or not, of what it knows about its list."""

import asyncio
import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from gatekeeper import Gatekeeper, GateReport, HubClient, HubSource, Status, __version__
from gatekeeper.errors import HubServerError
from gatekeeper.sync.gate_reporter import GateReporter
from gatekeeper.testing import HANG_UP, FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.forked import forked
from tests.support.guarded import hub_source
from tests.support.memory_source import MemorySource
from tests.support.real_hub import served_hub
from tests.support.rows import ORIGIN, TOKEN, as_json, client_key, row
from tests.support.starting import wait_until
from tests.sync.test_usage import reporting

GATES = "/api/v1/gates"
LISTED = HubAnswer(200, as_json(row(1), row(2)))
pytestmark = pytest.mark.anyio


class Taker(FakeHub):
    """A hub with two keys, whose answer to reports on gates can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = HubAnswer(204)
        self.listing = LISTED
        self.always(self._choose)

    def _choose(self, request: HubRequest) -> HubAnswer:
        if request.target == GATES:
            return self.answer
        return HubAnswer(204) if request.method == "POST" else self.listing

    @property
    def reports(self) -> list[HubRequest]:
        """The requests with reports on gates."""
        return [request for request in self.requests if request.target == GATES]

    @property
    def times(self) -> list[float]:
        """The moments of these requests, in seconds from the start."""
        return [request.at - 1_000_000 for request in self.reports]


@pytest.fixture
def hub() -> Iterator[Taker]:
    with Taker() as hub:
        yield hub


def status(**fields: Any) -> Status:
    """The status of a fresh list of 12 keys."""
    usual: dict[str, Any] = {"state": "fresh", "age": 2.5, "keys": 12, "generation": 1, "etag": None, "last_error": None}
    return Status(**{**usual, "ambiguous": (), "rejected": (), "counters": {}, **fields})


class Told(MemorySource):
    """A source that takes reports on gates."""

    def __init__(self, *rows: Any) -> None:
        super().__init__(*rows)
        self.told: list[GateReport] = []
        self.error: Exception | None = None

    async def report_gate(self, gate: GateReport) -> None:
        self.told.append(gate)
        if self.error is not None:
            raise self.error


def reporter_for(source: Told, look: Callable[[], Status] = status, counters: Counter[str] | None = None) -> GateReporter:
    return GateReporter(source, look, timeout=5, counters=Counter() if counters is None else counters)


# What is reported


async def test_a_gate_reports_what_it_knows_of_its_list(hub: Taker) -> None:
    async with reporting(hub) as it:
        await it.time.advance(37)
        (report,) = hub.reports
    assert (report.method, report.target, report.headers["authorization"]) == ("POST", GATES, f"Bearer {TOKEN}")
    gate = report.json
    assert re.fullmatch(r"[0-9a-f]{16}", gate.pop("id"))
    assert gate == {
        "version": __version__,
        "is_live": False,
        "state": "fresh",
        "list_age": 5.0,
        "keys": 2,
        "host": socket.gethostname(),
    }
    assert it.status.counters["gate_reported"] == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "never_loaded", "age": None, "keys": 0}, ("never_loaded", None, 0, False)),
        ({"state": "expired", "age": 90_000.123456, "keys": 3}, ("expired", 90_000.123, 3, False)),
        ({"is_live": True}, ("fresh", 2.5, 12, True)),
    ],
)
async def test_the_state_of_the_list_is_reported_as_it_is(fields: dict[str, Any], said: tuple[object, ...]) -> None:
    source = Told()
    await reporter_for(source, lambda: status(**fields)).report()
    (gate,) = source.told
    assert (gate.state, gate.list_age, gate.keys, gate.is_live) == said


@pytest.mark.parametrize("host", ["", "büro", "a b", "h" * 256])
async def test_a_host_name_that_no_hub_takes_is_left_out(host: str) -> None:
    source = Told()
    await GateReporter(source, status, timeout=5, counters=Counter(), host=lambda: host).report()
    assert source.told[0].host is None


async def test_a_gate_keeps_its_id_and_no_two_share_one(hub: Taker) -> None:
    ids = []
    for _ in range(2):
        async with reporting(hub) as it:
            await it.time.advance(160)
        ids.append({report.json["id"] for report in hub.reports})
        hub.requests.clear()
    assert [len(each) for each in ids] == [1, 1]
    assert ids[0] != ids[1]


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_another_gate() -> None:
    source = Told(row(1))
    gate = Gatekeeper(source)

    async def report() -> str:
        reporting = gate._lists.all[0].sync.reporting
        (reports,) = [reports for reports, _ in reporting._all if isinstance(reports, GateReporter)]
        await reports.report()
        return source.told[-1].id

    parent = asyncio.run(report())

    def in_child() -> None:
        assert asyncio.run(report()) != parent

    assert forked(in_child) == "well"
    assert asyncio.run(report()) == parent


async def test_the_reference_hub_lists_a_gate_as_polled_and_then_as_live(tmp_path: Path) -> None:
    with served_hub(tmp_path) as real, HubClient(real.url, real.token) as client:
        async with Gatekeeper(HubSource(real.url, real.gate_token, timeout=60)) as gate:
            (reports,) = [
                reports for reports, _ in gate._lists.all[0].sync.reporting._all if isinstance(reports, GateReporter)
            ]
            await reports.report()
            (polled,) = client.gates.list()
            client.widget_keys.create("shop")  # which ends the gate's first wait
            await anyio.to_thread.run_sync(wait_until, lambda: gate.status.is_live)
            await reports.report()
            (live,) = client.gates.list()
    assert (polled.version, polled.host, polled.state, polled.keys) == (__version__, socket.gethostname(), "fresh", 0)
    assert (polled.is_live, live.is_live, live.keys) == (False, True, 1)
    assert (live.id, live.seen_at > polled.seen_at) == (polled.id, True)


# When


@pytest.mark.parametrize(("jitter", "times"), [(0.0, [10, 58, 106]), (0.5, [35, 95, 155]), (1.0, [60, 132])])
async def test_the_first_report_comes_within_a_minute_and_the_others_each_minute(
    hub: Taker, jitter: float, times: list[float]
) -> None:
    async with reporting(hub, jitter=jitter) as it:
        await it.time.advance(156 if jitter == 0.5 else 150)
    assert hub.times == times


async def test_a_gate_without_a_list_reports_itself_too(hub: Taker) -> None:
    hub.listing = HubAnswer(500)
    async with reporting(hub) as it:
        await it.time.advance(40)
        (report,) = hub.reports
    assert (report.json["state"], report.json["list_age"], report.json["keys"]) == ("never_loaded", None, 0)


async def test_no_report_of_a_gate_delays_a_list_or_a_request(hub: Taker) -> None:
    hub.answer = HubAnswer(204, hold=(hold := hub.hold()))
    async with reporting(hub, refresh_interval=60.0) as it, anyio.create_task_group() as group:
        group.start_soon(it.time.advance, 35)
        await hub.asked(2)
        assert len(hub.reports) == 1
        with anyio.fail_after(4):  # a report may take 5 s
            assert (await it.gate.check(client_key(1), ORIGIN)).allowed
            assert (await it.gate.refresh()).outcome == "unchanged"
        group.cancel_scope.cancel()
    hold.release()


async def test_nothing_is_reported_as_the_gate_stops(hub: Taker) -> None:
    async with reporting(hub):
        pass
    assert hub.reports == []


async def test_an_interval_of_0_turns_the_reports_off(hub: Taker) -> None:
    async with reporting(hub, usage_interval=0.0) as it:
        await it.time.advance(300)
    assert hub.reports == []


async def test_a_source_that_takes_no_such_reports_is_told_nothing() -> None:
    async with reporting(MemorySource(row(1))) as it:
        await it.time.advance(300)
        assert "gate_failed" not in it.status.counters
    source = Told(row(1))
    async with reporting(source) as it:
        await it.time.advance(300)
    assert len(source.told) == 5


# Failures


@pytest.mark.parametrize("status", [404, 405])
async def test_a_hub_without_the_endpoint_is_told_no_more(hub: Taker, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gatekeeper")
    hub.answer = json_answer("Not Found", status)
    async with reporting(hub, refresh_interval=60.0) as it:
        await it.time.advance(600)
        assert (it.status.state, it.status.last_error) == ("fresh", None)
        assert {name for name in it.status.counters if name.startswith("gate_")} == set()
    assert len(hub.reports) == 1
    said = [record.getMessage() for record in caplog.records if "gates" in record.getMessage()]
    assert said == ["gatekeeper: the hub takes no reports on gates; this one sends no more"]


@pytest.mark.parametrize("failure", [json_answer("no", 403), HubAnswer(400), HubAnswer(500), HANG_UP], ids=repr)
async def test_a_failed_report_is_counted_and_the_next_one_comes_at_its_time(
    hub: Taker, failure: HubAnswer, caplog: pytest.LogCaptureFixture
) -> None:
    hub.answer = failure
    async with reporting(hub) as it:
        await it.time.advance(100)
        hub.answer = HubAnswer(204)
        await it.time.advance(60)
        assert (it.status.counters["gate_failed"], it.status.counters["gate_reported"]) == (2, 1)
        assert (it.status.state, it.status.last_error) == ("fresh", None)
    assert hub.times == [35, 95, 155]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_report_that_hangs_times_out(hub: Taker) -> None:
    hub.answer = HubAnswer(204, hold=(hold := hub.hold()))
    counters = Counter[str]()
    with anyio.fail_after(15):
        await GateReporter(hub_source(hub.url), status, timeout=0.05, counters=counters).report()
    hold.release()
    assert counters == {"gate_failed": 1}


@pytest.mark.parametrize(("error", "is_shown"), [(HubServerError("down", status=500), False), (ZeroDivisionError(), True)])
async def test_only_a_bug_is_logged_with_its_traceback(
    error: Exception, caplog: pytest.LogCaptureFixture, *, is_shown: bool
) -> None:
    caplog.set_level(logging.DEBUG, "gatekeeper")
    source, counters = Told(), Counter[str]()
    source.error = error
    await reporter_for(source, counters=counters).report()
    assert counters == {"gate_failed": 1}
    (record,) = caplog.records
    assert (record.exc_info is not None) is is_shown
