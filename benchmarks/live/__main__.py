"""How soon gates know of changes, and what it costs, with real hubs, real gates and real sockets.

python -m benchmarks.live [--only revocation,quiet] [--database sqlite,postgres] [--json FILE] [--quick]
"""

from collections.abc import Callable
from typing import Final

from benchmarks import script
from benchmarks.live import delta, fairness, imported, outages, quiet, revocation, waiting
from benchmarks.live.database import Kind
from benchmarks.live.parameters import Parameters
from benchmarks.live.scenarios import measured, shown
from benchmarks.script import Figures

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
    return measured({name: SCENARIOS[name] for name in parameters.only}, parameters, parameters.database)


if __name__ == "__main__":
    script.run(Parameters, measure, shown)
