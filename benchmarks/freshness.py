"""The time from a revocation to its refusal, and decisions during outages.

    python -m benchmarks.freshness [--trials 200] [--window 120] [--soak 600] [--json FILE] [--quick]

Revocations: uvicorn serves the guarded app with several workers, each of which polls the hub at the default interval (10 s
± 20 %). Keys are revoked at random times within a window, and each worker gets a request with each revoked key every 50 ms
until it refuses. The time is from the change of the row at the hub to the arrival of the refusal. Keys that were already
refused and keys that were not revoked are requested as well, and an unexpected answer is a wrong decision.

A day without the hub: the gate's clock and sleep are simulated, and a real port refuses its connections. At each step of the
clock, the gate decides on an allowed page, a foreign page, a disabled key and an unknown key. Then the hub comes back.

The soak: wrk loads one worker, beside a client that sends every kind of request. Meanwhile the hub's list changes, and the
hub is down, failing, silent, sending garbage or well at random. Each refresh allocates and frees memory, so the slope of the
memory is that of a line through the minimum of each twentieth in the second half. Needs wrk.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from benchmarks import fake_hub, keys, outages, script, servers, wire
from benchmarks.script import Figures, parameter

TICK = 0.05  # seconds between two requests with a revoked key
OVERDUE = 60.0  # seconds after which a revocation counts as missed


@dataclass(frozen=True)
class Parameters:
    trials: int = parameter(200, 10, "keys revoked")
    window: float = parameter(120.0, 2.0, "seconds in which they are revoked")
    workers: int = parameter(4, 2, "workers of uvicorn")
    interval: float = parameter(10.0, 1.0, "seconds between two polls of the hub")
    keys: int = parameter(10_000, 1_000, "keys of the account")
    day: float = parameter(86_340.0, 600.0, "simulated seconds without the hub, 0 for none; after 86,400 its list expires")
    soak: int = parameter(600, 3, "seconds of the soak, a whole number; 0 for none")


class Revocation:
    """A revoked key, and the time until each worker refused it."""

    def __init__(self, number: int) -> None:
        self.head = _request(number)
        self.last8 = keys.last8(number)
        self.at: float | None = None
        self.refused: dict[int, float] = {}


def measure(parameters: Parameters) -> Figures:
    """The times to refusal, the day without the hub and the soak."""
    _, rest_on = script.processors()
    with tempfile.TemporaryDirectory() as directory:
        rows = Path(directory) / "rows"
        keys.write_list(rows, parameters.keys)
        with fake_hub.running(rows) as there:
            guarded = {"guard": "gatekeeper", "hub": there.url, "stamped": True, "interval": parameters.interval}
            with servers.serve("uvicorn", guarded, workers=parameters.workers) as served:
                figures = asyncio.run(_revocations(parameters, there, served.port))
        if parameters.day:
            with fake_hub.running(rows, processor=rest_on) as there:
                figures["day"] = asyncio.run(outages.day(there, parameters.day))
        if parameters.soak:
            figures["soak"] = outages.soak(rows, parameters.keys, parameters.soak)
    return figures


async def _revocations(parameters: Parameters, there: fake_hub.Hub, port: int) -> Figures:
    dice = random.Random(1)
    chosen = dice.sample(keys.enabled(parameters.keys)[1:], parameters.trials)
    revocations = [Revocation(number) for number in chosen]

    async def revoke(revocation: Revocation) -> None:
        await asyncio.sleep(dice.random() * parameters.window)
        revocation.at = await asyncio.to_thread(there.disable, revocation.last8)

    async with wire.connected_to_workers(port, parameters.workers, _request(0)) as workers, asyncio.TaskGroup() as group:
        for revocation in revocations:
            group.create_task(revoke(revocation))
        watches = [group.create_task(_watch(worker, workers[worker], revocations)) for worker in workers]
    return {
        "by_a_worker_s": script.percentiles(taken for each in revocations for taken in each.refused.values()),
        "by_all_workers_s": script.percentiles(max(each.refused.values()) for each in revocations),
        "workers": len(workers),
        "revocations": len(revocations),
        "wrong_decisions": sum(watch.result() for watch in watches),
    }


async def _watch(worker: int, connection: wire.Connection, revocations: list[Revocation]) -> int:
    """Poll a worker until it refuses all revoked keys; count wrong decisions."""
    wrong = 0
    dice = random.Random(worker)
    while not all(worker in revocation.refused for revocation in revocations):
        for revocation in revocations:
            if worker not in revocation.refused and revocation.at is not None:
                status = (await connection.ask(revocation.head)).status
                taken = time.monotonic() - revocation.at
                if status == HTTPStatus.FORBIDDEN:
                    revocation.refused[worker] = taken
                elif status != HTTPStatus.OK or taken > OVERDUE:
                    raise SystemExit(f"a worker answers {status} for a key that was revoked {taken:.0f} s ago")
        refused = [revocation for revocation in revocations if worker in revocation.refused]
        if refused:
            wrong += (await connection.ask(dice.choice(refused).head)).status != HTTPStatus.FORBIDDEN
        wrong += (await connection.ask(_request(0))).status != HTTPStatus.OK
        await asyncio.sleep(TICK)
    return wrong


def _request(number: int) -> bytes:
    return wire.request(keys.client_key(number).encode(), keys.origin(number).encode())


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables of the figures."""
    yield script.table(
        f"time to refusal, {figures['revocations']} revocations, {figures['workers']} workers",
        ("", "p50 s", "p99 s", "max s"),
        [
            (said, *(f"{figures[name][which]:.2f}" for which in ("p50", "p99", "max")))
            for said, name in (("by a worker", "by_a_worker_s"), ("by all of them", "by_all_workers_s"))
        ],
    )
    rows = [(f"revocations: {_said('wrong_decisions')}", str(figures["wrong_decisions"]))]
    for part in ("day", "soak"):
        rows += [
            (f"{part}: {_said(name)}", f"{value:,.6g}")
            for name, value in figures.get(part, {}).items()
            if name != "memory_bytes"
        ]
    yield script.table("while the hub is down, or flaps", ("", ""), rows)


def _said(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    script.run(Parameters, measure, tables)
