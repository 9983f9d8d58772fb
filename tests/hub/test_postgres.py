"""PostgreSQL: its URL, its extra, and outages of its server."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter

import httpx
import psycopg
import pytest
from sqlalchemy import Connection, delete, text
from starlette.types import Message

from gatekeeper.errors import ConfigError, DatabaseDown
from gatekeeper.hub import create_hub, migrate
from gatekeeper.hub.database import Database
from gatekeeper.hub.postgres import PostgresServer
from gatekeeper.hub.tables import accounts
from tests import needs
from tests.support.pgbouncer import pooled
from tests.support.postgres import PostgresCluster

from .support import PATH, PEPPER, START, RunningHub, ask, assert_problem, create, fill, list_rows, running_hub, written

pytestmark = pytest.mark.anyio

# What may be other than PostgreSQL's default, for all sessions of a database.
SETTINGS = {
    "bytea_output": "'escape'",
    "client_encoding": "'latin1'",
    "datestyle": "'German'",
    "intervalstyle": "'sql_standard'",
    "search_path": "missing, public",
    "standard_conforming_strings": "off",
    "timezone": "'Asia/Kolkata'",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """Make a server that only this module stops and starts."""
    with PostgresCluster(needs.postgres()) as cluster:
        yield cluster


def without_pause(url: str) -> Database:
    """Open a database that every request retries while it is down."""
    return Database(PostgresServer(url), retry_pause=0.0)


@pytest.fixture
async def stopped(anyio_backend: str, cluster: PostgresCluster) -> str:  # noqa: ARG001 - makes the fixture async
    """An empty database whose server is stopped."""
    cluster.start()
    url = cluster.create_schema()
    cluster.stop()
    return url


@pytest.fixture
async def interrupted(stopped: str, cluster: PostgresCluster) -> AsyncIterator[RunningHub]:
    """A running hub over a server that the test can stop."""
    cluster.start()
    async with running_hub(without_pause(stopped)) as running:
        yield running
    cluster.stop()


async def use(database: str) -> None:
    """Create, change, list and delete keys over several connections."""
    name = "Café 日本"
    async with running_hub(database) as running:
        client = await running.client("acme")
        await fill(running, "acme", 1500)
        created = await asyncio.gather(*(create(client, name=name) for _ in range(12)))
        assert {row["created_at"] for row in created} == {written(START)}
        for rows in await asyncio.gather(*(list_rows(client) for _ in range(8))):
            assert len(rows) == 1512
            assert [row["name"] for row in rows[-12:]] == [name] * 12
        paths = [f"{PATH}/{row['id']}" for row in created]
        page = {
            "origin": None,
            "reason": "origin_missing",
            "count": 1,
            "first_at": written(START),
            "last_at": written(START),
        }
        refused = sorted(({"key_id": row["id"], **page, "entry": name} for row in created), key=itemgetter("key_id"))
        answers = [
            *await asyncio.gather(*(client.post(f"{PATH}/refused", json=refused[::order]) for order in (1, -1, 1, -1))),
            pages := await client.get(f"{PATH}/refused"),
            *await asyncio.gather(*(client.patch(path, json={"disabled": True}) for path in paths)),
            *await asyncio.gather(*(client.get(f"{path}/events") for path in paths)),
            *await asyncio.gather(*(client.delete(path) for path in paths)),
            await client.get("/readyz"),
        ]
        assert {answer.status_code for answer in answers} == {httpx.codes.OK, httpx.codes.NO_CONTENT}
        assert pages.json() == [{**each, "count": 4} for each in refused]


@pytest.mark.parametrize(
    "url", ["postgresql://user:secret@host:port/hub", "postgresql://user:secret@[::1/hub", "postgres://user:secret@h:x/"]
)
def test_an_invalid_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://user:password@host:port/database") as raised:
        create_hub(url, pepper=PEPPER)
    assert "secret" not in str(raised.value)
    assert raised.value.__context__ is None or raised.value.__suppress_context__


@pytest.mark.parametrize("url", ["mysql://user:secret@host/hub", "sqlite:///hub.db", "postgresql+asyncpg://user:secret@h/"])
def test_a_url_of_another_scheme_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="expected postgresql:// or the path of a file") as raised:
        create_hub(url, pepper=PEPPER)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("ssl=true", "ssl"),
        ("prepare_threshold=0", "prepare_threshold"),
        ("sslmode=nonsense", "sslmode"),
        ("connect_timeout=soon", "connect_timeout"),
        ("port=high", "high"),
        ("service=missing", "service"),
    ],
)
def test_a_wrong_parameter_of_the_url_is_named_in_one_sentence(query: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"wrong parameter.*{problem}") as raised:
        create_hub(f"postgresql://hub:secret@127.0.0.1/hub?{query}", pepper=PEPPER)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "query", ["", "?sslmode=require", "?gssencmode=require", "?host=/tmp&port=1", "?target_session_attrs=any"]
)
def test_parameters_are_checked_without_a_connection(query: str) -> None:
    create_hub(f"postgresql://hub:secret@nowhere.invalid/hub{query}", pepper=PEPPER)


@pytest.mark.parametrize("password", ["p@secret", "p@secret/1", "p@secret?1", "@secret"])
def test_a_password_with_an_unescaped_at_is_never_shown(password: str) -> None:
    with pytest.raises(ConfigError, match="%40") as raised:
        create_hub(f"postgresql://hub:{password}@host/hub", pepper=PEPPER)
    assert "secret" not in str(raised.value)


def test_an_at_in_a_parameter_is_no_mistake() -> None:
    create_hub("postgresql://hub:secret@host/hub?application_name=hub@host&options=-csearch_path%3Da@b", pepper=PEPPER)


async def test_both_schemes_and_the_parameters_of_libpq_work(postgres: PostgresCluster) -> None:
    url = postgres.create_schema().replace("postgresql://", "postgres://") + "&application_name=hub&connect_timeout=9"
    async with running_hub(url) as running:
        assert await list_rows(await running.client("acme")) == []


async def test_reads_see_one_state_and_write_nothing(postgres: PostgresCluster) -> None:
    mode = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")

    def show(connection: Connection) -> tuple[str, ...]:
        return tuple(connection.execute(mode).one())

    async with running_hub(postgres.create_schema()) as running:
        database = running.database
        async with database.transaction("streamer") as listing, database.transaction("reporter") as report:
            shown = [await listing.run(show), await database.read(show), await report.run(show), await database.write(show)]
        assert shown == [("repeatable read", "on")] * 2 + [("read committed", "off")] * 2
        with pytest.raises(DatabaseDown, match="read-only transaction"):
            await database.read(lambda connection: connection.execute(delete(accounts)))


async def test_the_time_zone_of_the_server_does_not_matter(postgres: PostgresCluster) -> None:
    async with running_hub(f"{postgres.create_schema()}%20-ctimezone%3DAsia/Kolkata") as running:
        client = await running.client("acme")
        row = await create(client)
        assert row["created_at"] == written(START)
        assert await list_rows(client) == [row]


@pytest.mark.process
@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
async def test_settings_of_the_database_do_not_matter(postgres: PostgresCluster, encoding: str) -> None:
    await use(postgres.create_database(f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'", **SETTINGS))


@pytest.mark.process
async def test_a_hub_works_behind_pgbouncer_in_transaction_mode(postgres: PostgresCluster) -> None:
    """Two connections to the server take turns at serving all transactions, also where dates are written in German."""
    url = postgres.create_database(**SETTINGS)
    with pooled(needs.pgbouncer(), postgres) as pooled_server:
        await use(f"{pooled_server}/{url.rpartition('/')[2]}")


@pytest.mark.process
async def test_text_that_the_encoding_of_the_database_lacks_is_a_400(postgres: PostgresCluster) -> None:
    async with running_hub(postgres.create_database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")) as running:
        client = await running.client("acme")
        row = await create(client, name="Café")
        assert_problem(await client.post(PATH, json={"name": "日本"}), 400, "unstorable")
        assert_problem(await client.patch(f"{PATH}/{row['id']}", json={"name": "日本"}), 400, "unstorable")
        assert await list_rows(client) == [row]


def test_a_missing_driver_is_an_import_error_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"pip install 'widget-gatekeeper\[hub,postgres\]'"):
        create_hub("postgresql://host/hub", pepper=PEPPER)
    create_hub("hub.db", pepper=PEPPER)


async def test_requests_get_a_503_while_the_server_is_down_at_the_start(
    stopped: str, cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_hub(without_pause(stopped)) as running:
        stranger = await running.client_with({"Authorization": "Bearer sk_live_acme_x"})
        for _ in range(3):
            answer = await stranger.get(PATH)
            assert_problem(answer, 503, "database_down")
            assert int(answer.headers["Retry-After"]) >= 1
        assert_problem(await stranger.get("/readyz"), 503, "database_down")
        assert (await stranger.get("/healthz")).status_code == httpx.codes.OK
        with pytest.raises(DatabaseDown):
            await running.hub.tokens.mint("acme", name="ci")
        assert [record.levelname for record in caplog.records if record.name == "gatekeeper.hub.database"] == ["WARNING"]
        cluster.start()
        answers = await asyncio.gather(*(stranger.get(PATH) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {httpx.codes.UNAUTHORIZED}
        assert await list_rows(await running.client("acme")) == []
        assert_problem(await stranger.get(PATH), 401, "token_unknown")
        assert (await stranger.get("/readyz")).status_code == httpx.codes.OK
    cluster.stop()


async def test_another_pepper_is_a_503_if_the_server_was_down_at_the_start(
    stopped: str, cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub finds out when the server is back, and resumes if it gets the right database."""
    cluster.start()
    async with running_hub(stopped):
        pass
    cluster.stop()
    async with running_hub(without_pause(stopped), pepper="another") as running:
        stranger = await running.client_with({})
        cluster.start()
        for _ in range(2):
            assert_problem(await stranger.get("/readyz"), 503, "database_down")
        said = [record.message for record in caplog.records if record.name == "gatekeeper.hub.database"]
        assert ["the pepper is not that of the database" in message for message in said] == [False, True]
        with psycopg.connect(stopped) as server:
            server.execute("DELETE FROM pepper_check")
        assert (await stranger.get("/readyz")).status_code == httpx.codes.OK
    cluster.stop()


async def test_a_server_that_is_down_is_not_retried_at_every_request(stopped: str, cluster: PostgresCluster) -> None:
    async with running_hub(Database(PostgresServer(stopped), retry_pause=3600.0)) as running:
        stranger = await running.client_with({})
        cluster.start()
        assert_problem(await stranger.get("/readyz"), 503, "database_down")
    async with running_hub(stopped) as again:
        assert (await (await again.client_with({})).get("/readyz")).status_code == httpx.codes.OK
    cluster.stop()


async def test_requests_get_a_503_during_an_outage_and_no_key_is_lost(
    interrupted: RunningHub, cluster: PostgresCluster
) -> None:
    client = await interrupted.client("acme")
    row = await create(client)
    etag = (await client.get(PATH)).headers["ETag"]
    cluster.stop()
    body = {"name": "renamed"}
    for method, path in (("GET", PATH), ("POST", PATH), ("PATCH", f"{PATH}/{row['id']}"), ("DELETE", f"{PATH}/{row['id']}")):
        answer = await client.request(method, path, json=body)
        assert_problem(answer, 503, "database_down")
        assert answer.headers["Retry-After"]
    cluster.start()
    answer = await client.get(PATH)
    assert (answer.json(), answer.headers["ETag"]) == ([row], etag)
    assert (await client.patch(f"{PATH}/{row['id']}", json=body)).status_code == httpx.codes.OK


async def test_a_restart_of_the_server_between_two_requests_goes_unnoticed(
    interrupted: RunningHub, cluster: PostgresCluster
) -> None:
    client = await interrupted.client("acme")
    row = await create(client)
    cluster.stop()
    cluster.start()
    assert await list_rows(client) == [row]
    assert (await client.delete(f"{PATH}/{row['id']}")).status_code == httpx.codes.NO_CONTENT


async def test_an_outage_in_the_middle_of_a_write_rolls_it_back(interrupted: RunningHub, cluster: PostgresCluster) -> None:
    client = await interrupted.client("acme")
    etag = (await client.get(PATH)).headers["ETag"]
    interrupted.dice.before = cluster.stop
    assert_problem(await client.post(PATH, json={"name": "shop"}), 503, "database_down")
    cluster.start()
    answer = await client.get(PATH)
    assert (answer.json(), answer.headers["ETag"]) == ([], etag)


async def test_a_list_cut_off_by_the_server_is_not_completed(interrupted: RunningHub, cluster: PostgresCluster) -> None:
    client = await interrupted.client("acme")
    await fill(interrupted, "acme", 3000)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body"):
            cluster.stop()

    with pytest.raises(RuntimeError, match="response already started"):
        await ask(interrupted, client, send)
    assert sent[-1]["more_body"]
    cluster.start()
    assert len(await list_rows(client)) == 3000


def test_migrate_raises_database_down(stopped: str) -> None:
    with pytest.raises(DatabaseDown):
        migrate(stopped)
