"""Streaming the list: pages, compression, consistency and disconnects."""

import asyncio
import gzip
import json
import tracemalloc

import anyio
import httpx
import pytest
from starlette.types import Message

from gatekeeper.hub.minting import Mint

from .conftest import NewDatabase
from .support import PATH, PEPPER, RunningHub, ask, connections_in_use, create, fill, list_rows, running_hub

pytestmark = pytest.mark.anyio

MANY = 2_345  # rows, more than two pages


@pytest.fixture
async def many(hub: RunningHub, acme: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of the account acme with several pages of keys."""
    await fill(hub, "acme", MANY)
    return acme


async def test_several_pages_are_one_array_in_order(many: httpx.AsyncClient) -> None:
    assert [row["last8"] for row in await list_rows(many)] == [f"{number:08}" for number in range(MANY)]


@pytest.mark.parametrize("count", [999, 1000, 1001, 2000])
async def test_no_row_is_lost_between_pages(hub: RunningHub, acme: httpx.AsyncClient, count: int) -> None:
    await fill(hub, "acme", count)
    assert len(await list_rows(acme)) == count


async def test_the_rows_match_the_etag_despite_concurrent_writes(hub: RunningHub, many: httpx.AsyncClient) -> None:
    before = await many.get(PATH, headers={"Accept-Encoding": "identity"})
    async with hub.hub.keys.list("acme") as opened:
        first = await anext(opened.pages)
        last = before.json()[-1]["id"]
        assert (await many.delete(f"{PATH}/{last}")).status_code == httpx.codes.NO_CONTENT
        await many.patch(f"{PATH}/{before.json()[-2]['id']}", json={"name": "renamed"})
        await create(many)
        rows = [*first, *[row async for page in opened.pages for row in page]]
    assert opened.etag == before.headers["ETag"]
    assert [(row.id, row.name) for row in rows] == [(row["id"], row["name"]) for row in before.json()]


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        (None, False),
        ("", False),
        ("identity", False),
        ("br, zstd", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("deflate , gzip ; q=0.001", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*, gzip;q=0", False),
        ("*;q=0", False),
        ("gzipped", False),
        ("gzip;level=9", False),
    ],
)
async def test_the_list_is_compressed_only_on_request(
    acme: httpx.AsyncClient,
    accepted: str | None,
    compressed: bool,  # noqa: FBT001 - a case of the table
) -> None:
    row = await create(acme)
    del acme.headers["Accept-Encoding"]
    answer = await acme.get(PATH, headers={} if accepted is None else {"Accept-Encoding": accepted})
    assert ("gzip" in answer.headers.get("Content-Encoding", "")) is compressed
    assert answer.json() == [row]
    assert answer.headers["Vary"] == "Authorization, X-Account-ID, Accept-Encoding, A-IM, Prefer"


async def test_accept_encoding_can_be_in_several_fields(acme: httpx.AsyncClient) -> None:
    del acme.headers["Accept-Encoding"]
    answer = await acme.get(PATH, headers=[("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")])
    assert answer.headers["Content-Encoding"] == "gzip"


async def test_the_compressed_list_is_one_gzip_stream(many: httpx.AsyncClient) -> None:
    plain = (await many.get(PATH, headers={"Accept-Encoding": "identity"})).content
    async with many.stream("GET", PATH, headers={"Accept-Encoding": "gzip"}) as answer:
        compressed = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert gzip.decompress(compressed) == plain
    assert len(compressed) < len(plain) / 3


async def test_the_compressed_list_has_the_same_weak_etag(acme: httpx.AsyncClient) -> None:
    await create(acme)
    encodings = ("gzip", "identity")
    etags = [(await acme.get(PATH, headers={"Accept-Encoding": encoding})).headers["ETag"] for encoding in encodings]
    assert etags[0] == etags[1]
    assert etags[0].startswith('W/"')
    for encoding in encodings:
        answer = await acme.get(PATH, headers={"Accept-Encoding": encoding, "If-None-Match": etags[0]})
        assert (answer.status_code, answer.content) == (httpx.codes.NOT_MODIFIED, b"")
        assert answer.headers["ETag"] == etags[0]
        assert "Content-Encoding" not in answer.headers


async def test_head_has_the_headers_of_the_same_representation(many: httpx.AsyncClient) -> None:
    for encoding in ("gzip", "identity"):
        headers = {"Accept-Encoding": encoding}
        head, full = await many.head(PATH, headers=headers), await many.get(PATH, headers=headers)
        assert (head.status_code, head.content) == (httpx.codes.OK, b"")
        for name in ("ETag", "Content-Type", "Content-Encoding", "Vary", "Cache-Control"):
            assert head.headers.get(name) == full.headers.get(name)


@pytest.mark.slow
async def test_a_long_list_is_never_in_memory_as_a_whole(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await fill(hub, "acme", 20_000)
    size = 0

    async def count(message: Message) -> None:
        nonlocal size
        size += len(message.get("body", b""))

    await ask(hub, acme, count)
    whole, size = size, 0
    tracemalloc.start()
    await ask(hub, acme, count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == whole > 7_000_000
    assert peak < whole / 2


async def test_a_disconnect_in_the_middle_releases_the_connection(hub: RunningHub, many: httpx.AsyncClient) -> None:
    left = asyncio.Event()

    async def send(message: Message) -> None:
        if message.get("body"):
            assert connections_in_use(hub) == 1
            left.set()
            await asyncio.Event().wait()

    await asyncio.wait_for(ask(hub, many, send, left), 10)
    assert connections_in_use(hub) == 0


async def test_a_disconnect_reported_as_an_error_is_no_crash(hub: RunningHub, many: httpx.AsyncClient) -> None:
    async def send(message: Message) -> None:
        if message.get("body"):
            raise OSError

    await ask(hub, many, send, spec_version="2.4")
    assert connections_in_use(hub) == 0


async def test_a_slow_client_is_cut_off_at_the_deadline(new_database: NewDatabase) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body"):
            await asyncio.Event().wait()

    async with running_hub(new_database(), list_deadline=0.2) as hub:
        client = await hub.client("acme")
        await fill(hub, "acme", MANY)
        await asyncio.wait_for(ask(hub, client, send), 10)
        assert sent[-1]["more_body"]
        assert connections_in_use(hub) == 0


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("pages_before", [0, 1])
async def test_a_cancelled_list_leaves_no_task_that_waits_forever(hub: RunningHub, pages_before: int) -> None:
    await hub.database.close()
    await hub.database.open(Mint(PEPPER, hub.dice).check_value())
    tasks = asyncio.all_tasks()
    with anyio.CancelScope() as leaving:
        if not pages_before:
            leaving.cancel()
        async with hub.hub.keys.list("acme") as opened:
            leaving.cancel()
            for _ in range(pages_before):
                assert await anext(opened.pages)
            await anyio.sleep_forever()
    left = asyncio.all_tasks() - tasks
    assert not left or not (await asyncio.wait(left, timeout=10))[1]
    assert connections_in_use(hub) == 0


async def test_slow_readers_of_the_list_do_not_block_other_requests(
    hub: RunningHub, many: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    reading = asyncio.Semaphore(0)
    left = asyncio.Event()

    async def send(message: Message) -> None:
        if message.get("body"):
            reading.release()
            await asyncio.Event().wait()

    readers = [asyncio.create_task(ask(hub, many, send, left)) for _ in range(5)]
    for _ in readers:
        await reading.acquire()
    etag = (await many.head(PATH, headers={"If-None-Match": "*"})).headers["ETag"]
    assert (await globex.post(PATH, json={"name": "shop"})).status_code == httpx.codes.CREATED
    assert (await many.get(PATH, headers={"If-None-Match": etag})).status_code == httpx.codes.NOT_MODIFIED
    left.set()
    await asyncio.gather(*readers)


async def test_the_list_is_sent_in_parts(hub: RunningHub, many: httpx.AsyncClient) -> None:
    parts: list[bytes] = []

    async def send(message: Message) -> None:
        parts.append(message.get("body", b""))

    await ask(hub, many, send)
    assert len([part for part in parts if part]) > MANY / 1000
    assert len(json.loads(b"".join(parts))) == MANY
