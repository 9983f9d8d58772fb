"""The gate together with other packages, as the README says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.types import ASGIApp
from websockets.exceptions import ConnectionClosed

from gatekeeper import StaticSource
from tests.frameworks.running import DEADLINE, EVIL, PAGE, ROW, Served, serving
from tests.frameworks.serving import names_of
from tests.needs import frameworks
from tests.support.client_keys import KEY
from tests.support.starlette_client import TestClient

pytestmark = pytest.mark.process

SCRIPT = {"Origin": PAGE, "data-client-key": KEY}
FOREIGN = {"Origin": EVIL, "data-client-key": KEY}
SOCKET_IO = "/socket.io/"
POLLING = {"EIO": "4", "transport": "polling", "client_key": KEY}


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Require the packages."""
    frameworks()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    apps = ["together_sentry", "together_sse", "together_socketio"]
    with serving("uvicorn", apps, tmp_path_factory.mktemp("together")) as served:
        yield served


def example(heading: str) -> dict[str, Any]:
    """The names of an example, whose gate has the row of the tests."""
    return names_of(heading, StaticSource([ROW]))


@contextmanager
def client_of(app: ASGIApp) -> Iterator[TestClient]:
    """Run an app, and a client of it."""
    with TestClient(app, base_url="https://widget.example") as client:
        yield client


def test_gzip_compresses_and_vary_stays_one_line() -> None:
    with client_of(example("GZip")["app"]) as client:
        answer = client.get("/history", headers={**SCRIPT, "Accept-Encoding": "gzip"})
    assert (answer.headers["content-encoding"], answer.text) == ("gzip", "hello\n" * 1000)
    assert [value for name, value in answer.headers.multi_items() if name == "vary"] == [answer.headers["vary"]]
    assert {"origin", "data-client-key", "accept-encoding"} <= set(answer.headers["vary"].lower().split(", "))


def test_a_session_keeps_its_cookie_on_an_allowed_page() -> None:
    with client_of(example("Sessions")["app"]) as client:
        preflight = client.options("/visits", headers={"Origin": PAGE, "Access-Control-Request-Method": "GET"})
        first, second = (client.get("/visits", headers=SCRIPT) for _ in range(2))
        refused = client.get("/visits", headers=FOREIGN)
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert (first.json(), second.json()) == ({"visits": 1}, {"visits": 2})
    assert second.headers["access-control-allow-credentials"] == "true"
    assert {"samesite=none", "secure"} <= set(first.headers["set-cookie"].lower().split("; "))
    assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
    assert "access-control-allow-credentials" not in refused.headers


def test_opentelemetry_traces_refusals_and_handlers() -> None:
    from opentelemetry import trace  # noqa: PLC0415 - of the extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - of the extra
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415 - of the extra
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415 - of the extra

    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    with client_of(example("OpenTelemetry")["app"]) as client:
        assert client.get("/config", headers=SCRIPT).json() == {"agent_id": "agent-1"}
        assert client.get("/config", headers=FOREIGN).status_code == 403
    spans = [dict(span.attributes or {}) for span in kept.get_finished_spans()]
    assert [(span["http.status_code"], span.get("gatekeeper.key_id")) for span in spans] == [(200, "1"), (403, None)]


def test_sentry_gets_a_crash_once_and_no_refusal(served: dict[str, Served]) -> None:
    app = served["together_sentry"]
    assert app.get("/crash", EVIL).status_code == 403
    before = app.ask()["requests"]
    crashed = app.get("/crash")
    assert (crashed.status_code, crashed.headers["access-control-allow-origin"]) == (500, PAGE)
    app.wait_for(lambda status: status["requests"] > before)
    assert app.ask()["errors"] == ["ValueError"]


def test_sse_starlette_streams_until_the_key_is_revoked(served: dict[str, Served]) -> None:
    app = served["together_sse"]
    with app.http.stream("GET", "/events", params={"client_key": KEY}, headers={"Origin": PAGE}) as answer:
        lines = answer.iter_lines()
        assert [next(lines), next(lines)] == ["event: tick", "data: 1"]
        assert answer.headers["access-control-allow-origin"] == PAGE
        app.list(disabled_at="2026-01-02T03:04:05Z")
        assert {line.partition(":")[0] for line in lines} <= {"", "event", "data"}
    assert app.get("/events").json()["reason"] == "key_disabled"


def test_socketio_talks_to_an_allowed_page_until_it_is_revoked(served: dict[str, Served]) -> None:
    app = served["together_socketio"]
    polled = app.http.get(SOCKET_IO, params=POLLING, headers={"Origin": PAGE})
    assert (polled.status_code, polled.text[0]) == (200, "0")
    assert polled.headers.get_list("access-control-allow-origin") == [PAGE]
    assert app.http.get(SOCKET_IO, params=POLLING, headers={"Origin": EVIL}).json()["reason"] == "origin_not_allowed"
    with app.open(SOCKET_IO, query="&EIO=4&transport=websocket") as connection:
        assert connection.recv(DEADLINE)[0] == "0"
        connection.send("40")  # Socket.IO: connect, then an event
        assert connection.recv(DEADLINE)[:2] == "40"
        connection.send('42["message","hello"]')
        assert connection.recv(DEADLINE) == '42["message","agent-1: hello"]'
        app.list(disabled_at="2026-01-02T03:04:05Z")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(DEADLINE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_strawberry_answers_queries_and_subscriptions() -> None:
    with client_of(example("Strawberry")["app"]) as client:
        asked = {"query": "{ agentId }"}
        assert client.post("/graphql", json=asked, headers=SCRIPT).json() == {"data": {"agentId": "agent-1"}}
        assert client.post("/graphql", json=asked, headers=FOREIGN).status_code == 403
        url, protocols = f"/graphql?client_key={KEY}", ["graphql-transport-ws"]
        with client.websocket_connect(url, subprotocols=protocols, headers={"Origin": PAGE}) as socket:
            socket.send_json({"type": "connection_init"})
            assert socket.receive_json() == {"type": "connection_ack"}
            payload = {"query": "subscription { count(to: 2) }"}
            socket.send_json({"type": "subscribe", "id": "1", "payload": payload})
            told = [socket.receive_json() for _ in range(3)]
    assert [each["payload"]["data"]["count"] for each in told[:2]] == [0, 1]
    assert told[2] == {"type": "complete", "id": "1"}


def test_prometheus_scrapes_the_app_without_a_key() -> None:
    with client_of(example("Prometheus")["app"]) as client:
        assert client.get("/other", headers=FOREIGN).status_code == 403
        scraped = client.get("/metrics")
    assert scraped.status_code == 200
    assert 'gatekeeper_decisions_total{reason="origin_not_allowed"} 1.0' in scraped.text


def test_slowapi_limits_allowed_requests_by_key() -> None:
    with client_of(example("slowapi")["app"]) as client:
        assert {client.get("/config", headers=FOREIGN).status_code for _ in range(5)} == {403}
        answers = [client.get("/config", headers=SCRIPT) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    limited = answers[-1].headers
    assert limited["access-control-allow-origin"] == PAGE
    assert limited["access-control-expose-headers"].lower() == "retry-after"
    assert 0 < int(limited["retry-after"]) <= 61
