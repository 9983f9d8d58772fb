"""A decision as a response: status, headers and body, for any server."""

from collections.abc import Iterable
from typing import NamedTuple

from gatekeeper.gate.decisions import Conflict, Decision
from gatekeeper.web.cors import PUBLIC, CorsHeaders
from gatekeeper.web.request import Header

__all__ = ("Answer", "problem", "refusal")


class Answer(NamedTuple):
    """A response that does not come from the app. Its list of headers is never shared."""

    status: int
    headers: list[Header]
    body: bytes


# What a page's script may read of a refusal. Everything in it is public, so it names no origin and allows no credentials.
_READABLE: tuple[Header, ...] = (PUBLIC, (b"access-control-expose-headers", b"Retry-After"))


def refusal(
    decision: Decision, origin: bytes | Conflict | None, cors: CorsHeaders, *, readable: bool, host: bytes | None = None
) -> Answer:
    """The answer to a refused HTTP request.

    Args:
        decision: the decision that refuses it.
        origin: the value of its Origin header; None where there is none.
        cors: the headers of the policy.
        readable: whether a page's script may read why.
        host: the value of its Host header, if it is known.

    Returns:
        The answer. It never allows credentials.
    """
    vary = cors.vary_with_referer if origin is None else cors.vary
    return problem(decision, (vary, *_READABLE) if readable else (vary,), host=host)


def problem(decision: Decision, headers: Iterable[Header] = (), *, host: bytes | None = None) -> Answer:
    """A refusal as application/problem+json (RFC 9457).

    Args:
        decision: the decision that refuses the request.
        headers: headers to put before those of the problem.
        host: the value of the request's Host header, if it is known.

    Returns:
        The answer, which caches must not store.
    """
    body = decision.problem_json(from_own_frame=host is not None and _is_at(host, decision.origin))
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


def _is_at(host: bytes, origin: str | None) -> bool:
    """Whether an origin is at this host and port, whatever its scheme: a proxy may have ended TLS."""
    scheme, _, authority = (origin or "").partition("://")
    port = {"https": ":443", "http": ":80"}.get(scheme, "")
    return authority != "" and host.decode("latin-1").strip().lower() in {authority, authority + port}
