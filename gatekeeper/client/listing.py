"""Listing: the account's list while it comes, for sources; the refresher reads it, and repeats what fails by itself."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Self, cast

import httpx

from gatekeeper.client.calls import Call, Calls
from gatekeeper.client.retries import never
from gatekeeper.errors import HubProtocolError

__all__ = ("MAX_LIST", "Listing", "fetch")

# Bytes of JSON: room for two million rows of 246 bytes (FAULTS row 12). A gzip bomb has more.
MAX_LIST = 512 * 1024 * 1024
_PIECE = 64 * 1024  # bytes that are unzipped before the event loop gets its turn
_MAX_REFUSAL = 64 * 1024  # bytes of a refusal that are read; only its beginning is shown
_GZIP = 16 + zlib.MAX_WBITS  # zlib's own way to say that the format is gzip's


class Listing:
    """The account's list, which comes piece by piece.

    Args:
        chunks: the bytes of a JSON array of rows.
        validator: what to send along next time, to be told if nothing has changed since.
        dated_at: when the list was made, in seconds since 1970, by the clock of whoever made it; None where nobody says.
        is_copy: whether a cache on the way says that this is its copy.
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
        """A list that is there already.

        Args:
            body: a JSON array of rows.
            validator: as for the class.

        Returns:
            The listing.
        """
        return cls(_Pieces(body), validator)

    async def read(self) -> bytes:
        """All of it, as one; once.

        Raises:
            SourceError: if it breaks off.
        """
        return b"".join([chunk async for chunk in self.chunks])


@asynccontextmanager
async def fetch(
    calls: Calls, http: httpx.AsyncClient, validator: str | None, max_list: int
) -> AsyncIterator[Listing | None]:
    """Ask for the list, if it is another one than the validator names; it comes while the context is open."""
    headers = {"cache-control": "no-cache", "accept-encoding": "gzip"}
    if validator is not None:
        headers["if-none-match"] = validator
    call = Call("GET", "", lambda _: None, never, headers=headers)
    with calls.transport_errors():
        response = await http.send(calls.request(http, call), stream=True, follow_redirects=False)
    chunks = _decoded(calls, response, max_list)
    try:
        if response.status_code == httpx.codes.NOT_MODIFIED:
            with calls.transport_errors():
                await response.aread()  # there is no body, but its connection is used again only after its end
            _require_same(calls, response, validator)
            yield None
        elif response.is_success:
            etag, dated_at = response.headers.get("etag"), _dated_at(response)
            yield Listing(chunks, etag, dated_at=dated_at, is_copy="age" in response.headers)
        else:
            raise calls.refusals.refusal(await _beginning(response, chunks))
    finally:
        await chunks.aclose()
        await response.aclose()


async def _decoded(calls: Calls, response: httpx.Response, max_list: int) -> AsyncGenerator[bytes, None]:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    pieces = {"identity": _as_they_are, "": _as_they_are, "gzip": _unzipped, "x-gzip": _unzipped}.get(encoding)
    if pieces is None:
        raise _unusable(calls, response, f"in the content encoding {encoding!r}, and only gzip was asked for")
    size = 0
    with calls.transport_errors():
        try:
            async with aclosing(_raw(response)) as raw, aclosing(pieces(raw)) as unpacked:
                async for piece in unpacked:
                    size += len(piece)
                    if size > max_list:
                        raise _unusable(calls, response, f"of more than {max_list} bytes, unzipped")
                    yield piece
        except (zlib.error, EOFError) as error:
            raise _unusable(calls, response, f"that is not the gzip that it says it is ({error})") from error


async def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    length = response.headers.get("content-length", "")
    is_small = length.isascii() and length.isdigit() and len(length) < len(str(_PIECE))
    # It is a generator, and says that it is less.
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as raw:
        if is_small:
            # To its end, so that its connection can be used again even if nobody wants the rest.
            yield b"".join([chunk async for chunk in raw])
            return
        async for chunk in raw:
            yield chunk


async def _as_they_are(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        yield chunk


async def _unzipped(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Unzip in pieces, so that a small chunk that unzips to a gigabyte is noticed before it has."""
    unzip = zlib.decompressobj(_GZIP)
    async for chunk in chunks:
        rest = chunk
        while rest:
            if unzip.eof:  # a file of gzip may be several, one after another (RFC 1952 section 2.2)
                unzip = zlib.decompressobj(_GZIP)
            yield unzip.decompress(rest, _PIECE)
            rest = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
    while piece := unzip.decompress(b"", _PIECE):
        yield piece
    if not unzip.eof:
        raise EOFError("it breaks off")


class _Pieces:
    """A body in pieces. Not a generator, for those want closing."""

    def __init__(self, body: bytes) -> None:
        self._pieces = (body[start : start + _PIECE] for start in range(0, len(body), _PIECE))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _beginning(response: httpx.Response, chunks: AsyncIterator[bytes]) -> httpx.Response:
    """The same answer with no more of its body than is needed to say what it says."""
    said = bytearray()
    try:
        async for chunk in chunks:
            said += chunk
            if len(said) >= _MAX_REFUSAL:
                break
    except HubProtocolError:
        pass  # its status says enough
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in _ABOUT_THE_BODY]
    return httpx.Response(response.status_code, headers=headers, content=bytes(said), request=response.request)


_ABOUT_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")


def _require_same(calls: Calls, response: httpx.Response, validator: str | None) -> None:
    etag = response.headers.get("etag", validator)
    if validator is None or etag.removeprefix("W/") != validator.removeprefix("W/"):
        problem = f"the hub at {calls.url} answered 304 about another list ({etag}) than it was asked for"
        raise HubProtocolError(calls.refusals.masked(problem), status=response.status_code)


def _unusable(calls: Calls, response: httpx.Response, what: str) -> HubProtocolError:
    problem = f"the hub at {calls.url} answered {response.status_code} with a list {what}"
    return HubProtocolError(calls.refusals.masked(problem), status=response.status_code)


def _dated_at(response: httpx.Response) -> float | None:
    """When an answer was made (RFC 9110 section 6.6.1, RFC 9111 section 5.1), in seconds since 1970."""
    try:
        date = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    age = response.headers.get("age", "")
    return date - float(age[:9]) if age.isascii() and age.isdigit() else date
