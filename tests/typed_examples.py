"""Code of users for mypy: a change that breaks their types fails here."""

from collections.abc import Mapping
from typing import Any, assert_type

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.websockets import WebSocket

from gatekeeper import (
    Allowlist,
    Answer,
    AsyncHubClient,
    CorsPolicy,
    CreatedWidgetKey,
    Decision,
    EntryWarning,
    FileSource,
    Gatekeeper,
    GatekeeperMiddleware,
    HubClient,
    HubSource,
    Origin,
    Reason,
    RefreshReport,
    RefusedPage,
    RejectedEntry,
    StaticSource,
    Status,
    VersionedWidgetKey,
    WidgetKey,
    answer,
    check_key,
    decision_from,
    guard,
)
from gatekeeper.fastapi import Checked
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer, allow_all, gate_for, headers, query, row


def mounting() -> None:
    gate = Gatekeeper(HubSource("https://hub.example", "sk_live_acme_x"), refresh_interval=5.0, https_only=True)
    app = Starlette(middleware=[Middleware(GatekeeperMiddleware, gatekeeper=gate)], lifespan=gate.lifespan)
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate, exempt=("/healthz",))
    wrapped = GatekeeperMiddleware(app, gatekeeper=gate, cors=CorsPolicy(preflight="strict"), frame_ancestors=True)
    GatekeeperMiddleware(wrapped, gatekeeper=gate)
    assert_type(guard(app, gate, exempt=("/healthz",)), Starlette)
    api = guard(FastAPI(), gate, exempt_docs=False, key_in_body=("/chat",))
    assert_type(api, FastAPI)

    @api.get("/config")
    async def config(decision: Checked) -> dict[str, str | None]:
        return {"agent_id": decision.agent_id}


async def checking(request: Request) -> None:
    assert_type(await check_key(request, None), Decision)


def endpoints(request: Request, websocket: WebSocket, scope: dict[str, Any]) -> None:
    assert_type(decision_from(request), Decision)
    assert_type(decision_from(websocket), Decision)
    assert_type(decision_from(scope), Decision)
    gated = answer(decision_from(scope), scope, cors=CorsPolicy(), readable_denials=False)
    assert_type(gated, Answer)
    assert_type(gated.headers, list[tuple[bytes, bytes]])


def deciding(rows: list[Mapping[str, Any]]) -> None:
    gate = Gatekeeper.from_rows(rows)
    decision = gate.decide("pk_live_acme_x", b"https://shop.acme.com", referer=None)
    assert_type(decision.allowed, bool)
    assert_type(decision.reason, Reason)
    assert_type(decision.status, int)
    assert_type(decision.detail, str)
    assert_type(decision.key, WidgetKey | None)
    assert_type(decision.origin, str | None)
    assert_type(decision.matched, str | None)
    assert_type(decision.agent_id, str | None)
    Gatekeeper(StaticSource(rows), enforce=False)
    assert_type(gate.enforce, bool)
    assert_type(gate.refusals, tuple[RefusedPage, ...])
    assert_type(gate.admits(decision), bool)
    Gatekeeper(FileSource("rows.json"))


async def running(gate: Gatekeeper) -> None:
    async with gate as entered:
        assert_type(entered, Gatekeeper)
        assert_type(await gate.check("pk_live_acme_x", "https://shop.acme.com"), Decision)
        assert_type(await gate.refresh(), RefreshReport)
        assert_type(gate.status, Status)


def allowlists(origin: Origin) -> None:
    allowlist = Allowlist.parse(["acme.com", "*.acme.com"])
    assert_type(allowlist.allows(origin), bool)
    assert_type(allowlist.allows("https://acme.com"), bool)
    assert_type(allowlist.match(origin), str | None)
    assert_type(allowlist.patterns, tuple[str, ...])
    assert_type(allowlist.rejected, tuple[RejectedEntry, ...])
    assert_type(allowlist.warnings, tuple[EntryWarning, ...])


def scripting() -> None:
    with HubClient("https://hub.example", "sk_live_acme_x") as hub:
        created = hub.widget_keys.create("Shop", domain_allowlist=["acme.com"], agent_id="agent_7")
        assert_type(created, CreatedWidgetKey)
        assert_type(created.public_key, str)
        assert_type(created.etag, str | None)
        assert_type(hub.widget_keys.get(created.id), VersionedWidgetKey)
        assert_type(hub.widget_keys.update(created.id, agent_id=None, disabled=True), VersionedWidgetKey)
        assert_type(hub.widget_keys.delete(created.id, if_match=created.etag), VersionedWidgetKey | None)
        for key in hub.widget_keys.list():
            assert_type(key, WidgetKey)


async def scripting_with_an_event_loop() -> None:
    async with AsyncHubClient("https://hub.example", "sk_live_acme_x") as hub:
        assert_type(await hub.widget_keys.create("Shop"), CreatedWidgetKey)
        key = await hub.widget_keys.get("id")
        assert_type(await hub.widget_keys.update("id", name="Shop", if_match=key.etag), VersionedWidgetKey)
        assert_type(await hub.widget_keys.delete("id"), VersionedWidgetKey | None)


async def testing() -> None:
    assert_type(gate_for(allow=["https://shop.acme.com"], agent_id="agent_7"), Gatekeeper)
    assert_type(allow_all(), Gatekeeper)
    assert_type(headers("https://shop.acme.com") | query(), dict[str, str])
    clock = FakeClock()
    with FakeHub(row("shop", "shop.acme.com", agent_id="agent_7")) as hub:
        gate = Gatekeeper(HubSource(hub.url, hub.token), clock=clock, wall_clock=clock, sleep=clock.sleep)
        hub.then(HubAnswer(503))
        async with gate:
            await clock.advance(60)
        assert_type(hub.requests[0].headers, dict[str, str])
