"""LoadLog: tells the operator that the hub is overloaded."""

import logging
import math
import time
from collections.abc import Callable
from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.problems import answer_overloaded

__all__ = ("LoadLog",)

PERIOD: Final = 60.0  # Seconds between two lines, at least: an overload refuses many requests in a second.

_log = logging.getLogger(__name__)


class LoadLog:
    """The log of refused requests. It answers them, too.

    Args:
        period: seconds between two lines, at least.
        clock: a function that returns seconds, which never go back.
    """

    def __init__(self, *, period: float = PERIOD, clock: Callable[[], float] = time.monotonic) -> None:
        self._period = period
        self._clock = clock
        self._next_at = -math.inf
        self._unsaid = 0

    async def answer(self, request: Request, error: Exception) -> Response:
        """Answer 503, and log a line once in a period.

        Args:
            request: the request.
            error: a HubOverloaded.

        Returns:
            The answer, with Retry-After.
        """
        now = self._clock()
        if now < self._next_at:
            self._unsaid += 1
        else:
            reason = cast("HubOverloaded", error).reason
            others = f" ({self._unsaid} more requests were refused since the last such line)" if self._unsaid else ""
            _log.warning("the hub is overloaded: %s%s", reason, others)
            self._next_at, self._unsaid = now + self._period, 0
        return await answer_overloaded(request, error)
