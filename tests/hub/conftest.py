"""A hub for each test, over a new database of each kind."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests import needs
from tests.support.postgres import PostgresCluster

from .support import RunningHub, running_hub

NewDatabase = Callable[[], str | Path]


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, whose tasks and futures the hub uses."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """Run a PostgreSQL server."""
    with PostgresCluster(needs.postgres()) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Make empty databases."""
    if request.param == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        return cluster.create_schema
    made = 0

    def new_file() -> Path:
        nonlocal made
        made += 1
        directory = tmp_path / f"database-{made}"
        directory.mkdir()
        return directory / "hub.db"

    return new_file


@pytest.fixture
async def hub(anyio_backend: str, new_database: NewDatabase) -> AsyncIterator[RunningHub]:  # noqa: ARG001 - makes the fixture async
    """Run a hub."""
    async with running_hub(new_database()) as running:
        yield running


@pytest.fixture
async def acme(hub: RunningHub) -> httpx.AsyncClient:
    """A client of the account acme."""
    return await hub.client("acme")


@pytest.fixture
async def globex(hub: RunningHub) -> httpx.AsyncClient:
    """A client of the account globex."""
    return await hub.client("globex")
