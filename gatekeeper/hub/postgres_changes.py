"""PostgresChanges: tells a worker that another one has changed keys. Needs the extra `postgres`.

Each change notifies all workers, in its transaction (PostgreSQL documentation, NOTIFY). A worker hears that over a direct
connection, which it opens for the first request that waits, and keeps. A hub without waiting requests needs none, and nor
does a command that mints a token.

A connection that is silent may be broken, or be one of PgBouncer's, over which no notification ever comes. So the worker
notifies itself over another connection, to where its changes go, whenever it has heard nothing for a second. As long as it
hears nothing, it reads the revisions of the accounts for whose change requests wait.

That connection is kept as well. A transaction of the pool would take two statements more, and a thread.
"""

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import psycopg

from gatekeeper.errors import DatabaseDown, HubOverloaded
from gatekeeper.hub.accounts import CHANNEL
from gatekeeper.hub.changes import Watch

if TYPE_CHECKING:
    from gatekeeper.hub.postgres_connections import AsyncConnection

__all__ = ("PostgresChanges", "Times")

_FIRST_PAUSE: Final = 1.0  # Seconds, at most, before the connection is opened again after it has worked.

_HINT: Final = "Name a direct connection to the server: `gatekeeper hub --listen-database`, or create_hub(listen_database=…)"

_log = logging.getLogger(__name__)


class _Pooled(Exception):
    """The connection leads to a pooler, which may serve each statement with another connection."""


class Times(NamedTuple):
    """How soon things happen, in seconds.

    Attributes:
        probe: the silence after which the worker notifies itself, and the time between two such notifications.
        proven: how long a notification proves that the connection works.
        reread: the time between two reads while a connection that has worked is silent.
        read: the same while there is none that has worked.
        give_up: how long a connection may not hear a notification of the worker to itself.
        longest_pause: the longest pause before another connection. The first one takes up to a second.
    """

    probe: float = 1.0
    proven: float = 2.0
    reread: float = 1.0
    read: float = 0.25
    give_up: float = 5.0
    longest_pause: float = 30.0


class PostgresChanges:
    """Listens to PostgreSQL's notifications, and reads revisions while it hears none.

    Args:
        connect: opens a connection of its own to listen, which commits each statement.
        connect_to_notify: the same, to where changes are written.
        times: how soon things happen.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable["AsyncConnection"]],
        connect_to_notify: Callable[[], Awaitable["AsyncConnection"]],
        *,
        times: Times = Times(),  # noqa: B008 - it is immutable
    ) -> None:
        self._connect = connect
        self._connect_to_notify = connect_to_notify
        self._times = times
        self._listening = asyncio.Event()
        self._heard_at = -math.inf
        self._unheard_since: float | None = None
        self._is_behind = True
        self._is_deaf = False

    async def follow(self, watch: Watch) -> None:
        """Tell of changes until cancelled.

        Args:
            watch: who is told.
        """
        self._listening = asyncio.Event()  # of this event loop
        await watch.begun()
        # psycopg may swallow a cancellation on Python 3.11 (https://github.com/psycopg/psycopg/issues/1413). This group
        # cancels its tasks until they have ended.
        async with anyio.create_task_group() as group:
            for each in (self._keep_listening, self._keep_probing, self._keep_reading):
                group.start_soon(each, watch)

    async def _keep_listening(self, watch: Watch) -> None:
        longest = _FIRST_PAUSE
        while True:
            try:
                async with _opened(self._connect) as connection:
                    await self._listen(connection, watch)
                reason = f"no notification comes over its connection. {_HINT}"
            except _Pooled:
                reason = f"its connection is one of a pooler. {_HINT}"
            except (psycopg.Error, OSError) as error:
                reason = " ".join(str(error).split())
            self._listening.clear()
            longest = _FIRST_PAUSE if self._has_heard else min(2 * longest, self._times.longest_pause)
            self._heard_at = -math.inf
            if not self._is_deaf:
                self._is_deaf = True
                _log.warning("the hub hears of no change from PostgreSQL, and reads revisions instead: %s", reason)
            await asyncio.sleep(longest * random.random())  # noqa: S311 - several workers shall not come at once

    async def _listen(self, connection: "AsyncConnection", watch: Watch) -> None:
        """Listen until the connection fails, or does not hear what the worker tells itself."""
        serving = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
        if serving != (connection.info.backend_pid,):
            raise _Pooled
        await connection.execute(f"LISTEN {CHANNEL}")
        # What has changed before was not heard.
        self._unheard_since, self._is_behind = None, True
        self._listening.set()
        while not self._is_unheard:
            async for notification in connection.notifies(timeout=self._times.probe):
                self._hear()
                if notification.payload:
                    watch.look(notification.payload)

    def _hear(self) -> None:
        self._heard_at, self._unheard_since = _now(), None
        if self._is_deaf:
            self._is_deaf = False
            _log.warning("the hub hears of changes from PostgreSQL again")

    async def _keep_probing(self, watch: Watch) -> None:
        while True:
            await watch.begun()
            await self._listening.wait()
            # A server that does not answer says nothing of what the worker hears.
            with suppress(psycopg.Error, OSError):
                async with _opened(self._connect_to_notify) as connection:
                    await self._probe(connection, watch)
            await asyncio.sleep(self._times.probe)

    async def _probe(self, connection: "AsyncConnection", watch: Watch) -> None:
        """Notify the worker until the connection fails."""
        while True:
            await watch.begun()
            await self._listening.wait()
            begun = _now()
            if begun - self._heard_at >= self._times.probe:
                await connection.execute(f"NOTIFY {CHANNEL}")
                if self._heard_at < begun and self._unheard_since is None:
                    self._unheard_since = _now()
            await asyncio.sleep(self._times.probe)

    async def _keep_reading(self, watch: Watch) -> None:
        while True:
            await watch.begun()
            if self._is_behind or _now() - self._heard_at > self._times.proven:
                self._is_behind = False
                try:
                    await watch.look_at_all()
                except (DatabaseDown, HubOverloaded):
                    self._is_behind = True
            await asyncio.sleep(self._times.reread if self._is_behind or self._has_heard else self._times.read)

    @property
    def _has_heard(self) -> bool:
        return self._heard_at > -math.inf

    @property
    def _is_unheard(self) -> bool:
        return self._unheard_since is not None and _now() - self._unheard_since >= self._times.give_up


@asynccontextmanager
async def _opened(connect: Callable[[], Awaitable["AsyncConnection"]]) -> AsyncIterator["AsyncConnection"]:
    """Open a connection, and close it without a rollback.

    A cancellation would end the rollback, and leave the connection open.
    """
    connection = await connect()
    try:
        yield connection
    finally:
        await connection.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
