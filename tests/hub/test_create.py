"""POST /api/v1/widget-keys."""

import hashlib
import re
import string
from typing import Any

import httpx
import pytest

from .conftest import NewDatabase
from .support import PATH, RunningHub, assert_problem, create, list_rows, running_hub, written

pytestmark = pytest.mark.anyio

RANDOM = string.ascii_letters[:24]
ENTRIES_AS_WRITTEN = [" ACME.com ", "*.acme.com", "localhost:*", "https://www.acme.com/", "bücher.example"]


async def test_the_answer_has_the_row_and_the_plaintext(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    answer = await acme.post(PATH, json={"name": "shop", "domain_allowlist": ["acme.com"], "agent_id": "agent-7"})
    assert answer.status_code == httpx.codes.CREATED
    row = answer.json()
    key = row["public_key"]
    assert row == {
        "id": row["id"],
        "name": "shop",
        "last8": key[-8:],
        "domain_allowlist": ["acme.com"],
        "agent_id": "agent-7",
        "disabled_at": None,
        "created_at": written(hub.clock.now),
        "updated_at": written(hub.clock.now),
        "last_used_at": None,
        "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
        "use_count": 0,
        "warnings": [],
        "public_key": key,
    }


async def test_the_answer_with_the_plaintext_is_not_cached(acme: httpx.AsyncClient) -> None:
    answer = await acme.post(PATH, json={"name": "shop"})
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("account", ["acme", "0", "a_b-c_", "x" * 63])
async def test_a_key_names_its_account_and_has_32_random_letters_and_digits(hub: RunningHub, account: str) -> None:
    client = await hub.client(account)
    keys = [(await client.post(PATH, json={"name": "shop"})).json()["public_key"] for _ in range(5)]
    assert all(re.fullmatch(rf"pk_live_{account}_[A-Za-z0-9]{{32}}", key) for key in keys)
    assert len(set(keys)) == len(keys)


async def test_a_name_alone_makes_a_blocked_key_without_an_agent(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    assert (row["domain_allowlist"], row["agent_id"]) == ([], None)
    assert (await create(acme, agent_id=None))["agent_id"] is None


async def test_names_need_not_be_unique(acme: httpx.AsyncClient) -> None:
    first, second = [await create(acme, name="same") for _ in range(2)]
    assert first["id"] != second["id"]


@pytest.mark.parametrize("name", ["x", "x" * 200, "🔑" * 200, "two\nlines", "'; DROP TABLE widget_keys; --"])
async def test_a_name_of_1_to_200_characters_is_stored_unchanged(acme: httpx.AsyncClient, name: str) -> None:
    await create(acme, name=name)
    assert [row["name"] for row in await list_rows(acme)] == [name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 201),
        ("name", "a\0b"),
        ("name", None),
        ("name", 7),
        ("agent_id", ""),
        ("agent_id", "x" * 201),
        ("agent_id", "a\0b"),
        ("agent_id", 7),
        ("domain_allowlist", None),
        ("domain_allowlist", "acme.com"),
        ("domain_allowlist", {"acme.com": True}),
        ("domain_allowlist", ["acme.com", 7]),
        ("domain_allowlist", ["acme.com", None]),
        ("domain_allowlist", ["acme.com"] * 1001),
    ],
)
async def test_an_invalid_field_is_named_in_a_400(acme: httpx.AsyncClient, field: str, value: Any) -> None:
    answer = await acme.post(PATH, json={"name": "shop", field: value})
    assert f"`$.{field}" in assert_problem(answer, 400, "invalid_request")["detail"]
    assert await list_rows(acme) == []


@pytest.mark.parametrize("body", [{}, {"domain_allowlist": ["acme.com"]}])
async def test_a_missing_name_is_a_400(acme: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await acme.post(PATH, json=body)
    assert "`name`" in assert_problem(answer, 400, "invalid_request")["detail"]


async def test_entries_are_stored_as_written(acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=ENTRIES_AS_WRITTEN)
    assert row["domain_allowlist"] == ENTRIES_AS_WRITTEN
    assert (await list_rows(acme))[0]["domain_allowlist"] == ENTRIES_AS_WRITTEN


async def test_warnings_are_in_the_answer_and_not_in_the_list(acme: httpx.AsyncClient) -> None:
    entries = ["http://acme.com", "*.globex.com", "initech.com:*", "fine.com", "App://Localhost/", "app://fine"]
    answer = await acme.post(PATH, json={"name": "shop", "domain_allowlist": entries})
    assert answer.status_code == httpx.codes.CREATED
    warnings = answer.json()["warnings"]
    assert [(warning["entry"], warning["reason"]) for warning in warnings] == [
        ("http://acme.com", "http"),
        ("*.globex.com", "apex_not_listed"),
        ("initech.com:*", "any_port"),
        ("App://Localhost/", "shared_origin"),
    ]
    assert all(set(warning) == {"entry", "reason", "hint"} and warning["hint"] for warning in warnings)
    assert "warnings" not in (await list_rows(acme))[0]


async def test_every_rejected_entry_is_listed_with_a_reason_and_a_hint(acme: httpx.AsyncClient) -> None:
    entries = ["acme.com", "*", "https://acme.com/shop", "*.co.uk", "*.acme.com", "app://*", "wss://acme.com"]
    answer = await acme.post(PATH, json={"name": "shop", "domain_allowlist": entries})
    errors = assert_problem(answer, 400, "allowlist_invalid")["errors"]
    assert [error["entry"] for error in errors] == ["*", "https://acme.com/shop", "*.co.uk", "app://*", "wss://acme.com"]
    assert [error["reason"] for error in errors] == ["any_origin", "path", "wildcard_public_suffix", "wildcard", "scheme"]
    assert all(set(error) == {"entry", "reason", "hint"} and error["hint"] for error in errors)
    assert await list_rows(acme) == []


async def test_entries_over_the_limit_are_rejected_one_by_one(acme: httpx.AsyncClient) -> None:
    entries = [f"shop{number}.acme.com" for number in range(102)]
    answer = await acme.post(PATH, json={"name": "shop", "domain_allowlist": entries})
    errors = assert_problem(answer, 400, "allowlist_invalid")["errors"]
    assert [(error["entry"], error["reason"]) for error in errors] == [(entry, "too_many") for entry in entries[100:]]


async def test_fields_that_the_hub_sets_are_ignored(acme: httpx.AsyncClient) -> None:
    set_by_the_hub = {
        "id": "chosen",
        "last8": "chosen00",
        "disabled_at": "2020-01-01T00:00:00Z",
        "created_at": 7,
        "updated_at": None,
        "last_used_at": "2020-01-01T00:00:00Z",
        "key_sha256": "0" * 64,
        "use_count": 7,
        "warnings": ["none"],
        "public_key": "pk_live_acme_chosen00",
    }
    row = await create(acme)
    ignored = await create(acme, **set_by_the_hub)
    assert set(ignored) == set(row)
    assert (ignored["disabled_at"], ignored["last_used_at"]) == (None, None)
    assert ignored["created_at"] == row["created_at"]
    assert "chosen" not in str(ignored)
    assert await list_rows(acme) == [row, ignored]


async def test_a_last_8_that_is_taken_is_drawn_again(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    hub.dice.next = [RANDOM + "taken000"]
    await create(acme)
    hub.dice.next = ["other" + RANDOM[5:] + "taken000", RANDOM + "taken000", RANDOM + "free0000"]
    row = await create(acme)
    assert row["last8"] == "free0000"
    assert hub.dice.next == []


async def test_last_8_is_case_sensitive(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    hub.dice.next = [RANDOM + "taken000", RANDOM + "TAKEN000"]
    assert [(await create(acme))["last8"] for _ in range(2)] == ["taken000", "TAKEN000"]


async def test_the_last_8_of_a_disabled_key_stays_taken(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    hub.dice.next = [RANDOM + "taken000"]
    row = await create(acme)
    await acme.patch(f"{PATH}/{row['id']}", json={"disabled": True})
    hub.dice.next = [RANDOM + "taken000", RANDOM + "free0000"]
    assert (await create(acme))["last8"] == "free0000"


async def test_two_accounts_can_have_the_same_last_8(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    hub.dice.next = [RANDOM + "shared00", RANDOM + "shared00"]
    mine, theirs = await create(acme), await create(globex)
    assert mine["last8"] == theirs["last8"] == "shared00"
    assert mine["key_sha256"] != theirs["key_sha256"]


async def test_a_generator_that_repeats_itself_is_a_500_without_a_key(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    hub.dice.next = [RANDOM + "taken000"] * 11
    await create(acme)
    etag = (await acme.get(PATH)).headers["ETag"]
    assert_problem(await acme.post(PATH, json={"name": "shop"}), 500, "internal_error")
    answer = await acme.get(PATH)
    assert (len(answer.json()), answer.headers["ETag"]) == (1, etag)


async def test_keys_survive_a_restart(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as first:
        row = await create(await first.client("acme"), domain_allowlist=["acme.com"])
    async with running_hub(database) as second:
        assert await list_rows(await second.client("acme")) == [row]
