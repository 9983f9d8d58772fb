"""Restores of SQLite files from backups, while no hub uses them."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from gatekeeper.errors import ConfigError
from gatekeeper.hub.backup import copy_hub
from gatekeeper.hub.database import Database
from gatekeeper.hub.files import create_private, whole_file
from gatekeeper.hub.sqlite import PRIMARY_CODE, SqliteFile

__all__ = ("Differences", "Restore", "RevivedKey", "RevivedToken", "restoring")

_REVIVED_KEYS: Final = """
SELECT id, account, name, last8 FROM restored.widget_keys AS listed WHERE disabled_at IS NULL AND NOT EXISTS
(SELECT 1 FROM main.widget_keys AS held WHERE held.id = listed.id AND held.disabled_at IS NULL) ORDER BY sequence
"""
_REVIVED_TOKENS: Final = """
SELECT id, account, name FROM restored.tokens WHERE id NOT IN (SELECT id FROM main.tokens) ORDER BY created_at
"""
_LOST_KEYS: Final = "SELECT count(*) FROM main.widget_keys WHERE id NOT IN (SELECT id FROM restored.widget_keys)"
_LOST_TOKENS: Final = "SELECT count(*) FROM main.tokens WHERE id NOT IN (SELECT id FROM restored.tokens)"

# Gates take no row that is older than the one they hold, and clients of the list hold its former ETag.
_TOUCH: Final = (
    """
UPDATE restored.widget_keys AS listed SET updated_at = max(:now, after(updated_at), coalesce(
(SELECT after(held.updated_at) FROM main.widget_keys AS held WHERE held.id = listed.id), ''))
""",
    """
UPDATE restored.accounts AS listed SET revision_mark = lower(hex(randomblob(8))), revision = 1 + max(revision, coalesce(
(SELECT held.revision FROM main.accounts AS held WHERE held.name = listed.name), 0))
""",
)


class RevivedKey(NamedTuple):
    """A key that the backup enables, and the database does not.

    Attributes:
        id: its id.
        account: its account.
        name: its name.
        last8: its last 8 characters.
    """

    id: str
    account: str
    name: str
    last8: str


class RevivedToken(NamedTuple):
    """A token of the backup that the replaced database lacks.

    Attributes:
        id: its id.
        account: its account; "*" for all accounts.
        name: its name.
    """

    id: str
    account: str
    name: str


class Differences(NamedTuple):
    """What has changed since the backup, and is undone by the restore.

    Attributes:
        keys: the keys that were disabled or deleted.
        tokens: the tokens that were revoked.
        lost_keys: the number of keys that were created.
        lost_tokens: the number of tokens that were minted.
    """

    keys: tuple[RevivedKey, ...]
    tokens: tuple[RevivedToken, ...]
    lost_keys: int
    lost_tokens: int


class Restore:
    """A restore that is ready to be carried out.

    Args:
        database: the file to restore.
        held: a connection that has locked the file, or None if there is no file.
        staged: the verified and migrated copy of the backup.
        differences: the attribute.

    Attributes:
        differences: what the restore undoes; None if there is no database to replace, or it is too damaged to compare.
    """

    def __init__(
        self, database: Path, held: sqlite3.Connection | None, staged: Path, differences: Differences | None
    ) -> None:
        self.differences = differences
        self._database = database
        self._held = held
        self._staged = staged

    def carry_out(self, aside: Path) -> bool:
        """Replace the database. If the process is killed, SQLite rolls it back to its former state.

        Args:
            aside: the file, which must not exist, for a copy of the replaced database.

        Returns:
            Whether there was a database to replace.

        Raises:
            ConfigError: a hub has opened the database, which did not exist before.
            FileExistsError: a hub has created the database, which did not exist before.
            OSError: a file cannot be written.
            sqlite3.DatabaseError: the disk is full.
        """
        with closing(_connect(self._staged)) as restored:
            if self._held is not None:
                with whole_file(aside) as unfinished, closing(_connect(unfinished)) as copy:
                    self._held.backup(copy)
                restored.backup(self._held)
                return True
            create_private(self._database)
            # SQLite deletes the log of an earlier database when it opens an empty file.
            with _locked(self._database) as created:
                restored.backup(created)
            return False


@contextmanager
def restoring(backup: Path, database: Path, *, check_value: str, now: datetime) -> Iterator[Restore]:
    """Verify a backup, and lock the database that it replaces. This blocks.

    The restored database is migrated to the newest schema. Its rows count as changed now, so that gates believe them.

    Args:
        backup: a backup, or a copy of a hub's file; it is only read.
        database: the file to restore; its directory holds copies meanwhile.
        check_value: the check value of the pepper, from `Mint.check_value`.
        now: the current time, as an aware datetime.

    Yields:
        The restore, to look at and to carry out. Without that, nothing changes.

    Raises:
        ConfigError: the backup is missing, damaged, from a newer gatekeeper, of another pepper or not of a hub; or the
            database is in use, or is not a database.
        DatabaseDown: the disk is full.
        OSError: the directory of the database cannot be written to.
        sqlite3.DatabaseError: the backup cannot be opened, or the disk is full.
    """
    if database.exists() and backup.exists() and database.samefile(backup):
        raise ConfigError([f"{backup} is the database itself: expected a backup of it"])
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{database.name}.", dir=database.parent))
        staged = Path(directory, "staged.sqlite")
        create_private(staged)
        copy_hub(backup, staged, _read_only(backup))
        try:
            Database(SqliteFile(staged), create=False).migrate(check_value)
        except ConfigError as error:
            raise ConfigError([f"{backup} cannot be restored: {problem}" for problem in error.problems]) from error
        held = stack.enter_context(_locked(database)) if database.exists() else None
        with closing(_connect(staged)) as restored:
            restored.execute("PRAGMA journal_mode = DELETE")
        yield Restore(database, held, staged, _prepare(held, staged, now))


def _read_only(backup: Path) -> str:
    # A backup has no log, and without locks it can be read on a read-only disk. A copied file may have its log beside it.
    has_log = any(Path(f"{backup}{suffix}").exists() for suffix in ("-wal", "-journal"))
    return "mode=ro" if has_log else "immutable=1"


@contextmanager
def _locked(database: Path) -> Iterator[sqlite3.Connection]:
    """Lock a file out of use by others, and merge its log into it."""
    with closing(_connect(database)) as connection:
        try:
            # With a log, each open connection holds a shared lock on the file, even when idle.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & PRIMARY_CODE == sqlite3.SQLITE_BUSY:
                raise ConfigError([f"{database} is in use: stop every hub on it, then restore again"]) from error
            problem = f"{database} cannot be replaced ({error}): move it away with its -wal and -shm, then restore again"
            raise ConfigError([problem]) from error
        yield connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def _prepare(held: sqlite3.Connection | None, staged: Path, now: datetime) -> Differences | None:
    """Compare the staged database with the held one, and make its rows count as changed now."""
    if held is not None:
        # A damaged database is replaced like any other.
        with suppress(sqlite3.DatabaseError), _attached(held, staged):
            differences = Differences(
                tuple(RevivedKey(*row) for row in held.execute(_REVIVED_KEYS).fetchall()),
                tuple(RevivedToken(*row) for row in held.execute(_REVIVED_TOKENS).fetchall()),
                *(held.execute(count).fetchone()[0] for count in (_LOST_KEYS, _LOST_TOKENS)),
            )
            _touch(held, now)
            return differences
    with closing(_connect(Path(":memory:"))) as empty, _attached(empty, staged):
        for table in ("accounts", "widget_keys"):
            empty.execute(f"CREATE TABLE {table} AS SELECT * FROM restored.{table} WHERE false")  # noqa: S608 - constants
        _touch(empty, now)
    return None


@contextmanager
def _attached(connection: sqlite3.Connection, staged: Path) -> Iterator[None]:
    connection.execute("ATTACH ? AS restored", (str(staged),))
    try:
        yield
    finally:
        connection.execute("DETACH restored")


def _touch(connection: sqlite3.Connection, now: datetime) -> None:
    connection.create_function("after", 1, _after, deterministic=True)
    with connection:
        connection.execute("BEGIN")
        for statement in _TOUCH:
            connection.execute(statement, {"now": _written(now.astimezone(UTC))})


def _after(time: str) -> str:
    return _written(datetime.fromisoformat(time) + timedelta(microseconds=1))


def _written(time: datetime) -> str:
    """Format a time like SQLAlchemy in SQLite. In this format, times compare as text."""
    return f"{time:%Y-%m-%d %H:%M:%S.%f}"
