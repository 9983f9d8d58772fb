"""The connections to PostgreSQL whose statements have a deadline."""

import psycopg
import pytest
from psycopg.abc import PQGen
from psycopg.waiting import Wait

from gatekeeper.hub.postgres_connections import AsyncConnection, Connection
from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_a_connection_that_waits_for_the_server_does_not_wake_meanwhile(postgres: PostgresCluster) -> None:
    wakes: list[int] = []

    def wait() -> PQGen[None]:
        while True:
            wakes.append((yield Wait.R))

    async with await AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        with pytest.raises(psycopg.OperationalError):
            await connection.wait(wait(), timeout=0.5)
    assert wakes == [0]


def test_a_server_that_is_silent_costs_the_connection(postgres: PostgresCluster) -> None:
    """Otherwise, the pool would not replace it, and roll back over it."""

    def wait() -> PQGen[None]:
        while True:
            yield Wait.R

    connection = Connection.connect(postgres.url, autocommit=True)
    connection.deadline = 0.2
    with pytest.raises(psycopg.OperationalError, match=r"^the server was silent for 0\.2 s$"):
        connection.wait(wait())
    assert connection.closed
