"""DeltaReader: what has changed in a list."""

import gzip
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, select

from gatekeeper.hub.accounts import ALL_ACCOUNTS, Revision, read_revisions
from gatekeeper.hub.all_accounts import AllAccounts, read_changed_anywhere
from gatekeeper.hub.database import Database
from gatekeeper.hub.events import UnknownBase, read_changed
from gatekeeper.hub.rows import AccountKeyRow, KeyRow, RemovedRow, row_columns
from gatekeeper.hub.tables import widget_keys
from gatekeeper.hub.tokens import read_revision_and_valid

__all__ = ("Delta", "DeltaReader", "ListState", "Look")

# Revisions between the base and the present. The log has at most two events of each. Of the list of all accounts, so many
# steps are kept, and an answer spans so many changes of the accounts.
MAX_REVISIONS: Final = 10_000

# Bytes of rows. A delta is in memory as a whole until its client has read it; 10,000 usual rows have 4 MB, others 200.
MAX_SIZE: Final = 8_000_000

# Bases that are looked for. A client needs one; each costs a statement.
MAX_BASES: Final = 10

# Rows per query. SQLite takes 32,766 variables (https://www.sqlite.org/limits.html).
_PAGE: Final = 1000

_BY_ID: Final = select(widget_keys.c.sequence, *row_columns(AccountKeyRow)).where(
    widget_keys.c.id.in_(bindparam("ids", expanding=True))
)

_GZIP_LEVEL: Final = 1


class Delta(NamedTuple):
    """What has changed since a revision, ready to be sent.

    Attributes:
        base: the revision of the list to which it applies.
        revision: the revision of the list that results.
        body: a JSON array of RemovedRow, and after them KeyRow in the order of the list. Of all accounts, both have theirs.
        gzipped: the same, compressed.
    """

    base: Revision
    revision: Revision
    body: bytes
    gzipped: bytes


class ListState(NamedTuple):
    """What a client learns of a list besides its rows.

    Attributes:
        revision: the present revision of the list.
        delta: the way to it from the newest base that is known. None if there is no such way, or nothing has changed.
    """

    revision: Revision
    delta: Delta | None


class Look(NamedTuple):
    """A list and tokens, in one state of the database.

    Attributes:
        state: the state of the list.
        valid: those of the ids of tokens that are valid.
    """

    state: ListState
    valid: set[str]


class DeltaReader:
    """The reader of what has changed.

    Args:
        database: the database of the keys.
        max_revisions: the most changes that a delta spans. A list from before them is replaced as a whole.
        max_size: the most bytes of rows in a delta. A list that lacks more is replaced as well.
    """

    def __init__(self, database: Database, *, max_revisions: int = MAX_REVISIONS, max_size: int = MAX_SIZE) -> None:
        self._database = database
        self._max_revisions = max_revisions
        self._max_size = max_size
        self._all_accounts = AllAccounts(database, max_revisions=max_revisions)

    async def close(self) -> None:
        """Wait for a read that runs."""
        await self._all_accounts.close()

    async def revisions(self, accounts: Collection[str]) -> dict[str, Revision]:
        """Read the present revisions of several lists.

        Args:
            accounts: the accounts; ALL_ACCOUNTS for the list of all.

        Returns:
            The revisions by account, without the accounts that do not exist. It is empty if the server is a standby, which
            sees changes late.

        Raises:
            DatabaseDown: the database does not answer, or cannot be written where the list of all accounts has changed.
        """
        if ALL_ACCOUNTS in accounts:
            await self._all_accounts.step()
        return await self._database.read(lambda connection: read_revisions(connection, accounts))

    async def read(
        self, account: str, bases: Collection[Revision] = (), changed: Collection[str] = (ALL_ACCOUNTS,)
    ) -> ListState:
        """Read the revision of a list, and what has changed since.

        Args:
            account: the account; ALL_ACCOUNTS for the list of all.
            bases: the revisions of lists that a client has; it takes a delta from any of them.
            changed: for the list of all accounts, those that may have changed since it was read; ALL_ACCOUNTS for any.

        Returns:
            The state of the list. Its revision and its delta are from one state of the database.

        Raises:
            DatabaseDown: the database does not answer, or cannot be written where the list of all accounts has changed.
        """
        return (await self.look(account, bases, changed, ())).state

    async def look(
        self, account: str, bases: Collection[Revision], changed: Collection[str], token_ids: Collection[str]
    ) -> Look:
        """Read a list as `read` does, and which tokens are valid.

        Args:
            account: as for `read`.
            bases: as for `read`.
            changed: as for `read`.
            token_ids: ids of tokens.

        Returns:
            Both.

        Raises:
            DatabaseDown: as for `read`.
        """
        if account == ALL_ACCOUNTS:
            await self._all_accounts.step(changed)

        def read(connection: Connection) -> Look:
            present, valid = read_revision_and_valid(connection, account, token_ids)
            return Look(self._read_state(connection, account, bases, present), valid)

        return await self._database.read(read, account)

    def _read_state(self, connection: Connection, account: str, bases: Collection[Revision], present: Revision) -> ListState:
        near = (base for base in bases if 0 < present.number - base.number <= self._max_revisions)
        candidates = () if present in bases else sorted(near, reverse=True)[:MAX_BASES]
        base, elements = self._read_elements(connection, account, candidates, present)
        if base is None:
            return ListState(present, None)
        body = b"[" + b",".join(elements) + b"]"
        return ListState(present, Delta(base, present, body, gzip.compress(body, _GZIP_LEVEL, mtime=0)))

    def _read_elements(
        self, connection: Connection, account: str, bases: Iterable[Revision], present: Revision
    ) -> tuple[Revision | None, list[bytes]]:
        """Read the rows that have changed since the first of these revisions that is known, and name it."""
        with suppress(_TooLarge):
            for base in bases:
                with suppress(UnknownBase):
                    if account == ALL_ACCOUNTS:
                        return base, self._read_changed_anywhere(connection, base, present)
                    return base, self._read_changed(connection, account, base, present)
        return None, []

    def _read_changed(self, connection: Connection, account: str, base: Revision, present: Revision) -> list[bytes]:
        removed = dict[str, str | None]()
        rows = _Rows(self._max_size)
        for page in read_changed(connection, account, base, present, self._defer):
            for key in page:
                if key.row is None:
                    removed[key.id] = key.last8
                else:
                    rows.add(*key.row)
        return [*(msgspec.json.encode(_removed(*each)) for each in removed.items()), *rows.in_order()]

    def _read_changed_anywhere(self, connection: Connection, base: Revision, present: Revision) -> list[bytes]:
        changed = read_changed_anywhere(connection, base, present, at_most=self._max_revisions, defer=self._defer)
        removed = [msgspec.json.encode(row) for row in changed.values() if row is not None]
        left = [key_id for key_id, row in changed.items() if row is None]
        rows = _Rows(self._max_size)
        for start in range(0, len(left), _PAGE):
            begun = time.monotonic()
            for sequence, *fields in connection.execute(_BY_ID, {"ids": left[start : start + _PAGE]}):
                rows.add(sequence, AccountKeyRow(*fields))
            if start + _PAGE < len(left):
                self._defer(time.monotonic() - begun)
        # Otherwise, a deleted key is among them whose last 8 characters are unknown.
        if len(rows) != len(left):
            raise UnknownBase
        return [*removed, *rows.in_order()]

    def _defer(self, taken: float) -> None:
        """Let others go first for half the time that a piece of a delta has taken."""
        self._database.defer(taken / 2, held=1)


class _TooLarge(Exception):
    """The rows that have changed are too large for a delta."""


class _Rows:
    """The rows of a delta, as JSON.

    Args:
        max_size: the most bytes of all of them.
    """

    def __init__(self, max_size: int) -> None:
        self._found: list[tuple[int, bytes]] = []
        self._left = max_size

    def __len__(self) -> int:
        return len(self._found)

    def add(self, sequence: int, row: KeyRow) -> None:
        """Add a row with its place in the list; or raise _TooLarge."""
        self._found.append((sequence, msgspec.json.encode(row)))
        self._left -= len(self._found[-1][1])
        if self._left < 0:
            raise _TooLarge

    def in_order(self) -> list[bytes]:
        """The rows in the order of the list."""
        return [row for _, row in sorted(self._found)]


def _removed(key_id: str, last8: str | None) -> RemovedRow:
    if last8 is None:  # its deletion was by an older hub
        raise UnknownBase
    return RemovedRow(key_id, last8, removed=True)
