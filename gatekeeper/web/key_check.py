"""check_key: decides a request by the key that its endpoint finds."""

from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from gatekeeper.errors import ConfigError
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.gate.memo import IsOwn
from gatekeeper.gate.page import RequestIdentity, as_bytes
from gatekeeper.web.state import keep_decision, state_of

__all__ = ("KeyCheck", "check_key")

_STATE_KEY: Final = "gatekeeper_key_check"


class KeyCheck:
    """Decides one request, with the key that its endpoint finds.

    Args:
        gate: the gate that decides.
        sent: the key in the header or the query of the request.
        identify: puts together what decides the request with a key.
        is_own: as for `Gatekeeper.check_request`.

    Attributes:
        decision: the last decision; None before the first.
        is_refused: whether the gate answers in place of the endpoint.
        identity: what was decided, if the request is allowed.
    """

    def __init__(
        self,
        gate: Gatekeeper,
        sent: bytes | Conflict | None,
        identify: Callable[[bytes | Conflict | None], RequestIdentity],
        is_own: IsOwn,
    ) -> None:
        self.decision: Decision | None = None
        self.is_refused = False
        self.identity: RequestIdentity | None = None
        self._gate = gate
        self._sent = sent
        self._identify = identify
        self._is_own = is_own

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
        self.decision = decision = await self._gate.check_request(identity, self._is_own)
        self.is_refused = not self._gate.admits(decision)
        self.identity = identity if decision.allowed else None
        return decision


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
        HTTPException: the request is refused. The answer is the refusal of the gate, even if the exception is caught.
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
