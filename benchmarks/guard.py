"""Check the ratios of `overhead` and `matching` against limits.

    python -m benchmarks.guard [--json FILE]

Ratios are compared, not times. Each limit is 1.5 times the goal, or 1.5 times the last measurement if that was higher, so
that a busy machine does not exceed it. A ratio above its limit is measured a second time before it counts.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import matching, overhead, script
from benchmarks.script import Figures

SLACK = 1.5


class Limit(NamedTuple):
    """The limit of a ratio.

    Attributes:
        what: the ratio in words.
        benchmark: the benchmark that measures it.
        read: a function that reads it from the figures of the benchmark.
        due: the goal, or the last measurement.
    """

    what: str
    benchmark: str
    read: Callable[[Figures], float]
    due: float

    @property
    def most(self) -> float:
        """The highest ratio that passes."""
        return self.due * SLACK


def _allowed(kind: str, ratio: str) -> Callable[[Figures], float]:
    return lambda figures: float(figures["allowed"][kind]["gatekeeper"][ratio])


def _preflight(figures: Figures) -> float:
    return float(figures["preflight"]["of_cors"])


def _refused(reason: str) -> Callable[[Figures], float]:
    return lambda figures: float(figures["refused"]["reasons"][reason]["of_cors"])


def _flat(what: str) -> Callable[[Figures], float]:
    return lambda figures: max(float(each["of_least"]) for each in figures["flat"][what].values())


def _scaled(figures: Figures) -> float:
    costs = [each["miss"]["median"] for each in figures["curve_us"]["gatekeeper"].values()]
    return float(max(costs) / costs[0])


def _of_scan(figures: Figures) -> float:
    most = max(figures["curve_us"]["gatekeeper"], key=int)
    ours, scan = (figures["curve_us"][name][most]["miss"]["median"] for name in ("gatekeeper", "naive scan"))
    return float(ours) / float(scan)


LIMITS = (
    Limit("an allowed request's cost beside the floor", "overhead", _allowed("header key", "of_floor"), 1.4),
    Limit("an allowed request's cost beside CORSMiddleware", "overhead", _allowed("header key", "of_cors"), 0.35),
    Limit("the cost of a key in the query beside CORSMiddleware", "overhead", _allowed("query key", "of_cors"), 0.6),
    Limit("the cost of a Referer beside CORSMiddleware", "overhead", _allowed("Referer", "of_cors"), 0.6),
    Limit("a preflight beside CORSMiddleware's", "overhead", _preflight, 1.0),
    Limit("refusing an unknown key beside CORSMiddleware", "overhead", _refused("key_unknown"), 1.26),
    Limit("refusing a page never seen beside CORSMiddleware", "overhead", _refused("origin_not_allowed, never seen"), 1.47),
    Limit("refusing a foreign page beside CORSMiddleware", "overhead", _refused("origin_not_allowed"), 1.0),
    Limit("an allowed request at 10,000 keys beside one at 1,000", "overhead", _flat("keys"), 1.15),
    Limit("an allowed request at 100 entries beside one at 1", "overhead", _flat("entries"), 1.15),
    Limit("a decision at 10,000 entries beside one at 1", "matching", _scaled, 1.15),
    Limit("a decision at 10,000 entries beside a scan over them", "matching", _of_scan, 0.01),
)


def measure(benchmarks: set[str]) -> dict[str, Figures]:
    """The figures of benchmarks, with small parameters."""
    figures = {}
    if "overhead" in benchmarks:
        figures["overhead"] = overhead.measure(script.quick(overhead.Parameters, rounds=9, requests=1000))
    if "matching" in benchmarks:
        figures["matching"] = matching.measure(script.quick(matching.Parameters, rounds=5))
    return figures


def broken(limits: tuple[Limit, ...], figures: dict[str, Figures]) -> dict[Limit, float]:
    """The exceeded limits, with the measured ratios."""
    ratios = {limit: limit.read(figures[limit.benchmark]) for limit in limits}
    return {limit: ratio for limit, ratio in ratios.items() if not ratio <= limit.most}


def main(argv: list[str] | None = None) -> int:
    """Measure, and return 1 if a limit is exceeded twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios and limits to FILE")
    options = parser.parse_args(argv)
    figures = measure({limit.benchmark for limit in LIMITS})
    failed = broken(LIMITS, figures)
    if failed:
        figures |= measure({limit.benchmark for limit in failed})
        failed = broken(tuple(failed), figures)
    ratios = {limit: limit.read(figures[limit.benchmark]) for limit in LIMITS}
    for limit, ratio in ratios.items():
        verdict = "is more than" if limit in failed else "within"
        print(f"{limit.what} is {ratio:.3g} x, {verdict} {limit.most:.3g} x")
    if options.json:
        said = [{"what": limit.what, "ratio": ratio, "most": limit.most} for limit, ratio in ratios.items()]
        options.json.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    for limit, ratio in failed.items():
        print(
            f"gatekeeper has become slower: {limit.what} is {ratio:.3g} x, expected {limit.due:.3g} x and at most "
            f"{limit.most:.3g} x with noise; run python -m benchmarks.{limit.benchmark} on a quiet machine",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
