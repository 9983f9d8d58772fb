"""Faults of the refresher: cancelled, crashed, flooded, given stale copies."""

import asyncio
import email.utils
import gc
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Scope

from gatekeeper import Gatekeeper, GatekeeperMiddleware, Reason, RefreshReport
from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.guarded import guarded, hub_source
from tests.support.remembered import remembered_by
from tests.support.rows import ORIGIN, as_json, client_key, row

pytestmark = pytest.mark.anyio

PATIENCE = 15.0
MANY = 1600  # rows: enough for several yields while they are read and applied

# Cancellation


BEFORE = as_json(*(row(number) for number in range(MANY)))
AFTER = as_json(*(row(number, disabled_at=None if number % 2 else "now") for number in range(MANY)))


def refused(gate: Gatekeeper) -> set[int]:
    """The keys that the gate refuses."""
    return {number for number in range(MANY) if not gate.decide(client_key(number), ORIGIN).allowed}


@pytest.mark.slow
@pytest.mark.fault("refresh cancelled")
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.integers(0, 60) | st.integers(0, 600))
def test_a_cancelled_refresh_leaves_the_old_list_or_the_new_one(hub: FakeHub, steps: int) -> None:
    half = set(range(0, MANY, 2))

    async def cancel() -> None:
        others = asyncio.all_tasks()
        gate = Gatekeeper(hub_source(hub.url))
        hub.always(HubAnswer(200, BEFORE))
        await gate.check(client_key(1), ORIGIN)
        hub.always(HubAnswer(200, AFTER))
        ours = asyncio.all_tasks() - others
        refreshing = asyncio.create_task(gate.refresh())
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in ours:
            task.cancel()
        await asyncio.wait(ours, timeout=0.2)
        assert refused(gate) in (set(), half)
        await refreshing
        assert (await gate.refresh()).outcome in {"changed", "unchanged"}
        assert refused(gate) == half

    asyncio.run(cancel())


# Crashes


class Broken(httpx.AsyncHTTPTransport):
    """A transport that raises an error once."""

    raises: BaseException | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, or raise."""
        if (raises := self.raises) is not None:
            self.raises = None
            raise raises
        return await super().handle_async_request(request)


class Unforeseen(BaseException):
    """An exception that no handler expects."""


async def asked_again(hub: FakeHub, asked: int) -> float:
    """Seconds until the hub is asked again."""
    began = time.monotonic()
    await hub.asked(asked + 1)
    return time.monotonic() - began


@pytest.mark.fault("refresher crashes")
@pytest.mark.parametrize("raised", [Unforeseen(), MemoryError(), GeneratorExit(), RecursionError()], ids=repr)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_crashed_refresher_restarts_within_a_second(hub: FakeHub, raised: BaseException) -> None:
    transport = Broken()
    client: Callable[[], httpx.AsyncClient] = lambda: httpx.AsyncClient(transport=transport)  # noqa: E731
    gate = Gatekeeper(hub_source(hub.url, http=client))
    async with gate:
        assert gate.decide(client_key(1), ORIGIN).allowed
        asked = len(hub.requests)
        transport.raises = raised
        with anyio.move_on_after(PATIENCE):
            report = await gate.refresh()
            assert report.outcome == "failed"
        hub.lists(row(1, disabled_at="now"))
        # The refresher restarts within 1 s, a failure backs off for up to 1 s, and 1 s is for a busy machine.
        assert await asked_again(hub, asked) <= 1 + 2
        with anyio.fail_after(PATIENCE):
            while gate.decide(client_key(1), ORIGIN).allowed:  # noqa: ASYNC110 - nothing signals it
                await anyio.sleep(0.01)


@pytest.mark.fault("refresher crashes")
async def test_a_cancelled_refresher_restarts_within_a_second(hub: FakeHub) -> None:
    others = asyncio.all_tasks()
    gate = Gatekeeper(hub_source(hub.url))
    async with gate:
        asked = len(hub.requests)
        for task in (ours := asyncio.all_tasks() - others):
            task.cancel()
        await asyncio.wait(ours, timeout=0.2)  # until they have ended, if they do
        assert (await gate.check(client_key(1), ORIGIN)).allowed
        assert await asked_again(hub, asked) <= 1 + 2


@pytest.mark.slow
@pytest.mark.fault("refresher crashes")
async def test_the_refresher_is_not_garbage_collected(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        for number in range(2, 5):
            gc.collect()
            hub.lists(*(row(other) for other in range(number)))
            await it.time.advance(10)
            assert it.status.keys == number


@pytest.mark.fault("refresher crashes")
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_exit_and_interrupt_end_the_process(hub: FakeHub, raised: type[BaseException]) -> None:
    transport = Broken()
    client: Callable[[], httpx.AsyncClient] = lambda: httpx.AsyncClient(transport=transport)  # noqa: E731

    async def end() -> None:
        async with Gatekeeper(hub_source(hub.url, http=client)) as gate:
            transport.raises = raised()
            await gate.refresh()
            await anyio.sleep(PATIENCE)

    with pytest.raises(raised):
        asyncio.run(end())


# Concurrent refreshes


@pytest.mark.fault("many refreshes at once")
async def test_a_hundred_forced_refreshes_cause_at_most_two_requests(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        reports: list[RefreshReport] = []

        async def want() -> None:
            reports.append(await it.gate.refresh())

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(want)
        assert len(reports) == 100
        assert len(hub.requests) - 1 <= 2


# Load and floods


class Hammer:
    """A client that sends requests to a guarded app, and the statuses in order."""

    def __init__(self, gate: Gatekeeper) -> None:
        self.statuses: list[int] = []
        self._app = GatekeeperMiddleware(self._widget, gatekeeper=gate)

    async def _widget(self, scope: Scope, receive: object, send: Any) -> None:  # noqa: ARG002 - an ASGI app
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(self, key: str) -> int:
        """Send one request, as a server would; return the status."""
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [(b"origin", ORIGIN.encode()), (b"data-client-key", key.encode())],
        }
        started: list[int] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message["status"])
                self.statuses.append(message["status"])

        async def receive() -> Message:
            return {"type": "http.request"}

        await self._app(scope, receive, send)
        return started[0]


@pytest.mark.fault("revocation under load")
async def test_a_key_revoked_under_load_is_never_accepted_again(hub: FakeHub) -> None:
    rows = [row(number) for number in range(500)]
    hub.lists(*rows)
    gate = Gatekeeper(hub_source(hub.url), refresh_interval=0.2, jitter=lambda: 0.5)
    async with gate:
        hammer = Hammer(gate)

        async def strike() -> None:
            while 403 not in hammer.statuses[-500:-400]:
                await hammer.ask(client_key(1))
                await anyio.lowlevel.checkpoint()

        async def revoke() -> None:
            await anyio.sleep(0.2)
            hub.lists(*rows[:1], row(1, disabled_at="now"), *rows[2:])

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(revoke)
                for _ in range(8):
                    group.start_soon(strike)
    first = hammer.statuses.index(403)
    assert first > 100
    assert set(hammer.statuses[:first]) == {200}
    assert set(hammer.statuses[first:]) == {403}


@pytest.mark.fault("flood of keys")
@pytest.mark.parametrize("key", ["x", "pk_live_acme_" + "x" * 1_000_000, "\x00" * 1_000_000, "pk_live_" + "_" * 1_000_000])
async def test_a_malformed_key_causes_no_fetch_and_is_not_remembered(hub: FakeHub, key: str) -> None:
    async with guarded(hub) as it:
        asked = len(hub.requests)
        with anyio.fail_after(PATIENCE):
            for _ in range(200):
                decision = await it.gate.check(key, ORIGIN)
                assert decision.reason is Reason.KEY_MALFORMED
        assert len(hub.requests) == asked
        assert not it.gate.memo
        assert len(decision.detail) < 500


@pytest.mark.fault("flood of keys")
async def test_a_repeated_unknown_key_causes_few_fetches(hub: FakeHub) -> None:
    async with guarded(hub, refresh_interval=1000.0) as it:
        for _ in range(2000):
            assert (await it.gate.check(client_key(99), ORIGIN)).reason is Reason.KEY_UNKNOWN
        assert len(hub.requests) == 1 + 3
        await it.time.advance(5)
        for _ in range(2000):
            await it.gate.check(client_key(99), ORIGIN)
        assert len(hub.requests) == 1 + 3 + 1


@pytest.mark.slow
@pytest.mark.promise("floods cost nothing")
async def test_a_flood_of_unknown_keys_causes_few_fetches_and_takes_no_memory(hub: FakeHub) -> None:
    async with guarded(hub, refresh_interval=1000.0, unknown_key_wait=0.5) as it:
        hammer = Hammer(it.gate)
        assert await hammer.ask(client_key(1)) == 200
        sizes = []
        for thousand in range(20):
            for number in range(1000):
                assert await hammer.ask(client_key(1_000_000 + 1000 * thousand + number)) == 403
            hammer.statuses.clear()
            gc.collect()
            sizes.append(len(it.gate.memo) + len(it.status.counters))
            await it.time.advance(1)
            assert await hammer.ask(client_key(1)) == 200
        assert len(set(sizes)) == 1
        assert len(hub.requests) <= 1 + 3 + 20 / 5


# Stale copies


def dated(seconds: float) -> str:
    return email.utils.formatdate(1_767_225_600 + seconds, usegmt=True)


@pytest.mark.fault("stale copy")
async def test_caches_are_told_to_revalidate(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        await it.refresh()
        assert all("no-cache" in request.headers["cache-control"] for request in hub.requests)


@pytest.mark.fault("stale copy")
@pytest.mark.parametrize(
    "stale",
    [{"date": dated(100), "age": "51"}, {"date": dated(-100)}, {"date": dated(49), "age": "0"}],
    ids=["Age", "Date", "a second"],
)
async def test_a_list_older_than_the_last_one_changes_nothing(hub: FakeHub, stale: dict[str, str]) -> None:
    hub.always(HubAnswer(200, as_json(row(1)), {"date": dated(0)}))
    async with guarded(hub) as it:
        hub.always(HubAnswer(200, as_json(row(1, disabled_at="now")), {"date": dated(50)}))
        await it.refresh()
        assert it.reason() is Reason.KEY_DISABLED
        it.time.now += 61
        hub.always(HubAnswer(200, as_json(row(1), row(2)), stale))
        await it.refresh()
        assert it.reason() is Reason.KEY_DISABLED
        assert it.status.keys == 1
        assert it.status.state == "degraded"
        hub.always(HubAnswer(200, as_json(row(1), row(2)), {"date": dated(120), "age": "10"}))
        await it.refresh()
        assert it.allows(1, 2)


@pytest.mark.fault("stale copy")
@pytest.mark.parametrize("headers", [{}, {"date": "yesterday"}, {"age": "old"}, {"age": "-1"}, {"age": "9" * 400}], ids=repr)
async def test_a_list_without_a_usable_date_is_accepted(hub: FakeHub, headers: dict[str, str]) -> None:
    hub.always(HubAnswer(200, as_json(row(1)), {"date": dated(0)}))
    async with guarded(hub) as it:
        hub.always(HubAnswer(200, as_json(row(1, disabled_at="now")), headers))
        await it.refresh()
        assert it.reason() is Reason.KEY_DISABLED


# Unchanged lists


@pytest.mark.slow
@pytest.mark.promise("unchanged lists are cheap")
async def test_a_304_evicts_nothing(hub: FakeHub) -> None:
    hub.lists(*(row(number) for number in range(MANY)), etag='"1"')
    async with guarded(hub) as it:
        assert it.allows(*range(MANY))
        kept = remembered_by(it.gate)
        for _ in range(100):
            assert (await it.refresh()).outcome == "unchanged"
        assert remembered_by(it.gate) == kept
        assert len(kept) == MANY
        assert it.status.generation == 1


@pytest.mark.promise("unchanged lists are cheap")
async def test_equal_bytes_are_hashed_and_not_parsed(hub: FakeHub) -> None:
    hub.lists(*(row(number) for number in range(MANY)))
    async with guarded(hub) as it:
        assert it.allows(1)
        (remembered,) = remembered_by(it.gate)
        for _ in range(3):
            assert (await it.refresh()).outcome == "unchanged"
        assert remembered_by(it.gate) == [remembered]
        assert it.status.generation == 1
