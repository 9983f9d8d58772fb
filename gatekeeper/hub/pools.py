"""Pool, Transaction: the connections of a database, and their threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Final, TypeVar

import anyio
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.turns import Turns

__all__ = ("Pool", "Transaction")

_HAS_BEGUN: Final = "gatekeeper: has begun a transaction"  # in the `info` of a connection

Result = TypeVar("Result")


class Pool:
    """An engine, turns at its connections, and a thread for each turn.

    A transaction takes one thread from its begin to its commit. An asynchronous driver passes each statement to a thread or
    back to the event loop several times, which takes five times as long (SQLite: 1.1 ms in place of 0.2 for a read).

    Args:
        engine: has as many connections as there are turns, so that SQLAlchemy never waits for one.
        turns: the turns.

    Attributes:
        engine: as given.
        turns: as given.
    """

    def __init__(self, engine: Engine, turns: Turns) -> None:
        self.engine = engine
        self.turns = turns
        self._threads = ThreadPoolExecutor(turns.places, thread_name_prefix="gatekeeper-hub")

    def begun(self) -> Connection:
        """Begin a transaction. This blocks.

        A server that was restarted has closed the connections of the pool. That shows at the begin of a transaction, without
        a question before each one. A connection that was made for this transaction is not made again.

        Returns:
            The connection. It is given back when it is closed, and what is not committed by then is rolled back.

        Raises:
            sqlalchemy.exc.DBAPIError: the database does not answer.
        """
        connection = self.engine.connect()
        may_be_stale = _HAS_BEGUN in connection.info
        try:
            return _begin(connection)
        except DBAPIError as error:
            if not (may_be_stale and error.connection_invalidated):
                raise
        # All connections of the pool that are as old have been replaced.
        return _begin(self.engine.connect())

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run a function in a thread.

        A thread cannot be stopped, so a cancellation waits for its end.

        Args:
            work: the function.

        Returns:
            What it returns.

        Raises:
            Exception: what it raises.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        with anyio.CancelScope(shield=True):
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                # A task may be cancelled more than once. Its turn and its connection must not be given back before.
                while not running.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([running])
                running.exception()  # Otherwise the event loop logs that it was never retrieved.
                raise
        return running.result()

    async def close(self) -> None:
        """Close all connections, after the transactions that run.

        The last connection to a SQLite file merges its write-ahead log into it.
        """
        async with AsyncExitStack() as turns:
            try:
                # A transaction that takes longer than the patience is left to its own end.
                with suppress(HubOverloaded):
                    for _ in range(self.turns.places):
                        await turns.enter_async_context(self.turns.taking(""))
            finally:
                await self.run(self.engine.dispose)
                self._threads.shutdown(wait=False)


class Transaction:
    """A transaction of several functions, between which it stays open.

    Args:
        pool: where its connection comes from, and the threads of its functions.
    """

    _connection: Connection

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._opened = ExitStack()

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        """Run a function in a thread.

        Args:
            work: the function. It is given the connection.

        Returns:
            What it returns.
        """
        return await self._pool.run(lambda: work(self._connection))

    def begin(self) -> None:
        """Take a connection, and begin. This blocks, and so do the methods below."""
        self._connection = self._opened.enter_context(self._pool.begun())

    def commit(self) -> None:
        """Commit."""
        self._connection.commit()

    def close(self) -> None:
        """Give the connection back. What is not committed is rolled back."""
        self._opened.close()


def _begin(connection: Connection) -> Connection:
    """Begin a transaction of a connection, which is given back if that fails."""
    with ExitStack() as failing:
        failing.enter_context(connection)
        connection.begin()
        failing.pop_all()
    connection.info[_HAS_BEGUN] = True
    return connection
