"""ListBodies: one read of the database for many clients, and bounds on what they hold."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest
from sqlalchemy import event
from starlette.types import Message

from gatekeeper.errors import DatabaseDown, HubOverloaded
from gatekeeper.hub.accounts import read_revision
from gatekeeper.hub.list_bodies import ListBodies, ListBody
from gatekeeper.hub.spools import Spools
from gatekeeper.hub.turns import Turns

from .support import (
    PATH,
    RunningHub,
    ask,
    assert_problem,
    collected_statements,
    connections_in_use,
    create,
    eventually,
    fill,
    list_rows,
    running_hub,
)

pytestmark = pytest.mark.anyio

MANY = 2_345  # rows, more than two pages
PAGES = 4  # statements that read them; the last one finds none


class Seconds:
    """A clock that only moves when told to."""

    now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
async def many(hub: RunningHub, acme: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of the account acme with several pages of keys."""
    await fill(hub, "acme", MANY)
    return acme


@pytest.fixture
async def bodies(hub: RunningHub) -> AsyncIterator[ListBodies]:
    """Bodies of the lists of the hub."""
    bodies = ListBodies(hub.hub.keys)
    yield bodies
    assert not bodies._open
    assert not bodies._newest


async def etag_of(hub: RunningHub, account: str = "acme") -> str:
    """The ETag that the list of an account has now."""
    return await hub.database.read(lambda connection: (read_revision(connection, account)).etag)


async def receive(bodies: ListBodies, etag: str) -> bytes:
    """Receive the list of acme."""
    async with bodies.reading("acme", etag, gzip=False) as body:
        return await content(body)


def full_disk() -> BinaryIO:
    """A file on a full disk."""
    return Path("/dev/full").open("r+b", buffering=0)


async def content(body: ListBody) -> bytes:
    """Read a body."""
    return b"".join([chunk async for chunk in body.chunks()])


def pages(statements: list[str]) -> int:
    """Count the statements that read a page of a list."""
    return len([statement for statement in statements if "widget_keys.sequence >" in statement])


class Slow:
    """Clients that read the beginning of the list, and then no more."""

    def __init__(self, hub: RunningHub, client: httpx.AsyncClient, count: int) -> None:
        self.reading = 0
        self._left = asyncio.Event()
        self.tasks = [asyncio.create_task(ask(hub, client, self._send, self._left)) for _ in range(count)]

    async def _send(self, message: Message) -> None:
        if message.get("body"):
            self.reading += 1
            await asyncio.Event().wait()

    async def leave(self) -> None:
        """Disconnect."""
        self._left.set()
        await asyncio.gather(*self.tasks)


async def test_slow_readers_hold_no_connection_and_stop_no_other_account(
    hub: RunningHub, many: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    row, mine = await create(globex), await create(many)
    slow = Slow(hub, many, 20)
    await eventually(lambda: slow.reading == 20)
    await eventually(lambda: connections_in_use(hub) == 0)
    assert await list_rows(globex) == [row]
    assert len(await list_rows(many)) == MANY + 1
    assert (await many.patch(f"{PATH}/{mine['id']}", json={"disabled": True})).status_code == httpx.codes.OK
    assert (await list_rows(many))[-1]["disabled_at"] is not None
    assert slow.reading == 20
    await slow.leave()


@pytest.mark.usefixtures("many")
async def test_readers_at_the_same_time_share_one_read_of_the_database(hub: RunningHub) -> None:
    bodies, etag = ListBodies(hub.hub.keys, clock=lambda: 0.0), await etag_of(hub)
    with collected_statements() as statements:
        async with AsyncExitStack() as readers:
            reading = [bodies.reading("acme", etag, gzip=True) for _ in range(20)]
            opened = [await readers.enter_async_context(each) for each in reading]
            answers = await asyncio.gather(*map(content, opened))
    assert pages(statements) == PAGES
    assert len({(body.etag, answer) for body, answer in zip(opened, answers, strict=True)}) == 1
    assert len(json.loads(zlib.decompress(answers[0], 31))) == MANY


async def test_all_who_ask_at_the_same_time_get_the_same_list(many: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(many.get(PATH, headers={"Accept-Encoding": "gzip"}) for _ in range(20)))
    assert len({(answer.headers["ETag"], answer.content) for answer in answers}) == 1
    assert len(answers[0].json()) == MANY


async def test_each_encoding_has_a_body_of_its_own(hub: RunningHub, bodies: ListBodies, many: httpx.AsyncClient) -> None:
    etag = await etag_of(hub)
    async with bodies.reading("acme", etag, gzip=False) as plain, bodies.reading("acme", etag, gzip=True) as compressed:
        assert plain.etag == compressed.etag == etag
        rows = await content(plain)
        assert zlib.decompress(await content(compressed), 31) == rows
    assert json.loads(rows) == await list_rows(many)


@pytest.mark.usefixtures("many")
async def test_a_reader_that_leaves_early_disturbs_no_other(hub: RunningHub, bodies: ListBodies) -> None:
    etag = await etag_of(hub)
    async with bodies.reading("acme", etag, gzip=False) as body:
        async with bodies.reading("acme", etag, gzip=False) as same:
            assert same is body
            assert await anext(same.chunks())
        assert len(json.loads(await content(body))) == MANY


@pytest.mark.usefixtures("many")
async def test_the_last_reader_that_leaves_ends_the_read(hub: RunningHub, bodies: ListBodies) -> None:
    with collected_statements() as statements:
        async with bodies.reading("acme", await etag_of(hub), gzip=False) as body:
            pass
    assert pages(statements) < PAGES
    assert body.reading.done()
    assert connections_in_use(hub) == 0


@pytest.mark.usefixtures("many")
async def test_readers_that_leave_cost_no_connection(hub: RunningHub, bodies: ListBodies) -> None:
    engines = hub.database._engines
    assert engines is not None
    lost: list[object] = []
    event.listen(engines.streamer.engine.pool, "invalidate", lambda *lost_one: lost.append(lost_one))
    for _ in range(5):
        async with bodies.reading("acme", await etag_of(hub), gzip=False) as body:
            pass
        assert not body.is_complete
    assert not lost


async def test_a_client_gets_no_list_that_is_older_than_its_request(
    hub: RunningHub, bodies: ListBodies, many: httpx.AsyncClient
) -> None:
    before = await etag_of(hub)
    async with bodies.reading("acme", before, gzip=False) as body:
        row = await create(many)
        after = await etag_of(hub)
        async with bodies.reading("acme", after, gzip=False) as newer:
            assert (newer.etag, json.loads(await content(newer))[-1]) == (after, row)
            async with bodies.reading("acme", after, gzip=False) as same:
                assert same is newer
        assert (body.etag, len(json.loads(await content(body)))) == (before, MANY)


@pytest.mark.usefixtures("many")
async def test_a_body_that_has_not_begun_is_joined_by_all_who_come(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """While one body is read, those who come after changes wait for the next one, and share it."""
    bodies = ListBodies(hub.hub.keys)

    async def read(etag: str) -> tuple[str, int]:
        async with bodies.reading("acme", etag, gzip=False) as body:
            return body.etag, len(json.loads(await content(body)))

    async with bodies._reading.taking("acme"):  # as a body that is being read
        tasks = []
        for _ in range(4):
            await create(acme)
            tasks.append(asyncio.create_task(read(await etag_of(hub))))
            await asyncio.sleep(0)
        last = await etag_of(hub)
        assert len(bodies._open) == 1
    assert await asyncio.gather(*tasks) == [(last, MANY + 4)] * 4


async def test_a_body_is_shared_for_a_limited_time_as_use_is_missing_from_it(
    hub: RunningHub, acme: httpx.AsyncClient
) -> None:
    seconds = Seconds()
    bodies = ListBodies(hub.hub.keys, shared_for=10.0, clock=seconds)
    await create(acme)
    etag = await etag_of(hub)
    async with bodies.reading("acme", etag, gzip=False) as body:
        seconds.now = 9.9
        async with bodies.reading("acme", etag, gzip=False) as same:
            assert same is body
        seconds.now = 10.0
        async with bodies.reading("acme", etag, gzip=False) as another:
            assert another is not body
            assert await content(another) == await content(body)


async def test_readers_beyond_the_bound_wait_and_another_account_does_not(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await create(acme)
    await hub.client("globex")
    bodies = ListBodies(hub.hub.keys, readers=Turns(8, "to receive the list", patience=0.05, each=2))
    etag = await etag_of(hub)
    other = await etag_of(hub, "globex")
    async with bodies.reading("acme", etag, gzip=False), bodies.reading("acme", etag, gzip=False):
        with pytest.raises(HubOverloaded, match=r"account acme has waited 0\.05 s for its turn to receive the list"):
            await receive(bodies, etag)
        async with bodies.reading("globex", other, gzip=False) as theirs:
            assert await content(theirs) == b"[]"
    async with bodies.reading("acme", etag, gzip=False):
        pass


async def test_a_read_that_waits_too_long_is_an_overload_for_all_its_readers(
    hub: RunningHub, acme: httpx.AsyncClient
) -> None:
    await create(acme)
    reading = Turns(1, "to read the list", patience=0.05)
    bodies = ListBodies(hub.hub.keys, reading=reading)
    etag = await etag_of(hub)
    async with reading.taking("globex"):
        outcomes = await asyncio.gather(*(receive(bodies, etag) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [HubOverloaded] * 2
    assert not bodies._open
    assert len(json.loads(await receive(bodies, etag))) == 1


@pytest.mark.usefixtures("many")
async def test_a_full_disk_is_known_before_the_first_byte(hub: RunningHub) -> None:
    bodies = ListBodies(hub.hub.keys, spools=Spools(in_memory=1000, open_file=full_disk))
    etag = await etag_of(hub)
    opening = bodies.reading("acme", etag, gzip=False)
    with pytest.raises(HubOverloaded, match="No space left on device"):
        await opening.__aenter__()
    assert not bodies._open
    assert connections_in_use(hub) == 0


@pytest.mark.usefixtures("many")
async def test_a_disk_that_fills_up_in_the_middle_breaks_the_body_off(hub: RunningHub) -> None:
    bodies = ListBodies(hub.hub.keys, spools=Spools(in_memory=1000, most=1_200_000))
    async with bodies.reading("acme", await etag_of(hub), gzip=False) as body:
        with pytest.raises(HubOverloaded, match="take too much disk"):
            await content(body)


@pytest.mark.usefixtures("many")
async def test_readers_of_a_hub_that_stops_are_told(hub: RunningHub) -> None:
    bodies = ListBodies(hub.hub.keys)
    await bodies.close()  # without bodies
    async with bodies.reading("acme", await etag_of(hub), gzip=False) as body:
        await bodies.close()
        with pytest.raises(DatabaseDown, match="the hub stops"):
            await content(body)
    assert connections_in_use(hub) == 0


async def test_a_list_that_cannot_be_kept_is_a_503_and_a_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_hub(tmp_path / "hub.db") as hub:
        client = await hub.client("acme")
        await fill(hub, "acme", MANY)
        with monkeypatch.context() as patched:
            patched.setattr("tempfile.tempdir", str(tmp_path / "missing"))
            answer = await client.get(PATH, headers={"Accept-Encoding": "identity"})
            assert_problem(answer, 503, "overloaded")
            assert int(answer.headers["Retry-After"]) >= 1
        assert len(await list_rows(client)) == MANY
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gatekeeper.hub.load_log"]
    assert line.startswith("the hub is overloaded: a list cannot be written to")
