"""A gate whose snapshot is on a full or read-only disk. Runs in namespaces of its own."""

import asyncio
import errno
import sys
from pathlib import Path

from gatekeeper.testing import FakeHub
from tests.support.guarded import Guarded, guarded
from tests.support.namespaces import mount, raise_loopback
from tests.support.rows import row

PATIENCE = 15.0


async def main(fault: str, directory: Path) -> None:
    """Write a snapshot, break the disk, check what is left, repair the disk."""
    disk = directory / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k", "none", disk)
    path, filler = disk / "keys.snapshot", disk / "filler"
    with FakeHub() as hub:
        hub.lists(row(1), row(2))
        async with guarded(hub, snapshot_path=path) as it:
            before = await written(path, b"")
            if fault == "full":
                fill(filler)
            else:
                mount("-o", "remount,ro", disk)
            hub.lists(*(row(number, name="n" * 500) for number in range(1, 300)))
            await it.refresh()
            await settle(it)
            assert it.allows(1, 2, 299)
            assert (it.status.state, it.status.last_error) == ("fresh", None)
            assert path.read_bytes() == before
            assert {other.name for other in disk.iterdir() if other.suffix != ".lock"} <= {path.name, filler.name}
            if fault == "full":
                filler.unlink()
            else:
                mount("-o", "remount,rw", disk)
            hub.lists(row(1), row(2), row(3))
            for _ in range(3):
                await it.refresh()
            it.time.now += 70
            await it.refresh()
            await written(path, before)
    print("well")  # noqa: T201 - the test reads it


async def written(path: Path, before: bytes) -> bytes:
    """Wait for a snapshot that differs from `before`."""
    async with asyncio.timeout(PATIENCE):
        while not path.exists() or path.read_bytes() == before:  # noqa: ASYNC110, ASYNC240 - nothing signals it; a small disk in memory
            await asyncio.sleep(0.01)
    return path.read_bytes()  # noqa: ASYNC240 - as above


async def settle(it: Guarded) -> None:
    """Give the gate time to write, by its clock and by the real one."""
    await asyncio.sleep(0.5)
    await it.time.advance(5)
    await asyncio.sleep(0.5)


def fill(filler: Path) -> None:
    """Fill the disk."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - not a test


if __name__ == "__main__":
    raise_loopback()
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
