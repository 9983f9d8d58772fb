"""The decision on a request, in endpoints of FastAPI.

gatekeeper itself does not need FastAPI, so import this module by its own path.

from gatekeeper.fastapi import Checked, check_key

@app.get("/config")
async def config(decision: Checked) -> dict[str, str | None]:
    return {"agent_id": decision.agent_id}

@app.post("/chat")  # the path is in `key_in_body` of guard()
async def chat(request: Request, message: Message) -> dict[str, str | None]:
    decision = await check_key(request, message.client_key)
    return {"agent_id": decision.agent_id}
"""

from importlib.util import find_spec
from typing import Annotated

if find_spec("fastapi") is None:
    _missing = "gatekeeper.fastapi needs the extra `fastapi`: pip install 'widget-gatekeeper[fastapi]'"
    raise ImportError(_missing)

from fastapi import Depends
from starlette.requests import HTTPConnection

from gatekeeper.gate.decisions import Decision
from gatekeeper.web.key_check import check_key
from gatekeeper.web.state import decision_from

__all__ = ("Checked", "check_key")


# Async, because FastAPI runs synchronous dependencies in the thread pool: 211-227 µs a request instead of 45-86, and 1.8 s
# while 40 threads are busy.
async def _decision(connection: HTTPConnection) -> Decision:
    return decision_from(connection)


Checked = Annotated[Decision, Depends(_decision)]
"""The decision on the current request. Raises DecisionMissing if the middleware made none."""
