"""POST and GET /api/v1/widget-keys/refused."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from sqlalchemy import Connection, func, insert, select

from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.bodies import ReportedPage
from gatekeeper.hub.refused import FREQUENT, LATEST, RefusedPageStore
from gatekeeper.hub.tables import refused_pages
from tests.support.postgres import PostgresCluster

from .support import (
    PATH,
    START,
    RunningHub,
    assert_problem,
    collected_statements,
    create,
    execute,
    list_rows,
    running_hub,
    use,
    written,
)

pytestmark = pytest.mark.anyio

REFUSED = f"{PATH}/refused"
SHOP = "https://shop.acme.com"

# What is wrong in a page, and where its error says so.
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"key_id": None}, "$.key_id"),
    ({"origin": 7}, "$.origin"),
    ({"origin": ""}, "$.origin"),
    ({"origin": "shop.acme.com"}, "$.origin"),
    ({"origin": f"{SHOP}/cart"}, "$.origin"),
    ({"origin": f"{SHOP}\n"}, "$.origin"),
    ({"origin": "https://shop acme.com"}, "$.origin"),
    ({"origin": "https://bücher.example"}, "$.origin"),
    ({"origin": f"https://{'a' * 260}"}, "$.origin"),
    ({"reason": None}, "$.reason"),
    ({"reason": ""}, "$.reason"),
    ({"reason": "Not allowed"}, "$.reason"),
    ({"reason": "origin_null\n"}, "$.reason"),
    ({"reason": "r" * 41}, "$.reason"),
    ({"count": 0}, "$.count"),
    ({"count": 10**9 + 1}, "$.count"),
    ({"count": 1.5}, "$.count"),
    ({"count": True}, "$.count"),
    ({"first_at": "2026-01-02T03:04:05"}, "$.first_at"),
    ({"last_at": "yesterday"}, "$.last_at"),
    ({"last_at": "2026-01-02T03:04:04.999Z"}, "`last_at` at or after `first_at`"),
    ({"entry": ""}, "$.entry"),
    ({"entry": "a\0b"}, "$.entry"),
    ({"entry": "e" * 1025}, "$.entry"),
]
REQUIRED = ("key_id", "origin", "reason", "count", "first_at", "last_at")


def page(row: dict[str, Any], origin: str | None = SHOP, **fields: Any) -> dict[str, Any]:
    """Describe a page that was refused once with a key, at the start of the test."""
    entry = None if origin in {None, "null"} else origin
    moment = written(START)
    usual = {"reason": "origin_not_allowed", "count": 1, "first_at": moment, "last_at": moment, "entry": entry}
    return {"key_id": row["id"], "origin": origin, **usual, **fields}


async def report(client: httpx.AsyncClient, *pages: dict[str, Any]) -> None:
    """Report refused pages."""
    answer = await client.post(REFUSED, json=pages)
    assert (answer.status_code, answer.content) == (httpx.codes.NO_CONTENT, b""), answer.text


async def listed(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    """List refused pages."""
    answer = await client.get(REFUSED, params=query)
    assert answer.status_code == httpx.codes.OK, answer.text
    pages: list[dict[str, Any]] = answer.json()
    return pages


async def stored(hub: RunningHub) -> int:
    """Count the pages in the database."""
    count = select(func.count()).select_from(refused_pages)
    return await hub.database.read(lambda connection: connection.scalar(count) or 0)


async def test_a_page_is_listed_as_it_was_reported(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    pages = [
        page(row, count=4),
        page(row, "null", reason="origin_null", count=3),
        page(row, None, reason="origin_missing", count=2),
        page(row, "http://[::1]:8080", reason="allowlist_empty"),
    ]
    await report(acme, *pages)
    assert await listed(acme) == pages


async def test_counts_add_up_by_key_page_and_reason(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row, other = await create(acme), await create(acme)
    hub.clock.advance(3600)
    early, late = (written(START + timedelta(minutes=minutes)) for minutes in (1, 9))
    await report(acme, page(row, count=3, first_at=early, entry="shop.acme.com", last_at=late))
    await report(acme, page(row, count=1_000_000_000, entry="*.acme.com"))
    await report(acme, page(row, count=2, reason="allowlist_empty"), page(other), page(row, "https://acme.com"))
    first, second, *others = await listed(acme)
    assert first == page(row, count=1_000_000_003, last_at=late, entry="*.acme.com")
    assert second == page(row, count=2, reason="allowlist_empty")
    assert sorted((each["key_id"], each["origin"]) for each in others) == sorted(
        [(other["id"], SHOP), (row["id"], "https://acme.com")]
    )


async def test_a_page_may_be_in_a_report_twice(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    hub.clock.advance(60)
    await report(acme, page(row, count=2, last_at=written(hub.clock.now)), page(row, count=5))
    assert await listed(acme) == [page(row, count=7, last_at=written(hub.clock.now))]


async def test_the_pages_of_one_key_can_be_listed(acme: httpx.AsyncClient) -> None:
    row, other, quiet = await create(acme), await create(acme), await create(acme)
    await report(acme, page(row), page(other))
    assert await listed(acme, key_id=row["id"]) == [page(row)]
    assert await listed(acme, key_id=quiet["id"]) == []


async def test_the_pages_of_an_unknown_key_are_a_404(acme: httpx.AsyncClient) -> None:
    for key_id in ("nothing", "", "a\0b", "00000000-0000-4000-8000-000000000000"):
        assert_problem(await acme.get(REFUSED, params={"key_id": key_id}), 404, "not_found")


async def test_each_account_has_its_own_pages(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    row = await create(acme)
    await report(acme, page(row))
    await report(globex, page(row, count=100))
    assert await listed(acme) == [page(row)]
    assert await listed(globex) == []
    assert_problem(await globex.get(REFUSED, params={"key_id": row["id"]}), 404, "not_found")


async def test_a_token_for_all_accounts_reports_pages_of_keys_of_any(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    mine, theirs = await create(acme), await create(globex)
    gate = await hub.client_of_all()
    unknown = [page({"id": key_id}) for key_id in ("nothing", "00000000-0000-4000-8000-000000000000")]
    await report(gate, page(mine), page(theirs), *unknown)
    await report(gate, page(theirs))
    assert await listed(acme) == [page(mine)]
    assert await listed(globex) == [page(theirs, count=2)]


async def test_reports_on_one_account_and_on_all_add_up_in_one_transaction(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    """They name the same page of the same key, and acme one of a key that is not its own."""
    mine, theirs = await create(acme), await create(globex)
    pages = [msgspec.convert(page(row), ReportedPage) for row in (mine, theirs)]
    store = RefusedPageStore(hub.database, hub.clock)
    async with hub.database.transaction("reporter"):  # until all have come
        reports = [asyncio.create_task(store.record(account, pages)) for account in ("acme", ALL_ACCOUNTS, "acme")]
        await asyncio.sleep(0)
    with collected_statements() as statements:
        await asyncio.gather(*reports)
    assert statements.count("COMMIT") == 1
    assert await listed(acme) == [page(mine, count=3)]
    assert await listed(globex) == [page(theirs)]


async def test_unknown_keys_are_ignored(acme: httpx.AsyncClient) -> None:
    row, gone = await create(acme), await create(acme)
    await acme.delete(f"{PATH}/{gone['id']}")
    unknown = [page({"id": key_id}) for key_id in (gone["id"], "nothing", "", "a\0b", "🔑", "x" * 1000)]
    await report(acme, *unknown, page(row))
    await report(acme, *unknown)
    await report(acme)
    assert await listed(acme) == [page(row)]


async def test_the_pages_of_a_key_are_deleted_with_it(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """A key that was used is only disabled. Its pages stay, like its row."""
    unused, used = await create(acme), await create(acme)
    await use(acme, used, START)
    await report(acme, page(unused), page(used))
    for row in (unused, used):
        await acme.delete(f"{PATH}/{row['id']}")
    assert await listed(acme) == [page(used)]
    assert await stored(hub) == 1


async def test_a_gate_may_report_pages_but_not_list_them(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row, gate = await create(acme), await hub.client("acme", "gate")
    await report(gate, page(row))
    assert_problem(await gate.get(REFUSED), 403, "scope_insufficient")
    assert await listed(acme) == [page(row)]


async def test_a_report_changes_no_row_and_no_etag(acme: httpx.AsyncClient) -> None:
    """Gates would download the list again for each refused page."""
    row = await create(acme)
    etag = (await acme.get(PATH)).headers["ETag"]
    await report(acme, page(row))
    assert await list_rows(acme) == [row]
    assert (await acme.get(PATH, headers={"If-None-Match": etag})).status_code == httpx.codes.NOT_MODIFIED


async def test_times_are_clamped_to_the_clock_of_the_hub(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await report(acme, page(row, first_at="0001-01-01T00:00:00+23:59", last_at="9999-12-31T23:59:59-23:59"))
    (only,) = await listed(acme)
    assert (only["first_at"], only["last_at"]) == ("1970-01-01T00:00:00Z", written(hub.clock.now))


async def test_malformed_pages_are_named_and_refuse_the_report(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    fine = page(row)
    malformed: list[tuple[Any, str]] = [({**fine, **fields}, where) for fields, where in MALFORMED]
    malformed += [({name: fine[name] for name in fine if name != lacking}, f"`{lacking}`") for lacking in REQUIRED]
    malformed += [(value, "object") for value in (7, None, [fine])]
    problem = assert_problem(await acme.post(REFUSED, json=[fine, *(body for body, _ in malformed)]), 400, "refused_invalid")
    assert f"{len(malformed)} of the {len(malformed) + 1} entries" in problem["detail"]
    for position, ((body, where), error) in enumerate(zip(malformed, problem["errors"], strict=True), start=1):
        assert (error["entry"], error["reason"]) == (str(position), "malformed"), body
        assert where in error["hint"], body
    assert await listed(acme) == []


async def test_unknown_fields_of_a_page_are_named(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    answer = await acme.post(REFUSED, json=[page(row), {**page(row), "orign": SHOP}])
    (error,) = assert_problem(answer, 400, "refused_invalid")["errors"]
    assert (error["entry"], error["reason"]) == ("1", "unknown_field")
    assert "'orign' (did you mean 'origin'?)" in error["hint"]
    assert await listed(acme) == []


async def test_a_body_that_is_no_report_is_refused(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    assert_problem(await acme.post(REFUSED, json={row["id"]: page(row)}), 400, "invalid_request")
    assert "<= 1000" in assert_problem(await acme.post(REFUSED, json=[page(row)] * 1001), 400, "invalid_request")["detail"]
    assert_problem(
        await acme.post(REFUSED, content=b"[", headers={"Content-Type": "application/json"}), 400, "malformed_json"
    )
    assert_problem(await acme.post(REFUSED, content=b"[]"), 415, "unsupported_media_type")
    assert await listed(acme) == []


async def test_a_page_with_the_longest_fields_is_kept(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    longest = page(row, f"https://{'a' * 253}:65535", reason="r" * 40, entry="ü" * 1024)
    await report(acme, longest)
    assert await listed(acme) == [longest]


async def test_a_flood_of_other_pages_evicts_no_frequent_page(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """Any site can copy a public key, or send any Origin. The customer's own pages have to stay in the list."""
    row, quiet = await create(acme), await create(acme)
    frequent = [f"https://shop-{number}.acme.com" for number in range(FREQUENT - 1)]
    await report(acme, page(quiet), *(page(row, origin, count=2) for origin in frequent))
    for flood in range(3):
        moment = hub.clock.advance(30)
        foreign = [page(row, f"https://{flood}-{number}.example", last_at=moment) for number in range(250)]
        await report(acme, *foreign, page(row, "https://new.acme.com", count=2, last_at=moment))
        assert await stored(hub) == FREQUENT + LATEST + 1
    kept = {each["origin"]: each["count"] for each in await listed(acme, key_id=row["id"])}
    assert {origin: kept.get(origin) for origin in frequent} == dict.fromkeys(frequent, 2)
    assert kept["https://new.acme.com"] == 6
    assert await listed(acme, key_id=quiet["id"]) == [page(quiet)]


async def test_a_new_page_stays_among_frequent_ones(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await report(acme, *(page(row, f"https://{number}.example", count=9) for number in range(FREQUENT + LATEST)))
    for _ in range(10):
        await report(acme, page(row, last_at=hub.clock.advance(30)))
    assert (await listed(acme))[0] == page(row, count=10, last_at=written(hub.clock.now))
    assert await stored(hub) == FREQUENT + LATEST


async def test_a_page_leaves_the_list_after_30_days(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await report(acme, *(page(row, f"https://{number}.example", count=9) for number in range(FREQUENT)))
    hub.clock.advance(86_400 * 30)
    assert len(await listed(acme)) == FREQUENT
    moment = hub.clock.advance(1)
    assert await listed(acme) == []
    fresh = [f"https://{number}.acme.com" for number in range(LATEST + 1)]
    await report(acme, *(page(row, origin, last_at=moment) for origin in fresh))
    assert {each["origin"] for each in await listed(acme)} == set(fresh)
    assert await stored(hub) == len(fresh)


async def test_a_report_deletes_the_expired_pages_of_its_keys(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row, other = await create(acme), await create(acme)
    await report(acme, page(row, "https://old.acme.com", count=9), page(row), page(other))
    hub.clock.advance(86_400 * 30)
    await report(acme, page(row, last_at=written(hub.clock.now)))
    assert await stored(hub) == 3  # none is older than 30 days
    fresh = page(row, "https://new.acme.com", last_at=hub.clock.advance(1))
    await report(acme, fresh)
    assert {each["origin"] for each in await listed(acme)} == {SHOP, "https://new.acme.com"}
    assert await stored(hub) == 3  # the other key was not reported


async def test_a_count_stops_at_63_bits(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """A sum beyond is a float in SQLite, which no client reads, and an error in PostgreSQL."""
    row = await create(acme)

    def fill_up(connection: Connection) -> None:
        near = page(row, count=2**63 - 1 - 10**9)
        connection.execute(insert(refused_pages), {**near, "first_at": START, "last_at": START})

    await hub.database.write(fill_up)
    for _ in range(2):
        await report(acme, *[page(row, count=10**9)] * 2, page(row, "https://acme.com"))
    full, beside = await listed(acme)
    assert (full["count"], beside["count"]) == (2**63 - 1, 2)
    assert type(full["count"]) is int
    await report(acme, *[page(row, "https://acme.com", count=10**9)] * 1000)
    assert (await listed(acme))[1]["count"] == 10**12 + 2


async def test_the_list_has_at_most_1000_pages(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    rows = [await create(acme) for _ in range(6)]
    pages = [page(row, f"https://{number}.example") for row in rows for number in range(FREQUENT + LATEST)]
    await execute(hub, insert(refused_pages), [{**each, "first_at": START, "last_at": START} for each in pages])
    assert len(await listed(acme)) == 1000


async def test_concurrent_reports_all_count(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """Each report has the same pages in another order, and as many others as are evicted at its end."""
    row = await create(acme)
    common = [page(row, f"https://{number}.acme.com", count=2) for number in range(FREQUENT)]

    def body(turn: int) -> list[dict[str, Any]]:
        others = [page(row, f"https://{turn}-{number}.example") for number in range(LATEST + 5)]
        return [*others, *(common if turn % 2 else reversed(common))]

    await asyncio.gather(*(report(acme, *body(turn)) for turn in range(6)))
    await report(acme, page(row))
    kept = await listed(acme)
    assert [each["count"] for each in kept[:FREQUENT]] == [12] * FREQUENT
    assert await stored(hub) == len(kept) == FREQUENT + LATEST


async def test_a_key_that_is_deleted_during_reports_leaves_no_page(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    pages = [page(row, f"https://{number}.example") for number in range(50)]
    reports = [acme.post(REFUSED, json=pages) for _ in range(6)]
    answers = await asyncio.gather(*reports, acme.delete(f"{PATH}/{row['id']}"))
    assert {answer.status_code for answer in answers} == {httpx.codes.NO_CONTENT}
    assert await stored(hub) == 0


# Locks of PostgreSQL. On SQLite, all writers of a process take turns.


@pytest.fixture
async def server(anyio_backend: str, postgres: PostgresCluster) -> AsyncIterator[tuple[RunningHub, psycopg.Connection]]:  # noqa: ARG001
    """A hub on PostgreSQL, and another transaction on its tables."""
    database = postgres.create_schema()
    async with running_hub(database) as hub:
        with psycopg.connect(database) as holder:
            yield hub, holder


async def wait_for_locks(holder: psycopg.Connection, count: int) -> None:
    """Wait until so many transactions wait for a lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    while holder.execute(waiting).fetchone() != (count,):  # noqa: ASYNC110 - PostgreSQL does not signal it
        await asyncio.sleep(0.01)


async def test_a_report_that_waits_does_not_delay_a_revocation(server: tuple[RunningHub, psycopg.Connection]) -> None:
    hub, holder = server
    acme = await hub.client("acme")
    row, other = await create(acme), await create(acme)
    await report(acme, page(row))
    holder.execute("SELECT * FROM refused_pages FOR UPDATE")
    reporting = asyncio.create_task(report(acme, page(row), page(other)))
    await wait_for_locks(holder, 1)
    for key in (row, other):
        answer = await acme.patch(f"{PATH}/{key['id']}", json={"disabled": True})
        assert answer.status_code == httpx.codes.OK
    assert not reporting.done()
    holder.commit()
    await reporting
    assert [each["count"] for each in await listed(acme)] == [2, 1]


async def test_a_report_evicts_no_page_that_another_one_counts(server: tuple[RunningHub, psycopg.Connection]) -> None:
    """It neither waits for that page, nor deletes it afterwards."""
    hub, holder = server
    acme = await hub.client("acme")
    row = await create(acme)
    await report(acme, page(row))
    holder.execute("SELECT * FROM refused_pages FOR UPDATE")
    others = [page(row, f"https://{number}.example", count=2) for number in range(FREQUENT + LATEST)]
    await report(acme, *others)
    holder.commit()
    assert page(row) in await listed(acme)
    await report(acme, others[0])
    assert page(row) not in await listed(acme)


async def test_a_report_and_a_deletion_do_not_deadlock(server: tuple[RunningHub, psycopg.Connection]) -> None:
    """The report has counted one page and waits for another, when the key is deleted."""
    hub, holder = server
    acme = await hub.client("acme")
    row = await create(acme)
    pages = [page(row, f"https://{name}.example") for name in ("a", "b", "c")]
    await report(acme, *pages[:2])
    holder.execute("SELECT * FROM refused_pages WHERE origin = 'https://b.example' FOR UPDATE")
    reporting = asyncio.create_task(report(acme, *pages))
    await wait_for_locks(holder, 1)
    deleting = asyncio.create_task(acme.delete(f"{PATH}/{row['id']}"))
    await wait_for_locks(holder, 2)
    holder.commit()
    await reporting
    assert (await deleting).status_code == httpx.codes.NO_CONTENT
    assert await stored(hub) == 0
