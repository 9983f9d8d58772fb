"""Endpoints: widget keys over HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.hub.bearer import authenticate, require_one_account, require_scope
from gatekeeper.hub.bodies import KeyChange, KeyDraft, read_body, read_gate, read_refused, read_usage
from gatekeeper.hub.conditions import read_tags
from gatekeeper.hub.gates import GateStore
from gatekeeper.hub.list_endpoint import ListEndpoint
from gatekeeper.hub.refused import RefusedPageStore
from gatekeeper.hub.rows import KeyRow
from gatekeeper.hub.store import KeyStore
from gatekeeper.hub.tokens import Bearer, TokenScope, TokenStore
from gatekeeper.hub.usage_writer import UsageWriter

__all__ = ("Endpoints", "Reports")

Handler = Callable[[Request, Bearer], Awaitable[Response]]


class Action(NamedTuple):
    """What a method does on a path.

    Attributes:
        scope: the scope that a token of one account needs.
        handle: answers the request.
        for_all: whether a token for all accounts may do it. It may do nothing else, whatever its scope.
    """

    scope: TokenScope
    handle: Handler
    for_all: bool = False


class Reports(NamedTuple):
    """The stores of what gates report.

    Attributes:
        usage: the use of keys.
        refused: the pages that they have refused.
        gates: the gates themselves.
    """

    usage: UsageWriter
    refused: RefusedPageStore
    gates: GateStore


class Endpoints:
    """The endpoints of a hub.

    Args:
        keys: the widget keys that they serve.
        listing: the endpoint of the list of these keys.
        reports: what gates report.
        tokens: the tokens that authenticate requests.
    """

    def __init__(self, keys: KeyStore, listing: ListEndpoint, reports: Reports, tokens: TokenStore) -> None:
        self._keys = keys
        self._listing = listing
        self._usage, self._refused, self._gates = reports
        self._tokens = tokens

    @property
    def routes(self) -> list[Route]:
        """The routes, under both documented prefixes."""
        paths = {
            "/widget-keys": {
                "GET": Action("gate", self._listing.answer, for_all=True),
                "POST": Action("admin", self._create),
            },
            "/widget-keys/usage": {"POST": Action("gate", self._record_use, for_all=True)},
            "/widget-keys/refused": {
                "GET": Action("admin", self._list_refused),
                "POST": Action("gate", self._record_refused, for_all=True),
            },
            "/widget-keys/{key_id}": {
                "GET": Action("gate", self._get, for_all=True),
                "PATCH": Action("admin", self._update),
                "DELETE": Action("admin", self._delete),
            },
            "/widget-keys/{key_id}/events": {"GET": Action("admin", self._events)},
            # With a token for all accounts, these are the gates of such tokens.
            "/gates": {
                "GET": Action("admin", self._list_gates, for_all=True),
                "POST": Action("gate", self._record_gate, for_all=True),
            },
        }
        # One route per path, so that the Allow header of a 405 names all its methods.
        return [
            Route(prefix + path, self._endpoint(actions), methods=list(actions))
            for prefix in ("/api/v1", "/v1")
            for path, actions in paths.items()
        ]

    def _endpoint(self, actions: Mapping[str, Action]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            action = actions["GET" if request.method == "HEAD" else request.method]
            bearer = await authenticate(request, self._tokens)
            if action.for_all and bearer.is_for_all:
                require_scope(bearer, "gate")
            else:
                require_one_account(bearer, action.scope)
                require_scope(bearer, action.scope)
            return await action.handle(request, bearer)

        return answer

    async def _create(self, request: Request, bearer: Bearer) -> Response:
        draft = await read_body(request, KeyDraft)
        return _respond_with_row(HTTPStatus.CREATED, await self._keys.create(bearer, draft))

    async def _get(self, request: Request, bearer: Bearer) -> Response:
        return _respond_with_row(HTTPStatus.OK, await self._keys.get(bearer.account, request.path_params["key_id"]))

    async def _record_use(self, request: Request, bearer: Bearer) -> Response:
        await self._usage.record(bearer.account, await read_usage(request))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _list_refused(self, request: Request, bearer: Bearer) -> Response:
        return _respond(HTTPStatus.OK, await self._refused.list(bearer.account, request.query_params.get("key_id")))

    async def _record_refused(self, request: Request, bearer: Bearer) -> Response:
        await self._refused.record(bearer.account, await read_refused(request))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _list_gates(self, _request: Request, bearer: Bearer) -> Response:
        return _respond(HTTPStatus.OK, await self._gates.list(bearer.account))

    async def _record_gate(self, request: Request, bearer: Bearer) -> Response:
        await self._gates.record(bearer.account, await read_gate(request))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _update(self, request: Request, bearer: Bearer) -> Response:
        change = await read_body(request, KeyChange)
        key_id, if_match = request.path_params["key_id"], read_tags(request, "If-Match")
        return _respond_with_row(HTTPStatus.OK, await self._keys.update(bearer, key_id, change, if_match=if_match))

    async def _delete(self, request: Request, bearer: Bearer) -> Response:
        key_id, if_match = request.path_params["key_id"], read_tags(request, "If-Match")
        row = await self._keys.delete(bearer, key_id, if_match=if_match)
        return Response(status_code=HTTPStatus.NO_CONTENT) if row is None else _respond_with_row(HTTPStatus.OK, row)

    async def _events(self, request: Request, bearer: Bearer) -> Response:
        return _respond(HTTPStatus.OK, await self._keys.events(bearer.account, request.path_params["key_id"]))


def _respond_with_row(status: HTTPStatus, row: KeyRow) -> Response:
    response = _respond(status, row)
    response.headers["ETag"] = row.etag
    return response


def _respond(status: HTTPStatus, content: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(content), status_code=status, headers=headers, media_type="application/json")
