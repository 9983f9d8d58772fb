"""Requests, frames and streams of several accounts in one gate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from gatekeeper import ConfigError, CorsPolicy, Gatekeeper, GatekeeperMiddleware, HubSource, decision_from
from tests.support.accounts import AccountSource
from tests.support.rows import client_key, row
from tests.web.test_asgi import ASKS_METHOD, App, ask_later, headers
from tests.web.test_streams import WIDGET, Exchange, Naps

pytestmark = pytest.mark.anyio

ACCOUNTS = ("acme", "globex")


def page(account: str) -> str:
    return f"https://{account}.test"


def gate_of(**options: Any) -> Gatekeeper:
    """A gate whose accounts have a key each, with the same id and the same last characters."""
    sources = [AccountSource(account, row(1, domain_allowlist=[f"{account}.test"])) for account in ACCOUNTS]
    return Gatekeeper(sources, **{"unknown_key_wait": 0, "sleep": Naps().sleep, **options})


async def test_each_page_may_use_the_key_of_its_account_alone() -> None:
    app = App()
    async with gate_of() as gate:
        guarded = GatekeeperMiddleware(app, gate)
        for _ in range(2):
            for account in ACCOUNTS:
                for other in ACCOUNTS:
                    fields = headers(("data-client-key", client_key(1, account)), ("origin", page(other)))
                    answer = await ask_later(guarded, fields)
                    assert answer.status == (200 if account == other else 403)
                    if account == other:
                        assert decision_from(app.scopes[-1]).account == account
        strange = await ask_later(guarded, headers(("data-client-key", client_key(1, "initech")), ("origin", page("acme"))))
        assert (strange.status, strange.problem["reason"]) == (403, "key_unknown")


async def test_a_strict_preflight_without_a_key_allows_the_pages_of_all_accounts() -> None:
    async with gate_of() as gate:
        guarded = GatekeeperMiddleware(App(), gate, cors=CorsPolicy(preflight="strict"))
        for account, status in (("acme", 204), ("globex", 204), ("initech", 403)):
            fields = [*headers(("origin", page(account))), *ASKS_METHOD]
            assert (await ask_later(guarded, fields, method="OPTIONS")).status == status
        await gate.remove_source("acme")
        fields = [*headers(("origin", page("acme"))), *ASKS_METHOD]
        assert (await ask_later(guarded, fields, method="OPTIONS")).status == 403


async def test_frames_of_several_accounts_need_secrets_of_their_own() -> None:
    sources = [HubSource("https://hub.example", f"sk_live_{account}_token") for account in ACCOUNTS]
    with pytest.raises(ConfigError, match="derived from the token of a single source only"):
        GatekeeperMiddleware(App(), Gatekeeper(sources), frames=("/embed",))


async def test_the_document_of_a_frame_names_the_pages_of_its_account() -> None:
    async with gate_of(grant_secrets=["0123456789abcdef"]) as gate:
        guarded = GatekeeperMiddleware(App(), gate, frames=("/embed",))
        for account in ACCOUNTS:
            fields = headers(("host", "widget.test"), ("sec-fetch-dest", "iframe"), ("referer", f"{page(account)}/"))
            query = f"client_key={client_key(1, account)}".encode()
            answer = await ask_later(guarded, fields, path="/embed", query_string=query)
            assert answer.status == 200
            assert (
                answer.value("content-security-policy")
                == f"frame-ancestors https://{account}.test http://{account}.test".encode()
            )


@asynccontextmanager
async def served(gate: Gatekeeper) -> AsyncIterator[dict[str, Exchange]]:
    """A WebSocket of each account."""
    opened = {}
    async with anyio.create_task_group() as group, gate:
        guarded = GatekeeperMiddleware(WIDGET, gate)
        for account in ACCOUNTS:
            opened[account] = Exchange("websocket", 1, page(account), query=f"client_key={client_key(1, account)}")
            group.start_soon(opened[account].run, guarded)
        await anyio.wait_all_tasks_blocked()
        yield opened
        group.cancel_scope.cancel()


async def test_the_websockets_of_a_removed_account_are_closed() -> None:
    gate = gate_of()
    async with served(gate) as opened:
        await gate.remove_source("acme")
        await anyio.wait_all_tasks_blocked()
        assert opened["acme"].sent[-1]["code"] == 1008
        assert [message["type"] for message in opened["globex"].sent] == ["websocket.accept"]
        assert gate.statuses["globex"].counters.get("streams_closed", 0) == 0
