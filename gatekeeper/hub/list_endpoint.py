"""ListEndpoint: the answers to requests for the list."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.hub.deltas import Delta, DeltaReader
from gatekeeper.hub.list_bodies import ListBodies
from gatekeeper.hub.list_headers import delta_headers, list_headers, whole_headers
from gatekeeper.hub.list_request import read_list_request
from gatekeeper.hub.listing import LIST_DEADLINE, ListingResponse
from gatekeeper.hub.tokens import Bearer, TokenScope

__all__ = ("ListEndpoint",)


class ListEndpoint:
    """The endpoint of the list.

    Args:
        bodies: the bodies of the lists that it serves.
        deltas: the reader of what has changed in their lists.
        deadline: the longest time for sending the list, in seconds.
    """

    def __init__(self, bodies: ListBodies, deltas: DeltaReader, *, deadline: float = LIST_DEADLINE) -> None:
        self._bodies = bodies
        self._deltas = deltas
        self._deadline = deadline

    async def answer(self, request: Request, bearer: Bearer) -> Response:
        """Answer a request for the list.

        Args:
            request: the request, which is authenticated.
            bearer: the bearer of its token.

        Returns:
            The list; what has changed, if the client takes that and the hub knows what the client has; or a 304.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: others keep it busy.
        """
        asked = read_list_request(request)
        bases = asked.bases
        state = await self._deltas.read(bearer.account, bases)
        etag = state.revision.etag
        if asked.names(etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=list_headers(etag, bearer.scope))
        if state.delta is not None:
            return _respond_with(state.delta, bases[state.delta.base], bearer.scope, gzip=asked.takes_gzip)
        if request.method == "HEAD":
            return Response(headers=whole_headers(etag, bearer.scope, gzip=asked.takes_gzip), media_type="application/json")
        opening = self._bodies.reading(bearer.account, etag, gzip=asked.takes_gzip)
        return ListingResponse(opening, bearer.scope, gzip=asked.takes_gzip, deadline=self._deadline)


def _respond_with(delta: Delta, base: str, token_scope: TokenScope, *, gzip: bool) -> Response:
    headers = delta_headers(delta.revision.etag, base, token_scope, gzip=gzip)
    content = delta.gzipped if gzip else delta.body
    return Response(content, HTTPStatus.IM_USED, headers, "application/json")
