"""What the script of a refused page can read, in a real browser."""

import socket
from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from gatekeeper import Gatekeeper, GatekeeperMiddleware, HubSource
from tests.integration.conftest import ROW, serving
from tests.support.client_keys import KEY

pytestmark = pytest.mark.browser

ASK = """async ([url, key]) => {
    const response = await fetch(url, {headers: {"data-client-key": key}});
    const problem = await response.json();
    return [response.status, problem.reason, response.headers.get("retry-after"), problem.retry_after];
}"""


def unready() -> Gatekeeper:
    """A gate whose hub refuses every connection."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return Gatekeeper(HubSource(f"http://127.0.0.1:{closed.getsockname()[1]}", "sk_live_acme_x"), start_timeout=0.05)


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        pytest.param(lambda: Gatekeeper.from_rows([ROW]), [403, "origin_not_allowed", None, None], id="refused"),
        pytest.param(unready, [503, "not_ready", "2", 2], id="not ready"),
    ],
)
def test_a_page_reads_why_it_is_refused_and_when_to_ask_again(page: Page, gate: Any, expected: list[Any]) -> None:
    """Retry-After was not exposed, and no origin is echoed in a refusal or in the answer to a preflight."""
    customer = Starlette(routes=[Route("/", lambda _: HTMLResponse("<title>shop</title>"))])
    with serving(GatekeeperMiddleware(Starlette(), gate())) as widget, serving(customer) as shop:
        page.goto(f"http://shop.acme.test:{shop.port}/")
        url = f"http://widgets.test:{widget.port}/config"
        assert page.evaluate(ASK, [url, KEY]) == expected
        page.set_content('<iframe sandbox="allow-scripts" srcdoc="<title>sandboxed</title>"></iframe>')
        (_, sandboxed) = page.frames
        assert page.evaluate("(url) => fetch(url).then((answer) => answer.json()).then((problem) => problem.reason)", url)
        reason = sandboxed.evaluate("(url) => fetch(url).then((answer) => answer.json())", url)["reason"]
        assert reason == ("key_missing" if expected[0] == 403 else "not_ready")
