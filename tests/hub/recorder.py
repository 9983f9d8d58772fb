"""A watch for what tells of changes."""

import asyncio

from gatekeeper.errors import DatabaseDown

__all__ = ("Recorder",)


class Recorder:
    """A watch that records what it is told.

    Attributes:
        looked: the accounts that it was told to look at.
        reads: how often it was told to look at all accounts.
        is_down: whether it finds that the database does not answer.
    """

    def __init__(self) -> None:
        self.looked: list[str] = []
        self.reads = 0
        self.is_down = False
        self.waiting = asyncio.Event()

    async def begun(self) -> None:
        await self.waiting.wait()

    def look(self, account: str) -> None:
        self.looked.append(account)

    async def look_at_all(self) -> None:
        self.reads += 1
        if self.is_down:
            raise DatabaseDown("down")
