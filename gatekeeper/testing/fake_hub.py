"""FakeHub: a hub on a real socket that fails on demand."""

import asyncio
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from gatekeeper.errors import ConfigError
from gatekeeper.testing.hub_list import HubList, wait_of
from gatekeeper.testing.listening import listening
from gatekeeper.testing.rows import ALL_ACCOUNTS_TOKEN, TOKEN

__all__ = ("GARBAGE", "HANG_UP", "PATH", "FakeHub", "Hold", "HubAnswer", "HubRequest", "json_answer")

PATIENCE: Final = 15.0  # seconds for what takes milliseconds, on a busy machine
PATH: Final = "/api/v1/widget-keys"
REPORTS: Final = ("/usage", "/refused", "/gates")  # the ends of their paths
TICK: Final = 0.01  # seconds between two looks at the hub's clock, which a test may move


class HubRequest(NamedTuple):
    """A request that a hub has received.

    Attributes:
        method: the HTTP method.
        target: the path and the query.
        headers: with names in lower case.
        body: the bytes.
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
    """Holds an answer until it is released. `FakeHub.hold` makes it."""

    def __init__(self) -> None:
        self._released: Future[None] = Future()

    def release(self) -> None:
        """Send the answer."""
        if not self._released.done():
            self._released.set_result(None)

    async def wait(self) -> None:
        """Wait for the release."""
        # Shielded, because a connection that is closed meanwhile must not cancel it for the others.
        await asyncio.shield(asyncio.wrap_future(self._released))


@dataclass(frozen=True)
class HubAnswer:
    """An answer of a hub.

    Attributes:
        status: the status code.
        body: bytes on the wire.
        headers: sent besides Content-Length, which they may override.
        raw: bytes sent in place of a response.
        hold: holds the answer.
        drip: seconds between any two bytes of the body.
        hang_up: whether the connection is closed afterwards.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hold: Hold | None = None
    drip: float = 0.0
    hang_up: bool = False


def json_answer(value: Any, status: int = 200, **headers: str) -> HubAnswer:
    """Make an answer with JSON.

    Args:
        value: the decoded body.
        status: the status code.
        headers: further headers; `retry_after` becomes Retry-After.

    Returns:
        The answer.
    """
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return HubAnswer(status, _encoded(value), {"content-type": "application/json", **named})


HANG_UP: Final = HubAnswer(raw=b"", hang_up=True)
GARBAGE: Final = HubAnswer(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n", hang_up=True)


class FakeHub:
    """A hub on a port of its own, while it is entered.

    It runs in a thread with its own event loop, so that any client can use it. It lists its rows, takes reports on usage and
    on refused pages, and answers as it is told to. It checks no token.

    with FakeHub(row("shop", "shop.acme.com")) as hub:
        gate = Gatekeeper(HubSource(hub.url, hub.token))

    A live hub gives each list an entity tag, keeps a log of the changes, and honours `A-IM: rows` and `Prefer: wait=…`. One
    that is not live answers at once with the whole list, and is polled.

    Args:
        rows: listed by default, such as `row("shop", "shop.acme.com")`.
        live: whether the hub is live.
        tls: the certificate, for a hub with TLS.
        address: to listen on; port 0 for any free one.
        patience: seconds after which a wait for requests fails.

    Attributes:
        token: a token for HubSource. It names the account of `client_key`.
        all_accounts_token: a token for a HubSource of all accounts. Its rows name theirs: `row("shop", account="acme")`.
        url: of the hub, once it is entered.
        requests: as received, in order.
        clock: gives the moments of requests, and the end of waits, in seconds.
        ignores: the names of request headers in lower case that it does not see, such as "prefer" or "a-im".
    """

    token = TOKEN
    all_accounts_token = ALL_ACCOUNTS_TOKEN

    def __init__(
        self,
        *rows: Any,
        live: bool = False,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
        patience: float = PATIENCE,
    ) -> None:
        self.url = ""
        self.requests: list[HubRequest] = []
        self.clock: Callable[[], float] = time.monotonic
        self.ignores: set[str] = set()
        self._list = HubList(rows, is_live=live)
        self._next: deque[HubAnswer] = deque()
        self._otherwise: Callable[[HubRequest], HubAnswer] | None = None
        self._hold: Hold | None = None
        self._asked = threading.Condition()
        self._patience = patience
        self._listening = partial(listening, self._serve, tls, address)
        self._running = ExitStack()

    @property
    def rows(self) -> list[Any]:
        """The rows as listed now."""
        return self._list.rows

    @property
    def waiting(self) -> int:
        """How many requests wait for a change now."""
        return len(self._list.waiters)

    def lists(self, *rows: Any, etag: str | None = None) -> None:
        """List these rows from now on. This ends what `always` began.

        Args:
            rows: the whole list; anything that JSON can hold.
            etag: its entity tag; None for a new one if the hub is live, else for none.
        """
        self._otherwise = None
        self._list.publish(rows, etag)

    def restores(self, *rows: Any) -> None:
        """List these rows, and forget all earlier lists. This ends what `always` began.

        A live hub then answers gates with the whole list, as one whose database was restored from a backup.

        Args:
            rows: as for `lists`.
        """
        self._otherwise = None
        self._list.restore(rows)

    def revoke(self, key_id: str) -> None:
        """Disable a key as of now. Unless the hub is live, its list then has no entity tag.

        Args:
            key_id: the id of its row. The id of `row("shop")` is "shop".

        Raises:
            ConfigError: no row has the id.
        """
        ids = [row.get("id") if isinstance(row, Mapping) else None for row in self.rows]
        if key_id not in ids:
            raise ConfigError([f"key_id is {key_id!r}: expected the id of a listed row, one of {ids}"])
        revoked = {"disabled_at": datetime.now(UTC).isoformat()}
        rows = zip(ids, self.rows, strict=True)
        self._list.publish([{**row, **revoked} if row_id == key_id else row for row_id, row in rows])

    def then(self, *answers: HubAnswer) -> None:
        """Send these answers next, one for each request.

        Args:
            answers: such as `HubAnswer(503)`, HANG_UP or GARBAGE.
        """
        self._next.extend(answers)

    def always(self, answer: HubAnswer | Callable[[HubRequest], HubAnswer]) -> None:
        """Send this answer from now on, to reports, too.

        Args:
            answer: the answer, or a function that gives it. `lists` ends it.
        """
        self._otherwise = answer if callable(answer) else lambda _: answer

    def hold(self) -> Hold:
        """Make a hold, for `HubAnswer(hold=…)`."""
        return Hold()

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
    def fetches(self) -> list[HubRequest]:
        """The requests for lists."""
        return [request for request in self.requests if request.method == "GET"]

    def wait_for_requests(self, count: int) -> None:
        """Wait until there were this many requests in all.

        Args:
            count: the number.

        Raises:
            TimeoutError: if they do not come.
        """
        with self._asked:
            if not self._asked.wait_for(lambda: len(self.requests) >= count, self._patience):
                raise TimeoutError(f"there were {len(self.requests)} requests in {self._patience:g} s: expected {count}")

    async def asked(self, count: int) -> None:
        """Wait as `wait_for_requests` does, in an event loop.

        Args:
            count: the number.

        Raises:
            TimeoutError: if they do not come.
        """
        await anyio.to_thread.run_sync(self.wait_for_requests, count)

    def wait_for_waiters(self, count: int = 1) -> None:
        """Wait until gates wait for a change.

        Args:
            count: the number of requests that the hub holds for one.

        Raises:
            TimeoutError: if they do not come, as at a hub that is not live.
        """
        with self._asked:
            if not self._asked.wait_for(lambda: self.waiting >= count, self._patience):
                problem = f"{self.waiting} requests wait for a change after {self._patience:g} s: expected {count}"
                raise TimeoutError(problem)

    async def waits(self, count: int = 1) -> None:
        """Wait as `wait_for_waiters` does, in an event loop.

        Args:
            count: the number.

        Raises:
            TimeoutError: if they do not come.
        """
        await anyio.to_thread.run_sync(self.wait_for_waiters, count)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            self.url = stack.enter_context(portal.wrap_async_context_manager(self._listening()))
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._exchange(reader, writer):
            pass

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await self._read_request(reader, writer)
        is_next, otherwise = bool(self._next), self._otherwise
        answer = self._next.popleft() if is_next else (otherwise or self._answer)(request)
        hold = answer.hold or self._hold
        with self._asked:
            self.requests.append(request)
            self._asked.notify_all()
        if not is_next and otherwise is None:
            answer = await self._after_waiting(request, answer, reader)
        if hold is not None:
            await hold.wait()
        if answer.raw is not None:
            writer.write(answer.raw)
        else:
            await _write_answer(writer, answer)
        await writer.drain()
        return not answer.hang_up

    async def _read_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HubRequest:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n")
        request_line, *lines = head.split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return HubRequest(method, target, headers, body, writer.get_extra_info("peername")[1], self.clock())

    async def _after_waiting(self, request: HubRequest, answer: HubAnswer, reader: asyncio.StreamReader) -> HubAnswer:
        """Answer once the list has changed, or the seconds that the client wants to wait have passed."""
        wait = wait_of(self._seen(request)) if "preference-applied" in answer.headers else None
        if wait is None:
            return answer
        with self._list.waiter() as changed:
            with self._asked:
                self._asked.notify_all()
            change = asyncio.wrap_future(changed)
            while (answer := self._answer(request)).status == HTTPStatus.NOT_MODIFIED and self.clock() < request.at + wait:
                if reader.at_eof():
                    raise ConnectionAbortedError("the client has gone")
                await asyncio.wait({change}, timeout=TICK)
            return answer

    def _answer(self, request: HubRequest) -> HubAnswer:
        if request.method == "POST" and request.target.endswith(REPORTS):
            return HubAnswer(204)
        return HubAnswer(*self._list.answer(self._seen(request)))

    def _seen(self, request: HubRequest) -> dict[str, str]:
        return {name: value for name, value in request.headers.items() if name not in self.ignores}


async def _write_answer(writer: asyncio.StreamWriter, answer: HubAnswer) -> None:
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


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()
