"""The bounds on what a client of `gatekeeper hub` may send, over sockets."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from select import select
from typing import Any, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from gatekeeper.cli.http_protocol import MAX_HEAD, BoundedHttp, Lanes, ReadTurns
from tests.integration.conftest import Server
from tests.support.loops import SkippingLoop, run_skipping
from tests.support.starting import wait_until

pytestmark = pytest.mark.process

TIMEOUT = 0.5
PATIENCE = 20.0
LARGE = 64 * 1024 * 1024  # bytes; the buffers of the sockets hold a tenth of them
GET = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 10\r\n\r\n"


class App:
    """Reads each body and answers with its length; `/slow` waits, `/early` reads nothing, `/large` answers with 64 MB.

    Attributes:
        begins: the path of each request, as they begin.
        ends: the type of the last message of each request, as they end.
        pieces: how many pieces of bodies were sent.
    """

    def __init__(self) -> None:
        self.begins: SimpleQueue[str] = SimpleQueue()
        self.ends: SimpleQueue[str] = SimpleQueue()
        self.pieces = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        self.begins.put(scope["path"])
        length = 0
        while scope["path"] != "/early":
            message = await receive()
            length += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.ends.put(message["type"])
                break
        if scope["path"] == "/slow":
            await asyncio.sleep(2 * TIMEOUT)
        body = f"{length} bytes".encode()
        pieces = [b"x" * (LARGE // 64)] * 64 if scope["path"] == "/large" else [body]
        headers = [(b"content-length", str(sum(map(len, pieces))).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.pieces += 1
        await send({"type": "http.response.body"})
        self.ends.put("answered")


class MovableLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test advances from another thread."""

    _advanced = 0.0

    def time(self) -> float:
        """The time in seconds."""
        return super().time() + self._advanced

    def advance(self, seconds: float) -> None:
        """Advance the clock."""

        async def advance() -> None:
            self._advanced += seconds

        asyncio.run_coroutine_threadsafe(advance(), self).result(PATIENCE)

    def serve(self, server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        """Run a server until it stops."""
        with asyncio.Runner(loop_factory=lambda: self) as runner:
            runner.run(server.serve(sockets))


class Served:
    """A server in a thread."""

    def __init__(self, address: tuple[str, int], app: App) -> None:
        self.address = address
        self.app = app

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(self.address, timeout=PATIENCE)


@contextmanager
def serving(
    timeout: float,
    loop: MovableLoop | None = None,
    lanes: Lanes | None = None,
    protocol: type[BoundedHttp] = BoundedHttp,
) -> Iterator[Served]:
    """Serve the app, with no other timeout."""
    app = App()
    http: Any = partial(protocol, timeout=timeout, lanes=lanes)
    bounds: dict[str, Any] = {"h11_max_incomplete_event_size": MAX_HEAD, "timeout_keep_alive": 3600}
    server = Server(uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None, **bounds))
    run = server.run if loop is None else partial(loop.serve, server)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, args=([listener],))
        thread.start()
        assert server.settled.wait(PATIENCE)
        try:
            yield Served(listener.getsockname(), app)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(TIMEOUT) as served:
        yield served


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def answer(connection: socket.socket) -> bytes:
    """The body of one answer."""
    received = b""
    while b"bytes" not in received:
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    return received.rpartition(b"\r\n")[2]


@pytest.mark.parametrize("begun", [b"", b"G", GET[:-2], POST + b"half", GET + b"G", GET + POST + b"half"], ids=repr)
def test_a_request_that_is_not_complete_in_time_is_cut_off(served: Served, begun: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(begun)
        received = rest(connection)
    assert received.count(b"200 OK") == (1 if begun.startswith(GET) else 0)
    if begun.endswith(b"half"):
        assert "http.disconnect" in [served.app.ends.get(timeout=PATIENCE) for _ in range(1 + received.count(b"200 OK") * 2)]


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nX: ", POST.replace(b"10", b"100000")], ids=repr)
def test_bytes_that_drip_gain_no_time(served: Served, begun: bytes) -> None:
    sent = 0
    with served.connect() as connection, suppress(ConnectionError):
        connection.sendall(begun)
        # Each byte comes long before a deadline that began with the last one. The connection is readable once it is cut off.
        while sent < 1000 and not select([connection], [], [], TIMEOUT / 10)[0]:
            connection.sendall(b"x")
            sent += 1
    assert sent < 1000


def test_an_answer_may_take_longer_than_its_request(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(GET.replace(b"/ ", b"/slow ", 1))
        assert answer(connection) == b"0 bytes"


def test_a_client_that_does_not_read_is_cut_off(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(GET.replace(b"/ ", b"/large ", 1))
        assert [served.app.ends.get(timeout=PATIENCE) for _ in range(2)] == ["http.request", "answered"]
        assert len(rest(connection)) < LARGE


def test_a_client_may_take_its_time_to_read_as_long_as_it_reads() -> None:
    loop = MovableLoop()
    with serving(60.0, loop) as served, served.connect() as connection:
        connection.sendall(GET.replace(b"/ ", b"/large ", 1))
        received = advances = sent = 0
        while received < LARGE:
            piece = connection.recv(LARGE // 32)
            assert piece
            received += len(piece)
            # The server has gone on sending since the last advance.
            if served.app.pieces > sent:
                loop.advance(40.0)
                sent = served.app.pieces
                advances += 1
    assert advances > 2


def test_a_connection_is_kept_as_long_as_each_request_is_quick() -> None:
    """Also where the answer comes before the body, whose rest is dropped."""
    early = POST.replace(b"/ ", b"/early ", 1)
    loop = MovableLoop()
    with serving(60.0, loop) as served, served.connect() as connection:
        for _ in range(4):
            connection.sendall(GET)
            assert answer(connection) == b"0 bytes"
            connection.sendall(early)
            assert answer(connection) == b"0 bytes"
            loop.advance(40.0)
            connection.sendall(b"0123456789" + POST)
            assert [served.app.begins.get(timeout=PATIENCE) for _ in range(3)] == ["/", "/early", "/"]
            loop.advance(40.0)
            connection.sendall(b"0123456789")
            assert answer(connection) == b"10 bytes"


@pytest.mark.parametrize("line", [b"a: b\r\n", b"a:\r\n", b"x"], ids=repr)
@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"GET /"], ids=repr)
def test_a_head_over_the_bound_is_refused(served: Served, first: bytes, line: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(first + line * (2 * MAX_HEAD // len(line)) + b"\r\n\r\n")
        received = rest(connection)
    assert b"200 OK" not in received
    assert served.app.ends.empty()


def test_a_head_within_the_bound_is_served(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(GET[:-2] + b"X: " + b"y" * (MAX_HEAD - 100) + b"\r\n\r\n")
        assert answer(connection) == b"0 bytes"


@pytest.mark.parametrize("trailer", [b"0\r\n" + b"a: b\r\n" * 20_000, b"1;" + b"x" * 100_000], ids=["trailers", "extension"])
def test_trailers_and_extensions_of_chunks_are_bounded_too(served: Served, trailer: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n" + trailer)
        assert b"200 OK" not in rest(connection)


class Reader:
    """A connection that is read in turns.

    Attributes:
        loop: the event loop.
    """

    def __init__(self, name: int, reads: list[tuple[int, int]], turn: list[int]) -> None:
        self.loop = asyncio.get_running_loop()
        self._name = name
        self._reads = reads
        self._turn = turn

    def come(self, turns: ReadTurns) -> None:
        """Have something to read."""
        if turns.take(cast("BoundedHttp", self)):
            self.read_held()

    def ask(self, lanes: Lanes, request: bytes) -> None:
        """Have a request to read."""
        if lanes.take(cast("BoundedHttp", self), request):
            self.read_held()

    def read_held(self) -> None:
        """Record that it is read, and in which turn."""
        self._reads.append((self._turn[0], self._name))


def test_each_turn_reads_few_connections_and_none_overtakes_another() -> None:
    async def read() -> list[tuple[int, int]]:
        turn, reads, turns = [0], list[tuple[int, int]](), ReadTurns(3)
        for name in range(7):
            Reader(name, reads, turn).come(turns)
        for turn[0] in range(1, 9):
            await asyncio.sleep(0)
            if turn[0] == 1:
                Reader(7, reads, turn).come(turns)
        for name in (8, 9):
            Reader(name, reads, turn).come(turns)
        return reads

    turns_by_name = asyncio.run(read())
    assert [name for _, name in turns_by_name] == list(range(10))
    assert [turn for turn, _ in turns_by_name] == [0, 0, 0, 1, 1, 1, 2, 2, 8, 8]


def test_a_thousand_requests_that_wait_delay_no_other() -> None:
    async def read() -> list[tuple[int, int]]:
        turn, reads, lanes = [0], list[tuple[int, int]](), Lanes(ReadTurns(3), ReadTurns(1))
        for name in range(1000):
            Reader(name, reads, turn).ask(lanes, GET[:-2] + b"pReFer: wait=60\r\n\r\n")
        for name in range(1000, 1005):
            Reader(name, reads, turn).ask(lanes, GET)
        for turn[0] in range(1, 12):
            await asyncio.sleep(0)
        return reads

    turns_by_name = asyncio.run(read())
    assert [turn for turn, name in turns_by_name if name >= 1000] == [0, 0, 0, 1, 1]
    assert [name for turn, name in turns_by_name if name < 1000 and turn <= 10] == list(range(11))


TOKENS = ("acme", "acme", "acme", "acme", "acme", "acme_shop", "acme", "acme_shop", "globex", None)


@pytest.mark.parametrize("further", [b"", b"Prefer: wait=60\r\n"], ids=["usual", "patient"])
def test_the_requests_of_one_account_delay_no_other(further: bytes) -> None:
    async def read() -> list[int]:
        turn, reads, lanes = [0], list[tuple[int, int]](), Lanes(ReadTurns(1), ReadTurns(1))
        for name, account in enumerate(TOKENS):
            token = b"" if account is None else f"authorization: Bearer sk_live_{account}_{name:043}\r\n".encode()
            Reader(name, reads, turn).ask(lanes, GET[:-2] + token + further + b"\r\n")
        for turn[0] in range(1, 12):
            await asyncio.sleep(0)
        return [name for _, name in reads]

    assert asyncio.run(read()) == [0, 1, 5, 8, 9, 2, 7, 3, 4, 6]


def test_requests_that_wait_are_gathered_and_read_with_pauses() -> None:
    async def read() -> list[tuple[int, int]]:
        turn, reads, turns = [0], list[tuple[int, int]](), ReadTurns(2, period=1.0)
        for name in range(5):
            Reader(name, reads, turn).come(turns)
        for turn[0] in range(1, 7):
            await asyncio.sleep(0.5001)
        return reads

    assert run_skipping(read()) == [(2, 0), (2, 1), (4, 2), (4, 3), (6, 4)]


def test_a_busy_process_reads_few_requests_that_wait_for_a_second() -> None:
    async def read() -> list[int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        reads, turns, counts = list[tuple[int, int]](), ReadTurns(10, period=0.01), list[int]()
        for name in range(1000):
            Reader(name, reads, [0]).come(turns)
        for end in (0.5, 1.0, 1.3):
            before = len(reads)
            while loop.time() < end:
                loop.skipped += 0.001
                await asyncio.sleep(0)
            counts.append(len(reads) - before)
        return counts

    first, second, later = run_skipping(read())
    assert 40 <= first <= 50
    assert 40 <= second <= 60
    assert later >= 200


def test_an_idle_process_reads_requests_that_wait_at_full_speed() -> None:
    async def read() -> int:
        reads, turns = list[tuple[int, int]](), ReadTurns(10, period=0.01)
        for name in range(1000):
            Reader(name, reads, [0]).come(turns)
        await asyncio.sleep(0.5)
        return len(reads)

    assert 400 <= run_skipping(read()) <= 500


def test_a_request_that_is_held_keeps_its_connection() -> None:
    loop, lanes = MovableLoop(), Lanes(patient=ReadTurns(1, period=4000.0))
    with serving(10_000.0, loop, lanes) as served, served.connect() as connection, served.connect() as other:
        connection.sendall(GET)
        assert answer(connection)
        loop.advance(3500.0)
        connection.sendall(GET[:-2] + b"Prefer: wait=60\r\n\r\n")
        other.sendall(GET)
        assert answer(other)  # so what was sent before has come
        loop.advance(200.0)  # the connection would now be closed as idle
        loop.advance(4000.0)
        assert answer(connection)


def test_connections_that_are_held_lose_no_byte() -> None:
    with serving(PATIENCE, lanes=Lanes(ReadTurns(1))) as served, ExitStack() as stack:
        connections = [stack.enter_context(served.connect()) for _ in range(30)]
        for _ in range(3):
            for part in (POST[:20], POST[20:], b"01234", b"56789"):
                for connection in connections:
                    connection.sendall(part)
            assert {answer(connection) for connection in connections} == {b"10 bytes"}


class CountedTurns(ReadTurns):
    """One turn for many connections, which counts them.

    Attributes:
        asked: how many connections have asked for it.
    """

    def __init__(self) -> None:
        super().__init__(1, period=3600.0)
        self.asked = 0

    def take(self, connection: BoundedHttp, account: bytes = b"") -> bool:
        """Count."""
        self.asked += 1
        return super().take(connection, account)


def test_requests_that_are_held_are_answered_before_the_server_stops() -> None:
    turns = CountedTurns()
    with ExitStack() as stack:
        with serving(PATIENCE, lanes=Lanes(turns)) as served:
            connections = [stack.enter_context(served.connect()) for _ in range(10)]
            for connection in connections:
                connection.sendall(GET)
            wait_until(lambda: turns.asked, lambda asked: asked == 10)
        received = [rest(connection) for connection in connections]
        assert [each.rpartition(b"\r\n\r\n")[2] for each in received] == [b"0 bytes"] * 10


def test_a_connection_that_is_reset_while_it_is_held_leaves_the_others() -> None:
    with serving(PATIENCE, lanes=Lanes(ReadTurns(1))) as served, ExitStack() as stack:
        connections = [stack.enter_context(served.connect()) for _ in range(30)]
        for connection in connections:
            connection.sendall(GET)
        for connection in connections[::2]:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.close()
        assert {answer(connection) for connection in connections[1::2]} == {b"0 bytes"}


def test_no_part_of_an_answer_waits_for_an_acknowledgement() -> None:
    """The listening socket names no protocol, as that of uvicorn's workers. uvloop would see to it by itself."""
    made: list[BoundedHttp] = []

    class Recorded(BoundedHttp):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    with serving(TIMEOUT, MovableLoop(), protocol=Recorded) as served, served.connect() as client:
        client.sendall(GET)
        assert client.recv(1000)
        connection = made[0].transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
