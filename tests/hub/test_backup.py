"""Backups of a hub's SQLite file, taken while the hub runs."""

import asyncio
import contextlib
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest

from gatekeeper.errors import ConfigError
from gatekeeper.hub.backup import back_up
from tests.support.real_hub import served_hub

from .support import PATH, create, fill, hub_process, list_rows, running_hub

pytestmark = [pytest.mark.anyio, pytest.mark.process]

BACK_UP = (
    "import sys; from pathlib import Path; from gatekeeper.hub.backup import back_up; back_up(*map(Path, sys.argv[1:]))"
)


def names(directory: Path) -> set[str]:
    """List the files of a directory."""
    return {path.name for path in directory.iterdir()}


def kill_a_backup(database: Path, backup: Path) -> None:
    """Kill a backup once it has begun to copy. It may end before."""
    process = subprocess.Popen([sys.executable, "-c", BACK_UP, str(database), str(backup)])
    while process.poll() is None and not list(backup.parent.glob(f".{backup.name}.*/{backup.name}")):
        pass
    process.kill()
    assert process.wait(10) in {-signal.SIGKILL, 0}


def key_ids(backup: Path) -> set[str]:
    """Read the ids of the keys in a backup, each of which has to have its event."""
    with closing(sqlite3.connect(f"file:{backup}?immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        created = {key_id for (key_id,) in connection.execute("SELECT key_id FROM events WHERE action = 'created'")}
        listed = {key_id for (key_id,) in connection.execute("SELECT id FROM widget_keys")}
    assert listed == created
    return listed


async def test_a_backup_of_a_running_hub_has_what_is_in_its_log(tmp_path: Path) -> None:
    """A plain copy of the file lacks what is only in the log."""
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        client = await running.client("acme")
        rows = [await create(client) for _ in range(3)]
        copied = database.read_bytes()
        back_up(database, backup)
        assert key_ids(backup) == {row["id"] for row in rows}
        await create(client)
        assert len(await list_rows(client)) == 4
    (tmp_path / "copy.db").write_bytes(copied)
    assert key_ids(tmp_path / "copy.db") == set()


def test_a_backup_is_one_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    with served_hub(tmp_path):
        (tmp_path / "backups").mkdir()
        back_up(tmp_path / "hub.db", tmp_path / "backups" / "hub.db")
    (backup,) = (tmp_path / "backups").iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


async def test_a_backup_of_a_stopped_hub_leaves_nothing_beside_its_file(tmp_path: Path) -> None:
    async with running_hub(tmp_path / "hub.db"):
        pass
    back_up(tmp_path / "hub.db", tmp_path / "backup.db")
    assert names(tmp_path) == {"hub.db", "backup.db"}


@pytest.mark.parametrize("link", [False, True])
async def test_a_file_is_never_overwritten(tmp_path: Path, *, link: bool) -> None:
    async with running_hub(tmp_path / "hub.db"):
        pass
    backup = tmp_path / "backup.db"
    if link:
        backup.symlink_to("nowhere")
    else:
        backup.write_bytes(b"the only copy")
    with pytest.raises(FileExistsError):
        back_up(tmp_path / "hub.db", backup)
    assert names(tmp_path) == {"hub.db", "backup.db"}
    assert backup.is_symlink() or backup.read_bytes() == b"the only copy"


async def test_a_damaged_database_gives_no_backup(tmp_path: Path) -> None:
    """It would replace a good backup, and be found out at the restore."""
    database = tmp_path / "hub.db"
    async with running_hub(database) as running:
        await running.client("acme")
        await fill(running, "acme", 200)
    with database.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(ConfigError, match=rf"{database} is damaged"):
        back_up(database, tmp_path / "backup.db")
    assert names(tmp_path) == {"hub.db"}


@pytest.mark.parametrize(
    ("content", "said"), [(None, "there is no"), (b"", "no tables"), (b"a letter " * 99, "not a database")]
)
def test_only_the_database_of_a_hub_is_backed_up(tmp_path: Path, content: bytes | None, said: str) -> None:
    database = tmp_path / "hub.db"
    if content is not None:
        database.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        back_up(database, tmp_path / "backup.db")
    assert names(tmp_path) == (set() if content is None else {"hub.db"})
    assert content is None or database.read_bytes() == content


async def test_backups_during_writes_have_every_acknowledged_key(tmp_path: Path) -> None:
    """Another process writes, and is killed at the end."""
    database = tmp_path / "hub.db"
    async with running_hub(database) as running:
        headers = {"Authorization": f"Bearer {await running.hub.tokens.mint('acme', name='tests')}"}
    acknowledged: set[str] = set()
    writing = asyncio.Event()

    async def write(client: httpx.AsyncClient) -> None:
        with contextlib.suppress(httpx.TransportError):
            while True:
                answer = await client.post(PATH, json={"name": "shop"})
                acknowledged.add(answer.json()["id"])
                writing.set()

    async with (
        hub_process(database) as (url, process),
        httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client,
        anyio.create_task_group() as writers,
    ):
        for _ in range(4):
            writers.start_soon(write, client)
        for number in range(5):
            writing.clear()
            await writing.wait()
            before = set(acknowledged)
            backup = tmp_path / f"backup-{number}.db"
            await asyncio.to_thread(back_up, database, backup)
            assert before <= key_ids(backup)
        process.kill()
    back_up(database, tmp_path / "last.db")
    assert acknowledged <= key_ids(tmp_path / "last.db")


async def test_a_killed_backup_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    """The name of the backup is absent until its content is complete."""
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        await running.client("acme")
        await fill(running, "acme", 5_000)
    kill_a_backup(database, backup)
    if not backup.exists():
        back_up(database, backup)
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT count(*) FROM widget_keys").fetchone() == (5_000,)
