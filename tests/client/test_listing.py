"""The streamed list: decompressed, capped, dated, or refused."""

import gzip
import random
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest

from gatekeeper import (
    AsyncHubClient,
    Basis,
    Delta,
    FullList,
    HubAuthenticationError,
    HubError,
    HubProtocolError,
    HubServerError,
    HubSource,
    HubTransportError,
    Unchanged,
    Updates,
)
from gatekeeper.client import KeyUsage, ListAnswer, ListQuestion
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import read_list
from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer, json_answer
from tests.client.support import NOON, REFUSED
from tests.support.rows import TOKEN, as_json, row


async def is_unchanged(client: AsyncHubClient, validator: str | None = None) -> bool:
    """Whether the hub answers that the list is unchanged."""
    async with client.widget_keys.fetch(validator) as listing:
        return listing is None


@pytest.mark.anyio
async def test_fetch_returns_the_bytes_and_the_entity_tag(hub: FakeHub) -> None:
    hub.lists(row(1), etag='W/"7"')
    async with AsyncHubClient(hub.url, TOKEN) as client, client.widget_keys.fetch() as listing:
        assert listing is not None
        assert (await listing.read(), listing.validator) == (as_json(row(1)), 'W/"7"')
    request = hub.requests[0]
    assert (request.method, request.target, request.headers["cache-control"]) == ("GET", PATH, "no-cache")
    assert "if-none-match" not in request.headers


@pytest.mark.anyio
async def test_fetch_returns_no_entity_tag_if_there_was_none(hub: FakeHub) -> None:
    hub.lists(row(1))
    async with AsyncHubClient(hub.url, TOKEN) as client, client.widget_keys.fetch() as listing:
        assert listing is not None
        assert (await listing.read(), listing.validator) == (as_json(row(1)), None)


@pytest.mark.anyio
async def test_fetch_sends_the_entity_tag_back_unchanged(hub: FakeHub) -> None:
    hub.lists(row(1), etag='W/"7"')
    async with AsyncHubClient(hub.url, TOKEN) as client:
        assert await is_unchanged(client, 'W/"7"')
        assert not await is_unchanged(client, '"7"')
    assert [request.headers["if-none-match"] for request in hub.requests] == ['W/"7"', '"7"']


@pytest.mark.anyio
async def test_fetch_reports_the_scope_of_the_token(hub: FakeHub) -> None:
    """A list and a 304 say it; a refusal is no answer to whether the token may do too much."""
    hub.then(
        HubAnswer(200, b"[]", {"etag": '"1"', "token-scope": "admin"}),
        HubAnswer(304, headers={"etag": '"1"', "token-scope": "gate"}),
        HubAnswer(200, b"[]"),
        json_answer("no", 401, token_scope="admin"),
    )
    said: list[str | None] = []
    async with AsyncHubClient(hub.url, TOKEN) as client:
        for validator in (None, '"1"', '"1"', '"1"'):
            with suppress(HubAuthenticationError):
                async with client.widget_keys.fetch(validator, on_token_scope=said.append):
                    pass
    assert said == ["admin", "gate", None]


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["", "Admin", "reader", "gate, admin", "admin" * 1000])
async def test_a_scope_that_has_no_meaning_is_unknown(hub: FakeHub, value: str) -> None:
    hub.always(HubAnswer(200, b"[]", {"token-scope": value}))
    said: list[str | None] = []
    async with AsyncHubClient(hub.url, TOKEN) as client, client.widget_keys.fetch(on_token_scope=said.append):
        assert said == [None]


@pytest.mark.anyio
async def test_a_callback_that_raises_leaves_no_connection_open(hub: FakeHub) -> None:
    """With a connection left open, the pool of one connection would have none for the next call."""
    hub.always(HubAnswer(200, b"[]", {"token-scope": "gate"}))

    def refuse(scope: str | None) -> None:
        raise ValueError(scope)

    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(15.0, pool=0.0)
    async with (
        httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as http,
        AsyncHubClient(hub.url, TOKEN, http=http) as client,
    ):
        for _ in range(2):
            with pytest.raises(ValueError, match="gate"):
                async with client.widget_keys.fetch(on_token_scope=refuse):
                    pytest.fail("the list was given")
        assert not await is_unchanged(client)


@pytest.mark.anyio
async def test_304_to_an_unconditional_request_is_a_protocol_error(hub: FakeHub) -> None:
    hub.always(HubAnswer(304))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubProtocolError):
            await is_unchanged(client)


@pytest.mark.anyio
async def test_304_with_another_tag_is_an_error_and_tags_compare_weakly(hub: FakeHub) -> None:
    async with AsyncHubClient(hub.url, TOKEN) as client:
        hub.then(HubAnswer(304, headers={"etag": 'W/"7"'}), HubAnswer(304), HubAnswer(304, headers={"etag": '"8"'}))
        assert await is_unchanged(client, '"7"')
        assert await is_unchanged(client, '"7"')
        with pytest.raises(HubProtocolError):
            await is_unchanged(client, '"7"')


@pytest.mark.anyio
async def test_the_tag_of_a_foreign_304_is_shown_escaped_masked_and_cut(hub: FakeHub) -> None:
    tag = '"\x1b[31m\x9b\xad' + TOKEN + "x" * 5000 + '"'
    hub.always(HubAnswer(304, headers={"etag": tag}))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubProtocolError, match=r"another list \('\"\\x1b\[31m\\x9b\\xadsk_live_…xxx") as caught:
            await is_unchanged(client, '"7"')
    assert str(caught.value).isprintable()
    assert TOKEN not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.anyio
@pytest.mark.parametrize("status", [201, 202, 204, 206, 226])
async def test_only_a_whole_list_is_streamed(hub: FakeHub, status: int) -> None:
    hub.always(HubAnswer(status, b"" if status == 204 else as_json(row(1))))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubProtocolError, match=f"answered {status}"):
            await is_unchanged(client)


async def read_rows(updates: Updates) -> None:
    async with updates(Basis()) as update:
        assert isinstance(update, FullList)
        read_list(RowReader(), await update.listing.read())


@pytest.mark.anyio
async def test_a_list_that_its_reader_refuses_is_a_protocol_error(hub: FakeHub) -> None:
    """A login page that repeats the token. What reads the list does not know the token, and the client masks it."""
    token = "another-bearer"
    hub.always(HubAnswer(200, f'{{"{token}": 1}}'.encode()))
    async with HubSource(hub.url, token, account="acme").connect() as updates:
        with pytest.raises(HubProtocolError, match="with the fields 'sk_live_…'") as caught:
            await read_rows(updates)
    assert hub.url in str(caught.value)
    assert caught.value.status == 200
    assert token not in str(caught.value)


@pytest.mark.anyio
async def test_fetch_raises_the_error_of_the_hubs_answer(hub: FakeHub) -> None:
    hub.always(json_answer("Invalid token", 401))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubAuthenticationError, match="Invalid token"):
            await is_unchanged(client)


@pytest.mark.anyio
async def test_a_cancelled_call_is_not_a_hub_error(hub: FakeHub) -> None:
    hub.always(HubAnswer(hold=hub.hold()))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.widget_keys.list()
    assert scope.cancelled_caught


# Bodies


def chunked(body: bytes, cuts: Iterable[int], **headers: str) -> HubAnswer:
    """HubAnswer with a chunked body, cut at these offsets."""
    places = [0, *sorted(cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(places) if end > start]
    lines = ["HTTP/1.1 200 OK", "transfer-encoding: chunked", *(f"{name}: {value}" for name, value in headers.items())]
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    return HubAnswer(raw="\r\n".join([*lines, "", ""]).encode() + encoded)


ROWS = as_json(*(row(number) for number in range(2000)))
ZIPPED = gzip.compress(ROWS, 1)
GZIP = {"content-encoding": "gzip"}


async def fetched(client: AsyncHubClient, **options: Any) -> bytes:
    async with client.widget_keys.fetch(**options) as listing:
        assert listing is not None
        return await listing.read()


@pytest.fixture
async def client(hub: FakeHub) -> AsyncIterator[AsyncHubClient]:
    async with AsyncHubClient(hub.url, TOKEN) as client:
        yield client


@pytest.mark.anyio
async def test_only_gzip_is_requested(hub: FakeHub, client: AsyncHubClient) -> None:
    hub.always(HubAnswer(200, ZIPPED, GZIP))
    assert await fetched(client) == ROWS
    assert hub.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.anyio
@pytest.mark.parametrize("named", ["gzip", "GZIP", "x-gzip", " gzip "])
async def test_gzip_is_recognised_in_every_spelling(hub: FakeHub, client: AsyncHubClient, named: str) -> None:
    hub.always(HubAnswer(200, ZIPPED, {"content-encoding": named}))
    assert await fetched(client) == ROWS


@pytest.mark.anyio
async def test_a_gzip_list_may_be_split_anywhere(hub: FakeHub, client: AsyncHubClient) -> None:
    dice = random.Random(11)
    few = as_json(row(1))
    members = gzip.compress(few[:50]) + gzip.compress(b"") + gzip.compress(few[50:])
    cases: list[tuple[bytes, bytes, Iterable[int]]] = [(few, gzip.compress(few), range(1000)), (few, members, range(1000))]
    for body, zipped in ((ROWS, ZIPPED), (few, members), (few, gzip.compress(few))):
        cases += [(body, zipped, dice.sample(range(len(zipped)), dice.randrange(20))) for _ in range(20)]
    for body, zipped, cuts in cases:
        hub.then(chunked(zipped, [cut for cut in cuts if cut < len(zipped)], **GZIP))
        assert await fetched(client) == body
    assert len({request.port for request in hub.requests}) == 1


@pytest.mark.anyio
async def test_identity_is_a_content_encoding(hub: FakeHub, client: AsyncHubClient) -> None:
    for named in ("identity", ""):
        hub.then(HubAnswer(200, ROWS, {"content-encoding": named}))
        assert await fetched(client) == ROWS


BROKEN = {
    "truncated": (ZIPPED[:-1], "gzip", "it is truncated"),
    "half": (ZIPPED[: len(ZIPPED) // 2], "gzip", "it is truncated"),
    "nothing": (b"", "gzip", "it is truncated"),
    "not gzip": (ROWS, "gzip", "not valid gzip"),
    "a byte off": (ZIPPED[:-8] + bytes((ZIPPED[-8] ^ 1,)) + ZIPPED[-7:], "gzip", "not valid gzip"),
    "zlib": (zlib.compress(ROWS), "gzip", "not valid gzip"),
    "followed by something": (ZIPPED + b"<html>", "gzip", "not valid gzip"),
    "and half of another": (ZIPPED + ZIPPED[:30], "gzip", "it is truncated"),
    "twice": (gzip.compress(ZIPPED), "gzip, gzip", "only gzip was requested"),
    "br": (b"\x0b\x00\x80[]\x03", "br", "only gzip was requested"),
    "deflate": (zlib.compress(ROWS), "deflate", "only gzip was requested"),
    "zstd": (b"(\xb5/\xfd\x04\x00\x11\x00\x00[]", "zstd", "only gzip was requested"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("how", BROKEN)
async def test_a_body_that_cannot_be_decompressed_is_an_error(hub: FakeHub, client: AsyncHubClient, how: str) -> None:
    body, encoding, why = BROKEN[how]
    hub.always(HubAnswer(200, body, {"content-encoding": encoding}))
    with pytest.raises(HubProtocolError, match=why) as caught:
        await fetched(client)
    assert caught.value.status == 200
    hub.lists(row(1))
    assert await fetched(client) == as_json(row(1))


@pytest.mark.anyio
@pytest.mark.parametrize("members", [1, 1000])
async def test_a_gzip_bomb_is_stopped_at_the_limit(hub: FakeHub, client: AsyncHubClient, members: int) -> None:
    hub.always(HubAnswer(200, gzip.compress(b" " * (50_000_000 // members)) * members, GZIP))
    seen: list[int] = []

    async def read() -> None:
        async with client.widget_keys.fetch(max_list=1_000_000) as listing:
            assert listing is not None
            async for chunk in listing.chunks:
                seen.append(len(chunk))  # noqa: PERF401 - keeps the chunks read before the error

    with pytest.raises(HubProtocolError, match="more than 1000000 bytes, decompressed"):
        await read()
    assert max(seen) <= 65_536
    assert sum(seen) <= 1_000_000


@pytest.mark.anyio
async def test_a_list_may_have_as_many_bytes_as_the_limit(hub: FakeHub, client: AsyncHubClient) -> None:
    for answer in (HubAnswer(200, ZIPPED, GZIP), HubAnswer(200, ROWS)):
        hub.always(answer)
        assert await fetched(client, max_list=len(ROWS)) == ROWS
        with pytest.raises(HubProtocolError, match="more than"):
            await fetched(client, max_list=len(ROWS) - 1)


@pytest.mark.anyio
@pytest.mark.parametrize("body", [ROWS, ROWS[:500]])
async def test_a_list_shorter_than_its_content_length_is_an_error(hub: FakeHub, client: AsyncHubClient, body: bytes) -> None:
    hub.always(HubAnswer(200, body, {"content-length": str(len(body) + 1)}, hang_up=True))
    with pytest.raises(HubTransportError):
        await fetched(client)


# Dates


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "dated_at", "is_copy"),
    [
        ({}, None, False),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT"}, 1_767_225_600, False),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "age": "90"}, 1_767_225_510, True),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "age": "0"}, 1_767_225_600, True),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "age": "-90"}, 1_767_225_600, True),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "age": "9" * 400}, 1_767_225_600 - 999_999_999, True),
        ({"date": "yesterday"}, None, False),
        ({"date": "Thu, 01 Jan 99999 00:00:00 GMT"}, None, False),
        ({"age": "90"}, None, True),
    ],
)
async def test_a_listing_has_its_date_and_knows_if_it_was_cached(
    hub: FakeHub, client: AsyncHubClient, headers: dict[str, str], dated_at: float | None, *, is_copy: bool
) -> None:
    hub.always(HubAnswer(200, ROWS, headers))
    async with client.widget_keys.fetch() as listing:
        assert listing is not None
        assert (listing.dated_at, listing.is_copy) == (dated_at, is_copy)


# Refusals


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        HubAnswer(500, b"sorry " * 200_000, {"content-length": "1000000000000"}),
        HubAnswer(500, gzip.compress(b"sorry " * 10_000_000), GZIP),
        HubAnswer(500, gzip.compress(b"sorry " * 10_000_000)[:-100], GZIP),
    ],
    ids=["endless", "a bomb", "a broken bomb"],
)
async def test_only_the_beginning_of_a_refusal_is_read(hub: FakeHub, client: AsyncHubClient, body: HubAnswer) -> None:
    hub.always(body)
    with anyio.fail_after(4), pytest.raises(HubServerError, match="answered 500; it says 'sorry sorry") as caught:
        await fetched(client)
    assert len(str(caught.value)) < 1000


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["br", "gzip"])
async def test_an_unreadable_refusal_still_has_its_status(hub: FakeHub, client: AsyncHubClient, encoding: str) -> None:
    hub.always(HubAnswer(503, b"\xff\xfe\xfd", {"content-encoding": encoding, "retry-after": "7"}))
    with pytest.raises(HubServerError, match="answered 503") as caught:
        await fetched(client)
    assert (caught.value.status, caught.value.retry_after) == (503, 7)


@pytest.mark.anyio
async def test_a_connection_is_reused_only_if_the_body_was_read_to_its_end(hub: FakeHub, client: AsyncHubClient) -> None:
    small = [
        json_answer("Invalid token", 401),
        HubAnswer(304, headers={"etag": '"1"'}),
        HubAnswer(404),
        HubAnswer(200, ROWS[:9000]),
    ]
    hub.then(*small)
    for _ in small:
        with suppress(HubError):
            async with client.widget_keys.fetch('"1"') as listing:
                if listing is not None:
                    async for _chunk in listing.chunks:
                        break
    assert len({request.port for request in hub.requests}) == 1
    hub.then(HubAnswer(500, b"sorry " * 200_000))
    with pytest.raises(HubServerError):
        await fetched(client)
    hub.lists(row(1))
    assert await fetched(client) == as_json(row(1))
    assert len({request.port for request in hub.requests}) == 2


# Through a source


@pytest.mark.anyio
async def test_a_changed_token_uses_the_same_connection(hub: FakeHub) -> None:
    tokens = [TOKEN, f"{TOKEN}2", f"{TOKEN}3"]
    hub.lists(row(1))
    async with HubSource(hub.url, lambda: tokens[min(len(hub.requests), 2)]).connect() as updates:
        for _ in tokens:
            async with updates(Basis()) as update:
                assert isinstance(update, FullList)
                await update.listing.read()
    assert [request.headers["authorization"] for request in hub.requests] == [f"Bearer {token}" for token in tokens]
    assert len({request.port for request in hub.requests}) == 1


@pytest.mark.anyio
async def test_an_httpx_client_made_by_a_factory_is_closed_with_the_source(hub: FakeHub) -> None:
    made: list[httpx.AsyncClient] = []

    def http() -> httpx.AsyncClient:
        made.append(httpx.AsyncClient(headers={"x-made-by": "a test"}))
        return made[-1]

    source = HubSource(hub.url, TOKEN, http=http)
    async with source.connect() as updates, updates(Basis()) as update:
        assert isinstance(update, FullList)
        assert await update.listing.read() == b"[]"
        assert not made[0].is_closed
    await source.report_usage({"key-1": KeyUsage(1, NOON)})
    await source.report_refused([REFUSED])
    with pytest.raises(ZeroDivisionError):
        async with source.connect():
            raise ZeroDivisionError
    assert [client.is_closed for client in made] == [True] * 4
    assert {request.headers["x-made-by"] for request in hub.requests} == {"a test"}


@pytest.mark.anyio
@pytest.mark.parametrize("etag", [b'"v\xe9rsion"', b'W/"\xff\x80"', b'"v\xc3\xa9rsion"'])
async def test_an_etag_with_obs_text_is_sent_back_byte_for_byte(hub: FakeHub, etag: bytes) -> None:
    """RFC 9110 section 8.8.3 allows bytes above 0x7F, which are no text in any one encoding."""
    text = etag.decode("latin-1")
    hub.always(lambda request: HubAnswer(304 if "if-none-match" in request.headers else 200, b"[]", {"etag": text}))
    async with HubSource(hub.url, TOKEN).connect() as updates:
        async with updates(Basis()) as update:
            assert isinstance(update, FullList)
            assert update.listing.validator == text
        async with updates(Basis(update.listing.validator)) as update:
            assert isinstance(update, Unchanged)
    assert hub.requests[1].headers["if-none-match"] == text


# Changes, and answers that the hub holds

VALIDATOR = 'W/"41-ab"'
CHANGED = {"etag": 'W/"42-cd"', "delta-base": VALIDATOR, "im": "rows"}


async def ask(hub: FakeHub, **question: Any) -> ListAnswer:
    """Ask for the list, or for what has changed."""
    asked = ListQuestion(**{"validator": VALIDATOR, "takes_changes": True, **question})
    async with AsyncHubClient(hub.url, TOKEN) as client, client.widget_keys.ask(asked) as answer:
        if answer.listing is not None:
            await answer.listing.read()
        return answer


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("question", "sent"),
    [
        ({}, ("rows", None)),
        ({"wait": 9}, ("rows", "wait=9")),
        ({"takes_changes": False}, (None, None)),
        ({"validator": None, "wait": 9}, (None, None)),  # without a list there is nothing to wait for
    ],
)
async def test_changes_and_waits_are_asked_for(
    hub: FakeHub, question: dict[str, Any], sent: tuple[str | None, str | None]
) -> None:
    hub.lists(row(1), etag='"1"')
    await ask(hub, **question)
    headers = hub.requests[0].headers
    assert (headers.get("a-im"), headers.get("prefer")) == sent


@pytest.mark.anyio
async def test_changes_come_with_their_base_and_the_next_validator(hub: FakeHub) -> None:
    hub.always(HubAnswer(226, as_json(row(1)), {**CHANGED, "delta-base": '"41-ab"', "preference-applied": "wait=9"}))
    answer = await ask(hub, wait=9)
    assert answer.listing is not None
    assert (answer.base, answer.listing.validator, answer.granted) == ('"41-ab"', 'W/"42-cd"', 9.0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"delta-base": None}, "of no list"),
        ({"delta-base": 'W/"40-ab"'}, r"of the list 'W/\"40-ab\"'"),
        ({"delta-base": f'{VALIDATOR}, W/"40-ab"'}, "of the list"),
        ({"im": None}, r"in the way ''"),
        ({"im": "vcdiff"}, "in the way 'vcdiff'"),
        ({"im": "rows, vcdiff"}, "in the way"),
        ({"etag": None}, "without an ETag"),
    ],
)
async def test_changes_that_do_not_fit_are_refused(hub: FakeHub, changed: dict[str, str | None], why: str) -> None:
    headers = {name: value for name, value in {**CHANGED, **changed}.items() if value is not None}
    hub.always(HubAnswer(226, as_json(row(1)), headers))
    with pytest.raises(HubProtocolError, match=f"answered 226 with changes .*{why}.*the whole list is asked for") as caught:
        await ask(hub)
    assert caught.value.status == 226


@pytest.mark.anyio
@pytest.mark.parametrize("question", [{"takes_changes": False}, {"validator": None}])
async def test_changes_that_were_not_asked_for_are_refused(hub: FakeHub, question: dict[str, Any]) -> None:
    hub.always(HubAnswer(226, as_json(row(1)), CHANGED))
    with pytest.raises(HubProtocolError, match="226"):
        await ask(hub, **question)


@pytest.mark.anyio
async def test_changes_that_are_no_list_are_refused(hub: FakeHub) -> None:
    hub.always(HubAnswer(226, b"{}", CHANGED))

    async def read_list_of_changes() -> None:
        async with HubSource(hub.url, TOKEN).connect() as updates, updates(Basis(VALIDATOR)) as update:
            assert isinstance(update, Delta)
            read_list(RowReader(), await update.listing.read())

    with pytest.raises(HubProtocolError, match="226 with no usable list") as caught:
        await read_list_of_changes()
    assert caught.value.status == 226


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("applied", "granted"),
    [
        ("wait=9", 9.0),
        ("wait=1", 1.0),
        ("WAIT = 5", 5.0),
        ('wait="5"', 5.0),
        ("respond-async, wait=5", 5.0),
        ("wait=10", None),  # more than was asked for
        ("wait=0", None),
        ("wait=-5", None),
        ("wait=5.5", None),
        ("wait=5s", None),
        ("wait=00005", None),
        ("wait=٥", None),
        ("wait", None),
        ("wait=", None),
        ("await=5", None),
        ("", None),
    ],
)
async def test_a_wait_is_granted_in_whole_seconds(hub: FakeHub, applied: str, granted: float | None) -> None:
    headers = {"etag": VALIDATOR, "preference-applied": applied.encode().decode("latin-1")}
    hub.always(HubAnswer(304, headers=headers))
    assert await ask(hub, wait=9) == ListAnswer(None, granted=granted)
    assert (await ask(hub)).granted is None


@pytest.mark.anyio
@pytest.mark.parametrize(("vary", "may_wait"), [("A-IM, Prefer", True), ("prefer", True), ("X-Prefer", False), ("*", False)])
async def test_vary_says_that_the_next_answer_may_wait(hub: FakeHub, vary: str, *, may_wait: bool) -> None:
    hub.always(HubAnswer(200, as_json(row(1)), {"vary": vary}))
    assert (await ask(hub)).may_wait is may_wait


@pytest.mark.anyio
async def test_a_held_answer_has_so_much_more_time(hub: FakeHub) -> None:
    """Without the wait, the same answer takes too long."""
    hub.always(HubAnswer(304, headers={"etag": VALIDATOR}, hold=(hold := hub.hold())))
    async with httpx.AsyncClient(timeout=0.05, trust_env=False) as http, AsyncHubClient(hub.url, TOKEN, http=http) as client:
        with pytest.raises(HubTransportError, match="ReadTimeout"):
            async with client.widget_keys.ask(ListQuestion(VALIDATOR)):
                pytest.fail("an answer came")

        async def release() -> None:
            await anyio.sleep(0.2)
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(release)
            async with client.widget_keys.ask(ListQuestion(VALIDATOR, wait=15)) as answer:
                assert answer.listing is None


@pytest.mark.anyio
@pytest.mark.parametrize(("connection", "is_last"), [("close", True), ("keep-alive, Close", True), ("keep-alive", False)])
async def test_a_hub_that_closes_the_connection_gives_its_last_answer(
    hub: FakeHub, connection: str, *, is_last: bool
) -> None:
    headers = {"etag": VALIDATOR, "preference-applied": "wait=9", "connection": connection}
    hub.always(HubAnswer(304, headers=headers, hang_up=True))
    assert (await ask(hub, wait=9)).is_last is is_last
