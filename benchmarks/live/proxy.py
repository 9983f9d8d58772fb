"""A TCP proxy between gates and a hub, which counts, drops idle connections, and can go silent."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

__all__ = ("Proxy", "Tally")

PATIENCE: Final = 15.0  # seconds for the thread of the proxy


class Tally:
    """What has passed.

    Attributes:
        bytes: to the hub and from it, by method and path.
        answers: the number of answers, by method, path and status.
    """

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.answers: Counter[tuple[str, int]] = Counter()


class Proxy:
    """Forwards connections to a port of this machine.

    Args:
        upstream: that port.
        idle_limit: seconds without a byte after which a connection is closed; None for no limit.

    Attributes:
        port: where it listens.
        tally: what has passed; it may be replaced.
    """

    def __init__(self, upstream: int, *, idle_limit: float | None = None) -> None:
        self.tally = Tally()
        self.port = 0
        self._upstream = upstream
        self._idle_limit = idle_limit
        self._is_silent = False
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """The URL of the hub behind it."""
        return f"http://127.0.0.1:{self.port}"

    def be_silent(self) -> None:
        """Forget all connections without a word, as a firewall does, and answer no new ones."""
        self._loop.call_soon_threadsafe(self._silence)

    def heal(self) -> None:
        """Forward new connections; those from before stay silent."""
        self._is_silent = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _silence(self) -> None:
        self._is_silent = True
        for pair in self._pairs:
            pair.is_silent = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):  # cancelled only with the proxy
            onward = await asyncio.open_connection("127.0.0.1", self._upstream)
            pair = _Pair(self, (reader, writer), onward, is_silent=self._is_silent)
            self._pairs.add(pair)
            try:
                await pair.run(self._idle_limit)
            finally:
                self._pairs.discard(pair)
                onward[1].transport.abort()
        writer.transport.abort()


Halves = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Pair:
    """A connection of a gate, and the one to the hub."""

    def __init__(self, proxy: Proxy, gate: Halves, hub: Halves, *, is_silent: bool) -> None:
        self.is_silent = is_silent
        self._proxy = proxy
        self._gate = gate
        self._hub = hub
        self._asked = ""  # the method and path of the last request
        self._is_asked = False  # whether its answer has not begun
        self._moved = 0.0

    async def run(self, idle_limit: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._moved = loop.time()
        passing = [
            asyncio.create_task(self._pass(self._gate[0], self._hub[1], self._note_request)),
            asyncio.create_task(self._pass(self._hub[0], self._gate[1], self._note_answer)),
        ]
        try:
            while not any(task.done() for task in passing) or self.is_silent:
                rest = None if idle_limit is None else self._moved + idle_limit - loop.time()
                if rest is not None and rest <= 0:
                    return
                await asyncio.wait(passing, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
                if self.is_silent:
                    await asyncio.sleep(3600)  # neither end hears that the other has gone
        finally:
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None]) -> None:
        while chunk := await reader.read(1 << 16):
            if self.is_silent:
                continue
            self._moved = asyncio.get_running_loop().time()
            note(chunk)
            writer.write(chunk)
            await writer.drain()

    def _note_request(self, chunk: bytes) -> None:
        if chunk.startswith((b"GET /", b"POST /")):  # a body may come in chunks of its own
            self._asked = chunk.partition(b" HTTP/1.1\r\n")[0].decode()
            self._is_asked = True
        self._proxy.tally.bytes[self._asked] += len(chunk)

    def _note_answer(self, chunk: bytes) -> None:
        tally = self._proxy.tally
        if self._is_asked:
            self._is_asked = False
            tally.answers[self._asked, int(chunk[9:12])] += 1
        tally.bytes[self._asked] += len(chunk)
