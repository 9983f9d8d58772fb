"""The contenders of `benchmarks.overhead`, by kind of request and name."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from asgi_cors import asgi_cors
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks import keys
from benchmarks.asgi import get, get_in_frame, headerless_app, mere_app, preflight, widget_app
from gatekeeper import Gatekeeper, GatekeeperMiddleware, Reason
from tests.support.cases import CASES, Case

__all__ = ("KINDS", "MANY", "ORIGIN", "Contender", "Name", "allowed", "answered", "flat", "granted")

KEY = keys.client_key(0).encode()
ORIGIN = keys.origin(0).encode()
FOREIGN = b"https://shop.evil.example"
REFERER = ORIGIN + b"/"
IN_ROTATION = 500  # keys in rotation: the same number at every size, and fewer than the gate remembers
MANY = 1_000_003  # a key with many entries
KINDS = ("header key", "query key", "Referer", "no app headers")
KNOWN: dict[tuple[bytes | None, bytes | None], object] = {(KEY, ORIGIN): object()}

Name = tuple[str, str]  # the kind of the request and the name of the contender


class Contender(NamedTuple):
    """An app, and a function that makes its request of each number."""

    app: ASGIApp
    request: Callable[[int], dict[str, Any]]


class Floor:
    """The minimum of any guard: a header loop, a lookup, a send."""

    def __init__(self, app: ASGIApp, known: Mapping[tuple[bytes | None, bytes | None], object] = KNOWN) -> None:
        self.app = app
        self.known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = origin = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"data-client-key":
                key = value
        self.known.get((key, origin))

        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"access-control-allow-origin", origin))
            await send(message)

        await self.app(scope, receive, wrapped)


class Lookup(BaseHTTPMiddleware):
    """The floor as a BaseHTTPMiddleware, as many guards are written."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        origin = request.headers.get("origin", "")
        KNOWN.get((request.headers.get("data-client-key", "").encode(), origin.encode()))
        response = await call_next(request)
        response.headers["access-control-allow-origin"] = origin
        return response


def allowed(gate: Gatekeeper, cors_origins: int) -> Iterator[tuple[Name, Contender]]:
    """The contenders for allowed requests."""
    app = widget_app().build_middleware_stack()
    listed = [f"https://listed-{number}.example.com" for number in range(cors_origins - 1)] + [ORIGIN.decode()]
    requests: dict[str, Callable[[int], dict[str, Any]]] = {
        "header key": lambda _: get(key=KEY, origin=ORIGIN, referer=REFERER),
        "query key": lambda _: get(origin=ORIGIN, referer=REFERER, query=b"client_key=" + KEY),
        "Referer": lambda _: get(key=KEY, referer=REFERER),
        "no app headers": lambda _: get(key=KEY, origin=ORIGIN, referer=REFERER),
    }
    for kind, request in requests.items():
        inner = headerless_app if kind == "no app headers" else app
        beside: dict[str, ASGIApp] = {
            "bare": inner,
            "floor": Floor(inner),
            "gatekeeper": GatekeeperMiddleware(inner, gate),
            "CORSMiddleware": CORSMiddleware(inner, allow_origins=[ORIGIN.decode()]),
        }
        for name, guarded in beside.items():
            yield (kind, name), Contender(guarded, request)
    peers: dict[str, ASGIApp] = {
        f"CORSMiddleware, {cors_origins:,} origins": CORSMiddleware(app, allow_origins=listed),
        "CORSMiddleware, regex": CORSMiddleware(app, allow_origin_regex=r"https://([a-z0-9-]+\.)*example\.com"),
        "asgi-cors": asgi_cors(app, hosts=[ORIGIN.decode()]),
        "BaseHTTPMiddleware": Lookup(app),
    }
    for name, guarded in peers.items():
        yield ("header key", name), Contender(guarded, requests["header key"])


def answered(gates: dict[str, Gatekeeper]) -> Iterator[tuple[Name, Contender]]:
    """The contenders for preflights and refusals, which the app does not answer."""
    app = widget_app().build_middleware_stack()
    cors = CORSMiddleware(app, allow_origins=[ORIGIN.decode()], allow_headers=["data-client-key"])
    guarded = {name: GatekeeperMiddleware(app, gate) for name, gate in gates.items()}
    gate = guarded["ready"]
    yield ("preflight", "gatekeeper"), Contender(gate, lambda _: preflight(ORIGIN))
    yield ("preflight", "CORSMiddleware"), Contender(cors, lambda _: preflight(ORIGIN))
    yield ("refused", "bare"), Contender(app, lambda _: get(key=KEY, origin=FOREIGN, referer=FOREIGN))
    yield ("refused", "CORSMiddleware"), Contender(cors, lambda _: get(key=KEY, origin=FOREIGN, referer=FOREIGN))

    for case in CASES:
        if case.name in set(Reason) - {Reason.ALLOWED}:
            yield (case.name, "gatekeeper"), Contender(guarded[case.state], partial(_scope_of, case))
    fresh = itertools.count()
    anew = Contender(gate, lambda _: get(key=KEY, origin=b"https://shop-%d.evil.example" % next(fresh)))
    yield ("origin_not_allowed, never seen", "gatekeeper"), anew


def flat(by_keys: dict[int, Gatekeeper], by_entries: dict[int, Gatekeeper]) -> Iterator[tuple[Name, Contender]]:
    """Allowed requests by the number of keys, and of the key's entries."""
    dice = random.Random(1)
    for size, gate in by_keys.items():
        chosen = dice.sample(keys.enabled(size), min(IN_ROTATION, len(keys.enabled(size))))
        pairs = [(keys.client_key(number).encode(), keys.origin(number).encode()) for number in chosen]

        def one_of(number: int, pairs: list[tuple[bytes, bytes]] = pairs) -> dict[str, Any]:
            key, origin = pairs[number % len(pairs)]
            return get(key=key, origin=origin)

        yield ("keys", f"{size}"), Contender(GatekeeperMiddleware(mere_app, gate), one_of)
        yield ("keys", f"{size}, bare"), Contender(mere_app, one_of)
    key = keys.client_key(MANY).encode()
    for entries, gate in by_entries.items():
        origin = f"https://last.example.com:{entries}".encode()

        def same(_: int, origin: bytes = origin) -> dict[str, Any]:
            return get(key=key, origin=origin)

        yield ("entries", f"{entries}"), Contender(GatekeeperMiddleware(mere_app, gate), same)
        yield ("entries", f"{entries}, bare"), Contender(mere_app, same)


def granted(gate: Gatekeeper, grant: bytes) -> Iterator[tuple[Name, Contender]]:
    """Requests with a key and with a grant, which a gate with frames allows."""
    framed = GatekeeperMiddleware(mere_app, gate, frames=("/embed",))
    yield ("grant", "with a key, bare"), Contender(mere_app, lambda _: get(key=KEY, origin=ORIGIN))
    yield (
        ("grant", "with a key, no frames"),
        Contender(GatekeeperMiddleware(mere_app, gate), lambda _: get(key=KEY, origin=ORIGIN)),
    )
    yield ("grant", "with a key"), Contender(framed, lambda _: get(key=KEY, origin=ORIGIN))
    yield ("grant", "with a grant, bare"), Contender(mere_app, lambda _: get_in_frame(grant))
    yield ("grant", "with a grant"), Contender(framed, lambda _: get_in_frame(grant))


def _scope_of(case: Case, _: int) -> dict[str, Any]:
    key, origin, referer = (None if text is None else text.encode() for text in (case.key, case.origin, case.referer))
    scope = get(key=key, origin=origin, referer=referer, query=case.query.encode())
    scope["headers"] += [(name.encode(), value.encode()) for name, value in case.more]
    return scope
