"""A guarded app behind nginx, whose cache obeys Vary."""

from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from gatekeeper import Gatekeeper, GatekeeperMiddleware, StaticSource, decision_from
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


def test_a_cache_serves_no_page_what_it_holds_for_one_named_otherwise(cached: httpx.Client) -> None:
    """What it holds for an Origin varies by fewer headers than what it holds for a Referer."""
    url = "/?otherwise"
    for named in ("origin", "referer", "origin"):
        for _ in range(2):
            page = PAGE if named == "origin" else f"{PAGE}/"
            assert cached.get(url, headers={"data-client-key": KEY, named: page}).status_code == 200
        for foreign in ({"origin": STRANGE_PAGE}, {"referer": f"{STRANGE_PAGE}/"}, {"referer": f"{OTHER_PAGE}/"}, {}):
            assert cached.get(url, headers={"data-client-key": KEY, **foreign}).status_code == 403, (named, foreign)


def test_nginx_passes_the_key_header_on_but_none_with_an_underscore(cached: httpx.Client) -> None:
    """A key header with an underscore is a ConfigError for this reason."""
    page = {"Origin": PAGE}
    assert cached.get("/", headers={**page, "data-client-key": KEY}).status_code == 200
    refused = cached.get("/", headers={**page, "data_client_key": KEY})
    assert (refused.status_code, refused.json()["reason"]) == (400, "key_missing")


# --- Frames


OWN = "https://widget.test"  # nginx names its upstream as the Host
EMBED = {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"}


class Framed(NamedTuple):
    """A service with frames behind nginx.

    Attributes:
        client: its client.
        passed: seconds since the gate began; the last one counts.
    """

    client: httpx.Client
    passed: list[float]

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Make a request; "_" in the name of a header stands for a hyphen."""
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def document(self, key: str = KEY, **headers: str) -> httpx.Response:
        """Load a frame's document."""
        return self.client.get("/embed", params={"client_key": key}, headers={**EMBED, **headers})

    def grant(self, key: str = KEY, page: str = PAGE) -> str:
        """A grant, out of a document."""
        return self.document(key, referer=f"{page}/").text


async def embed(request: Request) -> HTMLResponse:
    """Serve a document that the app lets caches store."""
    return HTMLResponse(decision_from(request).grant, headers={"Cache-Control": "public, max-age=60", "Vary": "Accept"})


@pytest.fixture
def framed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Framed]:
    """Run nginx with an empty cache before a service with frames, whose app lets caches store everything."""
    program, passed = nginx(), [0.0]
    app = Starlette(routes=[Route("/embed", embed), Route("/chat", tell_agent)])
    gate = Gatekeeper(
        StaticSource([ROW, OTHER_ROW]),
        grant_secrets=["0123456789abcdef"],
        clock=lambda: passed[-1],
        wall_clock=lambda: passed[-1],
    )
    guarded = GatekeeperMiddleware(app, gate, frames=("/embed",), grant_path="/grant", own_origins=(OWN,))
    with (
        serving(guarded) as served,
        caching_nginx(program, tmp_path_factory.mktemp("caches") / "nginx", f"http://127.0.0.1:{served.port}") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=DEADLINE) as client,
    ):
        yield Framed(client, passed)


def test_no_cache_stores_a_frame_document(framed: Framed) -> None:
    """It holds a grant, and the policy for the pages of its key."""
    for number in range(2):
        framed.passed.append(float(number))
        known, unknown = framed.document(referer=f"{PAGE}/"), framed.document()
        refused = framed.document(referer=f"{STRANGE_PAGE}/")
        assert (known.status_code, unknown.status_code, refused.status_code) == (200, 200, 403)
        assert known.text != unknown.text
        for answer in (known, unknown, refused):
            assert (answer.headers["x-cache"], answer.headers["cache-control"]) == ("MISS", "no-store")
        fetched = framed.client.get("/embed", params={"client_key": KEY}, headers={"Sec-Fetch-Dest": "empty"})
        assert "not_framed" in fetched.text


def test_no_cache_stores_a_grant(framed: Framed) -> None:
    given = []
    for number in range(2):
        framed.passed.append(float(number))
        answer = framed.get("/grant", data_client_key=KEY, origin=PAGE)
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "MISS")
        given.append(answer.json()["grant"])
        for key, page in ((KEY, STRANGE_PAGE), (KEY, OTHER_PAGE), (OTHER_KEY, PAGE), (KEY, OWN)):
            refused = framed.get("/grant", data_client_key=key, origin=page)
            assert (refused.json()["reason"], refused.headers["x-cache"]) == ("origin_not_allowed", "MISS")
    assert len(set(given)) == 2


def answers_no_other_site(framed: Framed, url: str, grant: str) -> None:
    for foreign in ({"origin": STRANGE_PAGE}, {"origin": PAGE}, {"sec_fetch_site": "cross-site"}, {"origin": "null"}):
        answer = framed.get(url, data_client_grant=grant, **foreign)
        assert (answer.json()["reason"], answer.headers["x-cache"]) == ("grant_foreign", "MISS")
    assert framed.get(url, origin=OWN).json()["reason"] == "key_missing"
    assert framed.get(url, sec_fetch_site="same-origin").json()["reason"] == "key_missing"


def test_a_cache_serves_no_other_site_the_answer_to_a_grant(framed: Framed) -> None:
    """The app lets caches store it, and the same frame is served from the cache."""
    grant, other = framed.grant(), framed.grant(OTHER_KEY, OTHER_PAGE)
    for own in ({"origin": OWN}, {"sec_fetch_site": "same-origin"}):
        url = f"/chat?{'&'.join(own)}"  # nginx keeps only one of two answers to a URL that vary by other headers
        for state in ("MISS", "HIT"):
            answer = framed.get(url, data_client_grant=grant, **own)
            assert (answer.text.split()[0], answer.headers["x-cache"]) == ("agent_7", state)
            answer = framed.get(url, data_client_grant=other, **own)
            assert (answer.text.split()[0], answer.headers["x-cache"]) == ("agent_8", state)
        answers_no_other_site(framed, url, grant)


def test_a_cache_serves_no_other_site_what_is_at_the_url_of_a_grant(framed: Framed) -> None:
    """An EventSource and an image send the grant in the URL, which a foreign page can send as well."""
    url = f"/chat?client_grant={framed.grant()}"
    for state in ("MISS", "HIT"):
        assert framed.get(url, sec_fetch_site="same-origin").headers["x-cache"] == state
    for foreign in ({"origin": STRANGE_PAGE}, {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}):
        for _ in range(2):
            answer = framed.get(url, **foreign)
            assert (answer.json()["reason"], answer.headers["x-cache"]) == ("grant_foreign", "MISS")


def test_no_cache_stores_an_answer_that_carries_a_new_grant(framed: Framed) -> None:
    grant = framed.grant()
    framed.passed.append(450.0)
    for _ in range(2):
        answer = framed.get("/chat", data_client_grant=grant, origin=OWN)
        assert (answer.headers["x-cache"], answer.headers["cache-control"]) == ("MISS", "no-store")
        assert answer.headers["data-client-grant"] not in ("", grant)
    framed.passed.append(900.0)
    assert framed.get("/chat", data_client_grant=grant, origin=OWN).json()["reason"] == "grant_expired"
