"""Several workers on one database, and killed workers."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from gatekeeper.hub.minting import random_text
from gatekeeper.hub.tables import widget_keys

from .conftest import NewDatabase
from .support import PATH, RunningHub, create, execute, hub_process, list_rows, running_hub

pytestmark = [pytest.mark.anyio, pytest.mark.process]

CREATES = 1000
AT_ONCE = 20


@pytest.fixture
async def workers(anyio_backend: str, new_database: NewDatabase) -> AsyncIterator[list[RunningHub]]:  # noqa: ARG001
    """Run two hubs over one database."""
    database = new_database()
    async with running_hub(database) as first, running_hub(database) as second:
        yield [first, second]


async def test_workers_on_one_database_serve_the_same_keys(workers: list[RunningHub]) -> None:
    first, second = [await worker.client("acme") for worker in workers]
    row = await create(first)
    etag = (await second.get(PATH)).headers["ETag"]
    assert await list_rows(second) == [row]
    assert (await second.delete(f"{PATH}/{row['id']}")).status_code == httpx.codes.NO_CONTENT
    answer = await first.get(PATH, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.json()) == (httpx.codes.OK, [])


async def test_workers_can_mint_tokens_of_a_new_account_at_the_same_time(workers: list[RunningHub]) -> None:
    tokens = await asyncio.gather(*(worker.hub.tokens.mint("acme", name="ci") for _ in range(10) for worker in workers))
    assert len(await workers[0].hub.tokens.list("acme")) == len(set(tokens)) == 20


async def test_workers_that_draw_the_same_last_8_never_both_use_it(workers: list[RunningHub]) -> None:
    clients = [await worker.client("acme") for worker in workers]
    for worker in workers:
        worker.dice.next = [drawn for number in range(25) for drawn in (f"{'R' * 24}{number:08}", random_text(32))]
    rows = await asyncio.gather(*(create(client) for _ in range(25) for client in clients))
    suffixes = {row["last8"] for row in rows}
    assert len(suffixes) == len(rows)
    assert len([suffix for suffix in suffixes if suffix.startswith("000000")]) >= 25 / 2
    assert {row["id"] for row in await list_rows(clients[0])} == {row["id"] for row in rows}


async def test_the_database_refuses_a_second_key_with_the_same_last_8(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    stored = await hub.database.read(lambda connection: connection.execute(select(widget_keys)).one()._asdict())
    del stored["sequence"]
    with pytest.raises(IntegrityError, match=r"(?i)unique"):
        await execute(hub, insert(widget_keys).values({**stored, "id": "another"}))
    assert await list_rows(acme) == [row]


async def test_acknowledged_creates_survive_a_kill_of_the_hub(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as running:
        token = await running.hub.tokens.mint("acme", name="tests")
    acknowledged: set[str] = set()
    numbers = itertools.count()
    headers = {"Authorization": f"Bearer {token}"}

    async def create_many(client: httpx.AsyncClient) -> None:
        while (number := next(numbers)) < CREATES:
            try:
                answer = await client.post(PATH, json={"name": f"{number}"})
            except httpx.TransportError:
                return
            assert answer.status_code == httpx.codes.CREATED
            acknowledged.add(answer.json()["id"])
            if len(acknowledged) == CREATES // 3:
                worker.send_signal(signal.SIGKILL)

    async with (
        hub_process(database) as (url, worker),
        httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client,
    ):
        await asyncio.gather(*(create_many(client) for _ in range(AT_ONCE)))
        assert await asyncio.wait_for(worker.wait(), 10) == -signal.SIGKILL
    assert CREATES // 3 <= len(acknowledged) < CREATES
    async with running_hub(database) as running:
        client = await running.client_with(headers)
        listed = {row["id"] for row in await list_rows(client)}
        assert acknowledged <= listed
        # Unacknowledged writes are complete: each row has its event.
        for key_id in listed - acknowledged:
            assert len((await client.get(f"{PATH}/{key_id}/events")).json()) == 1
        assert len(listed - acknowledged) <= AT_ONCE
        await create(client)
