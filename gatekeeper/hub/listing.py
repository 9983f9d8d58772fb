"""ListingResponse: the list of widget keys, streamed page by page."""

import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

import anyio
import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gatekeeper.hub.list_headers import list_headers
from gatekeeper.hub.rows import KeyList, KeyRow
from gatekeeper.hub.tokens import TokenScope

__all__ = ("LIST_DEADLINE", "ListingResponse")

# Seconds. A slow client holds a database connection all the while; gatekeeper's own client gives up after 30 s.
LIST_DEADLINE: Final = 60.0

# zlib's default of 6 makes this list a tenth smaller and takes twice as long.
_GZIP_LEVEL: Final = 1
_GZIP_FORMAT: Final = 31  # zlib's wbits: 15 for the largest window, plus 16 for the gzip header and trailer.


class ListingResponse(Response):
    """A response that streams the list of widget keys.

    Args:
        opening: a context manager that opens the list.
        token_scope: the scope of the token that asked for it.
        further: headers beside those of each list.
        gzip: whether to compress it.
        deadline: the longest time for the whole answer, in seconds.
    """

    def __init__(
        self,
        opening: AbstractAsyncContextManager[KeyList],
        token_scope: TokenScope,
        further: Mapping[str, str],
        *,
        gzip: bool,
        deadline: float = LIST_DEADLINE,
    ) -> None:
        super().__init__()
        self._opening = opening
        self._token_scope = token_scope
        self._further = further
        self._gzip = gzip
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the list. After the first byte, errors break off the connection."""
        # A client that is cut off here gets an answer without its end, which HTTP clients report as incomplete. A client
        # that disconnects gets no other answer.
        with anyio.move_on_after(self._deadline), suppress(ClientDisconnect):
            async with self._opening as keys:
                headers = {**list_headers(keys.etag, self._token_scope), **self._further}
                if self._gzip:
                    headers["Content-Encoding"] = "gzip"
                if scope["method"] == "HEAD":
                    await Response(headers=headers, media_type="application/json")(scope, receive, send)
                    return
                body = _encode(keys.pages)
                if self._gzip:
                    body = _compress(body)
                await StreamingResponse(body, headers=headers, media_type="application/json")(scope, receive, send)


async def _encode(pages: AsyncIterator[list[KeyRow]]) -> AsyncIterator[bytes]:
    encoder = msgspec.json.Encoder()
    before = b"["
    async for rows in pages:
        yield before + encoder.encode(rows)[1:-1]
        before = b","
    yield b"]" if before == b"," else b"[]"


async def _compress(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    compressor = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)
    async for chunk in chunks:
        # zlib releases the GIL, so a thread keeps the event loop free for other requests.
        yield await anyio.to_thread.run_sync(compressor.compress, chunk)
    yield compressor.flush()
