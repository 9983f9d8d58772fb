"""WebSockets and streaming responses end when their key is revoked."""

import gc
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gatekeeper import Gatekeeper, GatekeeperMiddleware, Reason
from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.open_streams import SLICE, OpenStreams
from gatekeeper.gate.page import read_page
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.waking import Wakers
from gatekeeper.web.streams import MAX_CLOSE_REASON, ResponseStream, Stream, WebSocketStream, closing_message
from tests.support.memory_source import MemorySource
from tests.support.rows import ORIGIN, client_key, row

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}
ALLOWED_TWICE = ["acme.com", "shop.example"]

# Lists that end the streams of key 1 at acme.com, and the reason of each.
REVOCATIONS = [
    pytest.param([row(1, disabled_at="now"), row(2)], "key_disabled", id="disabled"),
    pytest.param([row(2)], "key_unknown", id="removed"),
    pytest.param([row(1, domain_allowlist=["shop.example"]), row(2)], "origin_not_allowed", id="origin removed"),
    pytest.param([row(1, domain_allowlist=[]), row(2)], "allowlist_empty", id="no origins left"),
]

pytestmark = pytest.mark.anyio


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Switch the garbage collector off. It would mostly visit objects of other tests."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


class Naps:
    """Sleeps that end when a test says so."""

    def __init__(self) -> None:
        self._naps: list[tuple[float, anyio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        nap = (seconds, anyio.Event())
        self._naps.append(nap)
        try:
            await nap[1].wait()
        finally:
            self._naps.remove(nap)

    @property
    def watchers(self) -> list[anyio.Event]:
        """The sleeps of tasks that watch streams. A refresher sleeps for 8 to 12 seconds."""
        return [woken for seconds, woken in self._naps if not 8 <= seconds <= 12]

    async def look(self) -> None:
        """Let the watching tasks look at the clock."""
        await anyio.wait_all_tasks_blocked()
        for woken in self.watchers:
            woken.set()
        await anyio.wait_all_tasks_blocked()


def open_streams(decide: Callable[[Any], Decision], **options: Any) -> OpenStreams:
    """Make what watches the open streams of an event loop."""
    never = {"generation": lambda: 1, "deadline": lambda: math.inf, "clock": lambda: 0.0, "wakers": Wakers(anyio.sleep)}
    return OpenStreams(
        decide, **{"enforces": lambda: True, "log": RefreshLog(logging.getLogger(), time.time), **never, **options}
    )


class Exchange:
    """One connection, from the server's side.

    Attributes:
        sent: the messages of the app.
        error: the exception that the app raised.
        ended: whether the app has ended.
        blocked: the event until which the client does not read; None for a client that reads.
    """

    def __init__(
        self,
        kind: str = "http",
        number: int = 1,
        origin: str | None = ORIGIN,
        referer: str | None = None,
        query: str | None = None,
    ) -> None:
        headers = [] if origin is None else [(b"origin", origin.encode())]
        headers += [] if referer is None else [(b"referer", referer.encode())]
        self.scope: Scope = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "GET",
            "path": "/",
            "query_string": (query or f"client_key={client_key(number)}").encode(),
            "headers": headers,
        }
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self.ended = False
        self.blocked: anyio.Event | None = None
        self.inbox: list[Message] = [
            {"type": "http.request", "body": b"", "more_body": False} if kind == "http" else {"type": "websocket.connect"}
        ]
        self._news = anyio.Event()

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - a server would log it as a crash
            self.error = error
        self.ended = True

    async def send(self, message: Message) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.arrives({"type": "http.disconnect"})

    async def receive(self) -> Message:
        while not self.inbox:
            await self._news.wait()
        return self.inbox.pop(0)

    def arrives(self, message: Message) -> None:
        self.inbox.append(message)
        self._news.set()
        self._news = anyio.Event()

    @property
    def pieces(self) -> list[bytes]:
        """The pieces of the response so far."""
        return [message["body"] for message in self.sent[1:]]


class Service:
    """A gate with two keys, its app, and its clients.

    Attributes:
        source: the source of the keys.
        naps: the sleeps of the gate.
        gate: the gate.
    """

    def __init__(self, group: anyio.abc.TaskGroup, app: ASGIApp, **options: Any) -> None:
        self.source = MemorySource(row(1), row(2))
        self.naps = Naps()
        self.gate = Gatekeeper(self.source, **{"sleep": self.naps.sleep, "unknown_key_wait": 0, **options})
        self.app = GatekeeperMiddleware(app, self.gate)
        self._group = group

    async def opens(self, kind: str = "http", number: int = 1, origin: str | None = ORIGIN, **rest: Any) -> Exchange:
        exchange = Exchange(kind, number, origin, **rest)
        self._group.start_soon(exchange.run, self.app)
        await anyio.wait_all_tasks_blocked()
        return exchange

    async def lists(self, *rows: Any) -> None:
        """Apply another list."""
        self.source.rows = list(rows)
        await self.gate.refresh()

    async def revokes(self, *rows: Any) -> None:
        """Apply another list, which closes streams at once."""
        await self.lists(*rows)
        await anyio.wait_all_tasks_blocked()

    @property
    def closed(self) -> int:
        return self.gate.status.counters.get("streams_closed", 0)


@asynccontextmanager
async def running(app: ASGIApp, **options: Any) -> AsyncIterator[Service]:
    async with anyio.create_task_group() as group:
        service = Service(group, app, **options)
        async with service.gate:
            yield service
        group.cancel_scope.cancel()


async def idle(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await anyio.sleep_forever()

    return StreamingResponse(pieces())


async def listen(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive_text()


WIDGET = Starlette(routes=[Route("/", idle), WebSocketRoute("/", listen)])


async def bare(_scope: Scope, receive: Receive, send: Send) -> None:
    """Send a first piece, then echo pieces until the client disconnects."""
    await receive()
    await send(START)
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    while (message := await receive())["type"] == "piece":
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})


# Streaming responses


@pytest.mark.fault("revocation during a stream")
@pytest.mark.parametrize(("rows", "reason"), REVOCATIONS)
async def test_a_revoked_streaming_response_ends_as_if_it_were_complete(rows: list[Any], reason: str) -> None:
    async with running(WIDGET) as service:
        stream, other_key = await service.opens(), await service.opens(number=2)
        assert stream.pieces == [b"first"]
        await service.revokes(*rows)
        assert stream.sent[2:] == [END]
        assert (stream.ended, stream.error) == (True, None)
        assert (other_key.pieces, other_key.ended) == ([b"first"], False)
        assert service.gate.decide(client_key(1), ORIGIN).reason == reason
        assert service.closed == 1


async def test_a_page_that_stays_in_the_allowlist_keeps_its_streams() -> None:
    async with running(WIDGET) as service:
        await service.lists(row(1, domain_allowlist=ALLOWED_TWICE))
        streams = [await service.opens(kind, 1, "https://shop.example") for kind in ("http", "websocket")]
        await service.revokes(row(1, domain_allowlist=["shop.example"], name="another"))
        assert not any(stream.ended for stream in streams)
        assert service.closed == 0


async def test_a_stream_allowed_by_its_referer_ends_with_it() -> None:
    async with running(WIDGET) as service:
        await service.lists(row(1, domain_allowlist=ALLOWED_TWICE))
        ends = await service.opens(origin=None, referer="https://acme.com/page")
        stays = await service.opens(origin=None, referer="https://shop.example/page")
        await service.revokes(row(1, domain_allowlist=["shop.example"]))
        assert (ends.pieces, ends.ended) == ([b"first", b""], True)
        assert (stays.pieces, stays.ended) == ([b"first"], False)


WITH_FRAMES: Any = {"frames": ("/embed",), "own_origins": ("https://widget.test",)}


@pytest.mark.parametrize(("rows", "reason"), REVOCATIONS)
async def test_a_frame_document_that_streams_ends_with_its_grant(rows: list[Any], reason: str) -> None:
    async with running(WIDGET, grant_secrets=["0123456789abcdef"]) as service:
        service.app = GatekeeperMiddleware(WIDGET, service.gate, frames=("/",))
        known, unknown = await service.opens(origin=None, referer=f"{ORIGIN}/cart"), await service.opens(origin=None)
        other_key = await service.opens(origin=None, number=2)
        assert [stream.pieces for stream in (known, unknown, other_key)] == [[b"first"]] * 3
        await service.revokes(*rows)
        for stream in (known, unknown):
            assert stream.sent[2:] == [END]
            assert (stream.ended, stream.error) == (True, None)
        assert (other_key.pieces, other_key.ended) == ([b"first"], False)
        assert service.gate.decide(client_key(1), ORIGIN).reason == reason


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_stream_outlives_its_grant_but_not_its_page(kind: str) -> None:
    passed = [0.0]
    options = {"grant_secrets": ["0123456789abcdef"], "clock": lambda: passed[-1], "wall_clock": lambda: passed[-1]}
    async with running(WIDGET, **options) as service:
        service.app = GatekeeperMiddleware(WIDGET, service.gate, **WITH_FRAMES)
        grant = (await service.gate.grant(client_key(1).encode(), read_page(ORIGIN.encode(), None))).grant
        stream = await service.opens(kind, origin="https://widget.test", query=f"client_grant={grant}")
        passed.append(43_201.0)
        await service.revokes(row(1, domain_allowlist=ALLOWED_TWICE), row(2))
        assert not stream.ended
        late = await service.opens(kind, origin="https://widget.test", query=f"client_grant={grant}")
        assert late.ended
        await service.revokes(row(1, domain_allowlist=["shop.example"]), row(2))
        assert (stream.ended, service.closed) == (True, 1)


async def test_sending_on_a_closed_stream_raises_an_os_error() -> None:
    refused: list[OSError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await bare(scope, receive, send)
        for _ in range(2):
            with pytest.raises(OSError, match="the stream was closed: key_disabled: Disabled client key") as error:
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
            refused.append(error.value)

    async with running(app) as service:
        stream = await service.opens()
        await service.revokes(row(1, disabled_at="now"))
        assert (stream.pieces, stream.ended, stream.error) == ([b"first", b""], True, None)
        assert len(refused) == 2


async def test_a_stream_is_not_changed_while_its_key_is_enabled() -> None:
    async with running(bare) as service:
        stream = await service.opens()
        for piece in (b"second", b"third"):
            stream.arrives({"type": "piece", "body": piece})
            await service.revokes(row(1, name=piece.decode()))
        assert stream.pieces == [b"first", b"second", b"third"]


async def test_a_key_revoked_before_the_first_piece_sends_none() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(START)
        await service.lists(row(1, disabled_at="now"))
        await send({"type": "http.response.body", "body": b"first", "more_body": True})

    async with running(app) as service:
        stream = await service.opens()
        assert (stream.pieces, stream.ended, stream.error) == ([b""], True, None)
        assert service.closed == 1


async def test_a_websocket_revoked_during_its_decision_never_reaches_its_app() -> None:
    streams = open_streams(lambda _: Decision(Reason.KEY_DISABLED))
    server = Exchange("websocket")
    stream = WebSocketStream((b"key", b"origin"), server.receive, server.send)
    await streams.add(stream)
    assert [message["type"] for message in server.sent] == ["websocket.close"]
    assert [(await stream.receive())["type"] for _ in range(2)] == ["websocket.connect", "websocket.disconnect"]


@pytest.mark.parametrize("length", [b"content-length", b"Content-Length"])
async def test_a_response_with_a_content_length_is_completed(length: bytes) -> None:
    revoked = anyio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(length, b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        await revoked.wait()
        await send({"type": "http.response.body", "body": b"67890"})

    async with running(app) as service:
        download = await service.opens()
        await service.revokes(row(1, disabled_at="now"))
        revoked.set()
        await anyio.wait_all_tasks_blocked()
        assert (download.pieces, download.ended, download.error) == ([b"12345", b"67890"], True, None)
        assert service.closed == 0


async def test_a_request_whose_body_is_still_read_is_answered() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await Response("thanks")(scope, receive, send)

    async with running(app) as service:
        upload = Exchange()
        upload.inbox[:] = [{"type": "http.request", "body": b"1", "more_body": True}]
        service._group.start_soon(upload.run, service.app)
        await anyio.wait_all_tasks_blocked()
        await service.revokes(row(1, disabled_at="now"))
        upload.arrives({"type": "http.request", "body": b"2", "more_body": False})
        await anyio.wait_all_tasks_blocked()
        assert upload.pieces == [b"thanks"]


async def test_a_complete_response_is_not_ended_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await bare(scope, receive, send)
        await send(END)
        await anyio.sleep_forever()

    async with running(app) as service:
        stream = await service.opens()
        stream.arrives({"type": "http.disconnect"})
        await service.revokes(row(1, disabled_at="now"))
        assert stream.pieces == [b"first", b""]
        assert service.closed == 0


# Streams of common kinds of apps


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


async def test_a_stream_behind_a_base_http_middleware_ends_too() -> None:
    async with running(Starlette(routes=WIDGET.routes, middleware=[Middleware(Passing)])) as service:
        stream = await service.opens()
        await service.revokes(row(1, disabled_at="now"))
        assert (stream.pieces, stream.ended, stream.error) == ([b"first", b""], True, None)


@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_a_busy_stream_ends_on_servers_of_either_asgi_version(version: str) -> None:
    more = anyio.Event()

    async def pieces() -> AsyncGenerator[bytes]:
        yield b"first"
        await more.wait()
        yield b"second"

    body = pieces()

    async def endpoint(_request: Request) -> StreamingResponse:
        return StreamingResponse(body)

    async with running(Starlette(routes=[Route("/", endpoint)])) as service:
        stream = Exchange()
        stream.scope["asgi"]["spec_version"] = version
        service._group.start_soon(stream.run, service.app)
        await anyio.wait_all_tasks_blocked()
        await service.revokes(row(1, disabled_at="now"))
        more.set()
        await anyio.wait_all_tasks_blocked()
        await body.aclose()
        assert (stream.pieces, stream.ended, stream.error) == ([b"first", b""], True, None)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio warns about every generator that is not closed explicitly
@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_a_generator_ends_immediately_when_its_piece_is_refused(version: str) -> None:
    more, disconnected, ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def endpoint(_request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await more.wait()
                yield b"second"
            finally:
                ended.set()

        return StreamingResponse(pieces())

    class SlowToTell(Exchange):
        async def receive(self) -> Message:
            message = await super().receive()
            if message["type"] == "http.disconnect":
                await disconnected.wait()
            return message

    async with running(Starlette(routes=[Route("/", endpoint)])) as service:
        stream = SlowToTell()
        stream.scope["asgi"]["spec_version"] = version
        service._group.start_soon(stream.run, service.app)
        await service.revokes(row(1), row(2))
        await service.revokes(row(1, disabled_at="now"))
        gc.disable()
        try:
            more.set()
            with anyio.fail_after(10):
                await ended.wait()
            assert (stream.pieces, stream.ended, stream.error) == ([b"first", b""], True, None)
        finally:
            gc.enable()


DISCONNECTS = [
    OSError("gone"),
    ClientDisconnect(),
    WebSocketDisconnect(),
    ExceptionGroup("two tasks", [OSError("gone"), ExceptionGroup("one task", [ClientDisconnect()])]),
]
CRASHES = [ValueError("a bug"), ExceptionGroup("two tasks", [OSError("gone"), ValueError("a bug")])]


def raising(error: Exception) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await bare(scope, receive, send)
        else:
            await receive()
            await receive()
        raise error

    return app


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("error", DISCONNECTS, ids=repr)
async def test_a_disconnect_error_on_a_closed_stream_is_swallowed(kind: str, error: Exception) -> None:
    async with running(raising(error)) as service:
        closed, gone = await service.opens(kind), await service.opens(kind, 2)
        gone.arrives({"type": f"{kind}.disconnect"})
        await service.revokes(row(1, disabled_at="now"), row(2))
        assert (closed.ended, closed.error) == (True, None)
        assert (gone.ended, gone.error) == (True, error)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("error", CRASHES, ids=repr)
async def test_a_crash_on_a_closed_stream_propagates(kind: str, error: Exception) -> None:
    async with running(raising(error)) as service:
        stream = await service.opens(kind)
        await service.revokes(row(1, disabled_at="now"))
        assert (stream.ended, stream.error) == (True, error)


# WebSockets


@pytest.mark.fault("revocation during a stream")
@pytest.mark.parametrize(("rows", "reason"), REVOCATIONS)
async def test_a_revoked_websocket_is_closed_with_1008_and_the_reason(rows: list[Any], reason: str) -> None:
    seen: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.extend([await receive(), await receive()])
        with pytest.raises(OSError, match=f"the stream was closed: {reason}"):
            await send({"type": "websocket.send", "text": "late"})

    async with running(app) as service:
        socket, other_key = await service.opens("websocket"), await service.opens("websocket", 2)
        await service.revokes(*rows)
        closing = socket.sent[-1]
        assert (closing["type"], closing["code"]) == ("websocket.close", 1008)
        assert closing["reason"].startswith(f"{reason}: ")
        assert seen == [{**closing, "type": "websocket.disconnect"}] * 2
        assert [message["type"] for message in socket.sent] == ["websocket.accept", "websocket.close"]
        assert (socket.ended, socket.error) == (True, None)
        assert ([message["type"] for message in other_key.sent], other_key.ended) == (["websocket.accept"], False)
        assert service.closed == 1


async def test_an_app_that_waits_for_a_text_gets_a_disconnect() -> None:
    async with running(WIDGET) as service:
        socket = await service.opens("websocket")
        await service.revokes(row(1, disabled_at="now"))
        assert (socket.ended, socket.error) == (True, None)


async def test_a_websocket_revoked_before_it_is_accepted_is_refused() -> None:
    thought = anyio.Event()

    async def hesitate(websocket: WebSocket) -> None:
        await thought.wait()
        await websocket.accept()

    async with running(Starlette(routes=[WebSocketRoute("/", hesitate)])) as service:
        socket = await service.opens("websocket")
        await service.revokes(row(1, disabled_at="now"))
        assert [message["type"] for message in socket.sent] == ["websocket.close"]
        thought.set()
        await anyio.wait_all_tasks_blocked()
        assert len(socket.sent) == 1
        assert (socket.ended, socket.error) == (True, None)


@pytest.mark.parametrize("last", ["websocket.close", "websocket.http.response.start"])
async def test_a_websocket_closed_by_its_app_is_not_closed_again(last: str) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": last})
        await anyio.sleep_forever()

    async with running(app) as service:
        socket = await service.opens("websocket")
        await service.revokes(row(1, disabled_at="now"))
        assert socket.sent == [{"type": last}]


async def test_a_websocket_closed_by_its_client_is_not_closed_again() -> None:
    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await anyio.sleep_forever()

    async with running(app) as service:
        socket = await service.opens("websocket")
        socket.arrives({"type": "websocket.disconnect", "code": 1001})
        await service.revokes(row(1, disabled_at="now"))
        assert (socket.sent, service.closed) == ([], 0)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_fits_into_a_control_frame(reason: Reason) -> None:
    assert len(closing_message(Decision(reason))["reason"].encode()) <= MAX_CLOSE_REASON


# Lists that close streams, and lists that do not


async def test_an_expired_list_closes_no_stream_until_a_fresh_one_does() -> None:
    now = 0.0
    async with running(WIDGET, hard_stale=100, clock=lambda: now) as service:
        streams = [await service.opens(kind) for kind in ("http", "websocket")]
        service.gate._lists.all[
            0
        ].sync._shared.generation += 1  # keys have changed, and the list expires before the next check
        now = 1000.0
        for _ in range(3):
            await service.naps.look()
        assert service.gate.status.state == "expired"
        assert not any(stream.ended for stream in streams)
        await service.revokes(row(1))
        assert not any(stream.ended for stream in streams)
        await service.revokes(row(1, disabled_at="now"))
        assert all(stream.ended for stream in streams)


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_with_the_option_off_streams_stay_open(kind: str) -> None:
    async with running(WIDGET, close_streams_on_revoke=False) as service:
        stream = await service.opens(kind)
        await service.revokes(row(1, disabled_at="now"))
        assert not stream.ended
        assert not service.naps.watchers


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_keys_that_never_change_are_not_watched(kind: str) -> None:
    app = GatekeeperMiddleware(WIDGET, Gatekeeper.from_rows([row(1)]))
    async with anyio.create_task_group() as group:
        stream = Exchange(kind)
        group.start_soon(stream.run, app)
        await anyio.wait_all_tasks_blocked()
        assert len(stream.sent) >= 1
        assert not stream.ended
        group.cancel_scope.cancel()


async def test_streams_are_checked_only_while_one_is_open() -> None:
    async with running(WIDGET) as service:
        assert not service.naps.watchers
        for _ in range(2):
            stream = await service.opens()
            assert len(service.naps.watchers) == 1
            stream.arrives({"type": "http.disconnect"})
            await anyio.wait_all_tasks_blocked()
            assert stream.ended
            assert not service.naps.watchers


async def test_streams_stay_watched_when_a_gate_is_restarted() -> None:
    async with anyio.create_task_group() as group:
        service = Service(group, WIDGET)
        async with service.gate:
            stream = await service.opens()
        async with service.gate:
            await service.revokes(row(1, disabled_at="now"))
            assert (stream.pieces, stream.ended) == ([b"first", b""], True)
        group.cancel_scope.cancel()


# Clients that do not read


async def test_a_client_that_does_not_read_delays_no_other() -> None:
    async with running(WIDGET) as service:
        streams = [await service.opens(kind) for kind in ("http", "websocket") * 3]
        deaf = streams[:4]
        for stream in deaf:
            stream.blocked = anyio.Event()
        await service.revokes(row(1, disabled_at="now"), row(2))
        assert all(stream.ended for stream in streams[4:])
        late = await service.opens(number=2)
        await service.revokes(row(1, disabled_at="now"), row(2, disabled_at="now"))
        assert late.ended
        for stream in deaf:
            assert stream.blocked is not None
            stream.blocked.set()
        await anyio.wait_all_tasks_blocked()
        assert [stream.sent[-1]["type"] for stream in deaf] == ["http.response.body", "websocket.close"] * 2
        assert all(stream.ended for stream in deaf)


async def test_a_piece_that_is_being_sent_is_the_last_one_before_the_end() -> None:
    async with running(bare) as service:
        stream = await service.opens()
        stream.blocked = anyio.Event()
        stream.arrives({"type": "piece", "body": b"second"})
        stream.arrives({"type": "piece", "body": b"third"})
        await service.revokes(row(1, disabled_at="now"))
        assert stream.pieces == [b"first"]
        stream.blocked.set()
        await anyio.wait_all_tasks_blocked()
        assert stream.pieces == [b"first", b"second", b""]
        assert (stream.ended, stream.error) == (True, None)


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_an_app_lingers_only_briefly_for_a_client_that_does_not_read(kind: str) -> None:
    async def watch(_stream: Any) -> None:
        pass

    server = Exchange(kind)
    server.blocked = anyio.Event()
    asked = (b"key", b"origin")
    stream: Stream = (
        ResponseStream(asked, server.send, watch, linger=0)
        if kind == "http"
        else WebSocketStream(asked, server.receive, server.send, linger=0)
    )
    async with anyio.create_task_group() as group:
        group.start_soon(stream.close, Decision(Reason.KEY_DISABLED))
        await anyio.wait_all_tasks_blocked()
        assert await stream.leave(OSError("gone"))
        assert stream.is_over
        assert server.sent == []
        group.cancel_scope.cancel()


async def test_a_stopped_gate_leaves_the_closing_message_to_the_app() -> None:
    async with anyio.create_task_group() as group:
        service = Service(group, bare)
        async with service.gate:
            stream = await service.opens()
            stream.blocked = anyio.Event()
            await service.revokes(row(1, disabled_at="now"))
        stream.blocked.set()
        stream.arrives({"type": "piece", "body": b"second"})
        await anyio.wait_all_tasks_blocked()
        assert stream.pieces == [b"first", b""]
        assert (stream.ended, stream.error) == (True, None)
        group.cancel_scope.cancel()


async def test_a_failure_to_close_one_stream_does_not_keep_others_open(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gatekeeper")

    async def fails(_message: Message) -> None:
        raise RuntimeError("the response is complete already")

    async with running(WIDGET) as service:
        whole = await service.opens()
        await service.opens()
        next(stream for stream in _open(service) if stream._send != whole.send)._send = fails
        await service.revokes(row(1, disabled_at="now"))
        assert whole.ended
        assert "a stream could not be closed, for it was over: RuntimeError" in caplog.text
        assert "closed 2 open streams" in caplog.text


# Cleaning up


def _open(service: Service) -> list[Any]:
    assert service.gate._lists.all[0].streams is not None
    return list(service.gate._lists.all[0].streams.here()._open)


async def _ends(stream: Exchange) -> None:
    stream.arrives({"type": "http.disconnect"})


ENDINGS: list[tuple[ASGIApp, Callable[[Exchange], Awaitable[None]]]] = [(WIDGET, _ends), (raising(ValueError()), _ends)]


@pytest.mark.parametrize(("app", "end"), ENDINGS, ids=["returns", "raises"])
async def test_a_stream_whose_app_has_ended_is_forgotten(app: ASGIApp, end: Callable[[Exchange], Awaitable[None]]) -> None:
    async with running(app) as service:
        stream = await service.opens()
        assert len(_open(service)) == 1
        await end(stream)
        await anyio.wait_all_tasks_blocked()
        assert stream.ended
        assert _open(service) == []


async def test_a_stopped_gate_leaves_nothing_in_the_event_loop() -> None:
    async with running(WIDGET) as service:
        stream = await service.opens()
        await service.revokes(row(1, disabled_at="now"))
        assert stream.ended
    assert service.gate._lists.all[0].streams is not None
    assert service.gate._lists.all[0].streams._here.get() is None


@pytest.mark.slow
@pytest.mark.promise("streams of a revoked key end")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.usefixtures("no_collections")
async def test_ten_thousand_streams_end_without_a_leak() -> None:
    count = 10_000
    before = sum(isinstance(thing, Stream) for thing in gc.get_objects())
    async with anyio.create_task_group() as group:
        service = Service(group, WIDGET, sleep=anyio.sleep)
        async with service.gate:
            bystander = Exchange(number=2)
            group.start_soon(bystander.run, service.app)
            await anyio.wait_all_tasks_blocked()
            tasks = len(anyio.get_running_tasks())
            async with anyio.create_task_group() as clients:
                exchanges = [Exchange("websocket" if number % 2 else "http") for number in range(count)]
                for exchange in exchanges:
                    clients.start_soon(exchange.run, service.app)
                await anyio.wait_all_tasks_blocked()
                assert len(_open(service)) == count + 1
                await service.lists(row(1, disabled_at="now"), row(2))
            assert all(exchange.sent[-1]["type"].endswith((".body", ".close")) for exchange in exchanges)
            assert not any(exchange.error for exchange in exchanges)
            assert service.closed == count
            assert len(anyio.get_running_tasks()) == tasks
            assert not bystander.ended
            exchanges.clear()
            del exchange
            gc.collect()
            assert sum(isinstance(thing, Stream) for thing in gc.get_objects()) == before + 1
        group.cancel_scope.cancel()


async def test_a_sweep_of_many_streams_yields_to_the_event_loop() -> None:
    class Nothing(Stream):
        def _ends(self, message: Message) -> bool:
            return message is END

        async def _send_last(self, refusal: Decision) -> None:
            raise AssertionError(refusal)

    decided = 0
    turns: list[int] = []

    def decide(_asked: Any) -> Decision:
        nonlocal decided
        decided += 1
        return Decision(Reason.ALLOWED)

    async with anyio.create_task_group() as group:
        wakers, generation = Wakers(anyio.sleep), 0
        streams = open_streams(decide, generation=lambda: generation, wakers=wakers)
        group.start_soon(streams.watch)
        await anyio.wait_all_tasks_blocked()
        held = [Nothing((b"key", b"%d" % number), Exchange().send) for number in range(1000)]
        for stream in held:
            await streams.add(stream)
        await anyio.wait_all_tasks_blocked()
        assert len(streams) == 1000
        generation += 1
        wakers.wake()
        while decided < 2000:
            turns.append(decided)
            await anyio.lowlevel.checkpoint()
        assert max(after - before for before, after in pairwise(turns)) <= 2 * SLICE
        group.cancel_scope.cancel()


async def test_a_stream_is_decided_again_once_its_deadline_has_passed() -> None:
    now, deadline, decided = 0.0, 15.0, 0

    def decide(_asked: Any) -> Decision:
        nonlocal decided
        decided += 1
        return Decision(Reason.ALLOWED)

    async with anyio.create_task_group() as group:
        naps = Naps()
        streams = open_streams(decide, deadline=lambda: deadline, clock=lambda: now, wakers=Wakers(naps.sleep))
        group.start_soon(streams.watch)
        await anyio.wait_all_tasks_blocked()
        server = Exchange("websocket")
        await streams.add(WebSocketStream((b"key", b"origin"), server.receive, server.send))
        counts = []
        # Past the deadline there is a look every 5 s. At 25 s it is renewed, and the next look is at its end.
        for moment in (14.0, 15.0, 16.0, 19.0, 20.0, 25.0, 30.0, 999.0, 1000.0):
            now, deadline = moment, 15.0 if moment < 25 else 1000.0
            await naps.look()
            counts.append(decided)
        group.cancel_scope.cancel()
    assert counts == [1, 2, 2, 2, 3, 4, 4, 4, 5]


# Trailers

TRAILERS: Message = {"type": "http.response.trailers", "headers": [(b"x-end", b"1")], "more_trailers": False}
LAST_TRAILERS: Message = {**TRAILERS, "headers": [(b"gatekeeper-reason", b"key_disabled")]}


async def with_trailers(_scope: Scope, receive: Receive, send: Send) -> None:
    """Announce trailers, send a first piece, then the messages that arrive."""
    await receive()
    await send({**START, "trailers": True})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    while (message := await receive())["type"] != "http.disconnect":
        await send(message)


class Patient(Exchange):
    """A server that keeps a connection open after the body, for its trailers."""

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def opens_with_trailers(service: Service, exchange: Exchange | None = None) -> Exchange:
    exchange = Patient() if exchange is None else exchange
    service._group.start_soon(exchange.run, service.app)
    await anyio.wait_all_tasks_blocked()
    return exchange


async def test_a_revoked_response_with_trailers_ends_with_the_reason() -> None:
    """A server that was told of trailers waits for them, and the stream stayed open (hypercorn's HTTP/2)."""
    async with running(with_trailers) as service:
        stream = await opens_with_trailers(service)
        await service.revokes(row(1, disabled_at="now"))
        assert stream.sent[2:] == [END, LAST_TRAILERS]
        assert service.closed == 1


async def test_a_response_that_waits_with_its_trailers_ends_with_the_reason() -> None:
    async with running(with_trailers) as service:
        stream = await opens_with_trailers(service)
        whole: Message = {"type": "http.response.body", "body": b"last"}
        stream.arrives(whole)
        await anyio.wait_all_tasks_blocked()
        await service.revokes(row(1, disabled_at="now"))
        assert stream.sent[2:] == [whole, LAST_TRAILERS]


async def with_a_late_body(_scope: Scope, receive: Receive, send: Send) -> None:
    """Announce trailers, then send the messages that arrive."""
    await receive()
    await send({**START, "trailers": True})
    while (message := await receive())["type"] != "http.disconnect":
        await send(message)


async def test_a_start_with_trailers_is_sent_before_its_stream_is_watched() -> None:
    """A revocation waits for the first piece of the body."""
    async with running(with_a_late_body) as service:
        stream = await opens_with_trailers(service)
        await service.revokes(row(1, disabled_at="now"))
        assert ([message["type"] for message in stream.sent], service.closed) == (["http.response.start"], 0)
        stream.arrives({"type": "http.response.body", "body": b"first", "more_body": True})
        await anyio.wait_all_tasks_blocked()
        assert stream.sent[1:] == [END, LAST_TRAILERS]
        assert (service.closed, stream.ended, stream.error) == (1, True, None)


@pytest.mark.parametrize("more", [{}, {"more_body": False}])
async def test_a_whole_body_before_trailers_is_never_cut_short(more: dict[str, bool]) -> None:
    async with running(with_a_late_body) as service:
        stream = await opens_with_trailers(service)
        await service.revokes(row(1, disabled_at="now"))
        whole: Message = {"type": "http.response.body", "body": b"whole", **more}
        for message in (whole, TRAILERS):
            stream.arrives(message)
            await anyio.wait_all_tasks_blocked()
            assert len(_open(service)) == 0
        assert (stream.sent[1:], service.closed) == ([whole, TRAILERS], 0)


async def test_a_response_is_over_after_its_trailers() -> None:
    async with running(with_trailers) as service:
        stream = await opens_with_trailers(service)
        more = {**TRAILERS, "more_trailers": True}
        for message in (END, more, TRAILERS):
            assert len(_open(service)) == 1
            stream.arrives(message)
            await anyio.wait_all_tasks_blocked()
        assert len(_open(service)) == 0
        await service.revokes(row(1, disabled_at="now"))
        assert (stream.sent[2:], service.closed) == ([END, more, TRAILERS], 0)


class Impatient(Exchange):
    """A server that takes no trailers, and raises, as uvicorn does."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.trailers":
            raise RuntimeError("the response is complete already")
        await super().send(message)


async def test_a_response_ends_on_a_server_that_takes_no_trailers() -> None:
    async with running(with_trailers) as service:
        stream = await opens_with_trailers(service, Impatient())
        await service.revokes(row(1, disabled_at="now"))
        assert (stream.sent[2:], stream.ended, stream.error) == ([END], True, None)
        assert len(_open(service)) == 0


# Servers that refuse a closing code


class Picky(Exchange):
    """A server that refuses to close a WebSocket with some codes, as daphne refuses 1008."""

    refused: tuple[int, ...] = (1008,)

    async def send(self, message: Message) -> None:
        if message.get("code") in self.refused:
            raise Exception(f"invalid close code {message['code']}")  # noqa: TRY002 - autobahn raises a mere Exception
        await super().send(message)


async def opens_picky(service: Service, *refused: int) -> Picky:
    exchange = Picky("websocket")
    exchange.refused = refused
    service._group.start_soon(exchange.run, service.app)
    await anyio.wait_all_tasks_blocked()
    return exchange


async def test_a_websocket_is_closed_with_3003_where_1008_is_refused() -> None:
    """Daphne closes only with 1000 and 3000 to 4999, and the revoked WebSocket stayed open."""
    async with running(WIDGET) as service:
        socket = await opens_picky(service, 1008)
        await service.revokes(row(1, disabled_at="now"))
        assert socket.sent[1:] == [{"type": "websocket.close", "code": 3003, "reason": "key_disabled: Disabled client key"}]
        assert (socket.ended, socket.error) == (True, None)
        assert len(_open(service)) == 0


async def test_the_app_is_told_where_a_server_refuses_to_close() -> None:
    received: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        received.append(await receive())
        await send({"type": "websocket.send", "text": "more"})

    async with running(app) as service:
        socket = await opens_picky(service, 1008, 3003)
        await service.revokes(row(1, disabled_at="now"))
        assert [message["type"] for message in received] == ["websocket.disconnect"]
        assert [message["type"] for message in socket.sent] == ["websocket.accept"]
        assert (socket.ended, socket.error, len(_open(service))) == (True, None, 0)


async def test_a_stream_that_cannot_be_closed_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gatekeeper")
    asked: list[Message] = []

    async def refuses(message: Message) -> None:
        asked.append(message)
        raise RuntimeError("not now")

    streams = open_streams(lambda _: Decision(Reason.KEY_DISABLED))
    server = Exchange("websocket")
    stream = WebSocketStream((b"key", b"origin"), server.receive, refuses)
    await streams.add(stream)
    assert [message["code"] for message in asked] == [1008, 3003]
    assert (stream.is_over, len(streams)) == (True, 0)
    assert "a stream could not be closed" in caplog.text
