"""Health checks for process managers and load balancers, without a token."""

from typing import Literal

import msgspec
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.hub.database import Database

__all__ = ("Health", "health_routes")


class Health(msgspec.Struct, frozen=True):
    """The answer of a healthy hub.

    Attributes:
        status: "alive" if the process answers, "ready" if its database answers as well.
    """

    status: Literal["alive", "ready"]


def health_routes(database: Database) -> list[Route]:
    """Make the routes /healthz and /readyz.

    Args:
        database: the database that /readyz queries; the answer is 503 while it is down.
    """

    async def answer_alive(_request: Request) -> Response:
        return _respond(Health("alive"))

    async def answer_ready(_request: Request) -> Response:
        async with database.reading() as connection:
            await connection.execute(text("SELECT 1"))
        return _respond(Health("ready"))

    return [Route("/healthz", answer_alive), Route("/readyz", answer_ready)]


def _respond(health: Health) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(health), headers=headers, media_type="application/json")
