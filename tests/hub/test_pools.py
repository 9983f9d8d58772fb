"""Pool, Transaction: a turn, a connection and a thread end together, whatever is cancelled."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import QueuePool

from gatekeeper.hub.database import Database
from gatekeeper.hub.engines import Engines
from gatekeeper.hub.pools import Pool, Transaction
from gatekeeper.hub.sqlite import SqliteFile

from .support import eventually

pytestmark = pytest.mark.anyio

SOON = 0.05  # seconds
COUNT = text("SELECT count(*) FROM accounts WHERE name = 'acme'")
ADD = text("INSERT INTO accounts (name, revision, revision_mark, created_at) VALUES ('acme', 1, '', '2026-01-02')")


class Held:
    """Work that goes on until it is told to end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ending = threading.Event()
        self.has_ended = False

    def __call__(self, *_: object) -> None:
        """Work."""
        self.begun.set()
        assert self.ending.wait(20)
        self.has_ended = True


async def settled() -> None:
    """Let other tasks run as far as they can without a thread."""
    for _ in range(10):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[Any], held: Held, times: int) -> None:
    """Cancel a task while its thread works, and see it wait for the end of that."""
    await eventually(held.begun.is_set)
    for _ in range(times):
        task.cancel()
        await settled()
        assert not task.done()


async def gives_back(pool: Pool, task: asyncio.Task[Any], held: Held) -> None:
    """Let the thread of a cancelled task end, and see the turn and the connection given back no sooner."""
    assert in_use(pool) == (1, 1)
    held.ending.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert in_use(pool) == (0, 0)


def add(connection: Connection) -> None:
    """Add an account."""
    connection.execute(ADD)


def count(connection: Connection) -> int:
    """Count the accounts."""
    return int(connection.scalar(COUNT) or 0)


def in_use(pool: Pool) -> tuple[int, int]:
    """Count the connections that are in use, and the turns that are held."""
    assert isinstance(pool.engine.pool, QueuePool)
    return pool.engine.pool.checkedout(), pool.turns.held


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """A pool of five connections to an empty file."""
    pool = SqliteFile(tmp_path / "hub.db").engines().reader
    yield pool
    pool.engine.dispose()


@pytest.fixture
async def database(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:  # noqa: ARG001 - makes the fixture async
    """An open database."""
    database = Database(SqliteFile(tmp_path / "hub.db"))
    await database.open("check")
    yield database
    await database.close()


@pytest.fixture
def engines(database: Database) -> Engines:
    """The engines of the database."""
    assert database._engines is not None
    return database._engines


# Functions


async def test_a_function_runs_in_a_thread_of_the_pool(pool: Pool) -> None:
    assert (await pool.run(threading.current_thread)).name.startswith("gatekeeper-hub")
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancelled_task_waits_for_the_end_of_its_thread(pool: Pool, times: int) -> None:
    held = Held()
    task = asyncio.create_task(pool.run(held))
    await cancelled(task, held, times)
    held.ending.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held.has_ended


async def test_a_cancelled_scope_waits_for_the_end_of_its_thread(pool: Pool) -> None:
    held, scope, reached = Held(), anyio.CancelScope(), []

    async def run() -> None:
        with scope:
            await pool.run(held)
            reached.append(held.has_ended)
            await asyncio.sleep(0)
            reached.append(False)

    task = asyncio.create_task(run())
    await eventually(held.begun.is_set)
    scope.cancel()
    await settled()
    assert not task.done()
    held.ending.set()
    await task
    assert reached == [True]


async def test_the_failure_of_a_cancelled_function_is_not_logged(pool: Pool) -> None:
    held, logged = Held(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))

    def fail() -> None:
        held()
        raise ZeroDivisionError

    task = asyncio.create_task(pool.run(fail))
    await cancelled(task, held, 1)
    held.ending.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    await settled()
    assert logged == []


# Connections


def test_a_connection_that_was_closed_meanwhile_is_replaced(pool: Pool) -> None:
    with pool.begun() as connection:
        closed: Any = connection.connection.driver_connection
    closed.close()
    with pool.begun() as connection:
        assert connection.connection.driver_connection is not closed
        assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize(("before", "made"), [(0, 1), (1, 2)], ids=["new", "stale"])
def test_only_a_connection_that_has_worked_is_replaced(pool: Pool, before: int, made: int) -> None:
    connections: list[Any] = []

    def close_later_ones(connection: Any, _record: object) -> None:
        connections.append(connection)
        if len(connections) > before:
            connection.close()

    event.listen(pool.engine, "connect", close_later_ones)
    for _ in range(before):
        pool.begun().close()
    for each in connections:
        each.close()
    with pytest.raises(ProgrammingError, match="closed database"):
        pool.begun()
    assert len(connections) == made
    assert in_use(pool) == (0, 0)


# Transactions


async def test_a_transaction_stays_open_between_its_functions(database: Database, engines: Engines) -> None:
    async with database.transaction("writer") as transaction:
        await transaction.run(add)
        assert await transaction.run(count) == 1
        assert await database.read(count) == 0
        assert in_use(engines.writer) == (1, 1)
    assert await database.read(count) == 1
    assert in_use(engines.writer) == in_use(engines.reader) == (0, 0)


async def test_an_exception_rolls_a_transaction_back(database: Database, engines: Engines) -> None:
    def add_and_fail(connection: Connection) -> None:
        add(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(add_and_fail)
    with pytest.raises(ZeroDivisionError):
        async with database.transaction("writer") as transaction:
            await transaction.run(add_and_fail)
    assert await database.read(count) == 0
    assert in_use(engines.writer) == (0, 0)


def test_a_transaction_that_has_not_begun_can_be_closed(pool: Pool) -> None:
    Transaction(pool).close()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_write_goes_on_to_its_end(database: Database, engines: Engines, times: int) -> None:
    held = Held()

    def add_later(connection: Connection) -> None:
        held()
        add(connection)

    writing = asyncio.create_task(database.write(add_later))
    await cancelled(writing, held, times)
    await gives_back(engines.writer, writing, held)
    assert await database.read(count) == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_transaction_is_rolled_back_after_its_function(
    database: Database, engines: Engines, times: int
) -> None:
    held = Held()

    async def write() -> None:
        async with database.transaction("writer") as transaction:
            await transaction.run(add)
            await transaction.run(held)

    writing = asyncio.create_task(write())
    await cancelled(writing, held, times)
    await gives_back(engines.writer, writing, held)
    assert await database.read(count) == 0


# The end


async def test_a_database_is_closed_after_the_functions_that_run(database: Database) -> None:
    held = Held()
    reading = asyncio.create_task(database.read(held))
    await eventually(held.begun.is_set)
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(SOON)
    assert not closing.done()
    held.ending.set()
    await asyncio.gather(reading, closing)
    assert held.has_ended


async def test_a_database_is_closed_after_the_transactions_that_are_open(database: Database, tmp_path: Path) -> None:
    async with database.transaction("writer") as transaction:
        closing = asyncio.create_task(database.close())
        await settled()
        await transaction.run(add)
    await closing
    assert not Path(f"{tmp_path}/hub.db-wal").exists()  # noqa: ASYNC240 - of this test alone
    again = Database(SqliteFile(tmp_path / "hub.db"))
    await again.open("check")
    assert await again.read(count) == 1
    await again.close()
