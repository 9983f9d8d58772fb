"""GET /healthz and GET /readyz."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from gatekeeper.errors import DatabaseDown
from gatekeeper.hub.database import Database
from gatekeeper.hub.health import Readiness
from gatekeeper.hub.sqlite import SqliteFile

from .support import RunningHub, assert_problem, running_hub

pytestmark = pytest.mark.anyio

FRAME = 24 + 4096  # bytes of a page in SQLite's write-ahead log, with its header


@pytest.mark.parametrize(("path", "status"), [("/healthz", "alive"), ("/readyz", "ready")])
async def test_health_checks_need_no_token(hub: RunningHub, path: str, status: str) -> None:
    stranger = await hub.client_with({})
    answer = await stranger.get(path)
    assert (answer.status_code, answer.json()) == (httpx.codes.OK, {"status": status})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
async def test_another_method_is_a_405(hub: RunningHub, path: str) -> None:
    stranger = await hub.client_with({})
    answer = await stranger.post(path)
    assert_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
async def running(anyio_backend: str, database: Path) -> AsyncIterator[RunningHub]:  # noqa: ARG001 - makes the fixture async
    """A hub that waits for the lock of another process for a moment."""
    async with running_hub(Database(SqliteFile(database, busy_timeout=0.05))) as running:
        yield running


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Write to the database from another connection, without an end."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def writes(database: Path) -> int:
    """Count the pages that were written since the start; a check writes one."""
    log = Path(f"{database}-wal")
    return log.stat().st_size // FRAME if log.exists() else 0


async def test_a_database_that_cannot_be_written_is_not_ready(running: RunningHub, database: Path) -> None:
    stranger = await running.client_with({})
    with locked(database):
        for _ in range(2):
            answer = await stranger.get("/readyz")
            assert_problem(answer, 503, "database_down")
            assert answer.headers["Retry-After"]
            assert (await stranger.get("/healthz")).status_code == httpx.codes.OK
    assert (await stranger.get("/readyz")).status_code == httpx.codes.OK


async def test_concurrent_checks_share_one_write(running: RunningHub, database: Path) -> None:
    now = 0.0
    readiness = Readiness(running.database, write_interval=5.0, clock=lambda: now)
    before = writes(database)
    await asyncio.gather(*(readiness.check() for _ in range(100)))
    assert writes(database) == before + 1
    now = 4.9
    await readiness.check()
    assert writes(database) == before + 1
    now = 5.0
    await asyncio.gather(*(readiness.check() for _ in range(100)))
    assert writes(database) == before + 2
    await readiness.close()


async def test_a_failed_check_writes_again_at_the_next(running: RunningHub, database: Path) -> None:
    now = 0.0
    readiness = Readiness(running.database, clock=lambda: now)
    await readiness.check()
    before = writes(database)
    now = 60.0
    with locked(database), pytest.raises(DatabaseDown, match="locked"):
        await readiness.check()
    assert writes(database) == before
    await readiness.check()
    assert writes(database) == before + 1
    await readiness.close()


async def test_an_impatient_request_leaves_the_check_to_others(database: Path) -> None:
    async with running_hub(Database(SqliteFile(database, busy_timeout=60.0))) as running:
        readiness = Readiness(running.database, patience=0.02)
        tasks = asyncio.all_tasks()
        with locked(database):
            for _ in range(3):
                with pytest.raises(DatabaseDown, match="no answer within"):
                    await readiness.check()
            assert len(asyncio.all_tasks() - tasks) == 1
        await readiness.close()
        await Readiness(running.database).check()
        assert asyncio.all_tasks() == tasks


async def test_a_hub_stops_while_a_check_waits(database: Path) -> None:
    tasks = asyncio.all_tasks()
    async with running_hub(Database(SqliteFile(database, busy_timeout=0.2))) as running:
        readiness = Readiness(running.database, patience=0.02)
        with locked(database):
            with pytest.raises(DatabaseDown):
                await readiness.check()
            await readiness.close()
    assert asyncio.all_tasks() == tasks
