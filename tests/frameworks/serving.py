"""What the served apps have in common.

Each app is an example of the README, with a gate that reads its keys from a file. It runs inside of `Outer`, which is the
middleware outside of the gate, and answers the questions of the tests.
"""

import gc
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper import FileSource, Gatekeeper, Source, decision_from
from tests.support.examples import example

__all__ = ("CRASH", "EVENTS", "KEYS", "STATE", "STOPPED", "Outer", "background", "events", "names_of", "pieces", "seen")

README = "gatekeeper/web/README.md"
HUB = 'HubSource("https://hub.example", "sk_live_acme_gatetoken")'
ARGUMENTS_AFTER = {"transport": '"https://public@sentry.example/1"'}
KEYS = "GATEKEEPER_TEST_KEYS"  # the file with the list
STOPPED = "GATEKEEPER_TEST_STOPPED"  # the file that the app writes as it stops
PACE = 0.02  # seconds between two events
CRASH = "an app that crashes"
EVENTS = "text/event-stream"

_set_outside: ContextVar[str] = ContextVar("set outside", default="")
_set_inside: ContextVar[str] = ContextVar("set inside", default="")
STATE: dict[str, Any] = {"requests": 0, "handled": 0, "open": 0, "background": 0, "set_inside": "", "started": None}
_released: list[str] = []


def names_of(heading: str, source: Source | None = None, **arguments: Any) -> dict[str, Any]:
    """Run an example of the README, with a gate that reads the list of the tests.

    Args:
        heading: the heading above the example.
        source: where the gate reads its list; None for the file that the environment names.
        arguments: more arguments for calls of the example. `ARGUMENTS_AFTER` says what each comes after.

    Returns:
        The names that the example defines.
    """
    code = example(README, heading)
    assert code.count(HUB) == 1
    code = code.replace(HUB, "SOURCE, refresh_interval=0.05")
    for name in arguments:
        before = ARGUMENTS_AFTER[name]
        assert code.count(before) == 1
        code = code.replace(before, f"{before}, {name}={name}")
    names: dict[str, Any] = {"__name__": __name__, "SOURCE": source or FileSource(os.environ[KEYS]), **arguments}
    exec(code, names)
    return names


def seen(scope: Mapping[str, Any]) -> dict[str, str | None]:
    """What a handler sees of a request, and set a variable of the context."""
    decision = decision_from(scope)
    STATE["handled"] += 1
    _set_inside.set("by the app")
    return {"key": None if decision.key is None else decision.key.name, "set_outside": _set_outside.get()}


async def pieces() -> AsyncIterator[bytes]:
    """A response whose second piece is sent once the test has read the first."""
    yield b"first,"
    while not _released:  # noqa: ASYNC110 - an event of asyncio belongs to one event loop
        await anyio.sleep(PACE)
    yield b"second"


async def events() -> AsyncIterator[bytes]:
    """Server-sent events without end."""
    STATE["open"] += 1
    try:
        while True:
            yield b"data: next\n\n"
            await anyio.sleep(PACE)
    finally:
        STATE["open"] -= 1


async def background() -> None:
    """Count one more task that ran."""
    await anyio.lowlevel.checkpoint()
    STATE["background"] += 1


class Outer:
    """Middleware outside of the gate.

    Args:
        app: the guarded app.
        gate: its gate.
    """

    def __init__(self, app: ASGIApp, gate: Gatekeeper) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._noting(send))
        elif scope["type"] == "http" and scope["path"] in {"/status", "/release", "/hold"}:
            if scope["path"] == "/release":
                _released.append("")
            elif scope["path"] == "/hold":
                _released.clear()
            gc.collect()  # Starlette leaves a stream of a client that has gone to the garbage collector
            await _answer(send, STATE)
        else:
            _set_outside.set("by the middleware")
            _set_inside.set("")
            try:
                await self._app(scope, receive, send)
            finally:
                STATE["set_inside"] = _set_inside.get()
                STATE["requests"] += 1

    def _noting(self, send: Send) -> Send:
        async def noting(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                STATE["started"] = self._gate.status.state == "fresh" and self._gate.status.is_refreshing
            if message["type"] == "lifespan.shutdown.complete":
                Path(os.environ[STOPPED]).write_text(f"refreshing: {self._gate.status.is_refreshing}", encoding="utf-8")  # noqa: ASYNC240 - at the end
            await send(message)

        return noting


async def _answer(send: Send, said: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})
