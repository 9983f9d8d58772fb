"""The health endpoint, in each state and in each kind of app."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from gatekeeper import Gatekeeper, GatekeeperMiddleware
from gatekeeper.health import health
from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.guarded import guarded, hub_source
from tests.support.rows import TOKEN, row
from tests.support.several import several

pytestmark = [pytest.mark.anyio, pytest.mark.asyncio]


async def ask(app: ASGIApp, path: str = "/healthz", method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://widgets.test") as http:
        return await http.request(method, path)


async def health_of(gate: Gatekeeper) -> tuple[int, dict[str, Any]]:
    response = await ask(health(gate))
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    answer: dict[str, Any] = response.json()
    return response.status_code, answer


async def test_a_gate_with_a_fresh_list_is_ready(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        assert await health_of(it.gate) == (
            200,
            {
                "status": "ready",
                "state": "fresh",
                "age": 0.0,
                "keys": 1,
                "detail": "the list of widget keys is fresh",
                "enforce": True,
            },
        )


async def test_an_account_whose_hub_is_silent_does_not_hold_up_the_answer(hub: FakeHub) -> None:
    with FakeHub() as silent, silent.held():
        gate = Gatekeeper([hub_source(hub.url)], start_timeout=30.0)
        async with gate, anyio.create_task_group() as group:
            group.start_soon(gate.add_source, hub_source(silent.url, "token", account="globex"))
            await silent.asked(1)
            with anyio.fail_after(20.0):
                status, answer = await health_of(gate)
            group.cancel_scope.cancel()
        await gate.stop()
    assert (status, answer["status"], answer["account"]) == (200, "degraded", "globex")


async def test_a_gate_that_only_observes_says_so(hub: FakeHub) -> None:
    async with guarded(hub, enforce=False) as it:
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["enforce"]) == (200, "ready", False)
        assert answer["detail"] == "the list of widget keys is fresh; the gate only observes, and lets every request through"
        it.gate.enforce = True
        assert (await health_of(it.gate))[1]["enforce"] is True


async def test_a_gate_that_only_observes_stays_in_service_without_a_list(hub: FakeHub) -> None:
    hub.always(HubAnswer(503))
    async with guarded(hub, enforce=False) as it:
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["state"]) == (200, "degraded", "never_loaded")
        assert answer["detail"].startswith(
            "every request would be refused, because the list of widget keys has not been loaded"
        )
        it.gate.enforce = True
        assert (await health_of(it.gate))[0] == 503


async def test_a_gate_with_an_old_list_serves_and_tells_its_age_and_why(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.always(HubAnswer(503, headers={"retry-after": "300"}))
        await it.time.advance(61)
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["state"], answer["age"]) == (200, "degraded", "degraded", 61)
        assert answer["detail"].startswith(
            "the list of widget keys is old (61 s) but is still used; the last fetch failed: "
        )
        assert "answered 503" in answer["detail"]


async def test_a_failed_fetch_is_reported_while_the_list_is_still_fresh(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.always(HubAnswer(500))
        await it.time.advance(10)
        status, answer = await health_of(it.gate)
        assert (status, answer["status"]) == (200, "ready")
        assert "answered 500" in answer["detail"]


async def test_a_gate_with_an_expired_list_is_not_ready(hub: FakeHub) -> None:
    async with guarded(hub, hard_stale=100) as it:
        hub.always(HubAnswer(503))
        await it.time.advance(150)
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["state"]) == (503, "not_ready", "expired")
        assert "has expired (150 s old)" in answer["detail"]


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_gate_without_a_list_is_not_ready_and_says_why_without_secrets(hub: FakeHub, status: int) -> None:
    hub.always(HubAnswer(status))
    async with guarded(hub) as it:
        code, answer = await health_of(it.gate)
        assert (code, answer["status"], answer["state"], answer["age"]) == (503, "not_ready", "never_loaded", None)
        assert "has not been loaded yet" in answer["detail"]
        assert f"answered {status}" in answer["detail"]
        assert TOKEN not in str(answer)
        assert TOKEN.rpartition("_")[2] not in str(answer)


async def test_a_list_from_the_snapshot_is_reported_as_such(hub: FakeHub, tmp_path: Path) -> None:
    async with guarded(hub, snapshot_path=tmp_path / "snapshot"):
        pass
    hub.always(HubAnswer(503))
    async with guarded(hub, snapshot_path=tmp_path / "snapshot") as it:
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["keys"]) == (200, "degraded", 1)
        assert "comes from the snapshot on disk" in answer["detail"]


async def test_the_endpoint_starts_a_gate_that_is_not_running(hub: FakeHub) -> None:
    gate = Gatekeeper(hub_source(hub.url))
    try:
        status, answer = await health_of(gate)
        assert (status, answer["state"]) == (200, "fresh")
    finally:
        async with gate:  # leaving the context stops what started on its own
            pass


async def test_the_endpoint_counts_no_decision(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        await health_of(it.gate)
        assert not it.gate.decisions


# Several accounts


async def test_fresh_lists_of_several_accounts_are_ready() -> None:
    async with several("acme", "globex", rows=(row(1), row(2))) as it:
        assert await health_of(it.gate) == (
            200,
            {
                "status": "ready",
                "state": "fresh",
                "age": 0.0,
                "keys": 4,
                "detail": "the list of widget keys of each of 2 accounts is fresh",
                "enforce": True,
            },
        )


async def test_an_old_list_of_one_account_is_named_and_counted() -> None:
    async with several("acme", "globex", "initech", rows=(row(1),), soft_stale=60) as it:
        it.fail("globex")
        await it.time.advance(75)
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["state"]) == (200, "degraded", "degraded")
        assert (answer["account"], answer["age"], answer["keys"]) == ("globex", 75, 3)
        assert answer["detail"] == (
            "the list of widget keys of the account globex (1 of 3 not fresh) is old (75 s) but is still used; "
            "the last fetch for the account globex failed: the hub answered 503"
        )


async def test_a_gate_serves_while_the_list_of_any_account_decides() -> None:
    async with several("acme", "globex", "initech", rows=(row(1),), broken=("globex",), soft_stale=60, hard_stale=100) as it:
        it.fail("acme")
        await it.time.advance(150)
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["state"], answer["account"]) == (200, "degraded", "never_loaded", "globex")
        assert answer["detail"].startswith(
            "every request of an account is refused, because the list of widget keys of the account globex "
            "(2 of 3 not fresh) has not been loaded yet"
        )
        it.fail("initech")
        await it.time.advance(99)
        assert (await health_of(it.gate))[0] == 200


async def test_a_gate_of_which_every_account_refuses_is_not_ready() -> None:
    async with several("acme", "globex", rows=(row(1),), broken=("globex",), hard_stale=100) as it:
        it.fail("acme")
        await it.time.advance(100)
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["state"], answer["account"]) == (503, "not_ready", "never_loaded", "globex")
        assert answer["detail"].startswith(
            "every request is refused, because the list of widget keys of the account globex (2"
        )
        it.gate.enforce = False
        status, answer = await health_of(it.gate)
        assert (status, answer["status"]) == (200, "degraded")
        it.gate.enforce = True
        it.sources["globex"].broken = None
        await it.gate.refresh(account="globex")
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["account"]) == (200, "degraded", "acme")


async def test_a_gate_that_has_no_account_yet_is_ready() -> None:
    async with several() as it:
        status, answer = await health_of(it.gate)
        assert (status, answer["status"], answer["keys"]) == (200, "ready", 0)
        assert answer["detail"] == "the gate has no accounts, so it knows no key"
        assert "account" not in answer


async def test_the_answer_stays_short_for_many_accounts() -> None:
    names = tuple(f"a{number:03d}-{'x' * 58}" for number in range(200))
    async with several(*names, broken=names) as it:
        answer = await ask(health(it.gate))
        assert answer.status_code == 503
        assert len(answer.content) < 1000
        assert "(200 of 200 not fresh)" in answer.json()["detail"]


# In an app


def exempt(gate: Gatekeeper) -> ASGIApp:
    return GatekeeperMiddleware(Starlette(routes=[Route("/healthz", health(gate))]), gatekeeper=gate, exempt=("/healthz",))


def outside(gate: Gatekeeper) -> ASGIApp:
    guarded_app = GatekeeperMiddleware(Starlette(), gatekeeper=gate)
    return Starlette(routes=[Route("/healthz", health(gate)), Mount("/", guarded_app)])


def in_fastapi(gate: Gatekeeper) -> ASGIApp:
    app = FastAPI()
    app.router.routes.append(Route("/healthz", health(gate)))
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate, exempt=("/healthz",))
    return app


def mounted(gate: Gatekeeper) -> ASGIApp:
    app = FastAPI()
    app.mount("/healthz", health(gate))
    return app


@pytest.mark.parametrize(
    ("make", "path"), [(exempt, "/healthz"), (outside, "/healthz"), (in_fastapi, "/healthz"), (mounted, "/healthz/")]
)
async def test_the_endpoint_needs_no_key_in_any_kind_of_app(make: Callable[[Gatekeeper], ASGIApp], path: str) -> None:
    gate = Gatekeeper.from_rows([row(1)])
    response = await ask(make(gate), path)
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert (await ask(make(gate), path, "HEAD")).status_code == 200


async def test_other_paths_stay_guarded() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    for make in (exempt, outside, in_fastapi):
        assert (await ask(make(gate), "/config")).json()["reason"] == "key_missing"
