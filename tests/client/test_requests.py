"""The requests of both clients."""

from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gatekeeper import (
    ConfigError,
    HubServerError,
    RefusedPage,
)
from gatekeeper.client import UNSET, KeyUsage
from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer, json_answer
from tests.client.support import METHODS, NOON, REFUSED, Connect, free_port
from tests.support.callers import Caller
from tests.support.rows import TOKEN, client_key, row

BEARER = f"Bearer {TOKEN}"


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
def test_the_base_url_may_include_the_api_path(connect: Connect, hub: FakeHub, base_path: str, path: str) -> None:
    connect(hub.url + base_path)("list")
    assert hub.requests[0].target == path


@pytest.mark.parametrize("host", ["api", "v1", "hub.example"])
def test_a_host_named_like_the_api_path_is_a_host(connect: Connect, hub: FakeHub, host: str) -> None:
    connect(f"http://{host}", own={"proxy": hub.url, "trust_env": False})("list")
    assert hub.requests[0].target == f"http://{host}{PATH}"


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_every_request_has_the_token_and_no_account_by_default(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...]
) -> None:
    hub.always(HubAnswer(500))
    with pytest.raises(HubServerError):
        call(method, *arguments)
    headers = hub.requests[0].headers
    assert (headers["authorization"], headers["accept"]) == (BEARER, "application/json")
    assert "x-account-id" not in headers


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_every_request_has_the_given_account(
    connect: Connect, hub: FakeHub, method: str, arguments: tuple[Any, ...]
) -> None:
    hub.always(HubAnswer(500))
    with pytest.raises(HubServerError):
        connect(hub.url, "another-bearer", account="globex")(method, *arguments)
    headers = hub.requests[0].headers
    assert (headers["authorization"], headers["x-account-id"]) == ("Bearer another-bearer", "globex")


def test_list_is_a_get_without_a_body(call: Caller, hub: FakeHub) -> None:
    call("list")
    request = hub.requests[0]
    assert (request.method, request.target, request.body) == ("GET", PATH, b"")
    assert "content-type" not in request.headers


def test_create_posts_the_name_the_entries_and_the_agent(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer({**row(1), "public_key": client_key(1)}, 201))
    call("create", "shop", domain_allowlist=iter(["acme.com", "*.acme.com"]), agent_id="agent-7")
    request = hub.requests[0]
    assert (request.method, request.target) == ("POST", PATH)
    assert request.headers["content-type"] == "application/json"
    assert request.json == {"name": "shop", "domain_allowlist": ["acme.com", "*.acme.com"], "agent_id": "agent-7"}


def test_create_needs_only_a_name(call: Caller, hub: FakeHub) -> None:
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
def test_update_patches_only_the_given_fields(
    call: Caller, hub: FakeHub, changes: dict[str, Any], body: dict[str, Any]
) -> None:
    hub.always(json_answer(row(1)))
    call("update", "key-1", **changes)
    request = hub.requests[0]
    assert (request.method, request.target, request.json) == ("PATCH", f"{PATH}/key-1", body)
    assert request.headers["content-type"] == "application/json"


def test_delete_is_a_delete_without_a_body(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(204))
    call("delete", "key-1")
    request = hub.requests[0]
    assert (request.method, request.target, request.body) == ("DELETE", f"{PATH}/key-1", b"")


@pytest.mark.parametrize("method", ["update", "delete"])
def test_an_id_is_always_one_path_segment(call: Caller, hub: FakeHub, method: str) -> None:
    hub.always(json_answer(row(1)))
    call(method, "a/../b?c#d e%ü")
    assert hub.requests[0].target == f"{PATH}/a%2F..%2Fb%3Fc%23d%20e%25%C3%BC"


def test_proxies_and_netrc_of_the_environment_are_ignored(
    connect: Connect, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    connect(hub.url)("list")
    assert hub.requests[0].headers["authorization"] == BEARER


def test_events_are_requested_below_their_key(call: Caller, hub: FakeHub) -> None:
    call("events", "key/1")
    request = hub.requests[0]
    assert (request.method, request.target, request.body) == ("GET", f"{PATH}/key%2F1/events", b"")


def test_refused_pages_are_requested_of_all_keys_or_of_one(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer([]))
    assert call("refused") == call("refused", "key/1&ü") == []
    targets = [(request.method, request.target, request.body) for request in hub.requests]
    assert targets == [("GET", f"{PATH}/refused", b""), ("GET", f"{PATH}/refused?key_id=key%2F1%26%C3%BC", b"")]


def test_usage_is_reported_by_key_id(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(204))
    assert call("report_usage", {"key-1": KeyUsage(3, NOON), "key-2": KeyUsage(1, NOON)}) is None
    request = hub.requests[0]
    assert (request.method, request.target) == ("POST", f"{PATH}/usage")
    assert request.headers["content-type"] == "application/json"
    assert request.json == {
        "key-1": {"count": 3, "last_used_at": "2026-01-02T12:00:00Z"},
        "key-2": {"count": 1, "last_used_at": "2026-01-02T12:00:00Z"},
    }


def test_refused_pages_are_reported_in_an_array(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(204))
    unnamed = RefusedPage("key-2", None, "origin_missing", 1, NOON, NOON)
    assert call("report_refused", [REFUSED, unnamed]) is None
    request = hub.requests[0]
    assert (request.method, request.target) == ("POST", f"{PATH}/refused")
    assert request.headers["content-type"] == "application/json"
    times = {"first_at": "2026-01-02T12:00:00Z", "last_at": "2026-01-02T12:00:00Z"}
    shop = {"key_id": "key-1", "origin": "https://shop.test", "reason": "origin_not_allowed", "count": 3}
    missing = {"key_id": "key-2", "origin": None, "reason": "origin_missing", "count": 1, "entry": None}
    assert request.json == [{**shop, **times, "entry": "shop.test"}, {**missing, **times}]


@pytest.mark.parametrize(
    ("count", "last_used_at", "said"),
    [(0, NOON, "count is 0"), (-1, NOON, "count is -1"), (1, datetime(2026, 1, 2), "time zone")],  # noqa: DTZ001 - the mistake
)
def test_invalid_usage_is_refused(count: int, last_used_at: datetime, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        KeyUsage(count, last_used_at)


# Mistakes that are reported before anything is sent


@pytest.mark.parametrize("method", ["update", "delete", "events", "refused"])
@pytest.mark.parametrize("key_id", ["", ".", "..", "\ud800", f"{client_key(1)}\ud800"])
def test_an_id_that_would_change_the_path_is_refused_unsent(call: Caller, hub: FakeHub, method: str, key_id: str) -> None:
    with pytest.raises(ConfigError, match=r"key_id is .*: expected the id of a row") as caught:
        call(method, key_id)
    assert client_key(1) not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize("key_id", ["...", ".a", "a.", "../x", "%2e%2e"])
def test_an_id_that_resembles_a_dot_segment_is_sent_escaped(call: Caller, hub: FakeHub, key_id: str) -> None:
    hub.always(HubAnswer(204))
    call("delete", key_id)
    assert hub.requests[0].target == f"{PATH}/{quote(key_id, safe='')}"


@pytest.mark.parametrize(("method", "argument"), [("create", "shop"), ("update", "key-1")])
@pytest.mark.parametrize("text", ["acme.com", "", b"acme.com"])
def test_one_string_is_not_read_as_a_list_of_letters(
    call: Caller, hub: FakeHub, method: str, argument: str, text: Any
) -> None:
    with pytest.raises(ConfigError, match=r"domain_allowlist is one string, .*: expected a list of entries, such as"):
        call(method, argument, domain_allowlist=text)
    assert hub.requests == []


@pytest.mark.parametrize(("name", "entries"), [("\ud800", ()), ("shop", ["\udfff.com"])])
def test_a_lone_surrogate_is_refused_unsent(call: Caller, hub: FakeHub, name: str, entries: list[str]) -> None:
    with pytest.raises(ConfigError, match="lone surrogate"):
        call("create", name, domain_allowlist=entries)
    assert hub.requests == []
