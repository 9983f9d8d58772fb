"""The gate in an OpenAPI schema."""

import copy
import json
from typing import Any

import pytest

from gatekeeper import Decision, Reason
from gatekeeper.web.openapi import GateDescription

REF = {"$ref": "#/components/schemas/GatekeeperProblem"}
PROBLEM = {"application/problem+json": {"schema": REF}}
Security = dict[str, list[str]]
HEADER: Security = {"ClientKeyHeader": []}
QUERY: Security = {"ClientKeyQuery": []}
GRANT_HEADER: Security = {"ClientGrantHeader": []}
GRANT_QUERY: Security = {"ClientGrantQuery": []}


def described(paths: dict[str, Any], *, options: dict[str, Any] | None = None, **schema: Any) -> dict[str, Any]:
    """The schema of an app with these paths, with the gate in it."""
    given = {"openapi": "3.1.0", "info": {}, "paths": paths, **schema}
    before = copy.deepcopy(given)
    options = {"exempt": (), "frames": (), "takes_grants": False, **(options or {})}
    description = GateDescription("x-key", "key", **options)
    added = description.added_to(given)
    assert given == before, "the schema of the app is not changed"
    assert description.added_to(added) == added, "adding the gate twice changes nothing"
    return added


def operation(own: dict[str, Any] | None = None, *, options: dict[str, Any] | None = None, **schema: Any) -> dict[str, Any]:
    """An operation of a guarded path."""
    found: dict[str, Any] = described({"/chat": {"post": own or {}}}, options=options, **schema)["paths"]["/chat"]["post"]
    return found


def test_the_key_is_an_api_key_in_the_header_or_in_the_query() -> None:
    schema = described({"/chat": {"post": {"summary": "Chat"}}})
    schemes = schema["components"]["securitySchemes"]
    assert {name: (each["type"], each["in"], each["name"]) for name, each in schemes.items()} == {
        "ClientKeyHeader": ("apiKey", "header", "x-key"),
        "ClientKeyQuery": ("apiKey", "query", "key"),
    }
    chat = schema["paths"]["/chat"]["post"]
    assert (chat["summary"], chat["security"]) == ("Chat", [HEADER, QUERY])


def test_refusals_are_responses_of_guarded_operations() -> None:
    responses = operation({"responses": {"200": {"description": "Fine"}}})["responses"]
    assert list(responses) == ["200", "400", "403", "503"]
    assert responses["200"] == {"description": "Fine"}
    assert all(responses[status]["content"] == PROBLEM for status in ("400", "403", "503"))
    assert list(responses["503"]["headers"]) == ["Retry-After"]


def test_a_response_of_the_apps_own_keeps_what_it_says() -> None:
    plain = {"application/json": {"schema": {"type": "object"}}}
    referred = {"$ref": "#/components/responses/Down"}
    responses = operation({"responses": {"403": {"description": "No", "content": plain}, "503": referred}})["responses"]
    assert responses["403"] == {"description": "No", "content": {**PROBLEM, **plain}}
    assert responses["503"] == referred


@pytest.mark.parametrize(
    ("own", "of_all", "expected"),
    [
        pytest.param([], None, [HEADER, QUERY], id="none"),
        pytest.param([{}], None, [HEADER, QUERY], id="none is needed"),
        pytest.param(None, [{"Login": []}], [{"Login": [], **HEADER}, {"Login": [], **QUERY}], id="of all operations"),
        pytest.param([], [{"Login": []}], [HEADER, QUERY], id="none, unlike all others"),
        pytest.param(
            [{"Login": ["read"]}, {"Token": []}],
            None,
            [{"Login": ["read"], **HEADER}, {"Login": ["read"], **QUERY}, {"Token": [], **HEADER}, {"Token": [], **QUERY}],
            id="alternatives",
        ),
    ],
)
def test_the_key_is_needed_besides_what_the_app_needs(own: Any, of_all: Any, expected: Any) -> None:
    schema = {} if of_all is None else {"security": of_all}
    assert operation({} if own is None else {"security": own}, **schema)["security"] == expected


def test_components_of_the_app_are_kept() -> None:
    own: dict[str, Any] = {"schemas": {"Item": {}}, "securitySchemes": {"Login": {}}, "parameters": {"Page": {}}}
    components = described({}, components=own)["components"]
    assert list(components["schemas"]) == ["Item", "GatekeeperProblem"]
    assert "Login" in components["securitySchemes"]
    assert components["parameters"] == {"Page": {}}


def test_exempt_paths_and_other_members_are_left_as_they_are() -> None:
    health: dict[str, Any] = {"get": {"responses": {}}}
    files: dict[str, Any] = {"get": {}}
    options = {"exempt": ("/healthz", "/files/*")}
    paths = {"/healthz": health, "/files/{name}": files, "/chat": {"summary": "Chat", "parameters": [{}], "get": {}}}
    schema = described(paths, options=options, webhooks={"new": {"post": {}}})
    assert (schema["paths"]["/healthz"], schema["paths"]["/files/{name}"]) == (health, files)
    assert schema["webhooks"] == {"new": {"post": {}}}
    chat = schema["paths"]["/chat"]
    assert (chat["summary"], chat["parameters"], chat["get"]["security"]) == ("Chat", [{}], [HEADER, QUERY])


def test_a_schema_without_paths_gets_none() -> None:
    assert GateDescription("x-key", "key", exempt=(), frames=(), takes_grants=False).added_to({})["paths"] == {}


def test_a_grant_may_take_the_place_of_the_key() -> None:
    assert operation(options={"takes_grants": True})["security"] == [HEADER, QUERY, GRANT_HEADER, GRANT_QUERY]


def test_the_document_of_a_frame_has_a_key_in_its_query_and_html_refusals() -> None:
    options = {"frames": ("/embed",), "takes_grants": True}
    embed = described({"/embed": {"get": {}}}, options=options)["paths"]["/embed"]["get"]
    assert embed["security"] == [QUERY]
    assert {name: list(each["content"]) for name, each in embed["responses"].items()} == {
        "400": ["text/html"],
        "403": ["text/html"],
        "503": ["text/html"],
    }


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
def test_every_refusal_has_the_members_of_the_schema(reason: Reason) -> None:
    schema = described({})["components"]["schemas"]["GatekeeperProblem"]
    names = {str: "string", int: "integer", type(None): "null"}
    for decision in (Decision(reason), Decision(reason, last8="shop-001", origin="https://acme.com", retry_after=3)):
        body = json.loads(decision.problem_json())
        assert list(body) == list(schema["properties"]) == schema["required"]
        for member, value in body.items():
            kinds = schema["properties"][member]
            assert names[type(value)] in {each["type"] for each in kinds.get("anyOf", [kinds])}
        assert body["reason"] in schema["properties"]["reason"]["enum"]
        assert str(body["status"]) in {"400", "403", "503"}
