"""Odd WebSocket handshakes, and the decision on each by every server.

The table has the format of test_http1.py. All of these servers can refuse a handshake with a body, which has the reason.
"""

import pytest

from tests.support.client_keys import KEY
from tests.wire.app import OTHER_KEY
from tests.wire.cases import (
    BAD,
    CONFLICTING_QUERY,
    EVIL,
    KEYED,
    NULL,
    OTHER_KEYED,
    QUERY,
    SHOP,
    SHOP_REFERER,
    Case,
    by_others,
    case,
)
from tests.wire.servers import SERVERS
from tests.wire.wire import connect, outcome, talked

pytestmark = pytest.mark.process

UPGRADE = b"Upgrade: websocket"
CONNECTION = b"Connection: Upgrade"
VERSION = b"Sec-WebSocket-Version: 13"
NONCE = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ABSENT = b"X-Absent: 1"

SILENCE = "silence"
SILENT_FOR = 0.5


def shake(
    *lines: bytes,
    to: bytes = QUERY,
    method: bytes = b"GET",
    upgrade: bytes = UPGRADE,
    connection: bytes = CONNECTION,
    version: bytes = VERSION,
    nonce: bytes = NONCE,
) -> bytes:
    """Make the handshake of a WebSocket with additional header lines."""
    start = [method + b" " + to + b" HTTP/1.1", b"Host: widgets.test", upgrade, connection, version, nonce]
    return b"\r\n".join([*start, *lines, b"", b""])


CASES = [
    case("an allowed page", shake(SHOP), "allowed"),
    case("a foreign page", shake(EVIL), "origin_not_allowed"),
    case("an opaque page", shake(NULL), "origin_null"),
    case("no page", shake(), "origin_missing"),
    case("a referer in place of an origin", shake(SHOP_REFERER), "origin_missing"),
    case("empty origin", shake(b"Origin:"), "origin_malformed"),
    case("origin of older drafts only", shake(b"Sec-WebSocket-Origin: https://shop.acme.com"), "origin_missing"),
    case(
        "origin of older drafts besides", shake(EVIL, b"Sec-WebSocket-Origin: https://shop.acme.com"), "origin_not_allowed"
    ),
    # Origin, more than once
    case("origin twice, the same", shake(SHOP, SHOP), "origin_conflict", httptools=BAD),
    case("origin twice, the allowed one first", shake(SHOP, EVIL), "origin_conflict", httptools=BAD),
    case("origin twice, the allowed one last", shake(EVIL, SHOP), "origin_conflict", httptools=BAD),
    case("origin twice, apart in letter case", shake(SHOP, b"oRIGIN: https://evil.test"), "origin_conflict", httptools=BAD),
    case("origin as a list", shake(SHOP + b", https://evil.test"), "origin_malformed"),
    case("origin goes on in the next line", shake(SHOP, b" .evil.test"), "origin_malformed", **by_others(BAD)),
    case("a second origin in the next line", shake(EVIL, b" https://shop.acme.com"), "origin_malformed", **by_others(BAD)),
    # The key counts only in the query
    case("no key", shake(SHOP, to=b"/"), "key_missing"),
    case("the key in a header only", shake(SHOP, KEYED, to=b"/"), "key_missing"),
    case("another key in a header", shake(SHOP, OTHER_KEYED), "allowed"),
    case(
        "another key in a header, that one's page",
        shake(b"Origin: https://blog.acme.com", OTHER_KEYED),
        "origin_not_allowed",
    ),
    case("two keys", shake(SHOP, to=CONFLICTING_QUERY), "key_conflict"),
    case("an empty key", shake(SHOP, to=b"/?client_key="), "key_missing"),
    case("name in upper case", shake(SHOP, to=b"/?CLIENT_KEY=" + KEY.encode()), "key_missing"),
    case("percent-encoded name", shake(SHOP, to=b"/?client%5Fkey=" + KEY.encode()), "allowed"),
    case("percent-encoded name disagrees", shake(SHOP, to=QUERY + b"&client%5Fkey=" + OTHER_KEY.encode()), "key_conflict"),
    case("a fragment after the key", shake(SHOP, to=QUERY + b"#x"), "key_malformed", granian="allowed"),
    case("absolute form", shake(SHOP, to=b"http://widgets.test" + QUERY), "allowed"),
    case("absolute form, the page's own host", shake(EVIL, to=b"https://shop.acme.com" + QUERY), "origin_not_allowed"),
    # Odd bytes. websockets, used with httptools, never answers a line of more than 8 KB, and uvicorn keeps waiting.
    case("name in odd case", shake(b"oRIGIN: https://evil.test"), "origin_not_allowed"),
    case("white space around the origin", shake(b"Origin:\t https://shop.acme.com \t"), "allowed"),
    case("4 KB of origin", shake(b"Origin: https://" + b"a" * 4_096), "origin_malformed"),
    case("4 KB of key", shake(SHOP, to=b"/?client_key=" + b"a" * 4_096), "key_malformed"),
    case("8 KB of origin", shake(b"Origin: https://" + b"a" * 8_192), "origin_malformed", httptools=SILENCE),
    case("8 KB of key", shake(SHOP, to=b"/?client_key=" + b"a" * 8_192), "key_malformed", httptools=SILENCE),
    case("ff after the origin", shake(SHOP + b"\xff"), "origin_malformed"),
    case("a Cyrillic o inside the origin", shake("Origin: https://sh\u043ep.acme.com".encode()), "origin_malformed"),
    case("NUL after the origin", shake(SHOP + b"\0"), BAD),
    case("01 after the origin", shake(SHOP + b"\x01"), "origin_malformed", **by_others(BAD)),
    # An invalid handshake is an ordinary request, whose key may also be in the query
    case("upgrade in odd case", shake(EVIL, upgrade=b"uPGRADE: WebSocket"), "origin_not_allowed"),
    case("upgrade twice", shake(EVIL, upgrade=UPGRADE + b"\r\n" + UPGRADE), "origin_not_allowed", httptools="server 426"),
    case("upgrade to one of two", shake(EVIL, upgrade=b"Upgrade: websocket, h2c"), "origin_not_allowed"),
    case("no upgrade of this connection", shake(EVIL, connection=ABSENT), "origin_not_allowed"),
    case("no upgrade at all", shake(EVIL, upgrade=ABSENT), "origin_not_allowed"),
    case("by POST", shake(EVIL, method=b"POST"), "origin_not_allowed", httptools="server 405", h11=BAD),
    case("an older version", shake(EVIL, version=b"Sec-WebSocket-Version: 8"), BAD, h11="server 426"),
    case("no version", shake(EVIL, version=ABSENT), BAD),
    case("no nonce", shake(EVIL, nonce=ABSENT), BAD),
    case("a frame too early", shake(EVIL) + b"\x81\x80mask", "origin_not_allowed", hypercorn=BAD),
    case("a body", shake(EVIL, b"Content-Length: 3") + b"abc", "origin_not_allowed", httptools=SILENCE, hypercorn=BAD),
]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_handshake_has_its_documented_outcome(ports: dict[str, int], server: str, case: Case) -> None:
    with connect(ports[server]) as wire:
        wire.send(case.request)
        if case.outcomes[server] == SILENCE:
            assert not wire.answered_within(SILENT_FOR)
            return
        answer = wire.answer()
        is_open = answer is not None and answer.status == 101
        assert (talked(wire.take) if is_open else outcome(answer)) == case.outcomes[server]


@pytest.mark.parametrize("server", SERVERS)
def test_bytes_after_a_refused_handshake_are_a_request_or_ignored(ports: dict[str, int], server: str) -> None:
    following = b"\r\n".join([b"GET / HTTP/1.1", b"Host: widgets.test", b"Connection: close", EVIL, KEYED, b"", b""])
    expected = {
        "httptools": ["origin_null"],
        "h11": ["origin_null"],
        "hypercorn": [BAD],
        "granian": ["origin_null", "origin_not_allowed"],
    }[server]
    with connect(ports[server]) as wire:
        wire.send(shake(NULL) + following)
        assert [outcome(wire.answer()) for _ in expected] == expected
        assert not wire.answered_within(SILENT_FOR) or wire.answer() is None
