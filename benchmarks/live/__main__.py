"""How soon gates know of changes, and what it costs, with real hubs, real gates and real sockets.

python -m benchmarks.live [--only revocation,quiet] [--database sqlite,postgres] [--json FILE] [--quick]
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks import script
from benchmarks.live import delta, fairness, imported, outages, quiet, revocation, waiting
from benchmarks.live.database import Kind
from benchmarks.live.parameters import Parameters
from benchmarks.script import Figures

ROUNDED: Final = 1000.0  # from here on, figures have no decimals

SCENARIOS: Final[dict[str, Callable[[Parameters, Kind], Figures]]] = {
    "revocation": revocation.measure,
    "quiet": quiet.measure,
    "waiting": waiting.measure,
    "delta": delta.measure,
    "imported": imported.measure,
    "outages": outages.measure,
    "fairness": fairness.measure,
}


def measure(parameters: Parameters) -> Figures:
    """The figures of each scenario, by database."""
    figures: Figures = {}
    for name in parameters.only:
        for kind in parameters.database:
            begun = time.monotonic()
            figures.setdefault(name, {})[kind] = SCENARIOS[name](parameters, kind)
            print(f"{name} on {kind} took {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return figures


def tables(figures: Figures) -> Iterator[script.Table]:
    """A table for each scenario."""
    for scenario, by_kind in figures.items():
        names = dict.fromkeys(name for each in by_kind.values() for name in each)
        rows = [(name, *(_said(each.get(name)) for each in by_kind.values())) for name in names]
        yield script.table(scenario, ("", *by_kind), rows)


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= ROUNDED else f"{value:.4g}"


if __name__ == "__main__":
    script.run(Parameters, measure, tables)
