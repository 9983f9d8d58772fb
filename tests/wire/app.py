"""The guarded app of every server. Its answers show that the app itself sent them."""

import json
from typing import Any

from starlette.types import Receive, Scope, Send

from gatekeeper import Gatekeeper, GatekeeperMiddleware, decision_from
from tests.support.client_keys import KEY

PAGE = "https://shop.acme.com"
OTHER_KEY = "pk_live_acme_9xTq2BtR7mXw4LbN1cVh6KsDblog-002"
ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [PAGE]},
    {"id": "2", "name": "blog", "last8": OTHER_KEY[-8:], "domain_allowlist": ["https://blog.acme.com"]},
]


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was seen, over HTTP or a WebSocket."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": _account(scope).decode()})
        await send({"type": "websocket.close", "code": 1000})
    else:
        length, message = 0, await receive()
        while message["type"] == "http.request":
            length += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
            message = await receive()
        body = _account(scope, body=length)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _account(scope: Scope, **more: int) -> bytes:
    decision = decision_from(scope)
    return json.dumps(
        {
            "seen": True,
            "key": None if decision.key is None else decision.key.name,
            "origin": decision.origin,
            "path": scope["path"],
            **more,
        }
    ).encode()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


app = GatekeeperMiddleware(seen, Gatekeeper.from_rows(ROWS))
