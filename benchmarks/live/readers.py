"""Readers of a hub's list and reporters of use, in a process of its own.

`python -m benchmarks.live.readers` obeys `start` and `stop`.
"""

import asyncio
import json
import random
import socket
import time
from collections import Counter
from http import HTTPStatus

from benchmarks import script
from benchmarks.live.hubs import PATH
from benchmarks.obeying import obey
from benchmarks.script import Figures
from benchmarks.wire import Stream

__all__ = ()

SIP, SIP_PAUSE = 4096, 0.1  # bytes that a slow reader takes, and seconds between
PAUSE = 1.0  # seconds between two reports, and before a refused read is repeated
REPORTED = 1000  # keys in a report
NOW = "2026-11-01T00:00:00Z"


class _Load:
    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._port = 0
        self._seconds: dict[str, list[float]] = {"read": [], "report": []}
        self._statuses: Counter[str] = Counter()

    async def answer(self, command: Figures) -> Figures:
        """Start readers and reporters, or stop them."""
        if start := command.get("start"):
            self._port = start["port"]
            works = [
                *(self._read(start["token"]) for _ in range(start["readers"])),
                *(self._sip(start["slow_token"]) for _ in range(start["slow"])),
                *(self._report(start["token"], start["ids"], number) for number in range(start["reports"])),
            ]
            self._tasks = [asyncio.create_task(work) for work in works]
            return {}
        for task in self._tasks:
            if task.done():
                task.result()
            task.cancel()
        return {
            **{f"{name}s": len(seconds) for name, seconds in self._seconds.items()},
            **{f"{name}, p50 (s)": script.percentiles(seconds)["p50"] for name, seconds in self._seconds.items() if seconds},
            **{f"{name}, max (s)": max(seconds) for name, seconds in self._seconds.items() if seconds},
            **self._statuses,
        }

    async def _read(self, token: str) -> None:
        """Read the list again and again, as fast as it comes."""
        while True:
            begun = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(_head("GET", "", token))
                head = await reader.readuntil(b"\r\n\r\n")
                tail = b""
                while chunk := await reader.read(1 << 18):
                    tail = (tail + chunk)[-5:]
            except (OSError, asyncio.IncompleteReadError):
                head, tail = b"HTTP/1.1 000", b""
            finally:
                writer.close()
            status = int(head.split(b" ", 2)[1])
            if status == HTTPStatus.OK and tail == b"0\r\n\r\n":
                self._seconds["read"].append(time.monotonic() - begun)
            else:
                self._statuses[f"reads cut off or refused with {status}"] += 1
                await asyncio.sleep(PAUSE)

    async def _sip(self, token: str) -> None:
        """Read a list slowly, and begin anew when it ends."""
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIP)
                connection.settimeout(0.0)
                await loop.sock_connect(connection, ("127.0.0.1", self._port))
                await loop.sock_sendall(connection, _head("GET", "", token))
                while await loop.sock_recv(connection, SIP):  # noqa: ASYNC110 - it is slow on purpose
                    await asyncio.sleep(SIP_PAUSE)
            self._statuses["slow reads ended"] += 1

    async def _report(self, token: str, ids: list[str], number: int) -> None:
        dice = random.Random(number)
        while True:
            used = {key_id: {"count": 1, "last_used_at": NOW} for key_id in dice.sample(ids, min(REPORTED, len(ids)))}
            body = json.dumps(used).encode()
            begun = time.monotonic()
            try:
                stream = await Stream.open(self._port)
                try:
                    received = await stream.exchange(_head("POST", "/usage", token, len(body)) + body)
                finally:
                    stream.close()
                status = received.status
            except (OSError, asyncio.IncompleteReadError):
                status = 0
            self._seconds["report"].append(time.monotonic() - begun)
            if status != HTTPStatus.NO_CONTENT:
                self._statuses[f"reports answered {status}"] += 1
            await asyncio.sleep(PAUSE)


def _head(method: str, path: str, token: str, length: int | None = None) -> bytes:
    lines = [f"{method} {PATH}{path} HTTP/1.1", "Host: hub", f"Authorization: Bearer {token}", "Connection: close"]
    if length is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


if __name__ == "__main__":
    asyncio.run(obey(_Load().answer))
