"""GET /api/v1/widget-keys/{id}/events, and the log of changes."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Delete, Update, delete, update

from gatekeeper.hub.accounts import Revision, read_revision
from gatekeeper.hub.events import UnknownBase, read_changed
from gatekeeper.hub.tables import accounts, events

from .support import PATH, START, RunningHub, assert_problem, create, execute, use, written

pytestmark = pytest.mark.anyio


async def events_of(client: httpx.AsyncClient, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the events of a key, and check and remove their ids."""
    answer = await client.get(f"{PATH}/{row['id']}/events")
    assert (answer.status_code, answer.headers["Content-Type"]) == (httpx.codes.OK, "application/json"), answer.text
    happened: list[dict[str, Any]] = answer.json()
    assert [event.pop("key_id") for event in happened] == [row["id"]] * len(happened)
    assert [event.pop("id") for event in happened] == list(range(1, len(happened) + 1))
    return happened


async def actions_of(client: httpx.AsyncClient, row: dict[str, Any]) -> list[str]:
    """Read the actions in the history of a key."""
    return [event["action"] for event in await events_of(client, row)]


async def patch(client: httpx.AsyncClient, row: dict[str, Any], **fields: Any) -> None:
    """Update a key successfully."""
    assert (await client.patch(f"{PATH}/{row['id']}", json=fields)).status_code == httpx.codes.OK


async def test_a_create_is_an_event_with_the_given_fields(acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=["acme.com"], agent_id="agent-7")
    assert await events_of(acme, row) == [
        {
            "action": "created",
            "token_name": "tests",
            "at": written(START),
            "changes": {
                "last8": {"before": None, "after": row["last8"]},
                "name": {"before": None, "after": "shop"},
                "domain_allowlist": {"before": None, "after": ["acme.com"]},
                "agent_id": {"before": None, "after": "agent-7"},
            },
        }
    ]


async def test_an_update_is_an_event_with_only_the_changed_fields(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=["acme.com"], agent_id="agent-7")
    later = hub.clock.advance(60)
    await patch(acme, row, name="shop", domain_allowlist=["globex.com"], agent_id=None)
    assert (await events_of(acme, row))[1:] == [
        {
            "action": "updated",
            "token_name": "tests",
            "at": later,
            "changes": {
                "domain_allowlist": {"before": ["acme.com"], "after": ["globex.com"]},
                "agent_id": {"before": "agent-7", "after": None},
            },
        }
    ]


async def test_disabling_and_enabling_are_events_with_their_times(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    disabled = hub.clock.advance(60)
    await patch(acme, row, disabled=True)
    enabled = hub.clock.advance(60)
    await patch(acme, row, disabled=False)
    assert (await events_of(acme, row))[1:] == [
        {
            "action": "disabled",
            "token_name": "tests",
            "at": disabled,
            "changes": {"disabled_at": {"before": None, "after": disabled}},
        },
        {
            "action": "enabled",
            "token_name": "tests",
            "at": enabled,
            "changes": {"disabled_at": {"before": disabled, "after": None}},
        },
    ]


async def test_an_update_that_also_disables_is_two_events_at_the_same_time(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    later = hub.clock.advance(60)
    await patch(acme, row, disabled=True, name="renamed")
    _, updated, disabled = await events_of(acme, row)
    assert (updated["action"], set(updated["changes"]), updated["at"]) == ("updated", {"name"}, later)
    assert (disabled["action"], set(disabled["changes"]), disabled["at"]) == ("disabled", {"disabled_at"}, later)


@pytest.mark.parametrize(
    "fields",
    [{}, {"name": "shop"}, {"domain_allowlist": []}, {"agent_id": None}, {"disabled": False}, {"last8": "chosen00"}],
)
async def test_an_update_without_a_change_is_no_event_and_keeps_the_etag(
    hub: RunningHub, acme: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    row = await create(acme)
    etag = (await acme.get(PATH)).headers["ETag"]
    hub.clock.advance(60)
    await patch(acme, row, **fields)
    assert await actions_of(acme, row) == ["created"]
    listed = await acme.get(PATH)
    assert (listed.json(), listed.headers["ETag"]) == ([row], etag)


async def test_disabling_twice_is_one_event(acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    for _ in range(2):
        await patch(acme, row, disabled=True)
    assert await actions_of(acme, row) == ["created", "disabled"]


async def test_the_events_of_a_deleted_key_stay_with_its_last_fields(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme, domain_allowlist=["acme.com"])
    later = hub.clock.advance(60)
    await acme.delete(f"{PATH}/{row['id']}")
    assert (await events_of(acme, row))[1:] == [
        {
            "action": "deleted",
            "token_name": "tests",
            "at": later,
            "changes": {
                "last8": {"before": row["last8"], "after": None},
                "name": {"before": "shop", "after": None},
                "domain_allowlist": {"before": ["acme.com"], "after": None},
                "agent_id": {"before": None, "after": None},
            },
        }
    ]


@pytest.mark.parametrize("gone", [False, True])
async def test_the_last_8_characters_name_a_key_even_after_its_deletion(
    acme: httpx.AsyncClient, globex: httpx.AsyncClient, *, gone: bool
) -> None:
    """A page still shows the last 8 characters when the list no longer has the key."""
    row, other = await create(acme), await create(acme)
    for each in (row, other) if gone else ():
        await acme.delete(f"{PATH}/{each['id']}")
    by_id, by_last8 = [await acme.get(f"{PATH}/{name}/events") for name in (row["id"], row["last8"])]
    assert by_last8.status_code == httpx.codes.OK
    assert by_last8.json() == by_id.json()
    assert_problem(await globex.get(f"{PATH}/{row['last8']}/events"), 404, "not_found")


async def test_last_8_characters_name_the_listed_key_or_the_last_deleted(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """The last 8 characters of a deleted key are drawn again."""
    hub.dice.next = ["A" * 32] * 3
    rows = []
    for _ in range(3):
        rows.append(await create(acme))
        named = (await acme.get(f"{PATH}/AAAAAAAA/events")).json()[0]["key_id"]
        assert named == rows[-1]["id"]
        hub.clock.advance(60)
        await acme.delete(f"{PATH}/{rows[-1]['id']}")
        assert (await acme.get(f"{PATH}/AAAAAAAA/events")).json()[-1]["key_id"] == rows[-1]["id"]


async def test_only_events_take_the_last_8_characters(acme: httpx.AsyncClient) -> None:
    """A change needs the id, which is never drawn again."""
    row = await create(acme)
    assert_problem(await acme.delete(f"{PATH}/{row['last8']}"), 404, "not_found")
    assert_problem(await acme.patch(f"{PATH}/{row['last8']}", json={"name": "renamed"}), 404, "not_found")


async def test_deleting_a_used_key_is_one_disabled_event(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await use(acme, row, hub.clock.now)
    for _ in range(2):
        await acme.delete(f"{PATH}/{row['id']}")
    assert await actions_of(acme, row) == ["created", "disabled"]


async def test_an_event_keeps_the_name_of_a_revoked_token(hub: RunningHub) -> None:
    row = None
    for name in ("ci", "dashboard"):
        token = await hub.hub.tokens.mint("acme", name=name)
        client = await hub.client_with({"Authorization": f"Bearer {token}"})
        row = row or await create(client)
        await patch(client, row, name=f"renamed by {name}")
    assert row is not None
    first, *_ = await hub.hub.tokens.list("acme")
    await hub.hub.tokens.revoke(first.id)
    reader = await hub.client("acme")
    assert {event["token_name"] for event in await events_of(reader, row)} == {"ci", "dashboard"}


async def test_refused_writes_and_usage_reports_are_no_events(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed", "domain_allowlist": ["*"]})
    await use(acme, row, hub.clock.now)
    assert await actions_of(acme, row) == ["created"]


async def test_events_contain_no_plaintext(acme: httpx.AsyncClient) -> None:
    created = (await acme.post(PATH, json={"name": "shop"})).json()
    answer = await acme.get(f"{PATH}/{created['id']}/events")
    assert created["public_key"].rpartition("_")[2] not in answer.text
    assert created["key_sha256"] not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("key_id", ["nothing", "nothing1", "%00", "%00" * 8, "0" * 36, "%F0%9F%94%91"])
async def test_events_of_an_unknown_id_are_a_404(acme: httpx.AsyncClient, key_id: str) -> None:
    assert_problem(await acme.get(f"{PATH}/{key_id}/events"), 404, "not_found")


@pytest.mark.parametrize("gone", [False, True])
async def test_the_id_of_another_account_is_the_same_404(
    acme: httpx.AsyncClient, globex: httpx.AsyncClient, *, gone: bool
) -> None:
    row = await create(acme)
    if gone:
        await acme.delete(f"{PATH}/{row['id']}")
    theirs, unknown = [await globex.get(f"{PATH}/{key_id}/events") for key_id in (row["id"], "0" * 36)]
    assert_problem(theirs, 404, "not_found")
    assert theirs.content == unknown.content


async def test_event_numbers_reveal_nothing_about_other_keys(acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    rows = [await create(acme), await create(globex), await create(acme)]
    for row, client in zip(rows, (acme, globex, acme), strict=True):
        assert [event["id"] for event in (await client.get(f"{PATH}/{row['id']}/events")).json()] == [1]


async def revision_of(hub: RunningHub, account: str = "acme") -> Revision:
    """Read the present revision of an account."""
    return await hub.database.read(lambda connection: read_revision(connection, account))


async def changed_since(hub: RunningHub, base: Revision, account: str = "acme") -> dict[str, str | None] | None:
    """Read which keys have changed since a revision."""
    present = await revision_of(hub, account)

    def read(connection: Connection) -> dict[str, str | None] | None:
        try:
            pages = list(read_changed(connection, account, base, present, lambda _: None))
        except UnknownBase:
            return None
        return {key.id: key.last8 for page in pages for key in page}

    return await hub.database.read(read)


async def test_the_log_has_each_changed_key_once(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    untouched, first, second, gone = [await create(acme) for _ in range(4)]
    base = await revision_of(hub)
    assert await changed_since(hub, base) == {}
    await patch(acme, first, name="renamed", disabled=True)  # two events of one revision
    await patch(acme, second, name="renamed")
    await patch(acme, first, disabled=False)
    await acme.delete(f"{PATH}/{gone['id']}")
    new = await create(acme)
    changed = {second["id"]: None, first["id"]: None, gone["id"]: gone["last8"], new["id"]: None}
    assert await changed_since(hub, base) == changed
    assert untouched["id"] not in changed


async def test_the_log_leads_from_every_revision_to_the_present(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    bases = [await revision_of(hub)]
    rows = []
    for _ in range(3):
        rows.append(await create(acme))
        bases.append(await revision_of(hub))
    assert [len(await changed_since(hub, base) or ()) for base in bases] == [3, 2, 1, 0]
    await acme.delete(f"{PATH}/{rows[0]['id']}")
    # A key that came and went after the base is in it, too.
    assert [len(await changed_since(hub, base) or ()) for base in bases] == [3, 3, 2, 1]


async def test_use_and_other_accounts_are_not_in_the_log(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    row = await create(acme)
    base = await revision_of(hub)
    await use(acme, row, hub.clock.now)
    await create(globex)
    assert await revision_of(hub) == base
    assert await changed_since(hub, base) == {}


async def test_concurrent_changes_have_a_revision_each(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    base = await revision_of(hub)
    rows = await asyncio.gather(*(create(acme) for _ in range(8)))
    assert (await revision_of(hub)).number == base.number + 8
    assert set(await changed_since(hub, base) or ()) == {row["id"] for row in rows}


async def test_a_base_of_another_history_is_unknown(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await create(acme)
    former = await revision_of(hub)
    await create(acme)
    present = await revision_of(hub)
    assert former.number + 1 == present.number
    for base in (
        former._replace(mark="0" * 16),
        present._replace(mark="0" * 16),
        present._replace(mark=former.mark),
        Revision(present.number + 1, present.mark),
    ):
        assert await changed_since(hub, base) is None


@pytest.mark.parametrize("loss", [delete(events), update(events).values(revision=None, base_mark=None)])
async def test_a_base_before_a_missing_event_is_unknown(
    hub: RunningHub, acme: httpx.AsyncClient, loss: Delete | Update
) -> None:
    """An operator has deleted the event, or a hub from before there were revisions has added it."""
    bases, rows = [], []
    for _ in range(4):
        bases.append(await revision_of(hub))
        rows.append(await create(acme))
    await execute(hub, loss.where(events.c.key_id == rows[1]["id"]))
    assert [await changed_since(hub, base) for base in bases[:2]] == [None, None]
    assert await changed_since(hub, bases[2]) == {rows[2]["id"]: None, rows[3]["id"]: None}


async def test_a_change_without_an_event_makes_every_base_unknown(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """As after a restore, which gives every account another revision."""
    base = await revision_of(hub)
    await create(acme)
    await execute(hub, update(accounts).values(revision=accounts.c.revision + 1, revision_mark="restored"))
    assert await changed_since(hub, base) is None
