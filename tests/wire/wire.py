"""A raw connection, and the outcome of an answer in one word."""

import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tests.support.client_keys import KEY
from tests.wire.app import PAGE

__all__ = ("Answer", "Wire", "connect", "outcome", "talked")

DEADLINE = 10.0
LARGEST_READ = 65_536
WITHOUT_BODY = frozenset({100, 101, 204, 304})
TEXT, CLOSE = 0x81, 0x88  # RFC 6455 section 5.2: the first byte of an unfragmented message
TWO_MORE_BYTES = 126
NOT_IMPLEMENTED = 501  # RFC 9112 section 6.1: the answer to an unknown transfer coding

# The documented statuses, repeated here on purpose. All of these tests have a list of keys.
STATUS = {
    "key_missing": 400,
    "key_malformed": 400,
    "key_conflict": 400,
    "key_unknown": 403,
    "key_disabled": 403,
    "allowlist_empty": 403,
    "origin_conflict": 400,
    "origin_malformed": 400,
    "origin_null": 403,
    "origin_missing": 403,
    "origin_not_allowed": 403,
}


class Answer(NamedTuple):
    """A response. Its header names are in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def values(self, wanted: bytes) -> list[bytes]:
        """The values of all header lines with one name."""
        return [value for name, value in self.headers if name == wanted]


class Wire:
    """One connection to a server, as bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send data, even if the server has already disconnected."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(data)

    def answered_within(self, seconds: float) -> bool:
        """Wait for the server to send something or disconnect."""
        return self._buffer != b"" or select.select([self._connection], [], [], seconds)[0] != []

    def receive(self) -> bytes:
        """Read the next data; nothing once the server has disconnected."""
        if not self._buffer:
            try:
                return self._connection.recv(LARGEST_READ)
            except ConnectionResetError:
                return b""
        received, self._buffer = self._buffer, b""
        return received

    def take(self, length: int) -> bytes:
        """Read exactly this many bytes."""
        while len(self._buffer) < length:
            self._read_on()
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken

    def answer(self) -> Answer | None:
        """Read one HTTP/1 response; None if the server disconnected instead."""
        self._buffer = self.receive()
        if not self._buffer:
            return None
        status_line, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
        version, status = status_line.split()[:2]
        assert version in {b"HTTP/1.1", b"HTTP/1.0"}, status_line
        fields = (line.partition(b":") for line in lines)
        answer = Answer(int(status), [(name.lower(), value.strip()) for name, _, value in fields])
        if answer.status in WITHOUT_BODY:
            return answer
        lengths = answer.values(b"content-length")
        if lengths:
            return answer._replace(body=self.take(int(lengths[0])))
        if answer.values(b"transfer-encoding"):
            return answer._replace(body=b"".join(self._chunks()))
        assert answer.values(b"connection") == [b"close"], answer
        return answer._replace(body=b"".join(self._rest()))

    def answers(self) -> Iterator[Answer]:
        """Read responses until the server disconnects."""
        while (answer := self.answer()) is not None:
            yield answer

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self.take(size)
            assert self._until(b"\r\n") == b""
        assert self._until(b"\r\n") == b""

    def _rest(self) -> Iterator[bytes]:
        while more := self.receive():
            yield more

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._read_on()
        taken, _, self._buffer = self._buffer.partition(end)
        return taken

    def _read_on(self) -> None:
        before = self.receive() if self._buffer else b""
        more = self.receive()
        assert more, f"the server disconnected in the middle of an answer: {before!r}"
        self._buffer = before + more


@contextmanager
def connect(port: int) -> Iterator[Wire]:
    """Open a connection while the context is open."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Wire(connection)


def outcome(answer: Answer | None) -> str:
    """Check an answer, and name its sender and outcome.

    Args:
        answer: the answer; None if the server disconnected without one.

    Returns:
        "allowed" if the app answered; "preflight" or a reason if the gate did; "server" with the status, or "closed".
    """
    if answer is None:
        return "closed"
    readers = answer.values(b"access-control-allow-origin")
    assert KEY.encode() not in answer.body
    if answer.status == 200:
        _see_the_app(answer.body)
        assert readers in ([PAGE.encode()], []), readers
        return "allowed"
    if answer.status == 204:
        assert readers == [b"*"]
        return "preflight"
    if answer.values(b"content-type") == [b"application/problem+json"]:
        problem = json.loads(answer.body)
        reason: str = problem["reason"]
        assert answer.status == problem["status"] == STATUS[reason]
        assert problem["type"] == f"urn:gatekeeper:{reason}"
        assert answer.values(b"cache-control") == [b"no-store"]
        assert readers in ([b"*"], []), readers  # no script can read a preflight or a handshake
        return reason
    assert 400 <= answer.status < 500 or answer.status in {100, NOT_IMPLEMENTED}, answer
    assert readers == []
    return f"server {answer.status}"


def talked(take: Callable[[int], bytes]) -> str:
    """Read an open WebSocket to its end, and check its messages.

    Args:
        take: the function that reads this many bytes.

    Returns:
        "allowed", once the app has closed the WebSocket.
    """
    first, length = take(2)
    assert first == TEXT
    _see_the_app(take(int.from_bytes(take(2), "big") if length == TWO_MORE_BYTES else length))
    first, length = take(2)
    assert (first, take(length)) == (CLOSE, (1000).to_bytes(2, "big"))
    return "allowed"


def _see_the_app(said: bytes) -> None:
    seen = json.loads(said)
    assert (seen["seen"], seen["key"], seen["origin"]) == (True, "shop", PAGE)
