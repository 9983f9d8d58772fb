"""What the gate decides, what it remembers of that, and how it starts, lives and stops."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from gatekeeper import ConfigError, Decision, FileSource, Gatekeeper, HubClient, HubSource, Origin, Reason, StaticSource
from gatekeeper.decisions import CONFLICT
from gatekeeper.memo import MEMO_SIZE, Memo, Tally
from gatekeeper.sources import Fetch

from .support.fake_hub import Answer, FakeHub, json_answer
from .support.fake_time import FakeTime
from .support.memory_source import MemorySource
from .support.real_hub import served_hub
from .support.rows import ORIGIN, TOKEN, as_json, bad_row, client_key, row

STRANGERS_KEY = client_key(99)


@pytest.fixture(params=["asyncio", *(["trio"] if find_spec("trio") else [])])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.lists(row(1))
        yield hub


def gate_of(hub: FakeHub, fake: FakeTime | None = None, **options: Any) -> Gatekeeper:
    """Make a gate for a hub, by a clock that stands still; it has patience with a machine that has much else to do."""
    fake = FakeTime() if fake is None else fake
    return Gatekeeper(
        HubSource(hub.url, TOKEN, timeout=60),
        **{"clock": fake.clock, "sleep": fake.sleep, "jitter": fake.dice, "unknown_key_wait": 15, **options},
    )


# The reasons, in their order

MALFORMED: list[Any] = [
    "HTTPS://acme.com",
    b"https://acme.com/",
    "https://acme.com:443",
    b"\xff",
    "",
    "https://" + "a" * 300,
]
ROWS = [
    row(1, agent_id="agent-7"),
    row(2, disabled_at="2026-01-01T00:00:00Z", domain_allowlist=[]),
    row(3, domain_allowlist=[]),
    row(4, domain_allowlist=["*", "not an entry"]),
    row(5, last8="ambigous", disabled_at="2026-01-01T00:00:00Z"),
    row(6, last8="ambigous"),
    row(7, domain_allowlist=["*.acme.com", "localhost:*"]),
]
DECIDED = Gatekeeper.from_rows(ROWS, account="acme")
CASES: list[tuple[Reason, Any, Any, Any]] = [
    (Reason.KEY_MISSING, None, CONFLICT, CONFLICT),
    (Reason.KEY_MISSING, "", CONFLICT, None),
    (Reason.KEY_MISSING, b"", "null", None),
    (Reason.KEY_MALFORMED, "sk_live_acme_00000001", CONFLICT, None),
    (Reason.KEY_MALFORMED, "pk_live_acme_0000 0001", CONFLICT, None),
    (Reason.KEY_MALFORMED, "pk_live_acme_\ud8000000001", "\ud800", None),
    (Reason.KEY_MALFORMED, b"pk_live_acme_\xff\xff\xff\xff\xff\xff\xff\xff", None, None),
    (Reason.KEY_MALFORMED, "pk_live_acme_" + "0" * 1_000_000, CONFLICT, None),
    (Reason.KEY_CONFLICT, CONFLICT, CONFLICT, None),
    (Reason.KEY_CONFLICT, CONFLICT, ORIGIN, None),
    (Reason.KEY_UNKNOWN, STRANGERS_KEY, CONFLICT, None),
    (Reason.KEY_UNKNOWN, client_key(1, "globex"), "null", None),
    (Reason.KEY_AMBIGUOUS, "pk_live_acme_ambigous", CONFLICT, None),
    (Reason.KEY_DISABLED, client_key(2), CONFLICT, None),
    (Reason.ALLOWLIST_EMPTY, client_key(3), CONFLICT, None),
    (Reason.ALLOWLIST_EMPTY, client_key(4), "null", None),
    (Reason.ORIGIN_CONFLICT, client_key(1), CONFLICT, None),
    (Reason.ORIGIN_CONFLICT, client_key(1), CONFLICT, "https://acme.com/"),
    (Reason.ORIGIN_CONFLICT, client_key(1), None, CONFLICT),
    *((Reason.ORIGIN_MALFORMED, client_key(1), origin, "https://acme.com/") for origin in MALFORMED),
    (Reason.ORIGIN_MALFORMED, client_key(1), "https://\ud800", None),
    (Reason.ORIGIN_MALFORMED, client_key(1), None, "about:blank"),
    (Reason.ORIGIN_MALFORMED, client_key(1), None, "https://acme.com/\ud800"),
    (Reason.ORIGIN_NULL, client_key(1), "null", "https://acme.com/"),
    (Reason.ORIGIN_MISSING, client_key(1), None, None),
    (Reason.ORIGIN_NOT_ALLOWED, client_key(1), "https://evil.com", "https://acme.com/"),
    (Reason.ORIGIN_NOT_ALLOWED, client_key(1), None, "https://evil.com/"),
    (Reason.ORIGIN_NOT_ALLOWED, client_key(7), "https://acme.com", None),
    (Reason.ALLOWED, client_key(1), ORIGIN, None),
    (Reason.ALLOWED, client_key(1), b"http://acme.com", None),
    (Reason.ALLOWED, client_key(1), ORIGIN, CONFLICT),
    (Reason.ALLOWED, client_key(1), None, "https://acme.com/page?query#fragment"),
    (Reason.ALLOWED, client_key(7), "https://a.b.acme.com", None),
]


@pytest.mark.parametrize(("reason", "key", "origin", "referer"), CASES)
def test_the_first_reason_that_applies_is_the_answer(reason: Reason, key: Any, origin: Any, referer: Any) -> None:
    gate = Gatekeeper.from_rows(ROWS, account="acme")
    for _ in range(2):  # the second time it may be remembered
        decision = gate.decide(key, origin, referer=referer)
        assert decision.reason is reason
        assert decision.status == reason.status


def test_the_cases_have_every_reason_that_a_loaded_list_can_give() -> None:
    assert {reason for reason, *_ in CASES} == set(Reason) - {Reason.NOT_READY, Reason.EXPIRED}


@pytest.mark.parametrize("key", [None, "nonsense", CONFLICT, STRANGERS_KEY, client_key(1)])
def test_without_a_list_nothing_else_is_looked_at(key: Any) -> None:
    decision = Gatekeeper(MemorySource(row(1))).decide(key, ORIGIN)
    assert (decision.reason, decision.status, decision.retry_after) == (Reason.NOT_READY, 503, 2)
    assert decision.origin == ORIGIN


def test_an_allowed_page_is_told_what_allows_it() -> None:
    decision = DECIDED.decide(client_key(7), "http://localhost:5173")
    assert decision.allowed
    assert (decision.matched, decision.origin, decision.last8) == ("localhost:*", "http://localhost:5173", "00000007")
    assert decision.key is not None
    assert decision.key.id == "key-7"


def test_a_decision_knows_the_agent_that_its_key_is_pinned_to() -> None:
    assert DECIDED.decide(client_key(1), ORIGIN).agent_id == "agent-7"
    assert DECIDED.decide(client_key(1), "https://evil.com").agent_id == "agent-7"
    assert DECIDED.decide(STRANGERS_KEY, ORIGIN).agent_id is None


def test_a_refused_page_is_told_which_origin_was_seen() -> None:
    assert DECIDED.decide(client_key(1), "https://evil.com").origin == "https://evil.com"
    assert DECIDED.decide(client_key(1), "null").origin == "null"
    assert DECIDED.decide(client_key(1), "https://acme.com/").origin is None
    assert DECIDED.decide(client_key(1), None, referer="https://Evil.com:443/page").origin == "https://evil.com"


@pytest.mark.parametrize(("reason", "key", "origin", "referer"), CASES)
def test_no_answer_holds_more_of_a_key_than_its_last_8_characters(
    reason: Reason, key: Any, origin: Any, referer: Any
) -> None:
    answer = DECIDED.decide(key, origin, referer=referer).problem_json()
    assert reason.encode() in answer
    assert not key or key is CONFLICT or (key if isinstance(key, bytes) else key.encode(errors="replace")) not in answer


def test_only_https_pages_where_the_gate_says_so() -> None:
    gate = Gatekeeper.from_rows([row(1, domain_allowlist=["acme.com", "localhost:*"])], https_only=True)
    assert gate.https_only
    assert gate.decide(client_key(1), "https://acme.com").allowed
    assert gate.decide(client_key(1), "http://acme.com").reason is Reason.ORIGIN_NOT_ALLOWED
    assert gate.decide(client_key(1), "http://localhost:5173").allowed


def test_keys_may_begin_otherwise() -> None:
    gate = Gatekeeper.from_rows([row(1)], key_prefix="wk_")
    assert gate.decide("wk_acme_00000001", ORIGIN).allowed
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_MALFORMED


def test_the_account_of_the_gate_goes_before_that_of_its_source() -> None:
    gate = Gatekeeper(StaticSource([row(1)], account="acme"), account="globex")
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_UNKNOWN
    assert gate.decide(client_key(1, "globex"), ORIGIN).allowed


SOME_KEYS = [
    *(key for _, key, _, _ in CASES if isinstance(key, str) and len(key) < 100),
    "pk_live_",
    "pk_live_acme",
    "_",
    "pk_live___" * 9,
]
SOME_ORIGINS = [ORIGIN, "null", "https://", "http://[::1]", "http://[::1]:5", "https://a.b.acme.com", "https://acme.com:0"]
TEXTS = st.one_of(
    st.none(),
    st.just(CONFLICT),
    st.text(),
    st.binary(),
    st.text(st.characters(categories=["Cs"])),
    st.sampled_from([*SOME_KEYS, *SOME_ORIGINS]),
    st.builds(str.__add__, st.sampled_from(SOME_KEYS + SOME_ORIGINS), st.text()),
    st.builds(
        lambda begin, end: begin.encode(errors="surrogatepass") + end, st.sampled_from(SOME_KEYS + SOME_ORIGINS), st.binary()
    ),
)


@settings(max_examples=500, deadline=None)
@given(key=TEXTS, origin=TEXTS, referer=TEXTS)
def test_whatever_arrives_is_decided(key: Any, origin: Any, referer: Any) -> None:
    first = DECIDED.decide(key, origin, referer=referer)
    assert isinstance(first.reason, Reason)
    assert first.problem_json()
    assert DECIDED.decide(key, origin, referer=referer) == first
    assert len(DECIDED.memo) <= MEMO_SIZE


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(SOME_KEYS) | st.text(), origin=st.sampled_from(SOME_ORIGINS) | st.text(), is_referer=st.booleans()
)
def test_text_and_bytes_are_decided_alike(key: str, origin: str, *, is_referer: bool) -> None:
    asked: list[tuple[Any, Any]] = [
        (key, origin),
        (key.encode(errors="surrogatepass"), origin.encode(errors="surrogatepass")),
    ]
    decided = [
        DECIDED.decide(a_key, None, referer=a_page) if is_referer else DECIDED.decide(a_key, a_page)
        for a_key, a_page in asked
    ]
    assert decided[0] == decided[1]


# The memo


def test_a_decision_about_a_known_key_is_remembered() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    for origin in (ORIGIN, "https://evil.com", "null", "https://acme.com/"):
        assert gate.decide(client_key(1), origin) is gate.decide(client_key(1).encode(), origin.encode())
    referred = gate.decide(client_key(1), None, referer="https://acme.com/")
    assert gate.decide(client_key(1), None, referer="https://acme.com/") is referred
    assert len(gate.memo) == 5


def test_a_referer_is_never_taken_for_an_origin() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    assert gate.decide(client_key(1), None, referer="https://acme.com/x").allowed
    assert gate.decide(client_key(1), "https://acme.com/x").reason is Reason.ORIGIN_MALFORMED
    assert gate.decide(client_key(1), None).reason is Reason.ORIGIN_MISSING
    assert gate.decide(client_key(1), "null", referer="https://acme.com/x").reason is Reason.ORIGIN_NULL


@pytest.mark.parametrize("key", [None, "", "nonsense", STRANGERS_KEY, client_key(1, "globex"), CONFLICT, "x" * 10_000])
def test_what_no_row_decided_is_not_remembered(key: Any) -> None:
    gate = Gatekeeper.from_rows([row(1)], account="acme")
    assert not gate.decide(key, ORIGIN).allowed
    assert not gate.memo


def test_a_flood_of_unknown_keys_is_not_remembered() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    for number in range(2, 5000):
        assert gate.decide(client_key(number), ORIGIN).reason is Reason.KEY_UNKNOWN
    assert not gate.memo


@pytest.mark.parametrize("allowlist", [["acme.com"], ["*.acme.com"]])
def test_the_memo_is_bounded_whoever_asks(allowlist: list[str]) -> None:
    gate = Gatekeeper.from_rows([row(1, domain_allowlist=allowlist)])
    for number in range(MEMO_SIZE + 1000):
        gate.decide(client_key(1), f"https://p{number}.acme.com")
    assert len(gate.memo) == MEMO_SIZE


def test_no_long_origin_or_referer_is_remembered() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    gate.decide(client_key(1), "https://" + "a." * 150 + "acme.com")
    assert gate.decide(client_key(1), None, referer="https://acme.com/" + "a" * 300).allowed
    assert not gate.memo


def test_two_origins_are_not_remembered() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    gate.decide(client_key(1), CONFLICT)
    gate.decide(client_key(1), None, referer=CONFLICT)
    assert not gate.memo


@contextmanager
def threads_switching_often() -> Iterator[None]:
    """Let threads take turns so often that they meet in the middle of everything."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_threads_that_decide_at_once_never_fail_each_other() -> None:
    gate = Gatekeeper.from_rows([row(1, domain_allowlist=["*.acme.com"])])
    for number in range(MEMO_SIZE):
        gate.decide(client_key(1), f"https://p{number}.acme.com")
    problems: list[str] = []
    end = time.monotonic() + 1

    def decide_again_and_again(name: str) -> None:
        number = 0
        try:
            while time.monotonic() < end and not problems:
                number += 1
                assert gate.decide(client_key(1), f"https://{name}-{number}.acme.com").allowed
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a problem
            problems.append(repr(error))

    with threads_switching_often():
        threads = [threading.Thread(target=decide_again_and_again, args=(f"t{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


@pytest.mark.anyio
async def test_a_gate_that_nobody_keeps_fresh_remembers_nothing(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate:
        assert gate.decide(client_key(1), ORIGIN).allowed
        assert len(gate.memo) == 1
    assert not gate.memo
    assert gate.decide(client_key(1), ORIGIN).allowed
    assert not gate.memo


@pytest.mark.anyio
async def test_a_change_of_any_key_is_decided_by_at_once(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate:
        for fields, reason in (
            ({}, Reason.ALLOWED),
            ({"disabled_at": "now"}, Reason.KEY_DISABLED),
            ({}, Reason.ALLOWED),
            ({"domain_allowlist": ["globex.com"]}, Reason.ORIGIN_NOT_ALLOWED),
            ({"domain_allowlist": None}, Reason.ALLOWLIST_EMPTY),
            ({"domain_allowlist": ["https://acme.com"]}, Reason.ALLOWED),
            ({"last8": "elsewher"}, Reason.KEY_UNKNOWN),
        ):
            hub.lists(row(1, **fields))
            await gate.refresh()
            assert gate.decide(client_key(1), ORIGIN).reason is reason
            assert gate.decide(client_key(1), ORIGIN).reason is reason


@pytest.mark.anyio
async def test_what_is_remembered_expires_with_the_list(hub: FakeHub) -> None:
    fake = FakeTime()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate:
        await fake.asleep()
        hub.always(Answer(503, headers={"retry-after": "300"}))
        await fake.advance(10)
        assert gate.decide(client_key(1), ORIGIN).allowed
        await fake.advance(89)
        assert gate.decide(client_key(1), ORIGIN).allowed
        await fake.advance(2)
        decision = gate.decide(client_key(1), ORIGIN)
        assert (decision.reason, decision.status, decision.retry_after) == (Reason.EXPIRED, 503, 30)
        assert gate.decide(None, CONFLICT).reason is Reason.EXPIRED
        hub.lists(row(1))
        await gate.refresh()
        assert gate.decide(client_key(1), ORIGIN).allowed


@pytest.mark.anyio
async def test_what_is_remembered_expires_with_the_list_during_a_fetch_that_fails(hub: FakeHub) -> None:
    fake = FakeTime()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate, anyio.create_task_group() as group:
        await fake.asleep()
        assert gate.decide(client_key(1), ORIGIN).allowed
        hub.always(Answer(500, hold=(hold := hub.hold())))
        group.start_soon(gate.refresh)
        await hub.asked(2)
        fake.now += 101
        hold.release()
        await fake.asleep(2)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.EXPIRED


@pytest.mark.anyio
async def test_what_is_decided_at_the_very_moment_of_expiry_does_not_outlive_it(hub: FakeHub) -> None:
    fake = FakeTime()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate:
        await fake.asleep()
        hub.always(Answer(503, headers={"retry-after": "300"}))
        await fake.advance(100)
        gate.decide(client_key(1), ORIGIN)
        await fake.advance(1)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.EXPIRED


# check: starting at the first request, and keys that were minted a moment ago


@asynccontextmanager
async def leaving_nothing_behind() -> AsyncIterator[None]:
    """Assert that no task of asyncio outlives the block."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def asyncio_only(test: Callable[..., Awaitable[None]]) -> Any:
    """Run a test on asyncio alone."""
    return pytest.mark.parametrize("anyio_backend", ["asyncio"])(pytest.mark.anyio(test))


@asyncio_only
async def test_a_gate_starts_itself_at_its_first_request(hub: FakeHub) -> None:
    gate = gate_of(hub)
    assert hub.requests == []
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    assert len(hub.fetches) == 1


@asyncio_only
async def test_a_gate_that_started_itself_goes_on_by_itself(hub: FakeHub) -> None:
    fake = FakeTime()
    gate = gate_of(hub, fake)
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    hub.lists(row(1, disabled_at="now"))
    await fake.advance(10)
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED


@asyncio_only
async def test_a_hundred_first_requests_start_it_once(hub: FakeHub) -> None:
    gate = gate_of(hub)
    decisions = await asyncio.gather(*(gate.check(client_key(1), ORIGIN) for _ in range(100)))
    assert {decision.reason for decision in decisions} == {Reason.ALLOWED}
    assert len(hub.fetches) == 1


@asyncio_only
async def test_the_first_request_does_not_take_its_context_along() -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []
    source = MemorySource(row(1))
    source.on_fetch = lambda: seen.append(user.get())
    user.set("the first to come")
    await Gatekeeper(source).check(client_key(1), ORIGIN)
    assert seen == ["nobody"]


@asyncio_only
async def test_a_first_request_that_is_cancelled_leaves_the_gate_starting(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic)
    with hub.held():
        with anyio.move_on_after(0.05):
            await gate.check(client_key(1), ORIGIN)
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    assert len(hub.fetches) == 1


@pytest.mark.skipif(find_spec("trio") is None, reason="trio is not installed")
@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.anyio
async def test_under_trio_a_gate_starts_only_where_it_is_entered(hub: FakeHub) -> None:
    gate = gate_of(hub)
    assert (await gate.check(client_key(1), ORIGIN)).reason is Reason.NOT_READY
    assert hub.requests == []
    async with gate:
        assert (await gate.check(client_key(1), ORIGIN)).allowed


@pytest.mark.anyio
async def test_a_key_minted_a_moment_ago_works_at_its_first_request(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        hub.lists(row(1), row(2))
        assert (await gate.check(client_key(2), ORIGIN)).allowed
        assert len(hub.fetches) == 2


@pytest.mark.anyio
async def test_a_key_of_another_account_or_of_no_form_at_all_causes_no_fetch(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        for key in ("nonsense", None, CONFLICT, b"\xff" * 1000):
            assert not (await gate.check(key, ORIGIN)).allowed
        assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_known_keys_never_wait_for_the_hub_whatever_is_decided(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        for origin in (ORIGIN, "https://evil.com", "null", None):
            await gate.check(client_key(1), origin)
        assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_unknown_keys_cause_three_fetches_and_then_one_every_five_seconds(hub: FakeHub) -> None:
    fake = FakeTime()
    async with gate_of(hub, fake, refresh_interval=1e6) as gate:
        await fake.asleep()

        async def ask() -> int:
            before = len(hub.fetches)
            for number in range(20, 30):
                assert (await gate.check(client_key(number), ORIGIN)).reason is Reason.KEY_UNKNOWN
            return len(hub.fetches) - before

        assert [await ask(), await ask()] == [3, 0]
        fake.now += 5
        assert await ask() == 1


@pytest.mark.anyio
async def test_a_flood_of_unknown_keys_at_once_shares_one_fetch(hub: FakeHub) -> None:
    async with gate_of(hub, refresh_interval=1e6) as gate, anyio.create_task_group() as group:
        for number in range(20, 120):
            group.start_soon(gate.check, client_key(number), ORIGIN)
        await hub.asked(2)
        await anyio.wait_all_tasks_blocked()
    assert len(hub.fetches) == 2


@pytest.mark.anyio
async def test_beyond_that_an_unknown_key_is_answered_at_once(hub: FakeHub) -> None:
    async with gate_of(hub, unknown_key_wait=30) as gate:
        for _ in range(3):
            await gate.check(STRANGERS_KEY, ORIGIN)
        with hub.held(), anyio.fail_after(15):
            assert (await gate.check(STRANGERS_KEY, ORIGIN)).reason is Reason.KEY_UNKNOWN
    assert len(hub.fetches) == 4


@pytest.mark.anyio
async def test_an_unknown_key_waits_for_a_slow_hub_no_longer_than_allowed(hub: FakeHub) -> None:
    async with gate_of(hub, unknown_key_wait=0.05) as gate:
        with hub.held(), anyio.fail_after(5):
            assert (await gate.check(STRANGERS_KEY, ORIGIN)).reason is Reason.KEY_UNKNOWN


@pytest.mark.anyio
async def test_unknown_keys_need_not_wait_at_all() -> None:
    source, fake = MemorySource(row(1)), FakeTime()
    async with Gatekeeper(source, clock=fake.clock, sleep=fake.sleep, unknown_key_wait=0) as gate:
        source.rows = [row(1), row(2)]
        assert (await gate.check(client_key(2), ORIGIN)).reason is Reason.KEY_UNKNOWN
        await anyio.wait_all_tasks_blocked()
        assert len(source.validators) == 1


@pytest.mark.anyio
async def test_an_unknown_key_stays_unknown_while_the_hub_fails(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        hub.always(Answer(500))
        assert (await gate.check(STRANGERS_KEY, ORIGIN)).reason is Reason.KEY_UNKNOWN
        assert (await gate.check(client_key(1), ORIGIN)).allowed


@pytest.mark.anyio
async def test_a_gate_without_a_list_is_not_ready_and_then_is(hub: FakeHub) -> None:
    fake = FakeTime()
    hub.always(Answer(503))
    async with gate_of(hub, fake, start_timeout=0.01) as gate:
        await fake.asleep()
        states = [gate.status.state]
        for _ in range(2):
            decision = await gate.check(client_key(1), ORIGIN)
            assert (decision.reason, decision.status) == (Reason.NOT_READY, 503)
            fake.now += 1
        hub.lists(row(1))
        await fake.wake()
        assert [*states, gate.status.state] == ["never_loaded", "fresh"]
        assert (await gate.check(client_key(1), ORIGIN)).allowed


@pytest.mark.anyio
async def test_starting_takes_no_longer_than_allowed_and_goes_on_afterwards(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=0.05)
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        with hub.held():
            await stack.enter_async_context(gate)
            assert time.monotonic() - began < 4
            assert gate.decide(client_key(1), ORIGIN).reason is Reason.NOT_READY
        await gate.refresh()
        assert gate.decide(client_key(1), ORIGIN).allowed


@asyncio_only
async def test_requests_wait_for_the_first_list_until_the_start_is_over_and_not_once_each(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=0.1, clock=time.monotonic)
    with hub.held():
        began = time.monotonic()
        for _ in range(20):
            assert (await gate.check(client_key(1), ORIGIN)).reason is Reason.NOT_READY
        assert 0.09 < time.monotonic() - began < 1.5


@asyncio_only
async def test_requests_that_wait_for_the_first_list_are_let_go_by_it(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic)
    with hub.held() as hold:
        asking = [asyncio.create_task(gate.check(client_key(1), ORIGIN)) for _ in range(10)]
        await hub.asked(1)
        hold.release()
        assert {decision.reason for decision in await asyncio.gather(*asking)} == {Reason.ALLOWED}


# async with, lifespan


@pytest.mark.anyio
async def test_an_entered_gate_is_ready(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate as entered:
        assert entered is gate
        assert gate.status.state == "fresh"
        assert gate.decide(client_key(1), ORIGIN).allowed


@asyncio_only
async def test_a_gate_that_was_left_leaves_no_task_behind(hub: FakeHub) -> None:
    async with leaving_nothing_behind():
        async with gate_of(hub, sleep=anyio.sleep) as gate:
            await gate.check(client_key(2), ORIGIN)
        with hub.held():
            async with gate_of(hub, start_timeout=0.01):
                pass


@asyncio_only
async def test_a_gate_that_started_itself_before_it_was_entered_leaves_no_task_behind(hub: FakeHub) -> None:
    gate = gate_of(hub, sleep=anyio.sleep)
    async with leaving_nothing_behind():
        await gate.check(client_key(1), ORIGIN)
        async with gate:
            await gate.check(client_key(1), ORIGIN)


@asyncio_only
async def test_a_gate_that_started_itself_before_it_was_entered_asks_the_hub_no_more_often(hub: FakeHub) -> None:
    fake = FakeTime()
    gate = gate_of(hub, fake)
    await gate.check(client_key(1), ORIGIN)
    await fake.asleep()
    async with gate:
        await fake.asleep()
        before = len(hub.fetches)
        assert before <= 2
        await fake.advance(100)
        assert len(hub.fetches) - before <= 10


@pytest.mark.anyio
async def test_a_gate_that_was_left_asks_the_hub_no_more_and_says_how_old_its_list_is(hub: FakeHub) -> None:
    fake = FakeTime()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate:
        pass
    fake.now += 99
    assert gate.decide(client_key(1), ORIGIN).allowed
    fake.now += 2
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.EXPIRED
    assert (gate.status.state, gate.status.age) == ("expired", 101)
    assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_a_gate_can_be_entered_again(hub: FakeHub) -> None:
    gate = gate_of(hub)
    for number in range(1, 4):
        async with gate:
            await gate.refresh()
            assert gate.decide(client_key(1), ORIGIN).allowed
        assert len(hub.fetches) == 2 * number


@pytest.mark.anyio
@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), ExceptionGroup("x", [OSError()])])
async def test_what_is_raised_inside_comes_out_as_it_is(hub: FakeHub, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with gate_of(hub):
            raise error
    assert caught.value is error


@pytest.mark.anyio
async def test_an_outer_deadline_goes_through_a_gate(hub: FakeHub) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with gate_of(hub):
            await anyio.sleep(5)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_starting_can_be_cancelled(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=30)
    with hub.held():
        with anyio.move_on_after(0.05) as scope:
            async with gate:
                pytest.fail("there is no list to start with")
        assert scope.cancelled_caught
    async with gate:
        assert gate.decide(client_key(1), ORIGIN).allowed


@asyncio_only
async def test_a_gate_whose_start_was_cancelled_leaves_no_task_behind(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=30)
    async with leaving_nothing_behind():
        with hub.held(), anyio.move_on_after(0.05):
            async with gate:
                pytest.fail("there is no list to start with")
        async with gate:
            pass


@asyncio_only
async def test_a_gate_that_is_left_by_cancellation_leaves_no_task_behind(hub: FakeHub) -> None:
    async with leaving_nothing_behind():
        with anyio.move_on_after(0.05):
            async with gate_of(hub):
                await anyio.sleep(5)


@asyncio_only
async def test_a_gate_that_is_entered_while_another_task_leaves_it_runs() -> None:
    class SlowToClose(MemorySource):
        @asynccontextmanager
        async def connect(self) -> AsyncIterator[Fetch]:
            async with super().connect() as fetch:
                try:
                    yield fetch
                finally:
                    await may_close.wait()

    may_close = anyio.Event()
    source, fake = SlowToClose(row(1)), FakeTime()
    gate = Gatekeeper(source, clock=fake.clock, sleep=fake.sleep, jitter=fake.dice)
    await gate.__aenter__()
    await fake.asleep()
    leaving = asyncio.create_task(gate.__aexit__(None, None, None))
    await anyio.wait_all_tasks_blocked()
    entering = asyncio.create_task(gate.__aenter__())
    await anyio.wait_all_tasks_blocked()
    may_close.set()
    await leaving
    await entering
    source.rows = [row(1, disabled_at="now")]
    with anyio.move_on_after(5):
        await fake.advance(20)
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED, "nobody refreshes"
    await gate.__aexit__(None, None, None)


@pytest.mark.anyio
async def test_a_gate_that_is_entered_twice_runs_once_and_until_it_is_left_twice(hub: FakeHub) -> None:
    fake = FakeTime()
    gate = gate_of(hub, fake)
    async with gate:
        await fake.asleep()
        async with gate:
            assert gate.decide(client_key(1), ORIGIN).allowed
            assert len(hub.fetches) == 1
        hub.lists(row(1, disabled_at="now"))
        await fake.advance(10)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED
    assert len(hub.fetches) == 2


@pytest.mark.parametrize("first_to_leave", [0, 1])
@asyncio_only  # under trio, the task that starts another one has to stop it
async def test_two_tasks_may_use_a_gate_at_once_whoever_leaves_first(hub: FakeHub, first_to_leave: int) -> None:
    gate = gate_of(hub)
    may_leave = [anyio.Event(), anyio.Event()]
    have_left = [anyio.Event(), anyio.Event()]

    async def use(number: int) -> None:
        async with gate:
            assert gate.decide(client_key(1), ORIGIN).allowed
            await may_leave[number].wait()
        have_left[number].set()

    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(use, number)
                await hub.asked(1)
                await anyio.wait_all_tasks_blocked()
            for number in (first_to_leave, 1 - first_to_leave):
                may_leave[number].set()
                await have_left[number].wait()
    assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_a_lifespan_runs_the_gate(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate.lifespan(object()):
        assert gate.decide(client_key(1), ORIGIN).allowed
        hub.lists(row(1), row(2))
        assert (await gate.check(client_key(2), ORIGIN)).allowed
    assert not gate.memo


@pytest.mark.anyio
async def test_an_app_runs_the_gate_as_its_lifespan(hub: FakeHub) -> None:
    gate = gate_of(hub)
    app = Starlette(lifespan=gate.lifespan)
    async with app.router.lifespan_context(app):
        assert gate.status.state == "fresh"
    assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_a_gate_of_rows_needs_no_starting_and_bears_it() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    async with gate, gate.lifespan(object()):
        assert (await gate.refresh()).outcome == "unchanged"
        assert (await gate.check(STRANGERS_KEY, ORIGIN)).reason is Reason.KEY_UNKNOWN
    assert gate.decide(client_key(1), ORIGIN).allowed
    assert gate.status.state == "fresh"


def test_rows_that_never_change_never_expire() -> None:
    fake = FakeTime()
    gate = Gatekeeper(StaticSource([row(1)]), clock=fake.clock, soft_stale=1, hard_stale=2)
    fake.now += 1e9
    assert gate.status.state == "fresh"
    assert gate.decide(client_key(1), ORIGIN).allowed


def test_rows_that_look_alike_show_in_the_status() -> None:
    assert DECIDED.status.ambiguous == ("ambigous",)
    assert DECIDED.status.keys == 7


@asyncio_only
async def test_a_refresher_that_somebody_cancels_is_started_again_by_the_next_request() -> None:
    source = MemorySource(row(1))
    fake = FakeTime()
    gate = Gatekeeper(source, clock=fake.clock, sleep=fake.sleep)
    async with leaving_nothing_behind(), gate:
        source.broken = asyncio.CancelledError()
        await gate.refresh()
        source.broken, source.rows = None, [row(2)]
        assert (await gate.check(client_key(2), ORIGIN)).allowed
        await fake.asleep()


# Loops, threads, processes


async def check_once(gate: Gatekeeper, number: int = 1) -> Decision:
    return await gate.check(client_key(number), ORIGIN)


def test_one_event_loop_after_the_other_refreshes_for_itself(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    assert asyncio.run(check_once(gate)).allowed
    hub.lists(row(1), row(2))
    assert asyncio.run(check_once(gate, 2)).allowed
    assert not gate.memo

    async def enter() -> Decision:
        async with gate:
            return await check_once(gate, 2)

    assert asyncio.run(enter()).allowed
    assert asyncio.run(enter()).allowed


def test_a_new_event_loop_decides_from_what_is_known_before_its_own_first_list(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=30, clock=time.monotonic, sleep=anyio.sleep)
    assert asyncio.run(check_once(gate)).allowed
    with hub.held():
        began = time.monotonic()
        assert asyncio.run(check_once(gate)).allowed
        assert time.monotonic() - began < 10


def test_an_event_loop_that_is_closed_in_mid_fetch_harms_no_other(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=0.05, clock=time.monotonic, sleep=anyio.sleep)
    with hub.held():
        assert asyncio.run(check_once(gate)).reason is Reason.NOT_READY

    async def refresh() -> None:
        await gate.refresh()
        assert (await check_once(gate)).allowed

    asyncio.run(refresh())


def test_two_event_loops_in_two_threads_share_what_they_know(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    both_are_in = threading.Barrier(2, timeout=5)
    decisions: list[list[bool]] = []

    async def use() -> None:
        seen = [(await check_once(gate)).allowed]
        await anyio.to_thread.run_sync(both_are_in.wait)
        seen.append((await check_once(gate)).allowed)
        await gate.refresh()
        seen.append((await check_once(gate)).allowed)
        await anyio.to_thread.run_sync(both_are_in.wait)
        decisions.append(seen)

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert decisions == [[True, True, True]] * 2
    assert not gate.memo


def test_a_gate_is_kept_fresh_as_long_as_one_of_its_loops_runs(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    remembered: list[int] = []

    async def stay() -> None:
        await check_once(gate)
        await anyio.to_thread.run_sync(lambda: asyncio.run(check_once(gate)))
        await check_once(gate)
        remembered.append(len(gate.memo))

    asyncio.run(stay())
    assert remembered == [1]


def test_a_late_list_of_one_loop_does_not_undo_a_revocation_that_another_has_seen(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    hold = hub.hold()
    decisions: list[Reason] = []

    async def see_the_revocation() -> None:
        await check_once(gate)
        await gate.refresh()
        decisions.append((await check_once(gate)).reason)

    async def be_late() -> None:
        await check_once(gate)
        hub.then(Answer(200, as_json(row(1), row(2)), hold=hold))
        asked = len(hub.fetches)
        late = asyncio.create_task(gate.refresh())
        await hub.asked(asked + 1)
        hub.lists(row(1, disabled_at="now"))
        await anyio.to_thread.run_sync(lambda: asyncio.run(see_the_revocation()))
        hold.release()
        await late
        decisions.append((await check_once(gate)).reason)

    asyncio.run(be_late())
    assert decisions == [Reason.KEY_DISABLED, Reason.KEY_DISABLED]


class Stuck(logging.Handler):
    """A log that is stuck at the first record that it gets, until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stuck, self.may_go_on = threading.Event(), threading.Event()

    def emit(self, _: logging.LogRecord) -> None:
        self.is_stuck.set()
        self.may_go_on.wait(15)


def test_a_late_list_undoes_no_revocation_that_another_loop_has_applied_and_is_still_telling_about(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic, sleep=anyio.sleep)
    log, hold = Stuck(), hub.hold()
    reasons: list[Reason] = []

    async def be_late() -> None:
        await check_once(gate)
        hub.then(Answer(200, as_json(row(1), row(2)), hold=hold))
        asked = len(hub.fetches)
        late = asyncio.create_task(gate.refresh())
        await hub.asked(asked + 1)
        hub.lists(row(1, disabled_at="now"), *(row(number) for number in range(10, 20)), bad_row(20))
        other = threading.Thread(target=lambda: asyncio.run(gate.refresh()))
        other.start()
        await anyio.to_thread.run_sync(log.is_stuck.wait, 15)
        reasons.append(gate.decide(client_key(1), ORIGIN).reason)
        hold.release()
        await late
        reasons.append(gate.decide(client_key(1), ORIGIN).reason)
        log.may_go_on.set()
        await anyio.to_thread.run_sync(other.join)

    logging.getLogger("gatekeeper").addHandler(log)
    try:
        asyncio.run(be_late())
    finally:
        log.may_go_on.set()
        logging.getLogger("gatekeeper").removeHandler(log)
    assert reasons == [Reason.KEY_DISABLED, Reason.KEY_DISABLED]


def test_event_loops_in_threads_that_refresh_at_once_never_fail_each_other() -> None:
    lists = [
        [row(number, disabled_at=number % 3 == which or None) for number in range(20 * which + 50)] for which in range(3)
    ]
    source = MemorySource(*lists[0])
    source.on_fetch = lambda: setattr(source, "rows", lists[len(source.validators) % 3])
    gate = Gatekeeper(source)
    outcomes: set[str] = set()
    end = time.monotonic() + 1

    async def refresh_again_and_again() -> None:
        while time.monotonic() < end:
            outcomes.add((await gate.refresh()).outcome)

    with threads_switching_often():
        threads = [threading.Thread(target=lambda: asyncio.run(refresh_again_and_again())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (outcomes - {"changed", "unchanged"}, gate.status.last_error) == (set(), None)
    source.on_fetch = lambda: None
    for rows in [*lists, *lists]:
        source.rows = rows
        asyncio.run(gate.refresh())
        for number in range(50):
            assert gate.decide(client_key(number), ORIGIN).allowed == (rows[number]["disabled_at"] is None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_remembers_nothing_and_refreshes_for_itself() -> None:
    source = MemorySource(row(1))
    gate = Gatekeeper(source)

    def in_child() -> None:
        assert not gate.memo, "it remembers what its parent decided"
        assert gate.decide(client_key(1), ORIGIN).allowed
        assert not gate.memo, "it remembers although nobody refreshes"
        fetched = len(source.validators)
        source.rows = [row(1, disabled_at="now")]
        gate.forget()

        async def use() -> None:
            await gate.refresh()
            assert len(source.validators) > fetched
            assert (await check_once(gate)).reason is Reason.KEY_DISABLED
            assert len(gate.memo) == 1

        asyncio.run(use())

    async def fork_while_running() -> str:
        assert (await check_once(gate)).allowed
        assert len(gate.memo) == 1
        said = forked(in_child)
        assert len(gate.memo) == 1
        assert (await check_once(gate)).allowed
        return said

    assert asyncio.run(fork_while_running()) == "well"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_is_forked_while_a_thread_decides_can_decide() -> None:
    gate = Gatekeeper(MemorySource(row(1)))
    is_deciding, may_go_on = threading.Event(), threading.Event()

    class Slow(Memo):
        def __setitem__(self, *entry: Any) -> None:
            is_deciding.set()
            may_go_on.wait(5)

    def in_child() -> None:
        signal.alarm(10)

        async def use() -> None:
            await gate.refresh()
            assert (await check_once(gate)).allowed
            assert len(gate.memo) == 1

        asyncio.run(use())

    async def fork_while_deciding() -> str:
        await check_once(gate)
        gate.memo = Slow(Tally())
        thread = threading.Thread(target=gate.decide, args=(client_key(1), ORIGIN))
        thread.start()
        is_deciding.wait(5)
        said = forked(in_child)
        may_go_on.set()
        thread.join()
        return said

    assert asyncio.run(fork_while_deciding()) == "well"


def forked(do: Callable[[], None]) -> str:
    """Do something in a child process, and give what it says: "well", a traceback, or nothing where it hangs."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that the child of a process with threads may deadlock
        child = os.fork()
    if not child:
        said = "it ended otherwise"
        try:
            do()
            said = "well"
        except BaseException:  # noqa: BLE001 - nothing may get out of here
            said = traceback.format_exc()
        finally:
            with contextlib.suppress(OSError):
                os.write(write_end, said.encode()[-4000:])
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


# Status, refresh, options


@pytest.mark.anyio
async def test_the_status_tells_how_fresh_the_list_is_and_what_happened_to_it(hub: FakeHub) -> None:
    fake = FakeTime()
    rows = [row(1), row(2, last8="00000001"), *(row(number) for number in range(3, 11))]
    hub.lists(*rows, bad_row(11), etag='"1"')
    gate = gate_of(hub, fake)
    before = gate.status
    assert (before.state, before.age, before.keys, before.generation, before.etag) == ("never_loaded", None, 0, 0, None)
    assert (before.last_error, before.ambiguous, before.rejected, before.counters) == (None, (), (), {})
    async with gate:
        await fake.asleep()
        hub.then(json_answer("Invalid token", 401))
        await fake.advance(10)
        status = gate.status
        assert (status.state, status.age, status.keys, status.generation, status.etag) == ("fresh", 10, 10, 1, '"1"')
        assert status.ambiguous == ("00000001",)
        assert [problem.split(":")[0] for problem in status.rejected] == ["row 10 (id 'key-11')"]
        assert status.last_error is not None
        assert "Invalid token" in status.last_error
        assert TOKEN not in str(status)
        assert status.counters["refresh_changed"] == 1
        assert status.counters["refresh_failed"] == 1
        assert status.counters["rows_rejected"] == 1
        await gate.refresh()
        assert (gate.status.last_error, gate.status.age) == (None, 0)
        fake.now += 61
        assert gate.status.state == "degraded"
        assert gate.decide(client_key(3), ORIGIN).allowed


@asyncio_only
async def test_a_refresh_starts_the_gate_if_need_be(hub: FakeHub) -> None:
    gate = gate_of(hub)
    report = await gate.refresh()
    assert report.outcome in {"changed", "unchanged"}
    assert gate.decide(client_key(1), ORIGIN).allowed


@pytest.mark.anyio
async def test_a_refresh_reports_a_failure_and_raises_nothing(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        hub.always(Answer(404))
        report = await gate.refresh()
        assert (report.outcome, report.lasting) == ("failed", True)
        assert gate.decide(client_key(1), ORIGIN).allowed


@pytest.mark.anyio
async def test_a_gate_knows_the_allowlists_of_its_keys_and_what_they_allow_together(hub: FakeHub) -> None:
    hub.lists(row(1), row(2, domain_allowlist=["*.globex.com"]), row(3, domain_allowlist=["x.com"], disabled_at="now"))
    async with gate_of(hub) as gate:
        first, second = (gate.decide(client_key(number), "https://a.globex.com").key for number in (1, 2))
        assert first is not None
        assert second is not None
        allowlist = gate.allowlist(second)
        assert allowlist is not None
        assert allowlist.patterns == ("*.globex.com",)
        together = gate.enabled_origins()
        origins = [Origin.parse(text) for text in (ORIGIN, "https://a.globex.com", "https://x.com")]
        assert [together.allows(origin) for origin in origins] == [True, True, False]
        hub.lists(row(1))
        await gate.refresh()
        assert gate.allowlist(second) is None
        assert [together.allows(origin) for origin in origins] == [True, False, False]


@pytest.mark.anyio
async def test_a_gate_over_a_file_follows_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    fake = FakeTime()
    gate = Gatekeeper(FileSource(path), clock=fake.clock, sleep=fake.sleep, jitter=fake.dice, start_timeout=0.01)
    async with gate:
        await fake.asleep()
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.NOT_READY
        assert gate.status.last_error is not None
        assert "rows.json" in gate.status.last_error
        path.write_bytes(as_json(row(1)))
        await fake.wake()
        assert gate.decide(client_key(1), ORIGIN).allowed
        path.with_suffix(".new").write_bytes(as_json(row(1, disabled_at="now")))
        path.with_suffix(".new").replace(path)
        await fake.wake()
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED
        path.write_bytes(as_json(row(1, disabled_at="now"))[:-7])
        await fake.wake()
        path.unlink()
        await fake.wake()
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED
        assert gate.status.counters["refresh_failed"] == 3


@asyncio_only
async def test_a_gate_over_the_reference_hub_lets_a_new_key_in_and_a_revoked_one_out(tmp_path: Path) -> None:
    with served_hub(tmp_path) as served, HubClient(served.url, served.token) as client:
        async with Gatekeeper(HubSource(served.url, served.token), unknown_key_wait=5) as gate:
            created = await anyio.to_thread.run_sync(
                lambda: client.widget_keys.create("shop", domain_allowlist=["acme.com"], agent_id="agent-7")
            )
            decision = await gate.check(created.public_key, ORIGIN)
            assert (decision.reason, decision.agent_id) == (Reason.ALLOWED, "agent-7")
            forged = created.public_key[:-9] + "x" + created.public_key[-8:]
            assert (await gate.check(forged, ORIGIN)).reason is Reason.KEY_UNKNOWN
            await anyio.to_thread.run_sync(lambda: client.widget_keys.update(created.id, disabled=True))
            await gate.refresh()
            assert (await gate.check(created.public_key, ORIGIN)).reason is Reason.KEY_DISABLED
            assert gate.status.etag is not None
            assert (await gate.refresh()).outcome == "unchanged"


def test_wrong_options_are_all_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Gatekeeper(
            "https://hub.example",  # type: ignore[arg-type]
            refresh_interval=0,
            key_prefix="pk_ü",
            unknown_key_wait=-1,
            start_timeout=-0.5,
            soft_stale=-1,
            hard_stale=-1,
            fetch_timeout=True,
        )
    assert str(caught.value).startswith("gatekeeper: ")
    assert sorted(problem.split()[0] for problem in caught.value.problems) == [
        "fetch_timeout",
        "hard_stale",
        "key_prefix",
        "refresh_interval",
        "soft_stale",
        "source",
        "start_timeout",
        "unknown_key_wait",
    ]


@pytest.mark.parametrize("value", [float("nan"), None, "10", True])
@pytest.mark.parametrize(
    "name", ["refresh_interval", "fetch_timeout", "soft_stale", "unknown_key_wait", "start_timeout", "hard_stale"]
)
def test_seconds_are_a_number(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        Gatekeeper(MemorySource(), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"unknown_key_wait": 0}, {"start_timeout": 0}, {"hard_stale": 0}])
def test_some_seconds_may_be_none_at_all(options: dict[str, Any]) -> None:
    Gatekeeper(MemorySource(), **options)


@pytest.mark.parametrize("prefix", [None, 7, "pk_ü", b"pk_live_"])
def test_a_key_prefix_is_ascii_text(prefix: Any) -> None:
    with pytest.raises(ConfigError, match="key_prefix"):
        Gatekeeper(MemorySource(), key_prefix=prefix)


def test_rows_that_are_no_widget_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"row 1 \(id 'key-2'\)"):
        Gatekeeper.from_rows([row(1), bad_row(2)])


@pytest.mark.anyio
async def test_a_key_of_another_account_never_makes_the_gate_ask_the_hub(hub: FakeHub) -> None:
    gate = Gatekeeper(HubSource(hub.url, "sk_live_acme_x"), refresh_interval=3600)
    async with gate:
        asked = len(hub.fetches)
        for number in range(5):
            decision = await gate.check(f"pk_live_other_{number:08}", ORIGIN)
            assert decision.reason is Reason.KEY_UNKNOWN
        assert len(hub.fetches) == asked
