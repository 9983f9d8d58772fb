"""The time that a guard adds to a request, in process.

    python -m benchmarks.overhead [--rounds 30] [--requests 2000] [--keys 1000,100000,1000000] [--json FILE] [--quick]

It compares gatekeeper with a floor for any guard and with CORS middlewares. Each round runs each contender once, in changing
order. Requests have the 15 headers of a Chromium fetch and new bytes, as from a server. The time of a contender in a round
is the median over batches, so that preemption does not count. Its added time is the median over the rounds of that time less
the time of the bare app, for the same requests in the same round. Ratios are those of the medians. The app is Starlette's,
with one route and a small JSON answer; the comparisons by keys and entries use an app that takes almost no time. The gate
reads its keys from a file and is kept fresh, as in production, but its clock stands still, so it fetches nothing meanwhile.
"""

import asyncio
import gc
import json
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import contenders, keys, script
from benchmarks.asgi import BATCH, answer, get, mere_app, receive, send
from benchmarks.contenders import KINDS, MANY, ORIGIN, Contender, Name
from benchmarks.script import Figures, parameter
from gatekeeper import Decision, FileSource, Gatekeeper, GatekeeperMiddleware, Reason
from gatekeeper.gate.page import read_page
from gatekeeper.index.key_index import MAX_COMPILED
from tests.support.cases import ROWS

WILD = keys.client_key(2_000_003)  # a key that allows many pages
SMALL = 1000  # keys of the account, except in the comparison by the number of keys
KNOWN = MAX_COMPILED // 2  # keys of first sights; all are still known when another page uses them

# What a query of 65 KB repeats. Goal: at most 4 ms until it is decided, whatever its shape.
LONG = 65_536
LONG_QUERIES = {
    "separators": b"&",
    "percent signs": b"%=%&",
    "the beginning of the key's name": b"client_ke&",
    "the same, encoded": b"%63%6c%69%65%6e%74%5f%6b%65&",
    "one key": b"client_key=k&",
    "one key, encoded": b"client_key=%6b&",
    "one long value, encoded": b"client_key=" + b"%41" * (LONG // 3),
}

Taken = dict[Name, list[float]]  # nanoseconds per request in each round, by kind and contender


@dataclass(frozen=True)
class Parameters:
    rounds: int = parameter(30, 5, "rounds; each runs every contender once")
    requests: int = parameter(2000, 500, "requests per contender in a round")
    keys: tuple[int, ...] = parameter((1_000, 100_000, 1_000_000), (1_000, 10_000), "numbers of keys to compare")
    entries: tuple[int, ...] = parameter((1, 100), (1, 100), "numbers of entries of a key to compare")
    cors_origins: int = parameter(10_000, 1_000, "origins in CORSMiddleware's list; the request's own is the last")


def standing_clock() -> float:
    """A clock that stands still, but costs as much as any.

    Without progress of time, the budget of fetches for unknown keys is not refilled.
    """
    time.monotonic()
    return 1000.0


async def gates_of(parameters: Parameters, directory: Path, stack: AsyncExitStack) -> dict[str, dict[Any, Gatekeeper]]:
    """Start a gate for each number of keys or entries and state."""

    async def started(rows: Path, **options: Any) -> Gatekeeper:
        gate = Gatekeeper(
            FileSource(rows, account=keys.ACCOUNT),
            refresh_interval=86_000.0,
            fetch_timeout=600.0,
            grant_secrets=["0123456789abcdef"],
            **{"start_timeout": 600.0, "clock": standing_clock, **options},
        )
        return await stack.enter_async_context(gate)

    def written(name: str, rows: list[dict[str, Any]]) -> Path:
        path = directory / name
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    wild = keys.row(2_000_003) | {"domain_allowlist": ["*.wild.example"], "disabled_at": None}
    ready = await started(written("ready", [*map(keys.row, range(SMALL)), *ROWS, wild]))
    for number in range(4):  # use up the fetches for unknown keys
        await ready.check(keys.client_key(90_000_000 + number), ORIGIN)
    states = {
        "ready": ready,
        "expired": await started(directory / "ready", hard_stale=0.001, clock=time.monotonic),
        "not_ready": await started(directory / "absent", start_timeout=0.0),
    }
    by_keys = {}
    for size in parameters.keys:
        keys.write_list(directory / f"{size}", size)
        by_keys[size] = await started(directory / f"{size}")
        (directory / f"{size}").unlink()
    by_entries = {}
    for count in parameters.entries:
        allowlist = [f"*.h{number}.example.com" for number in range(count - 1)] + [f"last.example.com:{count}"]
        row = keys.row(MANY) | {"domain_allowlist": allowlist, "disabled_at": None}
        by_entries[count] = await started(written(f"entries-{count}", [row]))
    return {"states": states, "keys": by_keys, "entries": by_entries}


async def check_answers(asked: dict[Name, Contender]) -> None:
    """Exit if a contender does not answer as expected."""
    for (kind, name), (app, request) in asked.items():
        status, headers = await answer(app, request(0))
        due = 200
        if name == "gatekeeper" and kind not in KINDS:
            due = 204 if kind == "preflight" else Reason(kind.partition(",")[0]).status
        let_in = headers.get(b"access-control-allow-origin") == ORIGIN
        if status != due or (kind == "header key" and let_in != (name != "bare")):
            raise SystemExit(f"{name} answers a request of the kind {kind!r} with {status} and {headers}")


async def _measure(parameters: Parameters) -> Figures:
    logging.getLogger("gatekeeper").disabled = True  # one gate never gets a list
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gates = await gates_of(parameters, directory, stack)
        states = gates["states"]
        first = {size: _first_sights(size, gate) for size, gate in gates["keys"].items()}
        asked = dict(contenders.allowed(states["ready"], parameters.cors_origins))
        asked |= contenders.answered(states)
        asked |= contenders.flat(gates["keys"], gates["entries"])
        grants = await _grants(states["ready"])
        asked |= contenders.granted(states["ready"], grants[0])
        await check_answers(asked)
        taken: Taken = {name: [] for name in asked}
        gc.collect()
        gc.freeze()
        gc.disable()
        for name in script.interleaved(asked, parameters.rounds):
            taken[name].append(await time_of(asked[name], parameters.requests))
            gc.collect(1)
        sights = _each(
            [(None, grant) for grant in grants[1:]], lambda _, grant: states["ready"].decide(None, None, grant=grant)
        )
        long = {shape: await _long(states["ready"], repeated, parameters.rounds) for shape, repeated in LONG_QUERIES.items()}
        gc.enable()
    return _figures(taken) | {"first_sight_us": first, "first_sight_of_a_grant_us": sights, "long_query_ms": long}


def measure(parameters: Parameters) -> Figures:
    """The nanoseconds that each contender adds, with ratios."""
    return asyncio.run(_measure(parameters))


async def time_of(contender: Contender, requests: int) -> float:
    """The nanoseconds per request: the median over batches."""
    app, request = contender
    means = []
    for first in range(0, requests, BATCH):
        scopes = [request(number) for number in range(first, first + BATCH)]
        begun = time.perf_counter_ns()
        for scope in scopes:
            await app(scope, receive, send)
        means.append((time.perf_counter_ns() - begun) / BATCH)
    return statistics.median(means)


async def _long(gate: Gatekeeper, repeated: bytes, rounds: int) -> dict[str, float]:
    """The milliseconds of a request with a long query."""
    guarded = GatekeeperMiddleware(mere_app, gate)
    taken = []
    for _ in range(rounds):
        scope = get(origin=ORIGIN, query=(repeated * (LONG // len(repeated) + 1))[:LONG])
        begun = time.perf_counter_ns()
        await guarded(scope, receive, send)
        taken.append((time.perf_counter_ns() - begun) / 1_000_000)
    return script.spread(taken)


def _first_sights(size: int, gate: Gatekeeper) -> dict[str, dict[str, float]]:
    """The microseconds of first sights: of new keys, and of new pages."""
    chosen = random.Random(2).sample(keys.enabled(size), min(KNOWN, len(keys.enabled(size))))
    of_key = [(keys.client_key(number), keys.origin(number)) for number in chosen]
    # Two in three keys have a wildcard.
    of_page = [(key, page.replace("//", "//www.")) for number, (key, page) in zip(chosen, of_key, strict=True) if number % 3]
    return {"key": _each(_encoded(of_key), gate.decide), "page": _each(_encoded(of_page), gate.decide)}


def _encoded(pairs: list[tuple[str, str]]) -> list[tuple[bytes | None, bytes]]:
    return [(key.encode(), origin.encode()) for key, origin in pairs]


async def _grants(gate: Gatekeeper) -> list[bytes]:
    """Grants for pages of one key, each for another page."""
    given = []
    for number in range(10 * BATCH):
        page = read_page(ORIGIN if number == 0 else b"https://shop-%d.wild.example" % number, None)
        decision = await gate.grant(contenders.KEY if number == 0 else WILD.encode(), page)
        given.append((decision.grant or "").encode())
    return given


def _each(pairs: list[tuple[bytes | None, bytes]], decide: Callable[[Any, bytes], Decision]) -> dict[str, float]:
    means = []
    for first in range(0, len(pairs), BATCH):
        batch = [(key, bytes(bytearray(text))) for key, text in pairs[first : first + BATCH]]
        begun = time.perf_counter_ns()
        for key, text in batch:
            decide(key, text)
        means.append((time.perf_counter_ns() - begun) / len(batch) / 1000)
    return script.spread(means)


def _figures(taken: Taken) -> Figures:
    cors = script.spread(taken["refused", "CORSMiddleware"])
    refused = {
        kind: {"taken_ns": (total := script.spread(times)), "of_cors": total["median"] / cors["median"]}
        for (kind, name), times in taken.items()
        if name == "gatekeeper" and kind not in {*KINDS, "preflight"}
    }
    preflights = {name: script.spread(times) for (kind, name), times in taken.items() if kind == "preflight"}
    of_cors = preflights["gatekeeper"]["median"] / preflights["CORSMiddleware"]["median"]
    return {
        "bare_ns": script.spread(taken["header key", "bare"]),
        "allowed": {kind: _allowed(taken, kind) for kind in KINDS},
        "preflight": {"taken_ns": preflights, "of_cors": of_cors},
        "refused": {"CORSMiddleware_ns": cors, "reasons": refused},
        "flat": {kind: _flat(taken, kind) for kind in ("keys", "entries")},
        "grant": _granted(taken),
    }


def _allowed(taken: Taken, kind: str) -> Figures:
    added = {name: _added(taken, kind, name, "bare") for of, name in taken if of == kind and name != "bare"}
    floor, cors = added["floor"]["median"], added["CORSMiddleware"]["median"]
    return {
        name: {"added_ns": each, "of_floor": each["median"] / floor, "of_cors": each["median"] / cors}
        for name, each in added.items()
    }


def _flat(taken: Taken, kind: str) -> Figures:
    numbers = [name for of, name in taken if of == kind and "bare" not in name]
    added = {number: _added(taken, kind, number, f"{number}, bare") for number in numbers}
    return {
        number: {"added_ns": each, "of_least": each["median"] / added[numbers[0]]["median"]}
        for number, each in added.items()
    }


def _granted(taken: Taken) -> Figures:
    with_key = _added(taken, "grant", "with a key", "with a key, bare")
    by_name = {
        "with a key, no frames": _added(taken, "grant", "with a key, no frames", "with a key, bare"),
        "with a key": with_key,
        "with a grant": _added(taken, "grant", "with a grant", "with a grant, bare"),
    }
    return {name: {"added_ns": each, "of_key": each["median"] / with_key["median"]} for name, each in by_name.items()}


def _added(taken: Taken, kind: str, name: str, bare: str) -> dict[str, float]:
    return script.spread([time - less for time, less in zip(taken[kind, name], taken[kind, bare], strict=True)])


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables of the figures."""
    for kind, by_name in figures["allowed"].items():
        yield script.table(
            f"added to an allowed request: {kind}",
            ("", "added µs (quartiles)", "x floor", "x CORS"),
            [
                (name, _us(each["added_ns"]), f"{each['of_floor']:.2f}", f"{each['of_cors']:.2f}")
                for name, each in by_name.items()
            ],
        )
    preflights = figures["preflight"]
    yield script.table(
        f"a preflight: {preflights['of_cors']:.2f} x CORSMiddleware's",
        ("", "taken µs (quartiles)"),
        [(name, _us(each)) for name, each in preflights["taken_ns"].items()],
    )
    refused = figures["refused"]
    yield script.table(
        "a refusal, in the app's place",
        ("reason", "taken µs (quartiles)", "x CORS"),
        [
            ("CORSMiddleware, and the app", _us(refused["CORSMiddleware_ns"]), "1.00"),
            *((why, _us(each["taken_ns"]), f"{each['of_cors']:.2f}") for why, each in refused["reasons"].items()),
        ],
    )
    for what, by_number in figures["flat"].items():
        yield script.table(
            f"an allowed request, by {what}",
            (what, "added µs (quartiles)", "x least"),
            [(f"{int(number):,}", _us(each["added_ns"]), f"{each['of_least']:.2f}") for number, each in by_number.items()],
        )
    yield script.table(
        f"a gate with frames; first sight of a grant: {figures['first_sight_of_a_grant_us']['median']:.1f} µs",
        ("a request", "added µs (quartiles)", "x key"),
        [(name, _us(each["added_ns"]), f"{each['of_key']:.2f}") for name, each in figures["grant"].items()],
    )
    yield script.table(
        "first sight",
        ("keys", "of a key, µs", "of a page of a known key, µs"),
        [
            (f"{int(size):,}", *(f"{each[what]['median']:.1f}" for what in ("key", "page")))
            for size, each in figures["first_sight_us"].items()
        ],
    )
    yield script.table(
        "a request with a query of 65 KB",
        ("what the query repeats", "ms (quartiles)"),
        [
            (shape, "{median:.2f} ({quartile_1:.2f}-{quartile_3:.2f})".format(**each))
            for shape, each in figures["long_query_ms"].items()
        ],
    )


def _us(nanoseconds: dict[str, float]) -> str:
    middle, low, high = (nanoseconds[name] / 1000 for name in ("median", "quartile_1", "quartile_3"))
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    script.run(Parameters, measure, tables)
