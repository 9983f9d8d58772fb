"""BoundedHttp: uvicorn's HTTP protocol with bounds on what a client may send."""

import asyncio
import socket
from collections import deque
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ("MAX_HEAD", "BoundedHttp", "Lanes", "ReadTurns")

# Bytes of a request's head while it arrives, as in nginx (large_client_header_buffers, 4 of 8 KB). That bounds the number of
# header lines, too. httptools, which uvicorn prefers, has no bound.
MAX_HEAD = 32 * 1024
_PIECE = 16 * 1024  # bytes; the head is measured after each
TIMEOUT = 30.0  # seconds; a body has at most 1 MB. uvicorn has a timeout only between two requests.
TURN = 10  # connections that are read in a turn of the event loop, which takes 1 or 2 ms
PATIENT_TURN, PATIENT_PERIOD = 10, 0.005  # connections whose requests wait anyway, in so many seconds: they take half of it
# Seconds. An idle turn of the event loop takes less, and one that tells 10 clients of a change 1 to 2 ms (benchmarks.live).
IDLE = 0.0003
LONGEST_BUSY = 1.0  # seconds for which connections are held because the event loop is busy
_PATIENT = b"\nprefer: wait="  # RFC 7240 section 4.3, as gates write it
_TOKEN = b"\nauthorization: bearer "


class ReadTurns:
    """Bounds the connections that are read in each turn.

    A thousand clients that are told of a change ask again at once. If all of them were read in one turn, those that are not
    told yet would wait for their requests. Accounts are read in rotation, so that those of one account delay no other's.

    Args:
        size: the most connections that are read in a turn.
        period: the seconds from one turn to the next; None for a turn of the event loop, so that no time is lost if there
            is nothing else to do. All that come within a period are read at its end, so that they share what they read from
            the database. In a busy turn only one is read, until connections have been held for a second.
    """

    def __init__(self, size: int = TURN, period: float | None = None) -> None:
        self._size = size
        self._period = period
        self._left = size
        self._queues: dict[bytes, deque[BoundedHttp]] = {}  # in the order of their next turns
        self._has_begun = False
        self._since = 0.0

    def take(self, connection: "BoundedHttp", account: bytes = b"") -> bool:
        """Let a connection be read in this turn, or later.

        Args:
            connection: the connection.
            account: whose it is.

        Returns:
            Whether it may be read now. Otherwise its method `read_held` is called when its turn comes.
        """
        if not self._has_begun:
            self._has_begun = True
            self._since = connection.loop.time()
            self._follow(connection.loop)
        if self._period is None and self._left and not self._queues:
            self._left -= 1
            return True
        self._queues.setdefault(account, deque()).append(connection)
        return False

    def _end(self, loop: asyncio.AbstractEventLoop, *, is_busy: bool = False) -> None:
        self._left = 1 if is_busy else self._size
        self._has_begun = bool(self._queues)
        if self._has_begun:
            self._follow(loop)
        while self._queues and self._left:
            self._left -= 1
            account = next(iter(self._queues))
            queue = self._queues.pop(account)
            connection = queue.popleft()
            if queue:
                self._queues[account] = queue
            connection.read_held()

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._period is None:
            loop.call_soon(self._end, loop)
        else:
            loop.call_later(self._period, self._measure_turn, loop)

    def _measure_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(self._end_measured, loop, loop.time())

    def _end_measured(self, loop: asyncio.AbstractEventLoop, begun: float) -> None:
        now = loop.time()
        # One account's clients, told by the thousand, keep the event loop busy. Those of others are still read, in rotation.
        self._end(loop, is_busy=now - begun >= IDLE and now - self._since <= LONGEST_BUSY)


class Lanes:
    """The turns of a server's connections.

    A request that waits for a change may as well wait to be read, so that thousands of them delay no other request. Which
    ones these are, and whose, is guessed from their first bytes: a wrong guess costs a little time.

    Args:
        usual: the turns of requests that want an answer at once; None for the usual ones.
        patient: the turns of those that wait for a change.
    """

    def __init__(self, usual: ReadTurns | None = None, patient: ReadTurns | None = None) -> None:
        self._usual = usual or ReadTurns()
        self._patient = patient or ReadTurns(PATIENT_TURN, PATIENT_PERIOD)

    def take(self, connection: "BoundedHttp", data: bytes) -> bool:
        """Let a connection be read in this turn, or later.

        Args:
            connection: the connection.
            data: the first bytes of its request.

        Returns:
            Whether it may be read now, as of `ReadTurns.take`.
        """
        head = data[:_PIECE].lower()
        # A token names its account before the random part. A forged one is refused, in the turn of those it forges.
        account = head.partition(_TOKEN)[2].partition(b"\r")[0].rpartition(b"_")[0]
        return (self._patient if _PATIENT in head else self._usual).take(connection, account)


class BoundedHttp(H11Protocol):
    """An HTTP connection that is closed when its client stalls.

    The head of a request has to be complete within the timeout after the connection or the last response, and its body
    within the timeout after the head. A response may wait as long for a client that does not read it. uvicorn's own timeout
    closes an idle connection earlier.

    Args:
        config, server_state, app_state: as for H11Protocol.
        lanes: the turns that it shares with other connections; None for none.
        timeout: seconds.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        lanes: Lanes | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lanes = lanes or Lanes()
        self._held = b""
        self._timeout = timeout
        self._request_deadline: asyncio.TimerHandle | None = None
        self._response_deadline: asyncio.TimerHandle | None = None
        self._timed_cycle: object = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(cast("asyncio.Transport", transport))  # a server's connections have no other transport
        connection = transport.get_extra_info("socket")
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio does so only where the listening socket names its protocol, and that of uvicorn's workers does not. The
            # body of a small answer would then wait 40 ms for the client to acknowledge the head.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch_request()

    def data_received(self, data: bytes) -> None:
        """Take bytes, now or in a later turn."""
        if self._held:
            self._held += data
        elif self._lanes.take(self, data):
            self._read(data)
        else:
            self._held = data
            self.transport.pause_reading()
            self._unset_keepalive_if_required()  # uvicorn would close the connection as idle

    def read_held(self) -> None:
        """Take the bytes that are held."""
        held, self._held = self._held, b""
        if held and not self.transport.is_closing():
            if not self.flow.read_paused:
                self.transport.resume_reading()
            self._read(held)

    def shutdown(self) -> None:
        """Stop, after the request that has come already."""
        self.read_held()
        super().shutdown()

    def _read(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _PIECE])
        self._watch_request()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._watch_request()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._response_deadline = self._deadline()

    def resume_writing(self) -> None:
        """End that wait."""
        super().resume_writing()
        _cancel(self._response_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waiting."""
        self._held = b""
        super().connection_lost(exc)
        _cancel(self._request_deadline)
        _cancel(self._response_deadline)

    def _watch_request(self) -> None:
        is_arriving = self.conn.their_state in {h11.IDLE, h11.SEND_BODY}
        if not is_arriving or self.cycle is not self._timed_cycle:
            _cancel(self._request_deadline)
            self._request_deadline = None
        if is_arriving and self._request_deadline is None:
            self._timed_cycle = self.cycle
            self._request_deadline = self._deadline()

    def _deadline(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self._timeout, self.transport.abort)


def _cancel(deadline: asyncio.TimerHandle | None) -> None:
    if deadline is not None:
        deadline.cancel()
