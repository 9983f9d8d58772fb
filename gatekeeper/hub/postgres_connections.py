"""Connections to PostgreSQL whose statements have a deadline. Needs the extra `postgres`.

A server that is stopped, or a network that drops packets, ends no statement. Cancelling one asks the server too, which takes
psycopg up to 10 s more. So the deadline ends the connection, and the pool replaces it.
"""

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.abc import PQGen

__all__ = ("AsyncConnection", "Connection")

Result = TypeVar("Result")


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """A connection for an event loop.

    Attributes:
        deadline: the longest silence of the server during a statement, in seconds. BEGIN and COMMIT are statements too.
        was_silent: whether a statement has reached the deadline.
    """

    deadline = 5.0
    was_silent = False

    async def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        """Run a statement. psycopg calls this for each one.

        Args:
            gen: the statement, as a generator of psycopg.
            args: further arguments of psycopg.
            options: further arguments of psycopg.

        Returns:
            The result of the generator.

        Raises:
            psycopg.OperationalError: the server was silent for longer than the deadline, or the connection failed.
        """
        loop = asyncio.get_running_loop()
        overdue = loop.call_later(self.deadline, _shut_down, self)

        def wait_on(*, is_heard: bool) -> None:
            nonlocal overdue
            if is_heard:
                overdue.cancel()
                overdue = loop.call_later(self.deadline, _shut_down, self)

        # psycopg would wake ten times a second to see whether it was interrupted, which a coroutine learns by itself.
        options.setdefault("interval", self.deadline)
        try:
            # A pipeline of 10,000 statements is one call, of which each answer is a sign of life.
            return await super().wait(_listen(gen, wait_on), *args, **options)
        except psycopg.OperationalError:
            if self.was_silent:
                raise _silence(self) from None
            raise
        finally:
            overdue.cancel()


class Connection(psycopg.Connection[Any]):
    """A connection for code that blocks.

    Attributes:
        deadline: as of AsyncConnection. It is looked at ten times a second, whenever psycopg looks for interrupts.
    """

    deadline = 5.0

    def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        """Run a statement, as AsyncConnection does."""
        overdue_at = time.monotonic() + self.deadline

        def wait_on(*, is_heard: bool) -> None:
            nonlocal overdue_at
            if is_heard:
                overdue_at = time.monotonic() + self.deadline
            elif time.monotonic() >= overdue_at:
                self.close()
                raise _silence(self)

        return super().wait(_listen(gen, wait_on), *args, **options)


class _OnWake(Protocol):
    def __call__(self, *, is_heard: bool) -> None: ...


def _listen(gen: PQGen[Result], on_wake: _OnWake) -> PQGen[Result]:
    """Run a statement of psycopg, and tell at each wake whether the server takes or sends something."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            on_wake(is_heard=bool(ready))
            wanted = gen.send(ready)
    except StopIteration as end:
        result: Result = end.value
        return result


def _shut_down(connection: AsyncConnection) -> None:
    connection.was_silent = True
    # The driver then finds the connection closed. A duplicate, because it owns its descriptor; shutting down affects both.
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _silence(connection: AsyncConnection | Connection) -> psycopg.OperationalError:
    return psycopg.OperationalError(f"the server was silent for {connection.deadline:g} s")
