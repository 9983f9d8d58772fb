"""A minimal HTTP connection, which costs less than the server."""

import asyncio
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.asgi import HEADERS, PATH

__all__ = ("Answer", "Connection", "request")

PATIENCE = 30.0  # seconds for an answer


class Answer(NamedTuple):
    """The status of an answer, and the process it came from."""

    status: int
    process: int | None


def request(key: bytes, origin: bytes) -> bytes:
    """The bytes of a browser's GET."""
    own = {b"data-client-key": key, b"origin": origin, b"referer": origin + b"/"}
    lines = [b"%b: %b\r\n" % (name, own.get(name, value)) for name, value in HEADERS]
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (PATH.encode(), b"".join(lines))


class Connection:
    """A keep-alive connection to a server on this machine.

    Args:
        port: the port of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    async def ask(self, head: bytes) -> Answer:
        """Send a request, and read its answer to the end."""
        self._writer.write(head)
        async with asyncio.timeout(PATIENCE):
            answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length:" in answer:
                await self._reader.readexactly(int(_header(answer, b"content-length")))
        process = int(_header(answer, b"x-process")) if b"x-process:" in answer else None
        return Answer(int(answer.split(b" ", 2)[1]), process)


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n%b:" % name)[2].partition(b"\r\n")[0].strip()
