"""Headless Chromium and a running demo."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from gatekeeper.demo import Demo, running_demo
from tests.needs import chromium

DEADLINE = 15.0  # seconds

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1",
)


# Not for the whole session: playwright runs an event loop in the thread of the tests meanwhile.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(15_000)
    yield page
    page.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext) -> Page:
    return context.new_page()


def until(tab: Page, holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end
        tab.wait_for_timeout(20)


class DemoInThread:
    """A demo in another thread, and its hub."""

    def __init__(self, demo: Demo, portal: BlockingPortal) -> None:
        self.demo = demo
        self._portal = portal

    def update(self, **changes: Any) -> None:
        """Change the page's key at the hub."""

        async def update() -> None:
            await self.demo.hub.widget_keys.update(self.demo.key.id, **changes)

        self._portal.call(update)


@pytest.fixture
def running(browser: Browser) -> Iterator[DemoInThread]:  # noqa: ARG001 - no demo without a browser
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_demo(fixed_ports=False, refresh_interval=0.2)) as demo,
    ):
        yield DemoInThread(demo, portal)
