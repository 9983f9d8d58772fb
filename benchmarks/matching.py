"""Matching an origin against an allowlist: gatekeeper beside what others do, from 1 to 10,000 entries.

    python -m benchmarks.matching [--rounds 15] [--json] [--svg .github/matching.svg]

Nothing is remembered between two decisions. Each contender decides on an origin that its last entry allows and on one that
no entry allows; a round times every contender once, and the medians of the rounds are shown. Then: what a decision costs for
a host of 253 bytes and a key of 100 entries, what compiling an entry costs, and the bytes of a compiled allowlist.
"""

import argparse
import fnmatch
import json
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gatekeeper import Allowlist

SIZES = (1, 10, 100, 10_000)
HIT, MISS = "https://a.last.example.com", "https://shop.evil.test"
KEYS = 5_000  # allowlists whose memory is measured together

Decide = Callable[[str], bool]


def gatekeeper(hosts: list[str]) -> Decide:
    entries = [f"*.{host}" for host in hosts]
    # Built from the entries themselves, because a key has at most 100.
    return Allowlist({entry: entry for entry in entries}, (), hosts, https_only=False).allows


def starlette_list(hosts: list[str]) -> Decide:
    """Starlette's allow_origins, which has no wildcards: one exact origin in place of each."""
    origins = [f"https://a.{host}" for host in hosts]
    return lambda origin: origin in origins


def starlette_regex(hosts: list[str]) -> Decide:
    """Starlette's allow_origin_regex: one alternative for each host."""
    compiled = re.compile("|".join(rf"https://[^/]+\.{re.escape(host)}" for host in hosts))
    return lambda origin: compiled.fullmatch(origin) is not None


def asgi_cors_globs(hosts: list[str]) -> Decide:
    """The host_wildcards of asgi-cors: fnmatch with each, in bytes."""
    globs = [f"https://*.{host}".encode() for host in hosts]
    return lambda origin: any(fnmatch.fnmatch(origin.encode(), glob) for glob in globs)


def naive_scan(hosts: list[str]) -> Decide:
    """The end of the host compared with each entry."""

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


def curve(rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """Microseconds for a decision, by contender and number of entries: an origin that is allowed, one that is not."""
    figures: dict[str, dict[int, dict[str, float]]] = {name: {} for name in CONTENDERS}
    for size in SIZES:
        hosts = [f"h{number}.example.com" for number in range(size - 1)] + ["last.example.com"]
        deciders = {name: make(hosts) for name, make in CONTENDERS.items()}
        for name, decide in deciders.items():
            if not decide(HIT) or decide(MISS):
                raise SystemExit(f"{name} decides wrongly at {size} entries")
        times: dict[str, dict[str, list[float]]] = {name: {"hit": [], "miss": []} for name in deciders}
        for _ in range(rounds):
            for name, decide in deciders.items():
                times[name]["hit"].append(_microseconds(partial(decide, HIT)))
                times[name]["miss"].append(_microseconds(partial(decide, MISS)))
        for name, taken in times.items():
            figures[name][size] = {case: statistics.median(values) for case, values in taken.items()}
    return figures


def extremes(rounds: int) -> dict[str, float]:
    """What the design promises of the worst cases."""
    bases = [".".join(["a"] * labels) + ".zz" for labels in range(1, 51)]
    entries = [f"*.{base}" for base in bases] + [f"shop-{number}.example.com" for number in range(50)]
    long = "https://" + ("b." * 126) + "y"
    deep = Allowlist.parse(entries)
    fresh = iter(range(10**9))
    names = [f"*.h{next(fresh)}.example-{number}.com" for number in range(rounds * 100)]
    return {
        "decision_100_entries_253_bytes_us": _median(lambda: deep.allows(long), rounds),
        "decision_100_entries_253_bytes_below_50_wildcards_us": _median(lambda: deep.allows(_below(bases)), rounds),
        "compile_an_entry_us": _compile(names),
        "compile_an_entry_again_us": _compile(names),
        "compiled_allowlist_of_3_entries_bytes": _bytes_of_an_allowlist(),
    }


def draw(figures: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - of the extra `bench`, and for the picture only

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "gatekeeper"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 3.6))
    for name, by_size in figures.items():
        wide = 2.6 if name == "gatekeeper" else 1.4
        axes.plot(list(by_size), [case["miss"] for case in by_size.values()], marker="o", linewidth=wide, label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="entries", ylabel="µs for a decision", title="An origin that no entry allows"
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _below(bases: list[str]) -> str:
    deepest = max(bases, key=len)
    return "https://" + "a." * ((253 - len(deepest)) // 2) + deepest[:-2] + "zy"


def _microseconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter_ns()
    action()
    once = max(time.perf_counter_ns() - begun, 200)
    repeats = max(1, min(2_000, 2_000_000 // once))
    begun = time.perf_counter_ns()
    for _ in range(repeats):
        action()
    return (time.perf_counter_ns() - begun) / repeats / 1000


def _median(action: Callable[[], object], rounds: int) -> float:
    return statistics.median(_microseconds(action) for _ in range(rounds))


def _compile(entries: list[str]) -> float:
    begun = time.perf_counter_ns()
    for first in range(0, len(entries), 100):
        Allowlist.parse(entries[first : first + 100])
    return (time.perf_counter_ns() - begun) / len(entries) / 1000


def _bytes_of_an_allowlist() -> float:
    rows = [(f"shop-{number}.com", f"*.shop-{number}.com", "localhost:*") for number in range(KEYS)]
    for row in rows:
        Allowlist.parse(row)  # what is memoised of public suffixes is not theirs
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [Allowlist.parse(row) for row in rows]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The list that keeps them is not theirs.
    return (after - before - kept.__sizeof__()) / KEYS


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args(argv)
    figures, worst = curve(options.rounds), extremes(options.rounds)
    if options.svg:
        draw(figures, options.svg)
    if options.json:
        print(json.dumps({"rounds": options.rounds, "curve_us": figures, "extremes": worst}, indent=2))
        return
    print(f"µs for a decision, medians of {options.rounds} rounds: allowed by the last entry / allowed by none")
    print(f"{'entries':18}" + "".join(f"{size:>20,}" for size in SIZES))
    for name, by_size in figures.items():
        cells = "".join(f"{case['hit']:>11.2f} / {case['miss']:<6.2f}" for case in by_size.values())
        print(f"{name:18}{cells}")
    for what, figure in worst.items():
        print(f"{what:58}{figure:>10.2f}")


if __name__ == "__main__":
    main()
