"""ReportQueue: merging, order, bounds and failures of reports."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from operator import add
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.database import Database, parse_location
from gatekeeper.hub.minting import Mint, random_text
from gatekeeper.hub.report_queue import ReportQueue

from .support import PEPPER, collected_statements, eventually

pytestmark = pytest.mark.anyio

Counts = Mapping[tuple[str, str], int]


class Ledger:
    """Writes reports, in memory, and fails where a test wants it to."""

    def __init__(self) -> None:
        self.transactions: list[Counts] = []
        self.refused: set[str] = set()
        self.may_write = Event()
        self.may_write.set()

    def write(self, _connection: Connection, counts: Counts) -> None:
        """Note counts."""
        self.may_write.wait(timeout=20)
        if self.refused & {name for _, name in counts}:
            raise ValueError
        self.transactions.append(counts)

    @property
    def totals(self) -> Counter[tuple[str, str]]:
        """All counts."""
        totals = Counter[tuple[str, str]]()
        for counts in self.transactions:
            totals.update(counts)
        return totals


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An open database."""
    async with opened(tmp_path / "hub.db") as database:
        yield database


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    """Open a database."""
    database = Database(parse_location(path))
    await database.open(Mint(PEPPER, random_text).check_value())
    yield database
    await database.close()


@pytest.fixture
def ledger() -> Ledger:
    """A new ledger."""
    return Ledger()


def queue_of(
    database: Database, ledger: Ledger, *, batch: int = 10, most: int = 1000, patience: float = 60.0
) -> ReportQueue[str, int]:
    """A queue of counts."""
    return ReportQueue(database, ledger.write, add, batch=batch, most=most, patience=patience)


async def test_reports_that_wait_are_merged_into_one_transaction(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger)
    async with database.transaction("writer"):
        reports = [asyncio.create_task(queue.put("acme", {"a": 1, f"b{number % 3}": 10})) for number in range(30)]
        reports.append(asyncio.create_task(queue.put("globex", {"a": 5})))
        await asyncio.sleep(0)
    with collected_statements() as statements:
        await asyncio.gather(*reports)
    expected = {("acme", "a"): 30, ("acme", "b0"): 100, ("acme", "b1"): 100, ("acme", "b2"): 100, ("globex", "a"): 5}
    assert ledger.transactions == [expected]
    assert statements.count("COMMIT") == 1


async def test_a_report_alone_is_written_at_once(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger)
    await queue.put("acme", {"a": 1})
    await queue.put("acme", {"a": 2})
    assert ledger.transactions == [{("acme", "a"): 1}, {("acme", "a"): 2}]


async def test_an_empty_report_takes_no_transaction(database: Database, ledger: Ledger) -> None:
    with collected_statements() as statements:
        await queue_of(database, ledger).put("acme", {})
    assert (ledger.transactions, statements) == ([], [])


async def test_a_report_is_answered_after_its_commit(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger)
    with collected_statements() as statements:
        await queue.put("acme", {"a": 1})
        assert statements[-1] == "COMMIT"


async def test_a_change_goes_before_reports_that_came_earlier(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger)
    order: list[str] = []

    async def report() -> None:
        await queue.put("acme", {"a": 1})
        order.append("report")

    async def change(account: str) -> None:
        async with database.transaction("writer", account):
            order.append(account)

    async with database.transaction("writer"):
        tasks = [asyncio.create_task(task) for task in (report(), report(), change("acme"), change("globex"))]
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert order == ["acme", "globex", "report", "report"]


async def test_a_large_report_takes_several_transactions(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, batch=10)
    await queue.put("acme", {str(number): number for number in range(25)})
    assert [len(counts) for counts in ledger.transactions] == [10, 10, 5]
    assert ledger.totals == Counter({("acme", str(number)): number for number in range(25)})


async def test_a_large_report_does_not_keep_other_accounts_waiting(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, batch=10)
    async with database.transaction("writer"):
        large = asyncio.create_task(queue.put("acme", {str(number): 1 for number in range(100)}))
        small = asyncio.create_task(queue.put("globex", {"a": 1}))
        await asyncio.sleep(0)
    await small
    assert {("globex", "a"): 1} in ledger.transactions[:2]
    await large
    assert len(ledger.transactions) == 11


async def test_a_small_report_is_never_split(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, batch=10)
    async with database.transaction("writer"):
        reports = [
            asyncio.create_task(queue.put("acme", {f"{report}-{number}": 1 for number in range(6)})) for report in range(4)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*reports)
    assert [len(counts) for counts in ledger.transactions] == [6] * 4


async def test_one_bad_report_fails_no_other(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger)
    ledger.refused = {"bad"}
    async with database.transaction("writer"):
        names = ["a", "b", "bad", "c"]
        reports = [asyncio.create_task(queue.put("acme", {name: 1})) for name in names]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*reports, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), ValueError, type(None)]
    assert ledger.totals == Counter({("acme", name): 1 for name in "abc"})


async def test_too_many_items_are_an_overload_for_one_account_alone(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, most=100)
    async with database.transaction("writer"):
        waiting = asyncio.create_task(queue.put("acme", {str(number): 1 for number in range(50)}))
        await asyncio.sleep(0)
        with pytest.raises(HubOverloaded, match="the reports of the account acme that wait have too many items"):
            await queue.put("acme", {"a": 1})
        other = asyncio.create_task(queue.put("globex", {"a": 1}))
        await asyncio.sleep(0)
    await asyncio.gather(waiting, other)
    await queue.put("acme", {str(number): 1 for number in range(50)})
    assert ledger.totals.total() == 101


async def test_a_report_that_waits_too_long_is_an_overload_and_is_not_written(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, patience=0.02, most=2)
    async with database.transaction("writer"):
        with pytest.raises(HubOverloaded, match=r"a report of the account acme has waited 0\.02 s"):
            await queue.put("acme", {"a": 1})
    await queue.close()
    await queue.put("acme", {"b": 1})
    assert ledger.totals == Counter({("acme", "b"): 1})


async def test_a_report_that_is_being_written_is_awaited(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, patience=0.01)
    ledger.may_write.clear()
    report = asyncio.create_task(queue.put("acme", {"a": 1}))
    await asyncio.wait([report], timeout=0.05)
    assert not report.done()
    ledger.may_write.set()
    await report
    assert ledger.totals == Counter({("acme", "a"): 1})


async def test_a_cancelled_request_takes_its_report_back(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, most=2)
    async with database.transaction("writer"):
        report = asyncio.create_task(queue.put("acme", {"a": 1}))
        await asyncio.sleep(0)
        report.cancel()
        await asyncio.wait([report])
    await queue.close()
    await queue.put("acme", {"b": 1})
    assert ledger.totals == Counter({("acme", "b"): 1})


async def test_a_late_cancellation_leaves_a_report_that_is_being_written(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger, patience=0.2)
    await queue.put("acme", {"a": 1})  # opens the connection
    ledger.may_write.clear()
    reports = [asyncio.create_task(queue.put("acme", {name: 1})) for name in ("a", "b")]
    await asyncio.wait(reports, timeout=0.25)
    reports[0].cancel()
    await asyncio.wait(reports[:1])
    ledger.may_write.set()
    async with asyncio.timeout(20):
        await reports[1]
    assert reports[0].cancelled()
    assert ledger.totals == Counter({("acme", "a"): 2, ("acme", "b"): 1})


async def test_close_waits_for_reports_and_the_queue_goes_on(database: Database, ledger: Ledger) -> None:
    queue = queue_of(database, ledger)
    await queue.close()
    ledger.may_write.clear()
    report = asyncio.create_task(queue.put("acme", {"a": 1}))
    await eventually(lambda: queue._writing is not None)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    assert not closing.done()
    ledger.may_write.set()
    await closing
    await report
    await queue.put("acme", {"a": 1})
    assert ledger.totals == Counter({("acme", "a"): 2})


def test_a_queue_works_in_one_event_loop_after_another(tmp_path: Path) -> None:
    ledger = Ledger()
    database = Database(parse_location(tmp_path / "hub.db"))
    queue = queue_of(database, ledger)

    async def report() -> None:
        await database.open(Mint(PEPPER, random_text).check_value())
        await queue.put("acme", {"a": 1})
        await queue.close()
        await database.close()

    for _ in range(2):
        asyncio.run(report())
    assert ledger.totals == Counter({("acme", "a"): 2})


Sent = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 9), max_size=7)
Reports = st.lists(st.tuples(st.sampled_from(["acme", "globex"]), Sent), max_size=8)


@settings(max_examples=20, deadline=None)
@given(Reports, st.integers(1, 4))
def test_nothing_is_lost_or_counted_twice(
    tmp_path_factory: pytest.TempPathFactory, reports: list[tuple[str, dict[str, int]]], batch: int
) -> None:
    async def run() -> None:
        ledger = Ledger()
        async with opened(tmp_path_factory.getbasetemp() / "queue.db") as database:
            queue = queue_of(database, ledger, batch=batch)
            await asyncio.gather(*(queue.put(account, counts) for account, counts in reports))
        expected = Counter[tuple[str, str]]()
        for account, counts in reports:
            expected.update({(account, name): count for name, count in counts.items()})
        assert ledger.totals == expected
        assert all(len(counts) <= batch for counts in ledger.transactions)

    asyncio.run(run())
