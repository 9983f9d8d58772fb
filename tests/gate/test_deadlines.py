"""Remembered decisions end at their deadline: without a refresher, and when the list expires."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse

from gatekeeper import Gatekeeper, GatekeeperMiddleware, Reason
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer
from tests.support.guarded import gate_of, guarded
from tests.support.remembered import leases_of, remembered_by
from tests.support.rows import ORIGIN, as_json, client_key, row

pytestmark = pytest.mark.anyio


def revoke(hub: FakeHub) -> None:
    hub.lists(row(1, disabled_at="2026-01-01"))


async def get(app: Any, origin: str = ORIGIN) -> int:
    """Send one request through a guarded app; return the status."""
    headers = [(b"origin", origin.encode()), (b"data-client-key", client_key(1).encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, anyio.sleep_forever, send)
    status: int = sent[0]["status"]
    return status


def app_of(gate: Gatekeeper) -> GatekeeperMiddleware:
    return GatekeeperMiddleware(PlainTextResponse("hello"), gate)


async def test_after_a_freeze_the_first_request_waits_for_a_fresh_list(hub: FakeHub) -> None:
    """SIGSTOP, a suspended machine, a serverless process between two requests."""
    async with guarded(hub) as it:
        app = app_of(it.gate)
        assert [await get(app) for _ in range(3)] == [200] * 3
        revoke(hub)
        it.time.now += 3600
        assert await get(app) == 403


async def test_after_a_freeze_a_refused_page_waits_for_a_fresh_list(hub: FakeHub) -> None:
    page = "https://new.example"
    async with guarded(hub) as it:
        app = app_of(it.gate)
        assert [await get(app, page) for _ in range(3)] == [403] * 3
        assert [each.uses for each in it.gate.memo.refused.values()] == [3]
        hub.lists(row(1, domain_allowlist=["new.example"]))
        assert await get(app, page) == 403, "the gate has not heard of it"
        it.time.now += 3600
        assert await get(app, page) == 200
        assert it.gate.decisions == {Reason.ORIGIN_NOT_ALLOWED: 4, Reason.ALLOWED: 1}


async def test_a_list_in_time_keeps_remembered_decisions(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        app = app_of(it.gate)
        await get(app)
        (allowed,) = it.gate.memo.allowed.values()
        for _ in range(10):
            await it.time.advance(14)
            asked = len(hub.requests)
            assert await get(app) == 200
            assert len(hub.requests) == asked
        assert remembered_by(it.gate) == [allowed]
        assert allowed.uses == 11


async def test_a_long_pause_that_the_hub_asked_for_is_kept(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.always(HubAnswer(503, headers={"retry-after": "300"}))
        await it.refresh()
        asked, app = len(hub.requests), app_of(it.gate)
        for _ in range(14):
            it.time.now += 20
            assert await get(app) == 200
        assert len(hub.requests) == asked


async def test_only_one_request_waits_for_a_silent_hub(hub: FakeHub) -> None:
    async with guarded(hub, unknown_key_wait=0.01) as it, anyio.create_task_group() as group:
        app = app_of(it.gate)
        hub.always(HubAnswer(200, as_json(row(1)), hold=(hold := hub.hold())))
        it.time.now += 3600
        assert await get(app) == 200
        assert leases_of(it.gate).current.ends_at == it.time.now + 15
        await hub.asked(2)
        for _ in range(10):
            assert await get(app) == 200
        assert len(hub.requests) == 2
        hold.release()
        group.cancel_scope.cancel()


async def test_decide_never_waits_and_caches_nothing_past_the_deadline(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        assert it.reason() is Reason.ALLOWED
        assert len(remembered_by(it.gate)) == 1
        revoke(hub)
        it.time.now += 3600
        assert it.reason() is Reason.ALLOWED  # by the last list, which was not refreshed
        assert it.reason(1, "https://foreign.test") is Reason.ORIGIN_NOT_ALLOWED
        assert remembered_by(it.gate) == []
        await it.refresh()
        assert it.reason() is Reason.KEY_DISABLED


async def test_a_remembered_page_is_refused_once_the_list_has_expired(hub: FakeHub) -> None:
    """The hub is silent, so a fetch is running at that moment."""
    async with guarded(hub, hard_stale=12, unknown_key_wait=0.01) as it, anyio.create_task_group() as group:
        app = app_of(it.gate)
        assert await get(app) == 200
        hub.always(HubAnswer(200, as_json(row(1)), hold=(hold := hub.hold())))
        group.start_soon(it.gate.refresh)
        await hub.asked(2)
        it.time.now += 11.5
        assert (await get(app), it.reason()) == (200, Reason.ALLOWED)
        it.time.now += 0.5
        assert (await get(app), it.reason()) == (503, Reason.EXPIRED)
        hold.release()
        group.cancel_scope.cancel()


def test_a_loop_that_runs_only_during_a_request_serves_no_stale_page(hub: FakeHub) -> None:
    """As under Mangum, in AWS Lambda."""
    fake = FakeClock()
    gate = gate_of(hub, fake)
    app = app_of(gate)
    with asyncio.Runner() as runner:
        assert [runner.run(get(app)) for _ in range(3)] == [200] * 3
        revoke(hub)
        fake.now += 14
        assert runner.run(get(app)) == 200
        fake.now += 1
        assert [runner.run(get(app)) for _ in range(3)] == [403] * 3
        hub.lists(row(1))
        fake.now += 3600
        assert runner.run(get(app)) == 200


def test_a_stopped_loop_keeps_no_page_of_another_loop_allowed(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    app = app_of(gate)
    stopped = asyncio.new_event_loop()
    try:
        assert stopped.run_until_complete(get(app)) == 200
        revoke(hub)
        fake.now += 3600
        with asyncio.Runner() as runner:
            assert runner.run(get(app)) == 403
    finally:
        for task in asyncio.all_tasks(stopped):
            task.cancel()
        stopped.run_until_complete(asyncio.sleep(0))
        stopped.close()


def test_a_refresher_of_any_event_loop_counts(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    ready, done = threading.Event(), threading.Event()

    async def refresh_until_done() -> None:
        async with gate:
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(refresh_until_done(),))
    thread.start()
    try:
        assert ready.wait(15)
        assert gate.decide(client_key(1), ORIGIN).allowed
        assert len(remembered_by(gate)) == 1
    finally:
        done.set()
        thread.join()
    assert gate.decide(client_key(1), ORIGIN).allowed
    assert len(remembered_by(gate)) == 0


def test_without_a_refresher_a_started_gate_remembers_nothing(hub: FakeHub) -> None:
    """`asyncio.run(gate.start())` in a script ends the refresher with the loop."""
    gate = gate_of(hub)
    asyncio.run(gate.start())
    assert gate.decide(client_key(1), ORIGIN).allowed
    assert len(remembered_by(gate)) == 0


async def test_decisions_about_static_rows_are_remembered_for_ever() -> None:
    fake = FakeClock()
    gate = Gatekeeper.from_rows([row(1)])
    app = app_of(gate)
    assert await get(app) == 200
    fake.now += 1e12
    assert gate.decide(client_key(1), ORIGIN).allowed
    assert [each.uses for each in gate.memo.allowed.values()] == [2]


@pytest.mark.parametrize("ask", [get])
async def test_an_overdue_gate_without_a_wait_decides_by_the_last_list(
    hub: FakeHub, ask: Callable[[Any], Awaitable[int]]
) -> None:
    async with guarded(hub, unknown_key_wait=0) as it:
        app = app_of(it.gate)
        await ask(app)
        revoke(hub)
        it.time.now += 3600
        assert await ask(app) == 200
        await it.refresh()
        assert await ask(app) == 403
