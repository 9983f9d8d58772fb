"""Faults of time: old lists, clocks that are set, suspended machines, long outages."""

import gc
import random
import sys
import time
from functools import partial
from pathlib import Path

import anyio
import pytest

from gatekeeper import Gatekeeper, Reason
from gatekeeper.sync.clock import boot_clock, boot_sleep
from gatekeeper.testing import FakeHub, HubAnswer, json_answer
from tests.support.fault_proxy import FaultProxy
from tests.support.guarded import gaps, guarded, hub_source
from tests.support.rows import ORIGIN, client_key, row

pytestmark = pytest.mark.anyio

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0

# Long outages


@pytest.mark.fault("hub down for long")
async def test_a_list_is_fresh_then_degraded_then_expired(hub: FakeHub, proxy: FaultProxy) -> None:
    hub.lists(row(1), row(2, disabled_at="now"), row(3, domain_allowlist=[]))
    async with guarded(proxy.url, soft_stale=MINUTE, hard_stale=HOUR) as it:
        proxy.refuse()
        it.time.now += MINUTE - 1
        assert (it.status.state, it.allows(1)) == ("fresh", True)
        it.time.now += 1
        assert (it.status.state, it.allows(1)) == ("degraded", True)
        await it.time.advance(HOUR - MINUTE - 1)
        assert (it.status.state, it.allows(1)) == ("degraded", True)
        await it.time.advance(1)
        assert it.status.state == "expired"
        assert {it.reason(number) for number in (1, 2, 3, 4)} == {Reason.EXPIRED}
        decision = it.gate.decide(client_key(1), ORIGIN)
        assert (decision.status, decision.retry_after) == (503, 30)
        proxy.heal()
        await it.time.advance(30)
        assert (it.status.state, it.allows(1)) == ("fresh", True)


@pytest.mark.fault("hub down for long")
async def test_a_list_can_be_trusted_for_ever(hub: FakeHub) -> None:
    async with guarded(hub, hard_stale=0) as it:
        it.time.now += 1000 * DAY
        assert (it.status.state, it.allows(1)) == ("degraded", True)


# Clocks


@pytest.mark.fault("wall clock is set")
@pytest.mark.parametrize("wall", [HOUR, -HOUR, 10 * 365 * DAY, None], ids=["+1 h", "-1 h", "+10 years", "1970"])
async def test_setting_the_wall_clock_changes_neither_decisions_nor_cadence(
    hub: FakeHub, tmp_path: Path, wall: float | None
) -> None:
    set_by: float | None = 0.0

    def wall_clock() -> float:
        return 0.0 if set_by is None else time.time() + set_by

    async with guarded(hub, wall_clock=wall_clock, snapshot_path=tmp_path / "snapshot") as it:
        await it.time.advance(30)
        set_by = wall
        await it.time.advance(30)
        assert (it.status.state, it.allows(1)) == ("fresh", True)
        assert it.status.age == pytest.approx(0, abs=10)
        assert gaps(hub.requests) == pytest.approx([10.0] * 6)
        hub.lists(row(1, disabled_at="2020-01-01T00:00:00Z"))
        await it.time.advance(10)
        assert it.reason() is Reason.KEY_DISABLED
        lag = it.status.revocation_lag
        assert lag is not None
        assert lag >= 0


@pytest.mark.fault("machine suspended")
async def test_a_list_is_fresh_within_two_seconds_of_a_resume(
    hub: FakeHub,
) -> None:
    asleep = 0.0

    def clock() -> float:
        # This clock counts suspended time; that of event loops does not (clock_gettime(2)).
        return boot_clock() + asleep

    gate = Gatekeeper(
        hub_source(hub.url),
        refresh_interval=300.0,
        usage_interval=0.0,
        clock=clock,
        sleep=partial(boot_sleep, clock=clock),
    )
    async with gate:
        hub.lists(row(1, disabled_at="now"))
        await anyio.sleep(0.1)
        asleep = HOUR
        age = gate.status.age
        assert age is not None
        assert age >= HOUR
        woke = time.monotonic()
        with anyio.fail_after(15):
            while gate.decide(client_key(1), ORIGIN).allowed:  # noqa: ASYNC110 - nothing signals it
                await anyio.sleep(0.05)
        assert time.monotonic() - woke < 30  # the interval is 300 s
        assert len(hub.requests) == 2


@pytest.mark.fault("machine suspended")
async def test_an_expired_list_allows_no_key_after_a_long_suspend(hub: FakeHub) -> None:
    async with guarded(hub, hard_stale=HOUR) as it:
        assert it.allows(1)
        with hub.held() as hold:
            it.time.now += 2 * HOUR
            assert it.status.state == "expired"
            async with anyio.create_task_group() as group:
                group.start_soon(it.refresh)
                await hub.asked(2)
                assert it.reason() is Reason.EXPIRED
                hold.release()
        assert it.allows(1)


# Revocations, outages, staleness


@pytest.mark.slow
@pytest.mark.promise("revocations apply soon")
async def test_a_revocation_takes_6_s_in_the_median_and_13_s_at_most(hub: FakeHub) -> None:
    dice = random.Random(1)
    lags = []
    async with guarded(hub, jitter=dice.random) as it:
        for _ in range(200):
            await it.time.advance(dice.uniform(0, 20))
            hub.lists(row(1, disabled_at="now"))
            revoked_at = it.time.now
            while it.allows(1):
                await it.time.advance(0.1)
            lags.append(it.time.now - revoked_at)
            hub.lists(row(1))
            await it.refresh()
            assert it.allows(1)
    lags.sort()
    assert lags[len(lags) // 2] <= 6
    assert lags[-1] <= 13


OUTAGES = {
    "gone": (23, 45, None),
    "500": (4, 45, HubAnswer(500)),
    "401": (4, 75, json_answer("no", 401)),
    "Retry-After": (4, 300, HubAnswer(503, headers={"retry-after": "300"})),
}


@pytest.mark.slow
@pytest.mark.promise("an outage changes no decision")
@pytest.mark.parametrize("outage", OUTAGES)
async def test_hours_without_the_hub_change_no_decision_and_leak_nothing(
    hub: FakeHub, proxy: FaultProxy, outage: str
) -> None:
    hours, fresh_within, answer = OUTAGES[outage]
    hub.lists(row(1), row(2, disabled_at="now"), row(3, domain_allowlist=["blog.example"]))
    async with guarded(proxy.url, jitter=1.0) as it:
        right = [it.reason(number) for number in range(5)]
        if answer is None:
            proxy.refuse()
        else:
            hub.always(answer)
        blocks = []
        for _ in range(hours):
            for _ in range(12):
                await it.time.advance(5 * MINUTE)
                assert [it.reason(number) for number in range(5)] == right
            it.time.sleeps.clear()
            hub.requests.clear()
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        assert it.status.state == "degraded"
        assert it.status.counters["refresh_failed"] >= 10 * hours
        assert blocks[-1] - blocks[1] < 500  # over hundreds of fetches
        hub.lists(row(1), row(2))
        proxy.heal()
        await it.time.advance(fresh_within)
        assert it.gate.status.state == "fresh"
        assert it.allows(1, 2)
        assert it.reason(3) is Reason.KEY_UNKNOWN


@pytest.mark.promise("staleness is visible")
async def test_staleness_is_visible_in_the_status(hub: FakeHub) -> None:
    hub.lists(*(row(number) for number in range(10)))
    async with guarded(hub, hard_stale=HOUR) as it:
        seen = [(it.status.state, it.status.age)]
        hub.always(HubAnswer(500))
        await it.refresh()
        it.time.now += 61
        seen.append((it.status.state, it.status.age))
        it.time.now += HOUR
        seen.append((it.status.state, it.status.age))
        assert seen == [("fresh", 0.0), ("degraded", 61.0), ("expired", 61.0 + HOUR)]
        hub.lists(*(row(number) for number in range(9)), row(9, last8="?"))
        await it.refresh()
        await it.refresh()
        counters = it.status.counters
        assert (counters["refresh_changed"], counters["refresh_failed"], counters["refresh_unchanged"]) == (1, 1, 2)
        assert counters["rows_rejected"] >= 1
        assert "'last8'" in it.status.rejected[0]


@pytest.mark.fault("machine suspended")
def test_the_clock_of_lists_counts_suspended_time() -> None:
    if sys.platform == "linux":
        assert boot_clock() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)
