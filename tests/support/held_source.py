"""A source that holds its answers until a test gives them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from gatekeeper import Basis, Delta, FullList, Listing, Unchanged, Updates

from .memory_source import MemorySource
from .rows import as_json

__all__ = ("HeldSource", "Update")

Update = FullList | Unchanged | Delta


class HeldSource(MemorySource):
    """Answers at once where it may not wait, and otherwise with what the test gives.

    Attributes:
        etag: of the list.
        asked: the questions, in order.
        held: how many of them wait for their answer.
    """

    def __init__(self, *rows: object) -> None:
        super().__init__(*rows)
        self.etag = "1"
        self.asked: list[Basis] = []
        self.held = 0
        self._answers: list[Update | Exception] = []
        self._given = anyio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Connect."""
        self.connections += 1
        yield self.ask

    def give(self, answer: Update | Exception) -> None:
        """Answer the question that is held, or the next one."""
        self._answers.append(answer)
        self._given.set()

    @asynccontextmanager
    async def ask(self, basis: Basis) -> AsyncIterator[Update]:
        """Give the list, or what the test gives."""
        self.asked.append(basis)
        if basis.wait is None:
            if self.broken is not None:
                raise self.broken
            yield FullList(Listing.whole(as_json(*self.rows), self.etag), may_wait=True)
            return
        self.held += 1
        try:
            while not self._answers:
                self._given = anyio.Event()
                await self._given.wait()
            answer = self._answers.pop(0)
        finally:
            self.held -= 1
        if isinstance(answer, Exception):
            raise answer
        yield answer
