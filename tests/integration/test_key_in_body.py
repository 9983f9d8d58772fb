"""Endpoints that find the key in their bodies, behind a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from gatekeeper import FileSource, Gatekeeper, guard
from gatekeeper.fastapi import check_key
from tests.integration.conftest import PAGE, ROW, STRANGE_PAGE, Serve, names, write_rows
from tests.support.client_keys import KEY

PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


class Message(BaseModel):
    client_key: str


def chat_app(gate: Gatekeeper) -> FastAPI:
    """An app that streams its answers."""
    app = FastAPI()

    @app.post("/chat")
    async def chat(request: Request, message: Message) -> StreamingResponse:
        decision = await check_key(request, message.client_key)

        async def pieces() -> AsyncIterator[bytes]:
            yield str(decision.agent_id).encode()
            await anyio.sleep_forever()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    return guard(app, gate, key_in_body=("/chat",))


def test_a_page_can_post_its_key_and_read_a_stream_until_it_is_revoked(serve: Serve, tmp_path: Path) -> None:
    write_rows(tmp_path / "keys.json", ROW)
    gate = Gatekeeper(FileSource(tmp_path / "keys.json"), refresh_interval=3600)
    served = serve(chat_app(gate))
    preflight = served.request("OPTIONS", "/chat", headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")
    with served.client.stream("POST", "/chat", headers={"Origin": PAGE}, json={"client_key": KEY}) as answer:
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        assert names(answer.headers["vary"]) == {"origin", "data-client-key"}
        pieces = answer.iter_raw()
        assert next(pieces) == b"agent_7"
        write_rows(tmp_path / "keys.json")
        asyncio.run(gate.refresh())
        assert list(pieces) == []
    assert gate.status.counters["streams_closed"] == 1


def test_a_refused_page_gets_the_refusal_and_the_connection_goes_on(serve: Serve, gate: Gatekeeper) -> None:
    served = serve(chat_app(gate))
    for _ in range(2):
        refused = served.request("POST", "/chat", headers={"Origin": STRANGE_PAGE}, json={"client_key": KEY})
        assert (refused.status_code, refused.json()["reason"]) == (403, "origin_not_allowed")
        assert refused.headers["access-control-allow-origin"] == "*"
