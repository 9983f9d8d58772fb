"""The time of matching an origin against 1 to 10,000 entries.

    python -m benchmarks.matching [--rounds 15] [--sizes 1,10,100,10000] [--json FILE] [--quick]

No contender remembers decisions. Each one decides on an origin that its last entry allows, and on one that no entry allows.
A round times each contender once, in changing order, and the tables show the medians of the rounds. Then come a decision on
a host of 253 bytes with 100 entries, the time of compiling an entry, and the bytes of a compiled allowlist.
"""

import fnmatch
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks import script
from benchmarks.script import Figures, parameter
from gatekeeper import Allowlist

HIT, MISS = "https://a.last.example.com", "https://shop.evil.test"
KEYS = 5_000  # allowlists in the measurement of memory
TIMED_NS = 2_000_000  # duration of a timed run, so long that the clock's own time does not matter


@dataclass(frozen=True)
class Parameters:
    rounds: int = parameter(15, 3, "rounds; each runs every contender once")
    sizes: tuple[int, ...] = parameter((1, 10, 100, 10_000), (1, 100, 10_000), "numbers of entries")


Decide = Callable[[str], bool]


def gatekeeper(hosts: list[str]) -> Decide:
    entries = [f"*.{host}" for host in hosts]
    # Not parsed, because an allowlist has at most 100 entries.
    return Allowlist({entry: entry for entry in entries}, (), hosts, https_only=False).allows


def starlette_list(hosts: list[str]) -> Decide:
    """Starlette's allow_origins: exact origins, as it has no wildcards."""
    origins = [f"https://a.{host}" for host in hosts]
    return lambda origin: origin in origins


def starlette_regex(hosts: list[str]) -> Decide:
    """Starlette's allow_origin_regex: one alternative per host."""
    compiled = re.compile("|".join(rf"https://[^/]+\.{re.escape(host)}" for host in hosts))
    return lambda origin: compiled.fullmatch(origin) is not None


def asgi_cors_globs(hosts: list[str]) -> Decide:
    """The host_wildcards of asgi-cors: fnmatch with each, in bytes."""
    globs = [f"https://*.{host}".encode() for host in hosts]
    return lambda origin: any(fnmatch.fnmatch(origin.encode(), glob) for glob in globs)


def naive_scan(hosts: list[str]) -> Decide:
    """Compare the end of the host with each entry."""

    def decide(origin: str) -> bool:
        scheme, _, host = origin.partition("://")
        return scheme in {"https", "http"} and any(host.endswith(f".{base}") for base in hosts)

    return decide


CONTENDERS = {
    "gatekeeper": gatekeeper,
    "Starlette, list": starlette_list,
    "Starlette, regex": starlette_regex,
    "asgi-cors, globs": asgi_cors_globs,
    "naive scan": naive_scan,
}


def measure(parameters: Parameters) -> Figures:
    """The microseconds of a decision by contender and size, and worst cases."""
    curve: Figures = {name: {} for name in CONTENDERS}
    for size in parameters.sizes:
        hosts = [f"h{number}.example.com" for number in range(size - 1)] + ["last.example.com"]
        deciders = {name: make(hosts) for name, make in CONTENDERS.items()}
        for name, decide in deciders.items():
            if not decide(HIT) or decide(MISS):
                raise SystemExit(f"{name} decides wrongly at {size} entries")
        taken: dict[tuple[str, str], list[float]] = {(name, case): [] for name in deciders for case in ("hit", "miss")}
        for name, case in script.interleaved(taken, parameters.rounds):
            taken[name, case].append(_microseconds(partial(deciders[name], HIT if case == "hit" else MISS)))
        for (name, case), times in taken.items():
            curve[name].setdefault(str(size), {})[case] = script.spread(times)
    return {"curve_us": curve, "extremes": _extremes(parameters.rounds)}


def _extremes(rounds: int) -> dict[str, dict[str, float]]:
    """The worst cases of decisions and compilation."""
    bases = [".".join(["a"] * labels) + ".zz" for labels in range(1, 51)]
    entries = [f"*.{base}" for base in bases] + [f"shop-{number}.example.com" for number in range(50)]
    deep = Allowlist.parse(entries)
    names = [[f"*.h{number}.example-{turn}.com" for number in range(1000)] for turn in range(rounds)]
    return {
        "decision, 100 entries, 253 bytes, µs": _spread(lambda: deep.allows("https://" + ("b." * 126) + "y"), rounds),
        "the same below 50 wildcards, µs": _spread(partial(deep.allows, _below(bases)), rounds),
        "compiling an entry, µs": script.spread([_compile(each) for each in names]),
        "compiling an entry again, µs": script.spread([_compile(each) for each in names]),
        "compiled allowlist of 3 entries, bytes": script.spread([_bytes_of_an_allowlist()]),
    }


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables of the figures."""
    curve = figures["curve_us"]
    yield script.table(
        "µs for a decision: allowed by the last entry / allowed by none",
        ("entries", *(f"{int(size):,}" for size in next(iter(curve.values())))),
        [
            (name, *(f"{each['hit']['median']:.2f} / {each['miss']['median']:.2f}" for each in by_size.values()))
            for name, by_size in curve.items()
        ],
    )
    yield script.table(
        "the worst cases",
        ("", "median (quartiles)"),
        [
            (what, "{median:.2f} ({quartile_1:.2f}-{quartile_3:.2f})".format(**each))
            for what, each in figures["extremes"].items()
        ],
    )


def _below(bases: list[str]) -> str:
    deepest = max(bases, key=len)
    return "https://" + "a." * ((253 - len(deepest)) // 2) + deepest[:-2] + "zy"


def _microseconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter_ns()
    action()
    once = max(time.perf_counter_ns() - begun, 200)
    repeats = max(1, min(2_000, TIMED_NS // once))
    begun = time.perf_counter_ns()
    for _ in range(repeats):
        action()
    return (time.perf_counter_ns() - begun) / repeats / 1000


def _spread(action: Callable[[], object], rounds: int) -> dict[str, float]:
    return script.spread([_microseconds(action) for _ in range(rounds)])


def _compile(entries: list[str]) -> float:
    begun = time.perf_counter_ns()
    for first in range(0, len(entries), 100):
        Allowlist.parse(entries[first : first + 100])
    return (time.perf_counter_ns() - begun) / len(entries) / 1000


def _bytes_of_an_allowlist() -> float:
    rows = [(f"shop-{number}.com", f"*.shop-{number}.com", "localhost:*") for number in range(KEYS)]
    for row in rows:
        Allowlist.parse(row)  # the memo of public suffixes does not count
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [Allowlist.parse(row) for row in rows]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The list itself does not count.
    return (after - before - kept.__sizeof__()) / KEYS


if __name__ == "__main__":
    script.run(Parameters, measure, tables)
