"""The hub behind uvicorn, over sockets, with many concurrent clients."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest
import uvicorn

from gatekeeper.hub import create_hub

from .conftest import NewDatabase
from .support import PATH, PEPPER, assert_problem, create, list_rows, use

pytestmark = pytest.mark.anyio

CLIENTS = 50


@pytest.fixture
async def acme(anyio_backend: str, new_database: NewDatabase) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ARG001
    """A client of the account acme, over sockets."""
    app = create_hub(new_database(), pepper=PEPPER)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for being ready
        await asyncio.sleep(0.01)
    token = await app.state.hub.tokens.mint("acme", name="tests")
    async with httpx.AsyncClient(
        base_url="http://{}:{}".format(*listener.getsockname()),
        headers={"Authorization": f"Bearer {token}"},
        limits=httpx.Limits(max_connections=CLIENTS),
        trust_env=False,
        timeout=30,
    ) as client:
        yield client
    server.should_exit = True
    await serving
    listener.close()


async def test_the_life_of_a_key_from_create_to_delete(acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=["acme.com"])
    listed = await acme.get(PATH)
    assert listed.json() == [row]
    unchanged = await acme.get(PATH, headers={"If-None-Match": listed.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (httpx.codes.NOT_MODIFIED, b"")
    disabled = await acme.patch(f"{PATH}/{row['id']}", json={"disabled": True})
    assert disabled.json()["disabled_at"]
    assert (await acme.delete(f"{PATH}/{row['id']}")).status_code == httpx.codes.NO_CONTENT
    assert await list_rows(acme) == []


async def test_50_concurrent_creates_all_succeed_with_distinct_last_8(acme: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(acme.post(PATH, json={"name": f"{n}"}) for n in range(CLIENTS)))
    assert Counter(answer.status_code for answer in answers) == {httpx.codes.CREATED: CLIENTS}
    created = [answer.json() for answer in answers]
    assert len({row["last8"] for row in created}) == CLIENTS
    assert len({row["public_key"] for row in created}) == CLIENTS
    rows = await list_rows(acme)
    assert {row["id"] for row in rows} == {row["id"] for row in created}
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)


async def test_50_concurrent_disables_agree_on_the_time(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    path = f"{PATH}/{row['id']}"
    answers = await asyncio.gather(*(acme.patch(path, json={"disabled": True}) for _ in range(CLIENTS)))
    assert len({answer.json()["disabled_at"] for answer in answers}) == 1


async def test_50_concurrent_deletes_remove_the_key_once(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    answers = await asyncio.gather(*(acme.delete(f"{PATH}/{row['id']}") for _ in range(CLIENTS)))
    expected = {httpx.codes.NO_CONTENT: 1, httpx.codes.NOT_FOUND: CLIENTS - 1}
    assert Counter(answer.status_code for answer in answers) == expected


async def test_concurrent_updates_of_different_fields_are_all_kept(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    changes: list[dict[str, Any]] = [
        {"name": "renamed"},
        {"domain_allowlist": ["globex.com"]},
        {"agent_id": "agent-8"},
        {"disabled": True},
    ]
    await asyncio.gather(*(acme.patch(f"{PATH}/{row['id']}", json=change) for change in changes))
    (updated,) = await list_rows(acme)
    assert (updated["name"], updated["domain_allowlist"], updated["agent_id"]) == ("renamed", ["globex.com"], "agent-8")
    assert updated["disabled_at"] is not None


@pytest.mark.slow
async def test_50_clients_that_create_update_and_delete_lose_nothing(acme: httpx.AsyncClient) -> None:
    async def live(number: int) -> dict[str, Any] | None:
        row = await create(acme, name=f"{number}")
        path = f"{PATH}/{row['id']}"
        for name in ("renamed", f"{number} again"):
            assert (await acme.patch(path, json={"name": name})).status_code == httpx.codes.OK
        if number % 2:
            assert (await acme.delete(path)).status_code == httpx.codes.NO_CONTENT
            return None
        return {**row, "name": f"{number} again"}

    lived = [row for row in await asyncio.gather(*(live(number) for number in range(CLIENTS))) if row is not None]
    rows = {row["id"]: row for row in await list_rows(acme)}
    assert len(rows) == len(lived) == CLIENTS / 2
    assert all(rows[row["id"]] == {**row, "updated_at": rows[row["id"]]["updated_at"]} for row in lived)


async def test_50_concurrent_updates_of_a_key_are_50_consecutive_events(
    acme: httpx.AsyncClient,
) -> None:
    row = await create(acme, name="first")
    path = f"{PATH}/{row['id']}"
    answers = await asyncio.gather(*(acme.patch(path, json={"name": f"{n}"}) for n in range(CLIENTS)))
    assert Counter(answer.status_code for answer in answers) == {httpx.codes.OK: CLIENTS}
    events = (await acme.get(f"{path}/events")).json()
    changes = [event["changes"]["name"] for event in events]
    assert [event["id"] for event in events] == list(range(1, CLIENTS + 2))
    assert all(earlier["after"] == later["before"] for earlier, later in pairwise(changes))
    assert {change["after"] for change in changes} == {"first", *(f"{n}" for n in range(CLIENTS))}
    assert [change["after"] for change in changes][-1] == (await list_rows(acme))[0]["name"]


async def test_50_concurrent_usage_reports_all_count(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await asyncio.gather(*(use(acme, row, datetime.now(UTC), count=n) for n in range(1, CLIENTS + 1)))
    assert (await list_rows(acme))[0]["use_count"] == CLIENTS * (CLIENTS + 1) / 2


@pytest.mark.slow
async def test_an_etag_matches_its_rows_during_concurrent_writes(acme: httpx.AsyncClient) -> None:
    async def read() -> tuple[str, int]:
        answer = await acme.get(PATH)
        return answer.headers["ETag"], len(answer.json())

    writes = (create(acme) for _ in range(CLIENTS))
    read_meanwhile = asyncio.gather(*(read() for _ in range(CLIENTS)))
    await asyncio.gather(*writes)
    lengths: dict[str, set[int]] = {}
    for etag, length in await read_meanwhile:
        lengths.setdefault(etag, set()).add(length)
    assert all(len(seen) == 1 for seen in lengths.values())


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_1_mb_is_a_413_and_the_hub_stays_up(acme: httpx.AsyncClient, *, announced: bool) -> None:
    body = b" " * 3_000_000

    async def in_chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    content = body if announced else in_chunks()
    answer = await acme.post(PATH, content=content, headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "body_too_large")
    assert await list_rows(acme) == []
