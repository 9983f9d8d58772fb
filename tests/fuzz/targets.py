"""Fuzzing targets: functions of bytes that fail where the package is wrong.

Each compares the package with an independent oracle: tests/properties, urllib, or the input itself.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import parse_qsl

from starlette.types import Message, Receive, Scope, Send

from gatekeeper import Allowlist, Gatekeeper, GatekeeperMiddleware, InvalidClientKey, InvalidOrigin, Origin
from gatekeeper.gate.decisions import CONFLICT
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.web.request import value_in_query
from tests.properties.oracle import allows, read_origin

__all__ = ("SEEDS", "TARGETS")

KEY = b"pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsD"
ENTRIES = [
    "acme.com",
    "*.acme.com",
    "https://shop.example:8443",
    "localhost:*",
    "[::1]:*",
    "192.168.0.10:3000",
    "app://a.acme.com",
]
STATUSES = {200, 204, 400, 403}
SEPARATOR = b"\n"

SEEDS: dict[str, tuple[bytes, ...]] = {
    "origin": (
        b"https://acme.com",
        b"http://a_b.c-d.test:8080",
        b"https://[2001:db8::1]",
        b"http://127.0.0.1:1",
        b"null",
        b"app://a.b:1",
    ),
    "referer": (b"https://acme.com/a?b#c", b"http://user@acme.com/", b"HTTPS://Acme.com:443\\x", b"https://[::1]:80/"),
    "allowlist": (
        b"https://a.acme.com\nacme.com\n*.acme.com",
        b"http://localhost:1\nlocalhost:*\n[::1]:*",
        "https://xn--bcher-kva.de\nbücher.de\nXN--BCHER-KVA.DE:443".encode(),
        b"https://1.2.3.4\n1.2.3.4\n*.1.2.3.4\n127.1\n0x7f.1",
        b"app://a.b\nApp://A.b/\napp://a.b:443\napp://*\nws://a.b\nfile:///x\na.b",
    ),
    "client_key": (KEY, b"pk_live_a_b", b"pk_live__x", b"sk_live_acme_x"),
    "query": (b"client_key=" + KEY, b"a=1&client%5Fkey=x&client_key=y", b"client_key=a+b%20c", b"=&&client_key&client_key="),
    "scope": (
        b"0" + SEPARATOR.join((KEY, b"https://a.acme.com", b"", b"")),
        b"1" + SEPARATOR.join((b"", b"https://acme.com", b"", b"client_key=" + KEY)),
        b"2" + SEPARATOR.join((KEY, b"http://localhost:99", b"", b"")),
        b"3" + SEPARATOR.join((KEY, b"", b"https://acme.com/page", b"")),
        b"4" + SEPARATOR.join((KEY, b"app://a.acme.com", b"", b"")),
    ),
}


def origin(data: bytes) -> None:
    """Origin.parse accepts exactly what the oracle accepts, and returns it unchanged."""
    try:
        parsed = Origin.parse(data)
    except InvalidOrigin:
        assert read_origin(data.decode("latin-1")) is None
    else:
        assert str(parsed).encode("latin-1") == data
        assert read_origin(str(parsed)) == (parsed.scheme, parsed.host, parsed.port)


def referer(data: bytes) -> None:
    """Origin.from_referer gives the host between "://" and its first end."""
    try:
        parsed = Origin.from_referer(data)
    except InvalidOrigin:
        return
    assert read_origin(str(parsed)) is not None
    authority = data.decode("ascii").lower().split("://", 1)[1]
    for end in "/?#\\":
        authority = authority.split(end)[0]
    assert authority in {parsed.host, f"{parsed.host}:{parsed.port}"}


def allowlist(data: bytes) -> None:
    """Allowlist.parse never raises, and each allowed origin is allowed by one entry alone and by the oracle."""
    page, *entries = data.decode("utf-8", "replace").split("\n")
    parsed = Allowlist.parse(entries)
    assert len(parsed.rejected) + len(parsed.patterns) <= len(entries)
    again = Allowlist.parse(parsed.patterns)
    assert (again.patterns, again.rejected) == (parsed.patterns, ())
    matched = parsed.match(page)
    assert parsed.allows(page) == (matched is not None)
    if matched is not None:
        assert matched in entries
        assert Allowlist.parse([matched]).allows(page)
        assert read_origin(page) is not None
    if all(entry.isascii() and "xn--" not in entry.lower() for entry in entries) and not any("*." in e for e in entries):
        assert parsed.allows(page) == allows(entries, page)


def client_key(data: bytes) -> None:
    """A key that ClientKey.parse accepts has the documented form."""
    try:
        key = ClientKey.parse(data)
    except InvalidClientKey:
        return
    assert data.startswith(b"pk_live_")
    assert len(data) <= 128
    assert key.value.encode("ascii") == data
    assert data.endswith(key.last8.encode("ascii"))
    rest = key.value.removeprefix("pk_live_")
    accounts = [rest[:place] for place in range(1, len(rest) - 1) if rest[place] == "_"]
    assert accounts
    assert all(key.may_be_of(account) for account in accounts)


def query(data: bytes) -> None:
    """The middleware reads the key from a query as urllib does."""
    data = data[:384]  # a longer value is not decoded, and more than 16 spellings are a conflict
    if data.count(b"&") >= 16:
        return
    expected = _keys_in(data)
    read = value_in_query(data, b"client_key")
    assert read == (None if not expected else expected.pop() if len(expected) == 1 else CONFLICT)


def scope(data: bytes) -> None:
    """A request gets a documented status, and reaches the app only with one key from an allowed page."""
    method = "OPTIONS" if data[:1] == b"9" else "GET"
    key, page, referred, asked = ([*data[1:].split(SEPARATOR, 3), b"", b"", b""])[:4]
    headers = [(b"data-client-key", key)] * bool(key)
    headers += [(b"origin", page)] * bool(page) + [(b"referer", referred)] * bool(referred)
    if method == "OPTIONS":
        headers.append((b"access-control-request-method", b"POST"))
    status, reached, exposed = asyncio.run(_request(method, headers, asked))
    assert status in STATUSES, status
    assert exposed in {None, page if reached else b"*"}
    if reached:
        evidence = page or referred.split(b"/page")[0]
        assert ({key} - {b""}) | _keys_in(asked) == {KEY}
        if page:
            assert allows(ENTRIES, evidence.decode("latin-1"))


def _keys_in(query: bytes) -> set[bytes]:
    pairs = parse_qsl(query.decode("latin-1"), encoding="latin-1")
    return {value.encode("latin-1") for name, value in pairs if name == "client_key"}


async def _request(method: str, headers: list[tuple[bytes, bytes]], asked: bytes) -> tuple[int, bool, bytes | None]:
    started: list[Message] = []
    reached: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope)
        await _app(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.append(message)

    row = {"id": "1", "last8": KEY[-8:].decode(), "domain_allowlist": ENTRIES, "key_sha256": sha256(KEY).hexdigest()}
    guarded = GatekeeperMiddleware(app, gatekeeper=Gatekeeper.from_rows([row], account="acme"))
    connection = {"type": "http", "method": method, "path": "/", "headers": headers, "query_string": asked}
    await guarded(connection, receive, send)
    (start,) = started
    exposed = [value for name, value in start["headers"] if name == b"access-control-allow-origin"]
    assert len(exposed) <= 1
    return start["status"], bool(reached), exposed[0] if exposed else None


async def _app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the signature of ASGI
    await send({"type": "http.response.start", "status": 200, "headers": [(b"access-control-allow-origin", b"*")]})
    await send({"type": "http.response.body", "body": b""})


TARGETS: dict[str, Callable[[bytes], None]] = {
    "origin": origin,
    "referer": referer,
    "allowlist": allowlist,
    "client_key": client_key,
    "query": query,
    "scope": scope,
}
