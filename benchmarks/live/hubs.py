"""Real hubs: `gatekeeper hub` in processes of its own, and a light client of its owner."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from benchmarks import script
from benchmarks.live.database import PEPPER, Account, Database
from benchmarks.script import Figures
from benchmarks.servers import free_port
from benchmarks.wire import Stream
from tests.support.starting import wait_until_ready

__all__ = ("PATH", "Hub", "Lateness", "Owner", "Said", "running_hub")

PATH: Final = "/api/v1/widget-keys"
ENDED_WITHIN: Final = 30.0  # seconds; the hub lets open requests finish for 10
KEPT_FOR: Final = 3.0  # seconds; the hub closes idle connections after 5


class Hub:
    """A hub that can be killed, stopped, frozen and started again on its port.

    Args:
        database: where its keys are.
        processor: the processor to which it is pinned; None for any.
    """

    def __init__(self, database: Database, processor: int | None = None) -> None:
        self._database = database
        self._processor = processor
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it ends with the hub
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def processes(self) -> list[int]:
        """The processes that answer requests."""
        assert self._process is not None
        if self._database.workers == 1:
            return [self._process.pid]
        # uvicorn's supervisor has a helper of multiprocessing besides its workers.
        return [child for child in _children(self._process.pid) if b"spawn_main" in _command(child)]

    @property
    def processor_time(self) -> float:
        """The processor seconds of all its processes."""
        assert self._process is not None
        return script.processor_time(self._process.pid)

    @property
    def memory(self) -> int:
        """The resident bytes of the processes that answer requests."""
        return sum(map(script.memory, self.processes))

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        options = ("--database", self._database.location, "--listen", f"127.0.0.1:{self.port}")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gatekeeper", "hub", *options, "--workers", str(self._database.workers)],
            cwd=script.ROOT,
            env=os.environ | {"GATEKEEPER_PEPPER": PEPPER},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        if self._processor is not None:
            os.sched_setaffinity(self._process.pid, {self._processor})
        wait_until_ready(self._process, self._is_ready, lambda: self.log)

    @property
    def log(self) -> str:
        """What it wrote."""
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self) -> None:
        """Stop it by SIGTERM, and wait until it has ended."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(ENDED_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End all its processes by SIGKILL."""
        assert self._process is not None
        self.signal(signal.SIGKILL)
        self._process.wait(ENDED_WITHIN)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Said(NamedTuple):
    """An answer of a hub.

    Attributes:
        status: its status.
        etag: its ETag, or None.
        body: what its JSON says, None for an empty body.
        asked_at: the monotonic time at which it was asked for.
        at: that of its arrival.
    """

    status: int
    etag: str | None
    body: Any
    asked_at: float
    at: float


class Lateness:
    """The milliseconds until gates decide by changes, from their sending and from their acknowledgement."""

    def __init__(self) -> None:
        self._since_sent: list[float] = []
        self._since_acknowledged: list[float] = []

    def note(self, said: Said, decided_at: float) -> None:
        """Note a change.

        Args:
            said: its acknowledgement.
            decided_at: the monotonic time from which on it counts. It may have been told before it was acknowledged.
        """
        self._since_sent.append((decided_at - said.asked_at) * 1000)
        self._since_acknowledged.append(max(0.0, decided_at - said.at) * 1000)

    def figures(self, change: str) -> Figures:
        """What was noted.

        Args:
            change: what the changes are called.
        """
        late = {f"{change}, {name} (ms)": value for name, value in script.percentiles(self._since_acknowledged).items()}
        return late | {f"{change}, p50 from the sending (ms)": script.percentiles(self._since_sent)["p50"]}


class Owner:
    """A connection with the token of an account's owner, which is opened again after a failure.

    Args:
        port: the port of the hub.
        account: the account.

    Attributes:
        account: as given.
    """

    def __init__(self, port: int, account: Account) -> None:
        self.account = account
        self._port = port
        self._head = f"Host: hub\r\nAuthorization: Bearer {account.admin}\r\n"
        self._stream: Stream | None = None
        self._used_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    async def ask(self, method: str, path: str = "", body: object = None) -> Said:
        """Send a request.

        Raises:
            OSError: the connection failed.
            asyncio.IncompleteReadError: it ended within the answer.
            TimeoutError: no answer came.
        """
        sent = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {PATH}{path} HTTP/1.1\r\n", self._head]
        if sent:
            lines.append(f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n")
        if time.monotonic() > self._used_at + KEPT_FOR:
            self._close()
        try:
            if self._stream is None:
                self._stream = await Stream.open(self._port)
            asked_at = time.monotonic()
            received = await self._stream.exchange("".join(lines).encode() + b"\r\n" + sent)
        except BaseException:
            self._close()
            raise
        self._used_at = time.monotonic()
        text = received.body.strip()
        etag = received.header(b"etag").decode() or None
        return Said(received.status, etag, json.loads(text) if text else None, asked_at, self._used_at)

    async def change(self, place: int, **change: object) -> Said:
        """Change a key, and return the acknowledgement."""
        said = await self.ask("PATCH", f"/{self.account.row(place)['id']}", change)
        if said.status != HTTPStatus.OK:
            raise SystemExit(f"the hub answers {said.status} to a change: {said.body}")
        return said

    async def insist(self, method: str, path: str, body: object = None) -> Said:
        """Repeat a request until the hub answers something else than 5xx or 429."""
        while True:
            try:
                said = await self.ask(method, path, body)
            except (OSError, asyncio.IncompleteReadError):
                pass
            else:
                if said.status < HTTPStatus.INTERNAL_SERVER_ERROR and said.status != HTTPStatus.TOO_MANY_REQUESTS:
                    return said
            await asyncio.sleep(0.1)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


@contextmanager
def running_hub(database: Database, processor: int | None = None) -> Iterator[Hub]:
    """Run a hub over a database, on any processor or on the one that is given."""
    hub = Hub(database, processor)
    hub.start()
    try:
        yield hub
    finally:
        hub.signal(signal.SIGCONT)
        hub.stop()


def _children(process: int) -> list[int]:
    with open(f"/proc/{process}/task/{process}/children", encoding="ascii") as file:  # noqa: PTH123 - proc
        return [int(child) for child in file.read().split()]


def _command(process: int) -> bytes:
    with open(f"/proc/{process}/cmdline", "rb") as file:  # noqa: PTH123 - proc
        return file.read()
