"""OpenStreams: the open streams of an event loop.

A stream is decided when it opens, and may live for hours. So each open stream is decided again as soon as keys have changed,
and when the deadline of its decision has passed. It is closed unless it is still allowed. An expired list closes none.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.waking import Waker, Wakers

__all__ = ("OpenStream", "OpenStreams")

LAPSED = 5.0  # seconds between two sweeps while the deadline lies in the past
CLOSING = 1.0  # seconds for the last messages of streams whose list is removed
SLICE = 64  # streams decided before yielding to the event loop: about 1 ms of work

_UNDECIDED = (Reason.NOT_READY, Reason.EXPIRED)

logger = logging.getLogger("gatekeeper")


class OpenStream(Protocol):
    """A stream, as far as it can be closed.

    Attributes:
        identity: what its request sent.
        refusal: why it was closed; None as long as it was not.
        is_over: whether it has ended.
        forget: called once when it has ended.
    """

    identity: RequestIdentity
    refusal: Decision | None
    is_over: bool
    forget: "Callable[[OpenStream], None] | None"

    async def close(self, refusal: Decision) -> None:
        """Send the last message, and let no other one pass."""
        ...


class OpenStreams:
    """The open streams of one event loop.

    Args:
        decide: decides on what a request sent, by the keys as they are now.
        enforces: tells whether refused streams are closed.
        generation: tells how often keys have changed.
        deadline: tells the moment up to which a decision holds.
        wakers: wake it when what `enforces`, `generation` or `deadline` tells may have changed.
        log: where closings are counted and logged.
        clock: gives seconds.
    """

    def __init__(
        self,
        decide: Callable[[RequestIdentity], Decision],
        *,
        enforces: Callable[[], bool],
        generation: Callable[[], int],
        deadline: Callable[[], float],
        wakers: Wakers,
        log: RefreshLog,
        clock: Clock,
    ) -> None:
        self._decide = decide
        self._enforces = enforces
        self._generation = generation
        self._deadline = deadline
        self._wakers = wakers
        self._log = log
        self._clock = clock
        self._decided_until = deadline()
        self._open: set[OpenStream] = set()
        self._opened = anyio.Event()
        self._swept = generation()
        self._wake_here: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    async def add(self, stream: OpenStream) -> None:
        """Watch one more stream; close it if it is refused by now.

        Args:
            stream: a stream that has just been opened.
        """
        self._open.add(stream)
        stream.forget = self._forget
        self._opened.set()
        if not self._enforces():
            return
        # Keys may have changed since it was allowed, in a sweep before this.
        decision = self._decide(stream.identity)
        if _closes(decision):
            await self._close(stream, decision)

    async def close_all(self) -> None:
        """Close all streams, because their list is removed."""
        if not self._enforces():
            return
        refusals: dict[RequestIdentity, Decision] = {}
        async with anyio.create_task_group() as closing:
            for number, stream in enumerate(tuple(self._open)):
                if number % SLICE == SLICE - 1:
                    await anyio.lowlevel.checkpoint()
                refusal = refusals.get(stream.identity)
                if refusal is None:
                    refusal = self._decide(stream.identity)
                    if not _closes(refusal):  # another list may have the key
                        refusal = Decision(Reason.KEY_UNKNOWN, last8=refusal.last8, origin=refusal.origin)
                    refusals[stream.identity] = refusal
                closing.start_soon(self._close, stream, refusal)
            await anyio.lowlevel.checkpoint()  # each has begun, so that no message of the app passes any more
            closing.cancel_scope.deadline = anyio.current_time() + CLOSING

    async def watch(self) -> None:
        """Close streams that are refused, until cancelled."""
        await self._opened.wait()  # a gate may have hundreds of lists without a stream, which need no more than this
        try:
            # A client that reads nothing delays its own closing and no other.
            async with anyio.create_task_group() as closing:
                while True:
                    if not self._open:
                        self._opened = anyio.Event()
                        await self._opened.wait()
                    # Without open streams, a change of keys wakes nothing.
                    with self._wakers.here() as waker:
                        self._wake_here = waker.wake
                        await self._watch_open(waker, closing)
        finally:
            self._wake_here = None  # a gate holds no event loop in which nothing of it runs

    async def _watch_open(self, waker: Waker, closing: TaskGroup) -> None:
        while self._open:
            if self._generation() != self._swept or self._clock() >= self._decided_until:
                if self._enforces():  # the first sweep after that closes what was refused meanwhile
                    await self._sweep(closing)
                self._decided_until = max(self._deadline(), self._clock() + LAPSED)
            await waker.sleep(self._decided_until - self._clock())

    def _forget(self, stream: OpenStream) -> None:
        self._open.discard(stream)
        if not self._open and self._wake_here is not None:
            self._wake_here()  # nothing sleeps without open streams

    async def _sweep(self, closing: TaskGroup) -> None:
        generation = self._generation()
        decisions: dict[RequestIdentity, Decision] = {}
        closed = 0
        for number, stream in enumerate(tuple(self._open)):
            if number % SLICE == SLICE - 1:
                await anyio.lowlevel.checkpoint()
            if stream.is_over or stream.refusal is not None:
                continue
            decision = decisions.get(stream.identity)
            if decision is None:
                decision = decisions[stream.identity] = self._decide(stream.identity)
            if decision.reason in _UNDECIDED:
                generation = self._swept  # sweep again once a fresh list tells which streams stay
                break
            if _closes(decision):
                closed += 1
                closing.start_soon(self._close, stream, decision)
        self._swept = generation
        if closed:
            text = "gatekeeper: closed %d open streams, because their keys or pages are not allowed any more"
            self._log.logger.info(text, closed)

    async def _close(self, stream: OpenStream, refusal: Decision) -> None:
        try:
            if stream.refusal is None and not stream.is_over:
                self._log.counters["streams_closed"] += 1
                await stream.close(refusal)
        except Exception as error:  # noqa: BLE001 - whatever a server says about a client that has just gone
            logger.debug("gatekeeper: a stream could not be closed, for it was over: %s", type(error).__name__)


def _closes(decision: Decision) -> bool:
    return not decision.allowed and decision.reason not in _UNDECIDED
