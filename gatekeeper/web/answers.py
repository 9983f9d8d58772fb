"""A decision as a response: status, headers and body, for any server."""

from collections.abc import Iterable
from typing import NamedTuple

from gatekeeper.gate.decisions import Conflict, Decision
from gatekeeper.web.cors import CorsHeaders
from gatekeeper.web.request import Header

__all__ = ("Answer", "problem", "refusal")


class Answer(NamedTuple):
    """A response that does not come from the app. Its list of headers is never shared."""

    status: int
    headers: list[Header]
    body: bytes


def refusal(decision: Decision, origin: bytes | Conflict | None, cors: CorsHeaders, *, readable: bool) -> Answer:
    """The answer to a refused HTTP request.

    Args:
        decision: the decision that refuses it.
        origin: the value of its Origin header; None where there is none.
        cors: the headers of the policy.
        readable: whether the page's own script may read why.

    Returns:
        The answer. It never allows credentials.
    """
    headers = [cors.vary_with_referer if origin is None else cors.vary]
    if readable and isinstance(origin, bytes) and decision.origin not in (None, "null"):
        headers.append((b"access-control-allow-origin", origin))
    return problem(decision, headers)


def problem(decision: Decision, headers: Iterable[Header] = ()) -> Answer:
    """A refusal as application/problem+json (RFC 9457).

    Args:
        decision: the decision that refuses the request.
        headers: headers to put before those of the problem.

    Returns:
        The answer, which caches must not store.
    """
    body = decision.problem_json()
    answered = [
        *headers,
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if decision.retry_after is not None:
        answered.append((b"retry-after", str(decision.retry_after).encode("ascii")))
    return Answer(decision.status, answered, body)
