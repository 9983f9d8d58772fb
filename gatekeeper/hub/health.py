"""Health checks for process managers and load balancers, without a token."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.errors import DatabaseDown, HubOverloaded
from gatekeeper.hub.database import Database

__all__ = ("Health", "Readiness", "health_routes")

WRITE_INTERVAL: Final = 5.0  # Seconds; a write syncs the disk, and load balancers may poll several times a second.
PATIENCE: Final = 3.0  # Seconds; a statement of a server that is stopped takes 5 to fail.


class Health(msgspec.Struct, frozen=True):
    """The answer of a healthy hub.

    Attributes:
        status: "alive" if the process answers, "ready" if its database can be read and written as well.
    """

    status: Literal["alive", "ready"]


class Readiness:
    """Checks of the database. Concurrent requests share one.

    A check reads. It writes too if the last write has failed or is `write_interval` seconds ago.

    Args:
        database: the database.
        write_interval: the shortest time between two writes that succeed, in seconds.
        patience: the longest wait for a check, in seconds.
        clock: a function that returns seconds, which never go back.
    """

    def __init__(
        self,
        database: Database,
        *,
        write_interval: float = WRITE_INTERVAL,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._write_interval = write_interval
        self._patience = patience
        self._clock = clock
        self._written_at = -math.inf
        self._checking: asyncio.Task[DatabaseDown | HubOverloaded | None] | None = None

    async def check(self) -> None:
        """Check the database, or join a check that runs.

        Raises:
            DatabaseDown: the database cannot be read or written, or does not answer within `patience`.
            HubOverloaded: others keep it busy.
            RuntimeError: the lifespan of the app is not running.
        """
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())
        checking = self._checking
        # `wait` leaves the check to others if this request is cancelled or impatient.
        await asyncio.wait([checking], timeout=self._patience)
        failure = checking.result() if checking.done() else DatabaseDown(f"no answer within {self._patience:g} s")
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """Wait for a check that runs.

        The deadlines of the database end it. Its thread cannot be cancelled.
        """
        checking, self._checking = self._checking, None
        # The next lifespan may run in another event loop, which cannot wait for a task of this one.
        if checking is not None and not checking.done():
            await asyncio.wait([checking])

    async def _check(self) -> DatabaseDown | HubOverloaded | None:
        begun = self._clock()
        write = begun - self._written_at >= self._write_interval
        try:
            await self._database.check(write=write)
        except (DatabaseDown, HubOverloaded) as failure:
            self._written_at = -math.inf
            return failure
        if write:
            self._written_at = begun
        return None


def health_routes(readiness: Readiness) -> list[Route]:
    """Make the routes /healthz and /readyz.

    Args:
        readiness: the checks behind /readyz; the answer is 503 while they fail. /healthz uses no database.
    """

    async def answer_alive(_request: Request) -> Response:
        return _respond(Health("alive"))

    async def answer_ready(_request: Request) -> Response:
        await readiness.check()
        return _respond(Health("ready"))

    return [Route("/healthz", answer_alive), Route("/readyz", answer_ready)]


def _respond(health: Health) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(health), headers=headers, media_type="application/json")
