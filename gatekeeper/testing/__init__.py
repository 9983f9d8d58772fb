"""Gates, requests, a hub and a clock for an app's tests.

It may import errors, matching, keys and gate. Nothing imports it, and it needs no test framework. gates.py makes gates, and
requests.py makes what a widget sends. rows.py derives rows and client keys from names. fake_hub.py is a hub on a real
socket, which listening.py opens. fake_clock.py is a clock that a test moves.

from gatekeeper.testing import gate_for, headers

client = TestClient(create_app(gate_for(allow=["https://shop.acme.com"])))

def test_a_foreign_page_is_refused():
    answer = client.get("/config", headers=headers("https://evil.example"))
    assert answer.json()["reason"] == "origin_not_allowed"
"""

from gatekeeper.testing.fake_clock import FakeClock
from gatekeeper.testing.fake_hub import GARBAGE, HANG_UP, FakeHub, Hold, HubAnswer, HubRequest, json_answer
from gatekeeper.testing.gates import allow_all, gate_for
from gatekeeper.testing.requests import frame_headers, headers, query
from gatekeeper.testing.rows import client_key, row

__all__ = (
    "GARBAGE",
    "HANG_UP",
    "FakeClock",
    "FakeHub",
    "Hold",
    "HubAnswer",
    "HubRequest",
    "allow_all",
    "client_key",
    "frame_headers",
    "gate_for",
    "headers",
    "json_answer",
    "query",
    "row",
)
