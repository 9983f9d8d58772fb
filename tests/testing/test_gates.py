"""Gates for tests: one key, or everything allowed."""

import inspect
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gatekeeper import ConfigError, CorsPolicy, Gatekeeper, GatekeeperMiddleware, Reason, decision_from
from gatekeeper.gate.decisions import CONFLICT
from gatekeeper.testing import allow_all, client_key, frame_headers, gate_for, headers, query
from tests.support.starlette_client import TestClient

SHOP = "https://shop.acme.com"
FOREIGN = "https://evil.example"


async def agent(request: Request) -> JSONResponse:
    decision = decision_from(request)
    return JSONResponse({"agent": decision.agent_id, "origin": decision.origin, "grant": decision.grant})


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(decision_from(websocket).agent_id or "")
    await websocket.close()


def client_of(gate: Gatekeeper, **options: Any) -> TestClient:
    routes = [Route("/agent", agent), Route("/embed", agent), WebSocketRoute("/chat", chat)]
    return TestClient(GatekeeperMiddleware(Starlette(routes=routes), gatekeeper=gate, frames=("/embed",), **options))


# gate_for


def test_an_allowed_page_reaches_the_app() -> None:
    answer = client_of(gate_for(allow=[SHOP], agent_id="agent_7")).get("/agent", headers=headers(SHOP))
    assert (answer.status_code, answer.json()["agent"]) == (200, "agent_7")
    assert answer.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (headers(FOREIGN), "origin_not_allowed"),
        (headers(None), "origin_missing"),
        (headers("null"), "origin_null"),
        (headers(f"{SHOP}/page"), "origin_malformed"),
        (headers(SHOP, key="another"), "key_unknown"),
        ({"origin": SHOP}, "key_missing"),
    ],
)
def test_any_other_request_is_refused_as_in_production(sent: dict[str, str], reason: str) -> None:
    answer = client_of(gate_for(allow=[SHOP])).get("/agent", headers=sent)
    assert answer.json()["reason"] == reason


def test_a_gate_can_have_a_revoked_key_or_one_without_domains() -> None:
    assert gate_for(allow=[SHOP], disabled=True).decide(client_key(), SHOP).reason is Reason.KEY_DISABLED
    assert gate_for().decide(client_key(), SHOP).reason is Reason.ALLOWLIST_EMPTY


def test_a_gate_can_have_a_key_of_another_name() -> None:
    gate = gate_for(allow=[SHOP], key="shop")
    assert gate.decide(client_key("shop"), SHOP).allowed
    assert not gate.decide(client_key(), SHOP).allowed


def test_a_gate_can_refuse_http() -> None:
    assert gate_for(allow=["acme.com"]).decide(client_key(), "http://acme.com").allowed
    assert not gate_for(allow=["acme.com"], https_only=True).decide(client_key(), "http://acme.com").allowed


def test_a_websocket_is_decided_by_its_query_and_origin() -> None:
    client = client_of(gate_for(allow=[SHOP], agent_id="agent_7"))
    with client.websocket_connect("/chat", params=query(), headers=headers(SHOP)) as websocket:
        assert websocket.receive_text() == "agent_7"


def test_a_frame_gets_a_grant_for_its_own_requests() -> None:
    client = client_of(gate_for(allow=[SHOP], agent_id="agent_7"))
    document = client.get("/embed", params=query(), headers=frame_headers(SHOP))
    answer = client.get("/agent", headers={"data-client-grant": document.json()["grant"]})
    assert (answer.json()["agent"], answer.json()["origin"]) == ("agent_7", SHOP)


def test_a_frame_on_a_foreign_page_is_refused() -> None:
    client = client_of(gate_for(allow=[SHOP]))
    assert client.get("/embed", params=query(), headers=frame_headers(FOREIGN)).status_code == 403
    assert client.get("/embed", params=query()).status_code == 200  # no Referer: the browser decides


def test_an_entry_that_no_gate_accepts_is_an_error() -> None:
    """In production the entry is skipped, and a test would only see a refusal."""
    with pytest.raises(ConfigError, match=r"allow has '\*'.*; allow has 'https://acme\.com/shop'"):
        gate_for(allow=["*", "acme.com", "https://acme.com/shop"])


def test_entries_in_one_string_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"allow is one string, 'acme\.com': expected a list"):
        gate_for(allow="acme.com")


# allow_all


@pytest.mark.parametrize(
    "sent",
    [
        {},
        headers(FOREIGN),
        headers("null"),
        headers(SHOP, key="unknown"),
        {"data-client-key": "no key", "origin": "no origin"},
        {"data-client-grant": "no grant"},
    ],
)
def test_every_request_reaches_the_app_with_an_allowed_decision(sent: dict[str, str]) -> None:
    client = client_of(allow_all(agent_id="agent_7"))
    for _ in range(2):  # the second decision comes from memory
        answer = client.get("/agent", headers=sent)
        assert (answer.status_code, answer.json()["agent"]) == (200, "agent_7")


def test_every_page_may_read_the_answer() -> None:
    assert client_of(allow_all()).get("/agent", headers=headers(FOREIGN)).headers["access-control-allow-origin"] == FOREIGN


@pytest.mark.parametrize("preflight", ["open", "strict"])
def test_every_preflight_is_granted(preflight: Any) -> None:
    client = client_of(allow_all(https_only=True), cors=CorsPolicy(preflight=preflight))
    asked = client.options("/agent", headers={"origin": FOREIGN, "access-control-request-method": "POST"})
    assert asked.status_code == 204


def test_every_websocket_is_accepted() -> None:
    with client_of(allow_all(agent_id="agent_7")).websocket_connect("/chat") as websocket:
        assert websocket.receive_text() == "agent_7"


def test_every_frame_document_gets_a_grant() -> None:
    client = client_of(allow_all(agent_id="agent_7"))
    for sent in ({}, frame_headers(FOREIGN), {"sec-fetch-dest": "document"}):
        document = client.get("/embed", headers=sent)
        assert document.status_code == 200
        assert client.get("/agent", headers={"data-client-grant": document.json()["grant"]}).status_code == 200


@pytest.mark.anyio
async def test_handlers_that_ask_the_gate_are_told_that_all_is_allowed() -> None:
    gate = allow_all()
    assert gate.decide(None, None).allowed
    assert gate.decide(CONFLICT, CONFLICT, referer="x", grant="x").allowed
    assert (await gate.check("x", "null", grant="x")).allowed


@pytest.mark.parametrize("path", ["/agent", "/grant"])
def test_a_request_with_two_origins_passes_and_names_none(path: str) -> None:
    answer = client_of(allow_all(), grant_path="/grant").get(path, headers=[("origin", SHOP), ("origin", FOREIGN)])
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)


def test_no_method_that_decides_is_left_out() -> None:
    """A method that is added to Gatekeeper must be replaced, too, if it takes what a request names."""
    deciding = {
        name
        for name, method in inspect.getmembers(Gatekeeper, inspect.isfunction)
        if not name.startswith("_") and {"client_key", "identity"} & set(inspect.signature(method).parameters)
    }
    assert deciding - set(vars(type(allow_all()))) == {"check"}  # which calls check_request


def test_a_gate_that_allows_all_warns_that_it_is_for_tests(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="gatekeeper"):
        allow_all()
    assert "for tests only" in caplog.text
    caplog.clear()
    gate_for(allow=[SHOP])
    assert caplog.text == ""
