"""A guarded app behind nginx, whose cache obeys Vary."""

from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gatekeeper import Gatekeeper, GatekeeperMiddleware, decision_from
from tests.integration.conftest import DEADLINE, PAGE, ROW, STRANGE_PAGE, names, serving
from tests.needs import nginx
from tests.support.client_keys import KEY, OTHER_KEY
from tests.support.nginx import caching_nginx

pytestmark = pytest.mark.process

OTHER_PAGE = "https://blog.acme.com"
OTHER_ROW = {**ROW, "id": "2", "last8": OTHER_KEY[-8:], "agent_id": "agent_8", "domain_allowlist": [OTHER_PAGE]}


async def tell_agent(request: Request) -> PlainTextResponse:
    """Answer with the agent of the key, in so many words that it is compressed."""
    text = f"{decision_from(request).agent_id} ".ljust(1_000, ".")
    return PlainTextResponse(text, headers={"Cache-Control": "public, max-age=60"})


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Run nginx with a cache before an app that sets its own Vary header."""
    program = nginx()
    app = Starlette(routes=[Route("/", tell_agent)], middleware=[Middleware(GZipMiddleware)])
    guarded = GatekeeperMiddleware(app, Gatekeeper.from_rows([ROW, OTHER_ROW]))
    with (
        serving(guarded) as served,
        caching_nginx(program, tmp_path_factory.mktemp("caches") / "nginx", f"http://127.0.0.1:{served.port}") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=DEADLINE) as client,
    ):
        yield client


def ask(client: httpx.Client, key: str, page: str, coding: str) -> tuple[int, str, str]:
    """The status, the agent or the reason, and whether the cache had the answer."""
    headers = {"Data-Client-Key": key, "Origin": page, "Accept-Encoding": coding}
    answer = client.get("/", headers=headers)
    said = answer.text.split()[0] if answer.status_code == 200 else answer.json()["reason"]
    if answer.status_code == 200:
        assert answer.headers["access-control-allow-origin"] == page
        (line,) = [value for name, value in answer.headers.multi_items() if name == "vary"]
        assert names(line) == {"origin", "data-client-key", "accept-encoding"}
    return answer.status_code, said, answer.headers["x-cache"]


def test_a_cache_serves_no_page_the_answer_of_another_one(cached: httpx.Client) -> None:
    """GZipMiddleware inside the gate adds a Vary line of its own, and nginx 1.22 reads only the last one.

    So nginx answered another customer's page, and a page that is not allowed, with what it had cached for the first.
    """
    for coding in ("gzip", "identity"):
        assert ask(cached, KEY, PAGE, coding) == (200, "agent_7", "MISS")
        assert ask(cached, KEY, PAGE, coding) == (200, "agent_7", "HIT")
        assert ask(cached, OTHER_KEY, OTHER_PAGE, coding) == (200, "agent_8", "MISS")
        assert ask(cached, OTHER_KEY, OTHER_PAGE, coding) == (200, "agent_8", "HIT")
        for _ in range(2):
            assert ask(cached, KEY, STRANGE_PAGE, coding) == (403, "origin_not_allowed", "MISS")
            assert ask(cached, KEY, OTHER_PAGE, coding) == (403, "origin_not_allowed", "MISS")
        assert ask(cached, KEY, PAGE, coding)[2] == "HIT"


def test_nginx_passes_the_key_header_on_but_none_with_an_underscore(cached: httpx.Client) -> None:
    """A key header with an underscore is a ConfigError for this reason."""
    page = {"Origin": PAGE}
    assert cached.get("/", headers={**page, "data-client-key": KEY}).status_code == 200
    refused = cached.get("/", headers={**page, "data_client_key": KEY})
    assert (refused.status_code, refused.json()["reason"]) == (400, "key_missing")
