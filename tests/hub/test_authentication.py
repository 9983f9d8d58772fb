"""Authentication by Authorization and X-Account-ID, and the tokens behind it."""

import re
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, text, update

from gatekeeper.errors import ConfigError
from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.tables import pepper_check, tokens

from .conftest import NewDatabase
from .support import PATH, START, RunningHub, assert_problem, create, execute, list_rows, running_hub, use

pytestmark = pytest.mark.anyio

RANDOM = "R" * 32
REQUESTS = [
    ("GET", PATH),
    ("POST", PATH),
    ("POST", f"{PATH}/usage"),
    ("PATCH", f"{PATH}/nothing"),
    ("DELETE", f"{PATH}/nothing"),
    ("GET", f"{PATH}/nothing/events"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_no_token_is_a_401_on_every_endpoint(hub: RunningHub, method: str, path: str) -> None:
    stranger = await hub.client_with({})
    answer = await stranger.request(method, path)
    assert_problem(answer, 401, "token_missing")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic c2tfbGl2ZTo=",
        "sk_live_acme_x",
        "Bearer a b",
        "Bearer sk_live_acme_ü",
        "Bearer sk_live_*_x",
        "Bearer=x",
    ],
)
async def test_a_header_without_a_bearer_token_is_a_401(hub: RunningHub, value: str) -> None:
    stranger = await hub.client_with({})
    answer = await stranger.get(PATH, headers={b"Authorization": value.encode()})
    assert_problem(answer, 401, "token_missing")


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_an_unknown_token_is_a_401_on_every_endpoint(hub: RunningHub, method: str, path: str) -> None:
    await hub.hub.tokens.mint("acme", name="ci")
    stranger = await hub.client_with({"Authorization": f"Bearer sk_live_acme_{RANDOM}"})
    answer = await stranger.request(method, path)
    assert_problem(answer, 401, "token_unknown")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_a_modified_token_is_unknown(hub: RunningHub) -> None:
    token = await hub.hub.tokens.mint("acme", name="ci")
    stranger = await hub.client_with({})
    for neighbour in (token[:-1], token + "x", token.swapcase(), token.replace("acme", "globex"), token + "="):
        answer = await stranger.get(PATH, headers={"Authorization": f"Bearer {neighbour}", "X-Account-ID": "acme"})
        assert_problem(answer, 401, "token_unknown")


async def test_a_refusal_does_not_repeat_the_token(hub: RunningHub) -> None:
    stranger = await hub.client_with({"Authorization": f"Bearer sk_live_acme_{RANDOM}"})
    assert RANDOM not in (await stranger.get(PATH)).text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_the_scheme_is_case_insensitive(hub: RunningHub, scheme: str) -> None:
    token = await hub.hub.tokens.mint("acme", name="ci")
    client = await hub.client_with({"Authorization": f"{scheme} {token}"})
    assert await list_rows(client) == []


@pytest.mark.parametrize(
    "token", ["opaque", "sk_live_", "sk_live_acme", "sk_live_acme_", "sk_live__x", "sk_live_ACME_x", "pk_live_acme_x"]
)
async def test_a_token_without_an_account_needs_the_header(hub: RunningHub, token: str) -> None:
    stranger = await hub.client_with({"Authorization": f"Bearer {token}"})
    for headers in ({}, {"X-Account-ID": ""}):
        problem = assert_problem(await stranger.get(PATH, headers=headers), 400, "account_missing")
        assert problem["detail"] == "Missing X-Account-ID header"
    named = await stranger.get(PATH, headers={"X-Account-ID": "acme"})
    assert_problem(named, 401, "token_unknown")


@pytest.mark.parametrize("account", ["*", "all"])
@pytest.mark.parametrize("token", ["sk_all_", "sk_all", "SK_ALL_x", "pk_all_x"])
async def test_no_header_makes_a_token_one_for_all_accounts(hub: RunningHub, token: str, account: str) -> None:
    await hub.hub.tokens.mint_for_all(name="gates")
    stranger = await hub.client_with({"Authorization": f"Bearer {token}"})
    assert_problem(await stranger.get(PATH), 400, "account_missing")
    assert_problem(await stranger.get(PATH, headers={"X-Account-ID": account}), 401, "token_unknown")


@pytest.mark.parametrize("token", [f"sk_all_{RANDOM}", "sk_all_acme_x", "sk_all__"])
async def test_an_unknown_token_for_all_accounts_is_a_401(hub: RunningHub, token: str) -> None:
    """No token that this hub mints has another underscore, but one of that form is complete without the header."""
    await hub.hub.tokens.mint_for_all(name="gates")
    stranger = await hub.client_with({"Authorization": f"Bearer {token}"})
    for headers in ({}, {"X-Account-ID": "acme"}, {"X-Account-ID": "*"}):
        assert_problem(await stranger.get(PATH, headers=headers), 401, "token_unknown")


async def test_the_random_part_of_a_token_may_hold_an_underscore(hub: RunningHub) -> None:
    """The operator may draw it by a function of his own."""
    hub.dice.next = ["acme_x"]
    assert await hub.hub.tokens.mint_for_all(name="gates") == "sk_all_acme_x"
    client = await hub.client_with({"Authorization": "Bearer sk_all_acme_x"})
    assert await list_rows(client) == []


async def test_an_account_may_be_called_all(hub: RunningHub) -> None:
    """Its tokens are for it alone."""
    client, other = await hub.client("all"), await hub.client("acme")
    row, _ = await create(client), await create(other)
    assert await list_rows(client) == [row]
    assert {token.account for token in await hub.hub.tokens.list()} == {"all", "acme"}


@pytest.mark.parametrize("account", ["acme", "0", "a_b", "a-_", "x" * 63])
async def test_a_token_carries_its_account(hub: RunningHub, account: str) -> None:
    token = await hub.hub.tokens.mint(account, name="ci")
    assert token.startswith(f"sk_live_{account}_")
    client = await hub.client_with({"Authorization": f"Bearer {token}"})
    assert await list_rows(client) == []


async def test_the_header_can_name_the_account_of_the_token(acme: httpx.AsyncClient) -> None:
    assert (await acme.get(PATH, headers={"X-Account-ID": "acme"})).status_code == httpx.codes.OK


@pytest.mark.parametrize(("method", "path"), REQUESTS)
@pytest.mark.parametrize("account", ["globex", "ACME", "acm", "acme ,acme", "no account", "*", "all"])
async def test_a_header_that_contradicts_the_token_is_a_403(
    acme: httpx.AsyncClient, method: str, path: str, account: str
) -> None:
    answer = await acme.request(method, path, headers={"X-Account-ID": account})
    assert_problem(answer, 403, "account_mismatch")


@pytest.mark.parametrize(("method", "path"), REQUESTS)
@pytest.mark.parametrize("account", ["acme", "globex", "*", "all"])
async def test_a_header_beside_a_token_for_all_accounts_is_a_403(
    hub: RunningHub, acme: httpx.AsyncClient, method: str, path: str, account: str
) -> None:
    await create(acme)
    client = await hub.client_of_all()
    answer = await client.request(method, path, headers={"X-Account-ID": account})
    assert "Leave the header out" in assert_problem(answer, 403, "account_mismatch")["detail"]


async def test_an_empty_header_beside_a_token_for_all_accounts_names_none(hub: RunningHub) -> None:
    client = await hub.client_of_all()
    assert (await client.get(PATH, headers={"X-Account-ID": ""})).status_code == httpx.codes.OK


async def test_two_headers_that_name_two_accounts_are_a_403(acme: httpx.AsyncClient) -> None:
    answer = await acme.get(PATH, headers=[("X-Account-ID", "acme"), ("X-Account-ID", "globex")])
    assert_problem(answer, 403, "account_mismatch")


async def test_refusals_of_unknown_tokens_do_not_depend_on_the_account(hub: RunningHub) -> None:
    await hub.hub.tokens.mint("acme", name="ci")
    stranger = await hub.client_with({"Authorization": f"Bearer sk_live_acme_{RANDOM}"})
    answers = [await stranger.get(PATH, headers={"X-Account-ID": account}) for account in ("acme", "globex", "initech")]
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1


async def test_all_tokens_of_an_account_see_the_same_keys(hub: RunningHub) -> None:
    first, second = await hub.client("acme"), await hub.client("acme")
    row = await create(first)
    assert await list_rows(second) == [row]


async def test_tokens_survive_a_restart_but_not_a_change_of_the_pepper(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as first:
        headers = {"Authorization": f"Bearer {await first.hub.tokens.mint('acme', name='ci')}"}
    async with running_hub(database) as second:
        assert await list_rows(await second.client_with(headers)) == []
        # Otherwise, a hub with another pepper does not start.
        await execute(second, delete(pepper_check))
    async with running_hub(database, pepper="another") as third:
        assert_problem(await (await third.client_with(headers)).get(PATH), 401, "token_unknown")


async def test_tokens_are_listed_without_their_plaintexts(hub: RunningHub) -> None:
    plaintexts = []
    for account, name in (("acme", "ci"), ("globex", "ci"), ("acme", "dashboard")):
        plaintexts.append(await hub.hub.tokens.mint(account, name=name))
        hub.clock.advance(60)
    listed = await hub.hub.tokens.list()
    assert [(token.account, token.name) for token in listed] == [("acme", "ci"), ("globex", "ci"), ("acme", "dashboard")]
    assert await hub.hub.tokens.list("acme") == [listed[0], listed[2]]
    assert await hub.hub.tokens.list("initech") == []
    assert listed[0].created_at == START
    assert not any(plaintext.rpartition("_")[2] in repr(listed) for plaintext in plaintexts)


async def test_tokens_for_all_accounts_are_listed_beside_the_others(hub: RunningHub) -> None:
    await hub.hub.tokens.mint("acme", name="ci")
    hub.clock.advance(60)
    plaintext = await hub.hub.tokens.mint_for_all(name="gates")
    assert re.fullmatch(r"sk_all_[A-Za-z0-9]{32}", plaintext)
    both = await hub.hub.tokens.list()
    assert [(token.account, token.name, token.scope) for token in both] == [("acme", "ci", "admin"), ("*", "gates", "gate")]
    assert await hub.hub.tokens.list(ALL_ACCOUNTS) == both[1:]
    assert await hub.hub.tokens.list("acme") == both[:1]


async def test_a_revoked_token_for_all_accounts_is_unknown(hub: RunningHub) -> None:
    client, other = await hub.client_of_all(), await hub.client("acme")
    (token,) = await hub.hub.tokens.list(ALL_ACCOUNTS)
    assert await hub.hub.tokens.revoke(token.id) == token
    assert_problem(await client.get(PATH), 401, "token_unknown")
    assert (await other.get(PATH)).status_code == httpx.codes.OK


async def test_a_revoked_token_is_unknown_and_the_others_work(hub: RunningHub) -> None:
    clients = [await hub.client("acme"), await hub.client("acme")]
    row = await create(clients[0])
    first, second = await hub.hub.tokens.list("acme")
    assert await hub.hub.tokens.revoke(first.id) == first
    assert await hub.hub.tokens.revoke(first.id) is None
    assert await hub.hub.tokens.list("acme") == [second]
    answers = sorted([await client.get(PATH) for client in clients], key=lambda answer: answer.status_code)
    assert answers[0].json() == [row]
    assert_problem(answers[1], 401, "token_unknown")


@pytest.mark.parametrize(
    "account", ["", "Acme", "_acme", "-acme", "ac me", "acme\n", "äcme", "x" * 64, "acme/../globex", "*", "all accounts"]
)
async def test_no_token_is_minted_for_an_invalid_account_name(hub: RunningHub, account: str) -> None:
    with pytest.raises(ConfigError) as raised:
        await hub.hub.tokens.mint(account, name="ci")
    assert len(raised.value.problems) == 1
    assert repr(account) in str(raised.value)


async def test_the_name_of_a_token_must_not_contain_nul(hub: RunningHub) -> None:
    for minting in (hub.hub.tokens.mint("acme", name="a\0b"), hub.hub.tokens.mint_for_all(name="a\0b")):
        with pytest.raises(ConfigError, match="NUL"):
            await minting
    assert await hub.hub.tokens.list() == []


@pytest.mark.parametrize("name", ["", "x" * 201])
async def test_a_token_needs_a_name_of_1_to_200_characters(hub: RunningHub, name: str) -> None:
    for minting in (hub.hub.tokens.mint("acme", name=name), hub.hub.tokens.mint_for_all(name=name)):
        with pytest.raises(ConfigError, match="expected 1 to 200"):
            await minting


async def test_all_mistakes_in_minting_a_token_are_reported_together(hub: RunningHub) -> None:
    unknown: Any = "reader"
    with pytest.raises(ConfigError) as raised:
        await hub.hub.tokens.mint("Acme", name="", scope=unknown)
    assert len(raised.value.problems) == len(("account", "name", "scope"))


# Scopes

NEEDS_ADMIN = [
    ("POST", PATH),
    ("POST", "/v1/widget-keys"),
    ("PATCH", f"{PATH}/{{key_id}}"),
    ("DELETE", f"{PATH}/{{key_id}}"),
    ("GET", f"{PATH}/{{key_id}}/events"),
    ("HEAD", f"{PATH}/{{key_id}}/events"),
    ("GET", "/api/v1/gates"),
]


async def test_a_gate_token_lists_keys_and_reports_their_use(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    gate = await hub.client("acme", "gate")
    await use(gate, row, hub.clock.now)
    (listed,) = await list_rows(gate)
    assert (listed["id"], listed["use_count"]) == (row["id"], 1)
    assert (await gate.head(PATH)).status_code == httpx.codes.OK


@pytest.mark.parametrize(("method", "path"), NEEDS_ADMIN)
async def test_a_gate_token_is_refused_for_anything_else(
    hub: RunningHub, acme: httpx.AsyncClient, method: str, path: str
) -> None:
    """A known and an unknown key give the same answer, and neither the body nor the key is looked at."""
    row = await create(acme)
    gate = await hub.client("acme", "gate")
    answers = [await gate.request(method, path.format(key_id=key_id)) for key_id in (row["id"], "nothing")]
    for answer in answers:
        assert answer.status_code == httpx.codes.FORBIDDEN
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'
    assert (answers[0].content, answers[0].headers) == (answers[1].content, answers[1].headers)
    if method != "HEAD":
        detail = assert_problem(answers[0], 403, "scope_insufficient")["detail"]
        assert "scope gate, and this request needs admin" in detail
        assert "gatekeeper hub token create --scope admin" in detail
    assert await list_rows(acme) == [row]


@pytest.mark.parametrize("path", [PATH, f"{PATH}/usage", f"{PATH}/nothing", f"{PATH}/nothing/events"])
async def test_options_answers_every_token_alike(hub: RunningHub, acme: httpx.AsyncClient, path: str) -> None:
    gate = await hub.client("acme", "gate")
    for client in (acme, gate):
        assert_problem(await client.options(path), 405, "method_not_allowed")


async def test_the_account_is_checked_before_the_scope(hub: RunningHub) -> None:
    gate = await hub.client("acme", "gate")
    assert_problem(await gate.post(PATH, headers={"X-Account-ID": "globex"}), 403, "account_mismatch")


@pytest.mark.parametrize("scope", ["gate", "admin"])
async def test_the_list_says_the_scope_of_the_token(hub: RunningHub, scope: Any) -> None:
    client = await hub.client("acme", scope)
    full = await client.get(PATH)
    unchanged = await client.get(PATH, headers={"If-None-Match": full.headers["ETag"]})
    assert (full.status_code, unchanged.status_code) == (httpx.codes.OK, httpx.codes.NOT_MODIFIED)
    for answer in (full, unchanged, await client.head(PATH)):
        assert answer.headers["Token-Scope"] == scope
        assert "Authorization" in answer.headers["Vary"]


async def test_an_etag_held_by_an_admin_token_is_good_for_a_gate_token(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """A gate whose token is replaced keeps its list, and learns the new scope."""
    gate = await hub.client("acme", "gate")
    etag = (await acme.get(PATH)).headers["ETag"]
    answer = await gate.get(PATH, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.headers["Token-Scope"]) == (httpx.codes.NOT_MODIFIED, "gate")


async def test_a_token_is_an_admin_token_unless_a_scope_is_given(hub: RunningHub) -> None:
    await hub.hub.tokens.mint("acme", name="script")
    await hub.hub.tokens.mint("acme", name="gate", scope="gate")
    assert {token.name: token.scope for token in await hub.hub.tokens.list()} == {"script": "admin", "gate": "gate"}


async def test_a_token_minted_by_an_older_hub_is_an_admin_token(hub: RunningHub) -> None:
    """During an update, a worker that knows no scopes mints a token in the new schema."""
    await hub.hub.tokens.mint("acme", name="gate", scope="gate")
    columns = "INSERT INTO tokens (id, account, name, keyed_hash, created_at)"
    await execute(hub, text(f"{columns} SELECT 'older', account, 'older', 'older', created_at FROM tokens"))
    assert {token.name: token.scope for token in await hub.hub.tokens.list()} == {"gate": "gate", "older": "admin"}


@pytest.mark.parametrize("scope", ["", "Gate", "gate admin", "reader", None])
async def test_no_token_is_minted_for_an_unknown_scope(hub: RunningHub, scope: Any) -> None:
    with pytest.raises(ConfigError, match="expected 'gate' or 'admin'"):
        await hub.hub.tokens.mint("acme", name="ci", scope=scope)
    assert await hub.hub.tokens.list() == []


async def test_a_token_with_a_scope_unknown_to_the_hub_may_do_nothing(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """The database was written to by hand, or by another version."""
    await execute(hub, update(tokens).values(scope="reader"))
    assert_problem(await acme.get(PATH), 403, "scope_insufficient")
    assert_problem(await acme.post(PATH), 403, "scope_insufficient")
