"""On every server, a revocation ends the key's streams and nothing else."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.needs import lacking
from tests.support.client_keys import KEY
from tests.support.starting import wait_until
from tests.wire.app import OTHER_KEY, PAGE, ROWS
from tests.wire.servers import DAPHNE, SERVERS, running

pytestmark = pytest.mark.process

DEADLINE = 20.0
OTHER_PAGE = "https://blog.acme.com"
REVOCATIONS = [
    pytest.param([{**ROWS[0], "disabled_at": "2026-01-02T03:04:05Z"}, ROWS[1]], "key_disabled", id="disabled"),
    pytest.param([ROWS[1]], "key_unknown", id="removed"),
    pytest.param([{**ROWS[0], "domain_allowlist": [OTHER_PAGE]}, ROWS[1]], "origin_not_allowed", id="origin-removed"),
]


class Widget:
    """The served app, and the file with its keys."""

    def __init__(self, port: int, keys: Path, client: httpx.Client) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._keys = keys
        self._client = client

    def lists(self, rows: list[Any]) -> None:
        """Replace the list of keys."""
        fresh = self._keys.with_suffix(".new")
        fresh.write_text(json.dumps(rows))
        fresh.rename(self._keys)

    def read(self, path: str, key: str = KEY, page: str = PAGE, **request: Any) -> bytes:
        """Read a response to its end."""
        method = "POST" if request else "GET"
        response = self._client.request(method, path, params={"client_key": key}, headers={"Origin": page}, **request)
        assert response.status_code == 200
        return response.content

    def talk(self, path: str, key: str = KEY, page: str = PAGE) -> tuple[int, str]:
        """Read a WebSocket to its end, and return how it was closed."""
        with connect(f"ws://127.0.0.1:{self.port}{path}?client_key={key}", origin=Origin(page), proxy=None) as connection:
            with pytest.raises(ConnectionClosed) as closed:
                list(connection)
            assert closed.value.rcvd is not None
            return closed.value.rcvd.code, closed.value.rcvd.reason

    def status(self) -> Any:
        return self._client.get("/status").json()

    def wait_for(self, is_met: Callable[[Any], bool]) -> Any:
        """Wait until the app's status fulfils a condition."""
        return wait_until(self.status, is_met)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams") / "keys.json"


@pytest.fixture(scope="module")
def ports(keys: Path) -> Iterator[dict[str, int]]:
    keys.write_text(json.dumps(ROWS))
    with running(keys.parent, "tests.wire.streams_app:app", {"GATEKEEPER_TEST_KEYS": str(keys)}) as ports:
        yield ports


@pytest.fixture(params=SERVERS)
def widget(request: pytest.FixtureRequest, ports: dict[str, int], keys: Path) -> Iterator[Widget]:
    with served(ports[request.param], keys) as widget:
        yield widget


@pytest.fixture
def daphne(tmp_path: Path) -> Iterator[Widget]:
    if find_spec("daphne") is None:
        lacking("daphne is not installed: pip install daphne")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(ROWS))
    environment = {"GATEKEEPER_TEST_KEYS": str(keys)}
    with (
        running(tmp_path, "tests.wire.streams_app:app", environment, [DAPHNE]) as ports,
        served(ports[DAPHNE], keys) as widget,
    ):
        yield widget


@contextmanager
def served(port: int, keys: Path) -> Iterator[Widget]:
    """Give every key its streams back, and wait until the server knows."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=DEADLINE, limits=limits) as client:
        widget = Widget(port, keys, client)
        widget.lists(ROWS)
        wait_until(
            lambda: client.get("/upload", params={"client_key": KEY}, headers={"Origin": PAGE}).status_code,
            lambda status: status == 405,
        )
        yield widget


@pytest.mark.parametrize(("rows", "reason"), REVOCATIONS)
def test_streams_of_a_revoked_key_end_and_everything_else_continues(widget: Widget, rows: list[Any], reason: str) -> None:
    before = widget.status()
    have_ended = Event()

    def slowly() -> Iterator[bytes]:
        yield b"x" * 10
        assert have_ended.wait(DEADLINE)
        yield b"x" * 290

    with ThreadPoolExecutor(16) as pool:
        streams = [pool.submit(widget.read, path) for path in ("/idle", "/busy", "/bare")]
        sockets = [pool.submit(widget.talk, path) for path in ("/echo", "/push")]
        plain = [pool.submit(widget.read, "/download"), pool.submit(widget.read, "/upload", content=slowly())]
        other_stream = pool.submit(widget.read, "/busy", OTHER_KEY, OTHER_PAGE)
        other_socket = pool.submit(widget.talk, "/echo", OTHER_KEY, OTHER_PAGE)
        widget.wait_for(lambda status: len(status["inside"]) == 7)
        widget.lists(rows)
        for stream in streams:
            assert stream.result(DEADLINE).startswith(b"data: ")
        for socket in sockets:
            code, why = socket.result(DEADLINE)
            assert (code, why.split(":")[0]) == (1008, reason)
        status = widget.wait_for(lambda status: len(status["inside"]) == 2)
        assert status["inside"] == ["busy", "echo"]
        assert status["closed"] == before["closed"] + 5
        have_ended.set()
        assert plain[0].result(DEADLINE) == b"0123456789" * 60
        assert json.loads(plain[1].result(DEADLINE)) == {"length": 300}
        assert not other_stream.done()
        assert not other_socket.done()
        widget.lists([])
        assert other_stream.result(DEADLINE).startswith(b"data: next")
        assert other_socket.result(DEADLINE)[0] == 1008
    widget.wait_for(lambda status: not status["inside"])


@pytest.mark.parametrize("accepts", [{}, {"TE": "trailers"}])
@pytest.mark.parametrize("server", ["hypercorn", "granian"])
def test_a_stream_with_trailers_ends_over_http2(
    server: str, accepts: dict[str, str], ports: dict[str, int], keys: Path
) -> None:
    """Hypercorn waits for the trailers that an app has announced, and the revoked stream stayed open."""
    headers = {"Origin": PAGE, **accepts}
    with (
        served(ports[server], keys) as widget,
        httpx.Client(base_url=widget.url, trust_env=False, timeout=DEADLINE, http1=False, http2=True) as client,
        client.stream("GET", "/trailers", params={"client_key": KEY}, headers=headers) as response,
    ):
        pieces = response.iter_raw()
        assert (response.http_version, next(pieces)) == ("HTTP/2", b"data: first\n\n")
        widget.lists([])
        assert b"".join(pieces) == b""
        widget.wait_for(lambda status: "trailers" not in status["inside"])


def test_a_websocket_of_a_revoked_key_is_closed_by_daphne(daphne: Widget) -> None:
    """Daphne raises for code 1008 and leaves the WebSocket open, so it is closed with 3003."""
    with ThreadPoolExecutor(4) as pool:
        sockets = [pool.submit(daphne.talk, path) for path in ("/echo", "/push")]
        streams = [pool.submit(daphne.read, path) for path in ("/idle", "/bare")]
        daphne.wait_for(lambda status: len(status["inside"]) == 4)
        daphne.lists([])
        assert [socket.result(DEADLINE)[0] for socket in sockets] == [3003, 3003]
        assert [stream.result(DEADLINE) for stream in streams] == [b"data: first\n\n"] * 2
    daphne.wait_for(lambda status: not status["inside"])


def test_daphne_refuses_the_handshake_of_a_foreign_page(daphne: Widget) -> None:
    with pytest.raises(InvalidStatus) as refused:
        daphne.talk("/echo", page=OTHER_PAGE)
    assert refused.value.response.status_code == 403
