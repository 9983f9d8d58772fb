"""The rows of the tables: a request, and its outcomes by server."""

from typing import NamedTuple

from tests.support.client_keys import KEY
from tests.wire.app import OTHER_KEY
from tests.wire.servers import SERVERS

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

# A server's own answer to invalid HTTP. It reaches neither the gate nor the app.
BAD = "server 400"


class Case(NamedTuple):
    """A request, and its outcome on each server."""

    name: str
    request: bytes
    outcomes: dict[str, str]


def case(name: str, request: bytes, expected: str, **elsewhere: str) -> Case:
    """Make a row of a table.

    Args:
        name: what is special about the request.
        request: the bytes of the request.
        expected: the outcome, in the words of `outcome`.
        elsewhere: other outcomes, by server.
    """
    assert set(elsewhere) < set(SERVERS), elsewhere
    assert expected not in elsewhere.values(), elsewhere
    return Case(name, request, {server: elsewhere.get(server, expected) for server in SERVERS})


def by_h11(outcome: str) -> dict[str, str]:
    """The outcome on the servers that parse HTTP/1 with h11."""
    return {"h11": outcome, "hypercorn": outcome}


def by_others(outcome: str) -> dict[str, str]:
    """The outcome on the other servers. httptools uses llhttp, and granian hyper."""
    return {"httptools": outcome, "granian": outcome}
