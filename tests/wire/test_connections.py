"""Several requests on one connection, each decided by its own bytes.

A row of the table has the pieces to send and all answers. Each piece is sent after the answer to the one before. The bodies
are themselves requests of an allowed page with its key, so a server that miscounts lengths answers "/smuggled".
"""

import json
from typing import NamedTuple

import pytest

from tests.wire.cases import EVIL, KEYED, PREFLIGHT, SHOP
from tests.wire.servers import SERVERS
from tests.wire.wire import Answer, connect, outcome

pytestmark = pytest.mark.process

LAST = b"Connection: close"
CHUNKED = b"Transfer-Encoding: chunked"
CONTINUE = b"Expect: 100-continue"


class Conversation(NamedTuple):
    """The bytes sent on a connection, and the answers of each server.

    A server that may disconnect instead of reading an unwanted body may omit the last answers, but never the first.
    """

    name: str
    pieces: tuple[bytes, ...]
    answers: dict[str, tuple[str, ...]]
    may_hang_up: tuple[str, ...]


def conversation(
    name: str, pieces: tuple[bytes, ...], *expected: str, may_hang_up: tuple[str, ...] = (), **elsewhere: tuple[str, ...]
) -> Conversation:
    """Make a row of the table; `elsewhere` has other answers, by server."""
    assert {*elsewhere, *may_hang_up} < set(SERVERS)
    answers = {server: elsewhere.get(server, expected) for server in SERVERS}
    return Conversation(name, pieces, answers, may_hang_up)


def request(method: bytes, path: bytes, *lines: bytes) -> bytes:
    """Make the head of a request on a connection that stays open."""
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: widgets.test", *lines, b"", b""])


def length(count: int) -> bytes:
    """Make a Content-Length header."""
    return b"Content-Length: %d" % count


FIRST = request(b"GET", b"/1", KEYED, SHOP)
FIRST_FOREIGN = request(b"GET", b"/1", KEYED, EVIL)
NEXT = request(b"GET", b"/next", KEYED, SHOP, LAST)
NEXT_FOREIGN = request(b"GET", b"/next", KEYED, EVIL, LAST)

SMUGGLED = request(b"GET", b"/smuggled", KEYED, SHOP)
CHUNK = b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n"
CHUNKS = CHUNK + CHUNK + b"0\r\n\r\n"
SIZED = length(len(SMUGGLED))
UPLOAD = request(b"POST", b"/1", KEYED, SHOP, CHUNKED)
FOREIGN_CHUNKED = request(b"POST", b"/1", KEYED, EVIL, CHUNKED)
FOREIGN_SIZED = request(b"POST", b"/1", KEYED, EVIL, SIZED)

BAD = ("server 400",)
UNKNOWN_CODING = ("server 501",)
REFUSED_THEN_NEXT = ("origin_not_allowed", "allowed /next")

CONVERSATIONS = [
    conversation("allowed, then allowed", (FIRST, NEXT), "allowed /1", "allowed /next"),
    conversation("foreign, then allowed", (FIRST_FOREIGN, NEXT), *REFUSED_THEN_NEXT),
    conversation("allowed, then foreign", (FIRST, NEXT_FOREIGN), "allowed /1", "origin_not_allowed"),
    # Several requests at once
    conversation("pipelined: allowed, foreign", (FIRST + NEXT_FOREIGN,), "allowed /1", "origin_not_allowed"),
    conversation("pipelined: foreign, allowed", (FIRST_FOREIGN + NEXT,), *REFUSED_THEN_NEXT),
    conversation(
        "pipelined: what one request says is not the next one's",
        (
            FIRST
            + request(b"GET", b"/2", KEYED, EVIL)
            + request(b"GET", b"/3", KEYED)
            + request(b"GET", b"/4", SHOP)
            + request(b"GET", b"/5", KEYED, SHOP, SHOP)
            + NEXT,
        ),
        *("allowed /1", "origin_not_allowed", "origin_missing", "key_missing", "origin_conflict", "allowed /next"),
    ),
    conversation(
        "pipelined: a preflight, foreign, allowed",
        (request(b"OPTIONS", b"/1", EVIL, PREFLIGHT) + request(b"GET", b"/2", KEYED, EVIL) + NEXT,),
        "preflight",
        *REFUSED_THEN_NEXT,
    ),
    # Refused with the body already sent
    conversation(
        "chunks of a foreign page, allowed", (FOREIGN_CHUNKED + CHUNKS, NEXT), *REFUSED_THEN_NEXT, may_hang_up=("granian",)
    ),
    conversation(
        "chunks of a foreign page, pipelined",
        (FOREIGN_CHUNKED + CHUNKS + NEXT,),
        *REFUSED_THEN_NEXT,
        may_hang_up=("granian",),
    ),
    conversation(
        "chunks of an allowed page, foreign", (UPLOAD + CHUNKS + NEXT_FOREIGN,), "allowed /1", "origin_not_allowed"
    ),
    conversation(
        "a body of a foreign page, allowed", (FOREIGN_SIZED + SMUGGLED, NEXT), *REFUSED_THEN_NEXT, may_hang_up=("granian",)
    ),
    conversation(
        "a body of a foreign page, pipelined",
        (FOREIGN_SIZED + SMUGGLED + NEXT,),
        *REFUSED_THEN_NEXT,
        may_hang_up=("granian",),
    ),
    conversation(
        "a body of a foreign page's GET, pipelined",
        (request(b"GET", b"/1", KEYED, EVIL, SIZED) + SMUGGLED + NEXT,),
        *REFUSED_THEN_NEXT,
        may_hang_up=("granian",),
    ),
    # Refused before the body is sent
    conversation("late chunks", (FOREIGN_CHUNKED, CHUNKS + NEXT), *REFUSED_THEN_NEXT, may_hang_up=("hypercorn", "granian")),
    conversation(
        "late rest of chunks",
        (FOREIGN_CHUNKED + CHUNK, CHUNKS + NEXT),
        *REFUSED_THEN_NEXT,
        may_hang_up=("hypercorn", "granian"),
    ),
    conversation("a late body", (FOREIGN_SIZED, SMUGGLED + NEXT), *REFUSED_THEN_NEXT, may_hang_up=("hypercorn", "granian")),
    # Expect: 100-continue; hypercorn sends the 100 before it calls the gate
    conversation(
        "an allowed page asks first",
        (request(b"POST", b"/1", KEYED, SHOP, SIZED, CONTINUE), SMUGGLED, NEXT),
        *("server 100", "allowed /1", "allowed /next"),
    ),
    conversation(
        "a foreign page asks first",
        (request(b"POST", b"/1", KEYED, EVIL, SIZED, CONTINUE), SMUGGLED + NEXT),
        *REFUSED_THEN_NEXT,
        may_hang_up=("hypercorn", "granian"),
        hypercorn=("server 100", *REFUSED_THEN_NEXT),
    ),
    # Two lengths, or an unknown one. Transfer-Encoding takes precedence (RFC 9112 section 6.3).
    conversation(
        "a length and chunks, the length longer",
        (request(b"POST", b"/1", KEYED, EVIL, length(5 + len(SMUGGLED)), CHUNKED) + b"0\r\n\r\n" + NEXT,),
        *REFUSED_THEN_NEXT,
        httptools=BAD,
        granian=REFUSED_THEN_NEXT[:1],
    ),
    conversation(
        "a length and chunks, the length shorter",
        (request(b"POST", b"/1", KEYED, EVIL, CHUNKED, length(5)) + CHUNKS + NEXT,),
        *REFUSED_THEN_NEXT,
        httptools=BAD,
        granian=REFUSED_THEN_NEXT[:1],
    ),
    conversation("two lengths", (request(b"POST", b"/1", KEYED, EVIL, length(0), SIZED) + SMUGGLED + NEXT,), *BAD),
    conversation(
        "a length with a sign", (request(b"POST", b"/1", KEYED, EVIL, b"Content-Length: +5") + b"abcde" + NEXT,), *BAD
    ),
    conversation(
        "chunks, said twice",
        (request(b"POST", b"/1", KEYED, EVIL, CHUNKED, CHUNKED) + CHUNKS + NEXT,),
        *BAD,
        hypercorn=UNKNOWN_CODING,
        granian=REFUSED_THEN_NEXT,
        may_hang_up=("granian",),
    ),
    conversation(
        "an unknown coding",
        (request(b"POST", b"/1", KEYED, EVIL, b"Transfer-Encoding: xchunked") + SMUGGLED + NEXT,),
        *BAD,
        hypercorn=UNKNOWN_CODING,
    ),
    conversation(
        "no coding, and a length",
        (request(b"POST", b"/1", KEYED, EVIL, b"Transfer-Encoding: identity", SIZED) + SMUGGLED + NEXT,),
        *BAD,
        hypercorn=UNKNOWN_CODING,
    ),
]


def said(answer: Answer) -> str:
    """The outcome of an answer, and the path that the app answered."""
    came_to = outcome(answer)
    return f"{came_to} {json.loads(answer.body)['path']}" if came_to == "allowed" else came_to


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.name)
def test_every_request_of_a_connection_is_decided_by_its_own_bytes(
    ports: dict[str, int], server: str, conversation: Conversation
) -> None:
    heard = []
    with connect(ports[server]) as wire:
        for piece in conversation.pieces[:-1]:
            wire.send(piece)
            answer = wire.answer()
            assert answer is not None
            heard.append(said(answer))
        wire.send(conversation.pieces[-1])
        heard.extend(said(answer) for answer in wire.answers())
    expected = list(conversation.answers[server])
    if server in conversation.may_hang_up:
        assert heard
        expected = expected[: len(heard)]
    assert heard == expected
