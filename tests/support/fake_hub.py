"""A hub on a real socket with scripted answers, which records its requests.

It runs in a thread with its own event loop, so that any client can use it and tests can hold its answers.
"""

import asyncio
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio.to_thread

from .rows import as_json

PATH = "/api/v1/widget-keys"
PATIENCE = 15.0


class Request(NamedTuple):
    """A request, with names of headers in lower case.

    Attributes:
        port: of the client, which tells connections apart.
        at: the moment, by the hub's clock.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    port: int
    at: float

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class Hold:
    """Holds an answer until it is released."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def release(self) -> None:
        """Send the answer."""
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait for the release."""
        await self._event.wait()


@dataclass(frozen=True)
class Answer:
    """An answer of the hub.

    Attributes:
        status: the status code.
        body: bytes on the wire.
        headers: sent besides Content-Length, which they may override.
        raw: bytes sent instead of all of the above.
        hold: awaited before answering.
        drip: seconds between any two bytes of the body.
        hang_up: close the connection afterwards.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hold: Hold | None = None
    drip: float = 0.0
    hang_up: bool = False


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    """Make an answer with JSON; `retry_after` becomes the header Retry-After."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"content-type": "application/json", **named})


HANG_UP = Answer(raw=b"", hang_up=True)
GARBAGE = Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n", hang_up=True)


class FakeHub:
    """A hub on its own port, while it is entered. By default it has no keys, and takes the reports of gates.

    Args:
        tls: the certificate, for a hub with TLS.
        address: to listen on; port 0 for any free one.

    Attributes:
        requests: in order.
        clock: gives the moments of requests.
        url: of the hub.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.requests: list[Request] = []
        self.clock: Callable[[], float] = time.monotonic
        self.url = ""
        self._tls = tls
        self._address = address
        self._next: deque[Answer] = deque()
        self._otherwise: Callable[[Request], Answer] = lambda request: self._list(request, b"[]", None)
        self._hold: Hold | None = None
        self._asked = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake hub", daemon=True)
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    def then(self, *answers: Answer) -> None:
        """Send these answers next, one for each request."""
        self._next.extend(answers)

    def always(self, answer: Answer | Callable[[Request], Answer]) -> None:
        """Send this answer by default."""
        self._otherwise = answer if callable(answer) else lambda _: answer

    def lists(self, *rows: Any, etag: str | None = None) -> None:
        """List these rows, under this entity tag, and take the reports of gates."""
        self.always(lambda request: self._list(request, as_json(*rows), etag))

    def hold(self) -> Hold:
        """Make a hold for an answer."""
        return Hold(self._loop)

    @contextmanager
    def held(self) -> Iterator[Hold]:
        """Hold every answer until the end of the block, or the release."""
        self._hold = hold = self.hold()
        try:
            yield hold
        finally:
            self._hold = None
            hold.release()

    @property
    def fetches(self) -> list[Request]:
        """The requests for lists."""
        return [request for request in self.requests if request.method == "GET"]

    def wait_for_requests(self, count: int) -> None:
        """Wait until there were `count` requests."""
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.requests) >= count, PATIENCE), self.requests

    async def asked(self, count: int) -> None:
        """Wait until there were `count` requests."""
        await anyio.to_thread.run_sync(self.wait_for_requests, count)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, *self._address, ssl=self._tls)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        connections = self._connections.copy()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in connections.values():  # tasks cancelled before they began close nothing
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._loop.create_task(self._serve(reader, writer))
        self._connections[connection] = writer
        connection.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await self._read_request(reader, writer)
        answer = self._next.popleft() if self._next else self._otherwise(request)
        hold = answer.hold or self._hold
        with self._asked:
            self.requests.append(request)
            self._asked.notify_all()
        if hold is not None:
            await hold.wait()
        if answer.raw is not None:
            writer.write(answer.raw)
        else:
            await _write_answer(writer, answer)
        await writer.drain()
        return not answer.hang_up

    async def _read_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n")
        request_line, *lines = head.split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, target, headers, body, writer.get_extra_info("peername")[1], self.clock())

    @staticmethod
    def _list(request: Request, body: bytes, etag: str | None) -> Answer:
        if request.target.endswith(("/usage", "/refused")):
            return Answer(204)
        if etag is None:
            return Answer(200, body, {"content-type": "application/json"})
        if request.headers.get("if-none-match") == etag:
            return Answer(304, b"", {"etag": etag})
        return Answer(200, body, {"content-type": "application/json", "etag": etag})


async def _write_answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
    lengths = {} if answer.status in {204, 304} else {"content-length": str(len(answer.body))}
    phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else "Unheard Of"
    lines = [f"HTTP/1.1 {answer.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in {**lengths, **answer.headers}.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if not answer.drip:
        writer.write(answer.body)
        return
    for byte in answer.body:
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(answer.drip)
