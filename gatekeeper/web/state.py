"""The decision on a request, in the state of its scope."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from gatekeeper.errors import DecisionMissing
from gatekeeper.gate.decisions import Decision

__all__ = ("STATE_KEY", "decision_from", "decision_in", "keep_decision")

STATE_KEY = "gatekeeper"


def keep_decision(scope: Scope, decision: Decision) -> None:
    """Put a decision into the state of a request.

    Args:
        scope: the request; its state may be missing or None.
        decision: the decision.
    """
    if scope.get("state") is None:
        scope["state"] = {}
    scope["state"][STATE_KEY] = decision


def decision_in(scope: Mapping[str, Any]) -> Decision | None:
    """The decision in the state of a request, or None."""
    decision = (scope.get("state") or {}).get(STATE_KEY)
    return decision if isinstance(decision, Decision) else None


def decision_from(request_or_scope: HTTPConnection | Mapping[str, Any]) -> Decision:
    """The decision on a request that the middleware allowed.

    Args:
        request_or_scope: a Starlette request or WebSocket, or an ASGI scope.

    Returns:
        The decision.

    Raises:
        DecisionMissing: the middleware has not seen the request, or its path is exempt.
    """
    scope = request_or_scope.scope if isinstance(request_or_scope, HTTPConnection) else request_or_scope
    decision = decision_in(scope)
    if decision is None:
        path = scope.get("path")
        raise DecisionMissing(
            f"no decision was made on the request to {path!r}: mount GatekeeperMiddleware around the app, "
            "and do not exempt the path"
        )
    return decision
