"""The methods of both clients, for tests that call all of them."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gatekeeper import RefusedPage
from gatekeeper.client import KeyUsage
from gatekeeper.keys.gate_report import GateReport
from tests.support.callers import Caller

Connect = Callable[..., Caller]

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
REFUSED = RefusedPage("key-1", "https://shop.test", "origin_not_allowed", 3, NOON, NOON, "shop.test")
GATE = GateReport("3f9a", "0.1.0", True, "fresh", 2.5, 12, "web-1")  # noqa: FBT003 - in the order of the fields
METHODS: list[tuple[str, tuple[Any, ...]]] = [
    ("list", ()),
    ("get", ("key-1",)),
    ("create", ("shop",)),
    ("update", ("key-1",)),
    ("delete", ("key-1",)),
    ("events", ("key-1",)),
    ("refused", ("key-1",)),
    ("report_usage", ({"key-1": KeyUsage(3, NOON)},)),
    ("report_refused", ([REFUSED],)),
    ("gates.list", ()),
    ("gates.report", (GATE,)),
]


def free_port() -> int:
    """Find an unused port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
