"""A hub and a clock for an app's tests.

It may import errors, matching, keys and gate. Nothing imports it, and it needs no test framework. rows.py derives rows and
client keys from names. fake_hub.py is a hub on a real socket, which listening.py opens. fake_clock.py is a clock that a test
moves.
"""

from gatekeeper.testing.fake_clock import FakeClock
from gatekeeper.testing.fake_hub import GARBAGE, HANG_UP, Answer, FakeHub, Hold, Request, json_answer
from gatekeeper.testing.rows import client_key, row

__all__ = (
    "GARBAGE",
    "HANG_UP",
    "Answer",
    "FakeClock",
    "FakeHub",
    "Hold",
    "Request",
    "client_key",
    "json_answer",
    "row",
)
