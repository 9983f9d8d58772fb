"""Health: what the hub tells those who start it, stop it and send it requests. No token is needed."""

from typing import Literal

import msgspec
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.hub.database import Database

__all__ = ("Health", "health_routes")


class Health(msgspec.Struct, frozen=True):
    """The answer of a hub that is well.

    Attributes:
        status: "alive" where the process answers, "ready" where its database does, too.
    """

    status: Literal["alive", "ready"]


def health_routes(database: Database) -> list[Route]:
    """Make the routes /healthz and /readyz.

    Args:
        database: whose answer the second one waits for; while there is none, it is a 503.
    """

    async def tell_alive(_request: Request) -> Response:
        return _tell(Health("alive"))

    async def tell_ready(_request: Request) -> Response:
        async with database.reading() as connection:
            await connection.execute(text("SELECT 1"))
        return _tell(Health("ready"))

    return [Route("/healthz", tell_alive), Route("/readyz", tell_ready)]


def _tell(health: Health) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(health), headers=headers, media_type="application/json")
