"""GET /api/v1/widget-keys."""

import re
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine, event

from .conftest import NewDatabase
from .support import PATH, START, RunningHub, create, list_rows, running_hub, use, written

pytestmark = pytest.mark.anyio

FIELDS = [
    "id",
    "name",
    "last8",
    "domain_allowlist",
    "agent_id",
    "disabled_at",
    "created_at",
    "updated_at",
    "last_used_at",
    "key_sha256",
    "use_count",
]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Collect the SQL that runs during the test."""
    collected: list[str] = []

    def collect(*arguments: object) -> None:
        collected.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", collect)
    yield collected
    event.remove(Engine, "before_cursor_execute", collect)


async def test_an_account_without_keys_has_an_empty_array(acme: httpx.AsyncClient) -> None:
    assert await list_rows(acme) == []


async def test_the_list_is_a_bare_array_of_rows_without_plaintexts(acme: httpx.AsyncClient) -> None:
    await create(acme, domain_allowlist=["acme.com"], agent_id="agent-7")
    answer = await acme.get(PATH)
    assert answer.headers["Content-Type"] == "application/json"
    (row,) = answer.json()
    assert list(row) == FIELDS


async def test_the_list_has_the_same_row_as_the_answer_to_create(acme: httpx.AsyncClient) -> None:
    created = await create(acme, domain_allowlist=["acme.com", "*.acme.com"], agent_id="agent-7")
    assert await list_rows(acme) == [created]


async def test_rows_are_in_order_of_creation_even_if_the_clock_is_set_back(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    ids = []
    for seconds in (0, 0, -3600, 7200):
        hub.clock.advance(seconds)
        ids.append((await create(acme))["id"])
    assert [row["id"] for row in await list_rows(acme)] == ids


async def test_times_are_in_utc_with_a_z(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    used = hub.clock.advance(9)
    await use(acme, row, hub.clock.now)
    (listed,) = await list_rows(acme)
    assert listed["created_at"] == listed["updated_at"] == written(START)
    assert listed["last_used_at"] == used


async def test_both_documented_paths_serve_the_same_keys(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    assert (await acme.get("/v1/widget-keys")).json() == (await acme.get("/api/v1/widget-keys")).json() == [row]
    second = await acme.post("/v1/widget-keys", json={"name": "second"})
    assert second.status_code == httpx.codes.CREATED
    renamed = await acme.patch(f"/v1/widget-keys/{row['id']}", json={"name": "renamed"})
    assert renamed.json()["name"] == "renamed"
    assert (await acme.delete(f"/v1/widget-keys/{row['id']}")).status_code == httpx.codes.NO_CONTENT


async def test_head_has_the_headers_of_get(acme: httpx.AsyncClient) -> None:
    answer = await acme.head(PATH)
    assert answer.status_code == httpx.codes.OK
    assert answer.headers["ETag"] == (await acme.get(PATH)).headers["ETag"]


async def test_an_account_does_not_see_the_rows_of_another(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    mine, theirs = await create(acme), await create(globex)
    assert await list_rows(acme) == [mine]
    assert await list_rows(globex) == [theirs]


async def test_a_304_does_not_read_the_rows(acme: httpx.AsyncClient, statements: list[str]) -> None:
    await create(acme)
    etag = (await acme.get(PATH)).headers["ETag"]
    statements.clear()
    answer = await acme.get(PATH, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (httpx.codes.NOT_MODIFIED, b"", etag)
    assert statements
    assert not any("widget_keys" in statement for statement in statements)


async def test_caches_may_store_the_list_but_must_revalidate(acme: httpx.AsyncClient) -> None:
    full = await acme.get(PATH)
    unchanged = await acme.get(PATH, headers={"If-None-Match": full.headers["ETag"]})
    for answer in (full, unchanged):
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["Vary"] == "Authorization, X-Account-ID, Accept-Encoding, A-IM, Prefer"


async def test_the_etag_is_weak_and_stable_without_writes(acme: httpx.AsyncClient) -> None:
    await create(acme)
    first, second = [(await acme.get(PATH)).headers["ETag"] for _ in range(2)]
    assert first == second
    assert re.fullmatch(r'W/"2-[0-9a-f]{16}"', first)


async def test_every_kind_of_change_advances_the_revision_in_the_etag(acme: httpx.AsyncClient) -> None:
    row, unused = await create(acme), await create(acme)
    path = f"{PATH}/{row['id']}"
    changes = [
        acme.post(PATH, json={"name": "second"}),
        acme.patch(path, json={"name": "renamed"}),
        acme.patch(path, json={"disabled": True}),
        acme.patch(path, json={"name": "again", "disabled": False}),
        acme.delete(f"{PATH}/{unused['id']}"),
    ]
    etags = [(await acme.get(PATH)).headers["ETag"]]
    for change in changes:
        assert (await change).is_success
        etags.append((await acme.get(PATH)).headers["ETag"])
    revisions, marks = zip(*(etag.removeprefix("W/").strip('"').split("-") for etag in etags), strict=True)
    assert revisions == ("3", "4", "5", "6", "7", "8")
    assert len(set(marks)) == len(marks)


async def test_a_refused_write_keeps_the_etag(acme: httpx.AsyncClient) -> None:
    etag = (await acme.get(PATH)).headers["ETag"]
    assert (await acme.post(PATH, json={})).is_client_error
    assert (await acme.patch(f"{PATH}/nothing", json={"name": "x"})).is_client_error
    assert (await acme.delete(f"{PATH}/nothing")).is_client_error
    assert (await acme.get(PATH)).headers["ETag"] == etag


async def test_a_write_of_one_account_keeps_the_etag_of_another(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    etag = (await acme.get(PATH)).headers["ETag"]
    await create(globex)
    assert (await acme.get(PATH, headers={"If-None-Match": etag})).status_code == httpx.codes.NOT_MODIFIED


async def test_the_etag_of_one_account_gives_another_no_304(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    theirs = (await globex.get(PATH)).headers["ETag"]
    assert (await acme.get(PATH, headers={"If-None-Match": theirs})).status_code == httpx.codes.OK


async def test_an_etag_of_a_lost_database_gives_no_304_with_a_new_one(new_database: NewDatabase) -> None:
    etags = []
    for _ in ("lost", "successor"):
        async with running_hub(new_database()) as other:
            client = await other.client("acme")
            await create(client)
            etags.append((await client.get(PATH)).headers["ETag"])
    assert etags[0] != etags[1]


@pytest.mark.parametrize("condition", ["{etag}", "W/{etag}", '"other", {etag}', '"other" ,W/{etag} , "third"', "*"])
async def test_if_none_match_with_the_etag_is_a_304(acme: httpx.AsyncClient, condition: str) -> None:
    strong = (await acme.get(PATH)).headers["ETag"].removeprefix("W/")
    answer = await acme.get(PATH, headers={"If-None-Match": condition.format(etag=strong)})
    assert answer.status_code == httpx.codes.NOT_MODIFIED


@pytest.mark.parametrize("condition", ["", '"other"', "{bare}", '"{bare}', "W/{bare}", '"x{bare}"', ",", '"*"'])
async def test_if_none_match_without_the_etag_is_the_list(acme: httpx.AsyncClient, condition: str) -> None:
    bare = (await acme.get(PATH)).headers["ETag"].removeprefix("W/").strip('"')
    answer = await acme.get(PATH, headers={"If-None-Match": condition.format(bare=bare)})
    assert answer.status_code == httpx.codes.OK


async def test_if_none_match_can_be_in_several_fields(acme: httpx.AsyncClient) -> None:
    etag = (await acme.get(PATH)).headers["ETag"]
    answer = await acme.get(PATH, headers=[("If-None-Match", '"other"'), ("If-None-Match", etag)])
    assert answer.status_code == httpx.codes.NOT_MODIFIED
