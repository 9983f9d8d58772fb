"""The decision as a FastAPI dependency."""

import httpx
import pytest
from fastapi import FastAPI

from gatekeeper import DecisionMissing, Gatekeeper, GatekeeperMiddleware
from gatekeeper.fastapi import Checked

ROW = {"id": "1", "name": "shop", "last8": "abcd1234", "domain_allowlist": ["acme.com"], "agent_id": "agent_7"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def api() -> FastAPI:
    app = FastAPI()

    @app.get("/config")
    async def config(decision: Checked) -> dict[str, str | None]:
        return {"agent_id": decision.agent_id}

    return app


def client(app: FastAPI | GatekeeperMiddleware) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://widgets.test")


@pytest.mark.anyio
async def test_an_endpoint_gets_the_decision_on_its_request() -> None:
    guarded = GatekeeperMiddleware(api(), gatekeeper=Gatekeeper.from_rows([ROW]))
    async with client(guarded) as http:
        headers = {"origin": "https://acme.com", "data-client-key": "pk_live_acme_0000abcd1234"}
        response = await http.get("/config", headers=headers)
    assert response.json() == {"agent_id": "agent_7"}


@pytest.mark.anyio
async def test_an_unguarded_endpoint_raises_decision_missing() -> None:
    async with client(api()) as http:
        with pytest.raises(DecisionMissing, match="mount GatekeeperMiddleware"):
            await http.get("/config")
