"""check_key: decides a request by the key that its endpoint finds."""

import logging
from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from gatekeeper.errors import ConfigError, DecisionMissing
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.gate.page import RequestIdentity, as_bytes
from gatekeeper.web.state import keep_decision, state_of

__all__ = ("KeyCheck", "Unchecked", "check_key")

logger = logging.getLogger("gatekeeper")

_STATE_KEY: Final = "gatekeeper_key_check"


class KeyCheck:
    """Decides one request, with the key that its endpoint finds.

    Args:
        gate: the gate that decides.
        admits: tells whether the request may go on; asked once for each decision.
        sent: the key in the header or the query of the request.
        identify: puts together what decides the request with a key.

    Attributes:
        decision: the last decision; None before the first.
        is_refused: whether the gate answers in place of the endpoint.
        identity: what was decided, if the request is allowed.
    """

    def __init__(
        self,
        gate: Gatekeeper,
        admits: Callable[[Decision], bool],
        sent: bytes | Conflict | None,
        identify: Callable[[bytes | Conflict | None], RequestIdentity],
    ) -> None:
        self.decision: Decision | None = None
        self.is_refused = False
        self.identity: RequestIdentity | None = None
        self._gate = gate
        self._admits = admits
        self._sent = sent
        self._identify = identify

    def attach(self, scope: Scope) -> None:
        """Let `check_key` find it in a request."""
        state_of(scope)[_STATE_KEY] = self

    async def decide(self, client_key: str | bytes | None) -> Decision:
        """Decide the request.

        Args:
            client_key: as for `check_key`.

        Returns:
            The decision; see `is_refused`.
        """
        key = as_bytes(client_key)
        if self._sent is not None and key != self._sent:
            key = CONFLICT if key else self._sent
        identity = self._identify(key or None)
        self.decision = decision = await self._gate.check_request(identity)
        self.is_refused = not self._admits(decision)
        self.identity = identity if decision.allowed else None
        return decision


class Unchecked:
    """Endpoints that answer without a call of `check_key`.

    Args:
        gate: the gate, which may only observe.
    """

    def __init__(self, gate: Gatekeeper) -> None:
        self._gate = gate
        self._is_logged = False

    def found(self, path: str) -> None:
        """Stop such an answer. While the gate observes, only the first one is logged.

        Args:
            path: the path of the endpoint.

        Raises:
            DecisionMissing: the gate enforces.
        """
        problem = f"the endpoint of {path!r} has answered without a call of check_key"
        if self._gate.enforce:
            raise DecisionMissing(problem)
        if not self._is_logged:
            self._is_logged = True
            logger.warning("gatekeeper: %s: once the gate enforces, that is an error", problem)


async def check_key(request: Request, client_key: str | bytes | None) -> Decision:
    """Decide a request by the key that its endpoint has found.

    The path of the endpoint has to be in `key_in_body` of guard() or GatekeeperMiddleware. The response has the headers that
    the middleware gives, whatever kind of response the endpoint returns.

    Args:
        request: the request.
        client_key: the key in its body; None or empty if it has none. One in the header or the query counts, too.

    Returns:
        The decision. It allows the request, or the gate only observes.

    Raises:
        HTTPException: the request is refused. The answer is the refusal of the gate, even if the exception is
            caught; an answer that has begun ends there.
        ConfigError: the path is not in `key_in_body`.
    """
    check = (request.scope.get("state") or {}).get(_STATE_KEY)
    if not isinstance(check, KeyCheck):
        path = request.scope["path"]
        raise ConfigError(
            [f"check_key was called on {path!r}: list the path, as in guard(app, gate, key_in_body=({path!r},))"]
        )
    decision = await check.decide(client_key)
    if check.is_refused:
        raise HTTPException(decision.status, decision.detail)
    keep_decision(request.scope, decision)
    return decision
