"""create_hub: making, starting and stopping a hub."""

import asyncio
import importlib
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import anyio
import httpx
import pytest

from gatekeeper.errors import ConfigError, DatabaseDown
from gatekeeper.hub import create_hub
from gatekeeper.hub.bodies import KeyDraft
from gatekeeper.hub.database import Database
from gatekeeper.hub.sqlite import SqliteFile
from gatekeeper.hub.tokens import Bearer

from .support import PATH, PEPPER, assert_problem, create, list_rows, running_hub, written

pytestmark = pytest.mark.anyio


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let other users read and write new files."""
    former = os.umask(0)
    yield
    os.umask(former)


def impatient(file: Path) -> Database:
    """Open a file with a short busy timeout."""
    return Database(SqliteFile(file, busy_timeout=0.05), retry_pause=0.0)


@pytest.mark.parametrize("database", ["", ":memory:", ":memory:?cache=shared", Path()])
def test_a_database_that_is_not_a_file_is_refused(database: str | Path) -> None:
    with pytest.raises(ConfigError, match="expected the path of a file"):
        create_hub(database, pepper=PEPPER)


def test_an_empty_pepper_is_reported_with_the_other_mistakes() -> None:
    with pytest.raises(ConfigError) as raised:
        create_hub("", pepper="")
    assert len(raised.value.problems) == len(("database", "pepper"))


def test_making_a_hub_touches_no_file(tmp_path: Path) -> None:
    create_hub(tmp_path / "hub.db", pepper=PEPPER)
    assert list(tmp_path.iterdir()) == []


async def test_a_path_can_be_a_string(tmp_path: Path) -> None:
    database = tmp_path / "hub ?%20#.db"
    app = create_hub(str(database), pepper=PEPPER)
    async with app.router.lifespan_context(app):
        await app.state.hub.tokens.mint("acme", name="ci")
        assert database.read_bytes().startswith(b"SQLite format 3")


async def test_the_start_creates_the_tables_and_enables_the_write_ahead_log(tmp_path: Path) -> None:
    async with running_hub(tmp_path / "hub.db"):
        pass
    connection = sqlite3.connect(tmp_path / "hub.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    journal = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    for_all = {"list_steps", "listed_accounts"}
    made = {"accounts", "events", "gates", "pepper_check", "refused_pages", "tokens", "widget_keys"}
    assert tables == {"alembic_version", *made, *for_all}
    assert journal == ("wal",)


async def test_a_new_file_and_its_log_are_readable_only_by_the_owner(tmp_path: Path, open_umask: None) -> None:  # noqa: ARG001
    """SQLite would create the file with the mode of the umask."""
    async with running_hub(tmp_path / "hub.db") as running:
        await running.client("acme")
        for name in ("hub.db", "hub.db-wal", "hub.db-shm"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


async def test_a_new_file_behind_a_symbolic_link_is_private_too(tmp_path: Path, open_umask: None) -> None:  # noqa: ARG001
    (tmp_path / "link.db").symlink_to("hub.db")
    async with running_hub(tmp_path / "link.db"):
        assert stat.S_IMODE((tmp_path / "hub.db").stat().st_mode) == 0o600


async def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    """The operator may have let a group read it."""
    (tmp_path / "hub.db").touch()
    (tmp_path / "hub.db").chmod(0o640)
    async with running_hub(tmp_path / "hub.db"):
        assert stat.S_IMODE((tmp_path / "hub.db").stat().st_mode) == 0o640


async def test_an_app_can_be_restarted(tmp_path: Path) -> None:
    app = create_hub(tmp_path / "hub.db", pepper=PEPPER)
    for _ in range(2):
        async with app.router.lifespan_context(app):
            await app.state.hub.tokens.mint("acme", name="ci")


def test_a_hub_can_be_restarted_in_another_event_loop(tmp_path: Path) -> None:
    """The first loop checked the readiness. A test client has a loop for each lifespan."""
    app = create_hub(tmp_path / "hub.db", pepper=PEPPER)

    async def run(path: str) -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://hub.test") as client,
        ):
            assert (await client.get(path)).status_code == httpx.codes.OK

    for path in ("/readyz", "/healthz", "/readyz"):
        asyncio.run(run(path))
        assert {file.name for file in tmp_path.iterdir()} == {"hub.db"}


async def test_a_hub_without_its_lifespan_raises_runtime_error(tmp_path: Path) -> None:
    app = create_hub(tmp_path / "hub.db", pepper=PEPPER)
    with pytest.raises(RuntimeError, match="lifespan"):
        await app.state.hub.tokens.mint("acme", name="ci")
    async with app.router.lifespan_context(app):
        pass
    with pytest.raises(RuntimeError, match="lifespan"):
        await app.state.hub.tokens.mint("acme", name="ci")


@pytest.mark.parametrize("path", ["letter.txt", "no-such-directory/hub.db"])
async def test_a_path_that_cannot_be_a_database_stops_the_start(tmp_path: Path, path: str) -> None:
    (tmp_path / "letter.txt").write_bytes(b"not a database" * 100)
    database = tmp_path / path
    app = create_hub(database, pepper=PEPPER)
    with pytest.raises(sqlite3.DatabaseError) as raised:
        async with app.router.lifespan_context(app):
            pytest.fail("started")
    assert str(database) in raised.value.__notes__[0]


async def test_a_clock_in_another_time_zone_is_written_in_utc(tmp_path: Path) -> None:
    noon = datetime(2026, 7, 1, 12, 0, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    async with running_hub(tmp_path / "hub.db") as running:
        running.clock.now = noon
        client = await running.client("acme")
        row = await create(client)
        assert row["created_at"] == written(noon.astimezone(UTC)) == "2026-07-01T06:30:00Z"
        assert await list_rows(client) == [row]


async def test_by_default_the_clock_and_the_dice_are_real(tmp_path: Path) -> None:
    app = create_hub(tmp_path / "hub.db", pepper=PEPPER)
    async with app.router.lifespan_context(app):
        first, second = [await app.state.hub.tokens.mint("acme", name="ci") for _ in range(2)]
        before = datetime.now(UTC)
        row = await app.state.hub.keys.create(Bearer("acme", "ci", "admin"), KeyDraft(name="shop"))
        after = datetime.now(UTC)
    assert first != second
    assert before <= row.created_at <= after


async def test_the_clock_and_the_dice_can_be_chosen(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    app = create_hub(tmp_path / "hub.db", pepper=PEPPER, clock=lambda: moment, draw=lambda length: "R" * length)
    async with app.router.lifespan_context(app):
        assert await app.state.hub.tokens.mint("acme", name="ci") == "sk_live_acme_" + "R" * 32
        assert [token.created_at for token in await app.state.hub.tokens.list()] == [moment]


async def test_a_write_waits_for_the_write_of_another_process(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    async with running_hub(database) as running:
        client = await running.client("acme")
        other = sqlite3.connect(database, isolation_level=None, timeout=0)
        other.execute("BEGIN IMMEDIATE")
        assert await list_rows(client) == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.post(PATH, json={"name": "shop"}))
            await anyio.sleep(0.3)
            assert await list_rows(client) == []
            other.execute("COMMIT")
        other.close()
        assert len(await list_rows(client)) == 1


async def test_writes_get_a_503_while_the_file_is_locked(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    async with running_hub(impatient(database)) as running:
        client = await running.client("acme")
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = await client.post(PATH, json={"name": "shop"})
            assert_problem(answer, 503, "database_down")
            assert answer.headers["Retry-After"]
            assert await list_rows(client) == []
        assert await list_rows(client) == []
        await create(client)


@pytest.mark.parametrize("exists", [True, False])
async def test_a_hub_starts_on_a_locked_file_and_answers_503(tmp_path: Path, *, exists: bool) -> None:
    """Another process writes first, and then locks the file out of use, as a restore does."""
    database = tmp_path / "hub.db"
    if exists:
        async with running_hub(database):
            pass
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with running_hub(impatient(database)) as running:
            stranger = await running.client_with({})
            assert_problem(await stranger.get("/readyz"), 503, "database_down")
            other.execute("ROLLBACK")
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(2):
                answer = await stranger.get("/readyz")
                assert_problem(answer, 503, "database_down")
                assert answer.headers["Retry-After"]
            assert (await stranger.get("/healthz")).status_code == httpx.codes.OK
            async with running_hub(impatient(database)) as second:
                with pytest.raises(DatabaseDown, match="locked"):
                    await second.hub.tokens.list()
                other.close()
                assert await second.hub.tokens.list() == []
            assert (await stranger.get("/readyz")).status_code == httpx.codes.OK
            await create(await running.client("acme"))


def test_a_migration_of_a_locked_file_finds_the_database_down(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseDown, match="locked"):
            impatient(tmp_path / "hub.db").migrate()


async def test_a_file_that_is_no_database_after_the_start_is_a_503(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was locked at the start. The log says what the file is."""
    database = tmp_path / "hub.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with running_hub(impatient(database)) as running:
            other.close()
            database.write_bytes(b"not a database" * 100)
            stranger = await running.client_with({})
            for _ in range(2):
                assert_problem(await stranger.get("/readyz"), 503, "database_down")
            database.write_bytes(b"")
            assert (await stranger.get("/readyz")).status_code == httpx.codes.OK
    logged = [record.getMessage() for record in caplog.records if record.name == "gatekeeper.hub.database"]
    assert [line.rpartition(": ")[2] for line in logged[:2]] == ["database is locked", "file is not a database"]
    assert "answers again" in logged[2]
    assert len(logged) == 3


async def test_a_missing_table_is_a_500_not_a_503(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    async with running_hub(database) as running:
        client = await running.client("acme")
        with closing(sqlite3.connect(database)) as other:
            other.execute("DROP TABLE events")
        assert_problem(await client.post(PATH, json={"name": "shop"}), 500, "internal_error")
        assert await list_rows(client) == []


@pytest.mark.parametrize("missing", ["sqlalchemy", "alembic"])
def test_a_missing_extra_is_an_import_error_with_the_pip_command(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "gatekeeper.hub")
    with pytest.raises(ImportError, match=r"pip install 'widget-gatekeeper\[hub\]'"):
        importlib.import_module("gatekeeper.hub")
