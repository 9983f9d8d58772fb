"""The OpenAPI 3.1 document, generated from the types of the bodies."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.hub.bodies import MAX_REPORTED, SET_BY_HUB, KeyChange, KeyDraft, KeyUse, ReportedGate, ReportedPage
from gatekeeper.hub.events import EventRow
from gatekeeper.hub.health import Health
from gatekeeper.hub.list_headers import SCOPE_HEADER
from gatekeeper.hub.list_request import MAX_WAIT
from gatekeeper.hub.problems import ProblemBody
from gatekeeper.hub.rows import AccountKeyRow, AccountRemovedRow, CheckedKeyRow, CreatedKeyRow, KeyRow, RemovedRow
from gatekeeper.hub.tokens import TokenScope
from gatekeeper.keys.gate_report import GateRow
from gatekeeper.keys.refused_page import RefusedPage

__all__ = ("openapi_document", "openapi_route")

_KEYS: Final = "/api/v1/widget-keys"
_REF: Final = "#/components/schemas/{name}"
_KEY: Final = f"{_KEYS}/{{key_id}}"
_GATES: Final = "/api/v1/gates"


class _Operation(NamedTuple):
    """A method on a path, its successful answers and its refusals.

    Attributes:
        scope: the scope that the token of an account needs; None if it needs no token.
        headers: the header fields of its successful answers.
        parameters: its parameters.
        more_headers: the header fields of single answers.
    """

    path: str
    method: str
    name: str
    summary: str
    answers: Mapping[HTTPStatus, tuple[str, Any]]
    refusals: tuple[HTTPStatus, ...]
    scope: TokenScope | None
    body: Any = None
    headers: Mapping[str, Any] | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    more_headers: Mapping[HTTPStatus, Mapping[str, Any]] = MappingProxyType({})


_REFUSALS: Final = {
    HTTPStatus.BAD_REQUEST: "The body is invalid, has an unknown field, or no account is named.",
    HTTPStatus.UNAUTHORIZED: "The token is missing or unknown.",
    HTTPStatus.FORBIDDEN: (
        "The token lacks the scope, is for all accounts, or does not belong to the account that X-Account-ID names."
    ),
    HTTPStatus.NOT_FOUND: "The account has no widget key with this id.",
    HTTPStatus.PRECONDITION_FAILED: "If-Match does not name the row as it is now. The header ETag has its present ETag.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is longer than 1,000,000 bytes.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not application/json.",
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "The database does not answer or cannot be written, or the hub is overloaded. The request was not completed."
    ),
}
_KEY_ID: Final = {"name": "key_id", "in": "path", "required": True, "description": "The id of a widget key."}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "Make the change only if the row has one of these strong ETags; * stands for any.",
}
_LIST_PARAMETERS: Final = (
    {
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETags of lists that the client has, weak or strong; * stands for any.",
    },
    {
        "name": "A-IM",
        "in": "header",
        "description": "`rows` to take what has changed since one of these lists, in place of the list (RFC 3229).",
    },
    {
        "name": "Prefer",
        "in": "header",
        "description": (
            "`wait=N` to get the answer when the list has changed, after N seconds at the latest (RFC 7240 section 4.3). N "
            f"is a whole number; above {MAX_WAIT} it counts as {MAX_WAIT}."
        ),
    },
)
_DOWN: Final = (HTTPStatus.SERVICE_UNAVAILABLE,)
_ALWAYS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, *_DOWN)
_UNKNOWN: Final = (*_ALWAYS, HTTPStatus.NOT_FOUND)
_NOT_JSON: Final = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)

_ETAG: Final = {
    "ETag": {"description": "The strong ETag of the row, which its use does not change.", "schema": {"type": "string"}}
}
_LIST_HEADERS: Final = {
    "ETag": {
        "description": "The weak ETag of the list, which the use of keys does not change.",
        "required": True,
        "schema": {"type": "string"},
    },
    SCOPE_HEADER: {
        "description": "The scope of the token, so that a gate can report that its token may do more than it needs.",
        "required": True,
        "schema": {"type": "string", "enum": list(get_args(TokenScope))},
    },
    "Preference-Applied": {
        "description": "`wait=N`: how many seconds the answer could have waited for a change. Missing if it could not.",
        "schema": {"type": "string"},
    },
}
_DELTA_HEADERS: Final = {
    "IM": {
        "description": "How it was made from the list.",
        "required": True,
        "schema": {"type": "string", "enum": ["rows"]},
    },
    "Delta-Base": {
        "description": "The member of If-None-Match to whose list it applies.",
        "required": True,
        "schema": {"type": "string"},
    },
}


def _any_of(*kinds: type) -> dict[str, Any]:
    # msgspec describes no union of two structs.
    return {"anyOf": [{"$ref": _REF.format(name=kind.__name__)} for kind in kinds]}


_ALTERNATIVES: Final = (RemovedRow, AccountRemovedRow, KeyRow, AccountKeyRow)
_ROW: Final = Annotated[Any, msgspec.Meta(extra_json_schema=_any_of(KeyRow, AccountKeyRow))]
_ROWS: Final = Annotated[list[Any], msgspec.Meta(extra_json_schema={"items": _any_of(KeyRow, AccountKeyRow)})]
_DELTA: Final = Annotated[
    list[Any],
    msgspec.Meta(extra_json_schema={"items": _any_of(*_ALTERNATIVES)}),
]

_OPERATIONS: Final = (
    _Operation(
        _KEYS,
        "get",
        "list_widget_keys",
        "List all widget keys, oldest first. With If-None-Match, answer 304 if nothing but use has changed.",
        {
            HTTPStatus.OK: ("The rows. Those of all accounts name their account.", _ROWS),
            HTTPStatus.IM_USED: ("The removed rows, and the new and changed ones in the order of the list.", _DELTA),
            HTTPStatus.NOT_MODIFIED: ("Nothing but use has changed.", None),
        },
        _ALWAYS,
        "gate",
        headers=_LIST_HEADERS,
        parameters=_LIST_PARAMETERS,
        more_headers={HTTPStatus.IM_USED: _DELTA_HEADERS},
    ),
    _Operation(
        _KEYS,
        "post",
        "create_widget_key",
        "Create a widget key.",
        {HTTPStatus.CREATED: ("The row with the plaintext, which no other answer contains.", CreatedKeyRow)},
        (*_ALWAYS, *_NOT_JSON),
        "admin",
        KeyDraft,
        _ETAG,
    ),
    _Operation(
        f"{_KEYS}/usage",
        "post",
        "report_usage",
        "Report the use of widget keys by id. Unknown ids are ignored.",
        {HTTPStatus.NO_CONTENT: ("The use was recorded.", None)},
        (*_ALWAYS, *_NOT_JSON),
        "gate",
        dict[str, KeyUse],
    ),
    _Operation(
        f"{_KEYS}/refused",
        "get",
        "list_refused_pages",
        "List the pages that gates have refused in the last 30 days, the most frequent first, at most 1,000.",
        {HTTPStatus.OK: ("The pages.", list[RefusedPage])},
        _UNKNOWN,
        "admin",
        parameters=({"name": "key_id", "in": "query", "description": "The id of a widget key, for its pages alone."},),
    ),
    _Operation(
        f"{_KEYS}/refused",
        "post",
        "report_refused_pages",
        "Report pages that were refused since the last report. Unknown ids of keys are ignored.",
        {HTTPStatus.NO_CONTENT: ("The pages were recorded.", None)},
        (*_ALWAYS, *_NOT_JSON),
        "gate",
        Annotated[list[ReportedPage], msgspec.Meta(max_length=MAX_REPORTED)],
    ),
    _Operation(
        _KEY,
        "get",
        "get_widget_key",
        "Read a widget key.",
        {HTTPStatus.OK: ("The row. With a token for all accounts, it names its account.", _ROW)},
        _UNKNOWN,
        "gate",
        headers=_ETAG,
        parameters=(_KEY_ID,),
    ),
    _Operation(
        _KEY,
        "patch",
        "update_widget_key",
        "Update a widget key. Fields that the body does not name stay as they are.",
        {HTTPStatus.OK: ("The row after the change.", CheckedKeyRow)},
        (*_UNKNOWN, *_NOT_JSON, HTTPStatus.PRECONDITION_FAILED),
        "admin",
        KeyChange,
        _ETAG,
        (_KEY_ID, _IF_MATCH),
    ),
    _Operation(
        _KEY,
        "delete",
        "delete_widget_key",
        "Delete a widget key if it was never used, otherwise disable it.",
        {
            HTTPStatus.OK: ("The row of a key that was used; it is now disabled.", KeyRow),
            HTTPStatus.NO_CONTENT: ("The key was deleted.", None),
        },
        (*_UNKNOWN, HTTPStatus.PRECONDITION_FAILED),
        "admin",
        headers=_ETAG,
        parameters=(_KEY_ID, _IF_MATCH),
    ),
    _Operation(
        f"{_KEY}/events",
        "get",
        "list_events",
        "List the events of a widget key, oldest first, even after its deletion. The last 8 characters of the key may take "
        "the place of its id.",
        {HTTPStatus.OK: ("The events.", list[EventRow])},
        _UNKNOWN,
        "admin",
        parameters=(_KEY_ID,),
    ),
    _Operation(
        _GATES,
        "get",
        "list_gates",
        "List the gates that have reported within 24 hours, the latest first, at most 1,000. A token for all accounts may.",
        {HTTPStatus.OK: ("The gates.", list[GateRow])},
        _ALWAYS,
        "admin",
    ),
    _Operation(
        _GATES,
        "post",
        "report_gate",
        "Report that a gate runs, and how fresh its list is. Unknown fields are ignored.",
        {HTTPStatus.NO_CONTENT: ("The report was recorded, in place of the last one with this id.", None)},
        (*_ALWAYS, *_NOT_JSON),
        "gate",
        ReportedGate,
    ),
    _Operation("/healthz", "get", "tell_alive", "Check the process.", {HTTPStatus.OK: ("It answers.", Health)}, (), None),
    _Operation("/readyz", "get", "tell_ready", "Check the database.", {HTTPStatus.OK: ("It answers.", Health)}, _DOWN, None),
)


def openapi_document() -> dict[str, Any]:
    """Make the OpenAPI document of the hub.

    Returns:
        The document, as built-in types for a JSON encoder.
    """
    described = [answered for operation in _OPERATIONS for _, answered in operation.answers.values()]
    described += [operation.body for operation in _OPERATIONS]
    types = [ProblemBody, *_ALTERNATIVES, *(kind for kind in described if kind is not None)]
    found, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = dict(zip(types, found, strict=True))
    for component in components.values():
        # Keep the first line of the docstring: its sections document the code.
        component["description"] = component["description"].partition("\n")[0]
    for body in (KeyDraft, KeyChange):
        described_body = components[body.__name__]
        described_body["properties"] |= {field: {"description": "Set by the hub; ignored here."} for field in SET_BY_HUB}
        described_body["additionalProperties"] = False
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
    """Make the route /openapi.json, which needs no token."""

    async def answer(_request: Request) -> Response:
        return Response(msgspec.json.encode(openapi_document()), media_type="application/json")

    return Route("/openapi.json", answer)


_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": (
        "sk_live_<account>_<random>. The header X-Account-ID is optional and must name the same account. A token of scope "
        "gate reads widget keys, and reports their use, their refused pages and itself; one of scope admin does everything. "
        "Each operation names its scope. A token sk_all_<random> is for all accounts: it does what the scope gate allows, "
        "for the keys of each, and lists the gates with such a token. It takes no X-Account-ID."
    ),
}


def _describe(operation: _Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    responses = {}
    for status, (description, answered) in operation.answers.items():
        fields = {**(operation.headers or {}), **operation.more_headers.get(status, {})}
        headers = {"headers": fields} if fields else {}
        content = _content("application/json", schemas.get(answered))
        responses[str(status.value)] = {"description": description} | headers | content
    for status in operation.refusals:
        content = _content("application/problem+json", schemas[ProblemBody])
        responses[str(status.value)] = {"description": _REFUSALS[status]} | content
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary, "responses": responses}
    if operation.scope is not None:
        # For a bearer token, OpenAPI 3.1 takes the names of roles here.
        described["security"] = [{"token": [operation.scope]}]
    if operation.parameters:
        described["parameters"] = [{**each, "schema": {"type": "string"}} for each in operation.parameters]
    if operation.body is not None:
        described["requestBody"] = {"required": True} | _content("application/json", schemas[operation.body])
    return described


def _content(media_type: str, schema: Any) -> dict[str, Any]:
    return {} if schema is None else {"content": {media_type: {"schema": schema}}}
