"""Requests for the list that wait for a change, over HTTP and each kind of database."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from gatekeeper.hub import create_hub
from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.bodies import KeyChange, KeyDraft
from gatekeeper.hub.minting import Mint, random_text
from gatekeeper.hub.store import KeyStore, UnknownKey
from gatekeeper.hub.tokens import Bearer

from .support import PATH, PEPPER, START, RunningHub, assert_problem, create, list_rows
from .waiting import PATIENCE, etag_of, taken_on, wait_for_change

pytestmark = pytest.mark.anyio


async def test_each_kind_of_change_is_answered_at_once_with_its_rows(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    path = f"{PATH}/{row['id']}"
    changes: list[Callable[[], Coroutine[Any, Any, httpx.Response]]] = [
        lambda: acme.post(PATH, json={"name": "another"}),
        lambda: acme.patch(path, json={"name": "renamed"}),
        lambda: acme.patch(path, json={"disabled": True}),
        lambda: acme.delete(path),
    ]
    for change in changes:
        etag = await etag_of(acme)
        waiting = wait_for_change(acme, etag, **{"A-IM": "rows"})
        await taken_on(hub, 1)
        changed = await change()
        answer = await asyncio.wait_for(waiting, PATIENCE)
        assert (answer.status_code, answer.headers["IM"], answer.headers["Delta-Base"]) == (226, "rows", etag)
        assert answer.headers["Preference-Applied"] == "wait=50"
        assert answer.headers["ETag"] == await etag_of(acme)
        if changed.status_code == httpx.codes.NO_CONTENT:
            assert answer.json() == [{"id": row["id"], "last8": row["last8"], "removed": True}]
        else:
            expected = {name: value for name, value in changed.json().items() if name not in {"warnings", "public_key"}}
            assert answer.json() == [expected]


async def test_a_change_without_deltas_is_answered_with_the_list(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    waiting = wait_for_change(acme, await etag_of(acme))
    await taken_on(hub, 1)
    row = await create(acme)
    answer = await asyncio.wait_for(waiting, PATIENCE)
    assert (answer.status_code, answer.json(), answer.headers["Preference-Applied"]) == (200, [row], "wait=50")


async def test_a_middleware_that_changes_headers_changes_those_of_one_answer(
    hub: RunningHub, acme: httpx.AsyncClient
) -> None:
    etag = await etag_of(acme)

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if "headers" in message:
                message["headers"].append((b"x-noted", b"1"))
            await send(message)

        await hub.app(scope, receive, note)

    transport = httpx.ASGITransport(noting)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers=acme.headers) as noted:
        waiting = [wait_for_change(noted, etag, **{"A-IM": "rows"}) for _ in range(3)]
        await taken_on(hub, 3)
        await create(acme)
        for answer in await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE):
            assert answer.status_code == 226
            assert answer.headers.get_list("X-Noted") == ["1"]


async def test_a_list_that_is_old_already_is_answered_at_once(acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    row = await create(acme)
    for held, status in ((etag, 226), ('"1-0123456789abcdef"', 200)):
        answer = await asyncio.wait_for(wait_for_change(acme, held, **{"A-IM": "rows"}), PATIENCE)
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (status, "wait=50")
        assert answer.json() == [row]


@pytest.mark.slow
async def test_without_a_change_a_304_comes_after_the_wait(acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    begun = time.monotonic()
    answer = await wait_for_change(acme, etag, "wait=1")
    assert time.monotonic() - begun >= 1
    assert (answer.status_code, answer.headers["ETag"], answer.content) == (304, etag, b"")
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.headers["Token-Scope"] == "admin"
    assert "Connection" not in answer.headers


async def test_a_request_that_may_not_wait_is_answered_at_once(acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    many = ", ".join((etag, *(f'"{number}"' for number in range(10))))
    cases = [(etag, ""), (etag, "wait=0"), (etag, "wait=soon"), ("*", "wait=9"), (many, "wait=9"), (None, "wait=9")]
    for held, prefer in cases:
        answer = await asyncio.wait_for(wait_for_change(acme, held, prefer), PATIENCE)
        assert answer.status_code == (200 if held is None else 304)
        assert "Preference-Applied" not in answer.headers
    head = await asyncio.wait_for(acme.head(PATH, headers={"If-None-Match": etag, "Prefer": "wait=50"}), PATIENCE)
    assert head.status_code == 304
    assert "Preference-Applied" not in head.headers


async def test_the_use_of_a_key_and_another_account_end_no_wait(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    row = await create(acme)
    waiting = wait_for_change(acme, await etag_of(acme))
    await taken_on(hub, 1)
    use = {row["id"]: {"count": 1, "last_used_at": "2026-01-02T03:04:05Z"}}
    assert (await acme.post(f"{PATH}/usage", json=use)).status_code == 204
    await create(globex)
    assert (await acme.patch(f"{PATH}/{row['id']}", json={"name": row["name"]})).status_code == 200
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await create(acme)
    assert (await asyncio.wait_for(waiting, PATIENCE)).status_code == 200


async def test_a_token_that_is_revoked_during_the_wait_gets_no_rows(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    gate = await hub.client("acme", "gate")
    waiting = wait_for_change(gate, await etag_of(gate), **{"A-IM": "rows"})
    await taken_on(hub, 1)
    (token_id,) = [token.id for token in await hub.hub.tokens.list("acme") if token.scope == "gate"]
    await hub.hub.tokens.revoke(token_id)
    await create(acme)
    assert_problem(await asyncio.wait_for(waiting, PATIENCE), 401, "token_unknown")


@pytest.mark.parametrize("ends_by_change", [False, True])
async def test_a_token_for_all_accounts_that_is_revoked_meanwhile_gets_no_rows(
    hub: RunningHub, acme: httpx.AsyncClient, *, ends_by_change: bool
) -> None:
    row = await create(acme)
    revoked = await hub.client_of_all()
    (token,) = await hub.hub.tokens.list(ALL_ACCOUNTS)
    valid = await hub.client_of_all()
    prefer = "wait=50" if ends_by_change else "wait=1"
    waiting = [wait_for_change(client, await etag_of(client), prefer, **{"A-IM": "rows"}) for client in (revoked, valid)]
    await taken_on(hub, 2)
    await hub.hub.tokens.revoke(token.id)
    if ends_by_change:
        await acme.patch(f"{PATH}/{row['id']}", json={"disabled": True})
    refused, answered = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert_problem(refused, 401, "token_unknown")
    assert answered.status_code == (226 if ends_by_change else 304)


async def test_a_hub_that_stops_answers_what_waits_and_asks_to_close(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    waiting = wait_for_change(acme, etag)
    await taken_on(hub, 1)
    hub.hub.waiters.stop()
    answer = await asyncio.wait_for(waiting, PATIENCE)
    assert (answer.status_code, answer.headers["ETag"], answer.headers["Connection"]) == (304, etag, "close")
    assert answer.headers["Preference-Applied"] == "wait=50"


async def test_waiting_requests_hold_no_connection_to_the_database(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    etag = await etag_of(acme)
    waiting = [wait_for_change(acme, etag) for _ in range(40)]
    await taken_on(hub, 40)
    await create(acme)
    answers = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert {answer.status_code for answer in answers} == {200}


async def test_many_requests_at_once_are_each_checked(hub: RunningHub) -> None:
    clients = [await hub.client(f"account-{number}") for number in range(10)]
    stranger = await hub.client_with({"Authorization": "Bearer sk_live_acme_unknown"})
    answers = await asyncio.gather(*(client.get(PATH) for client in [*clients, stranger, *clients]))
    assert [answer.status_code for answer in answers] == [200] * 10 + [401] + [200] * 10
    assert len({answer.headers["ETag"] for answer in answers if answer.status_code == 200}) == 10


async def test_each_change_is_told_of_after_its_commit_and_then_acknowledged(
    hub: RunningHub, acme: httpx.AsyncClient
) -> None:
    told: list[str] = []

    async def tell(account: str) -> None:
        await asyncio.sleep(0)
        told.append(account)

    keys = KeyStore(hub.database, Mint(PEPPER, random_text), lambda: START, tell)
    owner = Bearer("acme", "ci", "admin")
    row = await keys.create(owner, KeyDraft(name="shop"))
    assert told == ["acme"]
    await keys.update(owner, row.id, KeyChange(name="renamed"))
    await keys.delete(owner, row.id)
    assert told == ["acme"] * 3
    with pytest.raises(UnknownKey):
        await keys.delete(owner, row.id)
    assert await list_rows(acme) == []


async def test_a_hub_has_a_bound_of_waiting_requests_and_answers_others_at_once(tmp_path: Path) -> None:
    app = create_hub(tmp_path / "hub.db", pepper=PEPPER, max_waiting=1)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://hub.test") as acme:
        acme.headers["Authorization"] = f"Bearer {await app.state.hub.tokens.mint('acme', name='gate')}"
        etag = await etag_of(acme)
        waiting = wait_for_change(acme, etag)
        async with asyncio.timeout(PATIENCE):
            while not len(app.state.hub.waiters):  # noqa: ASYNC110 - the hub does not signal it
                await asyncio.sleep(0.005)
        answer = await asyncio.wait_for(wait_for_change(acme, etag), PATIENCE)
        assert answer.status_code == 304
        assert "Preference-Applied" not in answer.headers
        assert not waiting.done()
    assert (await waiting).headers["Connection"] == "close"
