"""What has changed in a list: against the whole list, and from one state of the database."""

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from typing import Any, Final

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Delete, Engine, Update, delete, event, insert, select, update

from gatekeeper.hub.accounts import Revision, read_revision
from gatekeeper.hub.deltas import Delta, DeltaReader
from gatekeeper.hub.engines import CONNECTIONS
from gatekeeper.hub.tables import accounts, events, widget_keys

from .conftest import NewDatabase
from .support import (
    PATH,
    START,
    Row,
    RunningHub,
    applied,
    create,
    execute,
    fill,
    list_rows,
    running_hub,
    use,
    without_use,
)

pytestmark = pytest.mark.anyio

MARK: Final = "0" * 16
# An operator has deleted events, or a hub from before there were revisions has added them.
LOSSES: Final = (delete(events), update(events).values(revision=None, base_mark=None))


async def revision_of(hub: RunningHub, account: str = "acme") -> Revision:
    """Read the present revision of an account."""
    return await hub.database.read(lambda connection: read_revision(connection, account))


async def delta_since(hub: RunningHub, *bases: Revision, account: str = "acme", **options: Any) -> Delta | None:
    """Read a delta."""
    return (await DeltaReader(hub.database, **options).read(account, bases)).delta


async def elements_since(hub: RunningHub, *bases: Revision, account: str = "acme") -> list[Row]:
    """Read the elements of a delta that there is."""
    delta = await delta_since(hub, *bases, account=account)
    assert delta is not None
    elements: list[Row] = msgspec.json.decode(delta.body)
    return elements


async def patch(client: httpx.AsyncClient, row: Row, **fields: Any) -> None:
    """Update a key successfully."""
    assert (await client.patch(f"{PATH}/{row['id']}", json=fields)).status_code == httpx.codes.OK


class Account:
    """An account whose keys are changed at random, with its history.

    Attributes:
        lists: its revisions, with the list of each.
        touched: the ids of the keys that each change concerned, after the revision of the same index.
    """

    def __init__(self, hub: RunningHub, client: httpx.AsyncClient, name: str) -> None:
        self.lists: list[tuple[Revision, list[Row]]] = []
        self.touched: list[set[str]] = []
        self._hub = hub
        self._client = client
        self._name = name

    async def look(self) -> None:
        """Remember the present list."""
        self.lists.append((await revision_of(self._hub, self._name), await list_rows(self._client)))

    async def do(self, action: str, which: int) -> None:
        """Do something with a key, and remember the list afterwards."""
        rows = self.lists[-1][1]
        self._hub.clock.advance(1)
        if action == "create" or not rows:
            await create(self._client, domain_allowlist=["acme.com"])
        else:
            row = rows[which % len(rows)]
            if action == "delete":
                await self._client.delete(f"{PATH}/{row['id']}")
            elif action == "use":
                await use(self._client, row, self._hub.clock.now)
            else:
                changes: dict[str, Row] = {"rename": {"name": f"{which}"}, "both": {"disabled": True, "name": f"{which}"}}
                await patch(self._client, row, **changes.get(action, {"disabled": action == "disable"}))
        await self.look()
        before, after = ({row["id"]: row for row in without_use(rows)} for _, rows in self.lists[-2:])
        self.touched.append({key_id for key_id in before | after if before.get(key_id) != after.get(key_id)})


ACTIONS = ("create", "rename", "disable", "enable", "both", "delete", "use")


async def assert_deltas_lead_to_the_list(hub: RunningHub, account: Account, name: str) -> None:
    """Compare the delta from each list of the past with the present list."""
    present, rows = account.lists[-1]
    for index, (base, before) in enumerate(account.lists):
        state = await DeltaReader(hub.database).read(name, [base])
        assert state.revision == present
        changed = set().union(*account.touched[index:])
        if base == present:
            assert state.delta is None
            assert not changed
            continue
        assert state.delta is not None
        assert (state.delta.base, state.delta.revision) == (base, present)
        elements: list[Row] = msgspec.json.decode(state.delta.body)
        assert without_use(applied(before, elements)) == without_use(rows)
        ids = [element["id"] for element in elements]
        assert len(set(ids)) == len(ids)
        assert set(ids) == changed
        whole = [element for element in elements if "removed" not in element]
        assert whole == [row for row in rows if row["id"] in changed]
        assert gzip.decompress(state.delta.gzipped) == state.delta.body


steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)), min_size=1, max_size=12)
names = (f"account-{number}" for number in count())


async def check(hub: RunningHub, actions: list[tuple[str, int]]) -> None:
    """Change the keys of a new account, among those of another one, and compare."""
    name = next(names)
    account = Account(hub, await hub.client(name), name)
    await account.look()
    for action, which in actions:
        await account.do(action, which)
    await assert_deltas_lead_to_the_list(hub, account, name)


async def test_deltas_lead_from_every_list_to_the_present_one(hub: RunningHub) -> None:
    few = [("create", 0), ("create", 0), ("use", 0), ("both", 0), ("create", 0), ("delete", 1), ("rename", 1), ("enable", 0)]
    await check(hub, [*few, ("delete", 0), ("create", 0), ("delete", 2), ("use", 0)])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=steps)
async def test_deltas_of_any_changes_lead_to_the_present_list(hub: RunningHub, actions: list[tuple[str, int]]) -> None:
    await check(hub, actions)


async def test_removed_keys_come_first_and_rows_in_the_order_of_the_list(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """New rows are then in order at the end of a list, and the last 8 characters of a removed key are free for them."""
    first, gone = await create(acme), await create(acme)
    base = await revision_of(hub)
    hub.dice.next = ["A" * 32, "A" * 32]
    brief = await create(acme)
    second = await create(acme)
    await acme.delete(f"{PATH}/{brief['id']}")
    third = await create(acme)
    await patch(acme, third, name="renamed")
    await patch(acme, first, name="renamed")
    await acme.delete(f"{PATH}/{gone['id']}")
    elements = await elements_since(hub, base)
    assert elements[:2] == [{"id": row["id"], "last8": row["last8"], "removed": True} for row in (brief, gone)]
    assert [row["id"] for row in elements[2:]] == [first["id"], second["id"], third["id"]]


async def test_a_changed_row_has_its_present_use(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    base = await revision_of(hub)
    await patch(acme, row, name="renamed")
    await use(acme, row, hub.clock.now, count=7)
    assert await elements_since(hub, base) == await list_rows(acme)


async def test_of_several_bases_the_newest_known_one_counts(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    bases, rows = [], []
    for _ in range(3):
        bases.append(await revision_of(hub))
        rows.append(await create(acme))
    others = [Revision(bases[2].number, MARK), Revision(10**17, MARK)]
    assert [row["id"] for row in await elements_since(hub, bases[0], *others, bases[1])] == [row["id"] for row in rows[1:]]
    present = await revision_of(hub)
    state = await DeltaReader(hub.database).read("acme", [*bases, present])
    assert (state.revision, state.delta) == (present, None)


async def test_of_very_many_bases_only_the_newest_are_looked_for(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    base = await revision_of(hub)
    await create(acme)
    unknown = [Revision(base.number, f"{number:016x}") for number in range(1_000)]
    statements: list[None] = []
    with before_each_read(lambda: statements.append(None)):
        assert await delta_since(hub, *unknown) is None
    assert len(statements) < 20


async def test_an_unknown_base_has_no_delta(hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient) -> None:
    await create(acme)
    former = await revision_of(hub)
    await create(acme)
    present = await revision_of(hub)
    await create(globex)
    theirs = await revision_of(hub, "globex")
    assert theirs.number == former.number
    for base in (
        former._replace(mark=MARK),
        present._replace(mark=MARK),
        present._replace(mark=former.mark),
        present._replace(number=present.number + 1),
        Revision(10**18 - 1, MARK),
        theirs,
    ):
        assert await delta_since(hub, base) is None
    assert await delta_since(hub) is None


async def test_an_account_sees_no_changes_of_another(
    hub: RunningHub, acme: httpx.AsyncClient, globex: httpx.AsyncClient
) -> None:
    bases = {name: await revision_of(hub, name) for name in ("acme", "globex")}
    rows: dict[str, list[Row]] = {"acme": [], "globex": []}
    for _ in range(3):
        rows["acme"].append(await create(acme))
        rows["globex"].append(await create(globex))
    for name, base in bases.items():
        assert await elements_since(hub, base, account=name) == rows[name]


@pytest.mark.usefixtures("acme", "globex")
async def test_many_reads_of_one_account_do_not_delay_another(hub: RunningHub) -> None:
    finished: list[str] = []

    async def read(account: str) -> None:
        await DeltaReader(hub.database).read(account)
        finished.append(account)

    async with AsyncExitStack() as held:
        for _ in range(CONNECTIONS):
            await held.enter_async_context(hub.database.transaction("reader"))
        reads = [asyncio.create_task(read(account)) for account in ["acme"] * 50 + ["globex"]]
        await asyncio.sleep(0)
    await asyncio.gather(*reads)
    assert finished.index("globex") < 2 * CONNECTIONS


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_base_before_a_missing_event_has_no_delta(
    hub: RunningHub, acme: httpx.AsyncClient, loss: Delete | Update
) -> None:
    bases, rows = [], []
    for _ in range(3):
        bases.append(await revision_of(hub))
        rows.append(await create(acme))
    await execute(hub, loss.where(events.c.key_id == rows[1]["id"]))
    assert [await delta_since(hub, base) for base in bases[:2]] == [None, None]
    assert await elements_since(hub, bases[2]) == rows[2:]


async def test_a_restored_database_has_no_delta_from_before(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """A restore gives every account another revision, without an event."""
    bases = []
    for _ in range(2):
        bases.append(await revision_of(hub))
        await create(acme)
    await execute(hub, update(accounts).values(revision=accounts.c.revision + 1, revision_mark=MARK))
    bases.append((await revision_of(hub))._replace(mark="1" * 16))
    await create(acme)
    assert [await delta_since(hub, base) for base in bases] == [None, None, None]


async def test_a_deletion_without_last_8_characters_has_no_delta(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """The events of older hubs do not have them."""
    kept, gone = await create(acme), await create(acme)
    base = await revision_of(hub)
    await patch(acme, kept, name="renamed")
    await acme.delete(f"{PATH}/{gone['id']}")

    def forget_last8(connection: Connection) -> None:
        mine = (events.c.key_id == gone["id"]) & (events.c.action == "deleted")
        connection.execute(update(events).where(mine).values(changes={"name": {"before": "shop", "after": None}}))

    await hub.database.write(forget_last8)
    assert await delta_since(hub, base) is None


async def test_a_base_too_many_changes_ago_costs_no_read_of_the_log(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    row = await create(acme)
    bases = []
    for number in range(4):
        bases.append(await revision_of(hub))
        await patch(acme, row, name=f"{number}")
    deltas = [await delta_since(hub, base, max_revisions=2) for base in bases]
    assert [delta is None for delta in deltas] == [True, True, False, False]
    statements: list[None] = []
    with before_each_read(lambda: statements.append(None)):
        await delta_since(hub, bases[0], max_revisions=2)
    assert len(statements) == 1


async def test_rows_that_are_too_large_have_no_delta(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    first = await revision_of(hub)
    for _ in range(3):
        second = await revision_of(hub)
        await create(acme)
    size = len(msgspec.json.encode((await list_rows(acme))[-1]))
    assert await delta_since(hub, second, max_size=size) is not None
    assert await delta_since(hub, second, max_size=size - 1) is None
    assert await delta_since(hub, first, max_size=2 * size) is None


async def log_changes_of_all_keys(hub: RunningHub, account: str) -> None:
    """Log a change of each key of an account."""
    base = await revision_of(hub, account)
    mine = select(widget_keys.c.id, widget_keys.c.sequence).where(widget_keys.c.account == account)

    def log_all(connection: Connection) -> None:
        keys = connection.execute(mine.order_by(widget_keys.c.sequence.desc())).all()
        logged = [
            {
                "key_id": key_id,
                "id": base.number,
                "account": account,
                "action": "updated",
                "token_name": "tests",
                "at": START,
                "changes": {},
                "revision": base.number + number,
                "base_mark": base.mark if number == 1 else MARK,
            }
            for number, (key_id, _) in enumerate(keys, 1)
        ]
        connection.execute(insert(events), logged)
        now = {"revision": base.number + len(keys), "revision_mark": MARK}
        connection.execute(update(accounts).where(accounts.c.name == account).values(now))

    await hub.database.write(log_all)


@pytest.mark.slow
async def test_a_delta_of_thousands_of_rows_is_in_order(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await fill(hub, "acme", 2_345)
    base = await revision_of(hub)
    await log_changes_of_all_keys(hub, "acme")
    delta = await delta_since(hub, base)
    assert delta is not None
    assert msgspec.json.decode(delta.body) == await list_rows(acme)
    assert gzip.decompress(delta.gzipped) == delta.body
    assert len(delta.gzipped) < len(delta.body) / 3


@pytest.mark.slow
async def test_keys_that_change_again_and_again_are_in_a_long_delta_once(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    await fill(hub, "acme", 600)
    gone = await create(acme)
    base = await revision_of(hub)
    for _ in range(3):
        await log_changes_of_all_keys(hub, "acme")
    await acme.delete(f"{PATH}/{gone['id']}")
    removed, *rows = await elements_since(hub, base)
    assert removed == {"id": gone["id"], "last8": gone["last8"], "removed": True}
    assert rows == await list_rows(acme)


@contextmanager
def before_each_read(act: Callable[[], object]) -> Iterator[None]:
    """Do something before each SELECT, but for its own."""
    is_acting = False

    def look(*arguments: Any) -> None:
        nonlocal is_acting
        statement = arguments[2]
        if statement.startswith("SELECT") and "set_config" not in statement and not is_acting:
            is_acting = True
            act()
            is_acting = False

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", look)


@pytest.mark.slow
async def test_a_delta_is_of_one_state_despite_concurrent_writes(new_database: NewDatabase) -> None:
    """Another hub changes keys before each statement of the read."""
    database = new_database()
    lists: dict[Revision, list[Row]] = {}

    async def write(number: int) -> None:
        async with running_hub(database) as other:
            client = await other.client("acme")
            await create(client)
            first, *_, last = await list_rows(client)
            await patch(client, first, name=f"{number}")
            assert (await client.delete(f"{PATH}/{last['id']}")).status_code == httpx.codes.NO_CONTENT
            await create(client)
            lists[await revision_of(other)] = await list_rows(client)

    def write_elsewhere() -> None:
        thread = threading.Thread(target=lambda: asyncio.run(write(len(lists))))
        thread.start()
        thread.join()

    async with running_hub(database) as hub:
        client = await hub.client("acme")
        await create(client)
        await create(client)
        base, before = await revision_of(hub), await list_rows(client)
        await create(client)
        lists[await revision_of(hub)] = await list_rows(client)
        with before_each_read(write_elsewhere):
            delta = await delta_since(hub, base)
    assert len(lists) == 3
    assert delta is not None
    assert delta.revision in sorted(lists)[:2]  # SQLite's state is that of the first read, PostgreSQL's is older
    assert applied(before, msgspec.json.decode(delta.body)) == lists[delta.revision]


async def test_a_read_of_a_delta_walks_through_no_table(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    """Whatever the number of keys, it costs only what has changed."""
    base = await revision_of(hub)
    await create(acme)
    plans: list[tuple[str, Any]] = []

    def look(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("SELECT") and "set_config" not in statement:
            plans.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", look)
    assert await delta_since(hub, base) is not None
    event.remove(Engine, "before_cursor_execute", look)
    assert len(plans) == 2

    def explain_all(connection: Connection) -> None:
        is_sqlite = connection.dialect.name == "sqlite"
        if not is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # It prefers to read such small tables whole.
        for statement, parameters in plans:
            explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
            plan = str(connection.exec_driver_sql(explain + statement, parameters).all()).upper()
            assert "INDEX" in plan
            assert "SCAN EVENTS" not in plan
            assert "SCAN WIDGET_KEYS" not in plan
            assert "SEQ SCAN" not in plan
            assert "ACCOUNT_SEQUENCE" not in plan

    await hub.database.read(explain_all)
