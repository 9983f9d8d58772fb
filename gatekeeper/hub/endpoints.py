"""Endpoints: the list, create, update and delete of widget keys over HTTP."""

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.hub.bearer import authenticate
from gatekeeper.hub.bodies import KeyChange, KeyDraft, read_body
from gatekeeper.hub.problems import Problem, problem_response
from gatekeeper.hub.store import KeyStore, UnknownKey
from gatekeeper.hub.tokens import TokenStore

__all__ = ("Endpoints",)


class Endpoints:
    """The endpoints of a hub.

    Args:
        keys: the widget keys that they serve.
        tokens: who may ask for them.
    """

    def __init__(self, keys: KeyStore, tokens: TokenStore) -> None:
        self._keys = keys
        self._tokens = tokens

    @property
    def routes(self) -> list[Route]:
        """The routes, under both paths that the documentation shows."""
        # One route a path, so that the Allow header of a 405 names all of its methods.
        return [
            Route(path, self._answer, methods=methods)
            for prefix in ("/api/v1/widget-keys", "/v1/widget-keys")
            for path, methods in ((prefix, ["GET", "POST"]), (f"{prefix}/{{key_id}}", ["PATCH", "DELETE"]))
        ]

    async def _answer(self, request: Request) -> Response:
        actions = {"POST": self._create, "PATCH": self._update, "DELETE": self._delete}
        try:
            bearer = await authenticate(request, self._tokens)
            return await actions.get(request.method, self._list)(request, bearer.account)
        except Problem as problem:
            return problem_response(problem)
        except UnknownKey:
            return problem_response(Problem(HTTPStatus.NOT_FOUND, "not_found", "There is no widget key of this id."))
        except ClientDisconnect:
            # Nobody is left to read it; without it, the server's log calls every lost connection a crash.
            return Response(status_code=HTTPStatus.BAD_REQUEST)

    async def _list(self, request: Request, account: str) -> Response:
        etag = await self._keys.etag(account)
        if not _matches(request, etag):
            listing = await self._keys.list(account)
            return _respond(HTTPStatus.OK, listing.rows, _list_headers(listing.etag))
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=_list_headers(etag))

    async def _create(self, request: Request, account: str) -> Response:
        draft = await read_body(request, KeyDraft)
        return _respond(HTTPStatus.CREATED, await self._keys.create(account, draft))

    async def _update(self, request: Request, account: str) -> Response:
        change = await read_body(request, KeyChange)
        return _respond(HTTPStatus.OK, await self._keys.update(account, request.path_params["key_id"], change))

    async def _delete(self, request: Request, account: str) -> Response:
        row = await self._keys.delete(account, request.path_params["key_id"])
        return Response(status_code=HTTPStatus.NO_CONTENT) if row is None else _respond(HTTPStatus.OK, row)


def _matches(request: Request, etag: str) -> bool:
    """Whether If-None-Match has the ETag, weakly compared (RFC 9110 section 13.1.2)."""
    # A proxy that compresses on the way makes a strong ETag weak, and hands it back like that.
    listed = ",".join(request.headers.getlist("If-None-Match")).split(",")
    return any(candidate.strip().removeprefix("W/") in (etag, "*") for candidate in listed)


def _list_headers(etag: str) -> dict[str, str]:
    # `no-cache` lets a cache keep the list and makes it ask every time: a revoked key must not live on in one.
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, X-Account-ID"}


def _respond(status: HTTPStatus, content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        headers={"Cache-Control": "no-store"} if headers is None else headers,
        media_type="application/json",
    )
