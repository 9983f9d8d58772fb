"""POST and GET /api/v1/gates."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import func, insert, select

from gatekeeper.hub.backup import back_up
from gatekeeper.hub.gates import MAX_GATES
from gatekeeper.hub.tables import gates
from tests.support.postgres import PostgresCluster

from .support import PATH, START, RunningHub, assert_problem, create, execute, list_rows, running_hub, written
from .test_restore import mint, restore

pytestmark = pytest.mark.anyio

GATES = "/api/v1/gates"
DAY = 86_400

# What is wrong in a report, and where its problem says so.
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"id": None}, "$.id"),
    ({"id": ""}, "$.id"),
    ({"id": "a/b"}, "$.id"),
    ({"id": "a\n"}, "$.id"),
    ({"id": "i" * 65}, "$.id"),
    ({"version": ""}, "$.version"),
    ({"version": "0.1 beta"}, "$.version"),
    ({"version": "1\n"}, "$.version"),
    ({"version": "1" * 41}, "$.version"),
    ({"version": 1}, "$.version"),
    ({"is_live": None}, "$.is_live"),
    ({"is_live": 1}, "$.is_live"),
    ({"state": "Fresh"}, "$.state"),
    ({"state": "fresh\n"}, "$.state"),
    ({"state": None}, "$.state"),
    ({"list_age": -0.1}, "$.list_age"),
    ({"list_age": 1e11}, "$.list_age"),
    ({"list_age": "1"}, "$.list_age"),
    ({"keys": -1}, "$.keys"),
    ({"keys": 10**9 + 1}, "$.keys"),
    ({"keys": 1.5}, "$.keys"),
    ({"keys": None}, "$.keys"),
    ({"host": ""}, "$.host"),
    ({"host": "a\0b"}, "$.host"),
    ({"host": "a b"}, "$.host"),
    ({"host": "web\n"}, "$.host"),
    ({"host": "h" * 256}, "$.host"),
    ({"host": "büro"}, "$.host"),
]
REQUIRED = ("id", "version", "is_live", "state")


def gate(gate_id: str = "gate-1", **fields: Any) -> dict[str, Any]:
    """Describe a gate with a fresh list."""
    usual = {"version": "0.1.0", "is_live": False, "state": "fresh", "list_age": 2.5, "keys": 12, "host": "web-1"}
    return {"id": gate_id, **usual, **fields}


async def report(client: httpx.AsyncClient, *reports: dict[str, Any]) -> None:
    """Report gates."""
    for each in reports:
        answer = await client.post(GATES, json=each)
        assert (answer.status_code, answer.content) == (httpx.codes.NO_CONTENT, b""), answer.text


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """List the gates."""
    answer = await client.get(GATES)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (httpx.codes.OK, "no-store"), answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def stored(hub: RunningHub) -> int:
    """Count the gates in the database."""
    return await hub.database.read(lambda connection: connection.scalar(select(func.count()).select_from(gates)) or 0)


async def store(hub: RunningHub, count: int, *, seconds_ago: float = 0) -> None:
    """Store gates of acme that were last seen some seconds ago, each a second before the next."""
    seen = [hub.clock.now - timedelta(seconds=seconds_ago + count - number) for number in range(count)]
    rows = [{"account": "acme", **gate(f"old-{number}"), "seen_at": at} for number, at in enumerate(seen)]
    await execute(hub, insert(gates), rows)


async def test_a_gate_is_listed_as_it_has_reported_itself(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    reports = [
        gate(),
        gate("2-B_c", is_live=True, state="never_loaded", list_age=None, keys=0, host=None),
        gate("3", version="1.2.3rc1+local.build", list_age=0, keys=10**9, host="h" * 255),
    ]
    for each in reports:
        hub.clock.advance(1)
        await report(acme, each)
    expected = [{**each, "seen_at": written(START + timedelta(seconds=n))} for n, each in enumerate(reports, 1)]
    assert await listed(acme) == expected[::-1]


async def test_a_report_takes_the_place_of_the_last_one(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await report(acme, gate(), gate("gate-2"))
    moment = hub.clock.advance(60)
    later = gate(version="0.2.0", is_live=True, state="degraded", list_age=70.25, keys=13, host="web-2")
    await report(acme, later)
    assert await listed(acme) == [{**later, "seen_at": moment}, {**gate("gate-2"), "seen_at": written(START)}]


async def test_what_a_gate_leaves_out_is_forgotten(acme: httpx.AsyncClient) -> None:
    await report(acme, gate())
    await report(acme, {name: gate()[name] for name in REQUIRED})
    (only,) = await listed(acme)
    assert (only["list_age"], only["keys"], only["host"]) == (None, 0, None)


async def test_fields_of_a_newer_gate_are_ignored(acme: httpx.AsyncClient) -> None:
    await report(acme, {**gate(), "revocation_lag": 0.004, "seen_at": "yesterday", "account": "globex"})
    assert await listed(acme) == [{**gate(), "seen_at": written(START)}]


async def test_each_account_has_its_own_gates(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    await report(acme, gate())
    await report(globex, gate(keys=99))
    assert [row["keys"] for row in await listed(acme)] == [12]
    assert [row["keys"] for row in await listed(globex)] == [99]


async def test_the_gates_of_all_accounts_are_listed_apart(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """An account is not told of the hosts of others."""
    of_all = await hub.client_of_all()
    await report(acme, gate())
    await report(of_all, gate(keys=99), gate("gate-2"))
    assert [(row["id"], row["keys"]) for row in await listed(of_all)] == [("gate-1", 99), ("gate-2", 12)]
    assert [row["keys"] for row in await listed(acme)] == [12]
    assert await listed(await hub.client_of_all()) == await listed(of_all)


async def test_a_gate_may_report_itself_but_not_list_the_others(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    token = await hub.client("acme", "gate")
    await report(token, gate())
    assert_problem(await token.get(GATES), 403, "scope_insufficient")
    assert len(await listed(acme)) == 1


async def test_gates_are_served_under_both_prefixes_to_known_tokens(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    assert (await acme.post("/v1/gates", json=gate())).status_code == httpx.codes.NO_CONTENT
    assert (await acme.get("/v1/gates")).json() == await listed(acme)
    assert (await acme.head(GATES)).status_code == httpx.codes.OK
    stranger = await hub.client_with({"Authorization": "Bearer sk_live_acme_unknown"})
    for method in ("GET", "POST"):
        assert_problem(await stranger.request(method, GATES, json=gate()), 401, "token_unknown")
    answer = await acme.delete(GATES)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert "/api/v1/gates" in assert_problem(answer, 405, "method_not_allowed")["detail"]


async def test_a_report_changes_no_row_and_no_etag(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    etag = (await acme.get(PATH)).headers["ETag"]
    await report(acme, gate())
    assert await list_rows(acme) == [row]
    assert (await acme.get(PATH, headers={"If-None-Match": etag})).status_code == httpx.codes.NOT_MODIFIED


async def test_a_malformed_report_says_what_is_wrong(acme: httpx.AsyncClient) -> None:
    for fields, where in MALFORMED:
        problem = assert_problem(await acme.post(GATES, json={**gate(), **fields}), 400, "invalid_request")
        assert where in problem["detail"], fields
    assert await listed(acme) == []


async def test_a_body_that_is_no_report_is_refused(acme: httpx.AsyncClient) -> None:
    for lacking in REQUIRED:
        body = {name: value for name, value in gate().items() if name != lacking}
        assert f"`{lacking}`" in assert_problem(await acme.post(GATES, json=body), 400, "invalid_request")["detail"]
    sent_as = {"Content-Type": "application/json"}
    for content in (b"[{}]", b"null", b"7", b'"gate"'):
        answer = await acme.post(GATES, content=content, headers=sent_as)
        assert "Expected `object`" in assert_problem(answer, 400, "invalid_request")["detail"]
    assert_problem(await acme.post(GATES, content=b"{", headers=sent_as), 400, "malformed_json")
    assert_problem(await acme.post(GATES, content=b" " * 1_000_001, headers=sent_as), 413, "body_too_large")
    assert_problem(await acme.post(GATES, content=b"{}"), 415, "unsupported_media_type")
    assert await listed(acme) == []


async def test_a_gate_leaves_the_list_24_hours_after_its_last_report(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await report(acme, gate("gone"))
    hub.clock.advance(1)
    await report(acme, gate("here"))
    hub.clock.advance(DAY - 1)
    assert [row["id"] for row in await listed(acme)] == ["here", "gone"]
    hub.clock.advance(1)
    assert [row["id"] for row in await listed(acme)] == ["here"]
    assert await stored(hub) == 2
    await report(acme, gate("new"))
    assert await stored(hub) == 2


async def test_a_new_gate_takes_the_place_of_the_one_seen_least_recently(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    await store(hub, MAX_GATES)
    await report(globex, gate())
    await report(acme, gate("old-0"))  # now the latest
    assert await stored(hub) == MAX_GATES + 1
    hub.clock.advance(1)
    await report(acme, gate("new"))
    ids = [row["id"] for row in await listed(acme)]
    assert (len(ids), ids[:2], "old-1" in ids, "old-2" in ids) == (MAX_GATES, ["new", "old-0"], False, True)
    assert len(await listed(globex)) == 1


async def test_gates_that_report_at_once_are_all_listed(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """Among others that have expired, which each report wants to delete."""
    await store(hub, 20, seconds_ago=2 * DAY)
    turns = [report(acme, gate(f"old-{number % 20}"), gate(f"gate-{number}")) for number in range(12)]
    await asyncio.gather(*turns)
    ids = {row["id"] for row in await listed(acme)}
    assert ids == {f"gate-{number}" for number in range(12)} | {f"old-{number}" for number in range(12)}
    await report(acme, gate("last"))
    assert await stored(hub) == len(ids) + 1


async def test_the_gates_of_a_backup_are_restored(tmp_path: Path) -> None:
    database, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(database) as running:
        headers = await mint(running)
        client = await running.client_with(headers)
        await report(client, gate())
        back_up(database, backup)
        await report(client, gate("later"))
    restore(backup, database)
    async with running_hub(database) as running:
        assert [row["id"] for row in await listed(await running.client_with(headers))] == ["gate-1"]


# Locks of PostgreSQL. On SQLite, all writers of a process take turns.


async def test_a_report_and_a_revocation_do_not_wait_for_each_other(postgres: PostgresCluster) -> None:
    database = postgres.create_schema()
    async with running_hub(database) as hub:
        acme = await hub.client("acme")
        row = await create(acme)
        await report(acme, gate())
        with psycopg.connect(database) as holder:
            holder.execute("SELECT * FROM accounts FOR UPDATE")  # as a revocation does
            await asyncio.wait_for(report(acme, gate()), 15)
        with psycopg.connect(database) as holder:
            holder.execute("SELECT * FROM gates FOR UPDATE")
            answer = await asyncio.wait_for(acme.patch(f"{PATH}/{row['id']}", json={"disabled": True}), 15)
            assert answer.status_code == httpx.codes.OK


async def test_a_report_leaves_a_gone_gate_that_another_one_revives(postgres: PostgresCluster) -> None:
    database = postgres.create_schema()
    async with running_hub(database) as hub:
        acme = await hub.client("acme")
        await store(hub, 2, seconds_ago=2 * DAY)
        with psycopg.connect(database) as holder:
            holder.execute("UPDATE gates SET seen_at = %s WHERE id = 'old-0'", [hub.clock.now])
            await asyncio.wait_for(report(acme, gate()), 15)
        assert {row["id"] for row in await listed(acme)} == {"gate-1", "old-0"}
        assert await stored(hub) == 2
