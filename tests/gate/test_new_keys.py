"""Keys that were made a moment ago, at a gate whose hub tells of each change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import pytest

from gatekeeper import Gatekeeper, HubSource, Reason
from gatekeeper.gate.new_keys import MOMENT, MOST
from gatekeeper.sync.cadence import MOST_AWAITING
from gatekeeper.testing import FakeClock, FakeHub, client_key, row
from tests.support.forked import forked
from tests.support.refreshing import until

PAGE = "https://shop.acme.com"
PATIENCE = 15.0

pytestmark = pytest.mark.anyio


class Told(NamedTuple):
    """A gate that has been told of a change, and waits for the next one."""

    gate: Gatekeeper
    hub: FakeHub
    clock: FakeClock

    def add(self, name: str) -> None:
        """Make a key."""
        self.hub.lists(*self.hub.rows, row(name, PAGE))

    async def reason(self, name: str) -> Reason:
        """Why a request with a key is decided so."""
        return (await self.gate.check(client_key(name), PAGE)).reason

    def fetched(self) -> int:
        """The number of requests that wanted an answer at once."""
        return sum("prefer" not in request.headers for request in self.hub.fetches)

    def waiting(self, seconds: float = MOMENT) -> int:
        """The number of requests that have waited so long for a change, at most."""
        return sum(slept == pytest.approx(seconds) for slept in self.clock.sleeps)


@asynccontextmanager
async def told(unknown_key_wait: float = 0.5) -> AsyncIterator[Told]:
    clock = FakeClock()
    with FakeHub(live=True) as hub:
        hub.clock = clock
        gate = Gatekeeper(
            HubSource(hub.url, hub.token, timeout=60), clock=clock, sleep=clock.sleep, unknown_key_wait=unknown_key_wait
        )
        async with gate:
            it = Told(gate, hub, clock)
            await hub.waits()
            it.add("first")
            await until(lambda: gate.status.is_live)
            await hub.waits()
            yield it


@asynccontextmanager
async def flooded(it: Told, requests: int) -> AsyncIterator[None]:
    """Let requests with unknown keys wait for a change."""
    async with anyio.create_task_group() as group:
        for number in range(requests):
            group.start_soon(it.reason, f"flood-{number}")
        await until(lambda: it.waiting() == requests)
        yield
        group.cancel_scope.cancel()


async def test_a_new_key_is_allowed_at_its_first_request_without_a_fetch() -> None:
    async with told() as it:
        before = it.fetched()
        for number in range(10):
            it.add(f"new-{number}")
            assert await it.reason(f"new-{number}") is Reason.ALLOWED
        assert it.fetched() == before


async def test_the_first_change_after_the_start_may_be_that_key() -> None:
    with FakeHub(live=True) as hub:
        async with Gatekeeper(HubSource(hub.url, hub.token), unknown_key_wait=PATIENCE) as gate:
            await hub.waits()
            hub.lists(row("new", PAGE))
            assert (await gate.check(client_key("new"), PAGE)).reason is Reason.ALLOWED
            assert len([request for request in hub.fetches if "prefer" not in request.headers]) == 1


async def test_a_request_waits_through_changes_of_other_keys() -> None:
    async with told() as it:
        before, seen = it.fetched(), []

        async def ask() -> None:
            seen.append(await it.reason("new"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await until(lambda: it.waiting() == 1)
            it.add("other")
            await until(lambda: it.gate.status.keys == 2)
            it.add("new")
        assert seen == [Reason.ALLOWED]
        assert it.fetched() == before


async def test_a_key_that_is_not_told_of_is_fetched_after_a_moment() -> None:
    async with told() as it, anyio.create_task_group() as group:
        before, seen = it.fetched(), []

        async def ask() -> None:
            seen.append(await it.reason("unknown"))
            await it.clock.sleep(1e6)  # `advance` waits until each task sleeps again

        group.start_soon(ask)
        await until(lambda: it.waiting() == 1)
        assert it.fetched() == before
        await it.clock.advance(MOMENT)
        await until(lambda: bool(seen))
        assert seen == [Reason.KEY_UNKNOWN]
        assert it.fetched() == before + 1
        group.cancel_scope.cancel()


async def test_of_a_flood_of_unknown_keys_a_part_is_refused_at_once() -> None:
    # By the clock that stands still, a wait has no end.
    async with told() as it, flooded(it, MOST):
        with anyio.fail_after(10):
            for number in range(5):
                assert await it.reason(f"more-{number}") is Reason.KEY_UNKNOWN


async def test_of_a_flood_a_part_waits_until_unknown_keys_may_fetch_again() -> None:
    clock, refused, allowed = FakeClock(), list[str](), list[str]()
    with FakeHub() as hub:
        gate = Gatekeeper(
            HubSource(hub.url, hub.token),
            clock=clock,
            sleep=clock.sleep,
            refresh_interval=1e6,
            unknown_key_wait=PATIENCE,
        )
        async with gate, anyio.create_task_group() as group:
            await clock.asleep()
            for number in range(3):
                await gate.check(client_key(f"unknown-{number}"), PAGE)
            asked, slept = len(hub.fetches), len(clock.sleeps)
            hub.lists(row("new", PAGE))
            clock.now += 4.75

            async def ask() -> None:
                decision = await gate.check(client_key("new"), PAGE)
                (allowed if decision.allowed else refused).append(decision.reason)

            for _ in range(MOST_AWAITING + 50):
                group.start_soon(ask)
            await until(lambda: len(refused) == 50)
            assert (len(clock.sleeps) - slept, len(hub.fetches)) == (MOST_AWAITING, asked)
            clock.now += 0.2500001
            await clock.wake_all()
            await until(lambda: len(allowed) == MOST_AWAITING)
            assert (len(refused), len(hub.fetches)) == (50, asked + 1)
            group.cancel_scope.cancel()


async def test_a_wait_for_a_change_takes_no_place_of_a_wait_for_a_fetch() -> None:
    """More requests than may wait for the budget have waited for the change before."""
    async with told() as it:
        running = it.gate._lifecycle.running()
        assert running is not None
        refresher = await running.refresher(it.gate._lists.all[0].tasks)
        assert refresher is not None
        while refresher.budget.take(0.0):
            pass
        it.clock.now += 4.6
        async with flooded(it, 3 * MOST_AWAITING):
            it.clock.now += MOMENT
            await it.clock.wake_all()
            await until(lambda: it.waiting(0.15) == MOST_AWAITING)


async def test_a_forked_child_does_not_count_the_requests_of_its_parent() -> None:
    async with told() as it, flooded(it, MOST):
        (keys,) = it.gate._lists.all
        assert keys.new_keys._waiting == MOST

        def in_child() -> None:
            assert keys.new_keys._waiting == 0

        assert forked(in_child) == "well"


async def test_another_gate_that_waits_for_no_key_refuses_at_once() -> None:
    async with told(unknown_key_wait=0) as it:
        before = it.fetched()
        assert await it.reason("unknown") is Reason.KEY_UNKNOWN
        assert it.waiting() == 0
        assert it.fetched() == before


async def test_a_request_waits_no_longer_than_it_may() -> None:
    async with told(unknown_key_wait=0.02) as it, anyio.create_task_group() as group:
        group.start_soon(it.reason, "unknown")
        await until(lambda: it.waiting(0.02) == 1)
        assert it.waiting() == 0
        group.cancel_scope.cancel()
