"""A fast hub in another process, which misbehaves on demand.

`python -m benchmarks.fake_hub LIST` prints two ports: one for the list, one for commands (a line of JSON each).
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.script import ROOT

__all__ = ("Hub", "Mode", "running")

Mode = Literal["well", "down", "error", "garbage", "silent"]
SLICE = 1 << 18  # bytes per write to the socket
ERROR = b'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\n"no"'
GARBAGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 15\r\n\r\n<h1>Log in</h1>"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Hub:
    """The control connection to a hub in its own process.

    Attributes:
        url: the URL for a HubSource.
        ports: the arguments for a Hub in another process.
    """

    def __init__(self, port: int, control: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.ports = (port, control)
        self._connection = socket.create_connection(("127.0.0.1", control))
        self._answers = self._connection.makefile("rb")
        self._turn = threading.Lock()

    def serve(self, path: Path, *, etag: bool = True) -> None:
        """Serve another list, with or without an ETag."""
        self._say(serve=str(path), etag=etag)

    def disable(self, last8: str) -> float:
        """Revoke a key, and return the time from which lists show it."""
        return float(self._say(disable=last8)["at"])

    def become(self, mode: Mode) -> None:
        """Be well, down (connection refused), failing (503), sending garbage, or silent."""
        self._say(mode=mode)

    def asked(self) -> list[float]:
        """The monotonic times of all requests for the list."""
        return list(self._say(asked=True)["asked"])

    def looked_up(self) -> int:
        """The number of lookups of single keys."""
        return int(self._say()["looked_up"])

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._connection.close()

    def _say(self, **command: Any) -> dict[str, Any]:
        # Several threads revoke keys, and each has to read its own answer.
        with self._turn:
            self._connection.sendall(json.dumps(command).encode() + b"\n")
            answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer


@contextlib.contextmanager
def running(path: Path, *, processor: int | None = None) -> Iterator[Hub]:
    """Run a hub that serves a list.

    Args:
        path: the file of the list.
        processor: the processor to which the hub is pinned.
    """
    command = [sys.executable, "-m", "benchmarks.fake_hub", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdout is not None
        if processor is not None:
            os.sched_setaffinity(process.pid, {processor})
        try:
            hub = Hub(*json.loads(process.stdout.readline()))
            try:
                yield hub
            finally:
                hub.close()
        finally:
            process.terminate()


class _Server:
    def __init__(self, path: Path) -> None:
        self.mode: Mode = "well"
        self.asked: list[float] = []
        self.looked_up = 0
        self._take(path, etag=True)
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def _take(self, path: Path, *, etag: bool) -> None:
        self.body = path.read_bytes()
        self.etag = f'"{hashlib.blake2b(self.body, digest_size=8).hexdigest()}"' if etag else None
        self._rows: dict[str, bytes] = {}

    async def run(self) -> None:
        await self._listen()

        async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                answer = await self._obey(json.loads(line))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
            writer.close()

        commands = await asyncio.start_server(control, "127.0.0.1", 0)
        print(json.dumps([self._port, commands.sockets[0].getsockname()[1]]), flush=True)
        # The parent process holds the other end: when it exits, for whatever reason, the hub exits too.
        await asyncio.to_thread(sys.stdin.read)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self._port, reuse_address=True)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _obey(self, command: dict[str, Any]) -> dict[str, Any]:
        if "serve" in command:
            self._take(Path(command["serve"]), etag=command["etag"])
        if "disable" in command:
            self._disable(command["disable"])
        if "mode" in command:
            await self._become(command["mode"])
        return {
            "at": time.monotonic(),
            "asked": self.asked if "asked" in command else None,
            "looked_up": self.looked_up,
        }

    async def _become(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "down" and self._listener is not None:
            self._listener.close()
            self._listener = None
            for writer in self._writers:
                writer.close()
        elif mode != "down" and self._listener is None:
            await self._listen()

    def _disable(self, last8: str) -> None:
        rows = self._known_rows()
        row = json.loads(rows[last8])
        rows[last8] = msgspec.json.encode(row | {"disabled_at": "2026-05-06T07:08:09Z"})
        self.body = b"[" + b",".join(rows.values()) + b"]"
        self.etag = f'"{time.monotonic_ns()}"'

    def _known_rows(self) -> dict[str, bytes]:
        if not self._rows:
            for raw in msgspec.json.decode(self.body, type=list[msgspec.Raw]):
                self._rows[json.loads(bytes(raw))["last8"]] = bytes(raw)
        return self._rows

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    if length := _LENGTH.search(head):  # a usage report, which is read and dropped
                        await reader.readexactly(int(length[1]))
                        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                    else:
                        await self._answer(head, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        target = head.split(b" ", 2)[1]
        if target.startswith(b"/lookup/"):
            self.looked_up += 1
            row = self._known_rows().get(target.rpartition(b"/")[2].decode(), b"null")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(row), row))
            return
        self.asked.append(time.monotonic())
        if self.mode == "silent":
            await asyncio.sleep(3600)
        elif self.mode == "error":
            writer.write(ERROR)
        elif self.mode == "garbage":
            writer.write(GARBAGE)
        else:
            await self._send_list(head, writer)

    async def _send_list(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        body, etag = self.body, self.etag
        named = b"" if etag is None else b"etag: %b\r\n" % etag.encode()
        if etag is not None and b"if-none-match: " + etag.encode() in head.lower():
            writer.write(b"HTTP/1.1 304 Not Modified\r\n%b\r\n" % named)
            return
        kind = b"content-type: application/json\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n%b%bcontent-length: %d\r\n\r\n" % (kind, named, len(body)))
        view = memoryview(body)
        for first in range(0, len(body), SLICE):
            writer.write(view[first : first + SLICE])
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(_Server(Path(sys.argv[1])).run())
