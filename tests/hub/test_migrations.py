"""Migrations from empty and from older databases."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url

from gatekeeper.errors import ConfigError
from gatekeeper.hub import migrate
from gatekeeper.hub.tables import metadata
from tests.support.postgres import PostgresCluster

from .conftest import NewDatabase
from .support import PATH, create, list_rows, running_hub

pytestmark = pytest.mark.anyio

BEFORE_MIGRATIONS = Path(__file__).parent / "before_migrations.sql"
TOKEN = "sk_live_acme_8EuTO7rBkoM0Z7mx8GlGFiiRK566aE9R"
NEWEST = "0008"


def differences(database: str | Path) -> list[object]:
    """Compare the tables of a database with the metadata."""
    url = f"sqlite:///{database}"
    if isinstance(database, str):
        url = make_url(database).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        found: list[object] = compare_metadata(context, metadata)
    engine.dispose()
    return found


@pytest.fixture
def before_migrations(tmp_path: Path) -> Path:
    """Make a database from before migrations, with a token and a key."""
    database = tmp_path / "hub.db"
    connection = sqlite3.connect(database)
    connection.executescript(BEFORE_MIGRATIONS.read_text(encoding="utf-8"))
    connection.close()
    return database


def test_migrations_create_the_tables_of_the_metadata(new_database: NewDatabase) -> None:
    database = new_database()
    migrate(database)
    assert differences(database) == []


async def test_migrating_again_changes_nothing(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as running:
        client = await running.client("acme")
        row = await create(client)
        migrate(database)
        assert await list_rows(client) == [row]
    assert differences(database) == []


async def test_a_database_from_before_migrations_keeps_its_tokens_and_keys(before_migrations: Path) -> None:
    async with running_hub(before_migrations) as running:
        client = await running.client_with({"Authorization": f"Bearer {TOKEN}"})
        (row,) = await list_rows(client)
        assert (row["name"], row["last8"], row["domain_allowlist"]) == ("shop", "OX7aPG6b", ["acme.com"])
        assert (row["agent_id"], row["use_count"], row["last_used_at"]) == ("agent-7", 0, None)
        assert (await client.get(f"{PATH}/{row['id']}/events")).json() == []
        await create(client, name="second")
        assert [listed["name"] for listed in await list_rows(client)] == ["shop", "second"]
        assert (await client.delete(f"{PATH}/{row['id']}")).status_code == 204
        assert [token.scope for token in await running.hub.tokens.list()] == ["admin"]
        assert await list_rows(await running.client_of_all()) == [
            {**listed, "account": "acme"} for listed in await list_rows(client)
        ]
    assert differences(before_migrations) == []


def test_a_failed_migration_is_rolled_back(before_migrations: Path) -> None:
    connection = sqlite3.connect(before_migrations)
    connection.execute("CREATE TABLE events (in_the_way INTEGER)")
    connection.commit()
    before = list(connection.iterdump())
    with pytest.raises(Exception, match="already exists"):
        migrate(before_migrations)
    assert list(connection.iterdump()) == before
    connection.close()


async def test_a_schema_from_a_newer_gatekeeper_stops_the_start(new_database: NewDatabase) -> None:
    database = new_database()
    migrate(database)
    change = "UPDATE alembic_version SET version_num = '9999'"
    if isinstance(database, Path):
        connection = sqlite3.connect(database)
        connection.execute(change)
        connection.commit()
        connection.close()
    else:
        with psycopg.connect(database) as server:
            server.execute(change)
    with pytest.raises(ConfigError, match=f"newer than revision {NEWEST}.*update gatekeeper"):
        async with running_hub(database):
            pytest.fail("started")


@pytest.mark.process
def test_workers_can_migrate_at_the_same_time(new_database: NewDatabase) -> None:
    database = new_database()
    program = "import sys; from pathlib import Path; from gatekeeper.hub import migrate; migrate(sys.argv[1])"
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(database)], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [(worker.communicate()[1], worker.returncode) for worker in workers] == [("", 0)] * 4
    assert differences(database) == []


async def test_two_hubs_in_one_process_can_migrate_different_databases(postgres: PostgresCluster, tmp_path: Path) -> None:
    async with running_hub(postgres.create_schema()) as first, running_hub(tmp_path / "hub.db") as second:
        assert await list_rows(await first.client("acme")) == await list_rows(await second.client("acme")) == []
