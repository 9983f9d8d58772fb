"""Many accounts in one gate: what they cost, whether one harms the others, and one list for all of them.

python -m benchmarks.accounts [--only together,hanging] [--database sqlite,postgres] [--json FILE] [--quick]
"""

from collections.abc import Callable
from typing import Final

from benchmarks import script
from benchmarks.accounts import hanging, listed, together
from benchmarks.accounts.parameters import Parameters
from benchmarks.live.database import Kind
from benchmarks.live.scenarios import measured, shown
from benchmarks.script import Figures

SCENARIOS: Final[dict[str, Callable[[Parameters, Kind], Figures]]] = {
    "together": together.measure,
    "hanging": hanging.measure,
    "listed": listed.measure,
}


def measure(parameters: Parameters) -> Figures:
    """The figures of each scenario, by database."""
    return measured({name: SCENARIOS[name] for name in parameters.only}, parameters, parameters.database)


if __name__ == "__main__":
    script.run(Parameters, measure, shown)
