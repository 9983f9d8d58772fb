"""WaitingRoom: the requests of one account that wait until its list changes."""

import asyncio
import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from starlette.responses import Response

from gatekeeper.hub.accounts import Revision
from gatekeeper.hub.deltas import ListState
from gatekeeper.hub.list_request import ListRequest
from gatekeeper.hub.tokens import TokenScope

__all__ = ("Outcome", "Waited", "Waiter", "WaitingRoom")

# Requests that are answered at once, in some 1 ms; then others have their turn. A change by another account takes 30 turns.
_CHUNK: Final = 10


class Waited(NamedTuple):
    """What a request has waited for.

    Attributes:
        state: the state of the list. It is that of the client if its time was over.
        is_last: whether the hub stops, so that the connection has to be closed.
        responses: what has been answered, by the scope of the token. All requests that ask for the same share it.
    """

    state: ListState
    is_last: bool
    responses: dict[TokenScope, Response]


Outcome = Waited | Exception | None
"""What a request answers; an error is raised. None if it cannot wait, and has to answer at once."""


class Waiter:
    """A request that waits.

    Args:
        asked: what it asks for.
        token_id: the id of its token.
        tick: the tick in which its time is over.

    Attributes:
        asked: what it asks for.
        token_id: the id of its token.
        tick: the tick in which its time is over.
        timer: wakes its task.
        outcome: what its task answers.
    """

    __slots__ = ("asked", "outcome", "tick", "timer", "token_id")

    def __init__(self, asked: ListRequest, token_id: str, tick: int) -> None:
        self.asked = asked
        self.token_id = token_id
        self.tick = tick
        self.timer = asyncio.timeout(None)
        self.outcome: Outcome = None


class WaitingRoom:
    """The requests of an account.

    A look at thousands of them costs as much as at one: they are kept by what they ask for.

    Attributes:
        groups: the requests that ask for the same, in the order of their arrival.
        new: those for which no look has succeeded yet.
        over: those whose time is over.
        known: the revision at the last look.
        is_due: whether the account has to be looked at.
        changed: the accounts that may have changed, as far as that is the reason; ALL_ACCOUNTS for any.
        attending: the task that looks.
        swept: is set unless that task is looking.
    """

    __slots__ = ("_count", "_ends", "attending", "changed", "groups", "is_due", "known", "new", "over", "swept")

    def __init__(self) -> None:
        self.groups: dict[ListRequest, dict[Waiter, None]] = {}
        self.new: dict[Waiter, None] = {}
        self.over: dict[Waiter, None] = {}
        self.known: Revision | None = None
        self.changed: set[str] = set()
        self.is_due = False
        self.attending: asyncio.Task[None] | None = None
        self.swept = asyncio.Event()
        self._count = 0
        self._ends: dict[int, dict[Waiter, None]] = {}

    def __len__(self) -> int:
        """The number of requests."""
        return self._count

    def add(self, waiter: Waiter) -> None:
        """Add a request.

        Args:
            waiter: the request.
        """
        self.groups.setdefault(waiter.asked, {})[waiter] = None
        self.new[waiter] = None
        self._ends.setdefault(waiter.tick, {})[waiter] = None
        self._count += 1

    def remove(self, waiter: Waiter) -> bool:
        """Remove a request.

        Args:
            waiter: the request.

        Returns:
            Whether it was there.
        """
        group = self.groups.get(waiter.asked, {})
        if waiter not in group:
            return False
        del group[waiter]
        if not group:
            del self.groups[waiter.asked]
        self.new.pop(waiter, None)
        self.over.pop(waiter, None)
        self._ends.get(waiter.tick, {}).pop(waiter, None)
        self._count -= 1
        return True

    def end(self, tick: int) -> None:
        """Let the time of some requests be over.

        Args:
            tick: the tick in which it is.
        """
        self.over |= self._ends.pop(tick, {})

    def end_all(self) -> None:
        """Let the time of all requests be over."""
        for group in self.groups.values():
            self.over |= group

    async def tell(self, outcomes: Iterable[tuple[Waiter, Outcome]]) -> None:
        """Wake the tasks of requests that still wait, and let them answer.

        Args:
            outcomes: what they answer.
        """
        for number, (waiter, outcome) in enumerate(outcomes, 1):
            if self.remove(waiter):
                waiter.outcome = outcome
                waiter.timer.reschedule(-math.inf)
            if number % _CHUNK == 0:
                await asyncio.sleep(0)
        # The timers of the last ones end in the next turn of the event loop, and their tasks run in the one after that.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
