"""The OpenAPI 3.1 document, made from the types that decode the requests and encode the answers."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.hub.bodies import KeyChange, KeyDraft, KeyUse
from gatekeeper.hub.events import EventRow
from gatekeeper.hub.health import Health
from gatekeeper.hub.problems import ProblemBody
from gatekeeper.hub.rows import CheckedKeyRow, CreatedKeyRow, KeyRow

__all__ = ("openapi_document", "openapi_route")

_KEYS: Final = "/api/v1/widget-keys"
_KEY: Final = f"{_KEYS}/{{key_id}}"


class _Operation(NamedTuple):
    """A method on a path: what it does, what it answers where it succeeds, and what else may come."""

    path: str
    method: str
    name: str
    summary: str
    answers: Mapping[HTTPStatus, tuple[str, Any]]
    refusals: tuple[HTTPStatus, ...]
    body: Any = None


_REFUSALS: Final = {
    HTTPStatus.BAD_REQUEST: "The body is not as expected, or nothing names an account.",
    HTTPStatus.UNAUTHORIZED: "The token is missing or unknown.",
    HTTPStatus.FORBIDDEN: "The token belongs to another account than the one that X-Account-ID names.",
    HTTPStatus.NOT_FOUND: "The account has no widget key of this id.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is longer than 1,000,000 bytes.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not application/json.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer; nothing was changed that was not acknowledged.",
}
_DOWN: Final = (HTTPStatus.SERVICE_UNAVAILABLE,)
_ALWAYS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, *_DOWN)
_UNKNOWN: Final = (*_ALWAYS, HTTPStatus.NOT_FOUND)
_NOT_JSON: Final = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)

_OPERATIONS: Final = (
    _Operation(
        _KEYS,
        "get",
        "list_widget_keys",
        "List all widget keys, oldest first. With If-None-Match: not again while nothing has changed.",
        {HTTPStatus.OK: ("The rows.", list[KeyRow]), HTTPStatus.NOT_MODIFIED: ("Nothing has changed.", None)},
        _ALWAYS,
    ),
    _Operation(
        _KEYS,
        "post",
        "create_widget_key",
        "Create a widget key.",
        {HTTPStatus.CREATED: ("The row and, this once, the plaintext.", CreatedKeyRow)},
        (*_ALWAYS, *_NOT_JSON),
        KeyDraft,
    ),
    _Operation(
        f"{_KEYS}/usage",
        "post",
        "report_usage",
        "Add to what is known of the use of widget keys, by their ids; unknown ids are passed over.",
        {HTTPStatus.NO_CONTENT: ("It was added.", None)},
        (*_ALWAYS, *_NOT_JSON),
        dict[str, KeyUse],
    ),
    _Operation(
        _KEY,
        "patch",
        "update_widget_key",
        "Change what the body names and leave the rest.",
        {HTTPStatus.OK: ("The row after the change.", CheckedKeyRow)},
        (*_UNKNOWN, *_NOT_JSON),
        KeyChange,
    ),
    _Operation(
        _KEY,
        "delete",
        "delete_widget_key",
        "Remove a widget key that was never used; disable one that was.",
        {
            HTTPStatus.OK: ("The row of a key that was used; it is disabled.", KeyRow),
            HTTPStatus.NO_CONTENT: ("The key is gone.", None),
        },
        _UNKNOWN,
    ),
    _Operation(
        f"{_KEY}/events",
        "get",
        "list_events",
        "List what happened to a widget key, oldest first, also after it is gone.",
        {HTTPStatus.OK: ("The events.", list[EventRow])},
        _UNKNOWN,
    ),
    _Operation("/healthz", "get", "tell_alive", "Does the process answer?", {HTTPStatus.OK: ("Yes.", Health)}, ()),
    _Operation("/readyz", "get", "tell_ready", "Does the database answer?", {HTTPStatus.OK: ("Yes.", Health)}, _DOWN),
)


def openapi_document() -> dict[str, Any]:
    """Describe the hub.

    Returns:
        The document, as msgspec encodes it.
    """
    described = [answered for operation in _OPERATIONS for _, answered in operation.answers.values()]
    described += [operation.body for operation in _OPERATIONS]
    types = [ProblemBody, *(kind for kind in described if kind is not None)]
    found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(types, found, strict=True))
    for component in components.values():
        # The sections of a docstring are for those who read the code.
        component["description"] = component["description"].partition("\n")[0]
    paths: dict[str, dict[str, Any]] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "gatekeeper hub", "version": "1"},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": _TOKEN}},
    }


def openapi_route() -> Route:
    """Make the route /openapi.json; no token is needed."""

    async def answer(_request: Request) -> Response:
        return Response(msgspec.json.encode(openapi_document()), media_type="application/json")

    return Route("/openapi.json", answer)


_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "sk_live_<account>_<random>. A header X-Account-ID is not needed, and has to name the same account.",
}
_PARAMETER: Final = {
    "name": "key_id",
    "in": "path",
    "required": True,
    "description": "The id of a widget key.",
    "schema": {"type": "string"},
}


def _describe(operation: _Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    responses = {
        str(status.value): {"description": description} | _content("application/json", schemas.get(answered))
        for status, (description, answered) in operation.answers.items()
    }
    for status in operation.refusals:
        content = _content("application/problem+json", schemas[ProblemBody])
        responses[str(status.value)] = {"description": _REFUSALS[status]} | content
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary, "responses": responses}
    if HTTPStatus.UNAUTHORIZED in operation.refusals:
        described["security"] = [{"token": []}]
    if "{key_id}" in operation.path:
        described["parameters"] = [_PARAMETER]
    if operation.body is not None:
        described["requestBody"] = {"required": True} | _content("application/json", schemas[operation.body])
    return described


def _content(media_type: str, schema: Any) -> dict[str, Any]:
    return {} if schema is None else {"content": {media_type: {"schema": schema}}}
