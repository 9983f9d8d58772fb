"""The cost of hostile floods, also for valid traffic.

    python -m benchmarks.floods [--requests 1000000] [--rounds 5] [--seconds 4] [--json FILE] [--quick]

The floods consist of unknown keys, foreign origins, allowed subdomains, or malformed keys of 8 KB.

Memory: each flood runs in a process of its own, with a hub in another. Its requests, all different, go through the guard in
process. Memory is the growth of the process during the flood, the time of a request is processor time, and the hub's
requests are those that the flood caused. The alternative is a dict of the hub's answers in front of the hub. It gets a
hundredth of the requests, because it is that much slower.

Valid traffic: uvicorn serves the guarded app. In each round, valid requests are sent at a steady rate, once beside as many
other valid requests as a flood has, then beside each flood. The figure is the p99 of their latencies.
"""

import asyncio
import gc
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks import fake_hub, keys, script, servers, wire
from benchmarks.asgi import answer, get, receive, send, widget_app
from benchmarks.script import Figures, parameter
from gatekeeper import Gatekeeper, GatekeeperMiddleware, HubSource

VALID = 100  # keys of valid requests, in rotation
CALM = "other valid requests"
CONNECTIONS = 10  # of valid traffic, and as many of the flood
BREATH = 50  # requests in process before a yield to the event loop
WINDOW = 5.0  # seconds in which the hub may get one request
FEWER = 100  # times fewer requests for the contender that asks the hub each time
KEYS = 1000
MONSTROUS = b"x" * 8192
LET_IN = (CALM, "subdomains that a key allows")
CONTENDERS = ("gatekeeper", "dict in front of the hub")


@dataclass(frozen=True)
class Parameters:
    requests: int = parameter(1_000_000, 20_000, "requests of a flood in process, all different")
    contenders: tuple[str, ...] = parameter(CONTENDERS, CONTENDERS, "contenders in process")
    rounds: int = parameter(5, 1, "rounds of valid traffic, each with every flood")
    seconds: float = parameter(4.0, 0.5, "seconds of a flood in a round")
    valid_per_s: int = parameter(1_000, 1_000, "timed valid requests per second")
    flood_per_s: int = parameter(2_000, 2_000, "requests of a flood per second beside them")


def _unknown(number: int) -> dict[str, bytes]:
    return {"key": keys.client_key(1_000_000 + number).encode(), "origin": keys.origin(0).encode()}


def _origins(number: int) -> dict[str, bytes]:
    return {"key": keys.client_key(0).encode(), "origin": b"https://shop-%d.evil.example" % number}


def _subdomains(number: int) -> dict[str, bytes]:
    host = keys.origin(1).removeprefix("https://")
    return {"key": keys.client_key(1).encode(), "origin": f"https://p{number}.{host}".encode()}


def _monstrous(number: int) -> dict[str, bytes]:
    return {"key": b"pk_live_acme_%08d%b" % (number, MONSTROUS), "origin": keys.origin(0).encode()}


FLOODS: dict[str, Callable[[int], dict[str, bytes]]] = {
    "unknown keys": _unknown,
    "origins on a valid key": _origins,
    "subdomains that a key allows": _subdomains,
    "malformed keys of 8 KB": _monstrous,
}


class Remembering:
    """An alternative guard that remembers the hub's rows and its own decisions."""

    def __init__(self, app: ASGIApp, url: str) -> None:
        self.app = app
        self.rows: dict[bytes, Any] = {}
        self.decisions: dict[tuple[bytes, bytes], bool] = {}
        self.client = httpx.AsyncClient(base_url=url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        key, origin = headers[b"data-client-key"], headers[b"origin"]
        if key not in self.rows:
            self.rows[key] = (await self.client.get(f"/lookup/{key[-8:].decode()}")).json()
        if (key, origin) not in self.decisions:
            host = origin.decode().partition("://")[2]
            row = self.rows[key]
            self.decisions[key, origin] = bool(row and not row["disabled_at"] and host in row["domain_allowlist"])
        if self.decisions[key, origin]:
            await self.app(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def measure(parameters: Parameters) -> Figures:
    """The cost of floods by contender, and the p99 of valid traffic."""
    kept_on, rest_on = script.processors()
    figures: Figures = {"floods": {}}
    with tempfile.TemporaryDirectory() as directory:
        rows = Path(directory) / "rows"
        keys.write_list(rows, KEYS)
        for flood in FLOODS:
            by_contender = figures["floods"][flood] = {}
            for contender in parameters.contenders:
                requests = parameters.requests if contender == "gatekeeper" else parameters.requests // FEWER
                with fake_hub.running(rows, processor=rest_on) as there:
                    task = {"flood": flood, "contender": contender, "requests": requests, "ports": there.ports}
                    by_contender[contender] = script.in_process("floods", task, kept_on)
        with fake_hub.running(rows, processor=rest_on) as there:
            guarded = {"guard": "gatekeeper", "hub": there.url}
            with servers.serve("uvicorn", guarded, processor=kept_on) as served:
                figures["valid"] = asyncio.run(_latencies(parameters, served.port))
    return figures


async def process(flood: str, contender: str, requests: int, ports: tuple[int, int]) -> Figures:
    """Flood a contender in this process, and measure the cost."""
    there = fake_hub.Hub(*ports)
    app = widget_app().build_middleware_stack()
    async with AsyncExitStack() as stack:
        stack.callback(there.close)
        guarded: ASGIApp
        if contender == "gatekeeper":
            gate = await stack.enter_async_context(Gatekeeper(HubSource(there.url, keys.TOKEN), refresh_interval=3600.0))
            guarded = GatekeeperMiddleware(app, gate)
        else:
            guarded = Remembering(app, there.url)
        hostile = FLOODS[flood]
        for number in keys.enabled(KEYS)[:VALID]:
            await guarded(_valid(number), receive, send)
        status, _ = await answer(guarded, get(**hostile(requests)))
        if contender == "gatekeeper" and (status < httpx.codes.BAD_REQUEST) != (flood in LET_IN):
            raise SystemExit(f"{contender} answers a request of {flood} with {status}")
        gc.collect()
        memory, looked_up = script.memory(), there.looked_up()
        begun, worked = time.monotonic(), time.process_time()
        for number in range(requests):
            await guarded(get(**hostile(number)), receive, send)
            if number % BREATH == 0:
                await asyncio.sleep(0)
        worked = time.process_time() - worked
        gc.collect()
        asked = [moment for moment in there.asked() if moment >= begun]
        return {
            "requests": requests,
            "us_per_request": worked / requests * 1e6,
            "growth_bytes": script.memory() - memory,
            "hub_requests": len(asked) + there.looked_up() - looked_up,
            "most_lists_in_5_s": _most_within(WINDOW, asked),
        }


async def _latencies(parameters: Parameters, port: int) -> Figures:
    seen: dict[str, list[float]] = {CALM: [], **{flood: [] for flood in FLOODS}}
    numbers = itertools.count()
    for flood in script.interleaved(seen, parameters.rounds):
        taken: list[float] = []
        until = time.perf_counter() + parameters.seconds
        async with anyio.create_task_group() as group:
            for _ in range(CONNECTIONS):
                group.start_soon(_pace, port, CALM, parameters.valid_per_s, numbers, until, taken)
                group.start_soon(_pace, port, flood, parameters.flood_per_s, numbers, until, [])
        seen[flood].append(script.percentiles(taken)["p99"])
    ratios = {
        flood: statistics.median(p99 / calm for p99, calm in zip(seen[flood], seen[CALM], strict=True)) for flood in FLOODS
    }
    return {name: {"p99_ms": script.spread(each), "of_calm": ratios.get(name, 1.0)} for name, each in seen.items()}


async def _pace(port: int, flood: str, per_s: int, numbers: Iterator[int], until: float, taken: list[float]) -> None:
    """Send a connection's share of the requests at a steady rate."""
    step = CONNECTIONS / per_s
    due = time.perf_counter() + random.random() * step
    async with wire.Connection(port) as connection:
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            number = next(numbers)
            sent = wire.request(**(_valid_request(number) if flood == CALM else FLOODS[flood](number)))
            begun = time.perf_counter()
            status = (await connection.ask(sent)).status
            taken.append((time.perf_counter() - begun) * 1000)
            if (status < httpx.codes.BAD_REQUEST) != (flood in LET_IN):
                raise SystemExit(f"a request of {flood} was answered with {status}")
            due += step


def _valid_request(number: int) -> dict[str, bytes]:
    chosen = number % VALID
    chosen += chosen % 10 == 9  # noqa: PLR2004 - the last of ten keys is disabled
    return {"key": keys.client_key(chosen).encode(), "origin": keys.origin(chosen).encode()}


def _valid(number: int) -> Scope:
    return get(**_valid_request(number))


def _most_within(window: float, moments: list[float]) -> int:
    return max((sum(first <= moment < first + window for moment in moments) for first in moments), default=0)


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables of the figures."""
    yield script.table(
        "floods, in process",
        ("flood", "", "requests", "µs each", "memory KB", "hub requests", "lists in 5 s"),
        [
            (
                flood,
                contender,
                f"{each['requests']:,}",
                f"{each['us_per_request']:.1f}",
                f"{each['growth_bytes'] / 1024:+,.0f}",
                f"{each['hub_requests']:,}",
                f"{each['most_lists_in_5_s']}",
            )
            for flood, by_contender in figures["floods"].items()
            for contender, each in by_contender.items()
        ],
    )
    yield script.table(
        "valid traffic meanwhile, behind uvicorn",
        ("beside it", "p99 ms (quartiles)", "x calm"),
        [
            (flood, "{median:.2f} ({quartile_1:.2f}-{quartile_3:.2f})".format(**each["p99_ms"]), f"{each['of_calm']:.2f}")
            for flood, each in figures["valid"].items()
        ],
    )


if __name__ == "__main__":
    script.run(Parameters, measure, tables, process=process)
