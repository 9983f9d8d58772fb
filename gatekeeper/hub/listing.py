"""ListingResponse: the whole list, sent as its client reads it."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

import anyio
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gatekeeper.hub.list_bodies import ListBody
from gatekeeper.hub.list_headers import whole_headers
from gatekeeper.hub.tokens import TokenScope

__all__ = ("LIST_DEADLINE", "ListingResponse")

# Seconds. A slow client keeps a body on the disk all the while; gatekeeper's own client gives up after 30 s.
LIST_DEADLINE: Final = 60.0


class ListingResponse(Response):
    """A response that streams the list of widget keys.

    Args:
        opening: a context manager that opens the body.
        token_scope: the scope of the token that asked for it.
        further: headers beside those of each list.
        gzip: whether the body is compressed.
        deadline: the longest time for the whole answer, in seconds.
    """

    def __init__(
        self,
        opening: AbstractAsyncContextManager[ListBody],
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
            async with self._opening as body:
                headers = {**whole_headers(body.etag, self._token_scope, gzip=self._gzip), **self._further}
                answer = StreamingResponse(body.chunks(), headers=headers, media_type="application/json")
                await answer(scope, receive, send)
