"""GatekeeperMiddleware: asks a gate about every request before the app sees it. Pure ASGI, HTTP and WebSocket."""

# Without it every request would evaluate the annotations of the function that it defines, which takes 0.3 µs.
from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper.errors import ConfigError, DecisionMissing
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.gate.page import Asked, read_page
from gatekeeper.web.cors import CorsHeaders, CorsPolicy, Header, frame_ancestors, is_token
from gatekeeper.web.streams import ResponseStream, WebSocketStream, closing_message

__all__ = ("GatekeeperMiddleware", "decision_from")

STATE_KEY = "gatekeeper"

# Only the gate says who may read a response. ASGI has names in lower case; apps that do not mind it write the standard's.
_REPLACED = frozenset(
    {
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"Access-Control-Allow-Origin",
        b"Access-Control-Allow-Credentials",
    }
)


class GatekeeperMiddleware:
    """Lets a request through if its page may use its client key, and answers it otherwise.

    Args:
        app: the app to guard.
        gatekeeper: the gate that decides.
        key_header: the header that carries the client key.
        key_query: the query parameter that carries it where no header can: WebSockets, EventSource, images.
        cors: what browsers are told.
        exempt: paths that are served without a key, below where the middleware is mounted; "/static/*" for all below one.
        readable_denials: let the refused page's own script read why; never with credentials.
        frame_ancestors: let only the key's own pages frame the app's HTML.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """

    def __init__(
        self,
        app: ASGIApp,
        gatekeeper: Gatekeeper,
        *,
        key_header: str = "data-client-key",
        key_query: str = "client_key",
        cors: CorsPolicy | None = None,
        exempt: Collection[str] = (),
        readable_denials: bool = True,
        frame_ancestors: bool = False,
    ) -> None:
        cors = CorsPolicy() if cors is None else cors
        if problems := tuple(_problems(gatekeeper, key_header, key_query, cors, exempt)):
            raise ConfigError(problems)
        self.app = app
        self._gate = gatekeeper
        self._closes_streams = gatekeeper.closes_streams
        self._key_header = key_header.lower().encode("ascii")
        self._key_query = key_query.encode("ascii")
        self._headers = CorsHeaders(cors, key_header.lower())
        self._gained = self._headers.allowed
        self._gained_by_referer = (self._headers.vary_with_referer,)
        self._enabled_origins = gatekeeper.enabled_origins() if cors.preflight == "strict" else None
        self._exempt_paths = frozenset(path for path in exempt if not path.endswith("*"))
        self._exempt_prefixes = tuple(path[:-1] for path in exempt if path.endswith("*"))
        self._has_exempt = bool(exempt)
        self._readable_denials = readable_denials
        self._frame_ancestors = frame_ancestors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912, PLR0915 - every request's path
        """Guard one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        if self._has_exempt and self._is_exempt(scope):
            await self.app(scope, receive, send)
            return
        key: Any = None
        origin: Any = None
        key_header = self._key_header
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value if origin is None else CONFLICT
            elif name == key_header and value:
                key = value if key is None or key == value else CONFLICT
        # Browsers put no key into a preflight's headers, so a request with one is none.
        if key is None and scope["method"] == "OPTIONS" and _has(scope, b"access-control-request-method"):
            await self._preflight(scope, send, origin)
            return
        if scope["query_string"]:
            key = self._with_query(key, scope["query_string"])
        asked: Any = (key, origin) if origin is not None else (key, None, _single(scope, b"referer"))
        try:
            remembered = self._gate.memo.allowed[asked]
        except KeyError:
            decision = await self._gate.check(key, origin, referer=None if origin is not None else asked[2])
            if not decision.allowed:
                await self._refuse(send, decision, origin)
                return
        else:
            remembered.uses += 1
            decision = remembered.decision
        try:
            scope["state"][STATE_KEY] = decision
        except KeyError:
            scope["state"] = {STATE_KEY: decision}
        gained = self._gained if origin is not None else self._gained_by_referer
        headers = [*gained] if origin is None else [(b"access-control-allow-origin", origin), *gained]
        if self._frame_ancestors:
            send = self._framing(send, decision)

        given = send

        # Not a coroutine function: it hands on the awaitable of the server's own send, which saves one a message.
        def send_gained(message: Any) -> Awaitable[None]:
            nonlocal send
            if message["type"] == "http.response.start":
                for header in message.get("headers", ()):
                    if header[0] not in _REPLACED:
                        headers.append(header)  # noqa: PERF401 - a comprehension costs a function call
                # A copy, for an app may send one and the same message again and again.
                message = message.copy()
                message["headers"] = headers
            elif "more_body" in message:
                send = self._streaming(asked, send, message, headers)
            return send(message)

        try:
            await self.app(scope, receive, send_gained)
        except BaseException as error:
            if not isinstance(send, ResponseStream) or not await send.leave(error):
                raise
        if send is not given:
            await cast("ResponseStream", send).leave(None)  # nothing else takes the place of what was given

    def _streaming(self, asked: Asked, send: Send, piece: Message, headers: list[Header]) -> Send:
        """What sends this piece of a response and the rest; one that tells its length always comes to its end."""
        if not piece["more_body"] or not self._closes_streams or isinstance(send, ResponseStream):
            return send
        if any(name.lower() == b"content-length" for name, _ in headers):
            return send
        return ResponseStream(asked, send, self._gate.watch)

    async def _preflight(self, scope: Scope, send: Send, origin: bytes | Conflict | None) -> None:
        page = read_page(origin, None)
        if page.origin is None or not isinstance(origin, bytes):
            await self._refuse(send, Decision(page.reason, origin=page.seen, problem=page.problem), None)
            return
        if self._enabled_origins is not None:
            decision = await self._gate.check(self._with_query(None, scope["query_string"]), origin)
            if decision.reason is Reason.KEY_MISSING:
                some_key = self._enabled_origins.allows(page.origin)
                decision = Decision(Reason.ALLOWED if some_key else Reason.ORIGIN_NOT_ALLOWED, origin=page.seen)
            if not decision.allowed:
                await self._refuse(send, decision, None)
                return
        private_network = _has(scope, b"access-control-request-private-network")
        headers = self._headers.preflight(origin, private_network=private_network)
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, send: Send, decision: Decision, origin: bytes | Conflict | None) -> None:
        headers = [self._headers.vary_with_referer if origin is None else self._headers.vary]
        if self._readable_denials and isinstance(origin, bytes) and _is_well_formed(decision):
            headers.append((b"access-control-allow-origin", origin))
        start, body = _answer(decision, headers)
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": body})

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or self._is_exempt(scope):
            await self.app(scope, receive, send)
            return
        asked = self._with_query(None, scope.get("query_string", b"")), _single(scope, b"origin")
        decision = await self._gate.check(*asked)
        if decision.allowed:
            scope.setdefault("state", {})[STATE_KEY] = decision
            if self._closes_streams:
                await self._converse(scope, WebSocketStream(asked, receive, send))
            else:
                await self.app(scope, receive, send)
        elif "websocket.http.response" in (scope.get("extensions") or ()):
            start, body = _answer(decision, [])
            await send({"type": "websocket.http.response.start", **start})
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            await send(closing_message(decision))

    async def _converse(self, scope: Scope, stream: WebSocketStream) -> None:
        await self._gate.watch(stream)
        try:
            await self.app(scope, stream.receive, stream.send)
        except BaseException as error:
            if not await stream.leave(error):
                raise
        else:
            await stream.leave(None)

    def _is_exempt(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in self._exempt_paths:
            return True
        # An app may take "/static/../chat" for "/chat", or decode or unslash once more, so nothing leads back up here.
        return path.startswith(self._exempt_prefixes) and not any(odd in path for odd in ("/..", "\\", "%"))

    def _with_query(self, key: bytes | Conflict | None, query: bytes) -> bytes | Conflict | None:
        """The key of a request whose header gave the one passed; empty values count as none given."""
        is_encoded = b"%" in query or b"+" in query
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            if is_encoded:
                name, value = _decoded(name), _decoded(value)
            if name == self._key_query and value:
                key = value if not key or key == value else CONFLICT
        return key

    def _framing(self, send: Send, decision: Decision) -> Send:
        allowlist = None if decision.key is None else self._gate.allowlist(decision.key)
        policy = frame_ancestors(allowlist)

        def send_framing(message: Message) -> Awaitable[None]:
            headers = message.get("headers", ())
            if message["type"] == "http.response.start" and any(_is_html(*header) for header in headers):
                # One more policy beside the app's own: browsers enforce them all (CSP3 section 8.1).
                message = {**message, "headers": [*headers, policy]}
            return send(message)

        return send_framing


def decision_from(request_or_scope: HTTPConnection | Mapping[str, Any]) -> Decision:
    """The decision on a request that the middleware has let through.

    Args:
        request_or_scope: a Starlette request or WebSocket, or an ASGI scope.

    Returns:
        The decision.

    Raises:
        DecisionMissing: if the middleware has not seen the request, or its path is exempt.
    """
    scope = request_or_scope.scope if isinstance(request_or_scope, HTTPConnection) else request_or_scope
    decision = scope.get("state", {}).get(STATE_KEY)
    if not isinstance(decision, Decision):
        path = scope.get("path")
        raise DecisionMissing(
            f"no decision was made on the request to {path!r}: mount GatekeeperMiddleware around the app, "
            "and do not exempt the path"
        )
    return decision


def _answer(decision: Decision, headers: list[Header]) -> tuple[dict[str, Any], bytes]:
    body = decision.problem_json()
    headers += (
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    )
    if decision.retry_after is not None:
        headers.append((b"retry-after", str(decision.retry_after).encode("ascii")))
    return {"status": decision.status, "headers": headers}, body


def _is_well_formed(decision: Decision) -> bool:
    return decision.origin is not None and decision.origin != "null"


def _single(scope: Scope, wanted: bytes) -> bytes | Conflict | None:
    values = [value for name, value in scope["headers"] if name == wanted]
    return None if not values else values[0] if len(values) == 1 else CONFLICT


def _has(scope: Scope, wanted: bytes) -> bool:
    return any(name == wanted for name, _ in scope["headers"])


def _is_html(name: bytes, value: bytes) -> bool:
    return name.lower() == b"content-type" and value[:9].lower() == b"text/html"


def _decoded(text: bytes) -> bytes:
    """As an app reads a query (URL standard 5.1): "+" is a space, %xx a byte."""
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


def _problems(  # noqa: C901 - one condition for every mistake
    gatekeeper: object, key_header: object, key_query: object, cors: object, exempt: Collection[str]
) -> Iterator[str]:
    if not isinstance(gatekeeper, Gatekeeper):
        yield f"gatekeeper is {gatekeeper!r}: expected a Gatekeeper"
    if not is_token(key_header) or str(key_header).lower() in {"origin", "referer"}:
        yield f"key_header is {key_header!r}: expected the name of a header of its own, such as 'data-client-key'"
    if not is_token(key_query):
        yield f"key_query is {key_query!r}: expected the name of a query parameter, such as 'client_key'"
    if not isinstance(cors, CorsPolicy):
        yield f"cors is {cors!r}: expected a CorsPolicy"
    elif cors.allow_credentials:
        if cors.preflight != "strict":
            yield "allow_credentials=True needs CorsPolicy(preflight='strict'): open preflights answer every origin"
        if isinstance(gatekeeper, Gatekeeper) and not gatekeeper.https_only:
            yield "allow_credentials=True needs Gatekeeper(https_only=True): anybody on the path can forge an http page"
    if isinstance(exempt, str):
        yield f"exempt is one string, {exempt!r}: expected several paths, such as ({exempt!r},)"
        return
    for path in exempt:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path[:-1]:
            yield f"exempt has {path!r}: expected a path such as '/healthz', or '/static/*' for all below one"
        elif path.endswith("*") and not path.endswith("/*"):
            yield f"exempt has {path!r}: expected '/*' at its end, so that it stands for whole segments of a path"
        elif path == "/*":
            yield "exempt has '/*', which leaves nothing guarded: name the paths that need no key"
