"""A source in memory, for tests that need no socket: forks, bugs in a source, state machines."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gatekeeper import Basis, FullList, Listing, Unchanged, Updates

from .rows import ACCOUNT, as_json


class MemorySource:
    """Rows in memory.

    Attributes:
        rows: of the next fetch.
        broken: raised by every fetch; None for nothing.
        unopenable: the error of connecting; None for none.
        validators: of the fetches, in order.
        on_fetch: called at every fetch.
        connections: number of connections.
    """

    def __init__(self, *rows: Any) -> None:
        self.account: str | None = ACCOUNT
        self.suffix_field = "last8"
        self.fingerprint = "memory"
        self.rows = list(rows)
        self.broken: BaseException | None = None
        self.unopenable: str | None = None
        self.validators: list[str | None] = []
        self.connections = 0
        self.on_fetch: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Connect."""
        self.connections += 1
        if self.unopenable is not None:
            raise OSError(self.unopenable)
        yield self.updates

    @asynccontextmanager
    async def updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged]:
        """Give the rows, or raise."""
        self.validators.append(basis.validator)
        self.on_fetch()
        if self.broken is not None:
            raise self.broken
        yield FullList(Listing.whole(as_json(*self.rows)))
