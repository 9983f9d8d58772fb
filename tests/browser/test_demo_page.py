"""The demo's page in a real browser."""

import pytest
from playwright.sync_api import Page, expect

from .conftest import DemoInThread

pytestmark = pytest.mark.browser

HOST = "#gatekeeper-widget"


def shows(page: Page, state: str, reason: str = "") -> None:
    host = page.locator(HOST)
    expect(host).to_have_attribute("data-state", state, timeout=15_000)
    expect(host).to_have_attribute("data-reason", reason, timeout=15_000)


def test_a_page_on_an_allowed_host_shows_the_widget_with_the_pinned_agent(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.allowed_url)
    shows(page, "ready")
    expect(page.locator(f"{HOST} .agent")).to_contain_text("Robin")
    expect(page.locator(f"{HOST} .greeting")).to_contain_text("tent")
    expect(page.locator(f"{HOST} .live")).to_have_attribute("data-live", "on")


def test_a_visitor_of_an_allowed_page_chats_through_a_preflighted_post(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.allowed_url)
    shows(page, "ready")
    page.locator(f"{HOST} .input").fill("a lamp for two")
    page.locator(f"{HOST} .send").click()
    expect(page.locator(f"{HOST} .messages .theirs").last).to_contain_text("a lamp for two")


def test_the_page_on_another_host_shows_the_reason_and_the_entry_to_add(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.refused_url)
    shows(page, "refused", "origin_not_allowed")
    detail = page.locator(f"{HOST} .refusal-detail")
    expect(detail).to_be_visible()
    expect(detail).to_contain_text(running.demo.refused_url)
    expect(detail).to_contain_text("add '127.0.0.1:*' to the key's allowed domains")
    expect(page.locator(f"{HOST} .refusal-reason")).to_contain_text("origin_not_allowed")


def test_the_page_of_another_account_shows_its_own_agent(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.globex.url)
    shows(page, "ready")
    expect(page.locator(f"{HOST} .agent")).to_contain_text("Kim")
    running.update(disabled=True)
    page.goto(running.demo.allowed_url)
    shows(page, "refused", "key_disabled")
    page.goto(running.demo.globex.url)
    shows(page, "ready")


def test_the_console_of_the_page_on_another_host_says_why(page: Page, running: DemoInThread) -> None:
    with page.expect_console_message(lambda message: message.text.startswith("gatekeeper: ")) as said:
        page.goto(running.demo.refused_url)
    assert said.value.text.startswith(f"gatekeeper: {running.demo.refused_url} is not among the allowed domains")


def test_an_open_page_sees_its_key_disabled_and_enabled_again_at_the_hub(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.allowed_url)
    shows(page, "ready")
    running.update(disabled=True)
    shows(page, "refused", "key_disabled")
    running.update(disabled=False)
    shows(page, "ready")


def test_the_next_call_of_an_open_page_is_refused_once_its_key_is_disabled(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.allowed_url)
    shows(page, "ready")
    running.update(disabled=True)
    url = f"{running.demo.widget_url}/api/v1/widget/config?client_key={running.demo.key.public_key}"
    answer = page.evaluate(
        """async (url) => {
            for (;;) {
                const response = await fetch(url);
                if (!response.ok) return [response.status, (await response.json()).reason];
                await new Promise((resume) => setTimeout(resume, 20));
            }
        }""",
        url,
    )
    assert answer == [403, "key_disabled"]


def test_an_open_page_whose_host_joins_the_allowlist_shows_the_widget(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.refused_url)
    shows(page, "refused", "origin_not_allowed")
    running.update(domain_allowlist=["localhost:*", "127.0.0.1:*"])
    shows(page, "ready")
    running.update(domain_allowlist=["localhost:*"])
    shows(page, "refused", "origin_not_allowed")


def test_a_page_without_a_key_in_its_script_tag_says_so(page: Page, running: DemoInThread) -> None:
    page.goto(f"{running.demo.allowed_url}/a-page-without-a-widget")
    page.add_script_tag(url=f"{running.demo.widget_url}/widget.js")
    shows(page, "refused", "key_missing")


# In a frame


def test_the_switch_puts_the_widget_into_a_frame(page: Page, running: DemoInThread) -> None:
    page.goto(running.demo.allowed_url)
    shows(page, "ready")
    page.get_by_role("link", name="Frame").click()
    expect(page.locator(HOST)).to_have_count(0)
    frame = page.frame_locator("iframe.gatekeeper-widget")
    expect(frame.locator(HOST)).to_have_attribute("data-state", "ready", timeout=15_000)
    expect(frame.locator(f"{HOST} .live")).to_have_attribute("data-live", "on")
    frame.locator(f"{HOST} .input").fill("a lamp for two")
    frame.locator(f"{HOST} .send").click()
    expect(frame.locator(f"{HOST} .messages .theirs").last).to_contain_text("a lamp for two")
    page.get_by_role("link", name="Script").click()
    shows(page, "ready")


def test_the_frame_on_another_host_says_why_it_is_refused(page: Page, running: DemoInThread) -> None:
    page.goto(f"{running.demo.allowed_url}/?mode=frame")
    page.get_by_role("link", name="A copy on another host").click()
    frame = page.frame_locator("iframe.gatekeeper-widget")
    expect(frame.locator("code")).to_have_text("origin_not_allowed")
    expect(frame.locator("body")).to_contain_text("add '127.0.0.1:*' to the key's allowed domains")


def test_an_open_frame_sees_its_key_disabled_and_enabled_again(page: Page, running: DemoInThread) -> None:
    page.goto(f"{running.demo.allowed_url}/?mode=frame")
    host = page.frame_locator("iframe.gatekeeper-widget").locator(HOST)
    expect(host).to_have_attribute("data-state", "ready", timeout=15_000)
    running.update(disabled=True)
    expect(host).to_have_attribute("data-reason", "key_disabled", timeout=15_000)
    running.update(disabled=False)
    expect(host).to_have_attribute("data-state", "ready", timeout=15_000)
