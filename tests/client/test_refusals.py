"""The errors that both clients raise for refusals and broken answers."""

import gzip
import json
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import (
    GatekeeperError,
    HubAuthenticationError,
    HubClient,
    HubError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
    HubPreconditionFailedError,
    HubProtocolError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
)
from gatekeeper.testing import GARBAGE, HANG_UP, FakeHub, HubAnswer, json_answer
from tests.client.support import METHODS, Connect, free_port
from tests.support.callers import Caller
from tests.support.rows import TOKEN, row

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
    (412, HubPreconditionFailedError, False),
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


# Refusals


@pytest.mark.parametrize(("status", "kind", "lasting"), STATUSES)
def test_every_status_has_its_error_class(
    call: Caller, hub: FakeHub, status: int, kind: type[HubError], *, lasting: bool
) -> None:
    hub.always(HubAnswer(status))
    with pytest.raises(HubError) as caught:
        call("update", "key-1", name="new")
    error = caught.value
    assert (type(error), error.status, error.lasting, error.errors) == (kind, status, lasting, ())
    assert str(status) in str(error)
    assert hub.url in str(error)


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_every_method_raises_the_error_of_the_hubs_answer(
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
def test_the_hubs_message_is_quoted_on_one_line(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(HubAnswer(400, body))
    with pytest.raises(HubInvalidRequestError) as caught:
        call("list")
    assert str(caught.value).endswith("it says 'Missing X-Account-ID header'")


@pytest.mark.parametrize("body", [b"", b" \n", b"null", b"[]", b"{}", b'{"detail": {"deep": 1}}', b"7"])
def test_an_unreadable_message_is_not_quoted(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(HubAnswer(500, body))
    with pytest.raises(HubServerError) as caught:
        call("list")
    assert "it says" not in str(caught.value)


def test_only_the_beginning_of_an_html_page_is_quoted(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(502, b"<html>" + b"x" * 100_000, {"content-type": "text/html"}))
    with pytest.raises(HubServerError) as caught:
        call("list")
    assert "<html>xxx" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "answer",
    [
        HubAnswer(500, b'"\xff"'),
        HubAnswer(500, b"\xff\xfe\x00"),
        HubAnswer(500, b'"\\ud800"'),
        HubAnswer(500, b"[" * 100_000),
        HubAnswer(500, b'{"detail":' * 100_000),
        HubAnswer(500, b"caf\xe9", {"content-type": "text/plain; charset=utf-8"}),
        HubAnswer(500, b"caf\xe9", {"content-type": "text/plain; charset=no-such-thing"}),
        HubAnswer(500, b"caf\xe9", {"content-type": "text/plain; charset=utf-16"}),
        HubAnswer(500, b"caf\xe9", {"content-type": "text/plain; charset=hex"}),
        HubAnswer(500, b"caf\xe9", {"content-type": "text/plain; charset=undefined"}),
        HubAnswer(500, b"caf\xe9", {"content-type": "text/plain; charset=rot13"}),
    ],
    ids=lambda answer: f"{answer.headers.get('content-type', '')} {answer.body[:8]!r}",
)
def test_an_unreadable_body_does_not_change_the_error_class(call: Caller, hub: FakeHub, answer: HubAnswer) -> None:
    hub.always(answer)
    with pytest.raises(HubServerError):
        call("list")


def test_the_hubs_list_of_errors_is_kept(call: Caller, hub: FakeHub) -> None:
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
        hub.always(HubAnswer(status, headers={"location": f"{other.url}/elsewhere"}))
        for method, arguments in METHODS:
            with pytest.raises(HubProtocolError) as caught:
                call(method, *arguments)
            assert caught.value.status == status
            assert f"{other.url}/elsewhere" in str(caught.value)
        assert other.requests == []
    assert len(hub.requests) == len(METHODS)


def test_redirects_are_not_followed_even_if_the_httpx_client_would(connect: Connect, hub: FakeHub) -> None:
    with FakeHub() as other:
        hub.always(HubAnswer(307, headers={"location": other.url}))
        with pytest.raises(HubProtocolError, match="redirect"):
            connect(hub.url, own={"follow_redirects": True, "trust_env": False})("create", "shop")
        assert other.requests == []


# Retry-After


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("7", 7), ("86400", 86400), ("9" * 400, 999_999_999)],
    ids=["none", "some", "a day", "years"],
)
def test_retry_after_may_be_seconds(call: Caller, hub: FakeHub, status: int, value: str, seconds: float) -> None:
    hub.always(HubAnswer(status, headers={"retry-after": value}))
    with pytest.raises(HubError) as caught:
        call("list")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("seconds", [100, -100])
def test_retry_after_may_be_a_date(call: Caller, hub: FakeHub, seconds: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    hub.always(HubAnswer(503, headers={"retry-after": date}))
    with pytest.raises(HubServerError) as caught:
        call("list")
    assert caught.value.retry_after == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "1.5", "1e3", "٣", "Wed, 99 Foo 2026 07:28:00 GMT", "Wed, 21 Oct 9999 07:28:00 -9999"]
)
def test_an_invalid_retry_after_is_ignored(call: Caller, hub: FakeHub, value: str) -> None:
    raw = f"HTTP/1.1 429 Slow Down\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    hub.always(HubAnswer(raw=raw))
    with pytest.raises(HubRateLimitedError) as caught:
        call("list")
    assert caught.value.retry_after is None


def test_without_the_header_there_is_no_retry_after(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(429))
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
def test_no_retry_after_value_changes_the_error_class(value: str) -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(429, headers={"retry-after": value}))
    with (
        HubClient("http://hub.example", TOKEN, http=httpx.Client(transport=answer), max_attempts=1) as client,
        pytest.raises(HubRateLimitedError) as caught,
    ):
        client.widget_keys.list()
    assert caught.value.retry_after is None or isinstance(caught.value.retry_after, float)


# No usable answer


def test_a_refused_connection_is_a_transport_error(connect: Connect) -> None:
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
        (HubAnswer(200, b"[", {"content-length": "100"}, hang_up=True), HubTransportError),
        (HubAnswer(200, b"[]", {"content-encoding": "gzip"}), HubProtocolError),
        (HubAnswer(200, gzip.compress(b"[]")[:-12], {"content-encoding": "gzip"}), GatekeeperError),
        (HubAnswer(raw=b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"), HubTransportError),
        (HubAnswer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), HubTransportError),
        (HubAnswer(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000), HubTransportError),
    ],
    ids=["hangs up", "garbage", "short", "no gzip", "cut gzip", "bad header", "bad chunk", "endless header"],
)
def test_a_broken_answer_is_a_hub_error(call: Caller, hub: FakeHub, answer: HubAnswer, kind: type[GatekeeperError]) -> None:
    hub.always(answer)
    for method, arguments in METHODS[:5]:
        with pytest.raises(kind):
            call(method, *arguments)


def test_a_timeout_is_a_transport_error(connect: Connect, hub: FakeHub) -> None:
    hub.always(HubAnswer(hold=hub.hold()))
    began = time.monotonic()
    with pytest.raises(HubTransportError, match="ReadTimeout"):
        connect(hub.url, timeout=0.05)("list")
    assert time.monotonic() - began < 30


def tls_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_an_untrusted_certificate_is_a_transport_error(connect: Connect) -> None:
    with FakeHub(tls=tls_context(trustme.CA())) as hub, pytest.raises(HubTransportError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(hub.url)("list")
    assert hub.requests == []


def test_a_given_httpx_client_uses_its_own_certificates(connect: Connect) -> None:
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with FakeHub(tls=tls_context(authority)) as hub:
        hub.lists(row(1))
        assert len(connect(hub.url, own={"verify": trust, "trust_env": False})("list")) == 1


class Failing(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that fails. No real socket produces every error of httpx."""

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
def test_every_httpx_error_becomes_a_hub_error(connect: Connect, kind: type[Exception]) -> None:
    error = make_httpx_error(kind)
    call = connect("http://hub.example", own={"transport": Failing(error)})
    for method, arguments in METHODS:
        with pytest.raises(HubError) as caught:
            call(method, *arguments)
        assert isinstance(caught.value, HubProtocolError if issubclass(kind, httpx.DecodingError) else HubTransportError)
        assert caught.value.__cause__ is error
        assert kind.__name__ in str(caught.value)


def test_the_list_of_httpx_errors_is_complete() -> None:
    assert len(HTTPX_ERRORS) >= 25
    assert {httpx.ConnectError, httpx.InvalidURL, httpx.StreamConsumed, httpx.CookieConflict} <= set(HTTPX_ERRORS)


# The token stays secret


@pytest.mark.parametrize(
    "answer",
    [
        HubAnswer(401, TOKEN.encode()),
        HubAnswer(401, json.dumps(f"no such token: {TOKEN}").encode()),
        json_answer({"detail": f"Authorization: Bearer {TOKEN}"}, 403),
        json_answer({"error": TOKEN * 20}, 500),
        json_answer({"detail": "bad", "errors": [{"token": TOKEN}]}, 422),
        json_answer({"detail": "bad", "errors": [{TOKEN: "token"}]}, 422),
        HubAnswer(500, b"x" * 195 + TOKEN.encode()),
        HubAnswer(302, headers={"location": f"http://login.example/?token={TOKEN}"}),
        HubAnswer(raw=f"HTTP/1.1 {TOKEN}\r\n\r\n".encode(), hang_up=True),
        HubAnswer(raw=f"{TOKEN}\r\n\r\n".encode(), hang_up=True),
        HubAnswer(raw=f"HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n".encode(), hang_up=True),
        json_answer({TOKEN: 1, "id": "key-1"}),
        json_answer({"id": TOKEN, "last8": 1}),
    ],
    ids=lambda answer: repr((answer.raw or str(answer.status).encode() + b" " + answer.body)[:40]),
)
def test_no_error_holds_the_token_even_if_the_hub_repeats_it(call: Caller, hub: FakeHub, answer: HubAnswer) -> None:
    hub.always(answer)
    with pytest.raises(HubError) as caught:
        call("update", "key-1", name="new")
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(caught.value)
    assert TOKEN not in str(caught.value.errors)


def test_a_token_for_all_accounts_is_masked_as_one() -> None:
    token = "sk_all_5Ea9f0c2b7d1"
    with FakeHub() as hub, HubClient(hub.url, token, max_attempts=1) as client:
        hub.always(json_answer({"detail": f"no such token: {token.replace('_', '%5F')}"}, 401))
        with pytest.raises(HubError, match=r"no such token: sk_all_…"):
            client.widget_keys.list()


def escaped(form: str) -> str:
    """The token as JSON, a script, a URL or HTML may write it."""
    return "".join(form.format(ord(character)) for character in TOKEN)


@pytest.mark.parametrize(
    "echo",
    [
        escaped("\\u{:04x}"),
        escaped("\\u{:04X}"),
        escaped("\\\\u{:04x}"),
        escaped("\\x{:02x}"),
        escaped("%{:02X}"),
        escaped("%25{:02x}"),
        escaped("&#{};"),
        escaped("&#x{:x};"),
        TOKEN.replace("_", r"\u005f"),
        TOKEN.replace("_", "%5F"),
        TOKEN.replace("_", r"\_"),
    ],
)
def test_no_error_holds_the_token_even_if_the_hub_escapes_it(call: Caller, hub: FakeHub, echo: str) -> None:
    for around in ("%s", '"%s"', '{"detail": "no token %s", "errors": [{"%s": "%s"}]}', "<a href='?%s'>"):
        hub.always(HubAnswer(401, around.replace("%s", echo).encode()))
        with pytest.raises(HubError, match="sk_live_…") as caught:
            call("update", "key-1", name="new")
        assert_hidden(f"{caught.value}{caught.value!r}{caught.value.errors}", TOKEN, echo)


def test_a_token_with_a_slash_is_masked_as_json_writes_it(connect: Connect, hub: FakeHub) -> None:
    """PHP's json_encode puts a backslash before each slash."""
    token = "sk_live_acme/eu+west_Qx7/R2+s9="
    echo = token.replace("/", r"\/")
    call = connect(hub.url, token, account="acme")
    for tail in ("}", ""):  # the second body is no JSON, and is shown as it came
        hub.always(HubAnswer(401, f'{{"detail": "unknown: {echo}", "errors": [{{"token": "{echo}"}}]{tail}'.encode()))
        with pytest.raises(HubAuthenticationError, match="unknown: sk_live_…") as caught:
            call("list")
        assert_hidden(f"{caught.value}{caught.value.errors}", token, echo, "Qx7")


def assert_hidden(shown: str, *secrets: str) -> None:
    assert [secret for secret in secrets if secret.lower() in shown.lower()] == []


ODD = "one\ntwo\x1b[31m\u202eevil\u2028three\x00"


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"detail": ODD}, 500),
        json_answer({"detail": ODD * 100_000}, 400),
        HubAnswer(500, ODD.encode() * 1000),
        HubAnswer(302, headers={"location": "/\x1b[31m" + "x" * 5000}),
        HubAnswer(raw=b"HTTP/1.1 200 OK\x1b[31m" + b"x" * 5000 + b"\x00\r\n\r\n", hang_up=True),
        HubAnswer(raw=b"\x1b[31m" + b"x" * 5000 + b"\r\n\r\n", hang_up=True),
        json_answer({"id": f"{ODD}{'x' * 5000}", "last8": 1}),
        json_answer({f"{ODD}{number}" + "x" * 5000: 1 for number in range(100)}),
    ],
    ids=lambda answer: repr((answer.raw or answer.body)[:30]),
)
def test_what_the_hub_says_is_shown_escaped_and_cut(call: Caller, hub: FakeHub, answer: HubAnswer) -> None:
    hub.always(answer)
    with pytest.raises(HubError) as caught:
        call("update", "key-1", name="new")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2500


def test_a_long_list_of_errors_is_cut(call: Caller, hub: FakeHub) -> None:
    many = [{"entry": "*", "reason": "any_origin"}] * 2000
    hub.always(json_answer({"detail": "bad", "errors": many}, 422))
    with pytest.raises(HubInvalidRequestError) as caught:
        call("create", "shop")
    assert len(caught.value.errors) == 1000
    hub.always(json_answer({"detail": "bad", "errors": [{"entry": "x" * 100_000}]}, 422))
    with pytest.raises(HubInvalidRequestError) as caught:
        call("create", "shop")
    assert len(caught.value.errors[0]["entry"]) == 2000


def test_masking_ends_whatever_the_hub_says(call: Caller, hub: FakeHub) -> None:
    """The search for a token follows backslashes, percent signs and beginnings furthest; it must not go back for each."""
    hub.always(lambda _: HubAnswer(500, bodies.pop()))
    bodies = [piece * (200_000 // len(piece)) for piece in (b"\\", b"%25", TOKEN[:-1].encode(), b"&#11", b"s")]
    for _ in range(len(bodies)):
        with pytest.raises(HubServerError):
            call("report_usage", {})


def test_a_client_does_not_show_its_token(call: Caller) -> None:
    assert TOKEN not in repr(call.client)
    assert TOKEN not in repr(vars(call.client))
