"""ListEndpoint: the answers to requests for the list."""

from collections.abc import Mapping
from copy import copy
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.hub.deltas import DeltaReader, ListState
from gatekeeper.hub.list_bodies import ListBodies
from gatekeeper.hub.list_headers import delta_headers, list_headers, wait_headers, whole_headers
from gatekeeper.hub.list_request import ListRequest, read_list_request
from gatekeeper.hub.listing import LIST_DEADLINE, ListingResponse
from gatekeeper.hub.tokens import Bearer
from gatekeeper.hub.waiters import Waiters

__all__ = ("ListEndpoint",)

# Lists that a request may name and wait. A gate names one. All are kept in memory, and looked at whenever the account is.
_MAX_NAMED: Final = 10


class ListEndpoint:
    """The endpoint of the list.

    Args:
        bodies: the bodies of the lists that it serves.
        deltas: the reader of what has changed in their lists.
        waiters: the requests that wait for a change.
        deadline: the longest time for sending the list, in seconds.
    """

    def __init__(
        self, bodies: ListBodies, deltas: DeltaReader, waiters: Waiters, *, deadline: float = LIST_DEADLINE
    ) -> None:
        self._bodies = bodies
        self._deltas = deltas
        self._waiters = waiters
        self._deadline = deadline

    async def answer(self, request: Request, bearer: Bearer) -> Response:
        """Answer a request for the list.

        Args:
            request: the request, which is authenticated.
            bearer: the bearer of its token.

        Returns:
            The list; what has changed, if the client takes that and the hub knows what the client has; or a 304.

        Raises:
            ClientDisconnect: the client has gone while its request waited.
            DatabaseDown: the database does not answer.
            HubOverloaded: others keep it busy.
            Problem: 401, because the token was revoked while the request waited.
        """
        asked = read_list_request(request)
        # Without a tag there is nothing to wait for, and every list has the tag "*". A HEAD is for what is there now.
        may_wait = request.method == "GET" and 0 < len(asked.tags) <= _MAX_NAMED and "*" not in asked.tags
        if asked.wait is None or not may_wait:
            waited = None
        else:
            waited = await self._waiters.wait(bearer, asked, asked.wait, request.receive)
        if waited is None:
            state, is_head = await self._deltas.read(bearer.account, asked.bases), request.method == "HEAD"
            return self._respond(bearer, asked, state, {}, is_head=is_head)
        # It takes a tenth of the time in which thousands are told of a change.
        if bearer.scope in waited.responses:
            return _copy_of(waited.responses[bearer.scope])
        response = self._respond(bearer, asked, waited.state, wait_headers(asked.wait or 0, is_last=waited.is_last))
        if not isinstance(response, ListingResponse):
            waited.responses[bearer.scope] = _copy_of(response)
        return response

    def _respond(
        self, bearer: Bearer, asked: ListRequest, state: ListState, further: Mapping[str, str], *, is_head: bool = False
    ) -> Response:
        etag = state.revision.etag
        if asked.names(etag):
            headers = {**list_headers(etag, bearer.scope), **further}
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if state.delta is not None:
            headers = {**delta_headers(etag, asked.bases[state.delta.base], bearer.scope, gzip=asked.takes_gzip), **further}
            content = state.delta.gzipped if asked.takes_gzip else state.delta.body
            return Response(content, HTTPStatus.IM_USED, headers, "application/json")
        if is_head:
            return Response(headers=whole_headers(etag, bearer.scope, gzip=asked.takes_gzip), media_type="application/json")
        opening = self._bodies.reading(bearer.account, etag, gzip=asked.takes_gzip)
        return ListingResponse(opening, bearer.scope, further, gzip=asked.takes_gzip, deadline=self._deadline)


def _copy_of(response: Response) -> Response:
    """Copy a response, whose headers a middleware may change when it is sent."""
    copied = copy(response)
    copied.raw_headers = list(response.raw_headers)
    return copied
