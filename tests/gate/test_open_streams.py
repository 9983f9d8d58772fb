"""OpenStreams: woken by a change of keys, in whichever event loop it was applied."""

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from gatekeeper import Gatekeeper
from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.open_streams import OpenStream, OpenStreams
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.waking import Waker, Wakers
from tests.support.forked import forked
from tests.support.memory_source import MemorySource
from tests.support.rows import ORIGIN, client_key, row

pytestmark = pytest.mark.anyio

BACKENDS: tuple[Any, ...] = ("asyncio", "trio")
REVOKED = [row(1, disabled_at="now"), row(2)]


class Stream:
    """A stream that notes its closing."""

    def __init__(self, number: int = 1, closed: Callable[[], None] = lambda: None) -> None:
        self.identity: RequestIdentity = (client_key(number).encode(), ORIGIN.encode())
        self.refusal: Decision | None = None
        self.is_over = False
        self.forget: Callable[[OpenStream], None] | None = None
        self._closed = closed

    async def close(self, refusal: Decision) -> None:
        """Note it."""
        self.refusal = refusal
        self.end()
        self._closed()

    def end(self) -> None:
        """End, as when the app or the client has ended it."""
        self.is_over = True
        if self.forget is not None:
            self.forget(self)


class Naps:
    """Sleeps that never end by themselves. A refresher sleeps for 8 to 12 seconds, and what watches streams for others."""

    def __init__(self) -> None:
        self.watching = 0

    async def sleep(self, seconds: float) -> None:
        watches = not 8 <= seconds <= 12
        self.watching += watches
        try:
            await anyio.sleep_forever()
        finally:
            self.watching -= watches


class CountedWakers(Wakers):
    """Wakers that count those that there are."""

    count = 0

    @contextmanager
    def here(self) -> Iterator[Waker]:
        with super().here() as waker:
            self.count += 1
            try:
                yield waker
            finally:
                self.count -= 1


def gate_of(source: MemorySource, naps: Naps | None = None) -> Gatekeeper:
    """A gate that fetches when it is told to, and looks at no clock."""
    return Gatekeeper(source, sleep=(naps or Naps()).sleep, unknown_key_wait=0, refresh_interval=10)


async def revoke(gate: Gatekeeper, source: MemorySource) -> None:
    source.rows = REVOKED
    assert (await gate.refresh()).outcome == "changed"


async def test_a_stream_is_closed_by_the_change_itself() -> None:
    source = MemorySource(row(1), row(2))
    async with (gate := gate_of(source)):
        revoked, other = Stream(1), Stream(2)
        for stream in (revoked, other):
            await gate.watch(stream)
        await anyio.wait_all_tasks_blocked()
        await revoke(gate, source)
        await anyio.wait_all_tasks_blocked()
        assert revoked.refusal is not None
        assert (revoked.refusal.reason, other.refusal) == ("key_disabled", None)


async def test_nothing_sleeps_without_open_streams() -> None:
    naps = Naps()
    async with (gate := gate_of(MemorySource(row(1)), naps)):
        for _ in range(2):
            await anyio.wait_all_tasks_blocked()
            assert naps.watching == 0
            streams = [Stream(), Stream()]
            for stream in streams:
                await gate.watch(stream)
            await anyio.wait_all_tasks_blocked()
            assert naps.watching == 1
            for stream in streams:
                stream.end()


async def test_a_change_of_keys_wakes_nothing_without_open_streams() -> None:
    wakers = CountedWakers(anyio.sleep)
    streams = OpenStreams(
        lambda _: Decision(Reason.ALLOWED),
        enforces=lambda: True,
        generation=lambda: 1,
        deadline=lambda: 1e9,
        wakers=wakers,
        log=RefreshLog(logging.getLogger(), time.time),
        clock=lambda: 0.0,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(streams.watch)
        for _ in range(2):
            await anyio.wait_all_tasks_blocked()
            assert wakers.count == 0
            await streams.add(stream := Stream())
            await anyio.wait_all_tasks_blocked()
            assert wakers.count == 1
            stream.end()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_change_between_opening_and_watching_closes_the_stream() -> None:
    generation, wakers, stream = 1, Wakers(Naps().sleep), Stream()

    def decide(_: RequestIdentity) -> Decision:
        return Decision(Reason.ALLOWED if generation == 1 else Reason.KEY_DISABLED)

    streams = OpenStreams(
        decide,
        enforces=lambda: True,
        generation=lambda: generation,
        deadline=lambda: math.inf,
        wakers=wakers,
        log=RefreshLog(logging.getLogger("gatekeeper"), time.time),
        clock=time.monotonic,
    )
    await streams.add(stream)
    generation = 2
    wakers.wake()
    async with anyio.create_task_group() as group:
        group.start_soon(streams.watch)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert stream.refusal is not None
    assert stream.refusal.reason is Reason.KEY_DISABLED


async def test_enforcing_closes_what_was_refused_before() -> None:
    source = MemorySource(row(1), row(2))
    gate = gate_of(source)
    gate.enforce = False
    async with gate:
        early, other = Stream(1), Stream(2)
        await gate.watch(early)
        await anyio.wait_all_tasks_blocked()
        await revoke(gate, source)
        late = Stream(1)
        for stream in (late, other):
            await gate.watch(stream)
        await anyio.wait_all_tasks_blocked()
        assert (early.refusal, late.refusal) == (None, None)
        gate.enforce = True
        await anyio.wait_all_tasks_blocked()
        assert [each.refusal is not None for each in (early, late, other)] == [True, True, False]


async def test_what_an_expired_list_left_open_is_closed_by_the_next_fresh_one() -> None:
    """The list expired while it was read. The next one is the same, so no key changes."""
    now = 0.0
    source = MemorySource(row(1))
    gate = Gatekeeper(source, sleep=Naps().sleep, clock=lambda: now, hard_stale=100, unknown_key_wait=0)
    async with gate:
        stream = Stream(1)
        await gate.watch(stream)

        def read_for_long() -> None:
            nonlocal now
            now = 1000.0

        source.on_fetch = read_for_long
        await revoke(gate, source)
        await anyio.wait_all_tasks_blocked()
        assert (gate.status.state, stream.refusal) == ("expired", None)
        assert (await gate.refresh()).outcome == "unchanged"
        await anyio.wait_all_tasks_blocked()
        assert stream.refusal is not None


async def test_a_closing_that_hangs_delays_no_later_stream() -> None:
    """Its client reads nothing, and its app has ended, so that no stream is open."""

    class Hanging(Stream):
        async def close(self, refusal: Decision) -> None:
            self.refusal = refusal
            self.end()
            await anyio.sleep_forever()

    source = MemorySource(row(1), row(2))
    async with (gate := gate_of(source)):
        await gate.watch(Hanging(1))
        await anyio.wait_all_tasks_blocked()
        await revoke(gate, source)
        await anyio.wait_all_tasks_blocked()
        later = Stream(2)
        await gate.watch(later)
        await anyio.wait_all_tasks_blocked()
        source.rows = []
        await gate.refresh()
        await anyio.wait_all_tasks_blocked()
        assert later.refusal is not None


async def test_a_change_wakes_without_the_end_of_the_fetch_that_brought_it() -> None:
    async with (gate := gate_of(MemorySource(row(1), row(2)))):
        stream = Stream(1)
        await gate.watch(stream)
        await anyio.wait_all_tasks_blocked()
        applier = gate._lists.all[0].sync._applier
        gate._lists.all[0].index.clear()
        applier.shared.generation += 1
        applier.on_change()
        await anyio.wait_all_tasks_blocked()
        assert stream.refusal is not None


# Several event loops.


class Worker:
    """A gate's event loop in another thread, with one open stream.

    Attributes:
        closed: set once the stream was closed.
    """

    def __init__(self, gate: Gatekeeper) -> None:
        self.closed = threading.Event()
        self._gate = gate
        self._opened = threading.Event()
        self._leave: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Run the gate until the stream is closed."""
        async with self._gate:
            left = anyio.Event()
            await self._gate.watch(Stream(1, left.set))
            await anyio.wait_all_tasks_blocked()
            self._opened.set()
            await left.wait()
            self.closed.set()

    @contextmanager
    def running(self, backend: Any) -> Iterator[None]:
        """Run it in a thread, and wait until the stream is open."""
        with start_blocking_portal(backend) as portal:
            done = portal.start_task_soon(self.run)
            assert self._opened.wait(20)
            yield
            done.result(20)


@pytest.mark.parametrize("backend", BACKENDS)
def test_streams_in_all_event_loops_are_closed_by_a_change_in_one(backend: str) -> None:
    source = MemorySource(row(1), row(2))
    gate = gate_of(source)

    async def change() -> None:
        async with gate:
            await revoke(gate, source)

    with ExitStack() as stack:
        workers = [Worker(gate) for _ in BACKENDS * 2]
        for worker, kind in zip(workers, BACKENDS * 2, strict=True):
            stack.enter_context(worker.running(kind))
        anyio.run(change, backend=backend)
        assert all(worker.closed.wait(20) for worker in workers)


def test_an_event_loop_that_was_closed_with_open_streams_breaks_no_change() -> None:
    """A server that only stops its event loop ends no task."""
    source = MemorySource(row(1), row(2))
    gate = gate_of(source)

    async def open_and_leave() -> None:
        await gate.start()
        await gate.watch(Stream(1))
        await asyncio.sleep(0)

    async def change() -> None:
        async with gate:
            await revoke(gate, source)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(open_and_leave())
    loop.close()
    worker = Worker(gate)
    with worker.running("asyncio"):
        anyio.run(change)
        assert worker.closed.wait(20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_the_streams_of_a_forked_child_are_closed_by_its_own_changes() -> None:
    source = MemorySource(row(1), row(2))
    gate = gate_of(source)

    def in_child() -> None:
        async def open_and_change() -> None:
            async with gate:
                stream = Stream(1, (closed := anyio.Event()).set)
                await gate.watch(stream)
                await anyio.wait_all_tasks_blocked()
                await revoke(gate, source)
                with anyio.fail_after(20):
                    await closed.wait()

        anyio.run(open_and_change)

    async def change() -> None:
        async with gate:
            await revoke(gate, source)

    worker = Worker(gate)
    with worker.running("asyncio"):
        assert forked(in_child) == "well"
        assert not worker.closed.is_set()
        anyio.run(change)
        assert worker.closed.wait(20)
