"""Retries: which calls are retried, when, and how often.

tenacity counts and waits. It is a single package without dependencies. It retries calls, not requests, so it sees the errors
of this package and works with any httpx client that is passed in. It bounds the time as well as the attempts, and tests can
replace its sleep.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from gatekeeper.errors import HubError, HubTransportError

__all__ = ("MayRepeat", "Retries", "if_it_may_pass", "if_nothing_was_sent", "never")

MayRepeat = Callable[[BaseException], bool]

# Full jitter, as for the refresher: a random share of 0.5, 1, 2, 4 and then 5 seconds.
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
_jittered = wait_random_exponential(multiplier=0.5, max=5)

_TEMPORARY = frozenset({429, 500, 502, 503, 504})
# Mistakes on our side, which every retry would repeat.
_LASTING = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def if_it_may_pass(error: BaseException) -> bool:
    """Whether a retry may succeed, for calls that are safe to repeat."""
    if isinstance(error, HubTransportError):
        return isinstance(error.__cause__, httpx.TransportError) and not isinstance(error.__cause__, _LASTING)
    return isinstance(error, HubError) and error.status in _TEMPORARY


def if_nothing_was_sent(error: BaseException) -> bool:
    """Whether nothing was sent. A call that is not idempotent is retried only then."""
    return isinstance(error, HubTransportError) and isinstance(error.__cause__, _NOTHING_SENT)


def never(_error: BaseException) -> bool:
    """Never retry, for calls whose sender has a schedule of its own."""
    return False


class Retries:
    """How a client retries its calls.

    Args:
        max_attempts: attempts at most; 1 disables retries.
        within: seconds from the first attempt within which a retry may begin.
    """

    def __init__(self, max_attempts: int, within: float) -> None:
        self._max_attempts = max_attempts
        self._within = within

    @property
    def problems(self) -> Iterator[str]:
        """Yield one sentence for each mistake in the options."""
        if self._max_attempts < 1:
            yield f"max_attempts is {self._max_attempts}: expected 1 or more"
        if not self._within >= 0:
            yield f"retry_within is {self._within}: expected seconds, 0 or more"

    def blocking(self, may_repeat: MayRepeat, sleep: Callable[[float], None]) -> Retrying:
        """The attempts of one call, for a `for` loop."""
        return Retrying(sleep=sleep, **self._options(may_repeat))

    def awaiting(self, may_repeat: MayRepeat, sleep: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
        """The attempts of one call, for an `async for` loop."""
        return AsyncRetrying(sleep=sleep, **self._options(may_repeat))

    def _options(self, may_repeat: MayRepeat) -> dict[str, Any]:
        return {
            "retry": retry_if_exception(may_repeat),
            "wait": _seconds_until_next,
            "stop": stop_after_attempt(self._max_attempts) | stop_before_delay(self._within),
            "reraise": True,
        }


def _seconds_until_next(state: RetryCallState) -> float:
    error = None if state.outcome is None else state.outcome.exception()
    asked_for = error.retry_after if isinstance(error, HubError) else None
    return _jittered(state) + max(0.0, asked_for or 0.0)
