"""A guarded app for servers with several processes; it answers with its process id and its decision about key 2."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gatekeeper import Gatekeeper, GatekeeperMiddleware, HubSource
from tests.support.rows import ORIGIN, TOKEN, client_key

__all__ = ("app",)

gate = Gatekeeper(
    HubSource(os.environ["FAULTS_HUB"], TOKEN, timeout=60), refresh_interval=float(os.environ["FAULTS_INTERVAL"])
)


async def whoami(_: Request) -> JSONResponse:
    """Answer with the process id, the decision about key 2 and the status."""
    status = gate.status
    reason = gate.decide(client_key(2), ORIGIN).reason.value
    return JSONResponse({"pid": os.getpid(), "reason": reason, "age": status.age, "error": status.last_error})


async def load() -> None:
    """Use the gate before a fork, as a program does that warms up."""
    assert (await gate.check(client_key(1), ORIGIN)).allowed


if "FAULTS_LOADED" in os.environ:
    asyncio.run(load())

app = GatekeeperMiddleware(
    Starlette(routes=[Route("/", whoami)], lifespan=None if "FAULTS_NO_LIFESPAN" in os.environ else gate.lifespan),
    gatekeeper=gate,
)
