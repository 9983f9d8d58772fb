"""HTTP/2 without TLS, on the two servers that support it.

Both support prior knowledge, and hypercorn the upgrade and WebSockets as well. The tables have the format of test_http1.py.
For a refused stream or connection they have its error code.
"""

from io import BytesIO
from typing import NamedTuple

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from tests.support.client_keys import KEY
from tests.wire import cases as http1
from tests.wire.app import OTHER_KEY
from tests.wire.wire import Answer, Wire, connect, outcome, talked

pytestmark = pytest.mark.process

Header = tuple[bytes, bytes]

HYPERCORN, GRANIAN = "hypercorn", "granian"

SHOP = (b"origin", b"https://shop.acme.com")
EVIL = (b"origin", b"https://evil.test")
NULL = (b"origin", b"null")
SHOP_REFERER = (b"referer", b"https://shop.acme.com/")
KEYED = (b"data-client-key", KEY.encode())
OTHER_KEYED = (b"data-client-key", OTHER_KEY.encode())
QUERY = b"/?client_key=" + KEY.encode()
CONFLICTING_QUERY = QUERY + b"&client_key=" + OTHER_KEY.encode()
PREFLIGHT = (b"access-control-request-method", b"POST")
LONG, HUGE = b"a" * 8_192, b"a" * 65_536

BROKEN = "server PROTOCOL_ERROR"
TOO_MUCH = "server ENHANCE_YOUR_CALM"


class Case(NamedTuple):
    """A request, and its outcome on both servers."""

    name: str
    headers: list[Header]
    outcomes: dict[str, str]
    trailers: list[Header]


def case(
    name: str, headers: list[Header], expected: str, *, trailers: tuple[Header, ...] = (), granian: str | None = None
) -> Case:
    """Make a row of a table; `granian` is its outcome if different."""
    assert granian != expected
    return Case(name, headers, {HYPERCORN: expected, GRANIAN: granian or expected}, list(trailers))


def get(*headers: Header, to: bytes = b"/", method: bytes = b"GET", host: bytes = b"widgets.test") -> list[Header]:
    """Make the headers of a request."""
    start = [(b":method", method), (b":scheme", b"http"), (b":authority", host), (b":path", to)]
    return [*start, *headers]


def shake(*headers: Header, to: bytes = QUERY) -> list[Header]:
    """Make the handshake of a WebSocket (RFC 8441)."""
    start = get(to=to, method=b"CONNECT")
    return [start[0], (b":protocol", b"websocket"), *start[1:], (b"sec-websocket-version", b"13"), *headers]


CASES = [
    case("an allowed page", get(KEYED, SHOP), "allowed"),
    case("a foreign page", get(KEYED, EVIL), "origin_not_allowed"),
    case("an opaque page", get(KEYED, NULL), "origin_null"),
    case("no page", get(KEYED), "origin_missing"),
    case("no page but the authority", get(KEYED, host=b"shop.acme.com"), "origin_missing"),
    case("nothing at all", get(), "key_missing"),
    case("referer of the page", get(KEYED, SHOP_REFERER), "allowed"),
    # More than once
    case("origin twice, the same", get(KEYED, SHOP, SHOP), "origin_conflict"),
    case("origin twice, the allowed one first", get(KEYED, SHOP, EVIL), "origin_conflict"),
    case("origin twice, the allowed one last", get(KEYED, EVIL, SHOP), "origin_conflict"),
    case("referer twice, the same", get(KEYED, SHOP_REFERER, SHOP_REFERER), "origin_conflict"),
    case("key twice, the same", get(KEYED, KEYED, SHOP), "allowed"),
    case("key twice, different", get(KEYED, OTHER_KEYED, SHOP), "key_conflict"),
    case("header and query agree", get(KEYED, SHOP, to=QUERY), "allowed"),
    case("header and query disagree", get(OTHER_KEYED, SHOP, to=QUERY), "key_conflict"),
    case("query twice, different", get(SHOP, to=CONFLICTING_QUERY), "key_conflict"),
    case("path twice", [*get(SHOP), (b":path", QUERY)], BROKEN),
    case(
        "an authority and another host", get((b"host", b"shop.acme.com"), KEYED, EVIL), BROKEN, granian="origin_not_allowed"
    ),
    # Names
    case("origin in odd case", get(KEYED, (b"Origin", SHOP[1])), BROKEN),
    case("origin in odd case beside another", get(KEYED, EVIL, (b"Origin", SHOP[1])), BROKEN),
    case("key in odd case", get((b"Data-Client-Key", KEYED[1]), SHOP), BROKEN),
    case("key with underscores", get((b"data_client_key", KEYED[1]), SHOP), "key_missing"),
    case("origin as a pseudo-header", get((b":origin", SHOP[1]), KEYED), BROKEN),
    case("a space after a name", get(KEYED, (b"origin ", SHOP[1])), BROKEN),
    case("a header of a connection", get(KEYED, EVIL, (b"connection", b"close")), BROKEN),
    # The path
    case("percent-encoded name", get(SHOP, to=QUERY.replace(b"_", b"%5F", 1)), "allowed"),
    case("percent-encoded name, a foreign page", get(EVIL, to=QUERY.replace(b"_", b"%5F", 1)), "origin_not_allowed"),
    case("name in upper case", get(SHOP, to=b"/?CLIENT_KEY=" + KEY.encode()), "key_missing"),
    case("absolute form", get(KEYED, EVIL, to=b"http://shop.acme.com/"), "origin_not_allowed", granian=BROKEN),
    case("ff in the query", get(SHOP, to=QUERY + b"\xff"), "key_malformed", granian=BROKEN),
    case("ff in the path", get(EVIL, to=b"/\xff" + QUERY[1:]), "closed", granian=BROKEN),
    case("NUL in the query", get(SHOP, to=QUERY + b"\0"), BROKEN),
    case("no path", [*get()[:3], KEYED, EVIL], BROKEN),
    case("empty path", get(KEYED, EVIL, to=b""), BROKEN),
    # Values
    case("empty origin", get(KEYED, (b"origin", b"")), "origin_malformed"),
    case("empty key", get((b"data-client-key", b""), SHOP), "key_missing"),
    case("a space after the origin", get(KEYED, (b"origin", SHOP[1] + b" ")), BROKEN, granian="origin_malformed"),
    case("a space before the origin", get(KEYED, (b"origin", b" " + SHOP[1])), BROKEN, granian="origin_malformed"),
    case("a tab after the key", get((b"data-client-key", KEYED[1] + b"\t"), SHOP), BROKEN, granian="key_malformed"),
    case("01 after the origin", get(KEYED, (b"origin", SHOP[1] + b"\x01")), "origin_malformed", granian=BROKEN),
    case("ff after the origin", get(KEYED, (b"origin", SHOP[1] + b"\xff")), "origin_malformed"),
    case("NUL inside the origin", get(KEYED, (b"origin", SHOP[1] + b"\0.evil.test")), BROKEN),
    case("a second origin in the next line", get(KEYED, (b"origin", EVIL[1] + b"\r\norigin: " + SHOP[1])), BROKEN),
    case("8 KB of key", get((b"data-client-key", LONG), SHOP), "key_malformed"),
    case("8 KB of key in the query", get(SHOP, to=b"/?client_key=" + LONG), "key_malformed"),
    case("8 KB of origin", get(KEYED, (b"origin", b"https://" + LONG)), "origin_malformed"),
    case("64 KB of key", get((b"data-client-key", HUGE), SHOP), TOO_MUCH, granian="key_malformed"),
    case("64 KB of key in the query", get(SHOP, to=b"/?client_key=" + HUGE), TOO_MUCH, granian=BROKEN),
    case("64 KB of origin", get(KEYED, (b"origin", b"https://" + HUGE)), TOO_MUCH, granian="origin_malformed"),
    case("64 KB of referer", get(KEYED, (b"referer", EVIL[1] + b"/" + HUGE)), TOO_MUCH, granian="origin_not_allowed"),
    # Preflights, and requests that are not
    case("preflight of a page", get(EVIL, PREFLIGHT, method=b"OPTIONS"), "preflight"),
    case("preflight with two origins", get(SHOP, SHOP, PREFLIGHT, method=b"OPTIONS"), "origin_conflict"),
    case("preflight of an opaque page", get(NULL, PREFLIGHT, method=b"OPTIONS"), "origin_null"),
    case(
        "a tunnel",
        [(b":method", b"CONNECT"), (b":authority", b"shop.acme.com:443"), KEYED, EVIL],
        "closed",
        granian="origin_not_allowed",
    ),
    # Trailers are not headers
    case("the page in a trailer only", get(KEYED, method=b"POST"), "origin_missing", trailers=(SHOP,)),
    case("the key in a trailer only", get(SHOP, method=b"POST"), "key_missing", trailers=(KEYED,)),
    case("a foreign page in a trailer", get(KEYED, SHOP, method=b"POST"), "allowed", trailers=(EVIL,)),
    # WebSockets, which granian supports only over HTTP/1
    case("WebSocket of an allowed page", shake(SHOP), "allowed", granian=BROKEN),
    case("WebSocket of a foreign page", shake(EVIL), "origin_not_allowed", granian=BROKEN),
    case("WebSocket of an opaque page", shake(NULL), "origin_null", granian=BROKEN),
    case("WebSocket of no page", shake(SHOP_REFERER), "origin_missing", granian=BROKEN),
    case("WebSocket with two origins, the same", shake(SHOP, SHOP), "origin_conflict", granian=BROKEN),
    case("WebSocket with two origins, different", shake(EVIL, SHOP), "origin_conflict", granian=BROKEN),
    case("WebSocket without a key", shake(SHOP, to=b"/"), "key_missing", granian=BROKEN),
    case("WebSocket with the key in a header only", shake(SHOP, KEYED, to=b"/"), "key_missing", granian=BROKEN),
]

# Requests of HTTP/1 that ask hypercorn to upgrade to HTTP/2.
UPGRADES = [
    ("an allowed page", [http1.KEYED, http1.SHOP], "allowed"),
    ("a foreign page", [http1.KEYED, http1.EVIL], "origin_not_allowed"),
    ("an opaque page", [http1.KEYED, http1.NULL], "origin_null"),
    ("no page", [http1.KEYED], "origin_missing"),
    ("origin twice, the same", [http1.KEYED, http1.SHOP, http1.SHOP], "origin_conflict"),
    ("origin twice, different", [http1.KEYED, http1.EVIL, http1.SHOP], "origin_conflict"),
    ("origin goes on in the next line", [http1.KEYED, http1.SHOP, b" .evil.test"], "origin_malformed"),
    ("key twice, different", [http1.KEYED, http1.OTHER_KEYED, http1.SHOP], "key_conflict"),
    ("no key", [http1.SHOP], "key_missing"),
]


class Http2:
    """An HTTP/2 connection without the checks of a client."""

    def __init__(self, wire: Wire) -> None:
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._wire = wire
        self._connection = h2.connection.H2Connection(config)
        self._answers: dict[int, Answer] = {}
        self._outcomes: dict[int, str] = {}

    def open(self) -> None:
        """Start with the preface, by prior knowledge."""
        self._connection.initiate_connection()

    def upgrade(self, *lines: bytes) -> None:
        """Start with an HTTP/1.1 request, which becomes stream 1."""
        settings = self._connection.initiate_upgrade_connection()
        assert settings is not None
        asking = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: " + settings)
        self._wire.send(b"\r\n".join([b"GET / HTTP/1.1", b"Host: widgets.test", *asking, *lines, b"", b""]))
        answer = self._wire.answer()
        assert answer is not None
        assert answer.status == 101
        self._flush()

    def request(self, headers: list[Header], trailers: list[Header]) -> int:
        """Queue a request, and return its stream. The next read sends it."""
        stream = self._connection.get_next_available_stream_id()
        is_tunnel = headers[0][1] == b"CONNECT"
        self._connection.send_headers(stream, headers, end_stream=not trailers and not is_tunnel)
        if trailers:
            self._connection.send_data(stream, b"abc")
            self._connection.send_headers(stream, trailers, end_stream=True)
        return stream

    def outcome(self, stream: int) -> str:
        """Read until a stream is answered."""
        while stream not in self._outcomes:
            self._flush()
            received = self._wire.receive()
            if not received:
                return "closed"
            for event in self._connection.receive_data(received):
                self._see(event, stream)
        return self._outcomes[stream]

    def _see(self, event: h2.events.Event, stream: int) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(of), headers=list(headers)):
                fields = [(bytes(name), bytes(value)) for name, value in headers]
                self._answers[of] = Answer(int(dict(fields)[b":status"]), fields)
            case h2.events.DataReceived(stream_id=int(of), data=bytes(data)):
                self._answers[of] = self._answers[of]._replace(body=self._answers[of].body + data)
            case h2.events.StreamEnded(stream_id=int(of)):
                answer = self._answers[of]
                is_frame = answer.status == 200 and answer.body[:1] != b"{"
                self._outcomes[of] = talked(BytesIO(answer.body).read) if is_frame else outcome(answer)
            # RFC 9113 section 8.1: a server may also reset a stream after its answer, to stop the request.
            case h2.events.StreamReset(stream_id=int(of), error_code=int(code)):
                self._outcomes.setdefault(of, f"server {h2.errors.ErrorCodes(code).name}")
            case h2.events.ConnectionTerminated(error_code=int(code)):
                self._outcomes.setdefault(stream, f"server {h2.errors.ErrorCodes(code).name}")
            case _:
                pass

    def _flush(self) -> None:
        self._wire.send(self._connection.data_to_send())


@pytest.mark.parametrize("server", [HYPERCORN, GRANIAN])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_request_has_its_documented_outcome(ports: dict[str, int], server: str, case: Case) -> None:
    with connect(ports[server]) as wire:
        http2 = Http2(wire)
        http2.open()
        assert http2.outcome(http2.request(case.headers, case.trailers)) == case.outcomes[server]


@pytest.mark.parametrize("server", [HYPERCORN, GRANIAN])
def test_every_stream_of_a_connection_is_decided_by_its_own_headers(ports: dict[str, int], server: str) -> None:
    asked = [
        (get(KEYED, SHOP), "allowed"),
        (get(KEYED, EVIL), "origin_not_allowed"),
        (get(KEYED), "origin_missing"),
        (get(SHOP), "key_missing"),
        (get(KEYED, SHOP, SHOP), "origin_conflict"),
        (get(OTHER_KEYED, SHOP), "origin_not_allowed"),
        (get(KEYED, SHOP), "allowed"),
    ]
    with connect(ports[server]) as wire:
        http2 = Http2(wire)
        http2.open()
        streams = [http2.request(headers, []) for headers, _ in asked]
        assert [http2.outcome(stream) for stream in streams] == [expected for _, expected in asked]


@pytest.mark.parametrize(
    ("lines", "expected"), [upgrade[1:] for upgrade in UPGRADES], ids=[upgrade[0] for upgrade in UPGRADES]
)
def test_a_request_that_upgrades_to_http2_has_its_documented_outcome(
    ports: dict[str, int], lines: list[bytes], expected: str
) -> None:
    with connect(ports[HYPERCORN]) as wire:
        http2 = Http2(wire)
        http2.upgrade(*lines)
        assert http2.outcome(1) == expected
