"""Health: an endpoint that tells whether a gate can decide.

from gatekeeper.health import health

app = guard(Starlette(routes=[Route("/healthz", health(gate))]), gate, exempt=("/healthz",))
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.quoting import SHOWN
from gatekeeper.sync.status import State, Status

__all__ = ("Health", "health")

_Word = Literal["ready", "degraded", "not_ready"]

_NOT_READY = ("never_loaded", "expired")


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of the answer.

    Of a gate of several accounts, `state` and `age` are those of the worst one.

    Attributes:
        status: "ready", "degraded" (the gate decides by an old list, or some accounts have none) or "not_ready" (the gate
            refuses every request).
        state: as in `Status`.
        age: seconds since the list of widget keys was requested; None without a list.
        keys: the number of keys in the list.
        detail: the same as a sentence, with the reason if the last fetch failed; without secrets.
        enforce: as in `Status`. A gate that only observes is never "not_ready".
        account: the worst account of several; it is absent while all lists are fresh, and where there is only one.
    """

    status: _Word
    state: State
    age: float | None
    keys: int
    detail: str
    enforce: bool
    account: str | None = None


def health(gate: Gatekeeper) -> ASGIApp:
    """Make a readiness endpoint for a gate.

    It answers 200 while the gate decides, even by an old list, because taking the process out of service would not help. It
    answers 503 while every request is refused: before the first list, and once the last one has expired. A gate of several
    accounts refuses every request only while each of them has no list, or an expired one. A gate with `enforce=False`
    refuses none, so its answer is always 200. The endpoint starts a gate that is not running yet, as a first
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
        answer = _health(self._gate.status, self._gate.statuses)
        code = HTTPStatus.SERVICE_UNAVAILABLE if answer.status == "not_ready" else HTTPStatus.OK
        headers = {"cache-control": "no-store"}
        await Response(msgspec.json.encode(answer), code, headers, "application/json")(scope, receive, send)


def _health(status: Status, statuses: Mapping[str, Status]) -> Health:
    account = _account(status, statuses)
    whose = "" if account is None else f" for the account {account}"
    why = "" if status.last_error is None else f"; the last fetch{whose} failed: {status.last_error}"
    age = 0.0 if status.age is None else status.age
    lists = _lists(status.state, account, statuses)
    if status.state in _NOT_READY:
        missing = "has expired" if status.state == "expired" else "has not been loaded yet"
        old = f" ({age:.0f} s old)" if status.state == "expired" else ""
        what = "every request"
        word: _Word
        word, effect = ("not_ready", "is refused") if status.enforce else ("degraded", "would be refused")
        if any(each.state not in _NOT_READY for each in statuses.values()):
            word, what = "degraded", "every request of an account"
        return _answer(word, status, account, f"{what} {effect}, because {lists} {missing}{old}{why}")
    if status.state == "degraded":
        origin = "comes from the snapshot on disk" if status.from_snapshot else "is old"
        return _answer("degraded", status, account, f"{lists} {origin} ({age:.0f} s) but is still used{why}")
    if status.age is None:
        return _answer("ready", status, None, "the gate has no accounts, so it knows no key")
    return _answer("ready", status, None, f"{lists} is fresh{why}")


def _account(status: Status, statuses: Mapping[str, Status]) -> str | None:
    """The worst of several accounts; None where there is only one list."""
    return status.account[:SHOWN] if status.account is not None and len(statuses) > 1 else None


def _lists(state: State, account: str | None, statuses: Mapping[str, Status]) -> str:
    lists, count = "the list of widget keys", len(statuses)
    if account is None:
        return lists
    stale = sum(each.state != "fresh" for each in statuses.values())
    named = f"each of {count} accounts" if state == "fresh" else f"the account {account} ({stale} of {count} not fresh)"
    return f"{lists} of {named}"


def _answer(word: _Word, status: Status, account: str | None, detail: str) -> Health:
    if not status.enforce:
        detail = f"{detail}; the gate only observes, and lets every request through"
    age = None if status.age is None else round(status.age, 3)
    return Health(word, status.state, age, status.keys, detail, status.enforce, account)
