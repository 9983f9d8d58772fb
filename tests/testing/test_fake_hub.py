"""A hub for tests, as a gate sees it."""

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import TaskGroup

from gatekeeper import AsyncHubClient, ConfigError, Gatekeeper, HubClient, HubSource, KeyUsage, Reason
from gatekeeper.testing import GARBAGE, HANG_UP, FakeClock, FakeHub, HubAnswer, client_key, json_answer, row
from gatekeeper.testing.fake_hub import PATH
from tests.support.starting import wait_until

PAGE = "https://shop.acme.com"
SHOP = row("shop", "shop.acme.com")
BLOG = row("blog", "blog.acme.com")

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def gate_of(hub: FakeHub, **options: Any) -> AsyncIterator[Gatekeeper]:
    async with Gatekeeper(HubSource(hub.url, hub.token), **{"refresh_interval": 3600, **options}) as gate:
        yield gate


def reason(gate: Gatekeeper, name: str = "shop") -> Reason:
    return gate.decide(client_key(name), PAGE).reason


async def test_a_gate_reads_its_rows() -> None:
    with FakeHub(SHOP, BLOG) as hub:
        async with gate_of(hub) as gate:
            assert reason(gate) is Reason.ALLOWED
            assert reason(gate, "blog") is Reason.ORIGIN_NOT_ALLOWED
            assert gate.status.keys == 2
        (request,) = hub.fetches
        assert (request.method, request.target, request.headers["authorization"]) == ("GET", PATH, f"Bearer {hub.token}")


async def test_it_has_no_rows_by_default() -> None:
    with FakeHub() as hub:
        async with gate_of(hub) as gate:
            assert (gate.status.state, gate.status.keys) == ("fresh", 0)


async def test_other_rows_are_listed_from_then_on() -> None:
    with FakeHub(SHOP) as hub:
        async with gate_of(hub) as gate:
            hub.lists(row("shop", "blog.acme.com"))
            assert (await gate.refresh()).outcome == "changed"
            assert reason(gate) is Reason.ORIGIN_NOT_ALLOWED
        assert hub.rows == [row("shop", "blog.acme.com")]


async def test_a_revoked_key_is_refused_and_can_be_listed_again() -> None:
    with FakeHub(SHOP, BLOG) as hub:
        async with gate_of(hub) as gate:
            hub.revoke("shop")
            await gate.refresh()
            assert (reason(gate), reason(gate, "blog")) == (Reason.KEY_DISABLED, Reason.ORIGIN_NOT_ALLOWED)
            lag = datetime.now(UTC) - datetime.fromisoformat(hub.rows[0]["disabled_at"])
            assert abs(lag.total_seconds()) < 60
            hub.lists(SHOP)
            await gate.refresh()
            assert reason(gate) is Reason.ALLOWED


async def test_a_revocation_is_seen_though_the_list_had_an_entity_tag() -> None:
    with FakeHub() as hub:
        hub.lists(SHOP, etag='"1"')
        async with gate_of(hub) as gate:
            assert (await gate.refresh()).outcome == "unchanged"
            hub.revoke("shop")
            await gate.refresh()
            assert reason(gate) is Reason.KEY_DISABLED


async def test_a_revocation_does_not_end_an_outage() -> None:
    with FakeHub(SHOP) as hub:
        async with gate_of(hub) as gate:
            hub.always(HubAnswer(503))
            hub.revoke("shop")
            assert (await gate.refresh()).outcome == "failed"
            assert reason(gate) is Reason.ALLOWED
            hub.lists(*hub.rows)
            await gate.refresh()
            assert reason(gate) is Reason.KEY_DISABLED


def test_only_a_listed_key_can_be_revoked() -> None:
    with pytest.raises(ConfigError, match=r"key_id is 'shop': expected the id of a listed row, one of \['blog', None\]"):
        FakeHub(BLOG, "garbage").revoke("shop")


def test_rows_that_json_cannot_hold_are_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        FakeHub(object())


async def test_a_known_list_is_not_sent_again() -> None:
    with FakeHub() as hub:
        hub.lists(SHOP, etag='"1"')
        async with AsyncHubClient(hub.url, hub.token) as client:
            async with client.widget_keys.fetch() as listing:
                assert listing is not None
                assert listing.validator == '"1"'
            async with client.widget_keys.fetch('"1"') as listing:
                assert listing is None
            async with client.widget_keys.fetch('"2"') as listing:
                assert listing is not None


def test_a_live_hub_names_the_accounts_of_removed_keys() -> None:
    ours, theirs = row("shop", account="acme"), row("blog", account="globex")
    with FakeHub(ours, theirs, live=True) as hub:
        tag = httpx.get(f"{hub.url}{PATH}", trust_env=False).headers["etag"]
        hub.lists(ours)
        headers = {"if-none-match": tag, "a-im": "rows"}
        answer = httpx.get(f"{hub.url}{PATH}", headers=headers, trust_env=False)
        removal = {"id": "blog", "last8": theirs["last8"], "account": "globex", "removed": True}
        assert (answer.status_code, answer.json()) == (226, [removal])


async def test_a_gate_reads_the_rows_of_all_accounts() -> None:
    ours, theirs = row("shop", "shop.acme.com", account="acme"), row("shop-2", "shop.acme.com", account="globex")
    with FakeHub(ours, live=True) as hub:
        async with Gatekeeper(HubSource(hub.url, hub.all_accounts_token)) as gate:
            for rows, reasons in [
                ([ours], (Reason.ALLOWED, Reason.KEY_UNKNOWN)),
                ([theirs], (Reason.KEY_UNKNOWN, Reason.ALLOWED)),
                ([ours, theirs], (Reason.ALLOWED, Reason.ALLOWED)),
            ]:
                hub.lists(*rows)
                await gate.refresh()
                keys = [client_key("shop", account="acme"), client_key("shop-2", account="globex")]
                assert tuple(gate.decide(key, PAGE).reason for key in keys) == reasons


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HubAnswer(503), "answered 503"),
        (json_answer({"detail": "slow down"}, 429, retry_after="7"), "slow down"),
        (HANG_UP, "disconnected"),
        (GARBAGE, "SSH-2.0"),
        (HubAnswer(200, b'[{"id":', {"content-length": "1000"}, hang_up=True), "received 7 bytes, expected 1000"),
        (json_answer("not a list"), "array"),
    ],
)
async def test_faults_come_once_each_and_then_the_list_again(answer: HubAnswer, error: str) -> None:
    with FakeHub(SHOP) as hub:
        async with gate_of(hub) as gate:
            hub.then(answer)
            report = await gate.refresh()
            assert report.outcome == "failed"
            assert error in str(report.error)
            assert (await gate.refresh()).outcome == "unchanged"


async def test_a_fault_lasts_until_rows_are_listed() -> None:
    with FakeHub(SHOP) as hub:
        async with gate_of(hub) as gate:
            hub.always(HANG_UP)
            assert [(await gate.refresh()).outcome for _ in range(3)] == ["failed"] * 3
            hub.lists(*hub.rows)
            assert (await gate.refresh()).outcome == "unchanged"


def test_an_answer_may_depend_on_its_request() -> None:
    with FakeHub() as hub, httpx.Client(base_url=hub.url, trust_env=False) as http:
        hub.always(lambda request: json_answer([request.method, request.target, request.json], 201))
        answer = http.put("/a?b=c", json={"d": 1})
        assert (answer.status_code, answer.json()) == (201, ["PUT", "/a?b=c", {"d": 1}])


async def test_answers_are_held_until_their_release() -> None:
    with FakeHub(SHOP) as hub:
        async with gate_of(hub, start_timeout=0) as gate:
            with hub.held() as hold:
                hub.revoke("shop")
                async with anyio.create_task_group() as group:
                    group.start_soon(gate.refresh)
                    await hub.asked(len(hub.requests) + 1)
                    assert reason(gate) is not Reason.KEY_DISABLED
                    hold.release()
            assert reason(gate) is Reason.KEY_DISABLED


async def test_one_answer_can_be_held() -> None:
    with FakeHub(SHOP) as hub:
        async with gate_of(hub) as gate:
            hold = hub.hold()
            hub.then(HubAnswer(503, hold=hold))
            async with anyio.create_task_group() as group:
                group.start_soon(gate.refresh)
                await hub.asked(2)
                assert gate.status.last_error is None
                hold.release()
            assert gate.status.last_error is not None


async def test_bytes_can_be_sent_one_by_one() -> None:
    with FakeHub() as hub:
        hub.then(HubAnswer(200, b"[]", drip=0.001))
        async with gate_of(hub) as gate:
            assert gate.status.state == "fresh"


@pytest.mark.parametrize("report", ["usage", "refused"])
def test_it_takes_the_reports_of_gates(report: str) -> None:
    with FakeHub(SHOP) as hub, httpx.Client(base_url=hub.url, trust_env=False) as http:
        assert http.post(f"{PATH}/{report}", json=[]).status_code == 204
        assert [request.json for request in hub.requests] == [[]]
        assert http.get(f"{PATH}").json() == [SHOP]


def test_a_client_reports_usage_to_it() -> None:
    with FakeHub() as hub, HubClient(hub.url, hub.token) as client:
        client.widget_keys.report_usage({"shop": KeyUsage(3, datetime.now(UTC))})
        assert hub.requests[0].json["shop"]["count"] == 3
        assert hub.fetches == []


def test_a_wait_for_requests_that_do_not_come_ends() -> None:
    with FakeHub(patience=0.01) as hub, pytest.raises(TimeoutError, match="there were 0 requests"):
        hub.wait_for_requests(1)


def test_nothing_listens_once_it_is_left() -> None:
    with FakeHub(SHOP) as hub:
        url = httpx.URL(hub.url)
        with socket.create_connection((url.host, url.port or 0), timeout=15):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url.host, url.port or 0), timeout=15)


def test_an_address_that_is_taken_is_an_error_and_leaves_no_thread() -> None:
    with FakeHub() as hub:
        url = httpx.URL(hub.url)
        threads = threading.active_count()
        with pytest.raises(OSError, match="in use"), FakeHub(address=(url.host, url.port or 0)):
            pass
        assert threading.active_count() == threads


# A live hub


def ask(hub: FakeHub, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return httpx.get(f"{hub.url}{PATH}", headers=named, trust_env=False, timeout=15)


def etag_of(hub: FakeHub) -> str:
    return ask(hub).headers["etag"]


def test_a_live_hub_sends_what_has_changed_since_a_list() -> None:
    with FakeHub(SHOP, BLOG, live=True) as hub:
        base = etag_of(hub)
        assert ask(hub, if_none_match=base, a_im="rows").status_code == 304
        changed = row("blog", "news.acme.com")
        hub.lists(changed)
        answer = ask(hub, if_none_match=base, a_im="rows")
        assert (answer.status_code, answer.headers["im"], answer.headers["delta-base"]) == (226, "rows", base)
        assert answer.headers["etag"] == etag_of(hub) != base
        assert answer.json() == [changed, {"id": "shop", "last8": SHOP["last8"], "removed": True}]


def test_a_delta_spans_all_lists_since_its_base() -> None:
    with FakeHub(SHOP, live=True) as hub:
        base = etag_of(hub)
        hub.lists(SHOP, BLOG)
        between = etag_of(hub)
        hub.lists(SHOP, BLOG, "garbage")
        hub.revoke("blog")
        assert ask(hub, if_none_match=base, a_im="rows").json() == [hub.rows[1], "garbage"]
        assert ask(hub, if_none_match=between, a_im="rows").json() == [hub.rows[1], "garbage"]
        both = ask(hub, if_none_match=f'"none", {base}, {between.removeprefix("W/")}', a_im="rows")
        assert both.headers["delta-base"] == between.removeprefix("W/")


def test_a_changed_suffix_is_a_removed_row_and_a_new_one() -> None:
    with FakeHub(SHOP, live=True) as hub:
        base, moved = etag_of(hub), {**SHOP, "last8": "Zb3Zb3Zb"}
        hub.lists(moved)
        removed = {"id": "shop", "last8": SHOP["last8"], "removed": True}
        assert ask(hub, if_none_match=base, a_im="rows").json() == [moved, removed]


@pytest.mark.parametrize("headers", [{}, {"a_im": "vcdiff"}, {"a_im": "rows", "if_none_match": '"another"'}])
def test_a_live_hub_sends_the_whole_list_where_no_delta_is_possible(headers: dict[str, str]) -> None:
    with FakeHub(SHOP, live=True) as hub:
        base = etag_of(hub)
        hub.lists(BLOG)
        answer = ask(hub, **{"if_none_match": base, **headers})
        assert (answer.status_code, answer.json()) == (200, [BLOG])


def test_a_restored_hub_knows_none_of_its_lists() -> None:
    with FakeHub(SHOP, live=True) as hub:
        base = etag_of(hub)
        hub.restores(SHOP)
        answer = ask(hub, if_none_match=base, a_im="rows", prefer="wait=10")
        assert (answer.status_code, answer.json()) == (200, [SHOP])
        assert answer.headers["etag"] != base


def test_the_entity_tag_of_a_live_list_moves_with_its_rows_only() -> None:
    with FakeHub(SHOP, live=True) as hub:
        base = etag_of(hub)
        hub.lists(SHOP)
        assert etag_of(hub) == base
        hub.lists(SHOP, etag='"mine"')
        assert etag_of(hub) == '"mine"'
        assert ask(hub, if_none_match=base, a_im="rows").json() == []


async def ask_later(group: TaskGroup, hub: FakeHub, **headers: str) -> list[httpx.Response]:
    """Ask, and return where the answer will be once the hub holds the request."""
    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await anyio.to_thread.run_sync(partial(ask, hub, **headers)))

    group.start_soon(wait)
    await hub.waits()
    return answers


async def test_a_live_hub_answers_as_soon_as_a_key_is_revoked() -> None:
    with FakeHub(SHOP, live=True) as hub:
        base = etag_of(hub)
        async with anyio.create_task_group() as group:
            answers = await ask_later(group, hub, if_none_match=base, a_im="rows", prefer="wait=60")
            hub.revoke("shop")
        assert (answers[0].status_code, answers[0].headers["preference-applied"]) == (226, "wait=60")
        assert (answers[0].json(), hub.waiting) == (hub.rows, 0)


async def test_a_wait_ends_by_the_clock_of_the_hub() -> None:
    with FakeHub(SHOP, live=True) as hub:
        hub.clock = clock = FakeClock()
        base = etag_of(hub)
        async with anyio.create_task_group() as group:
            answers = await ask_later(group, hub, if_none_match=base, prefer="wait=99")
            clock.now += 60
        assert (answers[0].status_code, answers[0].headers["preference-applied"]) == (304, "wait=60")


async def test_a_wait_for_waiting_gates_that_do_not_come_ends() -> None:
    with FakeHub(SHOP, patience=0.01) as hub, pytest.raises(TimeoutError, match="0 requests wait for a change"):
        await hub.waits()


@pytest.mark.parametrize("prefer", ["respond-async", "wait", "wait=soon", "wait=-1", "awaiting=9"])
def test_a_preference_that_names_no_seconds_is_not_honoured(prefer: str) -> None:
    with FakeHub(SHOP, live=True) as hub:
        answer = ask(hub, if_none_match=etag_of(hub), prefer=prefer)
        assert (answer.status_code, "preference-applied" in answer.headers) == (304, False)


def test_headers_can_be_ignored_from_now_on() -> None:
    with FakeHub(SHOP, live=True) as hub:
        base = etag_of(hub)
        hub.ignores = {"prefer", "a-im"}
        assert "preference-applied" not in ask(hub, if_none_match=base, prefer="wait=60").headers
        hub.lists(BLOG)
        assert ask(hub, if_none_match=base, a_im="rows").status_code == 200


async def test_a_client_that_goes_ends_its_wait() -> None:
    with FakeHub(SHOP, live=True) as hub:
        base, url = etag_of(hub), httpx.URL(hub.url)
        with socket.create_connection((url.host, url.port or 0), timeout=15) as client:
            client.sendall(f"GET {PATH} HTTP/1.1\r\nIf-None-Match: {base}\r\nPrefer: wait=60\r\n\r\n".encode())
            await hub.waits()
        wait_until(lambda: not hub.waiting)


def test_a_hub_that_is_not_live_honours_neither_header() -> None:
    with FakeHub(SHOP) as hub:
        hub.lists(SHOP, etag='"1"')
        answer = ask(hub, if_none_match='"1"', a_im="rows", prefer="wait=60")
        assert (answer.status_code, dict(answer.headers)) == (304, {"etag": '"1"'})
        hub.lists(BLOG, etag='"2"')
        assert ask(hub, if_none_match='"1"', a_im="rows", prefer="wait=60").status_code == 200
