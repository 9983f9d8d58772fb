"""FastAPI: the decision as a dependency, the gate in the schema."""

from threading import get_ident
from typing import Annotated, Any

import anyio
import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Request
from fastapi.openapi.models import OpenAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from gatekeeper import Decision, DecisionMissing, Gatekeeper, GatekeeperMiddleware, decision_from, guard
from gatekeeper.fastapi import Checked, check_key
from tests.support.starlette_client import TestClient

KEY = "pk_live_acme_0000abcd1234"
ROW = {"id": "1", "name": "shop", "last8": "abcd1234", "domain_allowlist": ["acme.com"], "agent_id": "agent_7"}


def gate() -> Gatekeeper:
    return Gatekeeper.from_rows([ROW])


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
        headers = {"origin": "https://acme.com", "data-client-key": KEY}
        response = await http.get("/config", headers=headers)
    assert response.json() == {"agent_id": "agent_7"}


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_an_unguarded_endpoint_raises_decision_missing() -> None:
    async with client(api()) as http:
        with pytest.raises(DecisionMissing, match="guard the app"):
            await http.get("/config")


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_dependency_needs_no_thread_of_the_pool() -> None:
    """40 slow endpoints occupy the thread pool, and a request that needs the decision only must not wait for them."""
    guarded = GatekeeperMiddleware(api(), gatekeeper=Gatekeeper.from_rows([ROW]))
    headers = {"origin": "https://acme.com", "data-client-key": KEY}
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
        await http.get("/config", headers={"origin": "https://acme.com", "data-client-key": KEY})
    assert threads == [get_ident()]


# Keys in bodies


class Chat(BaseModel):
    client_key: str
    text: str


def chatting() -> FastAPI:
    """An app whose endpoints find the key in a JSON body: by themselves, and in a dependency."""
    app = FastAPI()

    @app.post("/chat")
    async def chat(request: Request, message: Chat) -> dict[str, str | None]:
        decision = await check_key(request, message.client_key)
        return {"agent_id": decision.agent_id}

    async def checked(request: Request, message: Chat) -> Decision:
        return await check_key(request, message.client_key)

    @app.post("/stream")
    async def stream(decision: Annotated[Decision, Depends(checked)]) -> StreamingResponse:
        return StreamingResponse(iter([str(decision.agent_id)]))

    return guard(app, gate(), key_in_body=("/chat", "/stream"))


@pytest.mark.parametrize("path", ["/chat", "/stream"])
def test_an_endpoint_may_find_the_key_in_its_body(path: str) -> None:
    client = TestClient(chatting())
    allowed = client.post(path, headers={"origin": "https://acme.com"}, json={"client_key": KEY, "text": "Hi"})
    assert (allowed.status_code, allowed.text.strip('{}"').rpartition('"')[2]) == (200, "agent_7")
    assert allowed.headers["access-control-allow-origin"] == "https://acme.com"
    refused = client.post(path, headers={"origin": "https://evil.test"}, json={"client_key": KEY, "text": "Hi"})
    assert (refused.status_code, refused.json()["reason"]) == (403, "origin_not_allowed")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["access-control-allow-origin"] == "*"


def test_a_body_that_does_not_fit_is_fastapis_own_answer() -> None:
    answer = TestClient(chatting()).post("/chat", headers={"origin": "https://acme.com"}, json={"text": "Hi"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "client_key"])
    assert (answer.headers["vary"], "access-control-allow-origin" in answer.headers) == ("Origin, data-client-key", False)


def test_a_page_reaches_an_endpoint_with_the_key_in_its_body() -> None:
    """A page that posts JSON sends a preflight before."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    answer = TestClient(chatting()).options("/chat", headers={"origin": "https://acme.com", **asked})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert "content-type" in answer.headers["access-control-allow-headers"]


def test_the_schema_of_a_key_in_the_body_has_the_refusals_only() -> None:
    operation = chatting().openapi()["paths"]["/chat"]["post"]
    assert "security" not in operation
    assert {"400", "403", "503"} < set(operation["responses"])


# The schema


def schema_of(app: FastAPI) -> dict[str, Any]:
    """The schema as it is served, valid for FastAPI's models of OpenAPI."""
    schema: dict[str, Any] = TestClient(app).get("/openapi.json").raise_for_status().json()
    OpenAPI.model_validate(schema)
    return schema


def security(schema: dict[str, Any], path: str = "/config") -> list[str]:
    """The security schemes of an operation."""
    return [name for each in schema["paths"][path]["get"].get("security", []) for name in each]


KEYS = ["ClientKeyHeader", "ClientKeyQuery"]


def test_the_schema_says_where_the_key_goes_and_what_a_refusal_is() -> None:
    app = guard(api(), gate(), key_header="x-widget-key", key_query="k", exempt=("/healthz",))

    @app.get("/healthz")
    async def healthz() -> None:
        return None

    schema = schema_of(app)
    assert (security(schema), security(schema, "/healthz")) == (KEYS, [])
    schemes = schema["components"]["securitySchemes"]
    assert [(each["type"], each["in"], each["name"]) for each in schemes.values()] == [
        ("apiKey", "header", "x-widget-key"),
        ("apiKey", "query", "k"),
    ]
    responses = schema["paths"]["/config"]["get"]["responses"]
    assert {status for status, each in responses.items() if "application/problem+json" in each["content"]} == {
        "400",
        "403",
        "503",
    }
    assert list(schema["paths"]["/healthz"]["get"]["responses"]) == ["200"]


def test_the_schema_can_be_exported_without_a_request() -> None:
    app = guard(api(), gate())
    assert security(app.openapi()) == KEYS
    assert app.openapi() == schema_of(app)


def test_a_route_that_is_added_later_is_in_the_schema() -> None:
    app = guard(api(), gate())

    @app.get("/later")
    async def later() -> None:
        return None

    assert security(schema_of(app), "/later") == KEYS


@pytest.mark.parametrize("replaced", ["before", "after"])
def test_a_schema_of_the_apps_own_is_kept(replaced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI documents that an app replaces its method `openapi`, and keeps the schema itself."""
    app = api()
    if replaced == "after":
        guard(app, gate())

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = get_openapi(title="Own", version="7", routes=app.routes)
            app.openapi_schema["info"]["x-logo"] = "logo.png"
        return app.openapi_schema

    monkeypatch.setattr(app, "openapi", openapi)
    if replaced == "before":
        guard(app, gate())
    for _ in range(2):
        schema = schema_of(app)
        assert (schema["info"]["title"], schema["info"]["x-logo"]) == ("Own", "logo.png")
        assert security(schema) == KEYS
    assert "security" not in str(app.openapi_schema)


def test_a_dependency_with_security_needs_the_key_besides() -> None:
    app = api()
    bearer = Depends(HTTPBearer())

    @app.get("/me", dependencies=[bearer])
    async def me() -> None:
        return None

    schema = schema_of(guard(app, gate()))
    assert schema["paths"]["/me"]["get"]["security"] == [{"HTTPBearer": [], name: []} for name in KEYS]


def test_the_key_that_the_documentation_sends_is_taken() -> None:
    """Its button "Authorize" sets the header that the schema names. The page is one of the service."""
    rows = [{**ROW, "domain_allowlist": ["http://testserver"]}]
    app = guard(api(), Gatekeeper.from_rows(rows))
    scheme = schema_of(app)["components"]["securitySchemes"]["ClientKeyHeader"]
    headers = {scheme["name"]: KEY, "referer": "http://testserver/docs"}
    assert TestClient(app).get("/config", headers=headers).json() == {"agent_id": "agent_7"}


def test_each_app_describes_its_own_gate() -> None:
    parent = guard(api(), gate(), key_header="x-parent")
    parent.mount("/widget", guard(api(), gate(), key_header="x-child"))
    for path, header in (("/openapi.json", "x-parent"), ("/widget/openapi.json", "x-child")):
        answer = TestClient(parent).get(path, headers={"x-parent": KEY, "origin": "https://acme.com"})
        assert answer.json()["components"]["securitySchemes"]["ClientKeyHeader"]["name"] == header
