"""Pool, Transaction: the connections of a database, and their threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import anyio
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from gatekeeper.hub.turns import Turns

__all__ = ("Pool", "Transaction")

Result = TypeVar("Result")


class Pool:
    """An engine, with turns and threads for its connections.

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
        a question before each one.

        Returns:
            The connection. It is given back when it is closed, and what is not committed by then is rolled back.

        Raises:
            sqlalchemy.exc.DBAPIError: the database does not answer.
        """
        try:
            return self._begin()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # All connections of the pool that are as old have been replaced.
        return self._begin()

    def _begin(self) -> Connection:
        with ExitStack() as failing:
            connection = failing.enter_context(self.engine.connect())
            connection.begin()
            failing.pop_all()
        return connection

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
                await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise
        return running.result()

    async def close(self) -> None:
        """Close all connections. The last one to a SQLite file merges its write-ahead log into it."""
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
