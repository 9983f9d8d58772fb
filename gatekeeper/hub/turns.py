"""Turns: which request goes next where only some can go at once."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.accounts import described

__all__ = ("Turns",)

# Reports wait for everything else, but a steady stream of writes leaves them one turn in so many.
LATE_SHARE: Final = 20


class Turns:
    """Turns that accounts take in rotation.

    Each account has a queue of its own, so that a long one delays no other account.

    Args:
        places: how many turns can be held at once.
        purpose: what a turn is for, as in "to write".
        patience: the longest wait for a turn, in seconds; None for any.
        each: how many turns one account can hold at once; None for all places. Where it is given, an account also holds no
            more turns than there are free places, so that a few accounts cannot take all of them. It does not bound what is
            of no account, whose name is empty.

    Attributes:
        places: how many turns can be held at once.
        held: how many are held. Any thread may read it.
    """

    def __init__(self, places: int, purpose: str, *, patience: float | None, each: int | None = None) -> None:
        self.places = places
        self._purpose = purpose
        self._patience = patience
        self._each = each
        self.held = 0
        self._held_by: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # in the order of their next turns
        self._late: dict[asyncio.Future[None], str] = {}
        self._since_late = 0

    @asynccontextmanager
    async def taking(self, account: str, *, late: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and hold it.

        Args:
            account: the account.
            late: whether to let all others go first.

        Raises:
            HubOverloaded: no turn came within the patience.
        """
        await self._take(account, late=late)
        try:
            yield
        finally:
            self._give_back(account)

    async def _take(self, account: str, *, late: bool) -> None:
        turn = asyncio.get_running_loop().create_future()
        if late:
            self._late[turn] = account
        else:
            self._waiting.setdefault(account, deque()).append(turn)
        self._grant()
        try:
            # A future that is done costs no round through the event loop.
            if not turn.done():
                await asyncio.wait([turn], timeout=self._patience)
        except BaseException:
            if turn.done():
                self._give_back(account)
            else:
                self._forget(account, turn)
            raise
        if not turn.done():
            self._forget(account, turn)
            named = f" of {described(account)}" if account else ""
            raise HubOverloaded(f"a request{named} has waited {self._patience:g} s for its turn {self._purpose}")

    def _give_back(self, account: str) -> None:
        self.held -= 1
        self._held_by[account] -= 1
        if not self._held_by[account]:
            del self._held_by[account]
        self._grant()

    def _forget(self, account: str, turn: asyncio.Future[None]) -> None:
        if self._late.pop(turn, None) is None:
            self._waiting[account].remove(turn)
            if not self._waiting[account]:
                del self._waiting[account]

    def _grant(self) -> None:
        """Give free turns to those who wait."""
        while (free := self.places - self.held) > 0:
            urgent = next((account for account in self._waiting if self._may_hold(account, free)), None)
            late = next((turn for turn, account in self._late.items() if self._may_hold(account, free)), None)
            if late is not None and (urgent is None or self._since_late >= LATE_SHARE):
                self._since_late = 0
                self._hold(self._late.pop(late))
                late.set_result(None)
            elif urgent is not None:
                self._since_late += 1
                self._hold(urgent)
                queue = self._waiting.pop(urgent)
                queue.popleft().set_result(None)
                if queue:
                    self._waiting[urgent] = queue
            else:
                return

    def _hold(self, account: str) -> None:
        self.held += 1
        self._held_by[account] += 1

    def _may_hold(self, account: str, free: int) -> bool:
        return self._each is None or not account or self._held_by[account] < min(self._each, free)
