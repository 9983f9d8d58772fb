"""The processor time of a gate for applying a delta of one row, without HTTP, in a process of its own.

`python -m benchmarks.live.applying` obeys `measure`.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from benchmarks import keys, script
from benchmarks.live.companions import companion
from benchmarks.obeying import obey
from benchmarks.script import Figures
from gatekeeper import Basis, Delta, FullList, Gatekeeper, Listing, Unchanged, Updates

__all__ = ("measure_applying",)

SLICE = 1000  # rows that arrive at once
LONG = 3600.0  # seconds; nothing happens by itself


def measure_applying(count: int, deltas: int) -> Figures:
    """Apply deltas to an index.

    Args:
        count: the keys in it.
        deltas: the number of deltas.
    """
    with companion("live.applying") as gate:
        return gate.say(measure={"count": count, "deltas": deltas})


class _Source:
    """A list, and then a change of one row whenever it is asked."""

    def __init__(self, count: int) -> None:
        self.account = keys.ACCOUNT
        self.suffix_field = "last8"
        self.fingerprint = "benchmark"
        self._count = count
        self._changes = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        yield self._update

    @asynccontextmanager
    async def _update(self, basis: Basis) -> AsyncIterator[FullList | Unchanged | Delta]:
        if basis.validator is None:
            yield FullList(Listing(self._rows(), "0"))
            return
        self._changes += 1
        row = keys.row(self._changes * 7 % self._count) | {"name": f"change {self._changes}"}
        yield Delta(Listing.whole(msgspec.json.encode([row]), str(self._changes)), basis.validator)

    async def _rows(self) -> AsyncIterator[bytes]:
        before = b"["
        for first in range(0, self._count, SLICE):
            rows = msgspec.json.encode([keys.row(number) for number in range(first, min(first + SLICE, self._count))])
            yield before + rows[1:-1]
            before = b","
        yield b"]"


async def _measure(count: int, deltas: int) -> Figures:
    gate = Gatekeeper(_Source(count), refresh_interval=LONG, fetch_timeout=LONG, start_timeout=LONG)
    taken = []
    async with gate:
        gc.collect()
        for _ in range(deltas):
            begun = time.process_time()
            report = await gate.refresh()
            taken.append((time.process_time() - begun) * 1000)
            if report.changed != 1:
                raise SystemExit(f"a delta of one row changed {report.changed}: {report.error}")
    return {
        f"gate's processor time for applying it, {name} (ms)": value for name, value in script.percentiles(taken).items()
    }


async def _answer(command: Figures) -> Figures:
    return await _measure(**command["measure"])


if __name__ == "__main__":
    asyncio.run(obey(_answer))
