"""Frames: documents of a widget's frames, and grants of their requests."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec
from starlette.types import Message, Scope, Send

from gatekeeper.errors import InvalidOrigin
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision
from gatekeeper.gate.page import BEHIND_FRAME, NOT_FRAMED, Page, RequestIdentity, identity_of, read_page
from gatekeeper.matching.origins import Origin
from gatekeeper.web.answers import Answer
from gatekeeper.web.cors import CorsHeaders, CorsPolicy, merge_vary
from gatekeeper.web.request import Header, Paths, is_at, is_own, path_problems, single_header, value_in_query
from gatekeeper.web.state import decision_in

__all__ = (
    "GRANT_HEADER",
    "GRANT_QUERY",
    "VARIES_BY",
    "Frames",
    "frame_problems",
    "grant_answer",
    "send_document",
    "send_page",
    "send_renewed",
)

GRANT_HEADER: Final = "data-client-grant"
GRANT_QUERY: Final = b"client_grant"
VARIES_BY: Final = (GRANT_HEADER, "Sec-Fetch-Site")  # request headers that the answer to a grant depends on
_GRANT: Final = GRANT_HEADER.encode("ascii")
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_REPLACED: Final = frozenset({b"cache-control", _GRANT})

# The destinations of the requests that load a frame (Fetch standard, section 2.2.5). Browsers send the header to trustworthy
# hosts only.
_FRAMES: Final = frozenset({None, b"iframe", b"frame", b"object", b"embed"})
# Where a frame's own requests come from that have no Origin (Fetch Metadata Request Headers, section 2.4).
_OWN_SITE: Final = frozenset({None, b"same-origin"})


class Frames:
    """Tells what a request has to do with a widget's frame.

    Args:
        documents: the paths of frame documents, as for `exempt`.
        grant_path: the path at which a page's script gets a grant for its frame; None for none.
        own_origins: origins of the widget's frames and of the service, besides the Host of a request.
        cors: the CORS policy.
        key_header: the header that carries the client key.
        ancestors: whether only the key's own pages may frame the app's HTML on other paths.

    Attributes:
        ancestors: as given.
        takes_grants: whether a request may send a grant.
        cors: the CORS headers for `own_origins`.
    """

    def __init__(
        self,
        documents: Collection[str],
        grant_path: str | None,
        own_origins: Collection[str],
        cors: CorsPolicy,
        key_header: str,
        *,
        ancestors: bool,
    ) -> None:
        self.ancestors = ancestors
        self.takes_grants = bool(documents or grant_path or own_origins)
        self._documents = Paths(documents)
        self._answered = Paths(documents if grant_path is None else (*documents, grant_path))
        self._own_origins = frozenset(origin.encode("ascii") for origin in own_origins)
        own = msgspec.structs.replace(
            cors,
            allow_headers=(*cors.allow_headers, GRANT_HEADER),
            expose_headers=(*cors.expose_headers, GRANT_HEADER),
        )
        self.cors = CorsHeaders(own, key_header, varies_by=VARIES_BY)

    def answers(self, scope: Scope) -> bool:
        """Whether a request is for a frame document or a grant."""
        return self._answered.covers(scope) and (scope["method"] == "GET" or self.is_document(scope))

    def is_document(self, scope: Scope) -> bool:
        """Whether a request is for a frame document."""
        return self._documents.covers(scope)

    def is_listed(self, origin: bytes | Conflict | None) -> bool:
        """Whether an origin is one of `own_origins`."""
        return origin in self._own_origins

    def page_of(self, scope: Scope) -> Page:
        """The page that loads a frame document.

        Args:
            scope: the request for the document.

        Returns:
            The page of its Referer. Where it has none, or the service's own (a reload, a link in the frame), the page is not
            known, and the browser enforces the allowlist.
        """
        fields = scope.get("headers") or ()
        destination = single_header(fields, b"sec-fetch-dest")
        if scope["method"] != "GET" or single_header(fields, b"origin") is not None or destination not in _FRAMES:
            return NOT_FRAMED
        referer = single_header(fields, b"referer")
        if referer is None or self._is_own_page(referer, single_header(fields, b"host")):
            return BEHIND_FRAME
        return read_page(None, referer)

    def grant_identity(
        self, scope: Scope, key: bytes | Conflict | None, origin: bytes | Conflict | None
    ) -> RequestIdentity | None:
        """What decides a request that sends a grant.

        Args:
            scope: the request.
            key: the client key that it sends besides.
            origin: the value of its Origin header.

        Returns:
            The identity, in which the origin is None if the request comes from the widget's own frame; None if there is no
            grant.
        """
        if not self.takes_grants:
            return None
        fields = scope.get("headers") or ()
        # One pass in C: a loop over the headers for each of the three takes 0.4 µs.
        sent: dict[bytes, bytes | Conflict] = dict(fields)
        if len(sent) < len(fields):
            sent = _without_repetition(fields)
        grant = sent.get(_GRANT) or None
        if query := scope.get("query_string"):
            grant = value_in_query(query, GRANT_QUERY, grant)
        if grant is None:
            return None
        if origin is None:
            is_frame = sent.get(b"sec-fetch-site") in _OWN_SITE
        else:
            host = sent.get(b"host")
            is_frame = self.is_listed(origin) or (
                isinstance(origin, bytes) and isinstance(host, bytes) and is_own(host, origin)
            )
        # No Origin is empty: an empty one says that the request comes from elsewhere, though not from where.
        return identity_of(key, None if is_frame else origin or b"", None, grant)

    def _is_own_page(self, referer: bytes | Conflict, host: bytes | Conflict | None) -> bool:
        if not isinstance(referer, bytes):
            return False
        try:
            page = str(Origin.from_referer(referer))
        except InvalidOrigin:
            return False
        return self.is_listed(page.encode("ascii")) or (isinstance(host, bytes) and is_at(host, page))


def _without_repetition(fields: Iterable[Header]) -> dict[bytes, bytes | Conflict]:
    """The headers by name; CONFLICT for one that is repeated with another value."""
    sent: dict[bytes, bytes | Conflict] = {}
    for name, value in fields:
        if sent.setdefault(name, value) != value:
            sent[name] = CONFLICT
    return sent


def send_document(send: Send, policy: Header | None, vary: Header) -> Callable[[Message], Awaitable[None]]:
    """A `send` for the app's answer with a frame document.

    Args:
        send: the server's `send`.
        policy: the CSP header that lets only the key's pages frame the document; None to let any page do it.
        vary: the Vary header.

    Returns:
        The function. Caches must not store the answer, which may hold a grant, and no script of another site may read it.
    """

    def send_framed(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = [_NO_STORE, vary] if policy is None else [policy, _NO_STORE, vary]
            for name, value in message.get("headers", ()):
                lower = name.lower()
                if lower == b"vary":
                    merge_vary(headers, value)
                elif lower != b"cache-control" and not lower.startswith(b"access-control-"):
                    headers.append((name, value))
            message = {**message, "headers": headers}
        return send(message)

    return send_framed


def send_page(send: Send, scope: Scope, policy: Callable[[Decision], Header]) -> Callable[[Message], Awaitable[None]]:
    """A `send` for HTML that only a key's own pages may frame.

    Args:
        send: the server's `send`.
        scope: the request.
        policy: gives the CSP header for its decision. A request that is not decided, or only observed, gets none.

    Returns:
        The function.
    """

    def send_framing(message: Message) -> Awaitable[None]:
        headers = message.get("headers", ())
        if message["type"] == "http.response.start" and any(_is_html(*header) for header in headers):
            decision = decision_in(scope)
            if decision is not None and decision.allowed:
                # Add a policy beside the app's own: browsers enforce all of them (CSP3 section 8.1).
                message = {**message, "headers": [*headers, policy(decision)]}
        return send(message)

    return send_framing


def send_renewed(send: Send, scope: Scope) -> Callable[[Message], Awaitable[None]]:
    """A `send` for an answer that renews the grant of its request.

    Args:
        send: the server's `send`.
        scope: the request.

    Returns:
        The function. Caches must not store an answer with a new grant.
    """

    def send_grant(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            decision = decision_in(scope)
            if decision is not None and decision.grant is not None:
                kept = [header for header in message.get("headers", ()) if header[0].lower() not in _REPLACED]
                message = {**message, "headers": [*kept, _NO_STORE, (_GRANT, decision.grant.encode("ascii"))]}
        return send(message)

    return send_grant


def grant_answer(grant: str | None, cors: Iterable[Header], lifetime: float) -> Answer:
    """The answer to a page's script that asks for a grant.

    Args:
        grant: the grant; None for a page that is only observed.
        cors: the CORS headers and Vary.
        lifetime: seconds for which the grant counts.
    """
    body = msgspec.json.encode({"grant": grant, "expires_in": int(lifetime)})
    headers = [
        *cors,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        _NO_STORE,
    ]
    return Answer(200, headers, body)


def frame_problems(
    frames: Collection[str],
    grant_path: object,
    own_origins: Collection[str],
    unguarded: Mapping[str, Collection[str]],
    *,
    key_names: tuple[object, object],
    has_secrets: bool,
) -> Iterator[str]:
    """Yield one sentence for each mistake in the options about frames.

    Args:
        frames: as for GatekeeperMiddleware.
        grant_path: as for GatekeeperMiddleware.
        own_origins: as for GatekeeperMiddleware.
        unguarded: options with paths that are not guarded before the app, by their names.
        key_names: `key_header` and `key_query` of GatekeeperMiddleware.
        has_secrets: whether the gate can sign grants.
    """
    yield from path_problems("frames", frames, **unguarded)
    if grant_path is not None:
        if not isinstance(grant_path, str) or not grant_path.startswith("/") or "*" in grant_path:
            yield f"grant_path is {grant_path!r}: expected one path, such as '/grant'"
        else:
            yield from path_problems("grant_path", (grant_path,), **unguarded, frames=frames)
    if isinstance(own_origins, str) or not isinstance(own_origins, Collection):
        yield f"own_origins is {own_origins!r}: expected a collection of origins, such as ('https://widget.example',)"
    else:
        for origin in own_origins:
            try:
                Origin.parse(str(origin))
            except InvalidOrigin as error:
                yield f"own_origins has {origin!r}: expected an origin such as 'https://widget.example' ({error})"
    if not (frames or grant_path is not None or own_origins):
        return
    for name, given, own in zip(("key_header", "key_query"), key_names, (GRANT_HEADER, GRANT_QUERY.decode()), strict=True):
        if str(given).lower() == own:
            yield f"{name} is {given!r}, which is the name for grants: choose another one"
    if not has_secrets:
        yield (
            "frames, grant_path and own_origins need Gatekeeper(grant_secrets=[…]), the same on all servers: a secret is "
            "derived from the token of a single source only; use the output of `openssl rand -hex 32`"
        )


def _is_html(name: bytes, value: bytes) -> bool:
    return name.lower() == b"content-type" and value[:9].lower() == b"text/html"
