"""How a hub learns that another program has changed its file."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from gatekeeper.hub.backup import back_up
from gatekeeper.hub.sqlite_changes import SqliteChanges

from .recorder import Recorder
from .support import PATH, create, hub_process, list_rows, running_hub
from .waiting import PATIENCE, etag_of, taken_on, wait_for_change

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hub.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (name)")
    return path


def change(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO things VALUES ('one')")


async def pause() -> None:
    await asyncio.sleep(0.05)  # five looks


async def reach(watch: Recorder, reads: int) -> None:
    """Wait for a number of reads."""
    async with asyncio.timeout(PATIENCE):
        while watch.reads < reads:  # noqa: ASYNC110 - the watch does not signal it
            await asyncio.sleep(0.005)


async def test_each_commit_of_another_program_is_a_read(file: Path) -> None:
    watch = Recorder()
    task = asyncio.create_task(SqliteChanges(file, interval=0.01).follow(watch))
    await pause()
    assert watch.reads == 0  # no request waits
    watch.waiting.set()
    await reach(watch, 1)  # nothing is known yet
    for expected in (2, 3):
        await pause()
        assert watch.reads == expected - 1
        change(file)
        await reach(watch, expected)
    watch.waiting.clear()
    await pause()
    change(file)
    await pause()
    assert watch.reads == 3
    watch.waiting.set()
    await reach(watch, 4)
    assert watch.looked == []  # the file does not tell whose keys have changed
    task.cancel()
    await asyncio.wait([task])


async def test_a_read_that_fails_is_repeated(file: Path) -> None:
    watch = Recorder()
    watch.is_down = True
    watch.waiting.set()
    task = asyncio.create_task(SqliteChanges(file, interval=0.01).follow(watch))
    await reach(watch, 3)
    watch.is_down = False
    await pause()
    before = watch.reads
    await pause()
    assert watch.reads == before
    task.cancel()
    await asyncio.wait([task])


async def test_a_file_that_is_missing_is_not_created_and_counts_as_changed(tmp_path: Path) -> None:
    watch = Recorder()
    watch.waiting.set()
    missing = tmp_path / "hub.db"
    task = asyncio.create_task(SqliteChanges(missing, interval=0.01).follow(watch))
    await reach(watch, 3)
    assert not missing.exists()
    task.cancel()
    await asyncio.wait([task])


async def test_no_connection_stays_open_at_the_end(file: Path) -> None:
    watch = Recorder()
    watch.waiting.set()
    task = asyncio.create_task(SqliteChanges(file, interval=0.01).follow(watch))
    await reach(watch, 1)
    task.cancel()
    await asyncio.wait([task])
    with closing(sqlite3.connect(file, timeout=0)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")


@pytest.mark.process
async def test_a_change_by_another_process_is_told(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with running_hub(path) as hub:
        acme = await hub.client("acme")
        waiting = wait_for_change(acme, await etag_of(acme), **{"A-IM": "rows"})
        await taken_on(hub, 1)
        async with (
            hub_process(path) as (url, _),
            httpx.AsyncClient(base_url=url, headers=acme.headers, trust_env=False, timeout=PATIENCE) as elsewhere,
        ):
            row = await create(elsewhere)
        answer = await asyncio.wait_for(waiting, PATIENCE)
        assert (answer.status_code, answer.json()) == (226, [row])


async def test_a_backup_during_a_wait_ends_no_wait(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with running_hub(path) as hub:
        acme = await hub.client("acme")
        row = await create(acme)
        waiting = wait_for_change(acme, await etag_of(acme))
        await taken_on(hub, 1)
        await asyncio.to_thread(back_up, path, tmp_path / "backup.db")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert await list_rows(acme) == [row]
        await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed"})
        assert (await asyncio.wait_for(waiting, PATIENCE)).status_code == 200
