"""The cost of a guard behind a real server: requests/s and latencies.

    python -m benchmarks.load [--servers uvicorn,granian,hypercorn] [--rounds 5] [--seconds 3] [--json FILE] [--quick]

One worker of the server is pinned to one processor; wrk, Redis and the hub to another. Each round restarts the servers,
because two processes with the same code may differ by some percent, and loads each guard once, in changing order.
"allowed" has one key and one page. The mixes have many keys, chosen by Zipf's law (1/rank), with foreign origins, unknown
keys and preflights. CORSMiddleware knows no keys: it has one regex for all origins of customers, and passes other origins to
the app all the same. The floor is the minimum of any guard and decides nothing (benchmarks/README.md). "Redis GET" and "hub
by httpx" fetch the row of the key for each request, over loopback. The processor time of the server per request is less
affected by other programs than requests/s. Needs wrk and redis-server.
"""

import itertools
import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from benchmarks import fake_hub, keys, script, servers
from benchmarks.script import Figures, parameter
from benchmarks.served import GUARDS
from benchmarks.servers import SERVERS, Load, Served

WARM_UP = 2  # seconds, enough to play a tape to its end
FOREIGN = "https://shop.evil.example"
MOST_REFUSED_AMISS = 0.02  # difference of shares; a tape may stop at any point


@dataclass(frozen=True)
class Parameters:
    servers: tuple[str, ...] = parameter(tuple(SERVERS), ("uvicorn",), "servers")
    guards: tuple[str, ...] = parameter(GUARDS, GUARDS, "guards")
    rounds: int = parameter(5, 2, "rounds; each loads every guard once")
    seconds: int = parameter(3, 1, "seconds per guard in a round, a whole number")
    connections: int = parameter(32, 32, "connections of wrk")
    mixes: tuple[int, ...] = parameter((1_000, 100_000), (1_000,), "numbers of keys of the mixes")
    foreign: float = parameter(0.05, 0.05, "share of foreign origins in a mix")
    unknown: float = parameter(0.01, 0.01, "share of unknown keys in a mix")
    preflights: float = parameter(0.10, 0.10, "share of preflights in a mix")
    tape: int = parameter(20_000, 2_000, "requests of a mix, played in a loop")


def measure(parameters: Parameters) -> Figures:
    """The requests/s and latencies by server, workload and guard."""
    script.need("wrk", "wrk")
    served_on, loaded_from = script.processors()
    figures: Figures = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(servers.redis(loaded_from)) if "Redis GET" in parameters.guards else 0
        workloads = {"allowed": 1_000} | {f"mix of {count:,} keys": count for count in parameters.mixes}
        for workload, count in workloads.items():
            rows, tape = directory / "rows", directory / "tape"
            keys.write_list(rows, count)
            mixed = workload != "allowed"
            tape.write_text("".join(_mix(parameters, count)) if mixed else _line("GET", 0), encoding="ascii")
            if redis:
                _fill(redis, rows)
            with fake_hub.running(rows, processor=loaded_from) as there:
                cors = r"https://shop-\d+\.example\.com" if mixed else keys.origin(0)
                options = {"hub": there.url, "redis": redis, "cors": cors}
                for server in parameters.servers:
                    seen = _load(parameters, server, options, tape, (served_on, loaded_from))
                    figures.setdefault(server, {})[workload] = _figures(parameters, seen, mixed=mixed)
    return figures


class Seen(NamedTuple):
    """The load of a guard, and the server's microseconds per request."""

    load: Load
    server_us: float


def _load(parameters: Parameters, server: str, options: Figures, tape: Path, on: tuple[int, int]) -> dict[str, list[Seen]]:
    seen: dict[str, list[Seen]] = {guard: [] for guard in parameters.guards}

    def played(served: Served, seconds: int) -> Load:
        return servers.wrk(served.port, tape, seconds=seconds, connections=parameters.connections, processor=on[1])

    for number in range(parameters.rounds):
        with ExitStack() as stack:
            running = {
                guard: stack.enter_context(servers.serve(server, {"guard": guard, **options}, processor=on[0]))
                for guard in parameters.guards
            }
            for served in running.values():  # open connections and fill memos before measuring
                played(served, WARM_UP)
            for guard in script.interleaved(running, 1, seed=number):
                before = script.processor_time(running[guard].process)
                load = played(running[guard], parameters.seconds)
                taken = script.processor_time(running[guard].process) - before
                seen[guard].append(Seen(load, taken / max(load.requests, 1) * 1e6))
    return seen


def _figures(parameters: Parameters, seen: dict[str, list[Seen]], *, mixed: bool) -> Figures:
    figures: Figures = {}
    for guard, rounds in seen.items():
        loads = [each.load for each in rounds]
        due = parameters.foreign + parameters.unknown if mixed else 0.0
        refused = statistics.mean(load.refused for load in loads)
        if any(load.errors for load in loads) or (guard == "gatekeeper" and abs(refused - due) > MOST_REFUSED_AMISS):
            raise SystemExit(f"{guard} refuses {refused:.1%}, expected {due:.1%}, or has errors: {loads}")
        figures[guard] = {
            name: script.spread([getattr(load, name) for load in loads])
            for name in ("requests_per_s", "p50_ms", "p99_ms", "p999_ms", "refused")
        }
        figures[guard]["server_us"] = script.spread([each.server_us for each in rounds])
        for beside, said in (("bare", "bare"), ("CORSMiddleware", "cors")):
            if beside in seen:
                others = seen[beside]
                figures[guard][f"of_{said}"] = _ratio(loads, [each.load for each in others])
                figures[guard][f"server_us_of_{said}"] = statistics.median(
                    each.server_us / other.server_us for each, other in zip(rounds, others, strict=True)
                )
    return figures


def _ratio(loads: list[Load], others: list[Load]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(load.requests_per_s / other.requests_per_s for load, other in zip(loads, others, strict=True))


def _mix(parameters: Parameters, count: int) -> Iterator[str]:
    dice = random.Random(1)
    by_rank = keys.enabled(count)
    dice.shuffle(by_rank)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(by_rank) + 1)))
    preflight, foreign, unknown = parameters.preflights, parameters.foreign, parameters.unknown
    kinds = dice.choices(
        ("preflight", "foreign", "unknown", "allowed"),
        (preflight, foreign, unknown, 1 - preflight - foreign - unknown),
        k=parameters.tape,
    )
    for number, kind in zip(dice.choices(by_rank, cum_weights=weights, k=parameters.tape), kinds, strict=True):
        if kind == "preflight":
            yield _line("OPTIONS", number)
        elif kind == "foreign":
            yield f"GET\t{keys.client_key(number)}\t{FOREIGN}\n"
        else:
            yield _line("GET", number + 50_000_000 * (kind == "unknown"))


def _line(method: str, number: int) -> str:
    return f"{method}\t{keys.client_key(number)}\t{keys.origin(number)}\n"


def _fill(port: int, rows: Path) -> None:
    with Redis(port=port) as client:
        pipeline = client.pipeline(transaction=False)
        for row in json.loads(rows.read_bytes()):
            pipeline.set(row["last8"], json.dumps(row))
        pipeline.execute()


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables of the figures."""
    for server, by_workload in figures.items():
        for workload, by_guard in by_workload.items():
            yield script.table(
                f"{server}, {workload}",
                ("", "requests/s (quartiles)", "x bare", "x CORS", "server µs", "p50 ms", "p99 ms", "p99.9 ms", "refused"),
                [(guard, *_cells(figure)) for guard, figure in by_guard.items()],
            )


def _cells(figure: Figures) -> Iterator[str]:
    rate = figure["requests_per_s"]
    yield f"{rate['median']:,.0f} ({rate['quartile_1']:,.0f}-{rate['quartile_3']:,.0f})"
    yield from (f"{figure[ratio]:.2f}" if ratio in figure else "-" for ratio in ("of_bare", "of_cors"))
    yield f"{figure['server_us']['median']:.1f}"
    yield from (f"{figure[name]['median']:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms"))
    yield f"{figure['refused']['median']:.1%}"


if __name__ == "__main__":
    script.run(Parameters, measure, tables)
