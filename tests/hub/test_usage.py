"""POST /api/v1/widget-keys/usage."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from .support import PATH, START, RunningHub, assert_problem, create, list_rows, use, written

pytestmark = pytest.mark.anyio

USAGE = f"{PATH}/usage"
FINE = {"count": 1, "last_used_at": START.isoformat()}


async def test_counts_add_up_and_the_rest_of_the_row_is_unchanged(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row, bystander = await create(acme), await create(acme)
    hub.clock.advance(60)
    await use(acme, row, hub.clock.now, count=3)
    await use(acme, row, hub.clock.now, count=1_000_000_000)
    used = {**row, "use_count": 1_000_000_003, "last_used_at": written(hub.clock.now)}
    assert await list_rows(acme) == [used, bystander]


async def test_a_report_can_cover_many_keys(acme: httpx.AsyncClient) -> None:
    rows = [await create(acme) for _ in range(5)]
    report = {row["id"]: {**FINE, "count": number} for number, row in enumerate(rows, start=1)}
    answer = await acme.post(USAGE, json=report)
    assert (answer.status_code, answer.content) == (httpx.codes.NO_CONTENT, b"")
    assert [row["use_count"] for row in await list_rows(acme)] == [1, 2, 3, 4, 5]


async def test_last_used_at_only_moves_forward(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    hub.clock.advance(3600)
    for minutes in (5, 9, 7):
        await use(acme, row, START + timedelta(minutes=minutes))
    (used,) = await list_rows(acme)
    assert (used["last_used_at"], used["use_count"]) == (written(START + timedelta(minutes=9)), 3)


async def test_last_used_at_is_never_in_the_future_of_the_hub(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await use(acme, row, START + timedelta(days=3000))
    assert (await list_rows(acme))[0]["last_used_at"] == written(START)
    later = hub.clock.advance(60)
    await use(acme, row, hub.clock.now)
    assert (await list_rows(acme))[0]["last_used_at"] == later


async def test_extreme_times_are_clamped(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    for moment in ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00-23:59", "9999-12-31T23:59:59-23:59"):
        answer = await acme.post(USAGE, json={row["id"]: {"count": 1, "last_used_at": moment}})
        assert answer.status_code == httpx.codes.NO_CONTENT
    (used,) = await list_rows(acme)
    assert (used["last_used_at"], used["use_count"]) == (written(hub.clock.now), 3)


async def test_times_can_be_in_any_time_zone(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    hub.clock.advance(86_400)
    for moment in ("2026-01-02T04:00:00+00:30", "2026-01-02T03:45:00Z", "2026-01-02T01:00:00.5-02:30"):
        answer = await acme.post(USAGE, json={row["id"]: {"count": 1, "last_used_at": moment}})
        assert answer.status_code == httpx.codes.NO_CONTENT
    assert (await list_rows(acme))[0]["last_used_at"] == "2026-01-02T03:45:00Z"


async def test_ids_of_other_accounts_and_unknown_ids_are_ignored(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    row, theirs, gone = await create(acme), await create(globex), await create(acme)
    await acme.delete(f"{PATH}/{gone['id']}")
    their_etag = (await globex.get(PATH)).headers["ETag"]
    report = dict.fromkeys((row["id"], theirs["id"], gone["id"], "nothing", "", "a\0b", "🔑", "x" * 1000), FINE)
    assert (await acme.post(USAGE, json=report)).status_code == httpx.codes.NO_CONTENT
    assert [(listed["id"], listed["use_count"]) for listed in await list_rows(acme)] == [(row["id"], 1)]
    answer = await globex.get(PATH)
    assert (answer.json(), answer.headers["ETag"]) == ([theirs], their_etag)


async def test_a_token_for_all_accounts_reports_use_of_keys_of_any(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    rows, unused = [await create(client) for client in (acme, globex)], await create(globex)
    etags = [(await client.get(PATH)).headers["ETag"] for client in (acme, globex)]
    gate = await hub.client_of_all()
    report = dict.fromkeys([*(row["id"] for row in rows), "nothing", "00000000-0000-4000-8000-000000000000"], FINE)
    for client in (gate, gate, acme):  # of which the last one cannot report the key of globex
        assert (await client.post(USAGE, json=report)).status_code == httpx.codes.NO_CONTENT
    listed = [*await list_rows(acme), *await list_rows(globex)]
    assert [(row["id"], row["use_count"]) for row in listed] == [(rows[0]["id"], 3), (rows[1]["id"], 2), (unused["id"], 0)]
    assert [(await client.get(PATH)).headers["ETag"] for client in (acme, globex)] == etags


async def test_a_report_leaves_the_etag_so_that_gates_fetch_no_list(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    etag = (await acme.get(PATH)).headers["ETag"]
    await use(acme, row, hub.clock.now, count=3)
    answer = await acme.get(PATH, headers={"If-None-Match": etag})
    assert answer.status_code == httpx.codes.NOT_MODIFIED
    answer = await acme.get(PATH)
    assert (answer.headers["ETag"], answer.json()[0]["use_count"]) == (etag, 3)


async def test_the_use_of_a_disabled_key_is_recorded(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await acme.patch(f"{PATH}/{row['id']}", json={"disabled": True})
    await use(acme, row, hub.clock.now)
    (listed,) = await list_rows(acme)
    assert (listed["use_count"], listed["disabled_at"]) == (1, written(START))


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ({}, "count"),
        ({"count": 1}, "last_used_at"),
        ({**FINE, "count": 0}, "$.count"),
        ({**FINE, "count": -1}, "$.count"),
        ({**FINE, "count": 1.5}, "$.count"),
        ({**FINE, "count": "1"}, "$.count"),
        ({**FINE, "count": True}, "$.count"),
        ({**FINE, "count": None}, "$.count"),
        ({**FINE, "count": 10**9 + 1}, "$.count"),
        ({**FINE, "count": 10**30}, "$.count"),
        ({**FINE, "last_used_at": "yesterday"}, "$.last_used_at"),
        ({**FINE, "last_used_at": "2026-01-02T03:04:05"}, "$.last_used_at"),
        ({**FINE, "last_used_at": 1767323045}, "$.last_used_at"),
        ({**FINE, "last_used_at": None}, "$.last_used_at"),
        (7, "object"),
        (None, "object"),
        ([FINE], "object"),
    ],
)
async def test_a_malformed_entry_is_named_and_refuses_the_whole_report(
    acme: httpx.AsyncClient, entry: Any, where: str
) -> None:
    row = await create(acme)
    answer = await acme.post(USAGE, json={row["id"]: FINE, "wrong": entry})
    (error,) = assert_problem(answer, 400, "usage_invalid")["errors"]
    assert (error["entry"], error["reason"]) == ("wrong", "malformed")
    assert where in error["hint"]
    assert await list_rows(acme) == [row]


async def test_every_malformed_entry_is_listed(acme: httpx.AsyncClient) -> None:
    report = {"a": FINE, "b": {**FINE, "count": 0}, "c": FINE, "d": {}, "e": 7}
    problem = assert_problem(await acme.post(USAGE, json=report), 400, "usage_invalid")
    assert [error["entry"] for error in problem["errors"]] == ["b", "d", "e"]
    assert "3 of the 5 entries" in problem["detail"]


async def test_an_unknown_field_of_an_entry_is_named(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    answer = await acme.post(USAGE, json={row["id"]: {**FINE, "coun": 7}, "fine": FINE})
    (error,) = assert_problem(answer, 400, "usage_invalid")["errors"]
    assert (error["entry"], error["reason"]) == (row["id"], "unknown_field")
    assert "'coun' (did you mean 'count'?)" in error["hint"]
    assert await list_rows(acme) == [row]


async def test_of_many_malformed_entries_the_first_1000_are_listed(acme: httpx.AsyncClient) -> None:
    report = {str(number): {"coun": 1} for number in range(1500)}
    problem = assert_problem(await acme.post(USAGE, json={**report, "fine": FINE}), 400, "usage_invalid")
    assert [error["entry"] for error in problem["errors"]] == [str(number) for number in range(1000)]
    assert "1500 of the 1501 entries" in problem["detail"]


async def test_a_body_that_is_not_a_json_object_is_refused(acme: httpx.AsyncClient) -> None:
    assert_problem(await acme.post(USAGE, json=[FINE]), 400, "invalid_request")
    assert_problem(await acme.post(USAGE, content=b"{", headers={"Content-Type": "application/json"}), 400, "malformed_json")
    assert_problem(await acme.post(USAGE, content=b"{}"), 415, "unsupported_media_type")


async def test_ten_thousand_keys_fit_into_a_report(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    report = {f"00000000-0000-4000-8000-{number:012}": FINE for number in range(9_999)}
    report[row["id"]] = FINE
    body = str(report).replace("'", '"').replace(" ", "")
    answer = await acme.post(USAGE, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == httpx.codes.NO_CONTENT
    assert (await list_rows(acme))[0]["last_used_at"] == written(hub.clock.now)
