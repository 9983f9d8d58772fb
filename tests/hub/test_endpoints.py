"""What each kind of token may do, at each endpoint."""

from http import HTTPStatus
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import update

from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.tables import tokens
from gatekeeper.quoting import SHOWN

from .support import PATH, START, RunningHub, assert_problem, create, execute, list_rows, written

pytestmark = pytest.mark.anyio

GATES = "/api/v1/gates"
USE = {"count": 3, "last_used_at": written(START)}
GATE = {"id": "gate-1", "version": "0.1.0", "is_live": True, "state": "fresh", "list_age": 2.5, "keys": 12, "host": "web-1"}
NOTHING = "00000000-0000-4000-8000-000000000000"


class Request(NamedTuple):
    """A request, with a place for the id of a key, and its successful answer."""

    method: str
    path: str
    body: Any
    succeeds: HTTPStatus


PAGE = {
    "key_id": "{key_id}",
    "origin": "https://shop.example",
    "reason": "origin_not_allowed",
    "count": 1,
    "first_at": written(START),
    "last_at": written(START),
    "entry": None,
}
READ_LIST = Request("GET", PATH, None, HTTPStatus.OK)
HEAD_LIST = Request("HEAD", PATH, None, HTTPStatus.OK)
CREATE = Request("POST", PATH, {"name": "shop"}, HTTPStatus.CREATED)
REPORT_USE = Request("POST", f"{PATH}/usage", {"{key_id}": USE}, HTTPStatus.NO_CONTENT)
LIST_REFUSED = Request("GET", f"{PATH}/refused", None, HTTPStatus.OK)
LIST_REFUSED_OF_KEY = Request("GET", f"{PATH}/refused?key_id={{key_id}}", None, HTTPStatus.OK)
REPORT_REFUSED = Request("POST", f"{PATH}/refused", [PAGE], HTTPStatus.NO_CONTENT)
GET = Request("GET", f"{PATH}/{{key_id}}", None, HTTPStatus.OK)
HEAD = Request("HEAD", f"{PATH}/{{key_id}}", None, HTTPStatus.OK)
UPDATE = Request("PATCH", f"{PATH}/{{key_id}}", {"disabled": True}, HTTPStatus.OK)
DELETE = Request("DELETE", f"{PATH}/{{key_id}}", None, HTTPStatus.NO_CONTENT)
EVENTS = Request("GET", f"{PATH}/{{key_id}}/events", None, HTTPStatus.OK)
LIST_GATES = Request("GET", GATES, None, HTTPStatus.OK)
REPORT_GATE = Request("POST", GATES, GATE, HTTPStatus.NO_CONTENT)

# Which kinds of token may do it: an account's of scope gate, one for all accounts. One of scope admin may do everything.
MAY = [
    (READ_LIST, True, True),
    (HEAD_LIST, True, True),
    (CREATE, False, False),
    (REPORT_USE, True, True),
    (LIST_REFUSED, False, False),
    (LIST_REFUSED_OF_KEY, False, False),
    (REPORT_REFUSED, True, True),
    (GET, True, True),
    (HEAD, True, True),
    (UPDATE, False, False),
    (DELETE, False, False),
    (EVENTS, False, False),
    (LIST_GATES, False, True),
    (REPORT_GATE, True, True),
]


def filled(body: Any, key_id: str) -> Any:
    """Put the id of a key in its place in a body."""
    if isinstance(body, dict):
        return {filled(name, key_id): filled(value, key_id) for name, value in body.items()}
    if isinstance(body, list):
        return [filled(each, key_id) for each in body]
    return body.replace("{key_id}", key_id) if isinstance(body, str) else body


async def send(client: httpx.AsyncClient, request: Request, key_id: str, prefix: str = "/api/v1") -> httpx.Response:
    """Send a request about a key."""
    path = request.path.replace("{key_id}", key_id).replace("/api/v1", prefix)
    if request.body is None:
        return await client.request(request.method, path)
    return await client.request(request.method, path, json=filled(request.body, key_id))


async def test_the_table_names_every_endpoint(hub: RunningHub) -> None:
    named = {(request.method, request.path.partition("?")[0]) for request, _, _ in MAY}
    routes = [route for route in hub.app.routes if getattr(route, "path", "").startswith("/api/v1/")]
    served = {(method, getattr(route, "path", "")) for route in routes for method in getattr(route, "methods", ())}
    # HEAD is what GET is.
    assert named | {("HEAD", path) for method, path in named if method == "GET"} == served


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1"])
@pytest.mark.parametrize(("request_", "of_gate", "of_all"), MAY)
async def test_each_kind_of_token_may_do_what_the_table_says(
    hub: RunningHub, acme: httpx.AsyncClient, request_: Request, *, of_gate: bool, of_all: bool, prefix: str
) -> None:
    row = await create(acme)
    before = await list_rows(acme)
    for client, may in ((await hub.client("acme", "gate"), of_gate), (await hub.client_of_all(), of_all)):
        answer = await send(client, request_, row["id"], prefix)
        if may:
            assert answer.status_code == request_.succeeds, answer.text
        else:
            assert answer.status_code == HTTPStatus.FORBIDDEN
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'
            assert await list_rows(acme) == before
    assert (await send(acme, request_, row["id"], prefix)).status_code == request_.succeeds


@pytest.mark.parametrize("request_", [request for request, _, of_all in MAY if not of_all])
@pytest.mark.parametrize("scope", ["gate", "admin", "reader"])
async def test_a_token_for_all_accounts_changes_no_key_whatever_its_scope(
    hub: RunningHub, acme: httpx.AsyncClient, request_: Request, scope: str
) -> None:
    """The scope was changed in the database by hand. A known and an unknown key give the same answer."""
    row = await create(acme)
    client = await hub.client_of_all()
    await execute(hub, update(tokens).where(tokens.c.account == ALL_ACCOUNTS).values(scope=scope))
    answers = [await send(client, request_, key_id) for key_id in (row["id"], NOTHING)]
    detail = assert_problem(answers[0], 403, "scope_insufficient")["detail"]
    assert "The token is for all accounts" in detail
    assert "gatekeeper hub token create --account … --scope admin" in detail
    assert len(detail) <= SHOWN  # what the command line quotes
    assert answers[0].content == answers[1].content
    assert await list_rows(acme) == [row]


async def test_a_token_for_all_accounts_with_an_unknown_scope_may_do_nothing(hub: RunningHub) -> None:
    client = await hub.client_of_all()
    await execute(hub, update(tokens).values(scope="reader"))
    for request, _, _ in MAY:
        assert (await send(client, request, NOTHING)).status_code == HTTPStatus.FORBIDDEN


async def test_a_token_of_one_account_reaches_no_other(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    """Neither by the id of a key, nor in a report."""
    row = await create(globex)
    before = await list_rows(globex)
    for client in (acme, await hub.client("acme", "gate")):
        for request, _, _ in MAY:
            answer = await send(client, request, row["id"])
            assert row["last8"] not in answer.text
    assert await list_rows(globex) == before
    assert (await globex.get(f"{PATH}/refused")).json() == []


async def test_a_key_of_any_account_is_read_by_a_token_for_all(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    client = await hub.client_of_all()
    for owner, account in ((acme, "acme"), (globex, "globex")):
        row = await create(owner)
        read, mine = await client.get(f"{PATH}/{row['id']}"), await owner.get(f"{PATH}/{row['id']}")
        assert (read.json(), mine.json()) == ({**row, "account": account}, row)
        assert read.headers["ETag"] == mine.headers["ETag"]
    assert [row["account"] for row in await list_rows(client)] == ["acme", "globex"]
    for unknown in (NOTHING, "nothing", row["last8"]):
        assert_problem(await client.get(f"{PATH}/{unknown}"), 404, "not_found")
