"""The hub's clients, against a hub that misbehaves on demand and against the reference hub."""

import gzip
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import (
    AsyncHubClient,
    ConfigError,
    GatekeeperError,
    HubAuthenticationError,
    HubClient,
    HubError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
    HubProtocolError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    InvalidList,
    WidgetKey,
)
from gatekeeper.client import UNSET, CreatedWidgetKey, Listing, account_of

from .support.callers import AsyncCaller, Caller, SyncCaller
from .support.fake_hub import GARBAGE, HANG_UP, PATH, Answer, FakeHub, json_answer
from .support.real_hub import served_hub
from .support.rows import TOKEN, as_json, client_key, row

Connect = Callable[..., Caller]

BEARER = f"Bearer {TOKEN}"
METHODS: list[tuple[str, tuple[Any, ...]]] = [
    ("list", ()),
    ("create", ("shop",)),
    ("update", ("key-1",)),
    ("delete", ("key-1",)),
]
STATUSES: list[tuple[int, type[HubError], bool]] = [
    (304, HubProtocolError, False),
    (400, HubInvalidRequestError, False),
    (401, HubAuthenticationError, True),
    (402, HubProtocolError, False),
    (403, HubPermissionError, True),
    (404, HubNotFoundError, True),
    (405, HubProtocolError, False),
    (407, HubProtocolError, False),
    (409, HubInvalidRequestError, False),
    (410, HubProtocolError, False),
    (413, HubInvalidRequestError, False),
    (415, HubInvalidRequestError, False),
    (418, HubProtocolError, False),
    (422, HubInvalidRequestError, False),
    (429, HubRateLimitedError, False),
    (499, HubProtocolError, False),
    (500, HubServerError, False),
    (501, HubServerError, False),
    (502, HubServerError, False),
    (503, HubServerError, False),
    (504, HubServerError, False),
    (599, HubServerError, False),
]
HTTPX_ERRORS = sorted(
    {kind for kind in vars(httpx).values() if isinstance(kind, type) and issubclass(kind, Exception)},
    key=lambda kind: kind.__name__,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture(params=[SyncCaller, AsyncCaller], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    callers: list[Caller] = []

    def make(*args: Any, **options: Any) -> Caller:
        callers.append(request.param(*args, **options))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()


@pytest.fixture
def call(connect: Connect, hub: FakeHub) -> Caller:
    return connect(hub.url)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# What is sent


@pytest.mark.parametrize(
    ("base_path", "path"),
    [
        ("", "/api/v1/widget-keys"),
        ("/", "/api/v1/widget-keys"),
        ("/api", "/api/v1/widget-keys"),
        ("/api/", "/api/v1/widget-keys"),
        ("/api/v1", "/api/v1/widget-keys"),
        ("/api/v1/", "/api/v1/widget-keys"),
        ("/v1", "/v1/widget-keys"),
        ("/behind/a/proxy", "/behind/a/proxy/api/v1/widget-keys"),
        ("/therapi", "/therapi/api/v1/widget-keys"),
    ],
)
def test_the_base_url_may_or_may_not_name_the_api(connect: Connect, hub: FakeHub, base_path: str, path: str) -> None:
    connect(hub.url + base_path)("list")
    assert hub.requests[0].target == path


@pytest.mark.parametrize("host", ["api", "v1", "hub.example"])
def test_a_host_that_is_named_like_a_path_is_still_a_host(connect: Connect, hub: FakeHub, host: str) -> None:
    connect(f"http://{host}", own={"proxy": hub.url, "trust_env": False})("list")
    assert hub.requests[0].target == f"http://{host}{PATH}"


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_every_request_carries_the_token_and_no_account_that_was_not_given(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...]
) -> None:
    hub.always(Answer(500))
    with pytest.raises(HubServerError):
        call(method, *arguments)
    headers = hub.requests[0].headers
    assert (headers["authorization"], headers["accept"]) == (BEARER, "application/json")
    assert "x-account-id" not in headers


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_every_request_carries_the_account_that_was_given(
    connect: Connect, hub: FakeHub, method: str, arguments: tuple[Any, ...]
) -> None:
    hub.always(Answer(500))
    with pytest.raises(HubServerError):
        connect(hub.url, "another-bearer", account="globex")(method, *arguments)
    headers = hub.requests[0].headers
    assert (headers["authorization"], headers["x-account-id"]) == ("Bearer another-bearer", "globex")


def test_list_is_a_get_without_a_body(call: Caller, hub: FakeHub) -> None:
    call("list")
    request = hub.requests[0]
    assert (request.method, request.target, request.body) == ("GET", PATH, b"")
    assert "content-type" not in request.headers


def test_create_is_a_post_of_the_name_the_entries_and_the_agent(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer({**row(1), "public_key": client_key(1)}, 201))
    call("create", "shop", domain_allowlist=iter(["acme.com", "*.acme.com"]), agent_id="agent-7")
    request = hub.requests[0]
    assert (request.method, request.target) == ("POST", PATH)
    assert request.headers["content-type"] == "application/json"
    assert request.json == {"name": "shop", "domain_allowlist": ["acme.com", "*.acme.com"], "agent_id": "agent-7"}


def test_a_key_is_created_without_entries_and_agent_unless_they_are_given(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer({**row(1), "public_key": client_key(1)}, 201))
    call("create", "shöp")
    assert hub.requests[0].json == {"name": "shöp", "domain_allowlist": [], "agent_id": None}


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({}, {}),
        ({"name": UNSET, "domain_allowlist": UNSET, "agent_id": UNSET, "disabled": UNSET}, {}),
        ({"name": "new"}, {"name": "new"}),
        ({"domain_allowlist": ("acme.com",)}, {"domain_allowlist": ["acme.com"]}),
        ({"domain_allowlist": ()}, {"domain_allowlist": []}),
        ({"agent_id": "agent-7"}, {"agent_id": "agent-7"}),
        ({"agent_id": None}, {"agent_id": None}),
        ({"disabled": True}, {"disabled": True}),
        ({"disabled": False}, {"disabled": False}),
        ({"name": "new", "disabled": True}, {"name": "new", "disabled": True}),
    ],
)
def test_update_is_a_patch_of_nothing_but_what_is_given(
    call: Caller, hub: FakeHub, changes: dict[str, Any], body: dict[str, Any]
) -> None:
    hub.always(json_answer(row(1)))
    call("update", "key-1", **changes)
    request = hub.requests[0]
    assert (request.method, request.target, request.json) == ("PATCH", f"{PATH}/key-1", body)
    assert request.headers["content-type"] == "application/json"


def test_delete_is_a_delete_without_a_body(call: Caller, hub: FakeHub) -> None:
    hub.always(Answer(204))
    call("delete", "key-1")
    request = hub.requests[0]
    assert (request.method, request.target, request.body) == ("DELETE", f"{PATH}/key-1", b"")


@pytest.mark.parametrize("method", ["update", "delete"])
def test_an_id_is_one_segment_of_the_path_whatever_it_holds(call: Caller, hub: FakeHub, method: str) -> None:
    hub.always(json_answer(row(1)))
    call(method, "a/../b?c#d e%ü")
    assert hub.requests[0].target == f"{PATH}/a%2F..%2Fb%3Fc%23d%20e%25%C3%BC"


def test_the_environment_redirects_no_request_and_changes_no_credentials(
    connect: Connect, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    connect(hub.url)("list")
    assert hub.requests[0].headers["authorization"] == BEARER


# What comes back


def test_list_gives_the_rows_in_the_hubs_order(call: Caller, hub: FakeHub) -> None:
    hub.lists(row(2, agent_id="agent-7", disabled_at="2026-02-02T00:00:00Z"), row(1))
    listed = call("list")
    assert [key.id for key in listed] == ["key-2", "key-1"]
    assert listed[0] == WidgetKey(
        id="key-2",
        name="shop",
        last8="00000002",
        domain_allowlist=("acme.com",),
        agent_id="agent-7",
        disabled_at="2026-02-02T00:00:00Z",
        created_at="2026-01-02T03:04:05Z",
        updated_at="2026-01-02T03:04:05Z",
    )
    assert listed.rejected == ()


def test_list_sets_bad_rows_aside_and_says_what_is_wrong_with_them(call: Caller, hub: FakeHub) -> None:
    hub.lists(row(1), {"id": "key-2", "suffix": "00000002"}, 3, row(4))
    listed = call("list")
    assert [key.id for key in listed] == ["key-1", "key-4"]
    assert [(error.index, error.row_id, error.fields) for error in listed.rejected] == [
        (1, "key-2", ("id", "suffix")),
        (2, None, ()),
    ]
    assert "suffix_field=" in str(listed.rejected[0])


def test_a_name_that_is_no_utf_8_spoils_neither_its_row_nor_another(call: Caller, hub: FakeHub) -> None:
    body = as_json(row(1), row(2, name="cafe")).replace(b"cafe", "café".encode("latin-1"))
    hub.always(Answer(200, body))
    listed = call("list")
    assert [(key.id, key.name) for key in listed] == [("key-1", listed[0].name), ("key-2", "caf?")]
    assert listed.rejected == ()


def test_the_field_of_the_last_8_characters_can_be_named(connect: Connect, hub: FakeHub) -> None:
    renamed = {"key_suffix" if name == "last8" else name: value for name, value in row(1).items()}
    hub.always(lambda request: json_answer([renamed] if request.method == "GET" else renamed))
    call = connect(hub.url, suffix_field="key_suffix")
    assert [key.last8 for key in call("list")] == ["00000001"]
    assert call("update", "key-1", name="shop").last8 == "00000001"


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": []}', b"null", b'"rows"', b"7", b"[" * 100_000])
def test_a_list_that_is_no_array_is_an_invalid_list(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(Answer(200, body))
    with pytest.raises(InvalidList, match="expected a JSON array of rows"):
        call("list")


def test_create_gives_the_row_and_its_plaintext(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer({**row(1), "public_key": client_key(1)}, 201))
    created = call("create", "shop")
    assert isinstance(created, CreatedWidgetKey)
    assert (created.id, created.last8, created.public_key) == ("key-1", "00000001", client_key(1))


def test_a_created_row_without_the_last_8_characters_gets_those_of_its_plaintext(call: Caller, hub: FakeHub) -> None:
    created_row = {name: value for name, value in row(1).items() if name != "last8"}
    hub.always(json_answer({**created_row, "public_key": client_key(1)}, 201))
    assert call("create", "shop").last8 == "00000001"


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda created: f"{created!r}", lambda created: repr([created])])
def test_a_created_key_never_shows_its_plaintext(show: Callable[[object], str]) -> None:
    shown = show(CreatedWidgetKey(**{**row(1), "domain_allowlist": ()}, public_key=client_key(1)))
    assert client_key(1) not in shown
    assert "…00000001" in shown


def test_a_created_key_does_not_show_its_plaintext_to_rich_either() -> None:
    created: Any = CreatedWidgetKey(**{**row(1), "domain_allowlist": ()}, public_key=client_key(1))
    parts = created.__rich_repr__() if hasattr(created, "__rich_repr__") else (repr(created),)
    assert client_key(1) not in str(list(parts))


@pytest.mark.parametrize("public_key", [None, 7, "short"])
def test_a_created_key_without_its_plaintext_is_not_what_a_hub_answers(
    call: Caller, hub: FakeHub, public_key: object
) -> None:
    fields = {name: value for name, value in row(1).items() if name != "last8"}
    hub.always(json_answer({**fields, "public_key": public_key}, 201))
    with pytest.raises(HubProtocolError):
        call("create", "shop")


def test_update_gives_the_row_as_it_now_is(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer(row(1, name="new", disabled_at="2026-02-02T00:00:00Z")))
    updated = call("update", "key-1", name="new", disabled=True)
    assert (updated.name, updated.disabled) == ("new", True)


def test_delete_gives_none_where_the_key_is_gone(call: Caller, hub: FakeHub) -> None:
    hub.always(Answer(204))
    assert call("delete", "key-1") is None


def test_delete_gives_the_row_where_the_key_was_only_disabled(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer(row(1, disabled_at="2026-02-02T00:00:00Z")))
    deleted = call("delete", "key-1")
    assert (deleted.id, deleted.disabled) == ("key-1", True)


@pytest.mark.parametrize(("method", "arguments"), METHODS[1:])
@pytest.mark.parametrize(
    "body", [b"", b"<html>hello</html>", b"[]", b"null", b'{"id": 7}', b'{"name": "\xff"}', b'{"id":' + b"[" * 100_000]
)
def test_a_success_that_brings_no_row_is_not_what_a_hub_answers(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...], body: bytes
) -> None:
    hub.always(Answer(200, body))
    with pytest.raises(HubProtocolError) as caught:
        call(method, *arguments)
    assert hub.url in str(caught.value)


# Refusals


@pytest.mark.parametrize(("status", "kind", "lasting"), STATUSES)
def test_every_status_is_an_error_of_its_own_kind(
    call: Caller, hub: FakeHub, status: int, kind: type[HubError], *, lasting: bool
) -> None:
    hub.always(Answer(status))
    with pytest.raises(HubError) as caught:
        call("update", "key-1", name="new")
    error = caught.value
    assert (type(error), error.status, error.lasting, error.errors) == (kind, status, lasting, ())
    assert str(status) in str(error)
    assert hub.url in str(error)


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_every_method_raises_what_the_hub_answers(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...]
) -> None:
    hub.always(json_answer("Invalid token", 401))
    with pytest.raises(HubAuthenticationError, match="it says 'Invalid token'"):
        call(method, *arguments)


@pytest.mark.parametrize(
    "body",
    [
        b'"Missing X-Account-ID header"',
        b'{"type": "about:blank", "title": "Bad", "detail": "Missing X-Account-ID header"}',
        b'{"error": "Missing X-Account-ID header"}',
        b'{"message": "Missing X-Account-ID header"}',
        b"Missing X-Account-ID header",
        b"  Missing\r\n\tX-Account-ID   header\n",
    ],
)
def test_what_the_hub_says_is_passed_on_in_one_line(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(Answer(400, body))
    with pytest.raises(HubInvalidRequestError) as caught:
        call("list")
    assert str(caught.value).endswith("it says 'Missing X-Account-ID header'")


@pytest.mark.parametrize("body", [b"", b" \n", b"null", b"[]", b"{}", b'{"detail": {"deep": 1}}', b"7"])
def test_a_hub_that_says_nothing_readable_is_not_quoted(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(Answer(500, body))
    with pytest.raises(HubServerError) as caught:
        call("list")
    assert "it says" not in str(caught.value)


def test_a_page_of_html_is_quoted_in_its_beginning_only(call: Caller, hub: FakeHub) -> None:
    hub.always(Answer(502, b"<html>" + b"x" * 100_000, {"content-type": "text/html"}))
    with pytest.raises(HubServerError) as caught:
        call("list")
    assert "<html>xxx" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, b'"\xff"'),
        Answer(500, b"\xff\xfe\x00"),
        Answer(500, b'"\\ud800"'),
        Answer(500, b"[" * 100_000),
        Answer(500, b'{"detail":' * 100_000),
        Answer(500, b"caf\xe9", {"content-type": "text/plain; charset=utf-8"}),
        Answer(500, b"caf\xe9", {"content-type": "text/plain; charset=no-such-thing"}),
        Answer(500, b"caf\xe9", {"content-type": "text/plain; charset=utf-16"}),
        Answer(500, b"caf\xe9", {"content-type": "text/plain; charset=hex"}),
        Answer(500, b"caf\xe9", {"content-type": "text/plain; charset=undefined"}),
        Answer(500, b"caf\xe9", {"content-type": "text/plain; charset=rot13"}),
    ],
    ids=lambda answer: f"{answer.headers.get('content-type', '')} {answer.body[:8]!r}",
)
def test_an_unreadable_refusal_is_still_that_refusal(call: Caller, hub: FakeHub, answer: Answer) -> None:
    hub.always(answer)
    with pytest.raises(HubServerError):
        call("list")


def test_the_hubs_own_list_of_errors_comes_along(call: Caller, hub: FakeHub) -> None:
    problem = {
        "detail": "2 entries are wrong",
        "errors": [{"entry": "*", "reason": "any_origin"}, "?", {"index": 1}],
    }
    hub.always(json_answer(problem, 422))
    with pytest.raises(HubInvalidRequestError) as caught:
        call("create", "shop", domain_allowlist=["*"])
    assert caught.value.errors == ({"entry": "*", "reason": "any_origin"}, {"index": "1"})
    assert "2 entries are wrong" in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_not_followed(call: Caller, hub: FakeHub, status: int) -> None:
    with FakeHub() as other:
        hub.always(Answer(status, headers={"location": f"{other.url}/elsewhere"}))
        for method, arguments in METHODS:
            with pytest.raises(HubProtocolError) as caught:
                call(method, *arguments)
            assert caught.value.status == status
            assert f"{other.url}/elsewhere" in str(caught.value)
        assert other.requests == []
    assert len(hub.requests) == len(METHODS)


def test_not_even_an_httpx_client_that_follows_redirects_follows_this_one(connect: Connect, hub: FakeHub) -> None:
    with FakeHub() as other:
        hub.always(Answer(307, headers={"location": other.url}))
        with pytest.raises(HubProtocolError, match="redirect"):
            connect(hub.url, own={"follow_redirects": True, "trust_env": False})("create", "shop")
        assert other.requests == []


# Retry-After


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("7", 7), ("86400", 86400), ("9" * 400, 999_999_999)],
    ids=["none", "some", "a day", "for ever"],
)
def test_retry_after_may_be_seconds(call: Caller, hub: FakeHub, status: int, value: str, seconds: float) -> None:
    hub.always(Answer(status, headers={"retry-after": value}))
    with pytest.raises(HubError) as caught:
        call("list")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("seconds", [100, -100])
def test_retry_after_may_be_a_date(call: Caller, hub: FakeHub, seconds: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    hub.always(Answer(503, headers={"retry-after": date}))
    with pytest.raises(HubServerError) as caught:
        call("list")
    assert caught.value.retry_after == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "1.5", "1e3", "٣", "Wed, 99 Foo 2026 07:28:00 GMT", "Wed, 21 Oct 9999 07:28:00 -9999"]
)
def test_a_retry_after_that_is_neither_is_no_retry_after(call: Caller, hub: FakeHub, value: str) -> None:
    raw = f"HTTP/1.1 429 Slow Down\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    hub.always(Answer(raw=raw))
    with pytest.raises(HubRateLimitedError) as caught:
        call("list")
    assert caught.value.retry_after is None


def test_without_retry_after_there_is_none(call: Caller, hub: FakeHub) -> None:
    hub.always(Answer(429))
    with pytest.raises(HubRateLimitedError) as caught:
        call("list")
    assert caught.value.retry_after is None


@settings(max_examples=300, deadline=None)
@given(
    value=st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126)),
        st.lists(st.sampled_from(["Wed", ",", "21", "Oct", "2026", "07:28:00", "07.28", "GMT", "-0000", "+9999", "0"])).map(
            " ".join
        ),
        st.datetimes().map(lambda moment: format_datetime(moment.replace(tzinfo=UTC))),
    )
)
def test_no_retry_after_makes_a_client_fail_otherwise(value: str) -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(429, headers={"retry-after": value}))
    with (
        HubClient("http://hub.example", TOKEN, http=httpx.Client(transport=answer)) as client,
        pytest.raises(HubRateLimitedError) as caught,
    ):
        client.widget_keys.list()
    assert caught.value.retry_after is None or isinstance(caught.value.retry_after, float)


# No usable answer


def test_a_hub_that_is_not_there_is_a_transport_error(connect: Connect) -> None:
    call = connect(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(HubTransportError, match=r"no usable answer from the hub at http://127\.0\.0\.1:\d+/"):
        call("list")


def test_a_host_without_an_address_is_a_transport_error(connect: Connect) -> None:
    with pytest.raises(HubTransportError, match="ConnectError"):
        connect("http://hub.invalid")("list")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (HANG_UP, HubTransportError),
        (GARBAGE, HubTransportError),
        (Answer(200, b"[", {"content-length": "100"}, hang_up=True), HubTransportError),
        (Answer(200, b"[]", {"content-encoding": "gzip"}), HubProtocolError),
        (Answer(200, gzip.compress(b"[]")[:-12], {"content-encoding": "gzip"}), GatekeeperError),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"), HubTransportError),
        (Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), HubTransportError),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000), HubTransportError),
    ],
    ids=["hangs up", "garbage", "short", "no gzip", "cut gzip", "bad header", "bad chunk", "endless header"],
)
def test_an_answer_that_is_none_is_an_error_of_the_hub(
    call: Caller, hub: FakeHub, answer: Answer, kind: type[GatekeeperError]
) -> None:
    hub.always(answer)
    for method, arguments in METHODS:
        with pytest.raises(kind):
            call(method, *arguments)


def test_a_hub_that_does_not_answer_in_time_is_a_transport_error(connect: Connect, hub: FakeHub) -> None:
    hub.always(Answer(hold=hub.hold()))
    began = time.monotonic()
    with pytest.raises(HubTransportError, match="ReadTimeout"):
        connect(hub.url, timeout=0.05)("list")
    assert time.monotonic() - began < 4


def tls_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_a_certificate_that_nobody_trusts_is_a_transport_error(connect: Connect) -> None:
    with FakeHub(tls=tls_context(trustme.CA())) as hub, pytest.raises(HubTransportError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(hub.url)("list")
    assert hub.requests == []


def test_an_httpx_client_of_ones_own_brings_its_own_trust(connect: Connect) -> None:
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with FakeHub(tls=tls_context(authority)) as hub:
        hub.lists(row(1))
        assert len(connect(hub.url, own={"verify": trust, "trust_env": False})("list")) == 1


class Failing(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that fails: no socket brings every error that httpx has."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def handle_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - httpx passes it
        raise self.error

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - httpx passes it
        raise self.error


def make_httpx_error(kind: type[Exception]) -> Exception:
    request = httpx.Request("GET", "http://hub.example")
    if issubclass(kind, httpx.HTTPStatusError):
        return kind("the message", request=request, response=httpx.Response(500, request=request))
    try:
        return kind("the message")
    except TypeError:
        return kind()


@pytest.mark.parametrize("kind", HTTPX_ERRORS)
def test_every_error_of_httpx_becomes_an_error_of_the_hub(connect: Connect, kind: type[Exception]) -> None:
    error = make_httpx_error(kind)
    call = connect("http://hub.example", own={"transport": Failing(error)})
    for method, arguments in METHODS:
        with pytest.raises(HubError) as caught:
            call(method, *arguments)
        assert isinstance(caught.value, HubProtocolError if issubclass(kind, httpx.DecodingError) else HubTransportError)
        assert caught.value.__cause__ is error
        assert kind.__name__ in str(caught.value)


def test_httpx_has_as_many_errors_as_it_ever_had() -> None:
    assert len(HTTPX_ERRORS) >= 25
    assert {httpx.ConnectError, httpx.InvalidURL, httpx.StreamConsumed, httpx.CookieConflict} <= set(HTTPX_ERRORS)


# The token stays secret


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, TOKEN.encode()),
        Answer(401, json.dumps(f"no such token: {TOKEN}").encode()),
        json_answer({"detail": f"Authorization: Bearer {TOKEN}"}, 403),
        json_answer({"error": TOKEN * 20}, 500),
        json_answer({"detail": "bad", "errors": [{"token": TOKEN}]}, 422),
        json_answer({"detail": "bad", "errors": [{TOKEN: "token"}]}, 422),
        Answer(500, b"x" * 195 + TOKEN.encode()),
        Answer(302, headers={"location": f"http://login.example/?token={TOKEN}"}),
        Answer(raw=f"HTTP/1.1 {TOKEN}\r\n\r\n".encode(), hang_up=True),
        Answer(raw=f"{TOKEN}\r\n\r\n".encode(), hang_up=True),
        Answer(raw=f"HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n".encode(), hang_up=True),
        json_answer({TOKEN: 1, "id": "key-1"}),
        json_answer({"id": TOKEN, "last8": 1}),
    ],
    ids=lambda answer: repr((answer.raw or str(answer.status).encode() + b" " + answer.body)[:40]),
)
def test_no_error_holds_the_token_even_if_the_hub_repeats_it(call: Caller, hub: FakeHub, answer: Answer) -> None:
    hub.always(answer)
    with pytest.raises(HubError) as caught:
        call("update", "key-1", name="new")
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(caught.value)
    assert TOKEN not in str(caught.value.errors)


def test_a_client_does_not_show_its_token(call: Caller) -> None:
    assert TOKEN not in repr(call.client)
    assert TOKEN not in repr(vars(call.client))


# Options


def test_wrong_options_are_all_named_together(connect: Connect) -> None:
    with pytest.raises(ConfigError) as caught:
        connect("hub.example", "sk live", account=" acme ")
    assert str(caught.value).startswith("gatekeeper: ")
    assert [problem.split()[0] for problem in caught.value.problems] == ["base_url", "token", "account"]


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "hub.example",
        "/api/v1",
        "ftp://hub.example",
        "https://",
        "https://:443",
        "http://hub.example:port",
        "http://hub.example:99999",
        "https://user:secret@hub.example",
        "https://hub.example/?account=acme",
        "https://hub.example/#here",
        "https://hub.example/?",
        "https://hub.example#",
    ],
)
def test_a_base_url_is_scheme_host_port_and_path(connect: Connect, base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        connect(base_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("token", ["", " ", "sk live", "sk_live_acme_\r\nx: y", "sk_live_acme_ü", f"{TOKEN}\n", f" {TOKEN}"])
def test_a_token_is_what_a_header_can_carry(connect: Connect, token: str) -> None:
    with pytest.raises(ConfigError, match="token") as caught:
        connect("https://hub.example", token, account="acme")
    assert not token.strip() or token not in str(caught.value)


@pytest.mark.parametrize("token", ["abcdef", "sk_live_abcdef", "sk_live__abc", "sk_live_acme_", "pk_live_acme_abc"])
def test_a_token_that_carries_no_account_needs_one_beside_it(connect: Connect, token: str) -> None:
    with pytest.raises(ConfigError, match="account=") as caught:
        connect("https://hub.example", token)
    assert token not in str(caught.value)
    connect("https://hub.example", token, account="acme")


@pytest.mark.parametrize("account", ["", " ", "acme ", "ac\nme", "äcme"])
def test_an_account_is_what_a_header_can_carry(connect: Connect, account: str) -> None:
    with pytest.raises(ConfigError, match="account"):
        connect("https://hub.example", TOKEN, account=account)


@pytest.mark.parametrize(
    ("token", "account"),
    [
        ("sk_live_acme_abc123", "acme"),
        ("sk_live_acme_corp-eu_abc123", "acme_corp-eu"),
        ("sk_live_acme__abc", "acme_"),
        ("sk_live_acme", None),
        ("sk_live_acme_", None),
        ("sk_live__abc", None),
        ("sk_live_", None),
        ("", None),
        ("acme_abc", None),
        ("pk_live_acme_abc", None),
        ("SK_LIVE_acme_abc", None),
        ("xsk_live_acme_abc", None),
    ],
)
def test_a_token_carries_its_account_before_the_last_underscore(token: str, account: str | None) -> None:
    assert account_of(token) == account


# Closing


def test_an_httpx_client_of_ones_own_stays_open(connect: Connect, hub: FakeHub) -> None:
    call = connect(hub.url, own={"trust_env": False})
    call("list")
    call.close_client()
    assert call.http is not None
    assert not call.http.is_closed
    call("list")
    assert len(hub.requests) == 2


def test_a_closed_client_sends_nothing_more(call: Caller, hub: FakeHub) -> None:
    call("list")
    call.close_client()
    with pytest.raises(RuntimeError, match="closed"):
        call("list")
    assert len(hub.requests) == 1


# fetch: the list as it came, for sources


@pytest.mark.anyio
async def test_fetch_gives_the_bytes_and_the_entity_tag(hub: FakeHub) -> None:
    hub.lists(row(1), etag='W/"7"')
    async with AsyncHubClient(hub.url, TOKEN) as client:
        assert await client.widget_keys.fetch() == Listing(as_json(row(1)), 'W/"7"')
    request = hub.requests[0]
    assert (request.method, request.target, request.headers["cache-control"]) == ("GET", PATH, "no-cache")
    assert "if-none-match" not in request.headers


@pytest.mark.anyio
async def test_fetch_gives_no_entity_tag_where_there_was_none(hub: FakeHub) -> None:
    hub.lists(row(1))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        assert await client.widget_keys.fetch() == Listing(as_json(row(1)), None)


@pytest.mark.anyio
async def test_fetch_sends_the_entity_tag_back_as_it_came_and_gives_none_for_the_same_list(hub: FakeHub) -> None:
    hub.lists(row(1), etag='W/"7"')
    async with AsyncHubClient(hub.url, TOKEN) as client:
        assert await client.widget_keys.fetch('W/"7"') is None
        assert await client.widget_keys.fetch('"7"') is not None
    assert [request.headers["if-none-match"] for request in hub.requests] == ['W/"7"', '"7"']


@pytest.mark.anyio
async def test_not_modified_is_no_answer_to_a_fetch_that_did_not_ask_for_it(hub: FakeHub) -> None:
    hub.always(Answer(304))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubProtocolError):
            await client.widget_keys.fetch()


@pytest.mark.anyio
async def test_not_modified_about_another_list_is_no_answer_and_weak_tags_are_as_good_as_strong_ones(hub: FakeHub) -> None:
    async with AsyncHubClient(hub.url, TOKEN) as client:
        hub.then(Answer(304, headers={"etag": 'W/"7"'}), Answer(304), Answer(304, headers={"etag": '"8"'}))
        assert await client.widget_keys.fetch('"7"') is None
        assert await client.widget_keys.fetch('"7"') is None
        with pytest.raises(HubProtocolError):
            await client.widget_keys.fetch('"7"')


@pytest.mark.anyio
async def test_fetch_raises_what_the_hub_answers(hub: FakeHub) -> None:
    hub.always(json_answer("Invalid token", 401))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubAuthenticationError, match="Invalid token"):
            await client.widget_keys.fetch()


@pytest.mark.anyio
async def test_a_cancelled_call_is_cancelled_and_not_an_error_of_the_hub(hub: FakeHub) -> None:
    hub.always(Answer(hold=hub.hold()))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.widget_keys.list()
    assert scope.cancelled_caught


# The reference hub


def test_a_key_lives_from_create_to_delete_at_the_reference_hub(connect: Connect, tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        call = connect(served.url, served.token)
        created = call("create", "shop", domain_allowlist=["acme.com", "*.acme.com"], agent_id="agent-7")
        assert created.public_key.startswith("pk_live_acme_")
        assert created.public_key.endswith(created.last8)
        (listed,) = call("list")
        assert (listed.id, listed.last8, listed.domain_allowlist, listed.agent_id) == (
            created.id,
            created.last8,
            ("acme.com", "*.acme.com"),
            "agent-7",
        )
        updated = call("update", created.id, name="new", agent_id=None, domain_allowlist=["globex.com"])
        assert (updated.name, updated.agent_id, updated.domain_allowlist) == ("new", None, ("globex.com",))
        assert call("update", created.id, disabled=True).disabled
        assert not call("update", created.id, disabled=False).disabled
        assert call("delete", created.id) is None
        assert call("list") == []


def test_the_reference_hubs_refusals_are_errors_that_say_what_to_do(connect: Connect, tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        call = connect(served.url, served.token)
        with pytest.raises(HubNotFoundError):
            call("delete", "no-such-key")
        with pytest.raises(HubInvalidRequestError) as caught:
            call("create", "shop", domain_allowlist=["*", "acme.com"])
        assert caught.value.errors
        with pytest.raises(HubAuthenticationError):
            connect(served.url, TOKEN)("list")
        with pytest.raises(HubNotFoundError, match="/v1/widget-keys"):
            connect(f"{served.url}/elsewhere", served.token)("list")
