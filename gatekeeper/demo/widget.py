"""The widget service, guarded by a gate."""

from html import escape
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.web.cors import CorsPolicy
from gatekeeper.web.guard import guard
from gatekeeper.web.state import decision_from

__all__ = ("widget_service",)

# By the id that a key names: what the agent is called, and what it says first.
AGENTS = {
    "agent_robin": ("Robin", "Hi! I know every tent and lamp in the shop. What are you looking for?"),
    "agent_kim": ("Kim", "Hello! Where would you like to go, and when?"),
}


def widget_service(gate: Gatekeeper, cors: CorsPolicy | None = None) -> Starlette:
    """Make the guarded service, for a script and for a frame.

    Only scripts need no key.

    Args:
        gate: the gate, which runs as long as the service.
        cors: the CORS policy.
    """
    app = Starlette(
        routes=[
            Route("/widget.js", _script),
            Route("/embed", _frame),
            Route("/api/v1/widget/config", _config),
            Route("/api/v1/widget/chat", _chat, methods=["POST"]),
            WebSocketRoute("/api/v1/widget/live", _live),
        ],
    )
    return guard(app, gate, exempt=("/widget.js",), frames=("/embed",), loader_path="/gatekeeper", cors=cors)


async def _script(_request: Request) -> Response:
    script = files("gatekeeper.demo").joinpath("assets/widget.js").read_bytes()
    return Response(script, media_type="text/javascript", headers={"cache-control": "no-cache"})


async def _frame(request: Request) -> HTMLResponse:
    document = files("gatekeeper.demo").joinpath("assets/frame.html").read_text(encoding="utf-8")
    return HTMLResponse(document.replace("{{grant}}", escape(decision_from(request).grant or "")))


async def _config(request: Request) -> JSONResponse:
    agent_id = decision_from(request).agent_id
    name, greeting = AGENTS.get(agent_id or "", AGENTS["agent_robin"])
    body = {"agent_id": agent_id, "agent_name": name, "greeting": greeting}
    return JSONResponse(body, headers={"cache-control": "no-store"})


async def _chat(request: Request) -> JSONResponse:
    message = str((await request.json()).get("message", ""))[:200]
    return JSONResponse({"reply": f"You said “{message}”. A real agent would answer here."})


async def _live(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return
