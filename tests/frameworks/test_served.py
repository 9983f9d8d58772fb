"""The gate in every framework, under every server: each cell of the table in the README."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.frameworks.matrix import (
    APPS,
    BEHAVIOURS,
    CONTEXT_OF_ITS_OWN,
    CRASH_OUTSIDE,
    MOUNTED,
    NO_LIFESPAN,
    NO_WEBSOCKETS,
    OTHER_CLOSE_CODE,
    Mounted,
    Note,
)
from tests.frameworks.running import DEADLINE, EVIL, PAGE, Served
from tests.support.client_keys import KEY

pytestmark = pytest.mark.process

ways = pytest.mark.parametrize("mounted", MOUNTED, ids=lambda mounted: mounted.name)


class Cell:
    """A cell of the table: a way to mount the gate, and a server."""

    def __init__(self, mounted: Mounted, served: Served) -> None:
        self.served = served
        self._mounted = mounted

    def path(self, name: str) -> str:
        return f"{self._mounted.prefix}/{name}"

    def has(self, *notes: Note) -> bool:
        return any(note.applies(self._mounted.name, self.served.server) for note in notes)


def read_to_the_end(pieces: Iterator[bytes]) -> None:
    """Read a stream that would not end by itself."""
    deadline = time.monotonic() + DEADLINE
    for _ in pieces:
        assert time.monotonic() < deadline


def allow(cell: Cell) -> None:
    answer = cell.served.get(cell.path("config"))
    assert (answer.status_code, answer.json()) == (200, {"agent_id": "agent-1"})
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert len([value for name, value in answer.headers.multi_items() if name == "vary"]) == 1
    assert {"origin", "data-client-key"} <= {member.strip().lower() for member in answer.headers["vary"].split(",")}


def refuse(cell: Cell) -> None:
    before = cell.served.ask()["handled"]
    answer = cell.served.get(cell.path("seen"), EVIL)
    assert (answer.status_code, answer.json()["reason"]) == (403, "origin_not_allowed")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    assert cell.served.ask()["handled"] == before


def preflight(cell: Cell) -> None:
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "data-client-key"}
    answer = cell.served.http.options(cell.path("seen"), headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert "POST" in answer.headers["access-control-allow-methods"]


def stream(cell: Cell) -> None:
    cell.served.ask("/hold")
    with cell.served.http.stream("GET", cell.path("stream"), headers={"Origin": PAGE, "data-client-key": KEY}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first,"
        cell.served.ask("/release")
        assert b"".join(pieces) == b"second"


def events(cell: Cell) -> None:
    with cell.served.http.stream("GET", cell.path("events"), params={"client_key": KEY}, headers={"Origin": PAGE}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next(answer.iter_lines()) == "data: next"


def websocket(cell: Cell) -> None:
    with pytest.raises(InvalidStatus) as refused:
        cell.served.open(cell.path("echo"), EVIL)
    assert refused.value.response.status_code == 403
    if not cell.has(OTHER_CLOSE_CODE):
        assert json.loads(refused.value.response.body)["reason"] == "origin_not_allowed"
    if cell.has(*NO_WEBSOCKETS):
        with pytest.raises((InvalidHandshake, ConnectionClosed, EOFError)):
            cell.served.open(cell.path("echo"))
        return
    with cell.served.open(cell.path("echo")) as connection:
        connection.send("hello")
        assert connection.recv(DEADLINE) == "hello"


def crash(cell: Cell) -> None:
    answer = cell.served.get(cell.path("crash"))
    expected = [] if cell.has(CRASH_OUTSIDE) else [PAGE]
    assert (answer.status_code, answer.headers.get_list("access-control-allow-origin")) == (500, expected)


def revocation(cell: Cell) -> None:
    with cell.served.http.stream("GET", cell.path("events"), headers={"Origin": PAGE, "data-client-key": KEY}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces).startswith(b"data: next")
        if cell.has(*NO_WEBSOCKETS):
            with cell.served.revoked(cell.path("config")):
                read_to_the_end(pieces)
            return
        with cell.served.open(cell.path("echo")) as connection, cell.served.revoked(cell.path("config")):
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(DEADLINE)
            received = closed.value.rcvd
            assert received is not None
            expected = (3003, "") if cell.has(OTHER_CLOSE_CODE) else (1008, "key_disabled")
            assert (received.code, received.reason.split(":")[0]) == expected
            read_to_the_end(pieces)
    cell.served.wait_for(lambda status: status["open"] == 0)


def context(cell: Cell) -> None:
    before = cell.served.ask()["requests"]
    answer = cell.served.get(cell.path("seen"))
    assert answer.json() == {"key": "shop", "set_outside": "by the middleware"}
    cell.served.wait_for(lambda status: status["requests"] > before)
    assert cell.served.ask()["set_inside"] == ("" if cell.has(CONTEXT_OF_ITS_OWN) else "by the app")


def background(cell: Cell) -> None:
    before = cell.served.ask()["background"]
    assert cell.served.get(cell.path("background")).status_code == 200
    cell.served.wait_for(lambda status: status["background"] == before + 1)


def lifespan(cell: Cell) -> None:
    assert cell.served.ask()["started"] is (None if cell.has(*NO_LIFESPAN) else True)


CHECKS: dict[str, Callable[[Cell], Any]] = {
    check.__name__: check
    for check in (
        allow, refuse, preflight, stream, events, websocket, crash, revocation, context, background, lifespan,
    )
}  # fmt: skip


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@ways
def test_the_gate_works_in_every_framework(apps: dict[str, Served], mounted: Mounted, behaviour: str) -> None:
    CHECKS[behaviour](Cell(mounted, apps[mounted.app]))


def test_a_page_posts_to_views_of_django_without_its_csrf_check(apps: dict[str, Served]) -> None:
    answers = {
        name: apps["django_app"].http.post(f"/{name}", headers={"Origin": PAGE, "data-client-key": KEY})
        for name in ("form", "exempt")
    }
    assert {name: answer.status_code for name, answer in answers.items()} == {"form": 403, "exempt": 200}
    assert all(answer.headers["access-control-allow-origin"] == PAGE for answer in answers.values())


@pytest.mark.parametrize("app", APPS)
def test_the_gate_ends_with_its_server(apps: dict[str, Served], app: str) -> None:
    """It stops the server, and is the last test of it."""
    (mounted, *_) = [each for each in MOUNTED if each.app == app]
    cell = Cell(mounted, apps[app])
    assert cell.served.stop() == (None if cell.has(*NO_LIFESPAN) else "refreshing: False")
