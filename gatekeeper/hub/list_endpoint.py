"""ListEndpoint: the answers to requests for the list."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.hub.list_request import read_list_request
from gatekeeper.hub.listing import LIST_DEADLINE, ListingResponse, list_headers
from gatekeeper.hub.store import KeyStore
from gatekeeper.hub.tokens import Bearer

__all__ = ("ListEndpoint",)


class ListEndpoint:
    """The endpoint of the list.

    Args:
        keys: the widget keys that it serves.
        deadline: the longest time for sending the list, in seconds.
    """

    def __init__(self, keys: KeyStore, *, deadline: float = LIST_DEADLINE) -> None:
        self._keys = keys
        self._deadline = deadline

    async def answer(self, request: Request, bearer: Bearer) -> Response:
        """Answer a request for the list.

        Args:
            request: the request, which is authenticated.
            bearer: the bearer of its token.

        Returns:
            The list, or a 304 if the client has it.

        Raises:
            DatabaseDown: the database does not answer.
        """
        asked = read_list_request(request)
        etag = await self._keys.etag(bearer.account)
        if asked.names(etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=list_headers(etag, bearer.scope))
        opening = self._keys.list(bearer.account)
        return ListingResponse(opening, bearer.scope, gzip=asked.takes_gzip, deadline=self._deadline)
