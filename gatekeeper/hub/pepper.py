"""The check of the pepper: whether it is that of the database."""

import hmac
import logging

from sqlalchemy import Connection, insert, select

from gatekeeper.errors import ConfigError
from gatekeeper.hub.tables import pepper_check, tokens

__all__ = ("check_pepper",)

_log = logging.getLogger(__name__)


def check_pepper(connection: Connection, check_value: str) -> None:
    """Check that the pepper is that of the database. The first check stores its check value.

    Args:
        connection: a connection in a transaction that excludes other writers.
        check_value: the check value of the pepper, from `Mint.check_value`.

    Raises:
        ConfigError: the database is that of another pepper. The message has neither the pepper nor its check value.
    """
    stored = connection.scalar(select(pepper_check.c.check_value))
    if stored is None:
        connection.execute(insert(pepper_check).values(id=1, check_value=check_value))
        if connection.scalar(select(tokens.c.id).limit(1)) is not None:
            # Tokens from before the check: only their plaintexts could show whether this is their pepper.
            _log.warning("the hub's database had no check of its pepper; from now on, it accepts this pepper only")
    elif not hmac.compare_digest(stored, check_value):
        raise ConfigError(
            ["the pepper is not that of the database, so no token would be known: use the former pepper, of its first start"]
        )
