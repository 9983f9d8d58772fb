"""Answers of the hub that are no list: refusals, redirects, validators, other formats."""

import gzip
import logging
import zlib
from typing import Any

import pytest

from gatekeeper import Reason
from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer, json_answer
from tests.support.guarded import gaps, guarded
from tests.support.remembered import remembered_by
from tests.support.rows import TOKEN, as_json, row

pytestmark = pytest.mark.anyio

REVOKED = as_json(row(1, disabled_at="2026-01-01T00:00:00Z"))  # no answer below may have this effect
HTML = b"<!doctype html><title>Sign in</title><form action=/sso>"
JSON = {"content-type": "application/json"}

# The hub refuses us


@pytest.mark.fault("credentials refused")
@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_change_no_decision_and_are_retried(
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


@pytest.mark.fault("credentials refused")
async def test_a_rotated_token_is_picked_up_without_a_restart(hub: FakeHub) -> None:
    token = "sk_live_acme_old"

    def answer(asked: Any) -> HubAnswer:
        if asked.headers["authorization"] == "Bearer sk_live_acme_new":
            return HubAnswer(200, as_json(row(1), row(2)), JSON)
        return json_answer("Invalid token", 401)

    async with guarded(hub.url, source={"token": lambda: token}) as it:
        assert it.allows(1)
        hub.always(answer)
        assert "401" in await it.fail()
        token = "sk_live_acme_new"
        await it.refresh()
        assert it.allows(1, 2)


@pytest.mark.fault("wrong path or account")
@pytest.mark.parametrize(
    "answer", [json_answer("Not Found", 404), json_answer("Missing X-Account-ID header", 400)], ids=["404", "400"]
)
async def test_a_wrong_path_or_account_changes_nothing_and_is_retried(hub: FakeHub, answer: HubAnswer) -> None:
    async with guarded(hub, jitter=1.0) as it:
        hub.always(answer)
        await it.time.advance(600)
        assert it.allows(1)
        assert str(answer.status) in it.last_error
        assert max(gaps(hub.requests)) <= 60


# The hub is busy


@pytest.mark.fault("hub asks for a later retry")
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
async def test_retry_after_is_obeyed_within_1_to_300_seconds(
    hub: FakeHub, retry_after: str, least: float, most: float
) -> None:
    async with guarded(hub) as it:
        hub.then(HubAnswer(429, headers={"retry-after": retry_after}))
        await it.time.advance(10)
        await it.time.advance(300)
        assert least <= gaps(hub.requests)[1] <= most
        assert it.allows(1)


@pytest.mark.fault("hub asks for a later retry")
async def test_a_forced_refresh_ignores_retry_after(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(HubAnswer(429, headers={"retry-after": "300"}))
        await it.time.advance(10)
        now = it.time.now
        assert (await it.refresh()).outcome == "unchanged"
        assert it.time.now == now


@pytest.mark.fault("hub fails now and then")
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_flapping_hub_is_retried_with_backoff_and_logged_once(
    hub: FakeHub, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with guarded(hub, jitter=1.0) as it:
        for _ in range(5):
            hub.then(HubAnswer(status))
            await it.time.advance(13)
            assert it.allows(1)
        # Each success resets the backoff: never 2, 4, 8 seconds, and never no wait at all.
        assert gaps(hub.requests) == pytest.approx([12, 1] * 5)
        stays = [record for record in caplog.records if "stays as it is" in record.getMessage()]
        again = [record for record in caplog.records if "fresh again" in record.getMessage()]
        # The list stays fresh throughout, so no change of state is logged.
        assert (len(stays), len(again)) == (1, 0)


@pytest.mark.fault("hub fails now and then")
async def test_a_lasting_failure_is_logged_once(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    async with guarded(hub) as it:
        hub.always(HubAnswer(503))
        await it.time.advance(50)
        assert it.status.counters["refresh_failed"] > 5
        assert len([record for record in caplog.records if "stays as it is" in record.getMessage()]) == 1


# Validators


@pytest.mark.fault("304 Not Modified")
async def test_not_modified_makes_the_list_fresh_again(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        it.time.now += 100
        assert it.status.state == "degraded"
        assert (await it.refresh()).outcome == "unchanged"
        assert (it.status.state, it.status.age) == ("fresh", 0)


@pytest.mark.fault("304 Not Modified")
@pytest.mark.parametrize("etag", ['"2"', 'W/"2"', "1"])
async def test_not_modified_for_another_etag_fails_and_the_next_fetch_is_whole(hub: FakeHub, etag: str) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        hub.then(HubAnswer(304, headers={"etag": etag}))
        assert "304" in await it.fail()
        await it.refresh()
        assert "if-none-match" not in hub.requests[-1].headers
        assert it.allows(1)


@pytest.mark.fault("304 Not Modified")
async def test_not_modified_without_a_condition_fails(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(HubAnswer(304))
        assert "304" in await it.fail()
        assert it.allows(1)


@pytest.mark.fault("entity tags")
@pytest.mark.parametrize("etag", ['"abc"', 'W/"abc"', '"with space, and ,comma"', '""'])
async def test_an_etag_is_sent_back_verbatim(hub: FakeHub, etag: str) -> None:
    hub.lists(row(1), etag=etag)
    async with guarded(hub) as it:
        assert (await it.refresh()).outcome == "unchanged"
        assert hub.requests[-1].headers["if-none-match"] == etag


@pytest.mark.fault("entity tags")
@pytest.mark.parametrize(("ours", "theirs"), [('"1"', 'W/"1"'), ('W/"1"', '"1"')])
async def test_etags_are_compared_weakly(hub: FakeHub, ours: str, theirs: str) -> None:
    hub.lists(row(1), etag=ours)
    async with guarded(hub) as it:
        hub.then(HubAnswer(304, headers={"etag": theirs}))
        assert (await it.refresh()).outcome == "unchanged"


@pytest.mark.fault("entity tags")
async def test_equal_bytes_under_another_etag_are_the_same_list(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        assert it.allows(1)
        (remembered,) = remembered_by(it.gate)
        for number in range(2, 6):
            hub.lists(row(1), etag=f'"{number}"')
            assert (await it.refresh()).outcome == "unchanged"
        assert it.status.generation == 1
        assert remembered_by(it.gate) == [remembered]
        assert it.status.etag == '"5"'


@pytest.mark.fault("entity tags")
async def test_without_etags_equal_bytes_change_nothing(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        await it.refresh()
        assert "if-none-match" not in hub.requests[-1].headers
        assert (it.status.generation, it.status.counters["refresh_unchanged"]) == (1, 1)


@pytest.mark.fault("entity tags")
async def test_a_stuck_etag_is_unmasked_within_ten_minutes(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"stuck"')
    async with guarded(hub) as it:
        hub.lists(row(1, disabled_at="now"), etag='"stuck"')
        assert it.allows(1)
        await it.time.advance(600 + 12)
        assert it.reason() is Reason.KEY_DISABLED


# Encodings


@pytest.mark.fault("content encodings")
async def test_only_gzip_and_identity_are_asked_for(hub: FakeHub) -> None:
    async with guarded(hub):
        offered = {coding.strip() for coding in hub.requests[0].headers["accept-encoding"].split(",")}
        assert "gzip" in offered
        assert offered <= {"gzip", "identity"}


@pytest.mark.fault("content encodings")
async def test_a_list_may_be_gzipped(hub: FakeHub) -> None:
    hub.always(HubAnswer(200, gzip.compress(as_json(row(1), row(2))), {**JSON, "content-encoding": "gzip"}))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


@pytest.mark.fault("content encodings")
async def test_a_gzipped_list_may_have_several_members(hub: FakeHub) -> None:
    body = as_json(row(1), row(2))
    members = gzip.compress(body[:50]) + gzip.compress(body[50:])  # RFC 1952 section 2.2: one after the other
    hub.always(HubAnswer(200, members, {**JSON, "content-encoding": "gzip"}))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


@pytest.mark.fault("content encodings")
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
async def test_a_body_that_cannot_be_decoded_changes_nothing(hub: FakeHub, coding: str, body: bytes) -> None:
    async with guarded(hub) as it:
        hub.then(HubAnswer(200, body, {**JSON, "content-encoding": coding}))
        assert await it.fail()
        assert it.allows(1)


@pytest.mark.fault("content encodings")
async def test_deflate_is_refused(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(HubAnswer(200, zlib.compress(REVOKED), {**JSON, "content-encoding": "deflate"}))
        assert "deflate" in await it.fail()
        assert it.allows(1)


# Bodies that are no list


@pytest.mark.fault("wrong content type")
@pytest.mark.parametrize("content_type", ["text/html", "text/plain; charset=utf-16", "image/png", ""])
async def test_an_array_is_a_list_under_any_content_type(hub: FakeHub, content_type: str) -> None:
    hub.always(HubAnswer(200, as_json(row(1), row(2)), {"content-type": content_type}))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


@pytest.mark.fault("wrong content type")
async def test_html_is_refused_under_any_content_type(hub: FakeHub) -> None:
    async with guarded(hub) as it:
        hub.then(HubAnswer(200, HTML, JSON))
        assert await it.fail()
        assert it.allows(1)


@pytest.mark.fault("login page")
@pytest.mark.parametrize("status", [200, 203])
async def test_a_login_page_changes_nothing_and_its_etag_is_dropped(hub: FakeHub, status: int) -> None:
    hub.lists(row(1), etag='"1"')
    async with guarded(hub) as it:
        hub.then(HubAnswer(status, HTML, {"content-type": "text/html", "etag": '"portal"'}))
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


@pytest.mark.fault("other JSON")
@pytest.mark.parametrize("kind", NO_LISTS)
async def test_other_json_changes_nothing_and_its_type_is_named(hub: FakeHub, kind: str) -> None:
    body, named = NO_LISTS[kind]
    async with guarded(hub) as it:
        hub.then(HubAnswer(200, body, JSON))
        assert named in await it.fail()
        assert it.allows(1)
        assert it.status.keys == 1


@pytest.mark.fault("other JSON")
async def test_a_byte_order_mark_is_accepted(hub: FakeHub) -> None:
    hub.always(HubAnswer(200, b"\xef\xbb\xbf" + as_json(row(1), row(2)), JSON))
    async with guarded(hub) as it:
        assert it.allows(1, 2)


# Redirects


@pytest.mark.fault("redirect")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["another host", "itself", "nowhere"])
async def test_a_redirect_is_named_and_not_followed(hub: FakeHub, status: int, to: str) -> None:
    with FakeHub() as other:
        location = {"another host": other.url + PATH, "itself": PATH, "nowhere": "http://login.invalid/"}[to]
        async with guarded(hub) as it:
            hub.always(HubAnswer(status, headers={"location": location}))
            error = await it.fail()
            assert location in error
            assert str(status) in error
            assert len(hub.requests) == 2
            assert other.requests == []
            assert it.allows(1)


# Another schema


@pytest.mark.fault("renamed field")
async def test_a_renamed_suffix_field_changes_nothing_and_is_named(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
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
