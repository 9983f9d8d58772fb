"""The answers to requests for the list: whole, what has changed, or neither."""

from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete

from gatekeeper.hub.tables import events
from tests.support.real_hub import served_hub

from .conftest import NewDatabase
from .support import PATH, RunningHub, create, execute, list_rows, use

pytestmark = pytest.mark.anyio

DELTA = {"A-IM": "rows"}
HEADERS = ("Cache-Control", "Content-Encoding", "Content-Type", "Delta-Base", "ETag", "IM", "Token-Scope", "Vary")


@pytest.fixture
def new_database(tmp_path: Path) -> NewDatabase:
    """Make SQLite files; the kind of the database makes no difference to HTTP."""
    return lambda: tmp_path / "hub.db"


async def etag_of(client: httpx.AsyncClient) -> str:
    """Read the ETag of the present list."""
    etag: str = (await client.head(PATH)).headers["ETag"]
    return etag


async def ask(client: httpx.AsyncClient, etag: str, **headers: str) -> httpx.Response:
    """Ask for what has changed."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.get(PATH, headers={"If-None-Match": etag, **DELTA, **named})


def assert_whole(answer: httpx.Response) -> None:
    """Assert that an answer is the whole list, as to a client that knows no deltas."""
    assert answer.status_code == httpx.codes.OK
    assert not {"IM", "Delta-Base", "Preference-Applied"} & set(answer.headers)
    assert answer.headers["Cache-Control"] == "private, no-cache"


async def test_a_delta_has_the_changed_rows_and_the_removed_ones(acme: httpx.AsyncClient) -> None:
    changed, gone, _ = [await create(acme) for _ in range(3)]
    etag = await etag_of(acme)
    await acme.patch(f"{PATH}/{changed['id']}", json={"disabled": True})
    await acme.delete(f"{PATH}/{gone['id']}")
    new = await create(acme)
    answer = await ask(acme, etag)
    assert (answer.status_code, answer.reason_phrase) == (226, "IM Used")
    rows = await list_rows(acme)
    assert answer.json() == [{"id": gone["id"], "last8": gone["last8"], "removed": True}, rows[0], rows[2]]
    assert rows[0]["disabled_at"] is not None
    assert rows[2] == new
    assert {name: answer.headers[name] for name in HEADERS} == {
        "Cache-Control": "no-store",
        "Content-Encoding": "gzip",
        "Content-Type": "application/json",
        "Delta-Base": etag,
        "ETag": await etag_of(acme),
        "IM": "rows",
        "Token-Scope": "admin",
        "Vary": "Authorization, X-Account-ID, Accept-Encoding, A-IM, Prefer, If-None-Match",
    }
    assert (await ask(acme, answer.headers["ETag"])).status_code == httpx.codes.NOT_MODIFIED


async def test_a_delta_is_the_same_with_and_without_gzip(acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    await create(acme)
    plain, compressed = [await ask(acme, etag, Accept_Encoding=encoding) for encoding in ("identity", "gzip")]
    assert "Content-Encoding" not in plain.headers
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert plain.content == compressed.content
    assert plain.headers["ETag"] == compressed.headers["ETag"]


async def test_delta_base_is_the_tag_as_sent(acme: httpx.AsyncClient) -> None:
    """A client may drop the W/; tags are compared weakly (RFC 9110 section 8.8.3.2)."""
    older = await etag_of(acme)
    await create(acme)
    etag = await etag_of(acme)
    new = await create(acme)
    for tag in (etag, etag.removeprefix("W/")):
        for sent in (tag, f'"other", {tag}', f"{older} ,{tag} , W/{older}"):
            answer = await ask(acme, sent)
            assert (answer.status_code, answer.headers["Delta-Base"]) == (226, tag)
            assert answer.json() == [new]


async def test_both_documented_paths_and_head_answer_a_delta(acme: httpx.AsyncClient) -> None:
    headers = {"If-None-Match": await etag_of(acme), **DELTA}
    await create(acme)
    full = await acme.get(PATH, headers=headers)
    assert (await acme.get("/v1/widget-keys", headers=headers)).content == full.content
    head = await acme.head(PATH, headers=headers)
    assert (head.status_code, head.content) == (226, b"")
    assert {name: head.headers[name] for name in HEADERS} == {name: full.headers[name] for name in HEADERS}


async def test_without_a_im_or_a_known_list_the_answer_is_the_whole_list(acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    await create(acme)
    bare = etag.removeprefix("W/")
    for headers in (
        {"If-None-Match": etag},
        {"If-None-Match": etag, "A-IM": "rows;q=0"},
        {"If-None-Match": etag, "A-IM": "vcdiff"},
        DELTA,
        *(
            {"If-None-Match": tag, **DELTA}
            for tag in ("", '"other"', bare.strip('"'), f"W/W/{bare}", '"1-0000000000000000"')
        ),
        {"If-None-Match": f'"999999999999999999-{"0" * 16}"', **DELTA},
        {"If-None-Match": f'"{"9" * 400}-{"0" * 16}"', **DELTA},
    ):
        answer = await acme.get(PATH, headers=headers)
        assert_whole(answer)
        assert answer.json() == await list_rows(acme)


async def test_a_list_from_before_the_log_begins_is_replaced(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    row = await create(acme)
    await execute(hub, delete(events))
    await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed"})
    assert_whole(await ask(acme, etag))


async def test_the_list_of_another_account_is_no_base(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    theirs = await etag_of(globex)
    await create(acme)
    await create(globex)
    assert_whole(await ask(acme, theirs))


async def test_without_a_change_the_answer_is_a_304(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """Use is none."""
    before = await etag_of(acme)
    row = await create(acme)
    etag = await etag_of(acme)
    await use(acme, row, hub.clock.now)
    for tags in (etag, etag.removeprefix("W/"), f"{before}, {etag}", "*", f"{before}, *"):
        answer = await ask(acme, tags)
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (httpx.codes.NOT_MODIFIED, b"", etag)
        assert not {"IM", "Delta-Base"} & set(answer.headers)


async def test_a_gate_token_gets_a_delta_with_its_scope(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    await create(acme)
    answer = await ask(await hub.client("acme", "gate"), etag)
    assert (answer.status_code, answer.headers["Token-Scope"]) == (226, "gate")


async def test_a_delta_passes_through_a_server(tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        headers = {"Authorization": f"Bearer {served.token}"}
        async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False) as client:
            etag = await etag_of(client)
            row = await create(client)
            answer = await ask(client, etag)
            assert (answer.status_code, answer.reason_phrase, answer.json()) == (226, "IM Used", [row])
            head = await client.head(PATH, headers={"If-None-Match": etag, **DELTA})
            assert (head.status_code, head.content, head.headers["Delta-Base"]) == (226, b"", etag)
            assert (await ask(client, answer.headers["ETag"])).status_code == httpx.codes.NOT_MODIFIED
