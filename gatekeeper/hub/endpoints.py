"""Endpoints: widget keys over HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.hub.bearer import authenticate, require_scope
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
        paths: dict[str, dict[str, tuple[TokenScope, Handler]]] = {
            "/widget-keys": {"GET": ("gate", self._listing.answer), "POST": ("admin", self._create)},
            "/widget-keys/usage": {"POST": ("gate", self._record_use)},
            "/widget-keys/refused": {"GET": ("admin", self._list_refused), "POST": ("gate", self._record_refused)},
            "/widget-keys/{key_id}": {
                "GET": ("gate", self._get),
                "PATCH": ("admin", self._update),
                "DELETE": ("admin", self._delete),
            },
            "/widget-keys/{key_id}/events": {"GET": ("admin", self._events)},
            "/gates": {"GET": ("admin", self._list_gates), "POST": ("gate", self._record_gate)},
        }
        # One route per path, so that the Allow header of a 405 names all its methods.
        return [
            Route(prefix + path, self._endpoint(actions), methods=list(actions))
            for prefix in ("/api/v1", "/v1")
            for path, actions in paths.items()
        ]

    def _endpoint(self, actions: Mapping[str, tuple[TokenScope, Handler]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            scope, handle = actions["GET" if request.method == "HEAD" else request.method]
            bearer = await authenticate(request, self._tokens)
            require_scope(bearer, scope)
            return await handle(request, bearer)

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
