"""HTTP through the guard: methods, preflights, kept connections, odd bytes."""

import http.client
import json
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gatekeeper import CorsPolicy, Gatekeeper, GatekeeperMiddleware
from tests.integration.conftest import ALLOWED, DEADLINE, PAGE, ROW, STRANGE_PAGE, Http, Served, names, serving
from tests.support.client_keys import KEY


async def measure(request: Request) -> JSONResponse:
    """Answer with the length of the body."""
    return JSONResponse({"length": len(await request.body())}, headers={"X-Trace": "1"})


@pytest.fixture(scope="module")
def served(http: Http) -> Iterator[Served]:
    """Serve a guarded app to the tests of this module."""
    app = Starlette(routes=[Route("/", measure, methods=["GET", "POST", "PUT"])])
    cors = CorsPolicy(allow_methods=("GET", "PUT"), expose_headers=("X-Trace",))
    with serving(GatekeeperMiddleware(app, Gatekeeper.from_rows([ROW]), cors=cors), http=http) as served:
        yield served


@pytest.mark.parametrize("page", [PAGE, STRANGE_PAGE])
def test_head_is_answered_like_get_without_a_body(served: Served, page: str) -> None:
    headers = {**ALLOWED, "Origin": page}
    head, get = (served.request(method, "/", headers=headers) for method in ("HEAD", "GET"))
    assert head.content == b""
    assert get.content != b""
    assert head.status_code == get.status_code == (200 if page == PAGE else 403)
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    assert head.headers["access-control-allow-origin"] == (page if page == PAGE else "*")


def test_the_connection_is_reused_after_a_head(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE)
    connection.request("HEAD", "/", headers={"Origin": PAGE})
    assert connection.getresponse().read() == b""
    first = connection.sock
    connection.request("GET", "/", headers=ALLOWED)
    assert connection.getresponse().status == 200
    assert connection.sock is first
    connection.close()


@pytest.mark.parametrize("length", [10, 1_000_000])
@pytest.mark.parametrize("chunked", [True, False])
def test_the_connection_is_reused_after_a_refused_post(served: Served, length: int, *, chunked: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE)
    body = b"x" * length
    content = iter([body[: length // 2], body[length // 2 :]]) if chunked else body
    connection.request("POST", "/", body=content, headers={"Origin": PAGE}, encode_chunked=chunked)
    refused = connection.getresponse()
    assert (refused.status, json.load(refused)["reason"]) == (400, "key_missing")
    first = connection.sock
    connection.request("POST", "/", body=body, headers=ALLOWED)
    allowed = connection.getresponse()
    assert (allowed.status, json.load(allowed)) == (200, {"length": length})
    assert connection.sock is first
    connection.close()


def test_a_preflight_is_answered_and_its_request_is_allowed(served: Served) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "data-client-key",
    }
    preflight = served.request("OPTIONS", "/", headers=asked)
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert names(preflight.headers["access-control-allow-methods"]) == {"get", "put"}
    assert "data-client-key" in names(preflight.headers["access-control-allow-headers"])
    answer = served.request("PUT", "/", headers=ALLOWED, content=b"12345")
    assert (answer.status_code, answer.json()) == (200, {"length": 5})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "X-Trace"


def test_a_preflight_without_a_page_is_refused(served: Served) -> None:
    asked = {"Origin": "null", "Access-Control-Request-Method": "GET"}
    answer = served.request("OPTIONS", f"/?client_key={KEY}", headers=asked)
    assert (answer.status_code, answer.json()["reason"]) == (403, "origin_null")
    assert "access-control-allow-origin" not in answer.headers


def ask_raw(served: Served, *lines: bytes, target: bytes = b"/") -> tuple[int, dict[str, str]]:
    """Send raw header lines, and read the status and the problem."""
    request = b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: widgets.test", b"Connection: close", *lines])
    with served.connect() as connection:
        connection.sendall(request + b"\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.load(response)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([b"Origin: https://shop.acme.com\xff"], "origin_malformed"),
        ([b"Origin: https://\xd0\xb0cme.com"], "origin_malformed"),
        ([b"Origin:"], "origin_malformed"),
        ([b"Origin: " + b"a" * 5_000], "origin_malformed"),
        ([b"Origin: https://shop.acme.com", b"ORIGIN: https://shop.acme.com"], "origin_conflict"),
        ([b"Referer: https://shop.acme.com\x80/"], "origin_malformed"),
        ([b"Referer: https://user@shop.acme.com/"], "origin_malformed"),
        ([b"Data-Client-Key: \xe2\x80\xa6", b"Origin: https://shop.acme.com"], "key_conflict"),
    ],
)
def test_odd_bytes_are_refused_with_a_reason(served: Served, lines: list[bytes], reason: str) -> None:
    status, problem = ask_raw(served, *lines, target=f"/?client_key={KEY}".encode())
    assert (status, problem["reason"]) == (400, reason)
