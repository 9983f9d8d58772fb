"""How a worker hears of changes on PostgreSQL, and what it does while it hears nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import psycopg
import pytest

from gatekeeper.errors import ConfigError
from gatekeeper.hub import create_hub
from gatekeeper.hub.accounts import CHANNEL
from gatekeeper.hub.database import Database
from gatekeeper.hub.minting import Mint, random_text
from gatekeeper.hub.postgres import PostgresServer
from gatekeeper.hub.postgres_changes import PostgresChanges, Times
from gatekeeper.hub.postgres_connections import AsyncConnection
from tests import needs
from tests.support.pgbouncer import pooled
from tests.support.postgres import PostgresCluster

from .recorder import Recorder
from .support import PATH, PEPPER, RunningHub, create, running_hub
from .waiting import PATIENCE, etag_of, taken_on, wait_for_change

pytestmark = pytest.mark.anyio

QUICK = Times(probe=0.05, proven=0.3, reread=0.1, read=0.02, give_up=0.5, longest_pause=0.1)
LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'"


class Following:
    """A worker that follows changes.

    Attributes:
        watch: what it tells.
        url: of the database.
    """

    def __init__(self, watch: Recorder, url: str) -> None:
        self.watch = watch
        self.url = url

    async def notify(self, account: str) -> None:
        """Tell all that listen of a change."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, account))

    async def listeners(self) -> int:
        """The number of connections that listen."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            found = await (await connection.execute(LISTENING)).fetchone()
            return 0 if found is None else int(found[0])

    async def hears(self) -> None:
        """Wait until it hears of changes."""
        before = len(self.watch.looked)

        async def heard() -> bool:
            await self.notify("acme")
            return len(self.watch.looked) > before

        await until(heard)

    async def rests(self) -> bool:
        """Whether it reads nothing for a while, as it hears of everything."""
        before = self.watch.reads
        await asyncio.sleep(2 * QUICK.proven)
        return self.watch.reads == before


async def until(is_met: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await is_met():  # noqa: ASYNC110 - another process is asked
            await asyncio.sleep(0.02)


@asynccontextmanager
async def following(url: str, listen_url: str | None = None, *, times: Times = QUICK) -> AsyncIterator[Following]:
    """Follow the changes of a database."""
    database, watch = Database(PostgresServer(url), retry_pause=0.0), Recorder()
    await database.open(Mint(PEPPER, random_text).check_value())
    connect, connect_to_notify = (
        partial(AsyncConnection.connect, each, autocommit=True) for each in (listen_url or url, url)
    )
    task = asyncio.create_task(PostgresChanges(connect, connect_to_notify, times=times).follow(watch))
    try:
        yield Following(watch, url)
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
        await database.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """Make a server that only this module stops and starts."""
    with PostgresCluster(needs.postgres()) as cluster:
        cluster.start()
        yield cluster


async def test_it_connects_once_a_request_waits_and_leaves_nothing(cluster: PostgresCluster) -> None:
    async with following(cluster.create_database()) as worker:
        await asyncio.sleep(0.1)
        assert await worker.listeners() == 0
        worker.watch.waiting.set()
        await worker.hears()
        assert await worker.listeners() == 1
    assert await worker.listeners() == 0


@pytest.mark.slow
async def test_it_hears_of_changes_and_reads_nothing_meanwhile(cluster: PostgresCluster) -> None:
    async with following(cluster.create_database()) as worker:
        worker.watch.waiting.set()
        await worker.hears()
        assert worker.watch.reads >= 1  # what changed before it listened was not heard
        await until(worker.rests)
        assert set(worker.watch.looked) == {"acme"}  # a notification to itself names no account


@pytest.mark.slow
async def test_it_notifies_itself_over_one_connection_that_it_keeps(cluster: PostgresCluster) -> None:
    sending = "SELECT pid, query_start FROM pg_stat_activity WHERE query LIKE 'NOTIFY%' AND datname = current_database()"
    async with following(cluster.create_database()) as worker:
        worker.watch.waiting.set()
        seen = set[tuple[int, object]]()

        async def has_sent_five() -> bool:
            async with await psycopg.AsyncConnection.connect(worker.url) as connection:
                seen.update(await (await connection.execute(sending)).fetchall())
            return len(seen) >= 5

        await until(has_sent_five)
        assert len({pid for pid, _ in seen}) == 1


@pytest.mark.slow
async def test_what_changed_before_it_listened_is_read(cluster: PostgresCluster) -> None:
    times = QUICK._replace(read=0.5, proven=60.0)
    async with following(cluster.create_database(), times=times) as worker:
        worker.watch.waiting.set()

        async def has_read_twice() -> bool:
            return worker.watch.reads == 2

        await until(has_read_twice)  # at once, and once it listened


@pytest.mark.slow
async def test_a_killed_connection_is_replaced_and_all_is_read_again(cluster: PostgresCluster) -> None:
    async with following(cluster.create_database()) as worker:
        worker.watch.waiting.set()
        await worker.hears()
        await until(worker.rests)
        before = worker.watch.reads
        async with await psycopg.AsyncConnection.connect(worker.url, autocommit=True) as connection:
            await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        await worker.hears()
        await until(worker.rests)
        assert worker.watch.reads > before


@pytest.mark.slow
async def test_it_hears_again_after_a_restart_of_the_server(
    cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(cluster.create_database()) as worker:
        worker.watch.waiting.set()
        await worker.hears()
        cluster.stop()
        await asyncio.sleep(0.3)
        cluster.start()
        await worker.hears()
        await until(worker.rests)
    said = [record.getMessage() for record in caplog.records if record.name.endswith("postgres_changes")]
    assert len(said) == 2
    assert "reads revisions instead" in said[0]
    assert "hears of changes from PostgreSQL again" in said[1]


@pytest.mark.slow
async def test_a_connection_that_hears_nothing_is_noticed_and_replaced(
    cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Notifications stay within their database, and this connection is to another one."""
    async with following(cluster.create_database(), cluster.url) as worker:
        worker.watch.waiting.set()
        await goes_on_reading(worker)
        await until_said(caplog, "no notification comes over its connection")
    assert caplog.text.count("listen-database") == 1


async def goes_on_reading(worker: Following) -> None:
    """Wait for some more reads."""
    before = worker.watch.reads

    async def has_read() -> bool:
        return worker.watch.reads >= before + 5

    await until(has_read)


async def until_said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async def is_said() -> bool:
        return text in caplog.text

    await until(is_said)


@pytest.mark.slow
async def test_a_silent_server_is_noticed_and_read_until_it_is_back(cluster: PostgresCluster) -> None:
    async with following(cluster.create_database()) as worker:
        worker.watch.waiting.set()
        await worker.hears()
        await until(worker.rests)
        with cluster.frozen():
            await goes_on_reading(worker)
        await worker.hears()
        await until(worker.rests)


async def test_it_ends_although_a_connection_swallows_its_cancellation() -> None:
    watch, connecting = Recorder(), asyncio.Event()

    async def connect() -> AsyncConnection:
        connecting.set()
        with suppress(asyncio.CancelledError):
            return await asyncio.Future[AsyncConnection]()
        return await asyncio.Future[AsyncConnection]()

    task = asyncio.create_task(PostgresChanges(connect, connect).follow(watch))
    watch.waiting.set()
    await connecting.wait()
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.cancelled()


@pytest.mark.slow
async def test_it_leaves_no_connection_at_whatever_moment_it_ends(cluster: PostgresCluster) -> None:
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    url = cluster.create_database()
    for moment in range(100):
        async with following(url) as worker:
            worker.watch.waiting.set()
            await asyncio.sleep(moment * 0.0003)

    async def is_alone() -> bool:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            return await (await connection.execute(others)).fetchone() == (0,)

    await until(is_alone)


async def test_a_read_that_fails_is_repeated(cluster: PostgresCluster) -> None:
    async with following(cluster.create_database()) as worker:
        worker.watch.is_down = True
        worker.watch.waiting.set()

        async def is_read_often() -> bool:
            return worker.watch.reads > 3

        await until(is_read_often)
        worker.watch.is_down = False
        await worker.hears()


@pytest.mark.process
async def test_a_connection_through_pgbouncer_is_not_used_to_listen(
    cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    url = cluster.create_database()
    with pooled(needs.pgbouncer(), cluster) as pooled_server:
        through = f"{pooled_server}/{url.rpartition('/')[2]}"
        async with following(through) as worker:
            worker.watch.waiting.set()
            await until_said(caplog, "its connection is one of a pooler")
            await goes_on_reading(worker)
            assert await worker.listeners() == 0
        async with following(through, url) as worker:
            worker.watch.waiting.set()
            await worker.hears()
            await until(worker.rests)


# Two workers


@asynccontextmanager
async def two_hubs(url: str, listen_url: str | None = None) -> AsyncIterator[tuple[RunningHub, RunningHub]]:
    """Run two hubs with one database."""
    async with (
        running_hub(Database(PostgresServer(url, listen_url))) as one,
        running_hub(Database(PostgresServer(url, listen_url))) as other,
    ):
        yield one, other


async def tell_across(one: RunningHub, other: RunningHub) -> None:
    """Change a key at one worker while a gate waits at the other."""
    acme, gate = await one.client("acme"), await other.client("acme")
    for _ in range(5):
        waiting = wait_for_change(gate, await etag_of(gate), **{"A-IM": "rows"})
        await taken_on(other, 1)
        row = await create(acme)
        answer = await asyncio.wait_for(waiting, PATIENCE)
        assert (answer.status_code, answer.json()) == (226, [row])
        assert (await gate.get(PATH)).headers["ETag"] == answer.headers["ETag"]


async def test_a_change_by_one_worker_is_told_by_another(cluster: PostgresCluster) -> None:
    async with two_hubs(cluster.create_schema()) as hubs:
        await tell_across(*hubs)


@pytest.mark.process
@pytest.mark.parametrize("direct", [True, False])
async def test_workers_behind_pgbouncer_tell_of_each_others_changes(cluster: PostgresCluster, *, direct: bool) -> None:
    url = cluster.create_database()
    with pooled(needs.pgbouncer(), cluster) as pooled_server:
        through = f"{pooled_server}/{url.rpartition('/')[2]}"
        async with two_hubs(through, url if direct else None) as hubs:
            await tell_across(*hubs)


async def test_one_transaction_is_one_notification(cluster: PostgresCluster) -> None:
    url = cluster.create_database()
    async with running_hub(url) as hub:
        acme = await hub.client("acme")
        row = await create(acme)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed", "disabled": True})
            await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed"})  # no change
            await acme.get(PATH)
            await (await hub.client_of_all()).get(PATH)  # what it notes has been told
            assert [each.payload async for each in connection.notifies(timeout=0.2)] == ["acme"]


# Options


@pytest.mark.parametrize(
    ("database", "listen_database", "problem"),
    [
        ("hub.db", "postgresql://user:secret@host/hub", "for PostgreSQL, and database is none"),
        ("postgresql://user:secret@host/hub", "mysql://user:secret@host/hub", "listen_database is no PostgreSQL URL"),
        ("postgresql://user:secret@host/hub", "postgresql://user:secret@host:port/hub", "listen_database is an invalid URL"),
        ("postgresql://user:secret@host/hub", "postgresql://u:p@secret@host/hub", "listen_database is a URL with @"),
        (
            "postgresql://user:secret@host/hub",
            "postgresql://user:secret@host/hub?ssl=true",
            "listen_database is a URL with a",
        ),
    ],
)
def test_a_wrong_second_url_is_refused_without_its_password(database: str, listen_database: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        create_hub(database, pepper=PEPPER, listen_database=listen_database)
    assert "secret" not in str(raised.value)
