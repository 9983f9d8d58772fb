"""Spools: bytes in memory and in a file, and full disks."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.spools import PIECE, Spool, Spools

pytestmark = pytest.mark.anyio


def full_disk() -> BinaryIO:
    """A file on a full disk."""
    return Path("/dev/full").open("r+b", buffering=0)


async def read_all(spool: Spool) -> bytes:
    """Read a spool from its beginning."""
    content = b""
    while chunk := await spool.read(len(content)):
        assert len(chunk) <= PIECE
        content += chunk
    return content


@settings(max_examples=30, deadline=None)  # each example has threads
@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 60))
def test_what_is_read_is_what_was_written(chunks: list[bytes], in_memory: int) -> None:
    async def run() -> None:
        spool = Spools(in_memory=in_memory).new("acme")
        written = b""
        for chunk in chunks:
            await spool.append(chunk)
            written += chunk
            assert spool.length == len(written)
            assert spool.in_file is (spool.length > in_memory)
            for start in (0, len(written) // 2, len(written)):
                assert await spool.read(start) == written[start:]
        spool.close()

    anyio.run(run)


async def test_a_large_body_is_read_in_pieces() -> None:
    content = os.urandom(PIECE * 2 + 5)
    for in_memory in (0, len(content)):
        spool = Spools(in_memory=in_memory).new("acme")
        await spool.append(content)
        assert await read_all(spool) == content
        spool.close()


async def test_readers_at_the_same_place_share_one_read() -> None:
    spool = Spools(in_memory=0).new("acme")
    await spool.append(b"abc")
    first, second = [await spool.read(0) for _ in range(2)]
    assert first == b"abc"
    assert first is second
    await spool.append(b"def")
    assert await spool.read(0) == b"abcdef"
    spool.close()


async def test_many_readers_read_at_their_own_pace_while_it_is_written() -> None:
    content = os.urandom(100_000)
    spool = Spools(in_memory=10_000).new("acme")
    received: list[bytes] = []

    async def read(step: int) -> None:
        seen = b""
        while len(seen) < len(content):
            chunk = await spool.read(len(seen))
            seen += chunk[:step]
            await anyio.lowlevel.checkpoint()
        received.append(seen)

    async with anyio.create_task_group() as readers:
        for step in (5_000, 50_000, 100_000):
            readers.start_soon(read, step)
        for start in range(0, len(content), 7_000):
            await spool.append(content[start : start + 7_000])
    spool.close()
    assert received == [content] * 3


async def test_a_full_disk_is_an_overload_that_names_the_directory() -> None:
    spool = Spools(in_memory=5, open_file=full_disk).new("acme")
    await spool.append(b"12345")
    with pytest.raises(HubOverloaded, match=rf"cannot be written to {tempfile.gettempdir()}, .*No space left on device"):
        await spool.append(b"6")
    assert (spool.length, spool.in_file) == (5, False)
    assert await spool.read(0) == b"12345"
    spool.close()


async def test_the_files_of_an_account_are_bounded_and_given_back() -> None:
    spools = Spools(in_memory=2, most=100)
    first, second = spools.new("acme"), spools.new("acme")
    await first.append(bytes(40))
    with pytest.raises(HubOverloaded, match="lists of the account acme"):
        await second.append(bytes(11))
    await second.append(bytes(10))
    other = spools.new("globex")
    await other.append(bytes(25))
    first.close()
    await second.append(bytes(20))
    second.close()
    other.close()
    assert spools.shares.take("acme", 50)


async def test_what_stays_in_memory_is_not_charged() -> None:
    spools = Spools(in_memory=100, most=0)
    spool = spools.new("acme")
    await spool.append(bytes(100))
    assert await spool.read(0) == bytes(100)
    spool.close()
