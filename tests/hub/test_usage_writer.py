"""UsageWriter: reports of use beside changes, deletions, other workers and kills."""

import asyncio
import random
import re
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, event, update

from gatekeeper.hub.accounts import ALL_ACCOUNTS, lock_account
from gatekeeper.hub.bodies import KeyUse
from gatekeeper.hub.tables import widget_keys
from gatekeeper.hub.usage_writer import UsageWriter
from tests.support.postgres import PostgresCluster

from .conftest import NewDatabase
from .support import (
    PATH,
    START,
    RunningHub,
    collected_statements,
    create,
    eventually,
    execute,
    fill,
    hub_process,
    list_rows,
    running_hub,
    use,
)

pytestmark = pytest.mark.anyio

AT_ONCE = 50
FINE = {"count": 1, "last_used_at": START.isoformat()}


def transactions(statements: list[str]) -> int:
    """Count the transactions that write use."""
    found, writes = 0, False
    for statement in statements:
        writes |= "use_count=" in statement
        if statement == "COMMIT":
            found, writes = found + writes, False
    return found


async def test_many_reports_at_once_take_few_transactions(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    rows = [await create(acme) for _ in range(3)]
    writer = UsageWriter(hub.database, hub.clock)
    report = {row["id"]: KeyUse(1, START) for row in rows}
    async with hub.database.transaction("reporter"):  # until all have come
        reports = [asyncio.create_task(writer.record("acme", report)) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)
    with collected_statements() as statements:
        await asyncio.gather(*reports)
    assert transactions(statements) == 1
    assert [row["use_count"] for row in await list_rows(acme)] == [AT_ONCE] * 3


async def test_reports_on_one_account_and_on_all_are_written_together(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    mine, theirs = await create(acme), await create(globex)
    writer = UsageWriter(hub.database, hub.clock)
    report = {row["id"]: KeyUse(1, START) for row in (mine, theirs)}
    async with hub.database.transaction("reporter"):  # until all have come
        accounts = ("acme", ALL_ACCOUNTS, "globex", "acme", ALL_ACCOUNTS)
        reports = [asyncio.create_task(writer.record(account, report)) for account in accounts]
        await asyncio.sleep(0)
    with collected_statements() as statements:
        await asyncio.gather(*reports)
    assert transactions(statements) == 1
    assert [row["use_count"] for client in (acme, globex) for row in await list_rows(client)] == [4, 3]


async def test_use_is_added_by_the_unique_id_whatever_the_account(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """A walk through the keys of all accounts would keep other writers waiting."""
    await fill(hub, "acme", 5000)
    row = await create(acme)
    added: list[tuple[str, Any]] = []

    def collect(*arguments: Any) -> None:
        if "use_count=" in arguments[2]:
            added.append((arguments[2], arguments[3]))

    event.listen(Engine, "before_cursor_execute", collect)
    try:
        for client in (acme, await hub.client_of_all()):
            await use(client, row, START)
    finally:
        event.remove(Engine, "before_cursor_execute", collect)

    def explain_all(connection: Connection) -> None:
        connection.exec_driver_sql("ANALYZE widget_keys")
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        for statement, parameters in added:
            one = parameters[0] if isinstance(parameters, list) else parameters
            plan = str(connection.exec_driver_sql(f"{explain} {statement}", one).all())
            assert re.search(r"SEARCH widget_keys USING INDEX \w+ \(id=\?\)|Index Scan using uq_widget_keys_id", plan), plan

    await hub.database.write(explain_all)
    assert len(added) == 2


async def test_no_change_fails_beside_a_flood_of_reports(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    await fill(hub, "acme", 300)
    mine, theirs = await create(acme), await create(globex)
    ids = [row["id"] for row in await list_rows(acme)]
    reports = [
        asyncio.create_task(acme.post(f"{PATH}/usage", json=dict.fromkeys(ids[number:], FINE))) for number in range(20)
    ]
    for number in range(5):
        for client, row in ((acme, mine), (globex, theirs)):
            answer = await client.patch(f"{PATH}/{row['id']}", json={"disabled": number % 2 == 0})
            assert answer.status_code == httpx.codes.OK
    assert {answer.status_code for answer in await asyncio.gather(*reports)} == {httpx.codes.NO_CONTENT}
    assert sum(row["use_count"] for row in await list_rows(acme)) == sum(301 - number for number in range(20))


async def test_a_report_does_not_wait_for_the_lock_of_the_account(postgres: PostgresCluster) -> None:
    url = postgres.create_schema()
    async with running_hub(url) as hub, running_hub(url) as other:
        client = await hub.client("acme")
        row = await create(client)
        async with other.database.transaction("writer", "acme") as transaction:
            await transaction.run(lambda connection: lock_account(connection, "acme"))
            await use(client, row, START)
        assert (await list_rows(client))[0]["use_count"] == 1


async def test_a_key_whose_first_use_is_being_written_is_disabled_not_deleted(postgres: PostgresCluster) -> None:
    url = postgres.create_schema()
    async with running_hub(url) as hub, running_hub(url) as other:
        client = await hub.client("acme")
        row = await create(client)
        async with other.database.transaction("reporter") as transaction:
            await transaction.run(lambda connection: connection.execute(update(widget_keys).values(use_count=1)))
            with collected_statements() as statements:
                deleting = asyncio.create_task(client.delete(f"{PATH}/{row['id']}"))
                await eventually(lambda: any("widget_keys" in each and "FOR UPDATE" in each for each in statements))
        answer = await deleting
        assert (answer.status_code, answer.json()["use_count"]) == (httpx.codes.OK, 1)


async def test_use_of_a_key_that_is_deleted_meanwhile_is_ignored(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    gone, kept = await create(acme), await create(acme)
    writer = UsageWriter(hub.database, hub.clock)
    async with hub.database.transaction("reporter"):
        reporting = asyncio.create_task(writer.record("acme", {row["id"]: KeyUse(3, START) for row in (gone, kept)}))
        await asyncio.sleep(0)
    await execute(hub, widget_keys.delete().where(widget_keys.c.id == gone["id"]))
    await reporting
    assert [(row["id"], row["use_count"]) for row in await list_rows(acme)] == [(kept["id"], 3)]


@pytest.mark.slow
async def test_two_workers_write_the_same_keys_without_a_deadlock(postgres: PostgresCluster) -> None:
    url, chance = postgres.create_schema(), random.Random(7)
    async with running_hub(url) as first, running_hub(url) as second:
        clients = [await hub.client("acme") for hub in (first, second)]
        await fill(first, "acme", 300)
        ids = [row["id"] for row in await list_rows(clients[0])]

        async def report(client: httpx.AsyncClient) -> int:
            shuffled = chance.sample(ids, len(ids))
            answer = await client.post(f"{PATH}/usage", json=dict.fromkeys(shuffled, FINE))
            return answer.status_code

        async def change(client: httpx.AsyncClient) -> int:
            body = {"disabled": chance.random() < 0.5}
            return (await client.patch(f"{PATH}/{chance.choice(ids)}", json=body)).status_code

        for _ in range(5):
            tasks = [report(client) for client in clients for _ in range(4)] + [change(client) for client in clients]
            assert set(await asyncio.gather(*tasks)) == {httpx.codes.NO_CONTENT, httpx.codes.OK}
        assert {row["use_count"] for row in await list_rows(clients[0])} == {40}


@pytest.mark.process
async def test_use_that_was_acknowledged_survives_a_kill_of_the_hub(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as running:
        client = await running.client("acme")
        rows = [await create(client) for _ in range(3)]
        headers = dict(client.headers)
    acknowledged = 0
    async with hub_process(database) as (url, process):
        async with httpx.AsyncClient(base_url=url, headers=headers) as remote:
            for number in range(20):
                if number == 10:
                    process.kill()
                try:
                    answer = await remote.post(f"{PATH}/usage", json={row["id"]: FINE for row in rows})
                except httpx.TransportError:
                    break
                acknowledged += answer.status_code == httpx.codes.NO_CONTENT
        await process.wait()
    async with running_hub(database) as running:
        counts = {row["use_count"] for row in await list_rows(await running.client_with(headers))}
    assert len(counts) == 1
    assert acknowledged <= counts.pop() <= acknowledged + 1
    assert acknowledged >= 10
