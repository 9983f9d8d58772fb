"""Migrations: how a database of any earlier hub, or an empty one, comes to have the tables of tables.py.

versions/ has one file a step; env.py is what Alembic runs between it and a connection.
"""

from pathlib import Path
from threading import Lock
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect

from gatekeeper.errors import ConfigError

__all__ = ("upgrade",)

# The hubs before the first migration made these tables without Alembic, which therefore has no note of them.
_UNNOTED_TABLE: Final = "widget_keys"
_UNNOTED_REVISION: Final = "0001"

# Alembic's `op` and `context` are globals of the process: two databases take turns.
_turn: Final = Lock()


def upgrade(connection: Connection) -> None:
    """Bring a database to the newest schema.

    Args:
        connection: in a transaction that no other writer overlaps, and that takes everything back if this raises.

    Raises:
        ConfigError: a newer gatekeeper has been at the database.
        sqlalchemy.exc.SQLAlchemyError: the database failed.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _turn:
        tables = set(inspect(connection).get_table_names())
        if _UNNOTED_TABLE in tables and "alembic_version" not in tables:
            command.stamp(config, _UNNOTED_REVISION)
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            newest = ScriptDirectory.from_config(config).get_current_head()
            problem = f"the database is beyond revision {newest}, the newest that this gatekeeper knows: update gatekeeper"
            raise ConfigError([f"{problem} ({error})"]) from error
