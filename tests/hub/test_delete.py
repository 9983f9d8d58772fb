"""DELETE /api/v1/widget-keys/{id}."""

import httpx
import pytest

from .support import PATH, RunningHub, assert_problem, create, list_rows, use

pytestmark = pytest.mark.anyio


async def test_a_key_that_was_never_used_is_deleted(acme: httpx.AsyncClient) -> None:
    row, bystander = await create(acme), await create(acme, name="bystander")
    answer = await acme.delete(f"{PATH}/{row['id']}")
    assert (answer.status_code, answer.content) == (httpx.codes.NO_CONTENT, b"")
    assert await list_rows(acme) == [bystander]
    assert_problem(await acme.delete(f"{PATH}/{row['id']}"), 404, "not_found")
    assert_problem(await acme.patch(f"{PATH}/{row['id']}", json={"disabled": False}), 404, "not_found")


async def test_a_disabled_key_that_was_never_used_is_deleted(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await acme.patch(f"{PATH}/{row['id']}", json={"disabled": True})
    assert (await acme.delete(f"{PATH}/{row['id']}")).status_code == httpx.codes.NO_CONTENT
    assert await list_rows(acme) == []


async def test_deleting_a_used_key_disables_it_and_is_idempotent(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    used = hub.clock.advance(60)
    await use(acme, row, hub.clock.now)
    deleted = hub.clock.advance(60)
    expected = {**row, "last_used_at": used, "use_count": 1, "disabled_at": deleted, "updated_at": deleted}
    for _ in range(2):
        answer = await acme.delete(f"{PATH}/{row['id']}")
        assert (answer.status_code, answer.json()) == (httpx.codes.OK, expected)
        hub.clock.advance(60)
    assert await list_rows(acme) == [expected]


async def test_deleting_a_disabled_key_keeps_its_disabled_at(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await use(acme, row, hub.clock.now)
    disabled = (await acme.patch(f"{PATH}/{row['id']}", json={"disabled": True})).json()
    assert disabled.pop("warnings") == []
    hub.clock.advance(60)
    assert (await acme.delete(f"{PATH}/{row['id']}")).json() == disabled


async def test_an_unknown_id_is_a_404(acme: httpx.AsyncClient) -> None:
    assert_problem(await acme.delete(f"{PATH}/nothing"), 404, "not_found")


async def test_the_id_of_another_account_is_the_same_404(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    row = await create(acme)
    theirs, unknown = await globex.delete(f"{PATH}/{row['id']}"), await globex.delete(f"{PATH}/nothing")
    assert_problem(theirs, 404, "not_found")
    assert theirs.content == unknown.content
    assert await list_rows(acme) == [row]
