"""Database: servers that are silent, read-only, locked or full, and roles without privileges."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator

import httpx
import psycopg
import pytest
from sqlalchemy import text
from starlette.types import Message

from gatekeeper.errors import ConfigError, DatabaseDown
from gatekeeper.hub import migrate
from gatekeeper.hub.accounts import lock_account
from gatekeeper.hub.database import Database
from gatekeeper.hub.postgres import PostgresServer
from tests import needs
from tests.support.namespaces import ENTER_AS_ROOT, in_namespaces
from tests.support.postgres import PostgresCluster

from .support import PATH, RunningHub, ask, assert_problem, create, fill, list_rows, running_hub

pytestmark = pytest.mark.anyio

LOGGER = "gatekeeper.hub.database"
DEADLINE = 2.0  # seconds; a busy machine answers sooner
PATIENCE = 30.0  # far less than a statement waits without a deadline


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """Run a server that only this module freezes."""
    with PostgresCluster(needs.postgres()) as cluster:
        cluster.start()
        yield cluster


def impatient(url: str) -> Database:
    """Open a database with a short deadline for statements, and the shortest of libpq for connecting."""
    return Database(PostgresServer(f"{url}&connect_timeout=2", statement_deadline=DEADLINE), retry_pause=0.0)


@pytest.fixture
async def frozen(anyio_backend: str, cluster: PostgresCluster) -> AsyncIterator[RunningHub]:  # noqa: ARG001 - makes the fixture async
    """A running hub over a server that the test can freeze."""
    async with running_hub(impatient(cluster.create_schema())) as running:
        yield running


@pytest.mark.process
async def test_requests_get_a_503_while_the_server_is_frozen(
    frozen: RunningHub, cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is stopped by SIGSTOP accepts connections, and answers nothing."""
    client = await frozen.client("acme")
    row = await create(client)
    path = f"{PATH}/{row['id']}"
    requests = [("GET", PATH), ("POST", PATH), ("PATCH", path), ("DELETE", path), ("GET", f"{path}/events")]
    tasks = asyncio.all_tasks()
    with cluster.frozen():
        async with asyncio.timeout(PATIENCE):
            # One more than the pool has connections, so that it waits for one.
            answers = await asyncio.gather(
                *(client.request(method, target, json={"name": "new"}) for method, target in [*requests, ("GET", PATH)]),
                client.get("/readyz"),
            )
            assert (await client.get("/healthz")).status_code == httpx.codes.OK
    for answer in answers:
        assert_problem(answer, 503, "database_down")
        assert int(answer.headers["Retry-After"]) >= 1
    assert await list_rows(client) == [row]
    assert (await client.patch(path, json={"disabled": True})).status_code == httpx.codes.OK
    assert (await client.get("/readyz")).status_code == httpx.codes.OK
    assert asyncio.all_tasks() == tasks
    logged = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(logged) in {2, 3}  # a write may fail before the first read
    assert all("does not answer" in line for line in logged[:-1])
    assert "answers again" in logged[-1]
    assert not [record for record in caplog.records if record.name.startswith("sqlalchemy")]


@pytest.mark.process
async def test_a_server_that_freezes_in_a_write_ends_it(frozen: RunningHub, cluster: PostgresCluster) -> None:
    client = await frozen.client("acme")
    etag = (await client.get(PATH)).headers["ETag"]
    freezing = cluster.frozen()
    frozen.dice.before = freezing.__enter__
    try:
        async with asyncio.timeout(PATIENCE):
            assert_problem(await client.post(PATH, json={"name": "shop"}), 503, "database_down")
    finally:
        freezing.__exit__(None, None, None)
    frozen.dice.before = lambda: None
    answer = await client.get(PATH)
    assert (answer.json(), answer.headers["ETag"]) == ([], etag)
    await create(client)


@pytest.mark.process
async def test_a_list_whose_server_freezes_breaks_off(cluster: PostgresCluster) -> None:
    url = cluster.create_schema()
    async with running_hub(url) as running:
        headers = dict((await running.client("acme")).headers)
        await fill(running, "acme", 3000)
    async with running_hub(impatient(url)) as running:
        await list_until_frozen(running, await running.client_with(headers), cluster)
    async with running_hub(url) as running:
        assert len(await list_rows(await running.client_with(headers))) == 3000


async def list_until_frozen(running: RunningHub, client: httpx.AsyncClient, cluster: PostgresCluster) -> None:
    """Freeze the server once the list has begun, and see it break off."""
    sent: list[Message] = []
    freezing = cluster.frozen()

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body") and len(sent) == 2:
            freezing.__enter__()

    try:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(RuntimeError, match="response already started"):
                await ask(running, client, send)
    finally:
        freezing.__exit__(None, None, None)
    assert sent[-1]["more_body"]


@pytest.mark.process
async def test_a_hub_starts_and_stops_while_the_server_is_frozen(cluster: PostgresCluster) -> None:
    url = cluster.create_schema()
    migrate(url)
    freezing = cluster.frozen()
    try:
        async with asyncio.timeout(PATIENCE):
            async with running_hub(impatient(url)) as running:
                await running.client("acme")
                freezing.__enter__()
            async with running_hub(impatient(url)) as running:
                with pytest.raises(DatabaseDown):
                    await running.hub.tokens.list()
                freezing.__exit__(None, None, None)
                assert len(await running.hub.tokens.list()) == 1
    finally:
        freezing.__exit__(None, None, None)


async def test_a_transaction_that_stays_idle_loses_its_locks(postgres: PostgresCluster) -> None:
    """A worker that is frozen in a write does not keep the others from the account."""
    url = postgres.create_schema()
    async with running_hub(url) as running, running_hub(Database(PostgresServer(url, idle_timeout=60))) as frozen:
        client = await running.client("acme")
        writing = frozen.database.transaction("writer")
        transaction = await writing.__aenter__()
        await transaction.run(lambda connection: lock_account(connection, "acme"))
        shown = text("SHOW idle_in_transaction_session_timeout")
        assert await transaction.run(lambda connection: connection.scalar(shown)) == "1min"
        # Shorter from here on. A machine that stalls earlier ends no session.
        shorter = text("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
        await transaction.run(lambda connection: connection.execute(shorter))
        row = await create(client)
        with pytest.raises(DatabaseDown):
            await writing.__aexit__(None, None, None)
        assert await list_rows(client) == [row]


@pytest.mark.process
async def test_the_server_ends_a_long_statement_before_the_deadline(postgres: PostgresCluster) -> None:
    """So it does not work on for a client that has hung up."""
    async with running_hub(postgres.create_schema()) as running:
        with pytest.raises(DatabaseDown, match="statement timeout"):
            await running.database.read(lambda connection: connection.execute(text("SELECT pg_sleep(60)")))
        assert await running.database.read(lambda connection: connection.scalar(text("SELECT 1"))) == 1


async def test_a_read_only_session_reads_and_is_not_ready(
    postgres: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator set default_transaction_read_only. A standby refuses writes with the same error."""
    url = postgres.create_schema()
    async with running_hub(url) as running:
        client = await running.client("acme")
        row = await create(client)
    headers = dict(client.headers)
    async with running_hub(f"{url}%20-cdefault_transaction_read_only%3Don") as running:
        reader = await running.client_with(headers)
        for _ in range(3):
            assert await list_rows(reader) == [row]
            assert_problem(await reader.patch(f"{PATH}/{row['id']}", json={"disabled": True}), 503, "database_down")
            assert_problem(await reader.get("/readyz"), 503, "database_down")
        with pytest.raises(DatabaseDown, match="read-only"):
            await running.hub.tokens.mint("acme", name="ci")
    logged = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(logged) == 1
    assert "read-only" in logged[0]


async def test_a_role_that_may_only_read_gets_503_not_500(postgres: PostgresCluster) -> None:
    url = postgres.create_schema()
    async with running_hub(url) as running:
        client = await running.client("acme")
        row = await create(client)
    schema = url.rpartition("%3D")[2]
    with psycopg.connect(postgres.url) as connection:
        connection.execute(
            f"CREATE ROLE {schema}_reader LOGIN; GRANT USAGE ON SCHEMA {schema} TO {schema}_reader; "
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {schema}_reader".encode()
        )
    async with running_hub(url.replace("postgres@", f"{schema}_reader@")) as running:
        reader = await running.client_with(dict(client.headers))
        assert await list_rows(reader) == [row]
        assert_problem(await reader.delete(f"{PATH}/{row['id']}"), 503, "database_down")
        assert_problem(await reader.get("/readyz"), 503, "database_down")


@pytest.fixture
def powerless(postgres: PostgresCluster) -> str:
    """The URL of a role that may not create tables."""
    url = postgres.create_schema()
    name = url.rpartition("%3D")[2] + "_powerless"
    with psycopg.connect(postgres.url) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
    return url.replace("postgres@", f"{name}:secret@")


async def test_a_role_that_may_not_create_tables_stops_the_start(powerless: str) -> None:
    for start in (lambda: running_hub(powerless).__aenter__(), lambda: asyncio.to_thread(migrate, powerless)):
        with pytest.raises(ConfigError, match=r"refuses the upgrade.+a role that may create") as raised:
            await start()
        assert "secret" not in str(raised.value)
        assert "\n" not in str(raised.value)


async def test_a_refused_upgrade_after_the_start_is_a_503(powerless: str, postgres: PostgresCluster) -> None:
    """The server was down at the start, and refuses the upgrade when it is back."""
    schema = powerless.rpartition("%3D")[2]
    role = f"{schema}_powerless"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} NOLOGIN".encode())
        database = Database(PostgresServer(powerless), retry_pause=0.0)
        async with running_hub(database) as running:
            stranger = await running.client_with({})
            assert_problem(await stranger.get("/readyz"), 503, "database_down")
            connection.execute(f"ALTER ROLE {role} LOGIN".encode())
            assert_problem(await stranger.get("/readyz"), 503, "database_down")
            connection.execute(f"GRANT ALL ON SCHEMA {schema} TO {role}".encode())
            assert (await stranger.get("/readyz")).status_code == httpx.codes.OK


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://hub:secret@nowhere.invalid/hub", r"nowhere\.invalid|not known"),
        ("postgresql://stranger:secret@127.0.0.1:{port}/postgres", 'role "stranger" does not exist'),
        ("postgresql://postgres:secret@127.0.0.1:{port}/missing", 'database "missing" does not exist'),
        ("postgresql://postgres:secret@127.0.0.1:{port}/postgres?sslmode=require", "SSL"),
        ("postgresql://postgres:secret@127.0.0.1:{port}/postgres?options=-cnonsense%3D1", "nonsense"),
    ],
)
def test_a_failed_connection_is_explained_in_one_sentence(postgres: PostgresCluster, url: str, reason: str) -> None:
    with pytest.raises(DatabaseDown, match=reason) as raised:
        migrate(url.format(port=postgres.port))
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.process
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_full_disk_is_a_503_and_not_ready(kind: str) -> None:
    if kind == "postgres":
        needs.postgres()
    if os.geteuid():
        needs.lacking("only root can mount a small disk that PostgreSQL's user can write")
    with tempfile.TemporaryDirectory() as directory:  # PostgreSQL's user may not enter a directory of pytest
        assert in_namespaces("tests.hub.full_disk", kind, directory, enter=ENTER_AS_ROOT) == "well"
