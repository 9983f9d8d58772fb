"""If-Match of PATCH and DELETE."""

import asyncio

import httpx
import pytest

from .support import PATH, RunningHub, assert_problem, create, list_rows, use

pytestmark = pytest.mark.anyio

TAG = '"0"'


async def etag_of(client: httpx.AsyncClient, path: str) -> str:
    """Read the ETag of a row."""
    etag: str = (await client.get(path)).headers["ETag"]
    return etag


async def test_of_two_changes_to_one_row_the_second_is_refused(acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=["acme.com"])
    path = f"{PATH}/{row['id']}"
    headers = {"If-Match": await etag_of(acme, path)}
    first = await acme.patch(path, json={"domain_allowlist": ["acme.com", "first.com"]}, headers=headers)
    assert first.status_code == httpx.codes.OK
    second = await acme.patch(path, json={"domain_allowlist": ["acme.com", "second.com"]}, headers=headers)
    problem = assert_problem(second, 412, "precondition_failed")
    assert second.headers["ETag"] == first.headers["ETag"] == await etag_of(acme, path)
    assert first.headers["ETag"] in problem["detail"]
    assert (await list_rows(acme))[0]["domain_allowlist"] == ["acme.com", "first.com"]
    again = {"If-Match": second.headers["ETag"]}
    assert (await acme.patch(path, json={"name": "renamed"}, headers=again)).status_code == httpx.codes.OK


async def test_a_condition_that_names_the_row_lets_the_change_through(acme: httpx.AsyncClient) -> None:
    for condition in ("{etag}", '"other", {etag}', '"other" ,{etag} , W/"third"', "*"):
        path = f"{PATH}/{(await create(acme))['id']}"
        headers = {"If-Match": condition.format(etag=await etag_of(acme, path))}
        assert (await acme.patch(path, json={"name": "renamed"}, headers=headers)).status_code == httpx.codes.OK
        fields = [("If-Match", TAG), ("If-Match", condition.format(etag=await etag_of(acme, path)))]
        assert (await acme.delete(path, headers=fields)).status_code == httpx.codes.NO_CONTENT


async def test_another_condition_changes_nothing(acme: httpx.AsyncClient) -> None:
    """Weak tags match no row, also not the right one (RFC 9110 section 13.1.1)."""
    row = await create(acme)
    path = f"{PATH}/{row['id']}"
    etag = await etag_of(acme, path)
    for condition in (TAG, "W/{etag}", "", ",", "{bare}", '"{bare}', '"x{bare}"', '"*"', "☺"):
        headers = {b"If-Match": condition.format(etag=etag, bare=etag.strip('"')).encode()}
        assert_problem(await acme.patch(path, json={"name": "renamed"}, headers=headers), 412, "precondition_failed")
        assert_problem(await acme.delete(path, headers=headers), 412, "precondition_failed")
    assert await list_rows(acme) == [row]
    assert await etag_of(acme, path) == etag


async def test_a_used_key_is_disabled_only_under_its_condition(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    path = f"{PATH}/{row['id']}"
    await use(acme, row, hub.clock.now)
    assert_problem(await acme.delete(path, headers={"If-Match": TAG}), 412, "precondition_failed")
    assert (await list_rows(acme))[0]["disabled_at"] is None
    assert (await acme.delete(path, headers={"If-Match": await etag_of(acme, path)})).status_code == httpx.codes.OK


async def test_a_change_that_was_sent_twice_succeeds_twice(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """The answer to the first one may have been lost (RFC 9110 section 13.1.1)."""
    row = await create(acme)
    path = f"{PATH}/{row['id']}"
    await use(acme, row, hub.clock.now)
    before = {"If-Match": await etag_of(acme, path)}
    first, again = [await acme.patch(path, json={"name": "renamed"}, headers=before) for _ in range(2)]
    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, first.json(), first.headers["ETag"])
    before = {"If-Match": await etag_of(acme, path)}
    first, again = [await acme.delete(path, headers=before) for _ in range(2)]
    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, first.json(), first.headers["ETag"])


async def test_an_unknown_key_is_a_404_under_any_condition(acme: httpx.AsyncClient) -> None:
    for condition in ("*", TAG):
        answers = [
            await acme.patch(f"{PATH}/nothing", json={"name": "x"}, headers={"If-Match": condition}),
            await acme.delete(f"{PATH}/nothing", headers={"If-Match": condition}),
        ]
        for answer in answers:
            assert_problem(answer, 404, "not_found")


async def test_of_concurrent_changes_under_one_condition_one_succeeds(acme: httpx.AsyncClient) -> None:
    path = f"{PATH}/{(await create(acme))['id']}"
    headers = {"If-Match": await etag_of(acme, path)}
    answers = await asyncio.gather(*(acme.patch(path, json={"name": f"{n}"}, headers=headers) for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412, 412]
