"""The list of all accounts: its revision, its deltas and its waits, whatever the order of commits."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from itertools import count, permutations
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, event, func, insert, select, update

from gatekeeper.errors import DatabaseDown
from gatekeeper.hub.accounts import ALL_ACCOUNTS, Revision, advance_revision, lock_account, read_revision
from gatekeeper.hub.all_accounts import AllAccounts
from gatekeeper.hub.deltas import MAX_REVISIONS, DeltaReader
from gatekeeper.hub.events import add_event
from gatekeeper.hub.tables import accounts, events, list_steps, listed_accounts, tokens, widget_keys
from gatekeeper.hub.tokens import Bearer
from tests.support.postgres import PostgresCluster

from .conftest import NewDatabase
from .support import (
    PATH,
    START,
    Row,
    RunningHub,
    applied,
    collected_statements,
    create,
    eventually,
    execute,
    fill,
    list_rows,
    running_hub,
    use,
    without_use,
)
from .waiting import PATIENCE, etag_of, looked_at, taken_on, wait_for_change

pytestmark = pytest.mark.anyio

MARK = "0" * 16


class Gate:
    """A client that keeps the list of all accounts.

    Attributes:
        rows: the list.
        etag: its ETag.
        statuses: of the answers.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.rows: list[Row] = []
        self.etag = ""
        self.statuses: list[int] = []

    async def ask(self) -> int:
        """Ask for what has changed, and return the status."""
        headers = {"If-None-Match": self.etag, "A-IM": "rows"} if self.etag else {}
        return self.take(await self.client.get(PATH, headers=headers))

    def take(self, answer: httpx.Response) -> int:
        """Take an answer."""
        self.statuses.append(answer.status_code)
        if answer.status_code == httpx.codes.IM_USED:
            assert answer.headers["Delta-Base"] == self.etag
            self.rows = applied(self.rows, answer.json())
        elif answer.status_code != httpx.codes.NOT_MODIFIED:
            assert answer.status_code == httpx.codes.OK, answer.text
            self.rows = answer.json()
        self.etag = answer.headers["ETag"]
        return answer.status_code

    def names(self) -> list[str]:
        """The names of the keys, with their accounts."""
        return [f"{row['account']}/{row['name']}" for row in self.rows]


async def gate_of(hub: RunningHub) -> Gate:
    """A gate with a token for all accounts that has the list."""
    gate = Gate(await hub.client_of_all())
    assert await gate.ask() == httpx.codes.OK
    return gate


@pytest.fixture
async def gate(hub: RunningHub) -> Gate:
    """A gate with the list of all accounts."""
    return await gate_of(hub)


def of(account: str, *rows: Row) -> list[Row]:
    """Rows as the list of all accounts has them."""
    return [{**row, "account": account} for row in rows]


async def renamed(client: httpx.AsyncClient, row: Row, name: str) -> Row:
    """Rename a key."""
    answer = await client.patch(f"{PATH}/{row['id']}", json={"name": name})
    assert answer.status_code == httpx.codes.OK, answer.text
    return {field: value for field, value in answer.json().items() if field != "warnings"}


async def revision_of(hub: RunningHub, account: str = ALL_ACCOUNTS) -> Revision:
    """Read the present revision of a list, without a step."""
    return await hub.database.read(lambda connection: read_revision(connection, account))


async def rows_of(hub: RunningHub, table: Any) -> int:
    """Count the rows of a table."""
    return await hub.database.read(lambda connection: int(connection.scalar(select(func.count()).select_from(table)) or 0))


# The list


async def test_the_list_has_the_rows_of_all_accounts_oldest_first(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    first, second, third = await create(acme), await create(globex), await create(acme)
    gate = await gate_of(hub)
    assert gate.rows == [*of("acme", first), *of("globex", second), *of("acme", third)]
    assert await list_rows(acme) == [first, third]


async def test_a_long_list_has_each_row_once(hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    await create(globex)
    await fill(hub, "acme", 2_345)
    await create(acme)
    gate = await gate_of(hub)
    assert len({row["id"] for row in gate.rows}) == len(gate.rows) == 2_347
    assert gate.rows == [*of("globex", *await list_rows(globex)), *of("acme", *await list_rows(acme))]


async def test_the_etag_moves_with_every_account_and_with_nothing_else(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient, gate: Gate
) -> None:
    row = await create(acme)
    assert await gate.ask() == httpx.codes.IM_USED
    assert await gate.ask() == httpx.codes.NOT_MODIFIED
    await use(acme, row, hub.clock.now)
    await hub.client("initech")  # an account without a key
    assert await gate.ask() == httpx.codes.NOT_MODIFIED
    theirs = await create(globex)
    assert await gate.ask() == httpx.codes.IM_USED
    assert gate.names() == ["acme/shop", "globex/shop"]
    await renamed(globex, theirs, "renamed")
    head = await gate.client.head(PATH, headers={"If-None-Match": gate.etag})
    assert (head.status_code, head.headers["ETag"] == gate.etag) == (200, False)


async def test_without_a_token_for_all_accounts_nothing_is_noted(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """Such a hub pays nothing for the list of all accounts."""
    with collected_statements() as statements:
        await create(acme)
        await list_rows(acme)
    assert not [statement for statement in statements if "listed_accounts" in statement or "list_steps" in statement]
    assert (await rows_of(hub, listed_accounts), await rows_of(hub, list_steps)) == (0, 0)


# Deltas


async def test_a_delta_has_the_changed_rows_of_each_account(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    kept, gone, theirs = await create(acme), await create(acme), await create(globex)
    gate = await gate_of(hub)
    kept = await renamed(acme, kept, "renamed")
    await acme.delete(f"{PATH}/{gone['id']}")
    brief = await create(globex)
    await globex.delete(f"{PATH}/{brief['id']}")
    theirs = await renamed(globex, theirs, "theirs")
    answer = await gate.client.get(PATH, headers={"If-None-Match": gate.etag, "A-IM": "rows"})
    assert answer.status_code == httpx.codes.IM_USED
    removed = [
        {"id": row["id"], "last8": row["last8"], "removed": True, "account": account}
        for account, row in (("acme", gone), ("globex", brief))
    ]
    assert answer.json() == [*removed, *of("acme", kept), *of("globex", theirs)]


async def test_an_account_that_is_made_and_filled_at_once_is_in_the_delta(hub: RunningHub, gate: Gate) -> None:
    client = await hub.client("initech")
    rows = [await create(client) for _ in range(3)]
    await client.delete(f"{PATH}/{rows[0]['id']}")
    assert await gate.ask() == httpx.codes.IM_USED
    assert gate.rows == of("initech", *rows[1:])


async def test_a_list_of_before_several_steps_has_a_delta(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate) -> None:
    old = Gate(gate.client)
    await old.ask()
    for number in range(4):
        rows = [await create(acme, name=f"{number}"), await create(await hub.client(f"account-{number}"))]
        await renamed(acme, rows[0], f"{number}, renamed")
        await gate.ask()
    assert await old.ask() == httpx.codes.IM_USED
    assert (old.rows, old.etag) == (gate.rows, gate.etag)
    assert gate.statuses == [200, 226, 226, 226, 226]


async def test_the_etag_of_one_account_is_none_of_all(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate) -> None:
    for number in range(3):
        await create(acme)
        await gate.ask()
        gate.etag = (await revision_of(hub, "acme"))._replace(number=1 + number).etag
        assert await gate.ask() == httpx.codes.OK


async def test_a_base_of_another_history_has_no_delta(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    deltas, bases = DeltaReader(hub.database), []
    await hub.client_of_all()
    for _ in range(3):
        await create(acme)
        bases.append((await deltas.read(ALL_ACCOUNTS)).revision)
    former, present = bases[-2:]
    assert (await deltas.read(ALL_ACCOUNTS, [former])).delta is not None
    for base in (
        former._replace(mark=MARK),
        present._replace(mark=MARK),
        present._replace(mark=former.mark),
        former._replace(mark=present.mark),
        present._replace(number=present.number + 1),
        Revision(10**17, MARK),
    ):
        assert (await deltas.read(ALL_ACCOUNTS, [base])).delta is None


async def test_a_list_from_before_a_pruned_step_has_no_delta(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await hub.client_of_all()
    deltas, bases = DeltaReader(hub.database, max_revisions=1_000), []
    short = AllAccounts(hub.database, max_revisions=2)
    await execute(hub, update(accounts).where(accounts.c.name == ALL_ACCOUNTS).values(revision=95))
    for _ in range(7):
        await create(acme)
        await short.step()
        bases.append(await revision_of(hub))
    # The step to 100 left those to 99 and 100, after which there were two more.
    assert [base.number for base in bases] == list(range(96, 103))
    found = [(await deltas.read(ALL_ACCOUNTS, [base])).delta is not None for base in bases]
    assert found == [False, False, True, True, True, True, False]
    assert await rows_of(hub, list_steps) == 4


async def test_a_list_from_before_a_missing_step_has_no_delta(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient, gate: Gate
) -> None:
    old = Gate(gate.client)
    await old.ask()
    for client in (acme, globex, acme):
        await create(client)
        await gate.ask()
    await execute(hub, delete(list_steps).where(list_steps.c.account == "globex"))
    assert await old.ask() == httpx.codes.OK
    assert len(old.rows) == 3


async def test_too_many_changes_have_no_delta(hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    """A step may have any number of them."""
    await hub.client_of_all()
    deltas, base = DeltaReader(hub.database, max_revisions=3), await revision_of(hub)
    for client in (acme, globex, acme):
        await create(client)
    assert (await deltas.read(ALL_ACCOUNTS, [base])).delta is not None
    await create(globex)
    assert (await deltas.read(ALL_ACCOUNTS, [base])).delta is None


async def test_events_may_be_stored_in_any_order(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient, gate: Gate
) -> None:
    """PostgreSQL reads those of several accounts in the order of their places."""
    rows, theirs = [await create(acme) for _ in range(3)], await create(globex)

    def move_down(connection: Connection) -> None:
        mine = events.c.key_id == rows[0]["id"]
        stored = connection.execute(select(events).where(mine)).mappings().one()
        connection.execute(delete(events).where(mine))
        connection.execute(insert(events).values(dict(stored)))

    await hub.database.write(move_down)
    assert await gate.ask() == httpx.codes.IM_USED
    assert gate.rows == [*of("acme", *rows), *of("globex", theirs)]


LOSSES = (delete(events), update(events).values(revision=None, base_mark=None))


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_key_whose_events_are_gone_is_never_missed(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient, gate: Gate, loss: Any
) -> None:
    """An operator has deleted them, or a hub from before there were revisions has added them."""
    row = await create(acme)
    await create(globex)
    await gate.ask()
    await acme.delete(f"{PATH}/{row['id']}")
    await create(globex)
    await execute(hub, loss.where(events.c.account == "acme"))
    assert await gate.ask() == httpx.codes.OK
    assert gate.names() == ["globex/shop", "globex/shop"]
    await create(acme)
    assert await gate.ask() == httpx.codes.IM_USED


async def test_a_lost_event_in_the_middle_has_no_delta(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate) -> None:
    rows = [await create(acme) for _ in range(3)]
    await execute(hub, delete(events).where(events.c.key_id == rows[1]["id"]))
    assert await gate.ask() == httpx.codes.OK
    assert gate.rows == of("acme", *rows)


async def test_an_account_that_an_operator_has_deleted_has_no_delta(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient, gate: Gate
) -> None:
    await create(acme)
    old = Gate(gate.client)
    old.etag = gate.etag
    await gate.ask()

    def delete_account(connection: Connection) -> None:
        for table, column in ((widget_keys, "account"), (events, "account"), (tokens, "account"), (accounts, "name")):
            connection.execute(delete(table).where(table.c[column] == "acme"))

    await hub.database.write(delete_account)
    await create(globex)
    assert await old.ask() == httpx.codes.OK
    assert old.names() == ["globex/shop"]


async def test_a_restored_database_has_no_delta_from_before(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate) -> None:
    """A restore gives every account another revision, without an event, and the list of all accounts as well."""
    await create(acme)

    def advance_all(connection: Connection) -> None:
        new = {"revision": accounts.c.revision + 1, "revision_mark": MARK}
        connection.execute(update(accounts).values(new))

    await hub.database.write(advance_all)
    assert await gate.ask() == httpx.codes.OK
    await create(acme)
    assert await gate.ask() == httpx.codes.IM_USED
    assert gate.names() == ["acme/shop", "acme/shop"]


@pytest.mark.parametrize("goes_on", [False, True])
async def test_an_account_of_another_history_has_no_delta(
    hub: RunningHub, acme: httpx.AsyncClient, gate: Gate, *, goes_on: bool
) -> None:
    """Its revision has the same number, after an operator has put the rows of an account back, for example."""
    await create(acme)
    await gate.ask()
    await execute(hub, update(accounts).where(accounts.c.name == "acme").values(revision_mark=MARK))
    if goes_on:
        await create(acme)
    assert await gate.ask() == httpx.codes.OK
    await create(acme)
    assert await gate.ask() == httpx.codes.IM_USED


# Steps


class HeldChange:
    """A change whose transaction is held open.

    Args:
        hub: the hub that makes it.
        account: the account.
        row: the row of the key, which gets another name.
    """

    def __init__(self, hub: RunningHub, account: str, row: Row) -> None:
        self._hub = hub
        self._account = account
        self._row = row
        self._made, self._ending = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._hold())

    async def made(self) -> None:
        """Wait until it is made, but for the commit."""
        await asyncio.wait_for(self._made.wait(), PATIENCE)

    async def commit(self) -> None:
        """Commit it."""
        self._ending.set()
        await self._task

    async def _hold(self) -> None:
        async with self._hub.database.transaction("writer", self._account) as transaction:
            await transaction.run(self._change)
            self._made.set()
            await self._ending.wait()

    def _change(self, connection: Connection) -> None:
        base = lock_account(connection, self._account)
        key_id = self._row["id"]
        connection.execute(update(widget_keys).where(widget_keys.c.id == key_id).values(name="after"))
        add_event(connection, Bearer(self._account, "tests", "admin"), base, key_id, "updated", START, {})
        advance_revision(connection, self._account, base)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
async def test_transactions_that_commit_in_any_order_are_all_in_the_deltas(
    postgres: PostgresCluster, order: tuple[int, ...]
) -> None:
    """A late one has got its number before others that a gate has been told of."""
    url = postgres.create_schema()
    async with running_hub(url) as one, running_hub(url) as other:
        rows = [await create(await one.client(f"account-{number}"), name="before") for number in range(3)]
        gates = [await gate_of(one), await gate_of(other)]
        changes = [HeldChange((one, other)[number % 2], f"account-{number}", row) for number, row in enumerate(rows)]
        for change in changes:
            await change.made()
        expected = ["before"] * 3
        for number in order:
            assert [await gate.ask() for gate in gates] == [304, 304]
            await changes[number].commit()
            expected[number] = "after"
            assert [await gate.ask() for gate in gates] == [226, 226]
            assert [[row["name"] for row in gate.rows] for gate in gates] == [expected, expected]
        assert gates[0].etag == gates[1].etag


async def test_a_late_commit_ends_the_wait(postgres: PostgresCluster) -> None:
    url = postgres.create_schema()
    async with running_hub(url) as one, running_hub(url) as other:
        rows = [await create(await one.client(f"account-{number}"), name="before") for number in range(2)]
        gate = await gate_of(one)
        changes = [HeldChange(other, f"account-{number}", row) for number, row in enumerate(rows)]
        for change in changes:
            await change.made()
        for change in reversed(changes):
            waiting = wait_for_change(gate.client, gate.etag, **{"A-IM": "rows"})
            await taken_on(one, 1)
            await change.commit()
            assert gate.take(await asyncio.wait_for(waiting, PATIENCE)) == 226
        assert [row["name"] for row in gate.rows] == ["after", "after"]


async def test_a_list_that_is_read_meanwhile_leads_to_the_present_one(postgres: PostgresCluster) -> None:
    """Its state of the database is older than two steps, and has a change that the first of them did not know."""
    url = postgres.create_schema()
    async with running_hub(url) as hub, running_hub(url) as other:
        acme, globex = await hub.client("acme"), await hub.client("globex")
        mine, theirs = await create(acme), await create(globex)
        deltas = DeltaReader(other.database)
        await hub.client_of_all()
        stepped = (await deltas.read(ALL_ACCOUNTS)).revision
        mine = await renamed(acme, mine, "unknown to the step")
        async with hub.hub.keys.list(ALL_ACCOUNTS) as listing:
            theirs = await renamed(globex, theirs, "later")
            state = await deltas.read(ALL_ACCOUNTS, [stepped])
            held = [{"id": row.id, "name": row.name} async for page in listing.pages for row in page]
        assert listing.etag == stepped.etag != state.revision.etag
        assert [row["name"] for row in held] == ["unknown to the step", "shop"]
        gate = Gate(await other.client_of_all())
        gate.rows, gate.etag = held, listing.etag
        assert await gate.ask() == 226
        assert gate.rows == [*of("acme", mine), *of("globex", theirs)]


async def test_two_workers_that_step_at_once_note_a_change_once(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as one, running_hub(database) as other:
        clients = [await one.client(f"account-{number}") for number in range(4)]
        gates = [await gate_of(hub) for hub in (one, other, one, other)]
        before = await revision_of(one)
        for _ in range(3):
            await asyncio.gather(*(create(client) for client in clients))
            assert await asyncio.gather(*(gate.ask() for gate in gates)) == [226] * 4
        assert len({gate.etag for gate in gates}) == 1
        assert (await revision_of(one)).number <= before.number + 3
        assert all(len(gate.rows) == 12 for gate in gates)


async def test_a_read_of_the_revision_takes_a_step_too(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate) -> None:
    """No wait ends without it. The revisions of other accounts need none."""
    row, before = await create(acme), await revision_of(hub)
    deltas = DeltaReader(hub.database)
    assert list(await deltas.revisions(["acme"])) == ["acme"]
    assert await revision_of(hub) == before
    revisions = await deltas.revisions([ALL_ACCOUNTS, "acme"])
    assert before.number < revisions[ALL_ACCOUNTS].number
    assert await gate.ask() == httpx.codes.IM_USED
    assert (gate.etag, gate.rows) == (revisions[ALL_ACCOUNTS].etag, of("acme", row))


async def test_requests_at_the_same_time_share_steps(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate) -> None:
    await create(acme)
    others = [Gate(gate.client) for _ in range(20)]
    with collected_statements() as statements:
        await asyncio.gather(*(other.ask() for other in others))
    assert len([statement for statement in statements if "INSERT INTO list_steps" in statement]) == 1
    assert len([statement for statement in statements if "FROM accounts LEFT OUTER JOIN listed_accounts" in statement]) <= 3
    assert (await revision_of(hub)).etag == others[0].etag


@pytest.mark.parametrize("at", ["INSERT INTO list_steps", "INSERT INTO listed_accounts", "UPDATE accounts"])
async def test_a_step_that_is_cut_off_leaves_nothing(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate, at: str) -> None:
    row = await create(acme)

    def cut_off(*arguments: Any) -> None:
        if arguments[2].startswith(at):
            raise ConnectionAbortedError

    before = await revision_of(hub)
    event.listen(Engine, "before_cursor_execute", cut_off)
    try:
        assert (await gate.client.get(PATH)).status_code == httpx.codes.INTERNAL_SERVER_ERROR
    finally:
        event.remove(Engine, "before_cursor_execute", cut_off)
    assert await revision_of(hub) == before
    assert (await rows_of(hub, listed_accounts), await rows_of(hub, list_steps)) == (0, 0)
    assert await gate.ask() == httpx.codes.IM_USED
    assert gate.rows == of("acme", row)


async def test_a_step_whose_answer_is_lost_loses_nothing(hub: RunningHub, acme: httpx.AsyncClient, gate: Gate) -> None:
    """The hub was killed in between."""
    row = await create(acme)
    await AllAccounts(hub.database, max_revisions=MAX_REVISIONS).step()
    assert await gate.ask() == httpx.codes.IM_USED
    assert gate.rows == of("acme", row)


async def test_a_hub_that_stops_waits_for_a_step_whose_client_has_left(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as other:
        gate = await gate_of(other)
        row = await create(await other.client("acme"))
        before = asyncio.all_tasks()
        async with AsyncExitStack() as stopping:
            hub = await stopping.enter_async_context(running_hub(database))
            client = await hub.client_with(dict(gate.client.headers))
            async with other.database.transaction("writer") as held:
                await held.run(lambda connection: lock_account(connection, ALL_ACCOUNTS))
                with collected_statements() as statements:
                    asking = asyncio.create_task(client.get(PATH))
                    await eventually(
                        lambda: any(each.startswith("BEGIN IMMEDIATE") or "FOR UPDATE" in each for each in statements)
                    )
                asking.cancel()
                await asyncio.wait([asking])
                left = asyncio.all_tasks() - before
                assert left
        assert not asyncio.all_tasks() & left
        assert await rows_of(other, list_steps) == 1
        assert await gate.ask() == httpx.codes.IM_USED
        assert gate.rows == of("acme", row)


async def test_a_step_for_some_accounts_leaves_the_others_for_later(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient, gate: Gate
) -> None:
    mine, theirs = await create(acme), await create(globex)
    deltas = DeltaReader(hub.database)
    with collected_statements() as statements:
        told = await deltas.read(ALL_ACCOUNTS, [await revision_of(hub)], ["globex", "unknown"])
    assert told.delta is not None
    assert b"globex" in told.delta.body
    assert b"acme" not in told.delta.body
    assert not [statement for statement in statements if "count(*)" in statement]
    rest = (await deltas.read(ALL_ACCOUNTS, [told.revision])).delta
    assert rest is not None
    assert b"acme" in rest.body
    assert b"globex" not in rest.body
    assert await gate.ask() == httpx.codes.IM_USED
    assert gate.rows == [*of("acme", mine), *of("globex", theirs)]
    many = [f"account-{number}" for number in range(200)]
    await create(acme)
    assert (await deltas.read(ALL_ACCOUNTS, [(await revision_of(hub))], many)).delta is not None  # it compares all


async def test_a_file_without_a_commit_since_the_last_step_is_not_compared_again(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    async with running_hub(database) as hub, running_hub(database) as other:
        gate = await gate_of(hub)
        client = await other.client("acme")
        assert await gate.ask() == httpx.codes.NOT_MODIFIED
        for _ in range(2):
            with collected_statements() as statements:
                assert await gate.ask() == httpx.codes.NOT_MODIFIED
            assert not any("listed_accounts" in each for each in statements)
            row = await create(client)
            assert await gate.ask() == httpx.codes.IM_USED
            assert gate.rows[-1]["id"] == row["id"]
            assert await gate.ask() == httpx.codes.NOT_MODIFIED


async def test_a_step_for_no_account_reads_nothing(hub: RunningHub) -> None:
    with collected_statements() as statements:
        await AllAccounts(hub.database, max_revisions=MAX_REVISIONS).step(())
    assert statements == []


async def test_a_step_that_fails_fails_no_read_of_another_account(postgres: PostgresCluster) -> None:
    """As long as nothing has to be noted, the list of all accounts is read as well."""
    url = postgres.create_database()
    async with running_hub(url) as hub, running_hub(f"{url}?options=-cdefault_transaction_read_only%3Don") as read_only:
        acme = await hub.client("acme")
        gate = await gate_of(hub)
        theirs = await read_only.client_with(dict(acme.headers))
        gate.client = await read_only.client_with(dict(gate.client.headers))
        assert await gate.ask() == httpx.codes.NOT_MODIFIED
        waiting = [
            wait_for_change(client, etag) for client, etag in ((gate.client, gate.etag), (theirs, await etag_of(theirs)))
        ]
        await looked_at(read_only, 2)
        row = await create(acme)
        answer = await asyncio.wait_for(waiting[1], PATIENCE)
        assert (answer.status_code, answer.json()) == (httpx.codes.OK, [row])
        assert (await gate.client.get(PATH)).status_code == httpx.codes.SERVICE_UNAVAILABLE
        with pytest.raises(DatabaseDown, match="read-only"):
            await DeltaReader(read_only.database).read(ALL_ACCOUNTS)
        assert len(await list_rows(theirs)) == 1
        # Those that wait go on waiting until another worker has noted the change.
        assert not waiting[0].done()
        await DeltaReader(hub.database).read(ALL_ACCOUNTS)
        assert (await asyncio.wait_for(waiting[0], PATIENCE)).status_code == httpx.codes.OK


async def test_what_a_told_change_costs_does_not_depend_on_the_accounts(
    hub: RunningHub, acme: httpx.AsyncClient, gate: Gate
) -> None:
    row = await create(acme)
    await gate.ask()
    await renamed(acme, row, "renamed")
    plans: list[tuple[str, Any]] = []

    def look(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if not statement.startswith(("BEGIN", "SET", "SELECT set_config", "PRAGMA")):
            plans.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", look)
    delta = (await DeltaReader(hub.database).read(ALL_ACCOUNTS, [await revision_of(hub)], ["acme"])).delta
    event.remove(Engine, "before_cursor_execute", look)
    assert delta is not None
    assert len(plans) == 9

    def explain_all(connection: Connection) -> None:
        is_sqlite = connection.dialect.name == "sqlite"
        if not is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # It prefers to read such small tables whole.
        for statement, parameters in plans:
            explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
            plan = str(connection.exec_driver_sql(explain + statement, parameters).all()).upper()
            assert "SCAN ACCOUNTS" not in plan
            assert "SCAN LISTED_ACCOUNTS" not in plan
            assert "SCAN EVENTS" not in plan
            assert "SCAN WIDGET_KEYS" not in plan
            assert "SEQ SCAN" not in plan

    await hub.database.write(explain_all)


# Waits


async def test_a_change_of_any_account_ends_the_wait(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient, gate: Gate
) -> None:
    for number, client in enumerate((acme, globex, acme, await hub.client("initech"))):
        waiting = wait_for_change(gate.client, gate.etag, **{"A-IM": "rows"})
        await taken_on(hub, 1)
        await create(client, name=f"{number}")
        answer = await asyncio.wait_for(waiting, PATIENCE)
        assert answer.headers["Preference-Applied"] == "wait=50"
        assert gate.take(answer) == httpx.codes.IM_USED
    assert gate.names() == ["acme/0", "globex/1", "acme/2", "initech/3"]


async def test_a_list_that_is_old_already_is_answered_at_once(acme: httpx.AsyncClient, gate: Gate) -> None:
    row = await create(acme)
    answer = await asyncio.wait_for(wait_for_change(gate.client, gate.etag, **{"A-IM": "rows"}), PATIENCE)
    assert (gate.take(answer), gate.rows) == (226, of("acme", row))
    assert answer.headers["Preference-Applied"] == "wait=50"


@pytest.mark.slow
async def test_without_a_change_a_304_comes_after_the_wait(acme: httpx.AsyncClient, gate: Gate) -> None:
    await create(acme)
    await gate.ask()
    answer = await wait_for_change(gate.client, gate.etag, "wait=1")
    assert gate.take(answer) == httpx.codes.NOT_MODIFIED
    assert answer.headers["Preference-Applied"] == "wait=1"


async def tell_of_all(one: RunningHub, other: RunningHub) -> None:
    """Change keys of several accounts at one worker, while a gate of all waits at the other."""
    gate = await gate_of(one)
    for number, account in enumerate(("acme", "globex", "acme")):
        client = await other.client(account)
        waiting = wait_for_change(gate.client, gate.etag, **{"A-IM": "rows"})
        await taken_on(one, 1)
        await create(client, name=f"{number}")
        assert gate.take(await asyncio.wait_for(waiting, PATIENCE)) == httpx.codes.IM_USED
    assert gate.names() == ["acme/0", "globex/1", "acme/2"]


async def test_a_change_by_another_worker_ends_the_wait(postgres: PostgresCluster) -> None:
    url = postgres.create_schema()
    async with running_hub(url) as one, running_hub(url) as other:
        await tell_of_all(one, other)


@pytest.mark.slow
async def test_a_change_by_another_program_ends_the_wait(tmp_path: Path) -> None:
    """It is looked for twice a second."""
    async with running_hub(tmp_path / "hub.db") as one, running_hub(tmp_path / "hub.db") as other:
        await tell_of_all(one, other)


# Random histories


ACTIONS = ("create", "rename", "disable", "delete", "use", "read", "read", "read for one", "restart")
histories = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=14)
numbers = count()


class World:
    """Accounts whose keys are changed at random, and the lists of all accounts that were read.

    Args:
        hub: the hub.
        names: the attribute.

    Attributes:
        names: the accounts, which do not exist at first.
        lists: the revisions of the lists, with their rows.
    """

    def __init__(self, hub: RunningHub, names: list[str]) -> None:
        self.lists: list[tuple[Revision, list[Row]]] = []
        self._hub = hub
        self._deltas = DeltaReader(hub.database)
        self.names = names
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def rows(self) -> list[Row]:
        """The rows that the accounts have, one by one."""
        found = [row for name, client in self._clients.items() for row in of(name, *await list_rows(client))]
        return sorted(found, key=lambda row: row["created_at"])

    async def do(self, action: str, account: int, which: int) -> None:
        """Do something."""
        name = self.names[account]
        self._hub.clock.advance(1)
        if action == "read for one":
            await self._deltas.read(ALL_ACCOUNTS, (), [name])
        elif action == "restart":
            self._deltas = DeltaReader(self._hub.database)
        elif action == "read":
            await self.read()
        else:
            await self._change(action, name, which)

    async def read(self) -> None:
        """Remember the list."""
        self.lists.append(((await self._deltas.read(ALL_ACCOUNTS)).revision, await self.rows()))

    async def _change(self, action: str, name: str, which: int) -> None:
        if name not in self._clients:
            self._clients[name] = await self._hub.client(name)
        client = self._clients[name]
        rows = await list_rows(client)
        if action == "create" or not rows:
            await create(client)
            return
        row = rows[which % len(rows)]
        if action == "delete":
            await client.delete(f"{PATH}/{row['id']}")
        elif action == "use":
            await use(client, row, self._hub.clock.now)
        else:
            changes = {"name": f"{which}"} if action == "rename" else {"disabled": not row["disabled_at"]}
            await client.patch(f"{PATH}/{row['id']}", json=changes)


async def check(hub: RunningHub, history: Iterable[tuple[str, int, int]]) -> None:
    """Go through a history, and compare the delta from each list with the present one."""
    number, client = next(numbers), await hub.client_of_all()
    world = World(hub, [f"account-{number}-{each}" for each in range(3)])
    await world.read()
    for step in history:
        await world.do(*step)
    await world.read()
    present, rows = world.lists[-1]
    whole = await gate_of(hub)
    assert [row for row in whole.rows if row["account"] in world.names] == rows
    for base, before in world.lists:
        state = await DeltaReader(hub.database).read(ALL_ACCOUNTS, [base])
        assert state.revision == present
        if base == present:
            assert without_use(before) == without_use(rows)
            continue
        gate = Gate(client)
        gate.rows, gate.etag = before, base.etag
        assert await gate.ask() == httpx.codes.IM_USED
        assert without_use(gate.rows) == without_use(rows)


async def test_deltas_lead_from_every_list_to_the_present_one(hub: RunningHub) -> None:
    few = [
        ("create", 0, 0),
        ("read", 0, 0),
        ("create", 1, 0),
        ("rename", 0, 0),
        ("read", 0, 0),
        ("read", 0, 0),
        ("use", 0, 0),
    ]
    more = [("delete", 1, 0), ("create", 2, 0), ("read for one", 2, 0), ("disable", 0, 0), ("read", 0, 0), ("create", 1, 0)]
    await check(hub, [*few, *more])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories)
async def test_deltas_of_any_history_lead_to_the_present_list(hub: RunningHub, history: list[tuple[str, int, int]]) -> None:
    await check(hub, history)
