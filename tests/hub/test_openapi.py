"""The OpenAPI document, and whether the hub conforms to it."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import settings
from hypothesis import strategies as st

from gatekeeper.hub.openapi import openapi_document
from tests.support.real_hub import Served, served_hub

from .support import PATH, RunningHub, create

PATHS = {
    "/api/v1/widget-keys": {"get", "post"},
    "/api/v1/widget-keys/usage": {"post"},
    "/api/v1/widget-keys/refused": {"get", "post"},
    "/api/v1/widget-keys/{key_id}": {"get", "patch", "delete"},
    "/api/v1/widget-keys/{key_id}/events": {"get"},
    "/api/v1/gates": {"get", "post"},
    "/healthz": {"get"},
    "/readyz": {"get"},
}
GATES = "/api/v1/gates"
ENTRIES = ("acme.com", "*.acme.com", "localhost:*", "https://www.acme.com", "192.168.0.10:3000", "[::1]:*", "bücher.example")

described = schemathesis.openapi.from_dict(openapi_document())
schemathesis.openapi.format("gatekeeper-allowlist-entry", st.sampled_from(ENTRIES))


@described.hook
def filter_body(_context: schemathesis.HookContext, body: Any) -> bool:
    """Skip counts like 3.0, which only JSON Schema accepts as integers."""
    entries = [body, *(body.values() if isinstance(body, dict) else body if isinstance(body, list) else ())]
    counts = [entry.get(count) for entry in entries if isinstance(entry, dict) for count in ("count", "keys")]
    return not any(isinstance(count, float) for count in counts)


@described.hook
def filter_query(_context: schemathesis.HookContext, query: Any) -> bool:
    """Skip unknown parameters, which the hub ignores."""
    return set(query or ()) <= {"key_id"}


@described.hook
def map_body(_context: schemathesis.HookContext, body: Any) -> Any:
    """Put the times of a refused page in order, which JSON Schema cannot demand."""
    for page in body if isinstance(body, list) else ():
        if isinstance(page, dict):
            with suppress(msgspec.ValidationError):
                times = [page.get("first_at"), page.get("last_at")]
                page["first_at"], page["last_at"] = sorted(times, key=lambda time: msgspec.convert(time, datetime))
    return body


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a hub over a socket."""
    with served_hub(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.mark.slow
@described.parametrize()
@settings(max_examples=25, derandomize=True, deadline=None, database=None)
def test_the_hub_conforms_to_the_document(case: schemathesis.Case[Any], served: Served) -> None:
    # With the header, an invalid token is a 401 instead of a 400 about the missing account.
    headers = {"Authorization": f"Bearer {served.token}", "X-Account-ID": "acme"}
    case.call_and_validate(base_url=served.url, headers=headers)


def test_answers_in_the_life_of_a_key_conform_to_the_document(served: Served) -> None:
    key = "/api/v1/widget-keys/{key_id}"
    noon = "2026-01-02T12:00:00Z"
    fine = {"count": 1, "last_used_at": noon}
    page = {"origin": None, "reason": "origin_missing", "count": 1, "first_at": noon, "last_at": noon}
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.token}"}, trust_env=False) as client:

        def request(method: str, path: str, status: int, body: Any, headers: dict[str, str]) -> httpx.Response:
            answer = client.request(method, path.format(key_id=key_id), json=body, headers=headers)
            assert answer.status_code == status
            described[path][method].validate_response(answer)
            return answer

        def ask(method: str, path: str, status: int, body: Any = None, *, if_match: str = "*") -> Any:
            answer = request(method, path, status, body, {"If-Match": if_match})
            return answer.json() if answer.content else None

        def etag_of_list() -> str:
            return str(request("GET", PATH, 200, None, {}).headers["ETag"])

        key_id = ""
        for used in (False, True):
            etag = etag_of_list()
            key_id = ask("POST", PATH, 201, {"name": "shop", "domain_allowlist": ["http://acme.com"]})["id"]
            ask("GET", key, 200)
            ask("PATCH", key, 412, {"disabled": True}, if_match='"other"')
            ask("DELETE", key, 412, if_match='W/"other"')
            ask("PATCH", key, 200, {"disabled": True, "agent_id": "agent-7"})
            ask("POST", f"{PATH}/usage", 204, {key_id: fine} if used else {})
            ask("POST", f"{PATH}/refused", 204, [{**page, "key_id": key_id}])
            ask("GET", f"{PATH}/refused", 200)
            ask("POST", GATES, 204, {"id": "a", "version": "1", "is_live": used, "state": "fresh", "keys": 1})
            ask("GET", GATES, 200)
            ask("GET", PATH, 200)
            ask("DELETE", key, 200 if used else 204)
            for base, status in ((etag, 226), (etag_of_list(), 304)):
                request("GET", PATH, status, None, {"If-None-Match": base, "A-IM": "rows"})
            ask("GET", f"{key}/events", 200)
        ask("POST", PATH, 400, {"name": "shop", "domain_allowlist": ["*"]})
        ask("POST", f"{PATH}/usage", 400, {"used": {}})
        ask("POST", f"{PATH}/refused", 400, [page])
        ask("POST", GATES, 400, {"id": "a"})
        ask("PATCH", key, 400, {"disable": True})
        key_id = "nothing"
        for method, path in (("GET", key), ("PATCH", key), ("DELETE", key), ("GET", f"{key}/events")):
            ask(method, path, 404, {} if method == "PATCH" else None)


@pytest.mark.anyio
async def test_answers_to_a_token_for_all_accounts_conform_to_the_document(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    client, deleted = await hub.client_of_all(), await create(acme)
    etag = (await client.get(PATH)).headers["ETag"]
    row = await create(acme)
    await acme.delete(f"{PATH}/{deleted['id']}")
    asked = [
        ("GET", PATH, PATH, {}),
        ("GET", PATH, PATH, {"If-None-Match": etag, "A-IM": "rows"}),
        ("GET", f"{PATH}/{row['id']}", f"{PATH}/{{key_id}}", {}),
        ("PATCH", f"{PATH}/{row['id']}", f"{PATH}/{{key_id}}", {}),
        ("GET", GATES, GATES, {}),
        ("GET", GATES, GATES, {"X-Account-ID": "acme"}),
    ]
    statuses = []
    for method, path, template, headers in asked:
        answer = await client.request(method, path, headers=headers)
        described[template][method].validate_response(answer)
        statuses.append(answer.status_code)
    assert statuses == [200, 226, 200, 403, 200, 403]


def test_the_document_describes_both_kinds_of_rows_of_a_delta() -> None:
    answer = openapi_document()["paths"][PATH]["get"]["responses"]["226"]
    kinds = answer["content"]["application/json"]["schema"]["items"]["anyOf"]
    schemas = openapi_document()["components"]["schemas"]
    removed, removed_of, row, row_of = [schemas[kind["$ref"].rpartition("/")[2]] for kind in kinds]
    assert set(removed["required"]) == set(removed["properties"]) == {"id", "last8", "removed"}
    assert set(removed_of["required"]) == {*removed["required"], "account"}
    assert "domain_allowlist" in row["required"]
    assert set(row_of["required"]) == {*row["required"], "account"}
    assert {"IM", "Delta-Base", "ETag", "Token-Scope", "Preference-Applied"} == set(answer["headers"])


def test_the_document_says_which_fields_a_body_takes() -> None:
    schemas = openapi_document()["components"]["schemas"]
    of_rows = set(schemas["CreatedKeyRow"]["properties"])
    assert set(schemas["KeyDraft"]["properties"]) == of_rows
    assert set(schemas["KeyChange"]["properties"]) == of_rows | {"disabled"}
    for body in ("KeyDraft", "KeyChange", "KeyUse", "ReportedPage"):
        assert schemas[body]["additionalProperties"] is False


@pytest.mark.anyio
async def test_the_document_describes_every_path_and_needs_no_token(hub: RunningHub) -> None:
    stranger = await hub.client_with({})
    answer = await stranger.get("/openapi.json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (httpx.codes.OK, "application/json")
    document = answer.json()
    assert document == msgspec.json.decode(msgspec.json.encode(openapi_document()))
    assert document["openapi"] == "3.1.0"
    assert {path: set(methods) for path, methods in document["paths"].items()} == PATHS
    public = {path for path, methods in document["paths"].items() for method in methods.values() if "security" not in method}
    assert public == {"/healthz", "/readyz"}


@pytest.mark.anyio
async def test_each_operation_names_the_scope_that_the_hub_demands(hub: RunningHub) -> None:
    gate = await hub.client("acme", "gate")
    named, demanded = {}, {}
    for path, methods in openapi_document()["paths"].items():
        for method, operation in methods.items():
            if "security" in operation:
                ((named[method, path],),) = [requirement["token"] for requirement in operation["security"]]
                answer = await gate.request(method, path.format(key_id="nothing"))
                is_refused = answer.status_code == httpx.codes.FORBIDDEN
                demanded[method, path] = "admin" if is_refused else "gate"
    assert named == demanded
    assert sorted(named.values()) == ["admin"] * 6 + ["gate"] * 5
