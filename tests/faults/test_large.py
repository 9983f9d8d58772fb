"""Large lists and gzip bombs: memory, and turns of the event loop.

The lists are a twentieth of the largest; the benchmarks measure times.
"""

import gc
import inspect
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from gatekeeper import Gatekeeper, HubSource, Reason
from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.guarded import guarded, hub_source
from tests.support.rows import ORIGIN, as_json, client_key, row

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
    pytest.mark.slow,
]

MIB = 2**20
GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"  # RFC 1952 section 2.3.1
ROW = b'{"id":"1","last8":"00000001"},'
PATIENCE = 60.0


def bomb(first: bytes, again: bytes, size: int) -> bytes:
    """Make a small gzip file that repeats `again` after `first` until it has `size` bytes."""
    again *= max(1, MIB // len(again))
    deflate = zlib.compressobj(9, wbits=-15)
    begun = deflate.compress(first) + deflate.flush(zlib.Z_FULL_FLUSH)
    # After a full flush no block refers back, so that one can be repeated.
    block = deflate.compress(again) + deflate.flush(zlib.Z_FULL_FLUSH)
    return GZIP_HEAD + begun + block * (size // len(again)) + deflate.flush()


class Peak:
    """Peak memory of the process since the start (proc(5): clear_refs, VmHWM)."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = self._read("VmRSS")

    @property
    def grown(self) -> int:
        """Bytes."""
        return self._read("VmHWM") - self._before

    @staticmethod
    def _read(field: str) -> int:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise AssertionError(field)


# Gzip bombs


BOMBS = {
    "spaces": (b"[", b" "),
    "a string": (b'["', b"a"),
    "an id": (b'[{"id":"', b"a"),
    "brackets": (b"", b"["),
    "zeros": (b"", b"\0"),
    "after a row": (as_json(row(2))[:-1] + b",", b" "),
}


@pytest.mark.fault("gzip bomb")
def test_the_default_cap_is_512_mib() -> None:
    assert inspect.signature(HubSource).parameters["max_list"].default == 512 * MIB


@pytest.mark.fault("gzip bomb")
@pytest.mark.parametrize("kind", BOMBS)
async def test_a_gzip_bomb_is_cut_at_the_cap(hub: FakeHub, kind: str) -> None:
    body = bomb(*BOMBS[kind], 96 * MIB)
    assert len(body) < MIB
    async with guarded(hub, source={"max_list": 64 * MIB}, fetch_timeout=10.0) as it:
        hub.then(HubAnswer(200, body, {"content-encoding": "gzip"}))
        peak = Peak()
        error = await it.fail()
        assert "bytes" in error or "JSON" in error  # not a timeout
        assert peak.grown < 64 * MIB + 32 * MIB
        assert it.allows(1)
        assert it.status.keys == 1


@pytest.mark.fault("gzip bomb")
async def test_a_body_without_rows_is_given_up_long_before_the_cap(hub: FakeHub) -> None:
    body = bomb(*BOMBS["a string"], 64 * MIB)
    async with guarded(hub) as it:
        hub.then(HubAnswer(200, body, {"content-encoding": "gzip"}))
        peak = Peak()
        await it.fail()
        assert peak.grown < 8 * MIB


@pytest.mark.fault("gzip bomb")
async def test_a_gzip_bomb_does_not_block_the_event_loop(hub: FakeHub) -> None:
    body = bomb(*BOMBS["a string"], 96 * MIB)
    async with guarded(hub, source={"max_list": 64 * MIB}, fetch_timeout=10.0) as it:
        hub.then(HubAnswer(200, body, {"content-encoding": "gzip"}))
        async with watched() as turns:
            await it.fail()
    assert max(turns) < 0.5 * sum(turns)


@pytest.mark.fault("gzip bomb")
@pytest.mark.timeout(100)
async def test_a_list_of_more_than_two_million_rows_is_refused(hub: FakeHub) -> None:
    body = bomb(b"[", ROW, 2_200_000 * len(ROW))
    async with guarded(hub, fetch_timeout=PATIENCE) as it:
        hub.then(HubAnswer(200, body, {"content-encoding": "gzip"}))
        assert "rows" in await it.fail()
        assert it.allows(1)


@asynccontextmanager
async def watched() -> AsyncIterator[list[float]]:
    """Measure the processor time between two turns of this task.

    It is compared with all of the time, so that the speed of the machine does not matter. Garbage is not collected
    meanwhile: that time depends on the objects of all earlier tests.
    """
    turns: list[float] = []

    async def watch() -> None:
        while True:
            began = time.thread_time()
            await anyio.sleep(0.001)
            turns.append(time.thread_time() - began)

    gc.disable()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            yield turns
            group.cancel_scope.cancel()
    finally:
        gc.enable()


# Large lists


@pytest.mark.fault("large list")
@pytest.mark.promise("large lists stay cheap")
@pytest.mark.timeout(100)
async def test_a_large_list_does_not_block_the_event_loop(hub: FakeHub) -> None:
    rows = [row(number) for number in range(50_000)]
    bodies = [as_json(*rows), as_json(*(row(number, disabled_at="now") for number in range(25_000)), *rows[25_000:])]
    async with Gatekeeper(hub_source(hub.url), refresh_interval=3600.0, start_timeout=PATIENCE) as gate:
        turns = {}
        for number, body in enumerate(bodies):
            hub.always(HubAnswer(200, body))
            async with watched() as turns[number]:
                report = await gate.refresh()
            assert (report.changed, report.added, report.removed) == [(0, 49_999, 0), (25_000, 0, 0)][number]
        for number in range(0, 50_000, 97):
            expected = Reason.KEY_DISABLED if number < 25_000 else Reason.ALLOWED
            assert gate.decide(client_key(number), ORIGIN).reason is expected
        hub.lists()
    assert [max(each) < 0.15 * sum(each) for each in turns.values()] == [True, True]


@pytest.mark.fault("large list")
@pytest.mark.timeout(100)
async def test_a_large_list_takes_less_than_half_of_the_processor(hub: FakeHub) -> None:
    lists = [as_json(*(row(number, disabled_at=disabled) for number in range(20_000))) for disabled in (None, "now")]
    hub.always(lambda _: HubAnswer(200, lists[len(hub.requests) % 2]))
    async with Gatekeeper(hub_source(hub.url), refresh_interval=0.01, start_timeout=PATIENCE) as gate:
        busy, began = time.thread_time(), time.monotonic()
        while gate.status.generation < 4:  # noqa: ASYNC110 - nothing signals it
            await anyio.sleep(0.01)
        share = (time.thread_time() - busy) / (time.monotonic() - began)
    assert share < 0.5  # a fifth to apply the list; the rest to fetch and read it


@pytest.mark.fault("renamed field")
@pytest.mark.timeout(100)
async def test_a_large_list_of_another_schema_takes_little_memory(hub: FakeHub) -> None:
    renamed = as_json(*(row(number) for number in range(40_000))).replace(b'"last8"', b'"suffix"')
    async with guarded(hub, fetch_timeout=PATIENCE) as it:
        hub.then(HubAnswer(200, renamed))
        peak = Peak()
        assert "'suffix'" in await it.fail()
        assert peak.grown < 32 * MIB


@pytest.mark.promise("large lists stay cheap")
@pytest.mark.timeout(100)
async def test_refreshing_repeatedly_does_not_leak(hub: FakeHub) -> None:
    lists = [as_json(*(row(number, disabled_at=disabled) for number in range(2000))) for disabled in (None, "now", "then")]
    async with guarded(hub) as it:
        blocks = []
        for turn in range(60):
            hub.always(HubAnswer(200, lists[turn % 3]))
            assert (await it.refresh()).outcome == "changed"
            if turn % 3 == 2:
                it.time.sleeps.clear()
                hub.requests.clear()
                gc.collect()
                blocks.append(sys.getallocatedblocks())
        assert blocks[-1] - blocks[3] < 0.02 * blocks[3]


@pytest.mark.promise("large lists stay cheap")
@pytest.mark.timeout(100)
async def test_a_refresh_takes_little_more_memory_than_its_list(hub: FakeHub) -> None:
    lists = [as_json(*(row(number, disabled_at=disabled) for number in range(50_000))) for disabled in (None, "now")]
    hub.always(HubAnswer(200, lists[0]))
    async with guarded(hub, start_timeout=PATIENCE, fetch_timeout=PATIENCE) as it:
        await it.refresh()
        hub.always(HubAnswer(200, lists[1]))
        peak = Peak()
        assert (await it.refresh()).changed == 50_000
        # Every row changes: the rows take 16 MB, the body 11 MB.
        assert peak.grown < 64 * MIB
