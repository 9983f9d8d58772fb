"""Network faults on real sockets: a TCP proxy, and an address that never answers."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Literal, Self

__all__ = ("FaultProxy", "mute_address")

PATIENCE = 15.0
CHUNK = 65_536
Ending = Literal["fin", "reset"]


class FaultProxy:
    """Forwards bytes to a hub and back, with faults for all connections.

    Args:
        upstream: URL of the hub.

    Attributes:
        url: of the proxy.
        connections: number accepted.
    """

    def __init__(self, upstream: str) -> None:
        self._scheme, self._upstream = _address(upstream)
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._cut_after: int | None = None
        self._ending: Ending = "fin"
        self._is_silent = False
        self._drip = 0.0
        self._idle: float | None = None
        self.connections = 0

    @property
    def url(self) -> str:
        """The URL of the proxy."""
        return f"{self._scheme}://127.0.0.1:{self._port}"

    def refuse(self) -> None:
        """Stop listening, and close all connections."""
        self._do(self._close())

    def heal(self) -> None:
        """Forward everything again, at the same address."""
        self._cut_after, self._is_silent, self._drip, self._idle = None, False, 0.0, None
        if self._server is None:
            self._do(self._open())

    def lead_to(self, upstream: str) -> None:
        """Forward to another hub, and close all connections."""
        _, self._upstream = _address(upstream)
        self._do(self._hang_up())

    def hang_up(self) -> None:
        """Close all connections."""
        self._do(self._hang_up())

    def be_silent(self) -> None:
        """Accept connections and requests, and never answer."""
        self._is_silent = True

    def cut(self, after: int, ending: Ending) -> None:
        """End every answer after some bytes, by FIN or RST."""
        self._cut_after, self._ending = after, ending

    def drip(self, seconds: float) -> None:
        """Forward answers byte by byte, with these seconds in between."""
        self._drip = seconds

    def end_idle(self, seconds: float) -> None:
        """Close each connection on which no answer comes for so long."""
        self._idle = seconds

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._hang_up()

    async def _hang_up(self) -> None:
        pairs = self._pairs.copy()
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)
        for writer in pairs.values():  # tasks cancelled before they began close nothing
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        pair = self._loop.create_task(self._pair(reader, writer))
        self._pairs[pair] = writer
        pair.add_done_callback(self._pairs.pop)

    async def _pair(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                await self._connect(reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        asking = self._loop.create_task(self._pass(reader, upstream_writer))
        answering = self._loop.create_task(self._answer(upstream_reader, writer))
        try:
            await asyncio.wait([asking, answering], return_when=asyncio.FIRST_COMPLETED)
        finally:
            upstream_writer.transport.abort()  # before any await, which may be cancelled
            asking.cancel()
            answering.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._idle):
                return await reader.read(CHUNK)
        except TimeoutError:
            return b""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while chunk := await self._read(reader):
            while self._is_silent:  # noqa: ASYNC110 - another thread heals it
                await asyncio.sleep(0.01)
            if self._cut_after is not None and passed + len(chunk) >= self._cut_after:
                writer.write(chunk[: self._cut_after - passed])
                await writer.drain()
                _end(writer, self._ending)
                return
            passed += len(chunk)
            if not self._drip:
                writer.write(chunk)
                await writer.drain()
                continue
            for byte in chunk:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(self._drip)


def _address(url: str) -> tuple[str, tuple[str, int]]:
    scheme, _, address = url.rpartition("://")
    host, _, port = address.rpartition(":")
    return scheme, (host, int(port))


def _end(writer: asyncio.StreamWriter, ending: Ending) -> None:
    if ending == "reset":
        linger = struct.pack("ii", 1, 0)  # on, for 0 s: RST instead of FIN (socket(7), SO_LINGER)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    else:
        writer.close()


@contextmanager
def mute_address() -> Iterator[str]:
    """The URL of an address where a connection is neither made nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        # Linux drops connections to a full queue, and this one is never accepted from.
        _fill(lambda: stack.enter_context(socket.socket()), (host, port))
        yield f"http://{host}:{port}"


def _fill(new_socket: Callable[[], socket.socket], address: tuple[str, int]) -> None:
    for _ in range(64):
        filler = new_socket()
        filler.settimeout(0.3)
        try:
            filler.connect(address)
        except TimeoutError:
            return
    raise AssertionError("the queue of the listener is longer than its backlog")
