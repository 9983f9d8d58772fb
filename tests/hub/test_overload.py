"""Overload: requests that wait too long for others are told so, and the log says for what."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from gatekeeper import HubServerError
from gatekeeper.client import HubClient
from gatekeeper.errors import DatabaseDown, HubOverloaded
from gatekeeper.hub.accounts import lock_account
from gatekeeper.hub.database import Database, PoolName
from gatekeeper.hub.postgres import PostgresServer
from gatekeeper.hub.sqlite import SqliteFile
from tests.support.postgres import PostgresCluster

from .support import PATH, RunningHub, assert_problem, create, list_rows, running_hub, use

pytestmark = pytest.mark.anyio

SOON = 0.05  # seconds


class LockTimeout(Exception):
    """The error of a driver for a lock of PostgreSQL that is held too long."""

    sqlstate = "55P03"


@pytest.fixture
async def impatient(anyio_backend: str, tmp_path: Path) -> AsyncIterator[RunningHub]:  # noqa: ARG001 - makes the fixture async
    """A hub whose requests wait for a short time only."""
    async with running_hub(Database(SqliteFile(tmp_path / "hub.db", patience=SOON))) as running:
        yield running


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the hub has logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("gatekeeper.hub")]


async def test_a_write_that_waits_too_long_is_an_overload(impatient: RunningHub, caplog: pytest.LogCaptureFixture) -> None:
    client = await impatient.client("acme")
    row = await create(client)
    async with impatient.database.transaction("writer"):
        for request in (
            client.post(PATH, json={"name": "shop"}),
            client.patch(f"{PATH}/{row['id']}", json={"disabled": True}),
            client.delete(f"{PATH}/{row['id']}"),
        ):
            answer = await request
            assert_problem(answer, 503, "overloaded")
            assert int(answer.headers["Retry-After"]) >= 1
        assert await list_rows(client) == [row]
    assert lines(caplog) == [
        f"the hub is overloaded: a request of the account acme has waited {SOON:g} s for its turn to write"
    ]
    assert (await client.patch(f"{PATH}/{row['id']}", json={"disabled": True})).status_code == httpx.codes.OK


async def test_a_list_lets_other_requests_go_first(impatient: RunningHub) -> None:
    database = impatient.database
    others: tuple[PoolName, ...] = ("reader", "writer")
    for other in others:
        async with database.transaction(other):
            deferred = asyncio.create_task(asyncio.to_thread(database.defer, 60))
            await asyncio.sleep(SOON)
            assert not deferred.done()
            await asyncio.to_thread(database.defer, SOON)  # and no longer than this
        await asyncio.wait_for(deferred, 15)
    async with database.transaction("streamer"):
        await asyncio.wait_for(asyncio.to_thread(database.defer, 60), 15)
    async with database.transaction("reader"):
        await asyncio.wait_for(asyncio.to_thread(database.defer, 60, held=1), 15)  # a delta that is alone


async def test_reads_of_one_account_leave_connections_to_others(impatient: RunningHub) -> None:
    client, globex = await impatient.client("acme"), await impatient.client("globex")
    async with AsyncExitStack() as readers:
        for _ in range(2):
            await readers.enter_async_context(impatient.database.transaction("reader", "acme"))
        assert_problem(await client.get(PATH), 503, "overloaded")
        assert await list_rows(globex) == []
    assert await list_rows(client) == []


async def test_a_read_that_waits_too_long_is_an_overload(impatient: RunningHub) -> None:
    client = await impatient.client("acme")
    async with AsyncExitStack() as readers:
        for _ in range(5):
            await readers.enter_async_context(impatient.database.transaction("reader"))
        assert_problem(await client.get(PATH), 503, "overloaded")
    assert await list_rows(client) == []


async def test_the_stores_raise_it(impatient: RunningHub) -> None:
    async with impatient.database.transaction("writer"):
        with pytest.raises(HubOverloaded, match=r"^gatekeeper: the hub is overloaded: .*; try again$"):
            await impatient.hub.tokens.mint("acme", name="ci")


async def test_a_lock_that_is_held_too_long_is_an_overload(
    postgres: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.create_schema()
    async with running_hub(Database(PostgresServer(url, statement_deadline=0.5))) as hub, running_hub(url) as other:
        client, globex = await hub.client("acme"), await hub.client("globex")
        row, theirs = await create(client), await create(globex)
        async with other.database.transaction("writer", "acme") as transaction:
            await transaction.run(lambda connection: lock_account(connection, "acme"))
            # More than an account has connections for.
            patches = [asyncio.create_task(client.patch(f"{PATH}/{row['id']}", json={"disabled": True})) for _ in range(2)]
            answer = await globex.patch(f"{PATH}/{theirs['id']}", json={"disabled": True})
            assert answer.status_code == httpx.codes.OK
            for refused in await asyncio.gather(*patches):
                assert_problem(refused, 503, "overloaded")
            await use(client, row, hub.clock.now)
        assert lines(caplog) == ["the hub is overloaded: a statement has waited too long for a lock"]
        assert (await client.patch(f"{PATH}/{row['id']}", json={"disabled": True})).status_code == httpx.codes.OK


async def test_a_blocked_account_leaves_connections_to_others(postgres: PostgresCluster) -> None:
    url = postgres.create_schema()
    async with running_hub(url) as hub, running_hub(url) as other:
        client, globex = await hub.client("acme"), await hub.client("globex")
        row, theirs = await create(client), await create(globex)
        async with other.database.transaction("writer", "acme") as transaction:
            await transaction.run(lambda connection: lock_account(connection, "acme"))
            patches = [
                asyncio.create_task(client.patch(f"{PATH}/{row['id']}", json={"name": f"{number}"})) for number in range(20)
            ]
            await asyncio.sleep(0.01)
            for number in range(5):
                answer = await globex.patch(f"{PATH}/{theirs['id']}", json={"name": f"{number}"})
                assert answer.status_code == httpx.codes.OK
            assert not any(patch.done() for patch in patches)
        assert {answer.status_code for answer in await asyncio.gather(*patches)} == {httpx.codes.OK}


async def test_during_an_outage_the_outage_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = SqliteFile(tmp_path / "hub.db", patience=SOON, busy_timeout=SOON)
    async with running_hub(Database(file)) as hub, running_hub(tmp_path / "hub.db") as other:
        client = await hub.client("acme")
        async with other.database.transaction("writer"):
            assert_problem(await client.post(PATH, json={"name": "shop"}), 503, "database_down")
            engines = hub.database._engines
            assert engines is not None
            async with engines.writer.turns.taking("globex"):
                assert_problem(await client.post(PATH, json={"name": "shop"}), 503, "database_down")
        assert lines(caplog) == ["the hub's database does not answer as it should: database is locked"]


async def test_during_an_outage_a_lock_that_is_held_is_told_as_the_outage(impatient: RunningHub) -> None:
    def fail(_connection: Connection) -> None:
        raise OperationalError("", {}, sqlite3.OperationalError("disk I/O error"))

    def wait_in_vain(_connection: Connection) -> None:
        raise DBAPIError("", {}, LockTimeout())

    with pytest.raises(HubOverloaded, match="waited too long for a lock"):
        await impatient.database.write(wait_in_vain)
    for work in (fail, wait_in_vain):
        with pytest.raises(DatabaseDown, match="disk I/O error"):
            await impatient.database.write(work)


async def test_the_client_knows_when_to_come_back(impatient: RunningHub) -> None:
    client = await impatient.client("acme")
    async with impatient.database.transaction("writer"):
        refused = await client.post(PATH, json={"name": "shop"})
    repeated = httpx.Response(503, headers=refused.headers, content=refused.content)
    http = httpx.Client(transport=httpx.MockTransport(lambda _: repeated))
    with HubClient("http://hub.test", "sk_live_acme_x", http=http, max_attempts=1) as hub:
        with pytest.raises(HubServerError, match="more requests than it can answer in time") as raised:
            hub.widget_keys.list()
        assert raised.value.retry_after == float(refused.headers["Retry-After"])
