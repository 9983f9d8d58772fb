"""The decision as a FastAPI dependency."""

from threading import get_ident

import anyio
import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from gatekeeper import Decision, DecisionMissing, Gatekeeper, GatekeeperMiddleware, decision_from
from gatekeeper.fastapi import Checked

ROW = {"id": "1", "name": "shop", "last8": "abcd1234", "domain_allowlist": ["acme.com"], "agent_id": "agent_7"}


def api() -> FastAPI:
    app = FastAPI()

    @app.get("/config")
    async def config(decision: Checked) -> dict[str, str | None]:
        return {"agent_id": decision.agent_id}

    return app


def client(app: FastAPI | GatekeeperMiddleware) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://widgets.test")


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_an_endpoint_gets_the_decision_on_its_request() -> None:
    guarded = GatekeeperMiddleware(api(), gatekeeper=Gatekeeper.from_rows([ROW]))
    async with client(guarded) as http:
        headers = {"origin": "https://acme.com", "data-client-key": "pk_live_acme_0000abcd1234"}
        response = await http.get("/config", headers=headers)
    assert response.json() == {"agent_id": "agent_7"}


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_an_unguarded_endpoint_raises_decision_missing() -> None:
    async with client(api()) as http:
        with pytest.raises(DecisionMissing, match="mount GatekeeperMiddleware"):
            await http.get("/config")


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_dependency_needs_no_thread_of_the_pool() -> None:
    """40 slow endpoints occupy the thread pool, and a request that needs the decision only must not wait for them."""
    guarded = GatekeeperMiddleware(api(), gatekeeper=Gatekeeper.from_rows([ROW]))
    headers = {"origin": "https://acme.com", "data-client-key": "pk_live_acme_0000abcd1234"}
    pool = current_default_thread_limiter()
    borrowers = [object() for _ in range(int(pool.available_tokens))]
    for borrower in borrowers:
        pool.acquire_on_behalf_of_nowait(borrower)
    try:
        async with client(guarded) as http:
            with anyio.fail_after(10):
                response = await http.get("/config", headers=headers)
    finally:
        for borrower in borrowers:
            pool.release_on_behalf_of(borrower)
    assert response.json() == {"agent_id": "agent_7"}


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_dependency_runs_in_the_thread_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI runs synchronous dependencies in another thread, which takes longer than the decision."""
    threads: list[int] = []

    def recording(connection: HTTPConnection) -> Decision:
        threads.append(get_ident())
        return decision_from(connection)

    monkeypatch.setattr("gatekeeper.fastapi.decision_from", recording)
    guarded = GatekeeperMiddleware(api(), gatekeeper=Gatekeeper.from_rows([ROW]))
    async with client(guarded) as http:
        await http.get("/config", headers={"origin": "https://acme.com", "data-client-key": "pk_live_acme_0000abcd1234"})
    assert threads == [get_ident()]
