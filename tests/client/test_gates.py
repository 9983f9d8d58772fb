"""The methods on gates of both clients."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gatekeeper import HubNotFoundError, HubPermissionError, HubProtocolError
from gatekeeper.keys.gate_report import GateReport, GateRow
from gatekeeper.testing import FakeHub, HubAnswer, json_answer
from tests.client.support import GATE, NOON, Connect
from tests.support.callers import Caller
from tests.support.real_hub import served_hub

GATES = "/api/v1/gates"
ROW = {
    "id": "3f9a",
    "version": "0.1.0",
    "is_live": True,
    "state": "fresh",
    "list_age": 2.5,
    "keys": 12,
    "host": "web-1",
    "seen_at": "2026-01-02T12:00:00Z",
}


@pytest.mark.parametrize(
    ("base_path", "path"),
    [("", GATES), ("/api/", GATES), ("/v1", "/v1/gates"), ("/behind/a/proxy", f"/behind/a/proxy{GATES}")],
)
def test_gates_are_beside_the_widget_keys(connect: Connect, hub: FakeHub, base_path: str, path: str) -> None:
    hub.always(json_answer([]))
    assert connect(hub.url + base_path)("gates.list") == []
    request = hub.requests[0]
    assert (request.method, request.target, request.body) == ("GET", path, b"")


def test_a_gate_reports_all_that_it_knows(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(204))
    assert call("gates.report", GATE) is None
    assert call("gates.report", GateReport("3f9a", "0.1.0", is_live=False, state="never_loaded")) is None
    known, unknown = hub.requests
    assert (known.method, known.target, known.headers["content-type"]) == ("POST", GATES, "application/json")
    assert known.json == {name: value for name, value in ROW.items() if name != "seen_at"}
    assert unknown.json == {
        **known.json,
        "is_live": False,
        "state": "never_loaded",
        "list_age": None,
        "keys": 0,
        "host": None,
    }


def test_gates_are_read_with_what_a_newer_hub_says_besides(call: Caller, hub: FakeHub) -> None:
    seen = {"seen_at": "2026-01-02T11:00:00Z"}
    hub.always(json_answer([{**ROW, "region": "eu"}, {"id": "b", "version": "9", "is_live": False, "state": "new", **seen}]))
    listed = call("gates.list")
    assert listed[0] == GateRow("3f9a", "0.1.0", True, "fresh", 2.5, 12, "web-1", seen_at=NOON)  # noqa: FBT003
    assert listed[1] == GateRow("b", "9", is_live=False, state="new", seen_at=datetime(2026, 1, 2, 11, tzinfo=UTC))


@pytest.mark.parametrize("body", [None, {}, [7], [{"id": "a"}], [{**ROW, "seen_at": "noon"}], [{**ROW, "is_live": "yes"}]])
def test_an_answer_that_lists_no_gates_is_a_protocol_error(call: Caller, hub: FakeHub, body: Any) -> None:
    hub.always(json_answer(body))
    with pytest.raises(
        HubProtocolError, match=f"at {hub.url}{GATES} answered 200 with something other than a list of gates"
    ):
        call("gates.list")


def test_a_login_page_takes_no_report(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(200, b"<html>"))
    with pytest.raises(HubProtocolError, match="an empty answer or JSON"):
        call("gates.report", GATE)


@pytest.mark.parametrize("method", ["gates.list", "gates.report"])
def test_a_hub_without_gates_says_so_with_its_status(call: Caller, hub: FakeHub, method: str) -> None:
    hub.always(json_answer({"detail": "Not Found"}, 404))
    with pytest.raises(HubNotFoundError, match=f"at {hub.url}{GATES} answered 404") as caught:
        call(method, *(() if method == "gates.list" else (GATE,)))
    assert caught.value.status == 404


def test_the_reference_hub_lists_a_reported_gate(connect: Connect, tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        gate = connect(served.url, served.gate_token)
        gate("gates.report", GATE)
        with pytest.raises(HubPermissionError):
            gate("gates.list")
        (listed,) = connect(served.url, served.token)("gates.list")
        assert {field: getattr(listed, field) for field in GateReport.__struct_fields__} == {
            field: getattr(GATE, field) for field in GateReport.__struct_fields__
        }
        assert abs((datetime.now(UTC) - listed.seen_at).total_seconds()) < 60
