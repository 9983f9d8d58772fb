"""Health: an endpoint that tells whether a gate can decide.

from gatekeeper.health import health

app = guard(Starlette(routes=[Route("/healthz", health(gate))]), gate, exempt=("/healthz",))
"""

from http import HTTPStatus
from typing import Literal

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.sync.status import State, Status

__all__ = ("Health", "health")

_Word = Literal["ready", "degraded", "not_ready"]

_NOT_READY = ("never_loaded", "expired")


class Health(msgspec.Struct, frozen=True):
    """The body of the answer.

    Attributes:
        status: "ready", "degraded" (the gate decides by an old list) or "not_ready" (the gate refuses every request).
        state: as in `Status`.
        age: seconds since the list of widget keys was requested; None without a list.
        keys: the number of keys in the list.
        detail: the same as a sentence, with the reason if the last fetch failed; without secrets.
        enforce: as in `Status`. A gate that only observes is never "not_ready".
    """

    status: _Word
    state: State
    age: float | None
    keys: int
    detail: str
    enforce: bool


def health(gate: Gatekeeper) -> ASGIApp:
    """Make a readiness endpoint for a gate.

    It answers 200 while the gate decides, even by an old list, because taking the process out of service would not help. It
    answers 503 while every request is refused: before the first list, and once the last one has expired. A gate with
    `enforce=False` refuses none, so its answer is always 200. The endpoint starts a gate that is not running yet, as a first
    request would. Otherwise a load balancer would never send one.

    Do not use it for liveness. A liveness check must not depend on the hub, or processes are killed while the hub is down.
    Answer 200 from an endpoint of your own instead.

    Args:
        gate: the gate.

    Returns:
        An ASGI app for a route or a mount of its own, which has to be in `exempt`.
    """
    return _Endpoint(gate)


class _Endpoint:
    """A class, because Starlette's routes call a plain function with a request."""

    def __init__(self, gate: Gatekeeper) -> None:
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        await self._gate.start()
        answer = _health(self._gate.status)
        code = HTTPStatus.SERVICE_UNAVAILABLE if answer.status == "not_ready" else HTTPStatus.OK
        headers = {"cache-control": "no-store"}
        await Response(msgspec.json.encode(answer), code, headers, "application/json")(scope, receive, send)


def _health(status: Status) -> Health:
    why = "" if status.last_error is None else f"; the last fetch failed: {status.last_error}"
    age = 0.0 if status.age is None else status.age
    if status.state in _NOT_READY:
        missing = "has expired" if status.state == "expired" else "has not been loaded yet"
        old = f" ({age:.0f} s old)" if status.state == "expired" else ""
        word: _Word
        word, effect = ("not_ready", "is refused") if status.enforce else ("degraded", "would be refused")
        return _answer(word, status, f"every request {effect}, because the list of widget keys {missing}{old}{why}")
    if status.state == "degraded":
        origin = "comes from the snapshot on disk" if status.from_snapshot else "is old"
        return _answer("degraded", status, f"the list of widget keys {origin} ({age:.0f} s) but is still used{why}")
    return _answer("ready", status, f"the list of widget keys is fresh{why}")


def _answer(word: _Word, status: Status, detail: str) -> Health:
    if not status.enforce:
        detail = f"{detail}; the gate only observes, and lets every request through"
    age = None if status.age is None else round(status.age, 3)
    return Health(word, status.state, age, status.keys, detail, status.enforce)
