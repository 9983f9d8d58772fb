"""The results that both clients return."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gatekeeper import (
    HubError,
    HubNotFoundError,
    HubProtocolError,
    InvalidList,
    WidgetKey,
)
from gatekeeper.client import CreatedWidgetKey, FieldChange, KeyEvent
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.testing import FakeHub, HubAnswer, json_answer
from tests.client.support import METHODS, NOON, Connect
from tests.support.callers import Caller
from tests.support.rows import as_json, client_key, row


def test_list_returns_the_rows_in_the_hubs_order(call: Caller, hub: FakeHub) -> None:
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


def test_list_sets_malformed_rows_aside_with_the_reason(call: Caller, hub: FakeHub) -> None:
    hub.lists(row(1), {"id": "key-2", "suffix": "00000002"}, 3, row(4))
    listed = call("list")
    assert [key.id for key in listed] == ["key-1", "key-4"]
    assert [(error.index, error.row_id, error.fields) for error in listed.rejected] == [
        (1, "key-2", ("id", "suffix")),
        (2, None, ()),
    ]
    assert "suffix_field=" in str(listed.rejected[0])


def test_a_name_with_invalid_utf_8_does_not_reject_its_row(call: Caller, hub: FakeHub) -> None:
    body = as_json(row(1), row(2, name="cafe")).replace(b"cafe", "café".encode("latin-1"))
    hub.always(HubAnswer(200, body))
    listed = call("list")
    assert [(key.id, key.name) for key in listed] == [("key-1", listed[0].name), ("key-2", "caf?")]
    assert listed.rejected == ()


def test_the_name_of_the_suffix_field_is_an_option(connect: Connect, hub: FakeHub) -> None:
    renamed = {"key_suffix" if name == "last8" else name: value for name, value in row(1).items()}
    hub.always(lambda request: json_answer([renamed] if request.method == "GET" else renamed))
    call = connect(hub.url, suffix_field="key_suffix")
    assert [key.last8 for key in call("list")] == ["00000001"]
    assert call("update", "key-1", name="shop").last8 == "00000001"


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": []}', b"null", b'"rows"', b"7", b"[" * 100_000])
def test_a_list_that_is_not_an_array_is_a_protocol_error(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(HubAnswer(200, body, {"content-type": "text/html"}))
    with pytest.raises(HubProtocolError, match="expected a JSON array of rows") as caught:
        call("list")
    assert caught.value.status == 200
    assert hub.url in str(caught.value)
    assert isinstance(caught.value.__cause__, InvalidList)


@pytest.mark.parametrize("status", [201, 202, 204, 206, 226])
def test_a_success_that_is_no_whole_list_is_a_protocol_error(call: Caller, hub: FakeHub, status: int) -> None:
    """An array of changes (226), or a part of the list (206), would look like a list that lacks most keys."""
    hub.always(HubAnswer(status, b"" if status == 204 else as_json(row(1))))
    with pytest.raises(HubProtocolError, match=f"answered {status}"):
        call("list")


def test_a_list_that_a_proxy_has_altered_is_a_list(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(203, as_json(row(1))))
    assert [key.id for key in call("list")] == ["key-1"]


def test_create_returns_the_row_and_its_plaintext(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer({**row(1), "public_key": client_key(1)}, 201))
    created = call("create", "shop")
    assert isinstance(created, CreatedWidgetKey)
    assert (created.id, created.last8, created.public_key) == ("key-1", "00000001", client_key(1))


def test_a_created_row_without_a_suffix_takes_it_from_its_plaintext(call: Caller, hub: FakeHub) -> None:
    created_row = {name: value for name, value in row(1).items() if name != "last8"}
    hub.always(json_answer({**created_row, "public_key": client_key(1)}, 201))
    assert call("create", "shop").last8 == "00000001"


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda created: f"{created!r}", lambda created: repr([created])])
def test_a_created_key_never_shows_its_plaintext(show: Callable[[object], str]) -> None:
    shown = show(CreatedWidgetKey(**{**row(1), "domain_allowlist": ()}, public_key=client_key(1)))
    assert client_key(1) not in shown
    assert "…00000001" in shown


def test_a_created_key_hides_its_plaintext_from_rich() -> None:
    created: Any = CreatedWidgetKey(**{**row(1), "domain_allowlist": ()}, public_key=client_key(1))
    parts = created.__rich_repr__() if hasattr(created, "__rich_repr__") else (repr(created),)
    assert client_key(1) not in str(list(parts))


@pytest.mark.parametrize("public_key", [None, 7, "short"])
def test_a_created_key_without_a_plaintext_is_a_protocol_error(call: Caller, hub: FakeHub, public_key: object) -> None:
    fields = {name: value for name, value in row(1).items() if name != "last8"}
    hub.always(json_answer({**fields, "public_key": public_key}, 201))
    with pytest.raises(HubProtocolError):
        call("create", "shop")


def test_update_returns_the_updated_row(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer(row(1, name="new", disabled_at="2026-02-02T00:00:00Z")))
    updated = call("update", "key-1", name="new", disabled=True)
    assert (updated.name, updated.disabled) == ("new", True)


def test_delete_returns_none_if_the_key_is_gone(call: Caller, hub: FakeHub) -> None:
    hub.always(HubAnswer(204))
    assert call("delete", "key-1") is None


def test_delete_returns_the_row_if_the_key_was_only_disabled(call: Caller, hub: FakeHub) -> None:
    hub.always(json_answer(row(1, disabled_at="2026-02-02T00:00:00Z")))
    deleted = call("delete", "key-1")
    assert (deleted.id, deleted.disabled) == ("key-1", True)


@pytest.mark.parametrize(("method", "arguments"), METHODS[1:5])
@pytest.mark.parametrize(
    "body", [b"", b"<html>hello</html>", b"[7]", b"null", b'{"id": 7}', b'{"name": "\xff"}', b'{"id":' + b"[" * 100_000]
)
def test_a_success_without_a_row_is_a_protocol_error(
    call: Caller, hub: FakeHub, method: str, arguments: tuple[Any, ...], body: bytes
) -> None:
    hub.always(HubAnswer(200, body))
    with pytest.raises(HubProtocolError) as caught:
        call(method, *arguments)
    assert hub.url in str(caught.value)


def test_events_are_typed(call: Caller, hub: FakeHub) -> None:
    created = {"id": 1, "key_id": "key-1", "action": "created", "token_name": "ci", "at": "2026-01-02T12:00:00Z"}
    changes = {"agent_id": {"before": "agent-7", "after": None}}
    hub.always(json_answer([{**created, "changes": {}}, {**created, "id": 2, "action": "updated", "changes": changes}]))
    assert call("events", "key-1") == [
        KeyEvent(1, "key-1", "created", "ci", NOON, {}),
        KeyEvent(2, "key-1", "updated", "ci", NOON, {"agent_id": FieldChange("agent-7", None)}),
    ]


def test_an_unknown_kind_of_event_is_accepted(call: Caller, hub: FakeHub) -> None:
    event = {"id": 1, "key_id": "key-1", "action": "rotated", "token_name": "ci", "at": "2026-01-02T12:00:00Z", "by": "x"}
    hub.always(json_answer([event]))
    assert [event.action for event in call("events", "key-1")] == ["rotated"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[7]",
        b'[{"id": 1}]',
        b'[{"id": 1, "key_id": "k", "action": "a", "token_name": "t", "at": "noon"}]',
    ],
)
def test_a_success_without_a_list_of_events_is_a_protocol_error(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(HubAnswer(200, body))
    with pytest.raises(HubProtocolError, match="something other than a list of events"):
        call("events", "key-1")


def test_refused_pages_are_typed(call: Caller, hub: FakeHub) -> None:
    """A newer hub may give more fields than this client knows."""
    shop = RefusedPage("key-1", "https://shop.acme.com", "origin_not_allowed", 3, NOON, NOON, "shop.acme.com")
    unnamed = RefusedPage("key-2", None, "origin_missing", 1, NOON, NOON)
    hub.always(json_answer([{**msgspec.to_builtins(shop), "country": "FI"}, msgspec.to_builtins(unnamed)]))
    assert call("refused") == [shop, unnamed]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"null", b"[7]", b'[{"key_id": "key-1"}]'])
def test_a_success_without_refused_pages_is_a_protocol_error(call: Caller, hub: FakeHub, body: bytes) -> None:
    hub.always(HubAnswer(200, body))
    with pytest.raises(HubProtocolError, match="something other than a list of refused pages"):
        call("refused")


REPORTS = pytest.mark.parametrize(
    ("method", "arguments"), [(method, arguments) for method, arguments in METHODS if method.startswith("report_")]
)


@REPORTS
@pytest.mark.parametrize("answer", [HubAnswer(200), HubAnswer(202), HubAnswer(204), json_answer({"ok": True})])
def test_an_empty_success_or_json_takes_a_report(
    call: Caller, hub: FakeHub, answer: HubAnswer, method: str, arguments: tuple[Any, ...]
) -> None:
    """A report that a hub has taken must not be sent again: its uses would count twice."""
    hub.always(answer)
    call(method, *arguments)
    assert len(hub.requests) == 1


@REPORTS
@pytest.mark.parametrize(
    "answer",
    [
        HubAnswer(200, b"<html>Please log in</html>", {"content-type": "text/html"}),
        HubAnswer(200, b'{"ok": '),
        HubAnswer(304),
    ],
    ids=lambda answer: f"{answer.status} {answer.body!r}",
)
def test_any_other_answer_to_a_report_is_a_protocol_error(
    call: Caller, hub: FakeHub, answer: HubAnswer, method: str, arguments: tuple[Any, ...]
) -> None:
    hub.always(answer)
    with pytest.raises(HubProtocolError) as caught:
        call(method, *arguments)
    assert caught.value.status == answer.status
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("method", "arguments"), [each for each in METHODS if each[0] == "refused" or each[0].startswith("report_")]
)
@pytest.mark.parametrize(("status", "kind"), [(404, HubNotFoundError), (405, HubProtocolError)])
def test_a_hub_without_the_endpoint_is_recognised_by_the_status(
    call: Caller, hub: FakeHub, status: int, kind: type[HubError], method: str, arguments: tuple[Any, ...]
) -> None:
    hub.always(HubAnswer(status))
    with pytest.raises(kind) as caught:
        call(method, *arguments)
    assert caught.value.status == status
