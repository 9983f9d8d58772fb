"""Streams: WebSockets and streaming responses that can be closed from outside.

To its app, a closed stream looks like a client that has disconnected: `send` raises an OSError (ASGI, HTTP & WebSocket 2.4),
and `receive` of a WebSocket returns a disconnect. For a streaming response the server's own `receive` does so. No task is
cancelled.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from traceback import clear_frames

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send
from starlette.websockets import WebSocketDisconnect

from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.gate.open_streams import OpenStream
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.web.request import Header

__all__ = ("ResponseStream", "Stream", "WebSocketStream", "closing_message", "send_of")

LINGER = 5.0  # seconds that a finished app waits for its client to read the closing message
WEBSOCKET_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
WEBSOCKET_FORBIDDEN = 3003  # IANA, WebSocket Close Code Number Registry; for servers that refuse to send 1008
MAX_CLOSE_REASON = 123  # RFC 6455 section 5.5: 125 bytes of a control frame less the code

_BODIES = ("http.response.body", "http.response.zerocopysend", "http.response.pathsend")


class Stream(ABC):
    """An open connection, as its app sees it.

    Args:
        identity: what the request sent.
        send: the server's `send`.
        linger: seconds that a finished app waits for its client to read the closing message.

    Attributes:
        identity: as given.
        refusal: the decision that closed the stream; None while it is open.
        is_over: whether nothing is left to close.
        forget: called once when the stream is over, if it is being watched.
    """

    def __init__(self, identity: RequestIdentity, send: Send, *, linger: float = LINGER) -> None:
        self.identity = identity
        self.refusal: Decision | None = None
        self.is_over = False
        self.forget: Callable[[OpenStream], None] | None = None
        self._send = send
        self._linger = linger
        # Servers take one message at a time, and `close` runs in another task than the app.
        self._turn = anyio.Lock(fast_acquire=True)

    async def send(self, message: Message) -> None:
        """Send a message of the app.

        Args:
            message: the ASGI message.

        Raises:
            ConnectionAbortedError: the stream was closed.
        """
        async with self._turn:
            if self.refusal is not None:
                raise ConnectionAbortedError(f"the stream was closed: {self.refusal.reason}: {self.refusal.title}")
            if self._ends(message):
                self._end()
            await self._send(message)

    async def close(self, refusal: Decision) -> None:
        """Block further messages of the app, and send the closing one.

        Args:
            refusal: the decision that closes the stream.
        """
        self.refusal = refusal
        async with self._turn:
            if not self.is_over:
                try:
                    await self._send_last(refusal)
                except Exception:
                    self._end()  # the server takes no last message; the app sees a disconnect
                    raise
                self._end()

    async def leave(self, error: BaseException | None) -> bool:
        """End the stream after its app has ended.

        Args:
            error: the exception that the app raised; None if it returned.

        Returns:
            Whether to swallow the error, because it only reports that this stream was closed.
        """
        if self.refusal is None or not (error is None or isinstance(error, Exception)):
            self._end()
            return False
        if not self.is_over:
            # A server disconnects when its app ends, so send the closing message first.
            with anyio.move_on_after(self._linger), suppress(Exception):
                await self.close(self.refusal)
            self._end()
        if error is None or not _is_disconnect(error):
            return False
        _let_go(error)
        return True

    def _end(self) -> None:
        self.is_over = True
        if self.forget is not None:
            self.forget(self)
            self.forget = None

    @abstractmethod
    def _ends(self, message: Message) -> bool:
        """Whether this is the last message that the app may send."""

    @abstractmethod
    async def _send_last(self, refusal: Decision) -> None:
        """Send what closes the stream."""


class ResponseStream(Stream):
    """A streaming response of unknown length.

    Args:
        identity: what the request sent.
        send: the server's `send`.
        watch: the function that registers the stream, to be closed when its key is revoked.
        trailers: whether the app has announced trailers, which the server may wait for after the body.
        linger: as for `Stream`.
    """

    def __init__(
        self,
        identity: RequestIdentity,
        send: Send,
        watch: Callable[[OpenStream], Awaitable[None]],
        *,
        trailers: bool = False,
        linger: float = LINGER,
    ) -> None:
        super().__init__(identity, send, linger=linger)
        self._watch: Callable[[OpenStream], Awaitable[None]] | None = watch
        self._trailers = trailers
        self._has_body = False

    async def __call__(self, message: Message) -> None:
        """Send a message of the app. The first piece of a body registers the stream.

        A whole body does not: it is never cut short.

        Args:
            message: the ASGI message.

        Raises:
            ConnectionAbortedError: the stream was closed.
        """
        if self._watch is not None and message.get("more_body", False):
            watch, self._watch = self._watch, None
            await watch(self)
        await self.send(message)

    def _ends(self, message: Message) -> bool:
        if message["type"] in _BODIES:
            self._has_body = not message.get("more_body", False)
            return self._has_body and not self._trailers
        return message["type"] == "http.response.trailers" and not message.get("more_trailers", False)

    async def _send_last(self, refusal: Decision) -> None:
        if not self._has_body:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        if self._trailers:
            # Never empty: h2 raises an IndexError for trailers without a header.
            why = [(b"gatekeeper-reason", refusal.reason.encode("ascii"))]
            with suppress(Exception):  # a server that takes no trailers may raise, and has ended the response
                await self._send({"type": "http.response.trailers", "headers": why, "more_trailers": False})


class WebSocketStream(Stream):
    """A WebSocket, accepted or not yet.

    Args:
        identity: what the handshake sent.
        receive: the server's `receive`.
        send: the server's `send`.
        linger: as for `Stream`.
    """

    def __init__(self, identity: RequestIdentity, receive: Receive, send: Send, *, linger: float = LINGER) -> None:
        super().__init__(identity, send, linger=linger)
        self._receive = receive
        self._has_connected = False
        self._receiving: set[anyio.CancelScope] = set()
        self._disconnect: Message = {}

    async def receive(self) -> Message:
        """Receive a message for the app.

        Returns:
            The client's message; a disconnect if the stream was closed.
        """
        if not self._has_connected:  # websocket.connect is there already, and apps expect it first
            self._has_connected = True
            return await self._receive()
        if self.refusal is None:
            with anyio.CancelScope() as scope:
                self._receiving.add(scope)
                try:
                    message = await self._receive()
                finally:
                    self._receiving.discard(scope)
                if message["type"] == "websocket.disconnect":
                    self._end()
                return message
        return self._disconnect

    async def close(self, refusal: Decision) -> None:
        """Block further messages in both directions, and send the closing one.

        Args:
            refusal: the decision that closes the stream.
        """
        self.refusal = refusal
        self._disconnect = {**closing_message(refusal), "type": "websocket.disconnect"}
        for scope in self._receiving:
            scope.cancel()
        await super().close(refusal)

    def _ends(self, message: Message) -> bool:
        return message["type"] in {"websocket.close", "websocket.http.response.start"}

    async def _send_last(self, refusal: Decision) -> None:
        try:
            await self._send(closing_message(refusal))
        except Exception:  # noqa: BLE001 - daphne takes only 1000 and 3000 to 4999, and raises a mere Exception
            await self._send(closing_message(refusal, WEBSOCKET_FORBIDDEN))


def send_of(
    gate: Gatekeeper,
    identity: RequestIdentity | None,
    send: Send,
    headers: Iterable[Header],
    *,
    more: bool = False,
    trailers: bool = False,
) -> Send:
    """The `send` for the rest of a response.

    Args:
        gate: the gate that closes streams.
        identity: what the request sent; None if it was only observed, and is never cut short.
        send: the `send` until now.
        headers: the headers of the response. A response with a Content-Length is never cut short.
        more: whether the app has announced further pieces of the body.
        trailers: whether it has announced trailers.

    Returns:
        A `ResponseStream` if one of the two follows; otherwise the same `send`.
    """
    if not (more or trailers) or isinstance(send, ResponseStream):
        return send
    if identity is None or not gate.closes_streams or any(name.lower() == b"content-length" for name, _ in headers):
        return send
    return ResponseStream(identity, send, gate.watch, trailers=trailers)


def closing_message(refusal: Decision, code: int = WEBSOCKET_POLICY_VIOLATION) -> Message:
    """The message that closes a WebSocket.

    Args:
        refusal: the decision that closes it.
        code: the code of the closing.

    Returns:
        The ASGI message, with the reason and its title.
    """
    reason = f"{refusal.reason}: {refusal.title}"[:MAX_CLOSE_REASON]
    return {"type": "websocket.close", "code": code, "reason": reason}


def _is_disconnect(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_disconnect(one) for one in error.exceptions)
    return isinstance(error, OSError | ClientDisconnect | WebSocketDisconnect)


def _let_go(error: BaseException) -> None:
    """Clear the frames of an error. Generators in them then end without a garbage collection."""
    pending: list[BaseException | None] = [error]
    while pending:
        seen = pending.pop()
        if seen is None or seen.__traceback__ is None:
            continue
        clear_frames(seen.__traceback__)
        pending += (seen.__cause__, seen.__context__)
        pending += seen.exceptions if isinstance(seen, BaseExceptionGroup) else ()
        seen.__traceback__ = None  # also ends a cycle of causes
