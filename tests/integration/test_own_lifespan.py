"""Lifespans of an app's own, by the README's examples."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gatekeeper import Gatekeeper, GatekeeperMiddleware
from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.examples import examples_below
from tests.support.guarded import hub_source
from tests.support.rows import ORIGIN, client_key
from tests.support.starlette_client import TestClient

README = "gatekeeper/web/README.md"
GATE = 'Gatekeeper(HubSource("https://hub.example", "sk_live_acme_gatetoken"))'
HEADERS = {"origin": ORIGIN, "data-client-key": client_key(1)}
MODEL = "https://model.example"
GUARDED, PARENT = examples_below(README, "A lifespan of your own")


def run(code: str, hub: FakeHub, start_timeout: float) -> dict[str, Any]:
    """Run an example with a gate of this hub; return its names."""
    assert code.count(GATE) == 1
    names: dict[str, Any] = {"GATE": Gatekeeper(hub_source(hub.url), start_timeout=start_timeout)}
    exec(code.replace(GATE, "GATE"), names)
    return names


@pytest.mark.parametrize(("code", "path"), [(GUARDED, "/model"), (PARENT, "/widget/model")], ids=["guard", "parent"])
def test_the_gate_has_its_list_and_the_state_reaches_requests(hub: FakeHub, code: str, path: str) -> None:
    names = run(code, hub, start_timeout=30)
    with TestClient(names["app"]) as client:
        assert names["gate"].status.state == "fresh"
        assert client.get(path, headers=HEADERS).json() == MODEL
        assert client.get(path, headers={**HEADERS, "origin": "https://evil.test"}).status_code == 403
    assert not names["gate"].status.is_refreshing
    assert len(hub.fetches) == 1


def test_an_app_in_the_middleware_has_the_same_lifespan(hub: FakeHub) -> None:
    async def model(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.state.model.base_url))

    names = run(PARENT, hub, start_timeout=30)
    app = Starlette(routes=[Route("/model", model)], lifespan=names["lifespan"])
    with TestClient(GatekeeperMiddleware(app, names["gate"])) as client:
        assert names["gate"].status.state == "fresh"
        assert client.get("/model", headers=HEADERS).text == MODEL
    assert not names["gate"].status.is_refreshing


def test_the_check_keeps_an_app_without_a_list_from_starting(hub: FakeHub) -> None:
    hub.always(HubAnswer(503))
    names = run(GUARDED, hub, start_timeout=0.0)
    with pytest.raises(RuntimeError, match="no list of keys"), TestClient(names["app"]):
        pass
    assert not names["gate"].status.is_refreshing
