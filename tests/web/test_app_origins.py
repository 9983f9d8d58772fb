"""Requests of apps and extensions, with the bytes that each platform sends as Origin."""

from typing import Any

import pytest

from gatekeeper import CorsPolicy, Gatekeeper, GatekeeperMiddleware, StaticSource, decision_from
from tests.support.client_keys import KEY
from tests.web.test_asgi import ASKS_METHOD, KEYED, Answer, App, ask, headers, shake_hands

HOST = "widget.test"
QUERY = f"client_key={KEY}"
PLATFORMS = [
    pytest.param(b"capacitor://app.acme.com", "capacitor://app.acme.com", id="Capacitor on iOS"),
    pytest.param(b"https://app.acme.com", "https://app.acme.com", id="Capacitor and Cordova on Android"),
    pytest.param(b"capacitor://localhost", "capacitor://localhost", id="Capacitor on iOS by default"),
    pytest.param(b"https://localhost", "https://localhost", id="Capacitor and Cordova on Android by default"),
    pytest.param(b"app://localhost", "app://localhost/", id="Cordova on iOS"),
    pytest.param(b"ionic://localhost", "Ionic://localhost", id="Cordova with Ionic's web view on iOS"),
    pytest.param(b"tauri://localhost", "tauri://localhost", id="Tauri on macOS, iOS and Linux"),
    pytest.param(b"http://tauri.localhost", "tauri.localhost", id="Tauri on Windows and Android"),
    pytest.param(b"app://acme", "app://acme", id="Electron"),
    pytest.param(
        b"chrome-extension://ffgcieipdeklmoaniehdhbegcffklkhh",
        "chrome-extension://ffgcieipdeklmoaniehdhbegcffklkhh",
        id="Chrome",
    ),
    pytest.param(
        b"moz-extension://77250cbb-8310-4fb3-826e-1a9e44c66dbc",
        "moz-extension://77250cbb-8310-4fb3-826e-1a9e44c66dbc",
        id="Firefox",
    ),
    pytest.param(
        b"safari-web-extension://dcea6524-ab56-4469-895f-d4f4e84f139e",
        "safari-web-extension://DCEA6524-AB56-4469-895F-D4F4E84F139E/",
        id="Safari, as it shows the id",
    ),
    pytest.param(
        b"vscode-webview://10kbrrqvl8foiqadlf2vq1l9snpjtar16g1350ud9j16se4j4bj9",
        "vscode-webview://10kbrrqvl8foiqadlf2vq1l9snpjtar16g1350ud9j16se4j4bj9",
        id="Visual Studio Code",
    ),
]


def guard(*entries: str, app: App | None = None, https_only: bool = False, **options: Any) -> GatekeeperMiddleware:
    """Guard an app with a key that has these entries."""
    rows = [{"id": "1", "last8": KEY[-8:], "domain_allowlist": list(entries)}]
    gate = Gatekeeper(StaticSource(rows), grant_secrets=["0123456789abcdef"], https_only=https_only)
    return GatekeeperMiddleware(app or App(), gate, **options)


def send(guarded: GatekeeperMiddleware, origin: bytes, **parts: Any) -> Answer:
    """Make a request with the key, as a page's script does."""
    return ask(guarded, [*KEYED, *headers(("origin", origin))], **parts)


@pytest.mark.parametrize(("origin", "entry"), PLATFORMS)
def test_a_listed_app_is_answered_by_name(origin: bytes, entry: str) -> None:
    app = App()
    answer = send(guard(entry, "shop.acme.com", app=app), origin)
    assert (answer.status, answer.body, answer.value("access-control-allow-origin")) == (200, App.BODY, origin)
    decision = decision_from(app.scopes[-1])
    assert (decision.origin, decision.matched, decision.via) == (origin.decode(), entry, "origin")


@pytest.mark.parametrize(("origin", "entry"), PLATFORMS)
def test_an_app_that_is_not_listed_is_told_a_working_entry(origin: bytes, entry: str) -> None:
    others = [platform.values[1] for platform in PLATFORMS if platform.values[1] != entry]
    refused = send(guard(*map(str, others)), origin)
    assert (refused.status, refused.reason) == (403, "origin_not_allowed")
    assert refused.value("access-control-allow-origin") == b"*"
    detail = refused.problem["detail"]
    suggested = detail.partition("add '")[2].partition("'")[0]
    assert send(guard(suggested), origin).status == 200


@pytest.mark.parametrize(("origin", "entry"), PLATFORMS)
def test_a_listed_app_opens_a_websocket(origin: bytes, entry: str) -> None:
    for listed, accepted in ((entry, True), ("shop.acme.com", False)):
        first, *_ = shake_hands(guard(listed), headers(("origin", origin)), extension=False, query=QUERY)
        assert (first["type"] == "websocket.accept") is accepted


@pytest.mark.parametrize(("origin", "entry"), PLATFORMS)
def test_a_strict_preflight_answers_a_listed_app_by_name(origin: bytes, entry: str) -> None:
    """It carries no key, so any key may list the app."""
    asked = [*headers(("origin", origin)), *ASKS_METHOD]
    cors = CorsPolicy(preflight="strict")
    answer = ask(guard(entry, cors=cors), asked, method="OPTIONS")
    assert (answer.status, answer.value("access-control-allow-origin")) == (204, origin)
    assert ask(guard("shop.acme.com", cors=cors), asked, method="OPTIONS").status == 403


def test_a_gate_for_https_with_credentials_answers_an_app() -> None:
    cors = CorsPolicy(allow_credentials=True, preflight="strict")
    origin = b"chrome-extension://ffgcieipdeklmoaniehdhbegcffklkhh"
    answer = send(guard(origin.decode(), https_only=True, cors=cors), origin)
    assert (answer.status, answer.value("access-control-allow-origin")) == (200, origin)
    assert answer.value("access-control-allow-credentials") == b"true"


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (b"null", "origin_null"),
        (b"file://", "origin_malformed"),
        (b"file:///android_asset/www/index.html", "origin_malformed"),
        (b"capacitor://App.Acme.com", "origin_malformed"),
        (b"Capacitor://app.acme.com", "origin_malformed"),
        (b"capacitor://app.acme.com/", "origin_malformed"),
        (b"capacitor://user@app.acme.com", "origin_malformed"),
        (b"capacitor://*", "origin_malformed"),
        (b"capacitor://", "origin_malformed"),
        (b"capacitor://app.acme.com:*", "origin_malformed"),
        (b"capacitor://app.acme.com\xff", "origin_malformed"),
        (b"capacitor://" + b"a." * 200 + b"com", "origin_malformed"),
        (b"capacitor://app.acme.com.", "origin_not_allowed"),
        (b"capacitor://app.acme.com:443", "origin_not_allowed"),
        (b"capacitor://x.app.acme.com", "origin_not_allowed"),
        (b"ionic://app.acme.com", "origin_not_allowed"),
        (b"https://app.acme.com", "origin_not_allowed"),
    ],
)
def test_an_origin_near_a_listed_app_is_refused(origin: bytes, reason: str) -> None:
    app = App()
    answer = send(guard("capacitor://app.acme.com", app=app), origin)
    assert (answer.reason, app.scopes) == (reason, [])


def test_native_code_without_an_origin_is_refused() -> None:
    """So is the GET of an extension that has the host permission of the service, which sends no Origin, either."""
    assert ask(guard("capacitor://app.acme.com"), KEYED).reason == "origin_missing"


# --- Frames


def test_the_document_of_a_frame_in_an_app_is_for_that_app() -> None:
    """Web views and extensions send no Referer, so the browser enforces the policy."""
    entries = (
        "capacitor://app.acme.com",
        "chrome-extension://ffgcieipdeklmoaniehdhbegcffklkhh",
        "app://my_app",
        "a.test:8443",
    )
    guarded = guard(*entries, frames=("/embed",))
    answer = ask(guarded, headers(("host", HOST), ("sec-fetch-dest", "iframe")), path="/embed", query=QUERY)
    assert answer.status == 200
    assert answer.value("content-security-policy") == (
        b"frame-ancestors capacitor://app.acme.com chrome-extension://ffgcieipdeklmoaniehdhbegcffklkhh"
        b" https://a.test:8443 http://a.test:8443"
    )


def test_an_app_gets_a_grant_for_its_frame_by_its_origin() -> None:
    app = App()
    guarded = guard("capacitor://app.acme.com", app=app, frames=("/embed",), grant_path="/grant")
    origin = b"capacitor://app.acme.com"
    own = headers(("host", HOST))
    answer = ask(guarded, [*own, *KEYED, *headers(("origin", origin))], path="/grant")
    assert (answer.status, answer.value("access-control-allow-origin")) == (200, origin)
    grant = answer.problem["grant"]
    in_frame = headers(("host", HOST), ("origin", f"https://{HOST}"), ("data-client-grant", grant))
    assert ask(guarded, in_frame).status == 200
    decision = decision_from(app.scopes[-1])
    assert (decision.origin, decision.matched, decision.via) == (origin.decode(), origin.decode(), "grant")
    assert ask(guard("ionic://app.acme.com", frames=("/embed",)), in_frame).reason == "origin_not_allowed"
