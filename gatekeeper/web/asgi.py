"""GatekeeperMiddleware: checks every request before the app sees it. Pure ASGI, HTTP and WebSocket."""

# Keeps annotations unevaluated: those of the function defined in `__call__` would cost every request 0.3 µs.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper.errors import ConfigError
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.gate.page import RequestIdentity, identity_of, read_page
from gatekeeper.web.answers import Answer, document, is_from_own_host, problem, refusal, send_answer
from gatekeeper.web.cors import OWN, CorsHeaders, CorsPolicy, frame_ancestors, merge_vary, with_headers
from gatekeeper.web.frames import VARIES_BY, Frames, grant_answer, send_document, send_page, send_renewed
from gatekeeper.web.key_check import KeyCheck, Unchecked
from gatekeeper.web.options import option_problems
from gatekeeper.web.request import Header, has_header, single_header, value_in_query
from gatekeeper.web.state import STATE_KEY, keep_decision
from gatekeeper.web.streams import ResponseStream, WebSocketStream, closing_message, send_of
from gatekeeper.web.unguarded import Unguarded, public

__all__ = ("GatekeeperMiddleware",)

# Apps spell headers in any case. Most names are told apart by their length alone; the others are put into lower case.
_VARY = len(b"vary")
_LONG = min(len(name) for name in OWN if name != b"vary")

_SUCCESSES = range(200, 300)


class GatekeeperMiddleware:
    """Pass allowed requests on to the app, and refuse the others.

    Args:
        app: the app to guard.
        gatekeeper: the gate that decides.
        key_header: the header that carries the client key.
        key_query: the query parameter that carries it where no header can: WebSockets, EventSource, images.
        cors: the CORS policy.
        exempt: paths that need no key, relative to the mount point; "/static/*" covers every path below "/static/".
        exempt_cors: whether the script of any page may read the answers of these paths; never with credentials.
        key_in_body: paths whose endpoints find the key themselves and call `check_key`, written as for `exempt`.
        readable_denials: whether the script of a refused page may read the reason; never with credentials.
        frames: paths of the documents of the widget's frames, written as for `exempt`.
        grant_path: the path at which a page's script gets a grant for its frame; None for none.
        own_origins: origins of the widget's frames and of the service, besides the Host that a request names.
        frame_ancestors: whether only the key's own pages may frame the app's HTML on other paths.
        loader_path: the path below which widget.js, widget.mjs and frame.js are served to any page; None for none.

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
        exempt_cors: bool = False,
        key_in_body: Collection[str] = (),
        readable_denials: bool = True,
        frames: Collection[str] = (),
        grant_path: str | None = None,
        own_origins: Collection[str] = (),
        frame_ancestors: bool = False,
        loader_path: str | None = None,
    ) -> None:
        cors = CorsPolicy() if cors is None else cors
        problems = option_problems(
            gatekeeper,
            (key_header, key_query),
            cors,
            exempt=exempt,
            exempt_cors=exempt_cors,
            key_in_body=key_in_body,
            frames=frames,
            grant_path=grant_path,
            own_origins=own_origins,
            loader_path=loader_path,
        )
        if found := tuple(problems):
            raise ConfigError(found)
        self.app = app
        self._gate = gatekeeper
        self._allowed = gatekeeper.memo.allowed
        self._clock = gatekeeper.clock
        self._key_header = key_header.lower().encode("ascii")
        self._key_query = key_query.encode("ascii")
        self._frames = None
        if frames or grant_path or own_origins or frame_ancestors:
            self._frames = Frames(frames, grant_path, own_origins, cors, key_header.lower(), ancestors=frame_ancestors)
        varies_by = VARIES_BY if self._frames is not None and self._frames.takes_grants else ()
        self._cors = CorsHeaders(cors, key_header.lower(), varies_by=varies_by)
        self._gained = self._cors.allowed
        self._enabled_origins = gatekeeper.enabled_origins() if cors.preflight == "strict" else None
        self._unguarded = None
        if exempt or key_in_body or loader_path is not None:
            checked = partial(self._decided_by_endpoint, Unchecked(gatekeeper))
            self._unguarded = Unguarded(public(app) if exempt_cors else app, exempt, loader_path, key_in_body, checked)
        self._readable_denials = readable_denials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912, PLR0915 - every request's path
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        if self._unguarded is not None and self._unguarded.covers(scope):
            await self._unguarded(scope, receive, send)
            return
        key: Any = None
        origin: Any = None
        key_header = self._key_header
        try:
            fields, query = scope["headers"] or (), scope["query_string"]
        except KeyError:  # a server or a test that leaves out what is empty
            fields, query = scope.get("headers") or (), scope.get("query_string")
        for name, value in fields:
            if name == b"origin":
                origin = value if origin is None else CONFLICT
            elif name == key_header and value:
                key = value if key is None or key == value else CONFLICT
        # Browsers never send the key header with a preflight, so a request with a key is an actual request.
        if key is None and scope["method"] == "OPTIONS" and has_header(fields, b"access-control-request-method"):
            await self._preflight(scope, send, origin)
            return
        if query:
            key = value_in_query(query, self._key_query, key)
        identity: Any = None
        # CPython 3.11 calls a local 10 ns faster than an attribute.
        app, clock = self.app, self._clock
        gate, gained = self._gate, self._gained
        if self._frames is not None:
            frames = self._frames
            if frames.answers(scope):
                await self._frame(frames, scope, receive, send, key, origin)
                return
            if frames.ancestors:
                send = send_page(send, scope, self._ancestors)
            identity = frames.grant_identity(scope, key, origin)
            if identity is not None:
                gained = frames.cors.allowed
                remembered = gate.memo.find_allowed(identity, clock())
                if remembered is None or remembered.decision.grant is not None:
                    send = send_renewed(send, scope)
        if identity is None:
            identity = (key, origin) if origin is not None else (key, None, single_header(fields, b"referer"))
            try:
                remembered = self._allowed[identity]
            except KeyError:
                remembered = None
        if remembered is None or clock() >= remembered.lease.ends_at:
            decision = await self._check(identity, scope, send, origin)
            if decision is None:
                return
            if not decision.allowed:
                identity, origin, gained = None, None if origin is None else b"*", self._cors.observed
            elif origin is CONFLICT:  # only allow_all() of gatekeeper.testing allows that
                origin = None
        else:
            remembered.uses += 1.0
            decision = remembered.decision
        try:
            scope["state"][STATE_KEY] = decision
        except (KeyError, TypeError):  # no state, or None
            scope["state"] = {STATE_KEY: decision}
        headers = [self._cors.vary_with_referer] if origin is None else [(b"access-control-allow-origin", origin), *gained]

        given = send

        # Not a coroutine function: returning the awaitable of the server's send saves a coroutine per message.
        def send_gained(message: Any) -> Awaitable[None]:
            nonlocal send
            if message["type"] == "http.response.start":
                for header in message.get("headers", ()):
                    length = len(header[0])
                    if (length != _VARY and length < _LONG) or header[0].lower() not in OWN:
                        headers.append(header)  # a comprehension costs a function call
                    elif length == _VARY:
                        merge_vary(headers, header[1])
                # Copy the message: an app may send the same one with every response.
                message = message.copy()
                message["headers"] = headers
                if "trailers" in message:
                    send = send_of(gate, identity, send, headers, trailers=message["trailers"])
            elif "more_body" in message:
                send = send_of(gate, identity, send, headers, more=message["more_body"])
            return send(message)

        try:
            await app(scope, receive, send_gained)
        except BaseException as error:
            if not isinstance(send, ResponseStream) or not await send.leave(error):
                raise
        if send is not given:
            await cast("ResponseStream", send).leave(None)  # only a ResponseStream ever replaces the given send

    async def _check(
        self, identity: RequestIdentity, scope: Scope, send: Send, origin: bytes | Conflict | None
    ) -> Decision | None:
        """The decision on a request that is not remembered as allowed; None once it is refused."""
        memo = self._gate.memo
        # What is remembered needs no wait for its list: it is dropped when the list is overdue.
        remembered = memo.find(identity, self._clock())
        decision = await self._gate.check_request(identity) if remembered is None else memo.use(remembered)
        if not decision.allowed:
            own = self._is_from_own_frame(scope, decision)
            if not self._gate.admits(decision, from_own_frame=own):
                await self._refuse(send, decision, origin, own=own)
                return None
        return decision

    async def _preflight(self, scope: Scope, send: Send, origin: bytes | Conflict | None) -> None:
        page = read_page(origin, None)
        cors, answered = self._cors, origin if isinstance(origin, bytes) else None
        decision: Decision | None = None
        if page.origin is None or answered is None:
            decision = Decision(page.reason, origin=page.seen, problem=page.problem)
        elif self._frames is not None and self._frames.is_listed(origin):
            cors = self._frames.cors
        elif self._enabled_origins is not None:
            key = value_in_query(scope.get("query_string") or b"", self._key_query)
            decision = await self._gate.check_request((key, answered))
            if decision.reason is Reason.KEY_MISSING:
                some_key = self._enabled_origins.allows(page.origin)
                decision = Decision(Reason.ALLOWED if some_key else Reason.ORIGIN_NOT_ALLOWED, origin=page.seen)
        if decision is not None and not decision.allowed:
            # While the gate observes, the actual request follows, and is the one to be recorded.
            if self._gate.enforce and not self._admits(scope, decision):
                # No script can read the answer to a preflight, and the headers of CORS would grant it.
                own = self._is_from_own_frame(scope, decision)
                await send_answer(send, refusal(decision, None, self._cors, readable=False, from_own_frame=own))
                return
            answered = None
        await send_answer(send, Answer(204, cors.preflight(answered, scope["headers"]), b""))

    def _refuse(self, send: Send, decision: Decision, origin: bytes | Conflict | None, *, own: bool) -> Awaitable[None]:
        return send_answer(send, refusal(decision, origin, self._cors, readable=self._readable_denials, from_own_frame=own))

    def _admits(self, scope: Scope, decision: Decision) -> bool:
        """Whether a request may go on, asked once for each. A refused page is recorded."""
        return decision.allowed or self._gate.admits(decision, from_own_frame=self._is_from_own_frame(scope, decision))

    def _is_from_own_frame(self, scope: Scope, decision: Decision) -> bool:
        """Whether the origin of a refused request is that of the service itself, if that matters."""
        if not decision.differs_in_own_frame:
            return False
        is_listed = self._frames is not None and self._frames.is_listed((decision.origin or "").encode())
        return is_listed or is_from_own_host(scope.get("headers") or (), decision)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        if self._unguarded is not None and self._unguarded.needs_no_key(scope):
            await self._unguarded(scope, receive, send)
            return
        key = value_in_query(scope.get("query_string") or b"", self._key_query)
        origin = single_header(scope.get("headers") or (), b"origin")
        granted = None if self._frames is None else self._frames.grant_identity(scope, key, origin)
        identity = granted or (key, origin)
        decision = await self._gate.check_request(identity)
        if self._admits(scope, decision):
            keep_decision(scope, decision)
            if decision.allowed and self._gate.closes_streams:
                await self._converse(scope, WebSocketStream(identity, receive, send))
            else:
                await self.app(scope, receive, send)
        elif "websocket.http.response" in (scope.get("extensions") or ()):
            answer = problem(decision, from_own_frame=self._is_from_own_frame(scope, decision))
            await send_answer(send, answer, "websocket.http.response")
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

    async def _decided_by_endpoint(self, unchecked: Unchecked, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose endpoint finds the key, and calls `check_key`."""
        fields = scope.get("headers") or ()
        origin = single_header(fields, b"origin")
        keys = {value for name, value in fields if name == self._key_header and value}
        key = CONFLICT if len(keys) > 1 else next(iter(keys), None)
        if key is None and scope["method"] == "OPTIONS" and has_header(fields, b"access-control-request-method"):
            await self._preflight(scope, send, origin)
            return
        query = scope.get("query_string") or b""
        # Not the scope, which holds the check: a cycle would wait for a garbage collection.
        sent = {"headers": fields, "query_string": query}
        identify, admits = partial(self._identity, sent, origin), partial(self._admits, sent)
        check = KeyCheck(self._gate, admits, value_in_query(query, self._key_query, key), identify)
        check.attach(scope)
        if self._frames is not None:
            send = send_renewed(send, scope)
            if self._frames.ancestors:
                send = send_page(send, scope, self._ancestors)
        is_replaced = False

        async def send_checked(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start":
                if check.decision is None and message["status"] in _SUCCESSES:
                    unchecked.found(scope["path"])
                if check.decision is not None and check.is_refused:
                    is_replaced = True
                    own = self._is_from_own_frame(scope, check.decision)
                    await self._refuse(send, check.decision, origin, own=own)
                    return
                message = with_headers(message, self._gained_by(check.decision, origin))
            elif check.is_refused and not is_replaced:  # the answer has begun before the check
                is_replaced = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            if not is_replaced:
                await send(message)

        await self._stream(lambda: check.identity, scope, receive, send_checked)

    def _gained_by(self, decision: Decision | None, origin: bytes | Conflict | None) -> list[Header]:
        """The headers of an answer of the app's own, such as a 404, if nothing was decided."""
        if decision is None:
            return [self._cors.vary] if self._gate.enforce else self._cors.of_observed(origin)
        cors = self._frames.cors if self._frames is not None and decision.via == "grant" else self._cors
        return cors.of_allowed(origin) if decision.allowed else cors.of_observed(origin)

    def _identity(self, scope: Scope, origin: bytes | Conflict | None, key: bytes | Conflict | None) -> RequestIdentity:
        """What decides a request with this key."""
        identity = None if self._frames is None else self._frames.grant_identity(scope, key, origin)
        return identity or identity_of(key, origin, single_header(scope.get("headers") or (), b"referer"))

    async def _frame(
        self,
        frames: Frames,
        scope: Scope,
        receive: Receive,
        send: Send,
        key: bytes | Conflict | None,
        origin: bytes | Conflict | None,
    ) -> None:
        """Answer a request for a frame document or a grant."""
        if frames.is_document(scope):
            decision = await self._gate.grant(key, frames.page_of(scope))
            if not self._admits(scope, decision):
                await send_answer(send, document(decision, self._cors.vary_with_referer))
                return
            keep_decision(scope, decision)
            policy, identity = None, None
            if decision.grant is not None:
                policy, identity = self._ancestors(decision), identity_of(None, None, None, decision.grant.encode())
            send = send_document(send, policy, self._cors.vary_with_referer)
            await self._stream(lambda: identity, scope, receive, send)
            return
        decision = await self._gate.grant(key, read_page(origin, None))
        if not self._admits(scope, decision):
            await self._refuse(send, decision, origin, own=self._is_from_own_frame(scope, decision))
        elif decision.grant is None:
            await send_answer(send, grant_answer(None, self._cors.of_observed(origin), 0.0))
        else:
            lifetime = self._gate.grant_lifetime or 0.0
            await send_answer(send, grant_answer(decision.grant, self._cors.of_allowed(origin), lifetime))

    async def _stream(
        self, identify: Callable[[], RequestIdentity | None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve an answer that ends once its request is no longer allowed, if it was decided."""
        start: Message = {}

        def send_piece(message: Message) -> Awaitable[None]:
            nonlocal send, start
            if message["type"] == "http.response.start":
                start = message
            elif "more_body" in message:
                more, trailers = message["more_body"], start.get("trailers", False)
                send = send_of(self._gate, identify(), send, start.get("headers", ()), more=more, trailers=trailers)
            return send(message)

        try:
            await self.app(scope, receive, send_piece)
        except BaseException as error:
            if not isinstance(send, ResponseStream) or not await send.leave(error):
                raise
        if isinstance(send, ResponseStream):
            await send.leave(None)

    def _ancestors(self, decision: Decision) -> Header:
        key, account = decision.key, decision.account
        return frame_ancestors(None if key is None else self._gate.allowlist(key, account=account))
