"""A gate of several accounts with a fake clock. The sources are in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gatekeeper import Gatekeeper, HubServerError
from gatekeeper.testing import FakeClock

from .memory_source import MemorySource

__all__ = ("Several", "several")


class Several:
    """A running gate, its clock and its sources.

    Attributes:
        gate: the gate.
        time: its clock.
        sources: by account.
    """

    def __init__(self, sources: dict[str, MemorySource], **options: Any) -> None:
        self.time = FakeClock()
        self.sources = sources
        by_the_clock = {"clock": self.time, "sleep": self.time.sleep, "jitter": lambda: 0.5, "usage_interval": 0.0}
        self.gate = Gatekeeper(list(sources.values()), **{**by_the_clock, "start_timeout": 0.0, **options})

    def fail(self, *accounts: str, why: str = "the hub answered 503") -> None:
        """Let the next fetches of these accounts fail."""
        for account in accounts:
            self.sources[account].broken = HubServerError(why)


@asynccontextmanager
async def several(
    *accounts: str, rows: tuple[Any, ...] = (), broken: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[Several]:
    """Run a gate that has made one fetch of each account.

    Args:
        accounts: their names.
        rows: of each account.
        broken: the accounts whose first fetch fails.
        options: of the gate.
    """
    sources = {account: MemorySource(*rows) for account in accounts}
    for account, source in sources.items():
        source.account = account
    it = Several(sources, **options)
    it.fail(*broken)
    async with it.gate:
        if accounts:
            await it.time.asleep(len(accounts))
        yield it
