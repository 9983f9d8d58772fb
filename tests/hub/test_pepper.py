"""The pepper of a database, and what happens with another one."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from gatekeeper.errors import ConfigError
from gatekeeper.hub import create_hub, migrate
from gatekeeper.hub.minting import Mint, random_text
from gatekeeper.hub.tables import pepper_check

from .conftest import NewDatabase
from .support import PEPPER, RunningHub, create, execute, list_rows, running_hub

pytestmark = pytest.mark.anyio

ANOTHER = "a pepper from somewhere else"
START = """
import asyncio, sys
from gatekeeper.errors import ConfigError
from gatekeeper.hub import create_hub

async def start():
    app = create_hub(sys.argv[1], pepper=sys.argv[2])
    async with app.router.lifespan_context(app):
        print("started")

try:
    asyncio.run(start())
except ConfigError:
    print("refused")
"""


def started_together(database: str | Path, peppers: list[str]) -> list[str]:
    """Start a hub in a process for each pepper, and tell what each did."""
    workers = [
        subprocess.Popen([sys.executable, "-c", START, str(database), pepper], stdout=subprocess.PIPE, text=True)
        for pepper in peppers
    ]
    return sorted(worker.communicate()[0].strip() for worker in workers)


async def forget_the_pepper(running: RunningHub) -> None:
    """Make the database one from before the check."""
    await execute(running, delete(pepper_check))


async def test_another_pepper_stops_the_start(new_database: NewDatabase) -> None:
    """Such a hub would refuse every token, as if each one were revoked."""
    database = new_database()
    async with running_hub(database) as running:
        row = await create(await running.client("acme"))
        token = await running.hub.tokens.mint("acme", name="ci")
    app = create_hub(database, pepper=ANOTHER)
    with pytest.raises(ConfigError, match="use the former pepper") as raised:
        async with app.router.lifespan_context(app):
            pytest.fail("started")
    for pepper in (PEPPER, ANOTHER):
        assert pepper not in str(raised.value)
        assert Mint(pepper, random_text).check_value() not in str(raised.value)
    async with running_hub(database) as again:
        client = await again.client_with({"Authorization": f"Bearer {token}"})
        assert await list_rows(client) == [row]


async def test_an_empty_database_is_tied_to_the_pepper_of_its_first_start(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database):
        pass
    with pytest.raises(ConfigError, match="the pepper is not that of the database"):
        async with running_hub(database, pepper=ANOTHER):
            pytest.fail("started")


async def test_a_migration_alone_ties_no_pepper(new_database: NewDatabase) -> None:
    """It may run before the pepper is deployed."""
    database = new_database()
    migrate(database)
    async with running_hub(database, pepper=ANOTHER):
        pass
    migrate(database)


async def test_a_database_from_before_the_check_accepts_one_pepper_and_warns(
    new_database: NewDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Its hashes alone do not show their pepper."""
    database = new_database()
    async with running_hub(database) as running:
        await running.client("acme")
        assert caplog.records == []
        await forget_the_pepper(running)
    for _ in range(2):
        async with running_hub(database):
            assert ["had no check of its pepper" in record.message for record in caplog.records] == [True]
    with pytest.raises(ConfigError):
        async with running_hub(database, pepper=ANOTHER):
            pytest.fail("started")


async def test_the_database_has_the_check_value_and_not_the_pepper(hub: RunningHub) -> None:
    kept = select(pepper_check.c.check_value)
    stored = await hub.database.read(lambda connection: connection.scalars(kept).all())
    assert stored == [Mint(PEPPER, random_text).check_value()]
    assert PEPPER not in stored[0]


@pytest.mark.process
async def test_workers_with_one_pepper_can_start_together(new_database: NewDatabase) -> None:
    assert await asyncio.to_thread(started_together, new_database(), [PEPPER] * 3) == ["started"] * 3


@pytest.mark.process
async def test_of_two_peppers_that_start_together_one_is_refused(new_database: NewDatabase) -> None:
    assert await asyncio.to_thread(started_together, new_database(), [PEPPER, ANOTHER]) == ["refused", "started"]
