"""Reads that several requests share."""

import asyncio
from collections.abc import Collection

import pytest

from gatekeeper.hub.shared_reads import SharedReads

pytestmark = pytest.mark.anyio


class Source:
    """Values that change, behind reads that a test lets end.

    Attributes:
        values: the values at present.
        reads: the keys of each read.
        ending: lets a read end.
    """

    def __init__(self) -> None:
        self.values = {"a": 1, "b": 1}
        self.reads: list[set[str]] = []
        self.ending = asyncio.Semaphore(0)

    async def read(self, keys: Collection[str]) -> dict[str, int]:
        """Read values; the values are those from the beginning of the read."""
        self.reads.append(set(keys))
        found = {key: self.values[key] for key in keys if key in self.values}
        await self.ending.acquire()
        if "broken" in keys:
            raise OSError("broken")
        return found


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_asked_together_is_one_read() -> None:
    source = Source()
    source.ending.release()
    shared = SharedReads(source.read)
    assert await asyncio.gather(*(shared.get(key) for key in ("a", "b", "a", "unknown"))) == [1, 1, 1, None]
    assert source.reads == [{"a", "b", "unknown"}]


async def test_a_value_is_never_from_before_it_was_asked_for() -> None:
    source = Source()
    shared = SharedReads(source.read)
    first = asyncio.create_task(shared.get("a"))
    await settled()
    source.values["a"] = 2
    later = [asyncio.create_task(shared.get(key)) for key in ("a", "b")]
    await settled()
    assert source.reads == [{"a"}]
    for _ in range(2):
        source.ending.release()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 1]
    assert source.reads == [{"a"}, {"a", "b"}]


async def test_an_error_reaches_those_who_share_the_read_only() -> None:
    source = Source()
    shared = SharedReads(source.read)
    for _ in range(2):
        source.ending.release()
    failed = await asyncio.gather(shared.get("broken"), shared.get("a"), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError, OSError]
    assert await shared.get("a") == 1


async def test_one_of_several_may_be_cancelled() -> None:
    source = Source()
    shared = SharedReads(source.read)
    one, other = (asyncio.create_task(shared.get("a")) for _ in range(2))
    await settled()
    one.cancel()
    await settled()
    assert one.cancelled()
    source.ending.release()
    assert await other == 1


async def test_the_end_waits_for_a_read_whose_request_was_cancelled() -> None:
    source = Source()
    shared = SharedReads(source.read)
    asking = asyncio.create_task(shared.get("broken"))
    await settled()
    asking.cancel()
    closing = asyncio.create_task(shared.close())
    await settled()
    assert not closing.done()
    source.ending.release()
    await closing
    await shared.close()
