"""Listing: the account's list as a stream, for sources. The refresher does the retries.

The hub may answer a conditional request with the changes of the list (226, RFC 3229), and hold its answer until there is one
(`Prefer: wait`, RFC 7240 section 4.3).
"""

import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Literal, Self, cast

import httpx
import msgspec

from gatekeeper.client.calls import WHOLE, Calls, etag_of
from gatekeeper.client.collection import Call
from gatekeeper.client.retries import never
from gatekeeper.errors import HubProtocolError, InvalidList

__all__ = ("MAX_LIST", "ListAnswer", "ListQuestion", "Listing", "TokenScope", "fetch")

TokenScope = Literal["gate", "admin"]
"""What the hub lets a token do: `gate` lists keys and reports on them, `admin` does everything."""

# Bytes of JSON: room for two million rows of 246 bytes. A gzip bomb has more.
MAX_LIST = 512 * 1024 * 1024
_PIECE = 64 * 1024  # bytes to decompress before yielding to the event loop
_MAX_REFUSAL = 64 * 1024  # bytes of a refusal to read; only its beginning is shown
_GZIP = 16 + zlib.MAX_WBITS  # how zlib is told to expect the gzip format
_ROWS = "rows"  # the instance manipulation of RFC 3229 that gives the rows which have changed
_APPLIED_WAIT = re.compile(r'wait[ \t]*=[ \t]*(?:([0-9]{1,4})|"([0-9]{1,4})")', re.IGNORECASE)


class Listing:
    """The account's list, as a stream of chunks.

    Args:
        chunks: the bytes of a JSON array of rows.
        validator: the validator for the next conditional request.
        dated_at: seconds since 1970 when the list was made, by its maker's clock; None if unknown.
        is_copy: whether the list is a cached copy, according to a cache on the way.
    """

    def __init__(
        self,
        chunks: AsyncIterable[bytes],
        validator: str | None = None,
        *,
        dated_at: float | None = None,
        is_copy: bool = False,
    ) -> None:
        self.chunks = chunks
        self.validator = validator
        self.dated_at = dated_at
        self.is_copy = is_copy

    @classmethod
    def whole(cls, body: bytes, validator: str | None = None) -> Self:
        """A listing of a complete list.

        Args:
            body: a JSON array of rows.
            validator: as for the class.

        Returns:
            The listing.
        """
        return cls(_Pieces(body), validator)

    async def read(self) -> bytes:
        """Read the whole list. It can be read once.

        Raises:
            SourceError: the list is truncated.
        """
        return b"".join([chunk async for chunk in self.chunks])


class ListQuestion(msgspec.Struct, frozen=True):
    """What the hub is asked for.

    Attributes:
        validator: the validator of the list that is known; None asks for the whole list in any case.
        takes_changes: whether the hub may answer with what has changed since.
        wait: seconds for which it may hold its answer until something changes; None for not at all.
        max_list: bytes of the list at most, decompressed.
    """

    validator: str | None = None
    takes_changes: bool = False
    wait: int | None = None
    max_list: int = MAX_LIST

    @property
    def headers(self) -> dict[str, str]:
        """The headers that ask it."""
        headers = {"cache-control": "no-cache", "accept-encoding": "gzip"}
        if self.validator is not None:
            headers["if-none-match"] = self.validator
            if self.takes_changes:
                headers["a-im"] = _ROWS
            if self.wait is not None:
                headers["prefer"] = f"wait={self.wait}"
        return headers


class ListAnswer(msgspec.Struct, frozen=True):
    """What the hub answers.

    Attributes:
        listing: the whole list, or the rows that have changed; None if none has.
        base: the validator of the list that the rows change; None for a whole list.
        granted: seconds for which the hub has held its answer, or would have; None if it holds none.
        may_wait: whether the hub says that its answers depend on `Prefer`, as one that can hold them does.
        is_last: whether the hub closes the connection after its answer, as one that stops does.
    """

    listing: Listing | None
    base: str | None = None
    granted: float | None = None
    may_wait: bool = False
    is_last: bool = False


@asynccontextmanager
async def fetch(
    calls: Calls,
    http: httpx.AsyncClient,
    question: ListQuestion,
    on_token_scope: Callable[[TokenScope | None], None] | None,
) -> AsyncIterator[ListAnswer]:
    """Fetch the list, or its changes, or that there are none. Read it while the context is open.

    InvalidList, from reading it, leaves the context as a HubProtocolError.
    """
    request = calls.request(http, Call("GET", "", lambda _: None, never, headers=question.headers))
    if question.wait is not None and (timeout := request.extensions["timeout"])["read"] is not None:
        # httpx limits each wait for bytes. The first of them may take as long as the hub holds its answer.
        request.extensions["timeout"] = {**timeout, "read": question.wait + timeout["read"]}
    with calls.transport_errors(http):
        response = await http.send(request, stream=True, follow_redirects=False)
    chunks = _decoded(calls, http, response, question.max_list)
    try:
        if on_token_scope is not None and (response.is_success or response.status_code == httpx.codes.NOT_MODIFIED):
            on_token_scope(_token_scope(response))
        granted, may_wait = _granted(response, question.wait), _varies_by_prefer(response)
        if response.status_code == httpx.codes.NOT_MODIFIED:
            with calls.transport_errors(http):
                await response.aread()  # the body is empty, but only reading it to its end frees the connection
            _require_same(calls, response, question.validator)
            yield ListAnswer(None, None, granted, may_wait, is_last="close" in _listed(response, "connection"))
        elif response.status_code in WHOLE or (response.status_code == httpx.codes.IM_USED and question.takes_changes):
            base = None if response.status_code in WHOLE else _base(calls, response, question.validator)
            listing = Listing(chunks, etag_of(response), dated_at=_dated_at(response), is_copy="age" in response.headers)
            try:
                yield ListAnswer(listing, base, granted, may_wait)
            except InvalidList as error:
                raise calls.refusals.not_a_list(response, error) from error
        else:
            raise calls.refusals.refusal(await _beginning(response, chunks))
    finally:
        await chunks.aclose()
        await response.aclose()


async def _decoded(
    calls: Calls, http: httpx.AsyncClient, response: httpx.Response, max_list: int
) -> AsyncGenerator[bytes, None]:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    ways: dict[str, type[_AsItIs | _Unzipping]]
    ways = {"identity": _AsItIs, "": _AsItIs, "gzip": _Unzipping, "x-gzip": _Unzipping}
    unpacking = ways.get(encoding)
    if unpacking is None:
        named = calls.refusals.quoted(encoding)
        raise _unusable(calls, response, f"in the content encoding {named}, but only gzip was requested")
    unpack, size = unpacking(), 0
    with calls.transport_errors(http):
        try:
            async with aclosing(_raw(response)) as raw:
                async for chunk in raw:
                    for piece in unpack(chunk):
                        size += len(piece)
                        if size > max_list:
                            raise _unusable(calls, response, f"of more than {max_list} bytes, decompressed")
                        yield piece
            unpack.end()
        except (zlib.error, EOFError) as error:
            raise _unusable(calls, response, f"that is not valid gzip ({error})") from error


def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    length = response.headers.get("content-length", "")
    is_small = length.isascii() and length.isdigit() and len(length) < len(str(_PIECE))
    # httpx returns a generator and annotates it as a mere iterator.
    raw = cast("AsyncGenerator[bytes, None]", response.aiter_raw())
    return _in_one(raw) if is_small else raw


async def _in_one(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Read a small body to its end: the connection can then be reused even if the consumer stops early."""
    yield b"".join([chunk async for chunk in chunks])


class _AsItIs:
    """Unpacks a body that is not packed."""

    def __call__(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def end(self) -> None:
        pass


class _Unzipping:
    """Decompresses in pieces, so that a gzip bomb is noticed early."""

    def __init__(self) -> None:
        self._unzip = zlib.decompressobj(_GZIP)

    def __call__(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._unzip.eof:  # gzip data may have several members (RFC 1952 section 2.2)
                self._unzip = zlib.decompressobj(_GZIP)
            yield self._unzip.decompress(chunk, _PIECE)
            chunk = self._unzip.unused_data if self._unzip.eof else self._unzip.unconsumed_tail
        while piece := self._unzip.decompress(b"", _PIECE):
            yield piece

    def end(self) -> None:
        if not self._unzip.eof:
            raise EOFError("it is truncated")


class _Pieces:
    """A body in pieces. Unlike a generator, it needs no closing."""

    def __init__(self, body: bytes) -> None:
        self._pieces = (body[start : start + _PIECE] for start in range(0, len(body), _PIECE))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _beginning(response: httpx.Response, chunks: AsyncIterator[bytes]) -> httpx.Response:
    """Copy an answer with only the beginning of its body."""
    beginning = bytearray()
    try:
        async for chunk in chunks:
            beginning += chunk
            if len(beginning) >= _MAX_REFUSAL:
                break
    except HubProtocolError:
        pass  # the status is enough
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in _ABOUT_THE_BODY]
    return httpx.Response(response.status_code, headers=headers, content=bytes(beginning), request=response.request)


_ABOUT_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")


def _require_same(calls: Calls, response: httpx.Response, validator: str | None) -> None:
    etag = etag_of(response) or validator or ""
    if validator is None or etag.removeprefix("W/") != validator.removeprefix("W/"):
        named = calls.refusals.quoted(etag)
        problem = f"the hub at {calls.url} answered 304 for another list ({named}) than the requested one"
        raise HubProtocolError(problem, status=response.status_code)


def _base(calls: Calls, response: httpx.Response, validator: str | None) -> str:
    """The validator of the list that an answer changes."""
    base = etag_of(response, b"delta-base")
    problem = None
    if validator is None:
        problem = "without a list that they change: expected the whole list"
    elif base is None or base.removeprefix("W/") != validator.removeprefix("W/"):
        named = "no list" if base is None else f"the list {calls.refusals.quoted(base)}"
        problem = f"of {named} (Delta-Base): expected those of {calls.refusals.quoted(validator)}, which was sent"
    elif response.headers.get("im", "").strip().lower() != _ROWS:
        named = calls.refusals.quoted(response.headers.get("im", ""))
        problem = f"made in the way {named} (IM): expected {_ROWS!r}, which was asked for"
    elif etag_of(response) is None:
        problem = "without an ETag: expected that of the list which they lead to"
    if base is None or problem is not None:
        problem = f"the hub at {calls.url} answered 226 with changes {problem}; the whole list is asked for next"
        raise HubProtocolError(problem, status=response.status_code)
    return base


def _varies_by_prefer(response: httpx.Response) -> bool:
    """See RFC 7240 section 2, on `Vary`."""
    return "prefer" in _listed(response, "vary")


def _listed(response: httpx.Response, name: str) -> list[str]:
    """The members of a header that lists tokens, in lower case."""
    return [token.strip().lower() for token in response.headers.get(name, "").split(",")]


def _granted(response: httpx.Response, wait: int | None) -> float | None:
    """Seconds of the wait that the hub has honoured. See RFC 7240 section 3."""
    for applied in response.headers.get("preference-applied", "").split(","):
        if found := _APPLIED_WAIT.fullmatch(applied.strip(" \t")):
            seconds = int(found[1] or found[2])
            return float(seconds) if wait is not None and 1 <= seconds <= wait else None
    return None


def _token_scope(response: httpx.Response) -> TokenScope | None:
    said = response.headers.get("token-scope")
    return said if said in {"gate", "admin"} else None


def _unusable(calls: Calls, response: httpx.Response, what: str) -> HubProtocolError:
    problem = f"the hub at {calls.url} answered {response.status_code} with a list {what}"
    return HubProtocolError(problem, status=response.status_code)


def _dated_at(response: httpx.Response) -> float | None:
    """Seconds since 1970 when an answer was made. See RFC 9110 section 6.6.1, RFC 9111 section 5.1."""
    try:
        date = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    age = response.headers.get("age", "")
    return date - float(age[:9]) if age.isascii() and age.isdigit() else date
