"""How soon gates know of changes, with real hubs and real gates. See `__main__`."""

from benchmarks.live.parameters import Parameters

__all__ = ("Parameters",)
