"""PATCH /api/v1/widget-keys/{id}."""

from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest

from .support import PATH, RunningHub, assert_problem, create, list_rows

pytestmark = pytest.mark.anyio


async def update(client: httpx.AsyncClient, row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Update a widget key successfully, and return its row."""
    answer = await client.patch(f"{PATH}/{row['id']}", json=fields)
    assert answer.status_code == httpx.codes.OK, answer.text
    updated: dict[str, Any] = answer.json()
    del updated["warnings"]
    return updated


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "renamed"},
        {"domain_allowlist": ["globex.com", "*.globex.com"]},
        {"domain_allowlist": []},
        {"agent_id": "agent-8"},
        {"agent_id": None},
        {"name": "renamed", "domain_allowlist": ["globex.com"], "agent_id": None},
    ],
)
async def test_given_fields_change_and_the_others_stay(
    hub: RunningHub, acme: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    row = await create(acme, domain_allowlist=["acme.com"], agent_id="agent-7")
    bystander = await create(acme, name="bystander")
    later = hub.clock.advance(60)
    updated = await update(acme, row, **fields)
    assert updated == {**row, **fields, "updated_at": later}
    assert await list_rows(acme) == [updated, bystander]


async def test_the_answer_to_an_update_has_no_plaintext(acme: httpx.AsyncClient) -> None:
    created = (await acme.post(PATH, json={"name": "shop"})).json()
    answer = await acme.patch(f"{PATH}/{created['id']}", json={"name": "renamed", "public_key": "pk_live_acme_x"})
    assert "public_key" not in answer.json()
    assert created["public_key"] not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_warnings_are_about_the_updated_allowlist(acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=["http://acme.com"])
    path = f"{PATH}/{row['id']}"
    renamed = (await acme.patch(path, json={"name": "renamed"})).json()
    assert [warning["reason"] for warning in renamed["warnings"]] == ["http"]
    assert (await acme.patch(path, json={"domain_allowlist": ["acme.com"]})).json()["warnings"] == []


async def test_an_update_of_what_the_hub_sets_changes_nothing(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    hub.clock.advance(60)
    assert await update(acme, row) == row
    assert await update(acme, row, last8="chosen00", disabled_at="2020-01-01T00:00:00Z", use_count=7) == row


async def test_disabling_sets_disabled_at_and_is_idempotent(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    first = hub.clock.advance(60)
    disabled = await update(acme, row, disabled=True)
    assert disabled == {**row, "disabled_at": first, "updated_at": first}
    hub.clock.advance(60)
    assert await update(acme, row, disabled=True) == disabled
    renamed_at = hub.clock.advance(60)
    renamed = await update(acme, row, disabled=True, name="renamed")
    assert renamed == {**disabled, "name": "renamed", "updated_at": renamed_at}


async def test_a_disabled_key_stays_disabled_if_another_field_changes(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    disabled = await update(acme, row, disabled=True)
    assert (await update(acme, row, name="renamed"))["disabled_at"] == disabled["disabled_at"]


async def test_enabling_clears_disabled_at_and_disabling_sets_a_new_one(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await update(acme, row, disabled=True)
    enabled_at = hub.clock.advance(60)
    assert await update(acme, row, disabled=False) == {**row, "updated_at": enabled_at}
    hub.clock.advance(60)
    assert await update(acme, row, disabled=False) == {**row, "updated_at": enabled_at}
    again = hub.clock.advance(60)
    assert (await update(acme, row, disabled=True))["disabled_at"] == again


async def test_an_unknown_id_is_a_404(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    for unknown in ("nothing", row["id"].upper(), row["id"][:-1], row["last8"], "%00", "%F0%9F%94%91", "'%20OR%201=1"):
        assert_problem(await acme.patch(f"{PATH}/{unknown}", json={"name": "renamed"}), 404, "not_found")
    assert await list_rows(acme) == [row]


async def test_the_id_of_another_account_is_the_same_404(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    row = await create(acme)
    theirs = await globex.patch(f"{PATH}/{row['id']}", json={"disabled": True})
    unknown = await globex.patch(f"{PATH}/nothing", json={"disabled": True})
    assert_problem(theirs, 404, "not_found")
    assert theirs.content == unknown.content
    assert await list_rows(acme) == [row]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("name", ""),
        ("name", "x" * 201),
        ("domain_allowlist", None),
        ("domain_allowlist", "acme.com"),
        ("agent_id", ""),
        ("disabled", None),
        ("disabled", "true"),
        ("disabled", 1),
    ],
)
async def test_an_invalid_field_is_named_in_a_400(acme: httpx.AsyncClient, field: str, value: Any) -> None:
    row = await create(acme)
    answer = await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed", field: value})
    assert f"`$.{field}`" in assert_problem(answer, 400, "invalid_request")["detail"]
    assert await list_rows(acme) == [row]


async def test_a_rejected_entry_rejects_the_whole_update(acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=["acme.com"])
    answer = await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed", "domain_allowlist": ["a.com", "null"]})
    errors = assert_problem(answer, 400, "allowlist_invalid")["errors"]
    assert [(error["entry"], error["reason"]) for error in errors] == [("null", "null")]
    assert await list_rows(acme) == [row]


@pytest.mark.parametrize("seconds", [0.0, -3600.0])
async def test_updated_at_never_goes_back(hub: RunningHub, acme: httpx.AsyncClient, seconds: float) -> None:
    """The clock of the hub stands still, or is set back. A gate takes an older row for that of an old copy."""
    row = await create(acme)
    hub.clock.advance(seconds)
    times = [row["updated_at"]]
    for disabled in (True, False, True):
        times += [(await update(acme, row, disabled=disabled))["updated_at"]]
    moments = [datetime.fromisoformat(each) for each in times]
    assert all(before < after for before, after in pairwise(moments))
