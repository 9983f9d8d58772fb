"""What the tables are made of: a line says what is sent, and what that comes to behind every server."""

from typing import NamedTuple

from .app import KEY, OTHER_KEY
from .servers import SERVERS

__all__ = (
    "BAD",
    "CONFLICTING_QUERY",
    "EVIL",
    "KEYED",
    "NULL",
    "OTHER_KEYED",
    "PREFLIGHT",
    "QUERY",
    "SHOP",
    "SHOP_REFERER",
    "Case",
    "by_h11",
    "by_others",
    "case",
)

SHOP = b"Origin: https://shop.acme.com"
EVIL = b"Origin: https://evil.test"
NULL = b"Origin: null"
SHOP_REFERER = b"Referer: https://shop.acme.com/"
KEYED = b"Data-Client-Key: " + KEY.encode()
OTHER_KEYED = b"Data-Client-Key: " + OTHER_KEY.encode()
QUERY = b"/?client_key=" + KEY.encode()
CONFLICTING_QUERY = QUERY + b"&client_key=" + OTHER_KEY.encode()
PREFLIGHT = b"Access-Control-Request-Method: POST"

# A server's own answer to what it does not take for HTTP: neither the gate nor the app hears of it.
BAD = "server 400"


class Case(NamedTuple):
    """A request, and what it comes to behind each server."""

    name: str
    request: bytes
    outcomes: dict[str, str]


def case(name: str, request: bytes, expected: str, **elsewhere: str) -> Case:
    """Write a line of a table.

    Args:
        name: what is special about the request.
        request: its bytes.
        expected: what it comes to, in the words of `outcome`.
        elsewhere: the servers behind which it comes to something else.
    """
    assert set(elsewhere) < set(SERVERS), elsewhere
    assert expected not in elsewhere.values(), elsewhere
    return Case(name, request, {server: elsewhere.get(server, expected) for server in SERVERS})


def by_h11(outcome: str) -> dict[str, str]:
    """Name the servers that read HTTP/1 with h11."""
    return {"h11": outcome, "hypercorn": outcome}


def by_others(outcome: str) -> dict[str, str]:
    """Name the servers that do not: httptools reads with llhttp, granian with hyper."""
    return {"httptools": outcome, "granian": outcome}
