"""Rows with their ETag, and changes under a condition."""

from pathlib import Path

import pytest

from gatekeeper import ConfigError, HubNotFoundError, HubPreconditionFailedError, HubProtocolError, VersionedWidgetKey
from gatekeeper.client import KeyUsage
from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer, json_answer
from tests.client.support import NOON, Connect
from tests.support.callers import Caller
from tests.support.real_hub import served_hub
from tests.support.rows import client_key, row


def test_get_reads_one_row(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer(row(1), etag='"v1"'))
    key = call("get", "key/1")
    assert isinstance(key, VersionedWidgetKey)
    assert (key.id, key.domain_allowlist, key.etag) == ("key-1", ("acme.com",), '"v1"')
    request = hub.requests[0]
    assert (request.method, request.target, request.body) == ("GET", f"{PATH}/key%2F1", b"")


def test_create_update_and_delete_give_the_etag_too(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer({**row(1), "public_key": client_key(1)}, 201, etag='"v1"'))
    assert call("create", "shop").etag == '"v1"'
    hub.always(json_answer(row(1), etag='"v2"'))
    assert call("update", "key-1", name="new").etag == call("delete", "key-1").etag == '"v2"'


@pytest.mark.parametrize("headers", [{}, {"etag": 'W/"v1"'}, {"etag": "v1"}, {"etag": ""}, {"etag": '"v"1"'}])
def test_an_etag_that_matches_no_row_is_none(call: Caller, hub: FakeHub, headers: dict[str, str]) -> None:
    hub.always(HubAnswer(200, json_answer(row(1)).body, headers))
    assert call("get", "key-1").etag is None


def test_rows_are_requested_uncompressed_to_keep_their_etag_strong(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer(row(1)))
    for method in ("get", "update", "delete"):
        call(method, "key-1")
    assert [request.headers["accept-encoding"] for request in hub.requests] == ["identity"] * 3


def test_if_match_is_sent_with_the_change(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer(row(1)))
    for condition in ('"v1"', "*", '"v\xe9"'):
        call("update", "key-1", name="new", if_match=condition)
        call("delete", "key-1", if_match=condition)
    sent = [request.headers["if-match"] for request in hub.requests]
    assert sent == ['"v1"', '"v1"', "*", "*", '"v\xe9"', '"v\xe9"']


def test_without_a_condition_the_header_is_absent(call: Caller, hub: FakeHub) -> None:
    """As with the etag of a row of a hub that gives none."""
    hub.always(json_answer(row(1)))
    call("update", "key-1", name="new", if_match=call("get", "key-1").etag)
    call("delete", "key-1")
    assert not any("if-match" in request.headers for request in hub.requests)


@pytest.mark.parametrize("method", ["update", "delete"])
def test_a_condition_that_no_row_can_meet_is_not_sent(call: Caller, hub: FakeHub, method: str) -> None:
    for condition in ("", "v1", 'W/"v1"', '"v1', '"v1", "v2"', '"v\n1"', '"v\u20ac"'):
        with pytest.raises(ConfigError, match=r"if_match is .* expected the etag of a row"):
            call(method, "key-1", if_match=condition)
    assert hub.requests == []


@pytest.mark.parametrize("method", ["update", "delete"])
def test_a_412_is_an_error_of_its_own_and_is_not_retried(call: Caller, hub: FakeHub, method: str) -> None:
    hub.always(HubAnswer(412))
    with pytest.raises(HubPreconditionFailedError, match="read it again before you change it") as caught:
        call(method, "key-1", if_match='"v1"')
    assert caught.value.status == 412
    assert len(hub.requests) == 1


def test_a_hub_without_single_rows_is_named_by_its_status(call: Caller, hub: FakeHub) -> None:
    hub.then(HubAnswer(405), HubAnswer(404))
    with pytest.raises(HubProtocolError) as caught:
        call("get", "key-1")
    assert caught.value.status == 405
    with pytest.raises(HubNotFoundError):
        call("get", "key-1")


def test_of_two_writers_the_second_learns_that_the_row_has_changed(connect: Connect, tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        call = connect(served.url, served.token)
        created = call("create", "shop", domain_allowlist=["acme.com"])
        call("report_usage", {created.id: KeyUsage(1, NOON)})  # is no change
        read = connect(served.url, served.gate_token)("get", created.id)
        assert (read.etag, read.last_used_at) == (created.etag, "2026-01-02T12:00:00Z")
        updated = call("update", created.id, domain_allowlist=["acme.com", "first.com"], if_match=read.etag)
        for method, change in (("update", {"domain_allowlist": ["acme.com", "second.com"]}), ("delete", {})):
            with pytest.raises(HubPreconditionFailedError):
                call(method, created.id, **change, if_match=read.etag)
        assert call("get", created.id) == updated
        assert call("delete", created.id, if_match=updated.etag).disabled
