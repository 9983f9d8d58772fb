"""What many accounts in one gate cost, and what one costs the others. See `__main__`."""

from benchmarks.accounts.parameters import Parameters

__all__ = ("Parameters",)
