"""Engines: what a kind of database gives the hub to work with."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypedDict

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("OPTIONS", "Engines", "Place")


class EngineOptions(TypedDict):
    """Options of create_async_engine."""

    pool_size: int
    max_overflow: int
    pool_timeout: float
    hide_parameters: bool
    json_serializer: Callable[[Any], str]
    json_deserializer: Callable[[str | bytes], Any]


def _write_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# Five connections for each of three kinds of work: six workers fit into the 100 that PostgreSQL has by default. Who
# waits longer for one than the patience of a client lasts (gatekeeper's own: 10 s) waits for nothing.
# Parameters stay out of error messages, because those end up in logs. msgspec reads JSON in a fifth of json's time.
OPTIONS: Final = EngineOptions(
    pool_size=5,
    max_overflow=0,
    pool_timeout=10.0,
    hide_parameters=True,
    json_serializer=_write_json,
    json_deserializer=msgspec.json.decode,
)


class Engines(NamedTuple):
    """The engines of an open database, each with a pool of connections of its own, so that none starves the others.

    Attributes:
        reader: whose transactions see one state of the database.
        streamer: the same, for answers that last as long as their readers take.
        writer: whose transactions see what was committed before each statement, or let nobody else write.
    """

    reader: AsyncEngine
    streamer: AsyncEngine
    writer: AsyncEngine


class Place(Protocol):
    """Where a database is, and of which kind."""

    def migrate(self) -> None:
        """Bring the database to the newest schema; blocks, and is safe while others do the same.

        Raises:
            ConfigError: a newer gatekeeper has been at the database.
            sqlalchemy.exc.OperationalError: the database does not answer.
        """
        ...

    def engines(self) -> Engines:
        """Make the engines, without connecting."""
        ...
