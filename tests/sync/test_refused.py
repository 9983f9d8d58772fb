"""Reports on refused pages: what is new, apart from usage, and never in the way of the list."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from gatekeeper import Gatekeeper, HubClient, HubServerError, HubSource, RefusedPage
from gatekeeper.client import KeyUsage
from gatekeeper.errors import HubInvalidRequestError
from gatekeeper.sync.refused import BATCH, refused_report
from gatekeeper.sync.reports import MAX_REJECTIONS, PAUSE, Reporter
from gatekeeper.testing import FakeClock
from gatekeeper.testing.fake_hub import HANG_UP, PATH, FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.forked import forked
from tests.support.guarded import Guarded
from tests.support.memory_source import MemorySource
from tests.support.real_hub import served_hub
from tests.support.refreshing import running
from tests.support.rows import ORIGIN, TOKEN, as_json, client_key
from tests.sync.test_usage import NOON, ROWS, TAKEN, reporting

EVIL = "https://evil.com"
pytestmark = pytest.mark.anyio


class Taker(FakeHub):
    """A hub with keys, whose answers to reports can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = TAKEN
        self.usage = TAKEN
        self.decide: Callable[[HubRequest], HubAnswer] = lambda _: self.answer
        self.always(self._answer)

    def _answer(self, request: HubRequest) -> HubAnswer:
        if request.method != "POST":
            return HubAnswer(200, as_json(*ROWS))
        if request.target == f"{PATH}/refused":
            return self.decide(request)
        return self.usage if request.target == f"{PATH}/usage" else TAKEN

    @property
    def reports(self) -> list[HubRequest]:
        """The requests with reports on refused pages."""
        return [request for request in self.requests if request.target == f"{PATH}/refused"]

    @property
    def counts(self) -> list[dict[tuple[str, str | None], int]]:
        """The counts by key and page, report by report."""
        return [{(page["key_id"], page["origin"]): page["count"] for page in report.json} for report in self.reports]


@pytest.fixture
def hub() -> Iterator[Taker]:
    with Taker() as hub:
        yield hub


def refuse(it: Guarded | Gatekeeper, origin: str | None = EVIL, number: int = 1, times: int = 1) -> None:
    gate = it.gate if isinstance(it, Guarded) else it
    for _ in range(times):
        decision = gate.decide(client_key(number), origin)
        assert not decision.allowed
        gate.admits(decision)


def page(origin: str, count: int = 1, at: datetime = NOON, key_id: str = "key-1") -> RefusedPage:
    return RefusedPage(key_id, origin, "origin_not_allowed", count, at, at)


# What is reported


@pytest.mark.parametrize("enforce", [True, False])
async def test_each_refused_page_is_reported_once_with_its_count_and_times(hub: Taker, *, enforce: bool) -> None:
    wall = FakeClock()
    wall.now = NOON.timestamp()
    async with reporting(hub, wall_clock=wall, enforce=enforce) as it:
        refuse(it, times=2)
        wall.now += 5
        refuse(it)
        refuse(it, ORIGIN, 3)
        assert it.gate.decide(client_key(1), ORIGIN).allowed
        it.gate.admits(it.gate.decide(client_key(9), EVIL))
        await it.time.advance(30)
        (report,) = hub.reports
    assert (report.method, report.headers["authorization"]) == ("POST", f"Bearer {TOKEN}")
    first, last = "2026-01-02T12:00:00Z", "2026-01-02T12:00:05Z"
    evil = {"key_id": "key-1", "origin": EVIL, "reason": "origin_not_allowed", "entry": "evil.com", "count": 3}
    disabled = {"key_id": "key-3", "origin": ORIGIN, "reason": "key_disabled", "entry": None, "count": 1}
    assert report.json == [{**evil, "first_at": first, "last_at": last}, {**disabled, "first_at": last, "last_at": last}]
    assert it.status.counters["refused_reported"] == 1


async def test_only_what_is_new_is_reported(hub: Taker) -> None:
    async with reporting(hub) as it:
        refuse(it, times=3)
        await it.time.advance(40)
        refuse(it)
        refuse(it, "https://new.test")
        await it.time.advance(40)
        await it.time.advance(40)
        assert it.gate.refusals[0].count == 4
    assert hub.counts == [{("key-1", EVIL): 3}, {("key-1", EVIL): 1, ("key-1", "https://new.test"): 1}]


async def test_leaving_the_gate_reports_the_refused_pages(hub: Taker) -> None:
    async with reporting(hub) as it:
        refuse(it)
    assert hub.counts == [{("key-1", EVIL): 1}]


async def test_the_reference_hub_lists_the_refused_pages_of_its_gates(tmp_path: Path) -> None:
    """One enforces, the other only observes."""
    with served_hub(tmp_path) as real, HubClient(real.url, real.token) as client:
        key = client.widget_keys.create("shop", domain_allowlist=["acme.com"])
        for enforce in (True, False):
            async with Gatekeeper(HubSource(real.url, real.gate_token, timeout=60), enforce=enforce) as gate:
                for page in (EVIL, EVIL, "null"):
                    assert gate.admits(gate.decide(key.public_key, page)) is not enforce
        listed = client.widget_keys.refused(key.id)
    assert [(page.origin, page.reason, page.count, page.entry) for page in listed] == [
        (EVIL, "origin_not_allowed", 4, "evil.com"),
        ("null", "origin_null", 2, None),
    ]


async def test_an_interval_of_0_turns_both_reports_off(hub: Taker) -> None:
    async with reporting(hub, usage_interval=0.0) as it:
        refuse(it)
        await it.time.advance(300)
    assert hub.reports == []


async def test_a_source_takes_either_report_or_none() -> None:
    told: list[str] = []

    class Refused(MemorySource):
        async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
            told.extend(str(page.origin) for page in pages)

    class Used(MemorySource):
        async def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
            told.extend(usage)

    for source in (Refused(*ROWS), Used(*ROWS), MemorySource(*ROWS)):
        async with reporting(source) as it:
            refuse(it)
            assert it.gate.decide(client_key(2), ORIGIN).allowed
    assert told == [EVIL, "key-2"]


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_and_its_parent_report_their_own_pages() -> None:
    told: list[dict[str | None, int]] = []

    class Told(MemorySource):
        async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
            told.append({page.origin: page.count for page in pages})

    gate = Gatekeeper(Told(*ROWS))

    async def run(do: Callable[[], object]) -> Any:
        async with gate:
            return do()

    def in_child() -> None:
        asyncio.run(run(lambda: refuse(gate, "https://child.test")))
        assert told == [{"https://child.test": 1}], told

    def refuse_and_fork() -> str:
        refuse(gate, times=2)
        return forked(in_child)

    assert asyncio.run(run(refuse_and_fork)) == "well"
    assert told == [{EVIL: 2}]


# Failures


@pytest.mark.parametrize("status", [404, 405])
async def test_a_hub_without_the_endpoint_is_asked_again_after_an_hour(
    hub: Taker, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gatekeeper")
    hub.answer = json_answer("Not Found", status)
    async with reporting(hub, refresh_interval=60.0) as it:
        for _ in range(50):
            refuse(it)
            assert it.gate.decide(client_key(2), ORIGIN).allowed
            await it.time.advance(60)
        assert len(hub.reports) == 1
        assert len([request for request in hub.requests if request.target == f"{PATH}/usage"]) == 50
        hub.answer = TAKEN
        await it.time.advance(PAUSE - 49 * 60)
        refuse(it)
        await it.time.advance(60)
        assert hub.counts[1:] == [{("key-1", EVIL): 1}]
        assert (it.status.state, it.status.last_error) == ("fresh", None)
    said = [record.getMessage() for record in caplog.records if "takes no reports" in record.getMessage()]
    assert said == ["gatekeeper: the hub takes no reports on refused pages; it is asked again after 1 h"]


@pytest.mark.parametrize("failure", [json_answer("no", 403), HubAnswer(500), HANG_UP], ids=repr)
async def test_what_could_not_be_reported_is_added_to_the_next_report(hub: Taker, failure: Any) -> None:
    hub.answer = failure
    async with reporting(hub) as it:
        refuse(it, times=2)
        await it.time.advance(30)
        assert hub.counts == [{("key-1", EVIL): 2}]
        hub.answer = TAKEN
        refuse(it)
        refuse(it, "https://new.test")
        await it.time.advance(30)
        assert hub.counts[1:] == [{("key-1", EVIL): 3, ("key-1", "https://new.test"): 1}]
        await it.time.advance(60)
    assert len(hub.reports) == 2
    assert (it.status.counters["refused_failed"], it.status.counters["refused_reported"]) == (1, 1)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_page_that_the_hub_rejects_is_dropped_and_no_other(
    hub: Taker, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A page with an origin that an older hub does not know, among 50."""
    bad = "app://bad.test"
    hub.decide = lambda request: json_answer("no", status) if bad in request.body.decode() else TAKEN
    async with reporting(hub) as it:
        for _ in range(2):
            for number in range(50):
                refuse(it, bad if number == 20 else f"https://{number}.test")
            await it.time.advance(30)
        assert (it.status.counters["refused_failed"], it.status.state) == (2, "fresh")
    taken = Counter[str]()
    for report in hub.reports:
        if bad not in report.body.decode():
            taken.update({page["origin"]: page["count"] for page in report.json})
    assert taken == {f"https://{number}.test": 2 for number in range(50) if number != 20}
    said = [record.getMessage() for record in caplog.records if "rejected" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(
        "gatekeeper: the hub has rejected 1 of the reports on refused pages, which are dropped: the hub"
    )


async def test_a_hub_that_rejects_everything_is_asked_few_times() -> None:
    told: list[int] = []

    class Rejecting(MemorySource):
        async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
            told.append(len(pages))
            raise HubInvalidRequestError("the hub answered 400", status=400)

    new = [page(f"https://{number}.test") for number in range(1000)]
    counters = Counter[str]()
    report = refused_report(Rejecting(), lambda: [new.pop() for _ in range(len(new))])
    reporter = Reporter(report, timeout=5, clock=FakeClock(), counters=counters)
    await reporter.report()
    assert (told[:3], len(told)) == ([1000, 500, 250], MAX_REJECTIONS + 1)
    assert counters == {"refused_failed": 3}
    told.clear()
    await reporter.report()
    assert told == []  # nothing grows from report to report


async def test_pages_that_are_kept_for_the_next_report_are_bounded() -> None:
    """A hub that is down for days, and a flood of made-up pages."""
    told: list[Sequence[RefusedPage]] = []
    failing = [True]

    class Told(MemorySource):
        async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
            told.append(pages)
            if failing:
                raise HubServerError("the hub answered 500", status=500)

    new: list[RefusedPage] = []
    report = refused_report(Told(), lambda: [new.pop() for _ in range(len(new))])
    reporter = Reporter(report, timeout=5, clock=FakeClock(), counters=Counter())
    for round_ in range(4):
        new += [page(f"https://{round_}-{number}.test") for number in range(600)]
        new.append(page("https://often.test", 2, NOON + timedelta(seconds=round_)))
        await reporter.report()
    assert max(map(len, told)) == BATCH
    told.clear()
    failing.clear()
    await reporter.report()
    assert [len(pages) for pages in told] == [BATCH]
    (often,) = [each for each in told[0] if each.origin == "https://often.test"]
    assert (often.count, often.first_at, often.last_at) == (8, NOON, NOON + timedelta(seconds=3))


async def test_many_pages_are_reported_in_batches_of_1000() -> None:
    told: list[int] = []

    class Told(MemorySource):
        async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
            told.append(len(pages))

    report = refused_report(Told(), lambda: [page(f"https://{number}.test") for number in range(2500)])
    await Reporter(report, timeout=5, clock=FakeClock(), counters=Counter()).report()
    assert told == [1000, 1000, 500]


# No delay of lists, requests or usage


async def test_a_report_that_hangs_does_not_delay_the_list(hub: Taker) -> None:
    hub.answer = HubAnswer(204, hold=hub.hold())
    async with running(hub, usage_interval=30.0, usage_timeout=0.05) as it:
        it.refused = [page(EVIL)]
        await it.time.advance(30)
        assert len(hub.reports) == 1
        fetches = len(hub.fetches)
        await it.time.advance(10)
        assert len(hub.fetches) == fetches + 1
        assert (it.status.state, it.status.last_error) == ("fresh", None)
        hub.answer = TAKEN
        it.refused = [page(EVIL)]
        await it.time.advance(30)
        assert hub.counts[-1] == {("key-1", EVIL): 2}


async def test_a_usage_report_that_hangs_leaves_time_for_refused_pages(hub: Taker) -> None:
    hub.usage = HubAnswer(204, hold=hub.hold())
    async with running(hub, usage_interval=30.0, usage_timeout=0.05) as it:
        for _ in range(2):
            it.used["key-1"] = 1
            it.refused = [page(EVIL)]
            await it.time.advance(30)
        assert hub.counts == [{("key-1", EVIL): 1}] * 2


async def test_leaving_cuts_a_report_off_and_loses_no_count(hub: Taker) -> None:
    async with reporting(hub, refresh_interval=60.0) as it, anyio.create_task_group() as group:
        refuse(it)
        hub.answer = HubAnswer(204, hold=(hold := hub.hold()))
        group.start_soon(it.time.advance, 30)
        await hub.asked(2)
        refuse(it)
        hub.answer = TAKEN
        group.cancel_scope.cancel()
    hold.release()
    assert hub.counts == [{("key-1", EVIL): 1}, {("key-1", EVIL): 2}]
