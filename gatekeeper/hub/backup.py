"""Backups of SQLite files, taken while hubs use them."""

import sqlite3
from contextlib import closing
from pathlib import Path

from gatekeeper.errors import ConfigError
from gatekeeper.hub.files import whole_file
from gatekeeper.hub.sqlite import PRIMARY_CODE

__all__ = ("back_up", "copy_hub")


def back_up(database: Path, backup: Path) -> None:
    """Back up a hub's SQLite file. This blocks.

    Hubs may read and write meanwhile. The backup has every write that was acknowledged before the call. It is one file, with
    mode 0600.

    Args:
        database: the file of the hub.
        backup: the file to write, which must not exist. It appears once it is complete.

    Raises:
        ConfigError: the database is missing, damaged or not that of a hub.
        FileExistsError: the backup exists; it stays as it is.
        OSError: the backup cannot be written.
        sqlite3.DatabaseError: the database cannot be opened or is locked, or the disk is full.
    """
    with whole_file(backup) as unfinished:
        copy_hub(database, unfinished, "mode=rw")


def copy_hub(database: Path, copy: Path, parameters: str) -> None:
    """Copy a hub's SQLite file with its log, and check the copy.

    Args:
        database: the file of the hub.
        copy: an empty file. It gets no log of its own.
        parameters: how to open the database, as parameters of a URI (https://www.sqlite.org/uri.html).

    Raises:
        ConfigError: the database is missing, damaged or not that of a hub.
        sqlite3.DatabaseError: the database cannot be opened or is locked, or the disk is full.
    """
    if not database.exists():
        raise ConfigError([f"there is no {database}: expected the file of a hub"])
    location = f"{database.absolute().as_uri()}?{parameters}"
    try:
        with closing(sqlite3.connect(location, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
            _require_hub(source, database)
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
            (found,) = target.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & PRIMARY_CODE in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            raise ConfigError([f"{database} is damaged, or not a database ({error})"]) from error
        error.add_note(f"gatekeeper: copying {database}")
        raise
    if found != "ok":
        raise ConfigError([f"{database} is damaged ({found})"])


def _require_hub(connection: sqlite3.Connection, named: Path) -> None:
    wanted = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('accounts', 'tokens', 'widget_keys')"
    if connection.execute(wanted).fetchone() != (3,):
        raise ConfigError([f"{named} has no tables of a hub: expected the database of a hub"])
