"""The gate in an app's OpenAPI schema: keys, grants, refusals."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from gatekeeper.gate.decisions import Reason
from gatekeeper.web.frames import GRANT_HEADER, GRANT_QUERY
from gatekeeper.web.request import Paths

__all__ = ("Documented", "GateDescription", "GuardedSchema", "documentation_paths")

Schema = dict[str, Any]

PROBLEM: Final = "GatekeeperProblem"
METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace", "query"})
REFUSALS: Final = {
    "400": "The request names no client key, or a malformed one, or two.",
    "403": "The page may not use the client key.",
    "503": "The list of client keys has not been loaded yet, or is too old.",
}


@runtime_checkable
class Documented(Protocol):
    """An app that describes itself in OpenAPI, as FastAPI does. It serves nothing at paths that are None."""

    openapi: Callable[[], Schema]
    openapi_url: str | None
    docs_url: str | None
    redoc_url: str | None
    swagger_ui_oauth2_redirect_url: str | None


def documentation_paths(app: Documented) -> tuple[str, ...]:
    """The paths of an app's schema, and of pages that show it."""
    if not app.openapi_url:
        return ()
    redirect = app.swagger_ui_oauth2_redirect_url if app.docs_url else None
    return tuple(path for path in (app.openapi_url, app.docs_url, app.redoc_url, redirect) if path)


class GateDescription:
    """Describes a gate in OpenAPI schemas.

    Args:
        key_header: as for GatekeeperMiddleware.
        key_query: as for GatekeeperMiddleware.
        exempt: as for GatekeeperMiddleware.
        frames: as for GatekeeperMiddleware.
        takes_grants: whether a request may send a grant in place of the key.
    """

    def __init__(
        self, key_header: str, key_query: str, *, exempt: Collection[str], frames: Collection[str], takes_grants: bool
    ) -> None:
        self._exempt = Paths(exempt)
        self._frames = Paths(frames)
        self._schemes = {
            "ClientKeyHeader": _parameter("header", key_header, "The client key."),
            "ClientKeyQuery": _parameter("query", key_query, "The client key, where no header can be set."),
        }
        if takes_grants:
            self._schemes["ClientGrantHeader"] = _parameter("header", GRANT_HEADER, "The grant of the widget's frame.")
            self._schemes["ClientGrantQuery"] = _parameter(
                "query", GRANT_QUERY.decode(), "The grant of the widget's frame, where no header can be set."
            )

    def added_to(self, schema: Mapping[str, Any]) -> Schema:
        """A copy of a schema, with the gate in it.

        Args:
            schema: the schema of the app. What it says itself of a response or a security scheme is kept.

        Returns:
            The copy. Added once more, the gate changes nothing.
        """
        components = schema.get("components", {})
        return {
            **schema,
            "paths": {path: self._path_item(path, item, schema) for path, item in schema.get("paths", {}).items()},
            "components": {
                **components,
                "schemas": {**components.get("schemas", {}), PROBLEM: _problem()},
                "securitySchemes": {**self._schemes, **components.get("securitySchemes", {})},
            },
        }

    def _path_item(self, path: str, item: Schema, schema: Mapping[str, Any]) -> Schema:
        if self._exempt.covers({"path": path}):
            return item
        return {name: self._operation(path, of, schema) if name in METHODS else of for name, of in item.items()}

    def _operation(self, path: str, operation: Schema, schema: Mapping[str, Any]) -> Schema:
        is_document = self._frames.covers({"path": path})
        names = ["ClientKeyQuery"] if is_document else [*self._schemes]
        # An alternative of the app's own needs the key besides.
        own = operation.get("security", schema.get("security")) or [{}]
        responses = operation.get("responses", {})
        refusals = {status: _refusal(status, responses.get(status, {}), is_document=is_document) for status in REFUSALS}
        return {
            **operation,
            "security": [each for alternative in own for each in _with_one_of(names, alternative)],
            "responses": {**responses, **refusals},
        }


class GuardedSchema:
    """Makes the schema of a guarded app, in place of `app.openapi`.

    Args:
        own: makes the schema of the app.
        gate: the gate's description.
    """

    def __init__(self, own: Callable[[], Schema], gate: GateDescription) -> None:
        self._own = own
        self._gate = gate

    def __call__(self) -> Schema:
        """The schema."""
        return self._gate.added_to(self._own())


def _parameter(place: str, name: str, description: str) -> Schema:
    return {"type": "apiKey", "in": place, "name": name, "description": description}


def _with_one_of(names: Collection[str], alternative: Schema) -> Iterator[Schema]:
    """The ways to meet the requirements of an alternative and one more of these schemes."""
    if any(name in alternative for name in names):
        yield alternative
    else:
        yield from ({**alternative, name: []} for name in names)


def _refusal(status: str, own: Schema, *, is_document: bool) -> Schema:
    """A response that the gate may send, besides what the app says of the status."""
    if "$ref" in own:
        return own
    kind, schema = "application/problem+json", {"$ref": f"#/components/schemas/{PROBLEM}"}
    if is_document:
        kind, schema = "text/html", {"type": "string"}
    added: Schema = {"description": REFUSALS[status]}
    if status == "503":
        added["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return {**added, **own, "content": {kind: {"schema": schema}, **own.get("content", {})}}


def _problem() -> Schema:
    """The body of a refusal; see `Decision.problem_json`."""
    text, number = {"type": "string"}, {"type": "integer"}
    properties = {
        "type": {**text, "format": "uri"},
        "title": text,
        "status": number,
        "detail": {**text, "description": "What was seen, and what to do."},
        "reason": {**text, "enum": [reason.value for reason in Reason if reason is not Reason.ALLOWED]},
        "origin": {**_or_null(text), "description": "The origin of the page."},
        "key": {**_or_null(text), "description": "The end of the client key."},
        "retry_after": {**_or_null(number), "description": "Seconds after which to ask again."},
    }
    return {
        "title": PROBLEM,
        "description": "Why the gate refuses a request (RFC 9457).",
        "type": "object",
        "properties": properties,
        "required": [*properties],
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
