"""Light clients that wait for changes as gates do, in a process of its own.

`python -m benchmarks.live.waiters` obeys `open`, `told` and `close`. Each has a socket and a few bytes of state: an HTTP
library would take more processor time for thousands of clients than the hub.
"""

import json
import os
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator

from benchmarks.live.hubs import PATH
from benchmarks.script import Figures

__all__ = ("Waiter", "Waiters")

WAIT = 60  # seconds, the most that a hub grants
PATIENCE = 60.0  # seconds for an answer to a change
UNHELD_PAUSE = 1.0  # seconds before the next request to a hub that answers at once
CONNECTING = 200  # connections that are opened at once, less than a server's backlog
STDIN = 0


class Waiter:
    """A client.

    Attributes:
        connection: its socket.
        etag: of the state that it knows.
        told_at: the monotonic time of its last answer with a change.
    """

    def __init__(self, connection: socket.socket, etag: bytes) -> None:
        self.connection = connection
        self.etag = etag
        self.told_at = 0.0
        self.received = b""

    def answer(self) -> bytes | None:
        """The head of an answer that has been received to its end, which is then taken."""
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return None
        named = head.lower()
        if b"\r\ncontent-length:" in named:
            if len(rest) < int(_header(head, b"content-length")):
                return None
        elif b"\r\ntransfer-encoding:" in named and not rest.endswith(b"0\r\n\r\n"):
            return None
        self.received = b""
        return head


class Waiters:
    """Clients of one hub, and what they have been answered."""

    def __init__(self) -> None:
        self._waiters: dict[int, Waiter] = {}
        self._selector = select.epoll()
        self._later: deque[tuple[float, Waiter]] = deque()
        self._head = b""
        self._since = 0.0
        self._untold = 0  # since then
        self.statuses: Counter[str] = Counter()
        self.lost = 0

    def open(self, port: int, token: str, etag: str, count: int) -> None:
        """Connect clients, each of which then waits for the change after a state."""
        lines = (
            "Host: hub",
            f"Authorization: Bearer {token}",
            "Accept-Encoding: gzip",
            "A-IM: rows",
            f"Prefer: wait={WAIT}",
        )
        self._head = "".join(f"{line}\r\n" for line in (f"GET {PATH} HTTP/1.1", *lines)).encode()
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            connection.settimeout(0.0)
            waiter = Waiter(connection, etag.encode())
            self._waiters[connection.fileno()] = waiter
            self._selector.register(connection, select.EPOLLIN)
            self._ask(waiter)
            if number % CONNECTING == 0:
                self.turn(0.0)

    def until_told(self, since: float) -> Figures:
        """Wait until all clients have been told of a change since a moment, or some are late."""
        deadline = time.monotonic() + PATIENCE
        self._since = since
        self._untold = sum(each.told_at < since for each in self._waiters.values())
        while time.monotonic() < deadline and self._untold:
            self.turn(0.5)
        told = sorted(each.told_at - since for each in self._waiters.values() if each.told_at >= since)
        return {
            "told": len(told),
            "first": told[0] if told else None,
            "middle": told[len(told) // 2] if told else None,
            "last": told[-1] if told else None,
            "statuses": dict(self.statuses),
            "lost": self.lost,
        }

    def turn(self, seconds: float) -> bool:
        """Handle what comes within some seconds, and return whether a command has come."""
        is_commanded = False
        for number, _ in self._selector.poll(min(seconds, UNHELD_PAUSE if self._later else seconds)):
            if number == STDIN:
                is_commanded = True
            else:
                self._receive(self._waiters[number])
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ask(self._later.popleft()[1])
        return is_commanded

    def listen(self) -> None:
        """Include the standard input in what is waited for."""
        self._selector.register(STDIN, select.EPOLLIN)

    def close(self) -> None:
        """Close all connections."""
        for waiter in self._waiters.values():
            waiter.connection.close()
        self._waiters.clear()
        self._later.clear()

    def _receive(self, waiter: Waiter) -> None:
        try:
            chunk = waiter.connection.recv(1 << 16)
        except OSError:
            chunk = b""
        if not chunk:
            self.lost += 1
            self._selector.unregister(waiter.connection)
            return
        waiter.received += chunk
        head = waiter.answer()
        if head is None:
            return
        status = head.split(b" ", 2)[1].decode()
        is_held = b"\r\npreference-applied:" in head.lower()
        self.statuses[f"{status}{'' if is_held else ', not held'}"] += 1
        waiter.etag = _header(head, b"etag") or waiter.etag
        if status in {"200", "226"}:
            self._untold -= waiter.told_at < self._since
            waiter.told_at = time.monotonic()
        if is_held or status in {"200", "226"}:
            self._ask(waiter)
        else:
            self._later.append((time.monotonic() + UNHELD_PAUSE, waiter))

    def _ask(self, waiter: Waiter) -> None:
        try:
            waiter.connection.send(b"%bIf-None-Match: %b\r\n\r\n" % (self._head, waiter.etag))
        except OSError:
            self.lost += 1


def _header(head: bytes, name: bytes) -> bytes:
    place = head.lower().find(b"\r\n%b:" % name)
    return b"" if place < 0 else head[place + len(name) + 3 :].partition(b"\r\n")[0].strip()


def _commands(waiters: Waiters) -> Iterator[Figures]:
    waiters.listen()
    buffered = b""
    while True:
        while b"\n" not in buffered:
            while not waiters.turn(1.0):
                pass
            chunk = os.read(STDIN, 1 << 16)
            if not chunk:
                return
            buffered += chunk
        line, _, buffered = buffered.partition(b"\n")
        yield json.loads(line)


def _main() -> None:
    waiters = Waiters()
    for command in _commands(waiters):
        answer: Figures = {}
        if opened := command.get("open"):
            waiters.open(**opened)
        elif "told" in command:
            answer = waiters.until_told(command["told"])
        else:
            waiters.close()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
