"""Odd HTTP/1 requests, and the decision on each by every server.

A row of the table is a request and its outcome: the reason of a refusal, "allowed", "preflight", or the server's own answer
("server 400") that never reaches the app. Servers that differ from the rest are named.
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
    PREFLIGHT,
    QUERY,
    SHOP,
    SHOP_REFERER,
    Case,
    by_h11,
    by_others,
    case,
)
from tests.wire.servers import SERVERS
from tests.wire.wire import connect, outcome

pytestmark = pytest.mark.process

HALF, OTHER_HALF = KEY[:20].encode(), KEY[20:].encode()
CHUNKED = b"Transfer-Encoding: chunked"

# Two servers refuse a head of more than 64 KB before its end. The cases of 8 KB reach the gate on them, too.
LIMITED = {"h11": BAD, "hypercorn": "server 431"}
LONG, HUGE = b"a" * 8_192, b"a" * 65_536
HELD_BACK = 4

CONTROL = (0x01, 0x08, 0x1F, 0x7F)
WORSE_CONTROL = (0x00, 0x0B, 0x0C)
NOT_ASCII = (0x80, 0x85, 0xA0, 0xFF)


def get(*lines: bytes, to: bytes = b"/", version: bytes = b"HTTP/1.1", method: bytes = b"GET", body: bytes = b"") -> bytes:
    """Make a request with these header lines and `Connection: close`."""
    host = [b"Host: widgets.test"] if version == b"HTTP/1.1" else []
    return b"\r\n".join([b" ".join([method, to, version]), *host, b"Connection: close", *lines, b"", body])


def post(*lines: bytes, body: bytes) -> bytes:
    """Make a request with a chunked body."""
    return get(*lines, CHUNKED, method=b"POST", body=body)


def without_host(*lines: bytes) -> bytes:
    """Make an HTTP/1.1 request without a Host header."""
    return b"\r\n".join([b"GET / HTTP/1.1", b"Connection: close", *lines, b"", b""])


CASES = [
    case("an allowed page", get(KEYED, SHOP), "allowed"),
    case("a foreign page", get(KEYED, EVIL), "origin_not_allowed"),
    case("an opaque page", get(KEYED, NULL), "origin_null"),
    case("no page", get(KEYED), "origin_missing"),
    case("nothing at all", get(), "key_missing"),
    # Origin, more than once
    case("origin twice, the same", get(KEYED, SHOP, SHOP), "origin_conflict"),
    case("origin twice, the allowed one first", get(KEYED, SHOP, EVIL), "origin_conflict"),
    case("origin twice, the allowed one last", get(KEYED, EVIL, SHOP), "origin_conflict"),
    case("origin twice, one of them null", get(KEYED, NULL, SHOP), "origin_conflict"),
    case("origin twice, one of them empty", get(KEYED, b"Origin:", SHOP), "origin_conflict"),
    case("origin twice, apart in letter case", get(KEYED, SHOP, b"oRIGIN: https://evil.test"), "origin_conflict"),
    case("origin as a list with a comma", get(KEYED, SHOP + b", https://evil.test"), "origin_malformed"),
    case("origin as a list with a space", get(KEYED, SHOP + b" https://evil.test"), "origin_malformed"),
    case(
        "origin in other headers", get(KEYED, EVIL, b"X-Origin: https://shop.acme.com", SHOP_REFERER), "origin_not_allowed"
    ),
    case("referer twice, the same", get(KEYED, SHOP_REFERER, SHOP_REFERER), "origin_conflict"),
    case("referer beside null", get(KEYED, NULL, SHOP_REFERER), "origin_null"),
    case(
        "referer with the page in a path",
        get(KEYED, b"Referer: https://evil.test/https://shop.acme.com/"),
        "origin_not_allowed",
    ),
    case("referer with the page as a user", get(KEYED, b"Referer: https://shop.acme.com@evil.test/"), "origin_malformed"),
    case("referer of the page", get(KEYED, SHOP_REFERER), "allowed"),
    # The key, more than once
    case("key twice, the same", get(KEYED, KEYED, SHOP), "allowed"),
    case("key twice, different", get(KEYED, OTHER_KEYED, SHOP), "key_conflict"),
    case("key twice, one of them empty", get(b"Data-Client-Key:", KEYED, SHOP), "allowed"),
    case("key as a list", get(KEYED + b", " + KEY.encode(), SHOP), "key_malformed"),
    case("header and query agree", get(KEYED, SHOP, to=QUERY), "allowed"),
    case("header and query disagree", get(OTHER_KEYED, SHOP, to=QUERY), "key_conflict"),
    case("query twice, the same", get(SHOP, to=QUERY + b"&client_key=" + KEY.encode()), "allowed"),
    case("query twice, different", get(SHOP, to=CONFLICTING_QUERY), "key_conflict"),
    # Continued lines (obs-fold): a space in the value, or refused by the server
    case("origin goes on in the next line", get(KEYED, SHOP, b" .evil.test"), "origin_malformed", **by_others(BAD)),
    case("origin goes on after a tab", get(KEYED, SHOP, b"\t.evil.test"), "origin_malformed", **by_others(BAD)),
    case(
        "origin split between lines",
        get(KEYED, b"Origin: https://shop", b" .acme.com"),
        "origin_malformed",
        **by_others(BAD),
    ),
    case(
        "another origin in the next line", get(KEYED, EVIL, b" https://shop.acme.com"), "origin_malformed", **by_others(BAD)
    ),
    case("origin wholly in the next line", get(KEYED, b"Origin:", b" https://shop.acme.com"), "allowed", **by_others(BAD)),
    case("origin is followed by an empty line", get(KEYED, SHOP, b" "), "allowed", **by_others(BAD)),
    case("origin inside another header's next line", get(KEYED, b"X: 1", b" " + SHOP), "origin_missing", **by_others(BAD)),
    case("origin after the key's line goes on", get(KEYED, b" " + SHOP), "key_malformed", **by_others(BAD)),
    case(
        "key split between lines",
        get(b"Data-Client-Key: " + HALF, b" " + OTHER_HALF, SHOP),
        "key_malformed",
        **by_others(BAD),
    ),
    case("key wholly in the next line", get(b"Data-Client-Key:", b" " + KEY.encode(), SHOP), "allowed", **by_others(BAD)),
    case(
        "referer goes on in the next line",
        get(KEYED, SHOP_REFERER[:-1], b" .evil.test/"),
        "origin_malformed",
        **by_others(BAD),
    ),
    # Request targets
    case("absolute form, the page's own host", get(KEYED, EVIL, to=b"https://shop.acme.com/"), "origin_not_allowed"),
    case("absolute form, page as a user", get(KEYED, EVIL, to=b"https://shop.acme.com@evil.test/"), "origin_not_allowed"),
    case("absolute form without a page", get(KEYED, to=b"https://shop.acme.com/"), "origin_missing"),
    case("absolute form without a key", get(SHOP, to=b"http://widgets.test/"), "key_missing"),
    case("absolute form with the key", get(SHOP, to=b"http://widgets.test" + QUERY), "allowed"),
    case("absolute form with the key, no path", get(SHOP, to=b"http://widgets.test" + QUERY[1:]), "allowed", httptools=BAD),
    case("two slashes", get(EVIL, to=b"//shop.acme.com" + QUERY), "origin_not_allowed"),
    case("a backslash", get(EVIL, to=b"\\" + QUERY[1:]), "origin_not_allowed", **by_others(BAD)),
    case("asterisk form", get(KEYED, EVIL, to=b"*", method=b"OPTIONS"), "origin_not_allowed"),
    case(
        "authority form", get(KEYED, EVIL, to=b"shop.acme.com:443", method=b"CONNECT"), "origin_not_allowed", httptools=BAD
    ),
    case("a fragment after the key", get(SHOP, to=QUERY + b"#x"), "key_malformed", **by_others("allowed")),
    case("the key in a fragment", get(EVIL, to=b"/#" + QUERY[1:]), "origin_not_allowed", **by_others("key_missing")),
    # The query
    case("percent-encoded name", get(SHOP, to=b"/?client%5Fkey=" + KEY.encode()), "allowed"),
    case("percent-encoded name, a foreign page", get(EVIL, to=b"/?%63lient%5fkey=" + KEY.encode()), "origin_not_allowed"),
    case("percent-encoded name disagrees", get(SHOP, to=QUERY + b"&client%5Fkey=" + OTHER_KEY.encode()), "key_conflict"),
    case("percent-encoded name disagrees with the header", get(KEYED, SHOP, to=b"/?client%5Fkey=a"), "key_conflict"),
    case("name encoded twice", get(SHOP, to=b"/?client%255Fkey=" + KEY.encode()), "key_missing"),
    case("percent-encoded question mark", get(SHOP, to=b"/%3Fclient_key=" + KEY.encode()), "key_missing"),
    case("percent-encoded ampersand", get(SHOP, to=b"/?a=1%26client_key=" + KEY.encode()), "key_missing"),
    case("percent-encoded equals sign", get(SHOP, to=b"/?client_key%3D" + KEY.encode()), "key_missing"),
    case("percent-encoded value", get(SHOP, to=QUERY.replace(b"pk_", b"pk%5F")), "allowed"),
    case("percent-encoded NUL", get(SHOP, to=QUERY + b"%00"), "key_malformed"),
    case("percent-encoded line break", get(SHOP, to=QUERY + b"%0D%0AOrigin:"), "key_malformed"),
    case("percent-encoded byte that is not UTF-8", get(SHOP, to=QUERY + b"%FF"), "key_malformed"),
    case("broken percent-encoding", get(SHOP, to=QUERY + b"%"), "key_malformed"),
    case("a plus", get(SHOP, to=QUERY + b"+"), "key_malformed"),
    case("a semicolon", get(SHOP, to=b"/?a=1;client_key=" + KEY.encode()), "key_missing"),
    case("name in upper case", get(SHOP, to=b"/?CLIENT_KEY=" + KEY.encode()), "key_missing"),
    case("name in upper case beside the key", get(SHOP, to=QUERY + b"&Client_Key=" + OTHER_KEY.encode()), "allowed"),
    case("value in upper case", get(SHOP, to=b"/?client_key=" + KEY.upper().encode()), "key_malformed"),
    case("name with brackets", get(SHOP, to=b"/?client_key[]=" + KEY.encode()), "key_missing"),
    # Empty values
    case("empty key header", get(b"Data-Client-Key:", SHOP), "key_missing"),
    case("empty key header beside the query", get(b"Data-Client-Key:", SHOP, to=QUERY), "allowed"),
    case("empty query", get(SHOP, to=b"/?client_key="), "key_missing"),
    case("empty query beside the header", get(KEYED, SHOP, to=b"/?client_key="), "allowed"),
    case("query without a value", get(SHOP, to=b"/?client_key"), "key_missing"),
    case("empty origin", get(KEYED, b"Origin:"), "origin_malformed"),
    case("origin of spaces", get(KEYED, b"Origin:   "), "origin_malformed"),
    case("empty origin beside a referer", get(KEYED, b"Origin:", SHOP_REFERER), "origin_malformed"),
    case("empty referer", get(KEYED, b"Referer:"), "origin_malformed"),
    # Values that are too long
    case("8 KB of key", get(b"Data-Client-Key: " + LONG, SHOP), "key_malformed"),
    case("8 KB of key in the query", get(SHOP, to=b"/?client_key=" + LONG), "key_malformed"),
    case("8 KB of origin", get(KEYED, b"Origin: https://" + LONG), "origin_malformed"),
    case("8 KB of referer", get(KEYED, b"Referer: https://evil.test/" + LONG), "origin_not_allowed"),
    case("8 KB of the page's referer", get(KEYED, SHOP_REFERER + LONG), "allowed"),
    case("64 KB of key", get(b"Data-Client-Key: " + HUGE, SHOP), "key_malformed", **LIMITED),
    case(
        "64 KB of key in the query", get(SHOP, to=b"/?client_key=" + HUGE), BAD, hypercorn="server 431", granian="server 414"
    ),
    case("64 KB of origin", get(KEYED, b"Origin: https://" + HUGE), "origin_malformed", **LIMITED),
    case("64 KB of labels", get(KEYED, b"Origin: https://" + b"a." * 32_768 + b"acme.com"), "origin_malformed", **LIMITED),
    case("64 KB of referer", get(KEYED, b"Referer: https://evil.test/" + HUGE), "origin_not_allowed", **LIMITED),
    case("64 KB of the page's referer", get(KEYED, SHOP_REFERER + HUGE), "allowed", **LIMITED),
    # Names of headers
    case("names in odd case", get(b"dATA-cLIENT-kEY: " + KEY.encode(), b"ORIGIN: https://shop.acme.com"), "allowed"),
    case(
        "names in odd case, a foreign page",
        get(b"dATA-cLIENT-kEY: " + KEY.encode(), b"ORIGIN: https://evil.test"),
        "origin_not_allowed",
    ),
    case("origin in upper case", get(KEYED, b"Origin: HTTPS://SHOP.ACME.COM"), "origin_malformed"),
    case("underscores in the key's name", get(b"data_client_key: " + KEY.encode(), SHOP), "key_missing"),
    case("underscores beside the key", get(KEYED, b"data_client_key: " + OTHER_KEY.encode(), SHOP), "allowed"),
    case("a space after a name", get(KEYED, b"Origin : https://shop.acme.com"), BAD),
    case("a NUL after a name", get(KEYED, b"Origin\0: https://shop.acme.com"), BAD),
    case("a Cyrillic O in a name", get(KEYED, "\u041erigin: https://shop.acme.com".encode()), BAD),
    # White space around a value is not part of it (RFC 9110 section 5.5)
    case("no space before values", get(KEYED.replace(b" ", b""), SHOP.replace(b" ", b"")), "allowed"),
    case("spaces before values", get(KEYED.replace(b" ", b"   "), SHOP.replace(b" ", b"  ")), "allowed"),
    case("tabs before values", get(KEYED.replace(b" ", b"\t"), SHOP.replace(b" ", b"\t \t")), "allowed"),
    case("a space after the origin", get(KEYED, SHOP + b" "), "allowed", httptools="origin_malformed"),
    case("a space after the key", get(KEYED + b" ", SHOP), "allowed", httptools="key_malformed"),
    case("a tab after the origin", get(KEYED, SHOP + b"\t"), "allowed", httptools="origin_malformed"),
    case("a tab after the key", get(KEYED + b"\t", SHOP), "allowed", httptools="key_malformed"),
    case("a tab inside the origin", get(KEYED, b"Origin: https://shop.acme.com\t.evil.test"), "origin_malformed"),
    case("a space inside the key", get(b"Data-Client-Key: " + HALF + b" " + OTHER_HALF, SHOP), "key_malformed"),
    # Bytes that no browser sends
    *(
        case(f"{byte:02x} after the origin", get(KEYED, SHOP + bytes([byte])), "origin_malformed", **by_others(BAD))
        for byte in CONTROL
    ),
    *(
        case(f"{byte:02x} after the key", get(KEYED + bytes([byte]), SHOP), "key_malformed", **by_others(BAD))
        for byte in CONTROL
    ),
    *(
        case(f"{byte:02x} after the referer", get(KEYED, SHOP_REFERER + bytes([byte])), "origin_malformed", **by_others(BAD))
        for byte in CONTROL
    ),
    *(case(f"{byte:02x} after the origin", get(KEYED, SHOP + bytes([byte])), BAD) for byte in WORSE_CONTROL),
    *(case(f"{byte:02x} after the key", get(KEYED + bytes([byte]), SHOP), BAD) for byte in WORSE_CONTROL),
    *(case(f"{byte:02x} after the referer", get(KEYED, SHOP_REFERER + bytes([byte])), BAD) for byte in WORSE_CONTROL),
    *(case(f"{byte:02x} after the origin", get(KEYED, SHOP + bytes([byte])), "origin_malformed") for byte in NOT_ASCII),
    *(case(f"{byte:02x} after the key", get(KEYED + bytes([byte]), SHOP), "key_malformed") for byte in NOT_ASCII),
    *(
        case(f"{byte:02x} after the referer", get(KEYED, SHOP_REFERER + bytes([byte])), "origin_malformed")
        for byte in NOT_ASCII
    ),
    *(
        case(f"{byte:02x} in the query", get(SHOP, to=QUERY + bytes([byte])), BAD)
        for byte in (*WORSE_CONTROL, *CONTROL, *NOT_ASCII)
    ),
    case("NUL inside the origin", get(KEYED, SHOP + b"\0.evil.test"), BAD),
    case("NUL inside the referer", get(KEYED, SHOP_REFERER[:-1] + b"\0.evil.test/"), BAD),
    case("a Cyrillic o inside the origin", get(KEYED, "Origin: https://sh\u043ep.acme.com".encode()), "origin_malformed"),
    case("a carriage return inside the origin", get(KEYED, SHOP + b"\r.evil.test"), BAD),
    case("a carriage return before a second origin", get(KEYED, EVIL + b"\r" + SHOP), BAD),
    case("a line feed before a second origin", get(KEYED, EVIL + b"\n" + SHOP), "origin_conflict", httptools=BAD),
    # Versions of HTTP
    case("HTTP/1.0 without a host", get(KEYED, SHOP, version=b"HTTP/1.0"), "allowed"),
    case("HTTP/1.0 without a host, a foreign page", get(KEYED, EVIL, version=b"HTTP/1.0"), "origin_not_allowed"),
    case("HTTP/1.0 with two origins", get(KEYED, SHOP, SHOP, version=b"HTTP/1.0"), "origin_conflict"),
    case(
        "HTTP/1.0 asking for a WebSocket", get(KEYED, EVIL, b"Upgrade: websocket", version=b"HTTP/1.0"), "origin_not_allowed"
    ),
    case("HTTP/1.1 without a host", without_host(KEYED, EVIL), "origin_not_allowed", **by_h11(BAD)),
    case("HTTP/1.1 with two hosts", get(KEYED, EVIL, b"Host: shop.acme.com"), "origin_not_allowed", **by_h11(BAD)),
    case("HTTP/1.2", get(KEYED, EVIL, version=b"HTTP/1.2"), "origin_not_allowed", **by_others(BAD)),
    case("HTTP/2.0 as text", get(KEYED, EVIL, version=b"HTTP/2.0"), "origin_not_allowed", granian=BAD),
    case("HTTP/0.9", b"GET " + QUERY + b"\r\n\r\n", BAD, httptools="origin_missing"),
    # Preflights, which are open
    case("preflight of a page", get(EVIL, PREFLIGHT, method=b"OPTIONS"), "preflight"),
    case("preflight with two origins", get(SHOP, SHOP, PREFLIGHT, method=b"OPTIONS"), "origin_conflict"),
    case("preflight of an opaque page", get(NULL, PREFLIGHT, method=b"OPTIONS"), "origin_null"),
    case("preflight without an origin", get(SHOP_REFERER, PREFLIGHT, method=b"OPTIONS"), "origin_missing"),
    case("preflight with a key in its headers", get(KEYED, EVIL, PREFLIGHT, method=b"OPTIONS"), "origin_not_allowed"),
    case("preflight by another method", get(EVIL, PREFLIGHT), "key_missing"),
    case(
        "preflight in lower case",
        get(EVIL, PREFLIGHT, method=b"options"),
        "key_missing",
        httptools=BAD,
        hypercorn="preflight",
    ),
    # Bodies
    case("a body in chunks", post(KEYED, SHOP, body=b"3\r\nabc\r\n0\r\n\r\n"), "allowed"),
    case("a body in chunks, a foreign page", post(KEYED, EVIL, body=b"3\r\nabc\r\n0\r\n\r\n"), "origin_not_allowed"),
    case("chunks without a size", post(KEYED, EVIL, body=b"no\r\nabc\r\n0\r\n\r\n"), BAD, granian="origin_not_allowed"),
    # uvicorn with httptools merges trailers that arrive with the head into the headers, against RFC 9110 section 6.5.1.
    case(
        "a foreign page in a trailer",
        post(KEYED, SHOP, body=b"0\r\n" + EVIL + b"\r\n\r\n"),
        "allowed",
        httptools="origin_conflict",
    ),
    case(
        "the page in a trailer only", post(KEYED, body=b"0\r\n" + SHOP + b"\r\n\r\n"), "origin_missing", httptools="allowed"
    ),
    case("the key in a trailer only", post(SHOP, body=b"0\r\n" + KEYED + b"\r\n\r\n"), "key_missing", httptools="allowed"),
    case(
        "the page in a trailer beside a foreign one",
        post(KEYED, EVIL, body=b"0\r\n" + SHOP + b"\r\n\r\n"),
        "origin_not_allowed",
        httptools="origin_conflict",
    ),
]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_request_has_its_documented_outcome(ports: dict[str, int], server: str, case: Case) -> None:
    expected = case.outcomes[server]
    with connect(ports[server]) as wire:
        if len(case.request) > len(HUGE):
            # The limit applies only to heads that have not arrived completely.
            wire.send(case.request[:-HELD_BACK])
            if server in LIMITED:
                assert wire.answered_within(5)
            wire.send(case.request[-HELD_BACK:])
        else:
            wire.send(case.request)
        assert [outcome(answer) for answer in wire.answers()] == [expected]
