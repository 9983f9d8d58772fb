"""A minimal HTTP connection, which costs less than the server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.asgi import HEADERS, PATH

__all__ = ("Answer", "Connection", "Received", "Stream", "connected_to_workers", "request")

PATIENCE = 30.0  # seconds for an answer
CONNECTED_WITHIN = 60.0  # seconds within which each worker has to answer
TICK = 0.05  # seconds between two attempts to reach another worker
LONGEST = 1 << 28  # bytes of a chunked body


class Answer(NamedTuple):
    """The status of an answer, the process it came from, and the monotonic time at which it began there."""

    status: int
    process: int | None
    at: float | None


class Received(NamedTuple):
    """The head and the body of an answer."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        """The status."""
        return int(self.head.split(b" ", 2)[1])

    def header(self, name: bytes) -> bytes:
        """The value of a header, by its lower-case name; empty without it."""
        place = self.head.lower().find(b"\r\n%b:" % name)
        return b"" if place < 0 else self.head[place + len(name) + 3 :].partition(b"\r\n")[0].strip()


def request(key: bytes, origin: bytes) -> bytes:
    """The bytes of a browser's GET."""
    own = {b"data-client-key": key, b"origin": origin, b"referer": origin + b"/"}
    lines = [b"%b: %b\r\n" % (name, own.get(name, value)) for name, value in HEADERS]
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (PATH.encode(), b"".join(lines))


class Stream:
    """A keep-alive connection.

    Args:
        reader: its incoming half.
        writer: its outgoing half.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to a server on this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=LONGEST))

    async def exchange(self, sent: bytes) -> Received:
        """Send a request, and read its answer to the end."""
        self._writer.write(sent)
        async with asyncio.timeout(PATIENCE):
            received = Received(await self._reader.readuntil(b"\r\n\r\n"), b"")
            if length := received.header(b"content-length"):
                return Received(received.head, await self._reader.readexactly(int(length)))
            if received.header(b"transfer-encoding") == b"chunked":
                return Received(received.head, b"".join([chunk async for chunk in self._chunks()]))
        return received

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class Connection:
    """A keep-alive connection to a guarded app on this machine.

    Args:
        port: the port of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._stream = await Stream.open(self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()

    async def exchange(self, head: bytes) -> Received:
        """Send a request, and read its answer to the end."""
        return await self._stream.exchange(head)

    async def ask(self, head: bytes) -> Answer:
        """Send a request, and read who answers what."""
        received = await self.exchange(head)
        process, at = received.header(b"x-process"), received.header(b"x-at")
        return Answer(received.status, int(process) if process else None, float(at) if at else None)


@asynccontextmanager
async def connected_to_workers(port: int, count: int, head: bytes) -> AsyncIterator[dict[int, Connection]]:
    """Connect to each worker of a server, some of which start later than others.

    Args:
        port: the port of the server.
        count: the number of workers.
        head: a request that is answered with the worker's process id.

    Yields:
        The connections by process id.
    """
    async with AsyncExitStack() as stack:
        workers: dict[int, Connection] = {}
        deadline = time.monotonic() + CONNECTED_WITHIN
        while len(workers) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(workers)} of {count} workers answer within {CONNECTED_WITHIN:g} s")
            async with AsyncExitStack() as own:
                connection = await own.enter_async_context(Connection(port))
                process = (await connection.ask(head)).process
                assert process is not None
                if process not in workers:
                    workers[process] = connection
                    await stack.enter_async_context(own.pop_all())
            for connection in workers.values():  # otherwise the server would close them as idle
                await connection.ask(head)
            await asyncio.sleep(TICK)
        yield workers
