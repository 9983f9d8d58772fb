"""Scenarios of a benchmark, each with figures for each kind of database."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from benchmarks import script
from benchmarks.live.database import Kind
from benchmarks.script import Figures

__all__ = ("measured", "shown")

ROUNDED: Final = 1000.0  # from here on, figures have no decimals

P = TypeVar("P")


def measured(scenarios: Mapping[str, Callable[[P, Kind], Figures]], parameters: P, kinds: Iterable[Kind]) -> Figures:
    """The figures of each scenario, by database."""
    figures: Figures = {}
    for name, measure in scenarios.items():
        for kind in kinds:
            begun = time.monotonic()
            figures.setdefault(name, {})[kind] = measure(parameters, kind)
            print(f"{name} on {kind} took {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return figures


def shown(figures: Figures) -> Iterator[script.Table]:
    """A table for each scenario."""
    for scenario, by_kind in figures.items():
        names = dict.fromkeys(name for each in by_kind.values() for name in each)
        rows = [(name, *(_said(each.get(name)) for each in by_kind.values())) for name in names]
        yield script.table(scenario, ("", *by_kind), rows)


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= ROUNDED else f"{value:.4g}"
