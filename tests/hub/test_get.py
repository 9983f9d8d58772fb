"""GET /api/v1/widget-keys/{id}."""

import httpx
import pytest

from .support import PATH, RunningHub, assert_problem, create, list_rows, use

pytestmark = pytest.mark.anyio


async def test_a_gate_token_reads_one_row_as_it_is_listed(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row, _ = await create(acme, domain_allowlist=["acme.com"], agent_id="agent-7"), await create(acme)
    await use(acme, row, hub.clock.now)
    gate = await hub.client("acme", "gate")
    answer = await gate.get(f"{PATH}/{row['id']}")
    assert answer.status_code == httpx.codes.OK
    assert answer.json() == (await list_rows(acme))[0]
    assert answer.json()["use_count"] == 1
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("key_id", ["nothing", "%00", "0" * 36, "%F0%9F%94%91"])
async def test_an_unknown_id_is_a_404(acme: httpx.AsyncClient, key_id: str) -> None:
    assert_problem(await acme.get(f"{PATH}/{key_id}"), 404, "not_found")


async def test_the_row_of_another_account_is_the_same_404(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    row = await create(acme)
    theirs, unknown = [await globex.get(f"{PATH}/{key_id}") for key_id in (row["id"], "0" * 36)]
    assert_problem(theirs, 404, "not_found")
    assert theirs.content == unknown.content


async def test_every_answer_with_a_row_has_its_strong_etag(acme: httpx.AsyncClient) -> None:
    created = await acme.post(PATH, json={"name": "shop"})
    path = f"{PATH}/{created.json()['id']}"
    etag = created.headers["ETag"]
    assert etag.startswith('"')
    assert (await acme.get(path)).headers["ETag"] == (await acme.head(path)).headers["ETag"] == etag
    updated = await acme.patch(path, json={"name": "renamed"})
    assert updated.headers["ETag"] == (await acme.get(path)).headers["ETag"] != etag


async def test_every_change_moves_the_etag_of_a_row_and_use_does_not(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row, other = await create(acme), await create(acme)
    path = f"{PATH}/{row['id']}"
    etags = [(await acme.get(path)).headers["ETag"]]
    for change in ({"name": "renamed"}, {"domain_allowlist": ["acme.com"]}, {"disabled": True}, {"disabled": False}):
        await acme.patch(path, json=change)
        etags.append((await acme.get(path)).headers["ETag"])
    assert len(set(etags)) == 5
    await use(acme, row, hub.clock.now)
    await acme.patch(path, json={"name": "renamed"})  # as it is
    await acme.patch(f"{PATH}/{other['id']}", json={"name": "renamed"})
    assert (await acme.get(path)).headers["ETag"] == etags[-1]
    hub.clock.advance(-3600)
    disabled = await acme.delete(path)
    assert disabled.status_code == httpx.codes.OK
    assert disabled.headers["ETag"] not in etags
