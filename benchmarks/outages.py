"""The outages of `benchmarks.freshness`: a simulated day, and a soak."""

import asyncio
import logging
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from benchmarks import fake_hub, keys, script, servers, wire
from benchmarks.script import Figures
from gatekeeper import Gatekeeper, HubSource, Reason

__all__ = ("SimulatedTime", "day", "soak")

STEP = 0.0005  # real seconds per step of the clock, so that real IO can make progress
PATIENCE = 600.0  # real seconds before giving up
SOAKED_KEYS = 1000
TROUBLES: tuple[fake_hub.Mode, ...] = ("down", "error", "garbage", "silent")
WELL, TROUBLED = (1.0, 6.0), (0.5, 4.0)  # seconds in each state, from and to
SHOWN = 30  # samples of the memory that are kept
SOAK_INTERVAL = 1.0  # seconds between two polls, so that a soak has many


class SimulatedTime:
    """A clock that jumps to the next deadline of its sleepers.

    Args:
        on_step: a function that is called after each step.
    """

    def __init__(self, on_step: Callable[[], None]) -> None:
        self.now = 1000.0
        self._on_step = on_step
        self._deadlines: list[float] = []

    def clock(self) -> float:
        """Return the simulated time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Sleep for simulated seconds."""
        deadline = self.now + seconds
        self._deadlines.append(deadline)
        try:
            while self.now < deadline:
                await asyncio.sleep(STEP)
                self.now = max(self.now, min(self._deadlines))
                self._on_step()
        finally:
            self._deadlines.remove(deadline)


async def day(there: fake_hub.Hub, seconds: float) -> Figures:
    """Take the hub down for a number of simulated seconds.

    Returns:
        The wrong decisions, the growth of memory, and the time until the list was fresh again.
    """
    due = {
        (keys.client_key(0), keys.origin(0)): Reason.ALLOWED,
        (keys.client_key(0), "https://shop.evil.example"): Reason.ORIGIN_NOT_ALLOWED,
        (keys.client_key(9), keys.origin(9)): Reason.KEY_DISABLED,
        (keys.client_key(70_000_000), keys.origin(0)): Reason.KEY_UNKNOWN,
    }
    decisions = wrong = 0
    waits: list[float] = []

    def check() -> None:
        nonlocal decisions, wrong
        for (key, origin), reason in due.items():
            begun = time.perf_counter_ns()
            decided = gate.decide(key, origin).reason
            waits.append((time.perf_counter_ns() - begun) / 1000)
            decisions += 1
            wrong += decided is not reason

    logging.getLogger("gatekeeper").setLevel(logging.ERROR)  # the outage is intended
    simulated = SimulatedTime(check)
    gate = Gatekeeper(HubSource(there.url, keys.TOKEN), clock=simulated.clock, sleep=simulated.sleep)
    async with gate:
        await _until(lambda: gate.status.counters.get("refresh_unchanged", 0) > 1, "the hub is asked again")
        calm = script.percentiles(waits)
        waits.clear()
        memory = script.memory()
        there.become("down")
        went = simulated.now
        await _until(lambda: simulated.now - went >= seconds, f"{seconds:g} simulated seconds pass")
        state, age = gate.status.state, gate.status.age
        grown = script.memory() - memory
        failures = gate.status.counters["refresh_failed"]
        there.become("well")
        back = simulated.now
        await _until(lambda: gate.status.state == "fresh", "the list is fresh again")
        fresh_after = simulated.now - back
        await gate.refresh()
    if state != "degraded" or age is None or age < seconds:
        raise SystemExit(f"after {seconds:g} s without the hub the list is {state}, {age} s old")
    return {
        "simulated_s": seconds,
        "failed_refreshes": failures,
        "decisions": decisions,
        "wrong_decisions": wrong,
        "decision_p99_us_before": calm["p99"],
        "decision_p99_us_meanwhile": script.percentiles(waits)["p99"],
        "memory_growth_bytes": grown,
        "fresh_again_after_s": fresh_after,
    }


async def _until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"within {PATIENCE:g} s this did not happen: {what}")
        await asyncio.sleep(STEP)


def soak(rows: Path, count: int, seconds: int) -> Figures:
    """Load a worker for a number of seconds while the hub flaps.

    Returns:
        The number of requests, the wrong answers, and the memory over time.
    """
    served_on, loaded_from = script.processors()
    script.need("wrk", "wrk")
    with tempfile.TemporaryDirectory() as directory:
        other, tape = Path(directory) / "other", Path(directory) / "tape"
        keys.write_list(other, count, lambda number: number % 100 == 0, "changed.example.com")
        enabled = keys.enabled(min(count, SOAKED_KEYS))
        tape.write_text(
            "".join(f"GET\t{keys.client_key(each)}\t{keys.origin(each)}\n" for each in enabled), encoding="ascii"
        )
        with fake_hub.running(rows, processor=loaded_from) as there:
            guarded = {"guard": "gatekeeper", "hub": there.url, "interval": SOAK_INTERVAL}
            with servers.serve("uvicorn", guarded, processor=served_on) as served:
                over = threading.Event()
                flaps: list[fake_hub.Mode] = []
                sampled: list[tuple[float, int]] = []
                asked: list[bool] = []
                threads = [
                    threading.Thread(target=_flap, args=(there, (rows, other), flaps, over)),
                    threading.Thread(target=_sample, args=(served.process, sampled, over)),
                    threading.Thread(target=lambda: asyncio.run(_ask(served.port, asked, over))),
                ]
                for thread in threads:
                    thread.start()
                load = servers.wrk(served.port, tape, seconds=seconds, connections=16, processor=loaded_from)
                over.set()
                for thread in threads:
                    thread.join()
    return {
        "seconds": seconds,
        "requests": load.requests + len(asked),
        "wrong_answers": round(load.refused * load.requests) + load.errors + asked.count(False),
        "troubles_of_the_hub": len(flaps),
        "p99_ms": load.p99_ms,
        "memory_bytes_at_first": sampled[0][1],
        "memory_bytes_at_last": sampled[-1][1],
        "memory_slope_bytes_per_hour": _slope(sampled) * 3600,
        "memory_bytes": [size for _, size in sampled[:: max(1, len(sampled) // SHOWN)]],
    }


def _slope(sampled: list[tuple[float, int]]) -> float:
    """The slope of the second half, in bytes per second."""
    # A line through the minimum of each twentieth, because a refresh allocates memory and frees it again.
    part = max(1, len(sampled) // 20)
    parts = [sampled[first : first + part] for first in range(len(sampled) // 2, len(sampled), part)]
    least = [min(each, key=lambda sample: sample[1]) for each in parts]
    return statistics.linear_regression(*zip(*least, strict=True)).slope if len(least) > 1 else 0.0


def _flap(there: fake_hub.Hub, lists: tuple[Path, Path], flaps: list[fake_hub.Mode], over: threading.Event) -> None:
    """Alternate between one of the lists and a random kind of trouble."""
    dice = random.Random(1)
    while not over.is_set():
        there.become("well")
        there.serve(dice.choice(lists), etag=dice.choice((True, False)))
        over.wait(dice.uniform(*WELL))
        flaps.append(dice.choice(TROUBLES))
        there.become(flaps[-1])
        over.wait(dice.uniform(*TROUBLED))


def _sample(process: int, sampled: list[tuple[float, int]], over: threading.Event) -> None:
    begun = time.monotonic()
    while not over.is_set():
        sampled.append((time.monotonic() - begun, script.memory(process)))
        over.wait(1.0)


async def _ask(port: int, asked: list[bool], over: threading.Event) -> None:
    due = (
        (keys.client_key(0), keys.origin(0), HTTPStatus.OK),
        (keys.client_key(0), "https://shop.evil.example", HTTPStatus.FORBIDDEN),
        (keys.client_key(9), keys.origin(9), HTTPStatus.FORBIDDEN),
        (keys.client_key(70_000_000), keys.origin(0), HTTPStatus.FORBIDDEN),
        ("sk_live_of_another_kind", keys.origin(0), HTTPStatus.BAD_REQUEST),
    )
    async with wire.Connection(port) as connection:
        while not over.is_set():
            for key, origin, status in due:
                asked.append((await connection.ask(wire.request(key.encode(), origin.encode()))).status == status)
            await asyncio.sleep(0.01)
