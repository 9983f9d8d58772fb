"""A decision as a response: status, headers and body, for any server."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final, NamedTuple

from starlette.requests import HTTPConnection
from starlette.types import Send

from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.gate.page import read_page
from gatekeeper.web.cors import PUBLIC, CorsHeaders, CorsPolicy
from gatekeeper.web.request import Header, is_at, single_header

__all__ = ("KEY_HEADER", "Answer", "answer", "document", "is_from_own_host", "problem", "refusal", "send_answer")

KEY_HEADER: Final = "data-client-key"


class Answer(NamedTuple):
    """A response that does not come from the app.

    Attributes:
        status: the status code.
        headers: names in lower case and values, in a list of its own.
        body: the body.
    """

    status: int
    headers: list[Header]
    body: bytes


def answer(
    decision: Decision,
    request: HTTPConnection | Mapping[str, Any],
    *,
    cors: CorsPolicy | None = None,
    readable_denials: bool = True,
) -> Answer:
    """The answer of the middleware, for handlers that decide by themselves.

    Args:
        decision: what `await gate.check(key, origin, referer=…)` has returned for the request.
        request: the request, of Starlette or as an ASGI scope.
        cors: the CORS policy; None means `CorsPolicy()`.
        readable_denials: whether the script of a refused page may read the reason; never with credentials.

    Returns:
        The whole response, if the decision refuses the request, or if the request names several origins, of which the
        handler has read one. Otherwise the headers to add to the response of the handler, with status 200 and no body. They
        name the page only if the decision is on the Origin of the request.
    """
    scope = request.scope if isinstance(request, HTTPConnection) else request
    fields = scope.get("headers") or ()
    origin = single_header(fields, b"origin")
    headers = CorsHeaders(CorsPolicy() if cors is None else cors, KEY_HEADER)
    if decision.allowed and origin is CONFLICT:
        decision = Decision(Reason.ORIGIN_CONFLICT, decision.key, decision.last8)
    if not decision.allowed:
        own = is_from_own_host(fields, decision)
        return refusal(decision, origin, headers, readable=readable_denials, from_own_frame=own)
    page = read_page(origin, None)
    if origin is None or (isinstance(origin, bytes) and (page.via, page.seen) == (decision.via, decision.origin)):
        return Answer(decision.status, headers.of_allowed(origin), b"")
    return Answer(decision.status, [headers.vary], b"")  # the handler has checked another origin, such as one in the body


# What a page's script may read of a refusal. Everything in it is public, so it names no origin and allows no credentials.
_READABLE: tuple[Header, ...] = (PUBLIC, (b"access-control-expose-headers", b"Retry-After"))


def refusal(
    decision: Decision,
    origin: bytes | Conflict | None,
    cors: CorsHeaders,
    *,
    readable: bool,
    from_own_frame: bool = False,
) -> Answer:
    """The answer to a refused HTTP request.

    Args:
        decision: the decision that refuses it.
        origin: the value of its Origin header; None where there is none.
        cors: the headers of the policy.
        readable: whether a page's script may read why.
        from_own_frame: whether the origin that is refused is that of the service itself.

    Returns:
        The answer. It never allows credentials.
    """
    vary = cors.vary_with_referer if origin is None else cors.vary
    return problem(decision, (vary, *_READABLE) if readable else (vary,), from_own_frame=from_own_frame)


def is_from_own_host(fields: Iterable[Header], decision: Decision) -> bool:
    """Whether a refused request comes from the service's own origin.

    Args:
        fields: the headers of the request.
        decision: the decision that refuses it.
    """
    host = single_header(fields, b"host")
    return isinstance(host, bytes) and is_at(host, decision.origin or "")


def problem(decision: Decision, headers: Iterable[Header] = (), *, from_own_frame: bool = False) -> Answer:
    """A refusal as application/problem+json (RFC 9457).

    Args:
        decision: the decision that refuses the request.
        headers: headers to put before those of the problem.
        from_own_frame: whether the origin that is refused is that of the service itself.

    Returns:
        The answer, which caches must not store.
    """
    body = decision.problem_json(from_own_frame=from_own_frame)
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


def document(decision: Decision, vary: Header) -> Answer:
    """A refusal as HTML, in place of a frame document.

    Any page may frame it: its owner has to see why the widget is missing.

    Args:
        decision: the decision that refuses the document.
        vary: the Vary header.

    Returns:
        The answer, which caches must not store.
    """
    text = {"title": decision.title, "detail": decision.detail, "reason": decision.reason}
    body = _DOCUMENT.format_map({name: escape(value) for name, value in text.items()}).encode()
    answered = [
        vary,
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if decision.retry_after is not None:
        seconds = str(decision.retry_after).encode("ascii")
        # Browsers repeat a document by Refresh only (HTML standard, section 4.2.5.3).
        answered += [(b"retry-after", seconds), (b"refresh", seconds)]
    return Answer(decision.status, answered, body)


async def send_answer(send: Send, answer: Answer, kind: str = "http.response") -> None:
    """Send a response.

    Args:
        send: the server's `send`.
        answer: the response.
        kind: "websocket.http.response" where it refuses a WebSocket.
    """
    await send({"type": f"{kind}.start", "status": answer.status, "headers": answer.headers})
    await send({"type": f"{kind}.body", "body": answer.body})


# Readable in a frame of 280 pixels: the text wraps anywhere, and nothing has a width of its own.
_DOCUMENT = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 1rem; font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; overflow-wrap: anywhere }}
h1 {{ margin: 0 0 .5rem; font-size: 1rem }}
p {{ margin: 0 0 .5rem }}
code {{ color: #666 }}
</style>
<h1>{title}</h1>
<p>{detail}</p>
<p><code>{reason}</code></p>
</html>
"""
