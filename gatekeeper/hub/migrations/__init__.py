"""Migrations: upgrades of a database to the tables of tables.py.

They start from an empty database, or from that of any earlier hub.
versions/ has one file per step. Alembic runs env.py to apply them to a connection.
"""

from pathlib import Path
from threading import Lock
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, inspect

from gatekeeper.errors import ConfigError

__all__ = ("upgrade",)

# Hubs from before the first migration created their tables without Alembic, so these databases have no revision yet.
_UNSTAMPED_TABLE: Final = "widget_keys"
_UNSTAMPED_REVISION: Final = "0001"

# Alembic's `op` and `context` are global to the process, so only one migration may run at a time.
_lock: Final = Lock()


def upgrade(connection: Connection, *, create: bool) -> None:
    """Upgrade a database to the newest schema.

    Args:
        connection: a connection in a transaction that excludes other writers and rolls back if this raises.
        create: whether to create the tables in a database that has none of a hub.

    Raises:
        ConfigError: the schema comes from a newer gatekeeper, or there are no tables to upgrade.
        sqlalchemy.exc.SQLAlchemyError: the database failed.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _lock:
        tables = set(inspect(connection).get_table_names())
        if not create and _UNSTAMPED_TABLE not in tables:
            named = _named(connection.engine.url)
            raise ConfigError([f"the database {named} has no tables of a hub: expected the database that a hub uses"])
        if _UNSTAMPED_TABLE in tables and "alembic_version" not in tables:
            command.stamp(config, _UNSTAMPED_REVISION)
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            newest = ScriptDirectory.from_config(config).get_current_head()
            problem = (
                f"the database is newer than revision {newest}, the newest that this gatekeeper knows: update gatekeeper"
            )
            raise ConfigError([f"{problem} ({error})"]) from error


def _named(url: URL) -> str:
    # libpq accepts a password in the query too.
    return str(url.set(drivername=url.get_backend_name(), password=None, query={}))
