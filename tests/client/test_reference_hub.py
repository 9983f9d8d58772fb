"""Both clients, against the reference hub over real sockets."""

from pathlib import Path

import pytest

from gatekeeper import (
    HubAuthenticationError,
    HubInvalidRequestError,
    HubNotFoundError,
)
from tests.support.real_hub import served_hub
from tests.support.rows import TOKEN

from .support import Connect


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
