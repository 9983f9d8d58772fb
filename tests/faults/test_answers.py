"""A hub that answers, and not with a list: refusals, redirects, validators, other formats, other pages."""

import gzip
import logging
import zlib
from typing import Any

import pytest

from gatekeeper import Reason
from tests.support.fake_hub import PATH, Answer, FakeHub, json_answer
from tests.support.guarded import gaps, guarded
from tests.support.rows import TOKEN, as_json, row

pytestmark = pytest.mark.anyio

REVOKED = as_json(row(1, disabled_at="2026-01-01T00:00:00Z"))  # what none of these answers may bring about
HTML = b"<!doctype html><title>Sign in</title><form action=/sso>"
JSON = {"content-type": "application/json"}

# 5, 6: the hub refuses us


@pytest.mark.parametrize("status", [401, 403])
async def test_row_5_refused_credentials_change_no_decision_and_never_stop_the_asking(
    hub: FakeHub, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with guarded(hub, jitter=1.0) as it:
        hub.always(json_answer(f"no such token: {TOKEN}", status))
        await it.time.advance(1000)
        assert it.allows(1)
        assert str(status) in it.last_error
        assert max(gaps(hub.requests)) <= 60
        assert len(hub.requests) > 1000 / 60
        assert TOKEN not in caplog.text + it.last_error
        hub.lists(row(1), row(2))
        await it.time.advance(60)
        assert it.allows(1, 2)
        assert it.status.last_error is None


async def test_row_5_a_rotated_token_is_picked_up_without_a_restart(hub: FakeHub) -> None:
    token = "sk_live_acme_old"

    def answer(asked: Any) -> Answer:
        if asked.headers["authorization"] == "Bearer sk_live_acme_new":
            return Answer(200, as_json(row(1), row(2)), JSON)
        return json_answer("Invalid token", 401)

    async with guarded(hub.url, source={"token": lambda: token}) as it:
        assert it.allows(1)
        hub.always(answer)
        assert "401" in await it.fail()
        token = "sk_live_acme_new"
        await it.refresh()
        assert it.allows(1, 2)


@pytest.mark.parametrize(
    "answer", [json_answer("Not Found", 404), json_answer("Missing X-Account-ID header", 400)], ids=["404", "400"]
)
async def test_row_6_a_wrong_path_or_account_changes_no_decision_and_is_asked_at_most_60_seconds_apart(
    hub: FakeHub, answer: Answer
) -> None:
    async with guarded(hub, jitter=1.0) as it:
        hub.always(answer)
        await it.time.advance(600)
        assert it.allows(1)
        assert str(answer.status) in it.last_error
        assert max(gaps(hub.requests)) <= 60


# 7, 8: the hub is busy


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 1, 1),
        ("86400", 300, 300),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1, 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300, 300),
        ("soon", 0.5, 0.5),
    ],
)
async def test_row_7_a_hub_that_says_when_is_asked_then_within_1_to_300_seconds(
    hub: FakeHub, retry_after: str, least: float, most: float
) -> None:
    async with guarded(hub) as it:
        hub.then(Answer(429, headers={"retry-after": retry_after}))
        await it.time.advance(10)
        await it.time.advance(300)
        assert least <= gaps(hub.requests)[1] <= most
        assert it.allows(1)


async def test_row_7_whoever_wants_a_list_now_gets_one_now(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(Answer(429, headers={"retry-after": "300"}))
        await it.time.advance(10)
        now = it.time.now
        assert (await it.refresh()).outcome == "unchanged"
        assert it.time.now == now


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_row_8_a_hub_that_fails_every_other_time_is_never_hammered_and_told_about_once(
    hub: FakeHub, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with guarded(hub, jitter=1.0) as it:
        for _ in range(5):
            hub.then(Answer(status))
            await it.time.advance(13)
            assert it.allows(1)
        # The backoff begins anew after each success: never 2, 4, 8 seconds; and never at once.
        assert gaps(hub.requests) == pytest.approx([12, 1] * 5)
        stays = [record for record in caplog.records if "stays as it is" in record.getMessage()]
        again = [record for record in caplog.records if "fresh again" in record.getMessage()]
        # The list is fresh all the while, so nothing becomes of its state.
        assert (len(stays), len(again)) == (1, 0)


async def test_row_8_a_hub_that_goes_on_failing_is_told_about_once(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    async with guarded(hub) as it:
        hub.always(Answer(503))
        await it.time.advance(50)
        assert it.status.counters["refresh_failed"] > 5
        assert len([record for record in caplog.records if "stays as it is" in record.getMessage()]) == 1


# 9, 10: validators


async def test_row_9_not_modified_about_our_list_makes_it_fresh(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        it.time.now += 100
        assert it.status.state == "degraded"
        assert (await it.refresh()).outcome == "unchanged"
        assert (it.status.state, it.status.age) == ("fresh", 0)


@pytest.mark.parametrize("etag", ['"2"', 'W/"2"', "1"])
async def test_row_9_not_modified_about_another_list_is_a_failure_and_the_next_fetch_asks_for_all(
    hub: FakeHub, etag: str
) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        hub.then(Answer(304, headers={"etag": etag}))
        assert "304" in await it.fail()
        await it.refresh()
        assert "if-none-match" not in hub.requests[-1].headers
        assert it.allows(1)


async def test_row_9_not_modified_without_our_having_asked_is_a_failure(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(Answer(304))
        assert "304" in await it.fail()
        assert it.allows(1)


@pytest.mark.parametrize("etag", ['"abc"', 'W/"abc"', '"with space, and ,comma"', '""'])
async def test_row_10_an_entity_tag_is_sent_back_as_it_came(hub: FakeHub, etag: str) -> None:
    hub.lists(row(1), etag=etag)
    async with guarded(hub) as it:
        assert (await it.refresh()).outcome == "unchanged"
        assert hub.requests[-1].headers["if-none-match"] == etag


@pytest.mark.parametrize(("ours", "theirs"), [('"1"', 'W/"1"'), ('W/"1"', '"1"')])
async def test_row_10_entity_tags_are_compared_weakly(hub: FakeHub, ours: str, theirs: str) -> None:
    hub.lists(row(1), etag=ours)
    async with guarded(hub) as it:
        hub.then(Answer(304, headers={"etag": theirs}))
        assert (await it.refresh()).outcome == "unchanged"


async def test_row_10_equal_bytes_under_another_tag_are_the_same_list(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        assert it.allows(1)
        memo = it.gate.memos.current
        for number in range(2, 6):
            hub.lists(row(1), etag=f'"{number}"')
            assert (await it.refresh()).outcome == "unchanged"
        assert it.status.generation == 1
        assert it.gate.memos.current is memo
        assert it.status.etag == '"5"'


async def test_row_10_without_tags_every_list_is_fetched_and_equal_bytes_change_nothing(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        await it.refresh()
        assert "if-none-match" not in hub.requests[-1].headers
        assert (it.status.generation, it.status.counters["refresh_unchanged"]) == (1, 1)


async def test_row_10_a_tag_that_is_stuck_while_the_list_changes_is_unmasked_within_ten_minutes(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"stuck"')
    async with guarded(hub) as it:
        hub.lists(row(1, disabled_at="now"), etag='"stuck"')
        assert it.allows(1)
        await it.time.advance(600 + 12)
        assert it.reason() is Reason.KEY_DISABLED


# 11: encodings


async def test_row_11_only_what_can_be_decoded_within_bounds_is_asked_for(hub: FakeHub) -> None:
    async with guarded(hub):
        offered = {coding.strip() for coding in hub.requests[0].headers["accept-encoding"].split(",")}
        assert "gzip" in offered
        assert offered <= {"gzip", "identity"}


async def test_row_11_a_list_may_come_compressed(hub: FakeHub) -> None:
    hub.always(Answer(200, gzip.compress(as_json(row(1), row(2))), {**JSON, "content-encoding": "gzip"}))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


async def test_row_11_a_compressed_list_may_come_in_several_members(hub: FakeHub) -> None:
    body = as_json(row(1), row(2))
    members = gzip.compress(body[:50]) + gzip.compress(body[50:])  # RFC 1952 section 2.2: one after the other
    hub.always(Answer(200, members, {**JSON, "content-encoding": "gzip"}))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", REVOKED),
        ("gzip", gzip.compress(gzip.compress(REVOKED))),
        ("gzip", gzip.compress(REVOKED)[:-9]),
        ("gzip", gzip.compress(REVOKED)[:-8] + b"\0" * 8),
        ("gzip", b""),
        ("identity", gzip.compress(REVOKED)),
        ("deflate", gzip.compress(REVOKED)),
        ("br", b"\x0b\x02\x80[]\x03"),
        ("rot13", REVOKED.translate(bytes(range(255, -1, -1)))),
    ],
    ids=["none at all", "twice", "cut", "checksum", "nothing", "unsaid", "another", "br", "unknown"],
)
async def test_row_11_what_cannot_be_decoded_changes_nothing(hub: FakeHub, coding: str, body: bytes) -> None:
    async with guarded(hub) as it:
        hub.then(Answer(200, body, {**JSON, "content-encoding": coding}))
        assert await it.fail()
        assert it.allows(1)


async def test_row_11_deflate_is_not_asked_for_and_not_taken(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(Answer(200, zlib.compress(REVOKED), {**JSON, "content-encoding": "deflate"}))
        assert "deflate" in await it.fail()
        assert it.allows(1)


# 14, 15, 16: something else than a list


@pytest.mark.parametrize("content_type", ["text/html", "text/plain; charset=utf-16", "image/png", ""])
async def test_row_14_a_list_is_a_list_whatever_it_is_called(hub: FakeHub, content_type: str) -> None:
    hub.always(Answer(200, as_json(row(1), row(2)), {"content-type": content_type}))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


async def test_row_14_html_is_no_list_whatever_it_is_called(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(Answer(200, HTML, JSON))
        assert await it.fail()
        assert it.allows(1)


@pytest.mark.parametrize("status", [200, 203])
async def test_row_15_a_login_page_changes_nothing_and_its_tag_is_never_sent_back(hub: FakeHub, status: int) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        hub.then(Answer(status, HTML, {"content-type": "text/html", "etag": '"portal"'}))
        assert await it.fail()
        assert it.status.etag == '"1"'
        await it.refresh()
        assert hub.requests[-1].headers.get("if-none-match") in {'"1"', None}
        assert it.allows(1)


NO_LISTS: dict[str, tuple[bytes, str]] = {
    "an object": (b'{"error": "x"}', "object"),
    "rows in an object": (b'{"data": ' + REVOKED + b"}", "object"),
    "null": (b"null", "null"),
    "a string": (b'"[]"', "string"),
    "a number": (b"7", "number"),
    "true": (b"true", "true"),
    "lists in a list": (b"[[], []]", "array"),
    "NaN": (b"NaN", "JSON"),
    "a list with NaN": (b"[NaN]", "JSON"),
    "UTF-16": (REVOKED.decode().encode("utf-16"), "JSON"),
    "UTF-32": (REVOKED.decode().encode("utf-32-le"), "JSON"),
    "nothing": (b"", "JSON"),
    "spaces": (b"  \n ", "JSON"),
    "two lists": (REVOKED + REVOKED, "JSON"),
    "a list and more": (REVOKED + b" x", "JSON"),
    "a comma too many": (REVOKED[:-1] + b",]", "JSON"),
    "no commas": (REVOKED[:-1] + b" " + REVOKED[1:], "JSON"),
    "an open end": (REVOKED[:-1], "JSON"),
}


@pytest.mark.parametrize("kind", NO_LISTS)
async def test_row_16_other_json_changes_nothing_and_the_message_says_what_came(hub: FakeHub, kind: str) -> None:
    body, named = NO_LISTS[kind]
    async with guarded(hub) as it:
        hub.then(Answer(200, body, JSON))
        assert named in await it.fail()
        assert it.allows(1)
        assert it.status.keys == 1


async def test_row_16_a_byte_order_mark_is_borne(hub: FakeHub) -> None:
    hub.always(Answer(200, b"\xef\xbb\xbf" + as_json(row(1), row(2)), JSON))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


# 21: redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["another host", "itself", "nowhere"])
async def test_row_21_a_redirect_is_named_and_not_followed_and_the_token_goes_nowhere(
    hub: FakeHub, status: int, to: str
) -> None:
    with FakeHub() as other:
        location = {"another host": other.url + PATH, "itself": PATH, "nowhere": "http://login.invalid/"}[to]
        async with guarded(hub) as it:
            hub.always(Answer(status, headers={"location": location}))
            error = await it.fail()
            assert location in error
            assert str(status) in error
            assert len(hub.requests) == 2
            assert other.requests == []
            assert it.allows(1)


# 60: another schema


async def test_row_60_a_renamed_suffix_field_changes_nothing_and_the_message_names_the_fields_seen(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    renamed = [
        {("key_suffix" if name == "last8" else name): value for name, value in row(number).items()} for number in (1, 2)
    ]
    async with guarded(hub, hard_stale=1000) as it:
        hub.always(json_answer(renamed))
        error = await it.fail()
        assert "'key_suffix'" in error
        assert "suffix_field" in error
        assert error in caplog.text
        assert it.allows(1)
        await it.time.advance(100)
        assert (it.status.state, it.allows(1)) == ("degraded", True)
        await it.time.advance(1000)
        assert it.reason() is Reason.EXPIRED
