"""Which calls are retried, when, and how often."""

from typing import Any

import anyio
import httpx
import pytest

from gatekeeper import (
    AsyncHubClient,
    ConfigError,
    HubError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubProtocolError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
)
from gatekeeper.testing import GARBAGE, HANG_UP, FakeHub, HubAnswer, json_answer
from tests.client.support import METHODS, Connect, free_port
from tests.support.callers import Caller
from tests.support.rows import TOKEN, client_key, row

ONCE = {"create", "report_usage", "report_refused", "gates.report"}  # another would count, or come too late
IDEMPOTENT = [(method, arguments) for method, arguments in METHODS if method not in ONCE]
NOT_IDEMPOTENT = [(method, arguments) for method, arguments in METHODS if method in ONCE]


def success(method: str) -> HubAnswer:
    return json_answer(
        [] if method in {"list", "events", "refused", "gates.list"} else {**row(1), "public_key": client_key(1)}
    )


class Refusing(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that always raises one error, and counts requests."""

    def __init__(self, kind: type[httpx.TransportError]) -> None:
        self.kind = kind
        self.count = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        raise self.kind("the message", request=request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


@pytest.mark.parametrize(("method", "arguments"), IDEMPOTENT)
@pytest.mark.parametrize("failure", [HANG_UP, GARBAGE, *(HubAnswer(status) for status in (429, 500, 502, 503, 504))])
def test_an_idempotent_call_is_retried_until_it_is_answered(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...], failure: HubAnswer
) -> None:
    hub.then(failure, failure, success(method))
    call(method, *arguments)
    assert len(hub.requests) == 3
    assert hub.requests[0][:4] == hub.requests[2][:4]  # all but its connection and its time
    assert 0 <= call.naps[0] <= 0.5
    assert 0 <= call.naps[1] <= 1


@pytest.mark.parametrize(("method", "arguments"), IDEMPOTENT)
def test_after_three_attempts_the_last_error_is_raised(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...]
) -> None:
    hub.then(HANG_UP, HubAnswer(500), HubAnswer(502), success(method))
    with pytest.raises(HubServerError) as caught:
        call(method, *arguments)
    assert caught.value.status == 502
    assert len(hub.requests) == 3


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_number_of_attempts_is_an_option(connect: Connect, hub: FakeHub, attempts: int) -> None:
    hub.always(HubAnswer(503))
    call = connect(hub.url, max_attempts=attempts)
    with pytest.raises(HubServerError):
        call("list")
    assert len(hub.requests) == attempts
    assert len(call.naps) == attempts - 1


@pytest.mark.parametrize(("method", "arguments"), METHODS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        *((HubAnswer(status), HubError) for status in (302, 400, 401, 403, 404, 405, 409, 413, 415, 422, 501)),
        (HubAnswer(200, b"[]", {"content-encoding": "gzip"}), HubProtocolError),
    ],
)
def test_a_lasting_error_is_not_retried(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...], answer: HubAnswer, kind: type[HubError]
) -> None:
    hub.always(answer)
    with pytest.raises(kind):
        call(method, *arguments)
    assert len(hub.requests) == 1
    assert call.naps == []


@pytest.mark.parametrize(("method", "arguments"), NOT_IDEMPOTENT)
@pytest.mark.parametrize("failure", [HANG_UP, GARBAGE, *(HubAnswer(status) for status in (429, 500, 502, 503, 504))])
def test_a_call_that_is_not_idempotent_is_sent_once(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...], failure: HubAnswer
) -> None:
    hub.then(failure, success(method))
    with pytest.raises(HubError):
        call(method, *arguments)
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("method", "kind", "attempts"),
    [
        ("create", httpx.ConnectError, 3),
        ("create", httpx.ConnectTimeout, 3),
        ("create", httpx.PoolTimeout, 3),
        ("create", httpx.ReadError, 1),
        ("create", httpx.ReadTimeout, 1),
        ("create", httpx.WriteError, 1),
        ("create", httpx.WriteTimeout, 1),
        ("create", httpx.RemoteProtocolError, 1),
        ("create", httpx.CloseError, 1),
        ("create", httpx.ProxyError, 1),
        ("report_usage", httpx.ConnectError, 1),
        ("report_refused", httpx.ConnectError, 1),
        ("list", httpx.ConnectError, 3),
        ("list", httpx.ReadTimeout, 3),
        ("list", httpx.WriteError, 3),
        ("list", httpx.ProxyError, 3),
        ("list", httpx.UnsupportedProtocol, 1),
        ("list", httpx.LocalProtocolError, 1),
    ],
)
def test_create_is_retried_only_if_nothing_was_sent(
    connect: Connect, method: str, kind: type[httpx.TransportError], attempts: int
) -> None:
    transport = Refusing(kind)
    with pytest.raises(HubTransportError):
        connect("http://hub.example", own={"transport": transport})(method, *dict(METHODS)[method])
    assert transport.count == attempts


def test_a_refused_connection_is_tried_three_times(connect: Connect) -> None:
    call = connect(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(HubTransportError):
        call("create", "shop")
    assert len(call.naps) == 2


@pytest.mark.parametrize("failure", [HANG_UP, HubAnswer(500), HubAnswer(503)])
def test_a_retried_delete_succeeds_if_the_key_is_gone(call: Caller, hub: FakeHub, failure: HubAnswer) -> None:
    hub.then(failure, json_answer({"detail": "There is no widget key of this id."}, 404))
    assert call("delete", "key-1") is None


def test_a_first_delete_of_a_missing_key_is_an_error(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(404))
    with pytest.raises(HubNotFoundError):
        call("delete", "key-1")


def test_a_retried_update_of_a_missing_key_is_an_error(call: Caller, hub: FakeHub) -> None:
    hub.then(HANG_UP, HubAnswer(404))
    with pytest.raises(HubNotFoundError):
        call("update", "key-1", name="new")


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_waits_for_retry_after_plus_jitter(call: Caller, hub: FakeHub, status: int) -> None:
    hub.then(HubAnswer(status, headers={"retry-after": "7"}), success("list"))
    call("list")
    (nap,) = call.naps
    assert 7 <= nap <= 7.5


def test_a_retry_after_in_the_past_is_ignored(call: Caller, hub: FakeHub) -> None:
    hub.then(HubAnswer(503, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}), success("list"))
    call("list")
    assert 0 <= call.naps[0] <= 0.5


def test_a_retry_after_beyond_the_time_limit_ends_the_attempts(connect: Connect, hub: FakeHub) -> None:
    hub.always(HubAnswer(429, headers={"retry-after": "20"}))
    call = connect(hub.url, retry_within=20.0)
    with pytest.raises(HubRateLimitedError) as caught:
        call("list")
    assert caught.value.retry_after == 20
    assert (len(hub.requests), call.naps) == (1, [])


def test_attempts_end_at_the_time_limit(connect: Connect, hub: FakeHub) -> None:
    hub.always(HubAnswer(500))
    call = connect(hub.url, max_attempts=1000, retry_within=0.0)
    with pytest.raises(HubServerError):
        call("list")
    assert len(hub.requests) == 1


def test_waits_are_jittered_and_never_longer_than_five_seconds(connect: Connect, hub: FakeHub) -> None:
    hub.always(HubAnswer(500))
    call = connect(hub.url, max_attempts=40, retry_within=1000.0)
    with pytest.raises(HubServerError):
        call("list")
    assert len(call.naps) == 39
    assert max(call.naps) <= 5
    assert len({round(nap, 9) for nap in call.naps}) == 39


@pytest.mark.parametrize("option", [{"max_attempts": 0}, {"retry_within": -1.0}, {"retry_within": float("nan")}])
def test_options_that_allow_no_attempt_are_refused(connect: Connect, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        connect("https://hub.example", **option)


def test_wrong_options_are_reported_with_a_wrong_base_url(connect: Connect) -> None:
    with pytest.raises(ConfigError) as caught:
        connect("hub.example", max_attempts=0)
    assert len(caught.value.problems) == 2


@pytest.mark.anyio
async def test_fetch_is_not_retried_because_the_refresher_does_that(hub: FakeHub) -> None:
    hub.always(HubAnswer(503))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubServerError):
            async with client.widget_keys.fetch():
                pass
    assert len(hub.requests) == 1


@pytest.mark.anyio
async def test_a_call_can_be_cancelled_between_attempts(hub: FakeHub) -> None:
    hub.always(HubAnswer(503, headers={"retry-after": "25"}))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(client.widget_keys.list)
                await hub.asked(1)
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
    assert len(hub.requests) == 1


def test_an_update_is_retried_with_the_same_body(call: Caller, hub: FakeHub) -> None:
    hub.then(HANG_UP, json_answer(row(1)))
    call("update", "key-1", domain_allowlist=iter(["acme.com", "*.acme.com"]))
    assert [request.json for request in hub.requests] == [{"domain_allowlist": ["acme.com", "*.acme.com"]}] * 2


def test_a_retried_request_keeps_the_hubs_list_of_errors(call: Caller, hub: FakeHub) -> None:
    hub.then(HubAnswer(500), json_answer({"detail": "no", "errors": [{"entry": "*"}]}, 400))
    with pytest.raises(HubInvalidRequestError) as caught:
        call("update", "key-1", domain_allowlist=["*"])
    assert caught.value.errors == ({"entry": "*"},)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.anyio
async def test_a_call_is_retried_on_every_event_loop(hub: FakeHub) -> None:
    hub.then(HANG_UP, success("list"))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        assert await client.widget_keys.list() == []
    assert len(hub.requests) == 2
