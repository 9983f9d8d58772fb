"""Restores of a hub's SQLite file, and of a PostgreSQL database."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import Connection

from gatekeeper import AsyncHubClient, Gatekeeper, HubSource
from gatekeeper.errors import ConfigError
from gatekeeper.hub.accounts import read_revision
from gatekeeper.hub.backup import back_up
from gatekeeper.hub.events import UnknownBase, read_changed
from gatekeeper.hub.minting import Mint, random_text
from gatekeeper.hub.restore import Differences, Restore, restoring
from tests import needs
from tests.support.postgres import PostgresCluster

from .support import PATH, PEPPER, START, RunningHub, create, fill, hub_process, list_rows, listen, running_hub, written

pytestmark = [pytest.mark.anyio, pytest.mark.process]

BEFORE_MIGRATIONS = Path(__file__).parent / "before_migrations.sql"
README = Path(__file__).parents[2] / "gatekeeper" / "hub" / "README.md"
CHECK_VALUE = Mint(PEPPER, random_text).check_value()
LATER = START + timedelta(days=1)
RESTORE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from gatekeeper.hub.restore import restoring

backup, database, check_value, aside = sys.argv[1:]
with restoring(Path(backup), Path(database), check_value=check_value, now=datetime.now(UTC)) as restore:
    restore.carry_out(Path(aside))
"""


@contextmanager
def restoring_at(now: datetime, backup: Path, database: Path) -> Iterator[Restore]:
    """Prepare a restore at a time."""
    with restoring(backup, database, check_value=CHECK_VALUE, now=now) as restore:
        yield restore


def restore(backup: Path, database: Path, now: datetime = LATER) -> Differences | None:
    """Restore a database, with its former content in a file beside it."""
    with restoring_at(now, backup, database) as prepared:
        prepared.carry_out(database.with_name("aside.db"))
        return prepared.differences


def kill_a_restore(backup: Path, database: Path, aside: Path) -> None:
    """Kill a restore once it writes to the database, unless it is quicker."""
    process = subprocess.Popen([sys.executable, "-c", RESTORE, str(backup), str(database), CHECK_VALUE, str(aside)])
    journal = database.with_name(f"{database.name}-journal")
    while process.poll() is None and not (aside.exists() and journal.exists()):
        pass
    process.kill()
    process.wait(10)
    assert aside.exists()


def dump_schema(url: str, dump: Path) -> None:
    """Dump a schema of PostgreSQL."""
    schema = url.rpartition("%3D")[2]
    subprocess.run([needs.postgres() / "pg_dump", "-Fc", f"--schema={schema}", f"--file={dump}", url], check=True)


def restore_schema(url: str, dump: Path) -> None:
    """Restore a schema of PostgreSQL, as the reference says."""
    options = ("--clean", "--if-exists", "--single-transaction", f"--dbname={url}")
    subprocess.run([needs.postgres() / "pg_restore", *options, dump], check=True)


def files(directory: Path) -> dict[str, bytes]:
    """Read all files of a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def revision(database: Path) -> int:
    """Read the revision of the account acme."""
    with closing(sqlite3.connect(database)) as connection:
        (number,) = connection.execute("SELECT revision FROM accounts WHERE name = 'acme'").fetchone()
    return int(number)


async def mint(running: RunningHub) -> dict[str, str]:
    """Mint a token, as headers."""
    return {"Authorization": f"Bearer {await running.hub.tokens.mint('acme', name='ci')}"}


@pytest.fixture
async def backup(anyio_backend: str, tmp_path: Path) -> Path:  # noqa: ARG001 - makes the fixture async
    """The backup of hub.db with a key named before; hub.db has another key since, named after."""
    async with running_hub(tmp_path / "hub.db") as running:
        client = await running.client("acme")
        await create(client, name="before")
        back_up(tmp_path / "hub.db", tmp_path / "backup.db")
        await create(client, name="after")
    return tmp_path / "backup.db"


async def names(database: Path) -> list[str]:
    """List the names of the keys that a hub serves."""
    async with running_hub(database) as running:
        return [row["name"] for row in await list_rows(await running.client("acme"))]


async def test_a_restore_brings_the_keys_and_tokens_of_the_backup_back(tmp_path: Path) -> None:
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        former = await mint(running)
        rows = [await create(await running.client_with(former), name=name) for name in ("first", "second")]
        back_up(database, backup)
        client = await running.client_with(former)
        await client.patch(f"{PATH}/{rows[0]['id']}", json={"name": "renamed"})
        later = await mint(running)
    restore(backup, database)
    async with running_hub(database) as running:
        restored = await list_rows(await running.client_with(former))
        assert [row["name"] for row in restored] == ["first", "second"]
        stranger = await running.client_with(later)
        assert (await stranger.get(PATH)).status_code == httpx.codes.UNAUTHORIZED


async def test_refused_pages_are_restored_with_their_keys(tmp_path: Path) -> None:
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        headers = await mint(running)
        client = await running.client_with(headers)
        moment, row = written(START), await create(client)
        page = {"key_id": row["id"], "origin": "https://acme.com", "reason": "allowlist_empty", "count": 3}
        page |= {"first_at": moment, "last_at": moment, "entry": "acme.com"}
        for _ in range(2):
            await client.post(f"{PATH}/refused", json=[page])
            if not backup.exists():
                back_up(database, backup)
        await client.delete(f"{PATH}/{row['id']}")
    restore(backup, database)
    async with running_hub(database) as running:
        assert (await (await running.client_with(headers)).get(f"{PATH}/refused")).json() == [page]


async def test_restored_rows_are_newer_than_every_row_that_a_gate_holds(tmp_path: Path) -> None:
    """A gate takes no row that is older than its own, and the hub's clock may have been ahead."""
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        client = await running.client("acme")
        ids = [(await create(client))["id"] for _ in range(2)]
        back_up(database, backup)
        running.clock.now = LATER + timedelta(hours=1)
        held = (await client.patch(f"{PATH}/{ids[0]}", json={"disabled": True})).json()
    restore(backup, database)
    async with running_hub(database) as running:
        first, second = await list_rows(await running.client("acme"))
        assert first["disabled_at"] is None
        assert datetime.fromisoformat(first["updated_at"]) > datetime.fromisoformat(held["updated_at"])
        assert datetime.fromisoformat(second["updated_at"]) == LATER


async def test_a_gate_believes_a_restored_hub(tmp_path: Path) -> None:
    """It has seen the revocation, and would take the former row for that of an old copy."""
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        token = await running.hub.tokens.mint("acme", name="gate")
    async with AsyncExitStack() as gates:
        with listen() as listener:
            async with hub_process(database, listener) as (url, _), AsyncHubClient(url, token) as client:
                key = await client.widget_keys.create("shop", domain_allowlist=["acme.com"])
                back_up(database, backup)
                await client.widget_keys.update(key.id, disabled=True)
                gate = await gates.enter_async_context(Gatekeeper(HubSource(url, token), refresh_interval=60))
                await gate.refresh()
                assert gate.decide(key.public_key, "https://acme.com").reason == "key_disabled"
            restore(backup, database, datetime.now(UTC))
            async with hub_process(database, listener):
                await gate.refresh()
                assert gate.decide(key.public_key, "https://acme.com").reason == "allowed"


async def test_the_list_has_a_new_etag_after_a_restore(tmp_path: Path) -> None:
    """A client that holds the list from before must not be told that it is unchanged."""
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        headers = await mint(running)
        client = await running.client_with(headers)
        await create(client)
        etag = (await client.get(PATH)).headers["ETag"]
        back_up(database, backup)
        for _ in range(3):
            await create(client)
    highest = revision(database)
    restore(backup, database)
    assert revision(database) == highest + 1
    async with running_hub(database) as running:
        client = await running.client_with(headers)
        assert (await client.get(PATH, headers={"If-None-Match": etag})).status_code == httpx.codes.OK


async def test_a_restore_names_the_revocations_that_it_undoes(tmp_path: Path) -> None:
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        client = await running.client("acme")
        await running.client("globex")
        rows = {name: await create(client, name=name) for name in ("disabled", "deleted", "off before", "kept")}
        await client.patch(f"{PATH}/{rows['off before']['id']}", json={"disabled": True})
        back_up(database, backup)
        await client.patch(f"{PATH}/{rows['disabled']['id']}", json={"disabled": True})
        await client.delete(f"{PATH}/{rows['deleted']['id']}")
        await create(client, name="created since")
        (revoked,) = await running.hub.tokens.list("globex")
        await running.hub.tokens.revoke(revoked.id)
        await mint(running)
        await mint(running)
    differences = restore(backup, database)
    assert differences is not None
    assert [(key.id, key.account, key.name, key.last8) for key in differences.keys] == [
        (rows[name]["id"], "acme", name, rows[name]["last8"]) for name in ("disabled", "deleted")
    ]
    assert differences.tokens == ((revoked.id, "globex", "tests"),)
    assert (differences.lost_keys, differences.lost_tokens) == (1, 2)


async def test_the_replaced_database_is_kept_whole(backup: Path) -> None:
    database, aside = backup.with_name("hub.db"), backup.with_name("aside.db")
    restore(backup, database)
    assert set(files(backup.parent)) == {"hub.db", "backup.db", "aside.db"}
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert await names(database) == ["before"]
    assert await names(aside) == ["before", "after"]


async def test_a_restore_that_is_not_carried_out_changes_nothing(backup: Path) -> None:
    database = backup.with_name("hub.db")
    with restoring_at(LATER, backup, database):
        pass
    assert set(files(backup.parent)) == {"hub.db", "backup.db"}
    assert await names(database) == ["before", "after"]


async def test_an_open_database_is_not_replaced(backup: Path) -> None:
    """Also that of a hub which has answered no request yet."""
    database = backup.with_name("hub.db")
    async with running_hub(database):
        with pytest.raises(ConfigError, match=f"{database} is in use: stop every hub"):
            restore(backup, database)
    assert await names(database) == ["before", "after"]


async def test_the_database_of_another_process_is_not_replaced(backup: Path) -> None:
    """Once the process is killed, nothing holds its database."""
    database = backup.with_name("hub.db")
    async with hub_process(database) as (url, process), httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/healthz")).status_code == httpx.codes.OK
        with pytest.raises(ConfigError, match=f"{database} is in use"):
            restore(backup, database)
        process.kill()
    restore(backup, database)
    assert await names(database) == ["before"]


async def test_no_hub_starts_on_a_database_that_is_being_replaced(backup: Path) -> None:
    database = backup.with_name("hub.db")
    with (
        restoring_at(LATER, backup, database),
        closing(sqlite3.connect(database, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("SELECT 1 FROM accounts")


@pytest.mark.parametrize("present", [True, False])
async def test_the_log_of_the_replaced_database_does_not_return(backup: Path, *, present: bool) -> None:
    """A killed hub leaves its log beside its file."""
    database = backup.with_name("hub.db")
    log, index = backup.with_name("hub.db-wal"), backup.with_name("hub.db-shm")
    async with running_hub(database) as running:
        await create(await running.client("acme"), name="only in the log")
        logged = database.read_bytes(), log.read_bytes(), index.read_bytes()
    for path, content in zip((database, log, index), logged, strict=True):
        path.write_bytes(content)
    if not present:
        database.unlink()
    restore(backup, database)
    assert not log.exists()
    assert await names(database) == ["before"]
    if present:
        assert await names(backup.with_name("aside.db")) == ["before", "after", "only in the log"]


async def test_a_missing_database_is_created_for_its_owner(backup: Path) -> None:
    database = backup.with_name("hub.db")
    database.unlink()
    assert restore(backup, database) is None
    assert set(files(backup.parent)) == {"hub.db", "backup.db"}
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert await names(database) == ["before"]


async def test_a_copy_with_its_log_is_restored_and_stays_as_it_is(tmp_path: Path) -> None:
    """Some operators copy all files of a hub that they have stopped or killed."""
    (tmp_path / "copies").mkdir()
    copy, database = tmp_path / "copies" / "hub.db", tmp_path / "hub.db"
    async with running_hub(database) as running:
        await create(await running.client("acme"), name="only in the log")
        for suffix in ("", "-wal"):
            shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
    before = files(copy.parent)
    restore(copy, database)
    assert await names(database) == ["only in the log"]
    assert before.items() <= files(copy.parent).items()


async def test_a_damaged_database_can_be_replaced(backup: Path) -> None:
    """It is often the reason for the restore."""
    database = backup.with_name("hub.db")
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 10)
    assert restore(backup, database) is None
    assert await names(database) == ["before"]
    assert backup.with_name("aside.db").exists()


async def test_a_file_that_is_no_database_is_not_replaced(backup: Path) -> None:
    database = backup.with_name("hub.db")
    database.write_bytes(b"a letter " * 99)
    with pytest.raises(ConfigError, match="move it away with its -wal and -shm"):
        restore(backup, database)
    assert database.read_bytes() == b"a letter " * 99


async def test_a_backup_of_another_pepper_is_refused(backup: Path) -> None:
    database = backup.with_name("hub.db")
    before = files(backup.parent)
    wrong = Mint("another pepper", random_text).check_value()
    with (
        pytest.raises(ConfigError, match=f"{backup} cannot be restored: the pepper is not that of the database"),
        restoring(backup, database, check_value=wrong, now=LATER),
    ):
        pytest.fail("prepared")
    assert files(backup.parent) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "newer than revision"),
        ("DROP TABLE widget_keys", "no tables of a hub"),
    ],
)
async def test_a_backup_that_no_hub_could_use_is_refused(backup: Path, change: str, said: str) -> None:
    with closing(sqlite3.connect(backup)) as connection:
        connection.execute(change)
        connection.commit()
    before = files(backup.parent)
    with pytest.raises(ConfigError, match=said):
        restore(backup, backup.with_name("hub.db"))
    assert files(backup.parent) == before


@pytest.mark.parametrize("content", [None, b"", b"a letter " * 99])
async def test_a_file_that_is_no_backup_is_refused(backup: Path, content: bytes | None) -> None:
    chosen = backup.with_name("another.db")
    if content is not None:
        chosen.write_bytes(content)
    before = files(backup.parent)
    with pytest.raises(ConfigError, match=str(chosen)):
        restore(chosen, backup.with_name("hub.db"))
    assert files(backup.parent) == before


async def test_a_cut_backup_is_refused(backup: Path) -> None:
    os.truncate(backup, 4096 * 5)
    before = files(backup.parent)
    with pytest.raises(ConfigError, match=f"{backup} is damaged"):
        restore(backup, backup.with_name("hub.db"))
    assert files(backup.parent) == before


async def test_the_database_itself_is_no_backup(backup: Path) -> None:
    database = backup.with_name("hub.db")
    with pytest.raises(ConfigError, match="is the database itself"):
        restore(database, database)


async def test_a_backup_from_before_migrations_is_migrated(backup: Path, caplog: pytest.LogCaptureFixture) -> None:
    former, database = backup.with_name("former.db"), backup.with_name("hub.db")
    with closing(sqlite3.connect(former)) as connection:
        connection.executescript(BEFORE_MIGRATIONS.read_text(encoding="utf-8"))
    restore(former, database)
    assert await names(database) == ["shop"]
    assert "had no check of its pepper" in caplog.text


async def test_a_restore_repeats_no_etag_and_forgets_every_revision(backup: Path) -> None:
    """Clients hold them from before the restore, of a history that the backup does not have."""
    database = backup.with_name("hub.db")
    async with running_hub(database) as running:
        client = await running.client("acme")
        row, _ = await list_rows(client)
        of_list, of_row = [(await client.get(path)).headers["ETag"] for path in (PATH, f"{PATH}/{row['id']}")]
        base = await running.database.read(lambda connection: read_revision(connection, "acme"))
    restore(backup, database)
    async with running_hub(database) as running:
        client = await running.client("acme")
        await create(client)
        assert (await client.get(PATH, headers={"If-None-Match": of_list})).status_code == httpx.codes.OK
        change = await client.patch(f"{PATH}/{row['id']}", json={"name": "renamed"}, headers={"If-Match": of_row})
        assert change.status_code == httpx.codes.PRECONDITION_FAILED

        def read_all(connection: Connection) -> None:
            present = read_revision(connection, "acme")
            for number in range(present.number):
                with pytest.raises(UnknownBase):
                    list(read_changed(connection, "acme", base._replace(number=number), present, lambda _: None))

        await running.database.read(read_all)


async def test_the_list_of_all_accounts_is_whole_after_a_restore(tmp_path: Path) -> None:
    """What was listed of each account is that of the backup."""
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    held = []
    async with running_hub(database) as running:
        gates, client = await running.client_of_all(), await running.client("acme")
        headers = dict(client.headers), dict(gates.headers)
        await create(client, name="before")
        held.append((await gates.get(PATH)).headers["ETag"])
        back_up(database, backup)
        for account in ("acme", "globex"):
            await create(await running.client(account), name="after")
            held.append((await gates.get(PATH)).headers["ETag"])
    restore(backup, database)
    async with running_hub(database) as running:
        client, gates = [await running.client_with(each) for each in headers]
        asked = {"If-None-Match": ", ".join(held), "A-IM": "rows"}
        answer = await gates.get(PATH, headers=asked)
        assert (answer.status_code, [row["name"] for row in answer.json()]) == (200, ["before"])
        row = await create(client)
        answer = await gates.get(PATH, headers={"If-None-Match": answer.headers["ETag"], "A-IM": "rows"})
        assert (answer.status_code, answer.json()) == (226, [{**row, "account": "acme"}])
        assert (await gates.get(PATH, headers=asked)).status_code == httpx.codes.OK


async def test_a_killed_restore_leaves_the_former_database_or_the_restored_one(tmp_path: Path) -> None:
    """SQLite rolls the copy back if it was not complete."""
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        await running.client("acme")
        await fill(running, "acme", 5_000)
        back_up(database, backup)
        await running.client("globex")
    kill_a_restore(backup, database, tmp_path / "killed.db")
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        moments = connection.execute("SELECT count(DISTINCT updated_at), count(*) FROM widget_keys").fetchall()
    assert moments == [(1, 5_000)]
    restore(backup, database)
    async with running_hub(database) as running:
        assert {token.account for token in await running.hub.tokens.list()} == {"acme"}


async def test_the_statements_of_the_reference_follow_a_restore_of_postgresql(
    postgres: PostgresCluster, tmp_path: Path
) -> None:
    """pg_restore brings old rows back, which gates do not believe, and former revisions."""
    url = postgres.create_schema()
    (statements,) = re.findall(r"```sql\n(.+?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    async with running_hub(url) as running:
        headers = await mint(running)
        client = await running.client_with(headers)
        gates = await running.client_of_all()
        row = await create(client)
        etag, etag_of_all = [(await each.get(PATH)).headers["ETag"] for each in (client, gates)]
    dump_schema(url, tmp_path / "hub.dump")
    async with running_hub(url) as running:
        client = await running.client_with(headers)
        running.clock.now = datetime.now(UTC)
        held = (await client.patch(f"{PATH}/{row['id']}", json={"disabled": True})).json()
    restore_schema(url, tmp_path / "hub.dump")
    async with running_hub(url) as running:
        client = await running.client_with(headers)
        assert await list_rows(client) == [row]
        with psycopg.connect(url) as connection:
            connection.execute(statements)
        answer = await client.get(PATH, headers={"If-None-Match": etag})
        assert answer.status_code == httpx.codes.OK
        (enabled,) = answer.json()
        assert enabled["disabled_at"] is None
        gates = await running.client_with(dict(gates.headers))
        answer = await gates.get(PATH, headers={"If-None-Match": etag_of_all, "A-IM": "rows"})
        assert (answer.status_code, answer.json()) == (httpx.codes.OK, [{**enabled, "account": "acme"}])
        assert datetime.fromisoformat(enabled["updated_at"]) > datetime.fromisoformat(held["updated_at"])
