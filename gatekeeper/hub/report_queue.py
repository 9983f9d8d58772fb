"""ReportQueue: reports of gates, merged and written after everything else."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection

from gatekeeper.errors import DatabaseDown, HubOverloaded
from gatekeeper.hub.accounts import described
from gatekeeper.hub.database import Database
from gatekeeper.hub.shares import Shares

__all__ = ("ReportQueue",)

# Items in a transaction. Writers of the same rows, and on SQLite all others, wait for its end.
BATCH: Final = 200

# Transactions' worth of items that are merged into one. Merging them keeps the event loop busy.
MERGED: Final = 20

# Items of all reports that wait. A gate sends up to 5,000 in a report.
MOST: Final = 100_000

PATIENCE: Final = 8.0  # Seconds; a gate waits 10 s for an answer.

Name = TypeVar("Name", bound=Hashable)
Item = TypeVar("Item")


@dataclass(eq=False)
class _Report(Generic[Name, Item]):
    """A report that waits.

    Attributes:
        account: the account.
        rest: the items that are not written yet.
        size: the number of all its items.
        answered: its outcome: None if it was written, otherwise an error.
        is_alone: whether to write it in a transaction of its own.
    """

    account: str
    rest: dict[Name, Item]
    size: int
    answered: asyncio.Future[Exception | None]
    is_alone: bool = False


class ReportQueue(Generic[Name, Item]):
    """Reports that wait for one task, which writes them.

    Reports that wait at the same time are merged, so that a flood of them costs few transactions. Accounts take turns. A
    report is written as a whole; only one with more items than a transaction takes several.

    Args:
        database: the database.
        write: writes merged items in a transaction, by account and name.
        merge: merges two items of the same name, the earlier one first.
        batch: the most items in one transaction.
        most: the most items that wait. An account can have as many as it leaves to the others.
        patience: the longest wait for the begin of writing, in seconds.
    """

    def __init__(
        self,
        database: Database,
        write: Callable[[Connection, Mapping[tuple[str, Name], Item]], None],
        merge: Callable[[Item, Item], Item],
        *,
        batch: int = BATCH,
        most: int = MOST,
        patience: float = PATIENCE,
    ) -> None:
        self._database = database
        self._write = write
        self._merge = merge
        self._batch = batch
        self._patience = patience
        self._shares = Shares(most)
        self._waiting: dict[str, deque[_Report[Name, Item]]] = {}  # in the order of their next turns
        self._writing: asyncio.Task[None] | None = None

    async def put(self, account: str, items: Mapping[Name, Item]) -> None:
        """Write a report.

        Args:
            account: the account.
            items: what it says, by name.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: too many reports wait, or this one has waited too long.
        """
        if not items:
            return
        if not self._shares.take(account, len(items)):
            raise HubOverloaded(f"the reports of {described(account)} that wait have too many items")
        answered: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        report = _Report(account, dict(items), len(items), answered)
        self._waiting.setdefault(account, deque()).append(report)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        try:
            await asyncio.wait([answered], timeout=self._patience)
            if not answered.done() and self._withdraw(report):
                raise HubOverloaded(f"a report of {described(account)} has waited {self._patience:g} s")
            await asyncio.wait([answered])  # which a cancellation of this request leaves as it is
        except asyncio.CancelledError:
            self._withdraw(report)
            raise
        error = answered.result()
        if error is not None:
            raise error

    async def close(self) -> None:
        """Wait until the reports that wait are written."""
        writing, self._writing = self._writing, None
        # The next lifespan may run in another event loop, which cannot wait for a task of this one.
        if writing is not None and not writing.done():
            await asyncio.wait([writing])

    async def _write_all(self) -> None:
        while self._waiting:
            await self._write_some()

    async def _write_some(self) -> None:
        taken: list[tuple[_Report[Name, Item], dict[Name, Item]]] = []
        try:
            async with self._database.transaction("reporter") as transaction:
                # Not before the turn has come: what has arrived meanwhile is merged.
                taken = self._take()
                if taken:
                    merged = self._merged(taken)
                    await transaction.run(lambda connection: self._write(connection, merged))
        except Exception as error:  # noqa: BLE001 - the requests raise it
            taken = taken or self._take()
            # One report must not fail the others: the encoding of the database may lack one of its characters.
            if len(taken) > 1 and not isinstance(error, DatabaseDown | HubOverloaded):
                for report, _ in taken:
                    report.is_alone = True
                    self._put_back(report)
            else:
                for report, _ in taken:
                    self._answer(report, error)
        else:
            for report, piece in taken:
                for name in piece:
                    del report.rest[name]
                if report.rest:
                    self._put_back(report)
                else:
                    self._answer(report, None)

    def _take(self) -> list[tuple[_Report[Name, Item], dict[Name, Item]]]:
        """Take what fits into a transaction out of the queue: whole reports, or a piece of a larger one."""
        names: set[tuple[str, Name]] = set()
        taken: list[tuple[_Report[Name, Item], dict[Name, Item]]] = []
        left = MERGED * self._batch
        while self._waiting:
            account, queue = next(iter(self._waiting.items()))
            piece = dict(islice(queue[0].rest.items(), self._batch))
            merged = names.union((account, name) for name in piece)
            left -= len(piece)
            if taken and (len(merged) > self._batch or left < 0 or queue[0].is_alone):
                break
            names = merged
            report = queue.popleft()
            taken.append((report, piece))
            del self._waiting[account]
            if queue:
                self._waiting[account] = queue
            if report.is_alone:
                break
        return taken

    def _merged(self, taken: Iterable[tuple[_Report[Name, Item], dict[Name, Item]]]) -> dict[tuple[str, Name], Item]:
        merged: dict[tuple[str, Name], Item] = {}
        for report, piece in taken:
            for name, item in piece.items():
                earlier = merged.get((report.account, name))
                merged[report.account, name] = item if earlier is None else self._merge(earlier, item)
        return merged

    def _put_back(self, report: _Report[Name, Item]) -> None:
        self._waiting.setdefault(report.account, deque()).appendleft(report)

    def _withdraw(self, report: _Report[Name, Item]) -> bool:
        """Take a report out of the queue, unless it is being written."""
        queue = self._waiting.get(report.account, deque())
        if report not in queue or len(report.rest) < report.size:
            return False
        queue.remove(report)
        if not queue:
            del self._waiting[report.account]
        self._shares.give_back(report.account, report.size)
        return True

    def _answer(self, report: _Report[Name, Item], outcome: Exception | None) -> None:
        self._shares.give_back(report.account, report.size)
        report.answered.set_result(outcome)
