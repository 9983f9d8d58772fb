"""Waiters: the requests for a list that wait until it changes.

A request is registered before the revision of its account is read, so that no change falls in between. Each account with
waiting requests has one task that looks at it: the task reads the revision and answers the requests whose list has changed,
and those whose time is over. A change, a new request and the end of a wait all just ask for a look, and share it.

All requests that a change concerns are answered in one sweep, from one delta for each list that their clients hold. After a
sweep, the account is not looked at for as long as the sweep took. So an import of many keys costs each client a few answers
a second, and the process half its time at most.

A request waits in its own task, for the disconnect of its client. The sweep wakes it through a timeout without a time. That
takes a few hundred bytes, where a task for each of the two would take thousands.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive

from gatekeeper.errors import DatabaseDown
from gatekeeper.hub.accounts import Revision
from gatekeeper.hub.bearer import unknown_token
from gatekeeper.hub.changes import Changes
from gatekeeper.hub.deltas import ListState
from gatekeeper.hub.list_request import ListRequest
from gatekeeper.hub.shared_reads import SharedReads
from gatekeeper.hub.tokens import Bearer, TokenScope

__all__ = ("MAX_WAITING", "Reads", "Waited", "Waiters")

MAX_WAITING: Final = 10_000  # requests of a process, of up to 25 KB each
_SHARE: Final = 0.75  # of them, for one account

PAUSE: Final = 0.005  # Seconds between two sweeps, at least.
RETRY_PAUSE: Final = 1.0  # Seconds until a read that has failed is repeated.
_TICK: Final = 0.1  # Seconds; waits that end in the same tick share a read of the revision.
_CHUNK: Final = 100  # Requests that are answered at once, in some 10 ms; then others have their turn.

_log = logging.getLogger(__name__)


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


class Reads(NamedTuple):
    """What the waiters read. All raise DatabaseDown if the database does not answer.

    Attributes:
        revisions: reads the revisions of accounts, from a database that sees all changes at once; a standby does not. It
            leaves out accounts of which it knows none.
        tokens: reads which of these ids are those of valid tokens.
        state: reads the state of an account's list, with the way to it from these bases.
    """

    revisions: Callable[[Collection[str]], Awaitable[dict[str, Revision]]]
    tokens: Callable[[Collection[str]], Awaitable[set[str]]]
    state: Callable[[str, Collection[Revision]], Awaitable[ListState]]


Outcome = Waited | Exception | None


class _Waiter:
    """A request that waits.

    Attributes:
        asked: what it asks for.
        token_id: the id of its token.
        tick: the tick in which its time is over.
        timer: wakes its task.
        outcome: what its task answers; an error is raised.
        is_new: whether no look at its account has begun and succeeded since it came.
    """

    __slots__ = ("asked", "is_new", "outcome", "tick", "timer", "token_id")

    def __init__(self, asked: ListRequest, token_id: str, tick: int) -> None:
        self.asked = asked
        self.token_id = token_id
        self.tick = tick
        self.timer = asyncio.timeout(None)
        self.outcome: Outcome = None
        self.is_new = True


class _Room:
    """The waiters of an account.

    Attributes:
        waiters: the requests, in the order of their arrival.
        known: the revision at the last look.
        is_due: whether the account has to be looked at.
        attending: the task that looks.
    """

    __slots__ = ("attending", "is_due", "known", "waiters")

    def __init__(self) -> None:
        self.waiters: dict[_Waiter, None] = {}
        self.known: Revision | None = None
        self.is_due = False
        self.attending: asyncio.Task[None] | None = None

    async def tell(self, outcomes: Iterable[tuple[_Waiter, Outcome]]) -> None:
        """Wake the tasks of requests that still wait."""
        for number, (waiter, outcome) in enumerate(outcomes, 1):
            if waiter in self.waiters:
                del self.waiters[waiter]
                waiter.outcome = outcome
                waiter.timer.reschedule(-math.inf)
            if number % _CHUNK == 0:
                await asyncio.sleep(0)


class Waiters:
    """The requests for a list that wait until it changes.

    Args:
        reads: what they read.
        changes: tells of changes by other processes.
        bound: the most requests that wait at a time. One account may have three quarters of them.
        pause: the shortest time between two sweeps, in seconds.
    """

    def __init__(self, reads: Reads, changes: Changes, *, bound: int = MAX_WAITING, pause: float = PAUSE) -> None:
        self._reads = reads
        self._changes = changes
        self._bound = bound
        self._pause = pause
        self._revisions = SharedReads(reads.revisions)
        self._rooms: dict[str, _Room] = {}
        self._count = 0
        self._ends: dict[int, tuple[asyncio.TimerHandle, set[str]]] = {}
        self._tick = 0
        self._begun = asyncio.Event()
        self._stopping = asyncio.Event()

    def __len__(self) -> int:
        """The number of requests that wait."""
        return self._count

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let requests wait until the block ends, which ends all waits."""
        # These belong to an event loop, and each lifespan may have another one.
        self._begun, self._stopping, self._tick = asyncio.Event(), asyncio.Event(), 0
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self.stop()
            following.cancel()
            await asyncio.wait([following, *(room.attending for room in self._rooms.values() if room.attending)])
            await self._revisions.close()
            for timer, _ in self._ends.values():
                timer.cancel()
            self._ends.clear()

    async def wait(self, bearer: Bearer, asked: ListRequest, seconds: int, receive: Receive) -> Waited | None:
        """Wait until the client has another list than the hub.

        Args:
            bearer: the bearer of the request's token.
            asked: what it asks for.
            seconds: the longest wait.
            receive: the server's function of this name.

        Returns:
            What there is to answer; None if the hub cannot take on the wait, and has to answer at once.

        Raises:
            ClientDisconnect: the client has gone.
            DatabaseDown: the database does not answer.
            Problem: 401, because the token was revoked meanwhile.
        """
        room = self._rooms.get(bearer.account) or _Room()
        if self._count >= self._bound or len(room.waiters) >= self._bound * _SHARE:
            return None
        self._rooms[bearer.account] = room
        tick = math.ceil((asyncio.get_running_loop().time() + seconds) / _TICK)
        waiter = _Waiter(asked, bearer.token_id, tick)
        try:
            async with waiter.timer:
                self._admit(bearer.account, room, waiter)
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            if isinstance(waiter.outcome, Exception):
                raise waiter.outcome.with_traceback(None) from None
            return waiter.outcome
        finally:
            room.waiters.pop(waiter, None)
            self._forget(bearer.account, room)
            self._count -= 1
            if not self._count:
                self._begun.clear()
        raise ClientDisconnect

    def stop(self) -> None:
        """End all waits, also those that begin later."""
        self._stopping.set()
        for account in self._rooms:
            self.look(account)

    async def begun(self) -> None:
        """Wait until a request waits."""
        await self._begun.wait()

    def look(self, account: str) -> None:
        """Look at an account soon, if a request waits for its change.

        Args:
            account: an account that may have changed; any name may be given.
        """
        room = self._rooms.get(account)
        if room is not None and room.waiters:
            room.is_due = True
            if room.attending is None:
                room.attending = asyncio.create_task(self._attend(account, room))

    async def look_at_all(self) -> None:
        """Read the revisions of all accounts for whose change a request waits.

        Raises:
            DatabaseDown: the database does not answer.
        """
        revisions = await self._reads.revisions(tuple(self._rooms))
        for account, room in self._rooms.items():
            if revisions.get(account) != room.known:
                self.look(account)

    async def _follow(self) -> None:
        while True:
            try:
                await self._changes.follow(self)
            except Exception:  # noqa: BLE001 - it is logged, and waits go on
                _log.exception("the hub failed to follow the changes of its database, and begins anew")
            await asyncio.sleep(RETRY_PAUSE)

    def _admit(self, account: str, room: _Room, waiter: _Waiter) -> None:
        self._count += 1
        self._begun.set()
        room.waiters[waiter] = None
        if waiter.tick not in self._ends:
            timer = asyncio.get_running_loop().call_at(waiter.tick * _TICK, self._end, waiter.tick)
            self._ends[waiter.tick] = timer, set()
        self._ends[waiter.tick][1].add(account)
        self.look(account)

    def _end(self, tick: int) -> None:
        self._tick = tick
        _, accounts = self._ends.pop(tick)
        for account in accounts:
            self.look(account)

    def _forget(self, account: str, room: _Room) -> None:
        if not room.waiters and not room.attending and self._rooms.get(account) is room:
            del self._rooms[account]

    async def _attend(self, account: str, room: _Room) -> None:
        loop = asyncio.get_running_loop()
        try:
            while room.is_due and room.waiters:
                room.is_due = False
                begun, present = loop.time(), tuple(room.waiters)
                over = {waiter for waiter in present if waiter.tick <= self._tick or self._stopping.is_set()}
                pause = 0.0
                try:
                    if await self._sweep(account, room, present, over):
                        pause = max(loop.time() - begun, self._pause)
                except DatabaseDown as failure:
                    # The others go on waiting, which is easier on the database than if all asked again.
                    await room.tell((waiter, failure) for waiter in present if waiter.is_new or waiter in over)
                    room.is_due, pause = True, RETRY_PAUSE
                except Exception as error:  # noqa: BLE001 - the tasks of the requests raise it
                    await room.tell((waiter, error) for waiter in present)
                if pause:
                    await self._rest(pause)
        finally:
            room.attending = None
            self._forget(account, room)

    async def _sweep(self, account: str, room: _Room, present: Collection[_Waiter], over: Collection[_Waiter]) -> bool:
        """Answer the requests for which it is time, and return whether there was a change to tell of."""
        revision = await self._revisions.get(account)
        room.known = revision
        if revision is None:
            await room.tell((waiter, None) for waiter in present)
            return False
        held = {asked: asked.names(revision.etag) for asked in {waiter.asked for waiter in present}}
        answered = [waiter for waiter in present if not held[waiter.asked] or waiter in over]
        if answered:
            states = await self._states(account, revision, held)
            valid = await self._reads.tokens({waiter.token_id for waiter in answered})
            outcomes = {asked: Waited(state, self._stopping.is_set(), {}) for asked, state in states.items()}
            refusal = unknown_token()
            await room.tell((waiter, outcomes[waiter.asked] if waiter.token_id in valid else refusal) for waiter in answered)
        for waiter in present:
            waiter.is_new = False
        return not all(held.values())

    async def _states(self, account: str, present: Revision, held: dict[ListRequest, bool]) -> dict[ListRequest, ListState]:
        """Read what each request gets: one delta for all that hold the same list."""
        unchanged = ListState(present, None)
        read: dict[frozenset[Revision], ListState] = {frozenset(): unchanged}
        states = {}
        for asked, is_held in held.items():
            bases = frozenset(() if is_held else asked.bases)
            if bases not in read:
                read[bases] = await self._reads.state(account, bases)
            states[asked] = read[bases]
        return states

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
