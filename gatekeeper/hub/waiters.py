"""Waiters: the requests for a list that wait until it changes.

A request is registered before the revision of its account is read, so that no change falls in between. Each account with
waiting requests has one task that looks at it: the task reads the revision and answers the requests whose list has changed,
and those whose time is over. A change, a new request and the end of a wait all just ask for a look, and share it.

All requests that a change concerns are answered in one sweep, from one delta for each list that their clients hold. If these
are very many, those who do not hold the list of the last look may have to wait for another sweep.

Clients that are told of a change ask again at once, and all these requests take longer than the sweep. So after a sweep the
account is not looked at until the process has been idle for as long as it was busy since the sweep began, or for a quarter
of a second. A sweep that waited for a slow database is followed by a pause as long as itself, up to the same. Others may
keep the process busy for longer, so the pause takes at most a millisecond for each request that was answered. An import of
many keys then costs each client a few answers a second at most, and leaves the process half of its time.

A change is acknowledged after its sweep, because its owner may try at once what it has changed. Reading the answer takes the
processor, too: when it was sent before the sweep, it came 4 ms earlier, and four gates decided by the change no sooner
(benchmarks.live). Very many requests and a slow database delay an acknowledgement by 10 ms at most.

The list of all accounts has a room like that of an account. Each change is a reason to look at it, and names the account, so
that the look reads no other. New requests and those whose time is over get a look at all accounts.

A request waits in its own task, for the disconnect of its client. The sweep wakes it through a timeout without a time. That
takes a few hundred bytes, where a task for each of the two would take thousands.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Final, NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from gatekeeper.errors import DatabaseDown, HubOverloaded
from gatekeeper.hub.accounts import ALL_ACCOUNTS, Revision
from gatekeeper.hub.bearer import unknown_token
from gatekeeper.hub.changes import Changes
from gatekeeper.hub.deltas import ListState, Look
from gatekeeper.hub.list_request import ListRequest
from gatekeeper.hub.shared_reads import SharedReads
from gatekeeper.hub.tokens import Bearer
from gatekeeper.hub.waiting_room import Waited, Waiter, WaitingRoom

__all__ = ("MAX_WAITING", "Reads", "Waiters")

MAX_WAITING: Final = 10_000  # requests of a process, of up to 25 KB each
_SHARE: Final = 0.75  # of them, for one account

PAUSE: Final = 0.005  # Seconds between two sweeps, at least.
_IDLE: Final = 0.25  # Seconds without work after which there is no need for a longer pause.
_LONGEST_PAUSE: Final = 0.001  # Seconds for each answer; one takes a third of that, together with the client's next request.
RETRY_PAUSE: Final = 1.0  # Seconds until a read that has failed is repeated.
_DELTAS: Final = 20  # read in a sweep; the clients of an account rarely hold more lists
_PATIENCE: Final = 0.01  # Seconds until a change is acknowledged although not all that wait for it are answered.
_TICK: Final = 0.1  # Seconds; waits that end in the same tick share a read of the revision.

_log = logging.getLogger(__name__)


class Reads(NamedTuple):
    """What the waiters read. All raise DatabaseDown if the database does not answer.

    Attributes:
        revisions: reads the revisions of accounts, from a database that sees all changes at once; a standby does not. It
            leaves out accounts of which it knows none.
        tokens: reads which of these ids are those of valid tokens.
        look: reads the state of an account's list, with the way to it from these bases, and which of these tokens are
            valid. For the list of all accounts, it is told which of them may have changed since the last read;
            ALL_ACCOUNTS for any.
    """

    revisions: Callable[[Collection[str]], Awaitable[dict[str, Revision]]]
    tokens: Callable[[Collection[str]], Awaitable[set[str]]]
    look: Callable[[str, Collection[Revision], Collection[str], Collection[str]], Awaitable[Look]]


class Waiters:
    """The requests for a list that wait until it changes.

    Args:
        reads: what they read.
        changes: tells of changes by other processes.
        bound: the most requests that wait at a time. One account may have three quarters of them.
        pause: the shortest time between two sweeps, in seconds.
        used: a function that returns the processor time that the thread of the event loop has used, in seconds.
    """

    def __init__(
        self,
        reads: Reads,
        changes: Changes,
        *,
        bound: int = MAX_WAITING,
        pause: float = PAUSE,
        used: Callable[[], float] = time.thread_time,
    ) -> None:
        self._reads = reads
        self._changes = changes
        self._bound = bound
        self._pause = pause
        self._used = used
        self._revisions = SharedReads(reads.revisions)
        self._rooms: dict[str, WaitingRoom] = {}
        self._count = 0
        self._ends: dict[int, tuple[asyncio.TimerHandle, set[str]]] = {}
        self._begun = asyncio.Event()
        self._stopping = asyncio.Event()

    def __len__(self) -> int:
        """The number of requests that wait."""
        return self._count

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let requests wait until the block ends, which ends all waits."""
        # These belong to an event loop, and each lifespan may have another one.
        self._begun, self._stopping = asyncio.Event(), asyncio.Event()
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
        room = self._rooms.get(bearer.account)
        if self._count >= self._bound or (room is not None and len(room) >= self._bound * _SHARE):
            return None
        if room is None:
            room = self._rooms[bearer.account] = WaitingRoom()
        tick = math.ceil((asyncio.get_running_loop().time() + seconds) / _TICK)
        waiter = Waiter(asked, bearer.token_id, tick)
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
            room.remove(waiter)
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

        So does one that waits for the change of any account.

        Args:
            account: an account that may have changed; any name may be given.
        """
        for name, room in self._rooms_of(account):
            room.changed.add(account)
            self._look_in(name, room)

    async def tell(self, account: str) -> None:
        """Look at an account, and wait until its waiting requests are answered.

        This is best effort: it takes 10 ms at most, and does not wait for the end of a pause between two sweeps. Whole lists
        are read later.

        Args:
            account: an account that may have changed.
        """
        self.look(account)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                for _, room in self._rooms_of(account):
                    await room.swept.wait()

    async def look_at_all(self) -> None:
        """Read the revisions of all accounts for whose change a request waits.

        Raises:
            DatabaseDown: the database does not answer.
        """
        self.look(ALL_ACCOUNTS)
        accounts = tuple(account for account in self._rooms if account != ALL_ACCOUNTS)
        revisions = await self._reads.revisions(accounts) if accounts else {}
        for account in accounts:
            room = self._rooms.get(account)
            if room is not None and revisions.get(account) != room.known:
                self.look(account)

    async def _revision(self, account: str) -> Revision | None:
        if account == ALL_ACCOUNTS:
            # It may have to write before it reads, and no other account waits for that.
            return (await self._reads.revisions((account,))).get(account)
        return await self._revisions.get(account)

    def _rooms_of(self, account: str) -> list[tuple[str, WaitingRoom]]:
        """List the rooms that wait for a change of an account, by whose they are."""
        return [(name, room) for name in (account, ALL_ACCOUNTS) if (room := self._rooms.get(name))]

    def _look_in(self, account: str, room: WaitingRoom) -> None:
        room.is_due = True
        if room.attending is None:
            room.swept.clear()
            room.attending = asyncio.create_task(self._attend(account, room))

    async def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._changes.follow(self)
            except Exception:  # noqa: BLE001 - it is logged, and waits go on
                _log.exception("the hub failed to follow the changes of its database, and begins anew")
            await asyncio.sleep(RETRY_PAUSE)

    def _admit(self, account: str, room: WaitingRoom, waiter: Waiter) -> None:
        self._count += 1
        self._begun.set()
        room.add(waiter)
        if waiter.tick not in self._ends:
            timer = asyncio.get_running_loop().call_at(waiter.tick * _TICK, self._end, waiter.tick)
            self._ends[waiter.tick] = timer, set()
        self._ends[waiter.tick][1].add(account)
        self._look_in(account, room)

    def _end(self, tick: int) -> None:
        _, accounts = self._ends.pop(tick)
        for account in accounts:
            room = self._rooms.get(account)
            if room:
                room.end(tick)
                self._look_in(account, room)

    def _forget(self, account: str, room: WaitingRoom) -> None:
        if not room and not room.attending and self._rooms.get(account) is room:
            del self._rooms[account]

    async def _attend(self, account: str, room: WaitingRoom) -> None:
        loop = asyncio.get_running_loop()
        try:
            while room.is_due and room:
                if self._stopping.is_set():
                    room.end_all()
                room.is_due = False
                room.swept.clear()
                begun, used = loop.time(), self._used()
                # Those who come during the reads may know of a later change than the reads.
                new, over, groups = tuple(room.new), tuple(room.over), tuple(room.groups)
                try:
                    told = await self._sweep(account, room, over, groups)
                    if told or not room.is_due:
                        room.swept.set()
                    for waiter in new:
                        room.new.pop(waiter, None)
                    if told:
                        await self._rest(begun, used, told)
                except (DatabaseDown, HubOverloaded) as failure:
                    # The others go on waiting, which is easier on the database than if all asked again.
                    await room.tell((waiter, failure) for waiter in (*new, *over))
                    room.is_due = True
                    room.swept.set()
                    await self._sleep(RETRY_PAUSE)
                except Exception as error:  # noqa: BLE001 - the tasks of the requests raise it
                    await room.tell((waiter, error) for waiter in _members(room, groups))
        finally:
            room.attending = None
            room.swept.set()
            self._forget(account, room)

    async def _sweep(
        self, account: str, room: WaitingRoom, over: Collection[Waiter], groups: Collection[ListRequest]
    ) -> int:
        """Answer the requests for which it is time, and return their number if there was a change to tell of."""
        read: dict[frozenset[Revision], ListState] = {}
        checked: set[str] = set()
        valid: set[str] = set()
        changed, room.changed = room.changed, set()
        # The tags of thousands that ask for different things take too long to read at each look.
        kinds = {frozenset(asked.bases) for asked in groups} if changed and len(groups) <= _DELTAS else ()
        if len(kinds) == 1:
            # Other changes may have been told before the new ones came, and the end of a wait does not rely on being told.
            hint = (ALL_ACCOUNTS,) if room.new or over else changed
            # All hold the same list: one read tells its revision, what has changed, and who may know.
            (bases,) = kinds
            checked = {waiter.token_id for waiter in _members(room, groups)}
            read[bases], valid = await self._reads.look(account, bases, hint, checked)
        revision = next(iter(read.values())).revision if read else await self._revision(account)
        former, room.known = room.known, revision
        if revision is None:
            await room.tell((waiter, None) for waiter in _members(room, groups))
            return 0
        unheld = [asked for asked in groups if not asked.names(revision.etag)]
        wanted = _by_bases(unheld, former)
        # The rest has another sweep, so that those who name many other lists delay no one else.
        room.is_due = room.is_due or len(wanted) > _DELTAS
        told = dict(islice(wanted.items(), _DELTAS))
        held = set(groups).difference(unheld)
        ended = [waiter for waiter in over if waiter.asked in held]
        answered = dict.fromkeys((*_members(room, (asked for each in told.values() for asked in each)), *ended))
        if answered:
            states = {asked: ListState(revision, None) for asked in held}
            for each, asking in told.items():
                if not each:
                    read[each] = ListState(revision, None)
                elif each not in read:
                    read[each], _ = await self._reads.look(account, each, (), ())
                states.update(dict.fromkeys(asking, read[each]))
            if unchecked := {waiter.token_id for waiter in answered} - checked:
                valid = valid | await self._reads.tokens(unchecked)
            outcomes = {asked: Waited(state, self._stopping.is_set(), {}) for asked, state in states.items()}
            refusal = unknown_token()
            await room.tell((waiter, outcomes[waiter.asked] if waiter.token_id in valid else refusal) for waiter in answered)
        return len(answered) if unheld else 0

    async def _rest(self, begun: float, used: float, told: int) -> None:
        """Wait after a sweep.

        Args:
            begun: when it began.
            used: the processor time that had been used then.
            told: how many requests it has answered.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        earliest = now + max(min(now - begun, _IDLE), self._pause)
        latest = max(earliest, now + told * _LONGEST_PAUSE)
        while not self._stopping.is_set():
            busy = self._used() - used
            left = min(max(begun + busy + min(busy, _IDLE), earliest), latest) - loop.time()
            if left <= 0:
                return
            # The look at the time takes some, too.
            await self._sleep(max(left, self._pause))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _members(room: WaitingRoom, groups: Iterable[ListRequest]) -> list[Waiter]:
    return [waiter for asked in groups for waiter in room.groups.get(asked, ())]


def _by_bases(unheld: Iterable[ListRequest], former: Revision | None) -> dict[frozenset[Revision], list[ListRequest]]:
    """Group requests by the lists from which a delta may start.

    Those that hold the list of the last look share one delta, whatever else they name, and come first. So do those that take
    no delta.
    """
    last = frozenset(() if former is None else (former,))
    wanted: dict[frozenset[Revision], list[ListRequest]] = {frozenset(): [], last: []}
    for asked in unheld:
        bases = frozenset(asked.bases)
        wanted.setdefault(last if former in bases else bases, []).append(asked)
    return {bases: asking for bases, asking in wanted.items() if asking}
