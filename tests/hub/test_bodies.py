"""Malformed, invalid and oversized bodies, and unknown paths."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message

from .support import PATH, RunningHub, assert_problem, create, list_rows

pytestmark = pytest.mark.anyio

LIMIT = 1_000_000
JSON = {"Content-Type": "application/json"}


def body_of(length: int) -> bytes:
    """Make a valid create body of exactly this many bytes."""
    frame = b'{"name":"shop","public_key":""}'
    return frame[:-2] + b"x" * (length - len(frame)) + frame[-2:]


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """Send a body without a Content-Length."""
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"", 0),
        (b"{", 1),
        (b'{"name": "shop"', 15),
        (b'{"name": shop}', 9),
        (b'{"name": "shop",}', 16),
        (b'{"name": "shop"} {}', 18),
        (b"<name>", 0),
        (b'{"name": NaN}', 9),
        (b'{"name": "\xff"}', 10),
        (b'{"name": "shop", "ignored": "\xff"}', 29),
        (b'\xef\xbb\xbf{"name": "shop"}', 0),
        ('{"name": "shop"}'.encode("utf-16"), 0),
    ],
)
async def test_malformed_json_is_a_400_with_the_position(acme: httpx.AsyncClient, body: bytes, position: int) -> None:
    row = await create(acme)
    for method, path in (("POST", PATH), ("PATCH", f"{PATH}/{row['id']}")):
        answer = await acme.request(method, path, content=body, headers=JSON)
        assert f"(byte {position})" in assert_problem(answer, 400, "malformed_json")["detail"]
    assert await list_rows(acme) == [row]


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x"])
async def test_a_lone_surrogate_is_malformed_json(acme: httpx.AsyncClient, escape: str) -> None:
    answer = await acme.post(PATH, content=f'{{"name": "{escape}"}}', headers=JSON)
    assert_problem(answer, 400, "malformed_json")


async def test_a_deeply_nested_body_is_a_400(acme: httpx.AsyncClient) -> None:
    body = b'{"name": "shop", "ignored": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = await acme.post(PATH, content=body, headers=JSON)
    assert "nested" in assert_problem(answer, 400, "malformed_json")["detail"]


@pytest.mark.parametrize("body", ["[]", "null", '"shop"', "7", '[{"name": "shop"}]'])
async def test_json_other_than_an_object_is_a_400(acme: httpx.AsyncClient, body: str) -> None:
    answer = await acme.post(PATH, content=body, headers=JSON)
    assert "object" in assert_problem(answer, 400, "invalid_request")["detail"]


TYPOS = {
    "disable": "'disabled'",
    "Disabled": "'disabled'",
    "agentId": "'agent_id'",
    "allowlist": "'domain_allowlist'",
    "domainAllowlist": "'domain_allowlist'",
    "nme": "'name'",
}


@pytest.mark.parametrize("typo", TYPOS)
async def test_an_unknown_field_is_named_with_the_nearest_known_one(acme: httpx.AsyncClient, typo: str) -> None:
    """A PATCH {"disable": true} must not look as if it had revoked the key."""
    row = await create(acme)
    answer = await acme.patch(f"{PATH}/{row['id']}", json={"name": "renamed", typo: True})
    detail = assert_problem(answer, 400, "unknown_field")["detail"]
    assert f"{typo!r} (did you mean {TYPOS[typo]}?)" in detail
    assert "The known ones are name, domain_allowlist, agent_id, disabled." in detail
    assert await list_rows(acme) == [row]


async def test_a_create_takes_no_field_of_an_update(acme: httpx.AsyncClient) -> None:
    for fields in ({"disabled": True}, {"colour": "red", "last8": "chosen00"}, {"account": "globex"}, {"nme": "shop"}):
        answer = await acme.post(PATH, json={"name": "shop", **fields})
        assert f"{next(iter(fields))!r}" in assert_problem(answer, 400, "unknown_field")["detail"]
    assert await list_rows(acme) == []


async def test_many_or_long_unknown_fields_are_named_briefly(acme: httpx.AsyncClient) -> None:
    body = {f"{number}\n{'x' * 1000}": 1 for number in range(900)}
    detail = assert_problem(await acme.post(PATH, json=body), 400, "unknown_field")["detail"]
    assert "and 895 more" in detail
    assert len(detail) < 400
    assert detail.isprintable()


async def test_a_row_may_be_changed_and_sent_back(acme: httpx.AsyncClient) -> None:
    created = (await acme.post(PATH, json={"name": "shop", "domain_allowlist": ["acme.com"]})).json()
    for sent in (created, *(await list_rows(acme))):
        answer = await acme.patch(f"{PATH}/{created['id']}", json={**sent, "name": "renamed", "disabled": True})
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json()["name"] == "renamed"
        assert answer.json()["disabled_at"] is not None
    again = await acme.post(PATH, json=created)
    assert again.json()["id"] != created["id"]
    assert again.json()["public_key"] != created["public_key"]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y"])
async def test_parameters_of_the_content_type_are_ignored(acme: httpx.AsyncClient, kind: str) -> None:
    answer = await acme.post(PATH, content=b'{"name": "shop"}', headers={"Content-Type": kind})
    assert answer.status_code == httpx.codes.CREATED


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_another_content_type_is_a_415(acme: httpx.AsyncClient, kind: str | None) -> None:
    row = await create(acme)
    headers = {} if kind is None else {"Content-Type": kind}
    for method, path in (("POST", PATH), ("PATCH", f"{PATH}/{row['id']}")):
        answer = await acme.request(method, path, content=b'{"name": "renamed"}', headers=headers)
        assert_problem(answer, 415, "unsupported_media_type")
    assert await list_rows(acme) == [row]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_1_mb_is_a_413(acme: httpx.AsyncClient, *, announced: bool) -> None:
    def content(length: int) -> bytes | AsyncIterator[bytes]:
        return body_of(length) if announced else in_chunks(body_of(length))

    fitting = await acme.post(PATH, content=content(LIMIT), headers=JSON)
    assert fitting.status_code == httpx.codes.CREATED
    assert_problem(await acme.post(PATH, content=content(LIMIT + 1), headers=JSON), 413, "body_too_large")
    assert len(await list_rows(acme)) == 1


async def test_an_endless_body_is_refused_at_the_limit(acme: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    assert_problem(await acme.post(PATH, content=endless(), headers=JSON), 413, "body_too_large")
    assert sent <= LIMIT + 2 * 65_536


async def test_a_disconnect_in_the_middle_of_a_body_changes_nothing(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    incoming: list[Message] = [
        {"type": "http.request", "body": b'{"name": "shop"}', "more_body": True},
        {"type": "http.disconnect"},
    ]
    outgoing: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        outgoing.append(message)

    headers = {"authorization": acme.headers["Authorization"], "content-type": "application/json"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await hub.app(scope, receive, send)
    assert [message["type"] for message in outgoing] == ["http.response.start", "http.response.body"]
    assert await list_rows(acme) == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", PATH, {"GET", "HEAD", "POST"}), ("PUT", f"{PATH}/nothing", {"GET", "HEAD", "PATCH", "DELETE"})],
)
async def test_another_method_is_a_405_with_all_allowed_methods(
    acme: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = await acme.request(method, path)
    assert_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/", "/api/v1", "/v2/widget-keys", f"{PATH}/", f"{PATH}/a/b", "/widget-keys"])
async def test_another_path_is_a_404_not_a_redirect(acme: httpx.AsyncClient, path: str) -> None:
    assert_problem(await acme.get(path), 404, "not_found")


async def test_a_crash_is_a_500_without_details(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    def crash() -> None:
        raise RuntimeError("sk_live_acme_secret")

    hub.dice.before = crash
    answer = await acme.post(PATH, json={"name": "shop"})
    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
