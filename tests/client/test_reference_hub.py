"""Both clients, against the reference hub over real sockets."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest

from gatekeeper import (
    HubAuthenticationError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
)
from gatekeeper.client import FieldChange, KeyUsage
from gatekeeper.keys.refused_page import RefusedPage
from tests.client.support import NOON, Connect
from tests.support.real_hub import served_hub
from tests.support.rows import TOKEN


def test_a_key_is_created_updated_and_deleted_at_the_reference_hub(connect: Connect, tmp_path: Path) -> None:
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


def test_refusals_of_the_reference_hub_say_what_to_do(connect: Connect, tmp_path: Path) -> None:
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


def test_a_gate_token_changes_nothing_and_the_error_says_what_to_mint(connect: Connect, tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        created = connect(served.url, served.token)("create", "shop")
        gate = connect(served.url, served.gate_token)
        assert [key.id for key in gate("list")] == [created.id]
        gate("report_usage", {created.id: KeyUsage(1, NOON)})
        changes = (("create", "shop"), ("update", created.id), ("delete", created.id), ("events", created.id))
        for method, argument in changes:
            with pytest.raises(HubPermissionError, match=r"token create --scope admin\.'$") as caught:
                gate(method, argument)
            assert caught.value.status == 403


def test_a_deleted_key_keeps_its_events(connect: Connect, tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        call = connect(served.url, served.token)
        created = call("create", "shop", agent_id="agent-7")
        call("update", created.id, agent_id=None)
        call("update", created.id, disabled=True)
        call("update", created.id, disabled=False)
        call("delete", created.id)
        events = call("events", created.id)
        assert [event.action for event in events] == ["created", "updated", "disabled", "enabled", "deleted"]
        assert {(event.key_id, event.token_name) for event in events} == {(created.id, "tests")}
        assert events[1].changes["agent_id"] == FieldChange("agent-7", None)
        assert [event.id for event in events] == sorted(event.id for event in events)
        assert all(event.at.utcoffset() is not None for event in events)
        with pytest.raises(HubNotFoundError):
            call("events", "no-such-key")


def test_refused_pages_are_listed_at_the_reference_hub(connect: Connect, tmp_path: Path) -> None:
    now = datetime.now(UTC)  # the list has pages of the last 30 days
    with served_hub(tmp_path) as served:
        call = connect(served.url, served.token)
        key, other = call("create", "shop"), call("create", "other")
        pages = [
            RefusedPage(key.id, "https://shop.acme.com", "origin_not_allowed", 3, now, now, "shop.acme.com"),
            RefusedPage(other.id, None, "origin_missing", 1, now, now),
        ]
        headers = {"Authorization": f"Bearer {served.gate_token}"}
        url = f"{served.url}/api/v1/widget-keys/refused"
        assert httpx.post(url, json=msgspec.to_builtins(pages), headers=headers, trust_env=False).status_code == 204
        assert call("refused") == pages
        assert call("refused", other.id) == pages[1:]
        with pytest.raises(HubNotFoundError):
            call("refused", "no-such-key")
        with pytest.raises(HubPermissionError):
            connect(served.url, served.gate_token)("refused")


def test_deleting_a_used_key_only_disables_it(connect: Connect, tmp_path: Path) -> None:
    with served_hub(tmp_path) as served:
        call = connect(served.url, served.token)
        used, unused = call("create", "used"), call("create", "unused")
        call("report_usage", {used.id: KeyUsage(3, NOON)})
        assert [key.last_used_at for key in call("list")] == ["2026-01-02T12:00:00Z", None]
        assert call("delete", used.id).disabled
        assert call("delete", unused.id) is None
