"""Gatekeeper: decisions, start, refreshes, status and options."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import ConfigError, FileSource, Gatekeeper, HubClient, HubSource, Origin, Reason, StaticSource
from gatekeeper.gate.decisions import CONFLICT
from gatekeeper.gate.memo import MOST_ALLOWED, MOST_REFUSED
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer, json_answer
from tests.support.guarded import gate_of
from tests.support.loops import asyncio_only
from tests.support.memory_source import MemorySource
from tests.support.real_hub import served_hub
from tests.support.rows import ORIGIN, TOKEN, as_json, bad_row, client_key, row

STRANGERS_KEY = client_key(99)


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
    for _ in range(2):  # the second decision may be remembered
        decision = gate.decide(key, origin, referer=referer)
        assert decision.reason is reason
        assert decision.status == reason.status


def test_the_cases_cover_every_reason_of_a_loaded_list() -> None:
    of_frames = {Reason.NOT_FRAMED, Reason.GRANT_FOREIGN, Reason.GRANT_INVALID, Reason.GRANT_EXPIRED}
    assert {reason for reason, *_ in CASES} == set(Reason) - {Reason.NOT_READY, Reason.EXPIRED} - of_frames


@pytest.mark.parametrize("key", [None, "nonsense", CONFLICT, STRANGERS_KEY, client_key(1)])
def test_without_a_list_nothing_else_is_checked(key: Any) -> None:
    decision = Gatekeeper(MemorySource(row(1))).decide(key, ORIGIN)
    assert (decision.reason, decision.status, decision.retry_after) == (Reason.NOT_READY, 503, 2)
    assert decision.origin == ORIGIN


def test_an_allowed_decision_names_the_pattern() -> None:
    decision = DECIDED.decide(client_key(7), "http://localhost:5173")
    assert decision.allowed
    assert (decision.matched, decision.origin, decision.last8) == ("localhost:*", "http://localhost:5173", "00000007")
    assert decision.key is not None
    assert decision.key.id == "key-7"


def test_a_decision_has_the_pinned_agent_of_its_key() -> None:
    assert DECIDED.decide(client_key(1), ORIGIN).agent_id == "agent-7"
    assert DECIDED.decide(client_key(1), "https://evil.com").agent_id == "agent-7"
    assert DECIDED.decide(STRANGERS_KEY, ORIGIN).agent_id is None


def test_a_refusal_names_the_origin_seen() -> None:
    assert DECIDED.decide(client_key(1), "https://evil.com").origin == "https://evil.com"
    assert DECIDED.decide(client_key(1), "null").origin == "null"
    assert DECIDED.decide(client_key(1), "https://acme.com/").origin is None
    assert DECIDED.decide(client_key(1), None, referer="https://Evil.com:443/page").origin == "https://evil.com"


def nested(depth: int) -> list[Any]:
    lists: list[Any] = []
    for _ in range(depth):
        lists = [lists]
    return lists


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value",
    [5, 0.5, False, [client_key(1)], {"key": client_key(1)}, 10**5000, nested(9999)],
    ids=["number", "fraction", "bool", "list", "object", "huge number", "nested lists"],
)
async def test_a_value_of_a_json_body_that_is_no_text_is_malformed(value: Any) -> None:
    """A handler passes on what it has found in the body of the request."""
    assert DECIDED.decide(value, ORIGIN).reason is Reason.KEY_MALFORMED
    assert (await DECIDED.check(value, ORIGIN)).reason is Reason.KEY_MALFORMED
    assert DECIDED.decide(client_key(1), value).reason is Reason.ORIGIN_MALFORMED
    assert DECIDED.decide(client_key(1), None, referer=value).reason is Reason.ORIGIN_MALFORMED
    assert Gatekeeper.from_rows([], key_prefix="").decide(value, ORIGIN).reason is Reason.KEY_MALFORMED
    granting = Gatekeeper.from_rows([], grant_secrets=["0123456789abcdef"])
    assert granting.decide(None, None, grant=value).reason is Reason.GRANT_INVALID


@pytest.mark.parametrize(("reason", "key", "origin", "referer"), CASES)
def test_no_answer_shows_more_of_a_key_than_its_last_8_characters(
    reason: Reason, key: Any, origin: Any, referer: Any
) -> None:
    answer = DECIDED.decide(key, origin, referer=referer).problem_json()
    assert reason.encode() in answer
    assert not key or key is CONFLICT or (key if isinstance(key, bytes) else key.encode(errors="replace")) not in answer


def test_http_pages_are_refused_where_the_gate_requires_https() -> None:
    gate = Gatekeeper.from_rows([row(1, domain_allowlist=["acme.com", "localhost:*"])], https_only=True)
    assert gate.https_only
    assert gate.decide(client_key(1), "https://acme.com").allowed
    assert gate.decide(client_key(1), "http://acme.com").reason is Reason.ORIGIN_NOT_ALLOWED
    assert gate.decide(client_key(1), "http://localhost:5173").allowed


def test_the_key_prefix_is_an_option() -> None:
    gate = Gatekeeper.from_rows([row(1)], key_prefix="wk_")
    assert gate.decide("wk_acme_00000001", ORIGIN).allowed
    assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_MALFORMED


def test_the_account_of_the_gate_overrides_that_of_its_source() -> None:
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
def test_any_input_is_decided(key: Any, origin: Any, referer: Any) -> None:
    first = DECIDED.decide(key, origin, referer=referer)
    assert isinstance(first.reason, Reason)
    assert first.problem_json()
    assert DECIDED.decide(key, origin, referer=referer) == first
    assert len(DECIDED.memo) <= MOST_ALLOWED + MOST_REFUSED


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


# check: start at the first request, and new keys


@pytest.mark.anyio
async def test_a_new_key_works_at_its_first_request(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        hub.lists(row(1), row(2))
        assert (await gate.check(client_key(2), ORIGIN)).allowed
        assert len(hub.fetches) == 2


@pytest.mark.anyio
async def test_a_malformed_or_foreign_key_causes_no_fetch(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        for key in ("nonsense", None, CONFLICT, b"\xff" * 1000):
            assert not (await gate.check(key, ORIGIN)).allowed
        assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_known_keys_never_wait_for_the_hub(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        for origin in (ORIGIN, "https://evil.com", "null", None):
            await gate.check(client_key(1), origin)
        assert len(hub.fetches) == 1


@pytest.mark.anyio
async def test_unknown_keys_cause_three_fetches_and_then_one_every_five_seconds(hub: FakeHub) -> None:
    fake = FakeClock()
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
async def test_concurrent_unknown_keys_share_one_fetch(hub: FakeHub) -> None:
    async with gate_of(hub, refresh_interval=1e6) as gate, anyio.create_task_group() as group:
        for number in range(20, 120):
            group.start_soon(gate.check, client_key(number), ORIGIN)
        await hub.asked(2)
        await anyio.wait_all_tasks_blocked()
    assert len(hub.fetches) == 2


@pytest.mark.anyio
async def test_beyond_the_budget_an_unknown_key_is_refused_immediately(hub: FakeHub) -> None:
    async with gate_of(hub, unknown_key_wait=4.9) as gate:
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
    source, fake = MemorySource(row(1)), FakeClock()
    async with Gatekeeper(source, clock=fake, sleep=fake.sleep, unknown_key_wait=0) as gate:
        source.rows = [row(1), row(2)]
        assert (await gate.check(client_key(2), ORIGIN)).reason is Reason.KEY_UNKNOWN
        await anyio.wait_all_tasks_blocked()
        assert len(source.validators) == 1


@pytest.mark.anyio
async def test_an_unknown_key_stays_unknown_while_the_hub_fails(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        hub.always(HubAnswer(500))
        assert (await gate.check(STRANGERS_KEY, ORIGIN)).reason is Reason.KEY_UNKNOWN
        assert (await gate.check(client_key(1), ORIGIN)).allowed


@pytest.mark.anyio
async def test_a_gate_is_not_ready_until_its_first_list(hub: FakeHub) -> None:
    fake = FakeClock()
    hub.always(HubAnswer(503))
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
async def test_a_start_times_out_and_goes_on_in_the_background(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=0.05)
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        with hub.held():
            await stack.enter_async_context(gate)
            assert time.monotonic() - began < 30
            assert gate.decide(client_key(1), ORIGIN).reason is Reason.NOT_READY
        await gate.refresh()
        assert gate.decide(client_key(1), ORIGIN).allowed


@asyncio_only
async def test_requests_share_one_start_timeout(hub: FakeHub) -> None:
    gate = gate_of(hub, start_timeout=0.5, clock=time.monotonic)
    with hub.held():
        began = time.monotonic()
        for _ in range(20):
            assert (await gate.check(client_key(1), ORIGIN)).reason is Reason.NOT_READY
        assert 0.45 < time.monotonic() - began < 9  # one after the other they would wait for 10 s


@asyncio_only
async def test_the_first_list_releases_waiting_requests(hub: FakeHub) -> None:
    gate = gate_of(hub, clock=time.monotonic)
    with hub.held() as hold:
        asking = [asyncio.create_task(gate.check(client_key(1), ORIGIN)) for _ in range(10)]
        await hub.asked(1)
        hold.release()
        assert {decision.reason for decision in await asyncio.gather(*asking)} == {Reason.ALLOWED}


@pytest.mark.anyio
async def test_a_gate_of_static_rows_need_not_be_started() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    assert (await gate.check(client_key(1), ORIGIN)).allowed
    async with gate, gate.lifespan(object()):
        assert (await gate.refresh()).outcome == "unchanged"
        assert (await gate.check(STRANGERS_KEY, ORIGIN)).reason is Reason.KEY_UNKNOWN
    assert gate.decide(client_key(1), ORIGIN).allowed
    assert gate.status.state == "fresh"


def test_static_rows_never_expire() -> None:
    fake = FakeClock()
    gate = Gatekeeper(StaticSource([row(1)]), clock=fake, soft_stale=1, hard_stale=2)
    fake.now += 1e9
    assert gate.status.state == "fresh"
    assert gate.decide(client_key(1), ORIGIN).allowed


def test_ambiguous_rows_are_in_the_status() -> None:
    assert DECIDED.status.ambiguous == ("ambigous",)
    assert DECIDED.status.keys == 7


# Status, refresh, options


@pytest.mark.anyio
async def test_the_status_has_the_freshness_and_history_of_the_list(hub: FakeHub) -> None:
    fake = FakeClock()
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
async def test_a_refresh_starts_the_gate(hub: FakeHub) -> None:
    gate = gate_of(hub)
    report = await gate.refresh()
    assert report.outcome in {"changed", "unchanged"}
    assert gate.decide(client_key(1), ORIGIN).allowed


@pytest.mark.anyio
async def test_a_refresh_reports_a_failure_and_raises_nothing(hub: FakeHub) -> None:
    async with gate_of(hub) as gate:
        hub.always(HubAnswer(404))
        report = await gate.refresh()
        assert (report.outcome, report.lasting) == ("failed", True)
        assert gate.decide(client_key(1), ORIGIN).allowed


@pytest.mark.anyio
async def test_a_gate_has_the_allowlists_of_its_keys(hub: FakeHub) -> None:
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
    fake = FakeClock()
    gate = Gatekeeper(FileSource(path), clock=fake, sleep=fake.sleep, jitter=lambda: 0.5, start_timeout=0.01)
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
async def test_a_gate_follows_the_reference_hub(tmp_path: Path) -> None:
    with served_hub(tmp_path) as served, HubClient(served.url, served.token) as client:
        async with Gatekeeper(HubSource(served.url, served.gate_token), unknown_key_wait=5) as gate:
            created = await anyio.to_thread.run_sync(
                lambda: client.widget_keys.create("shop", domain_allowlist=["acme.com"], agent_id="agent-7")
            )
            decision = await gate.check(created.public_key, ORIGIN)
            assert (decision.reason, decision.agent_id) == (Reason.ALLOWED, "agent-7")
            other = "y" if created.public_key[-9] == "x" else "x"
            forged = created.public_key[:-9] + other + created.public_key[-8:]
            assert (await gate.check(forged, ORIGIN)).reason is Reason.KEY_UNKNOWN
            await anyio.to_thread.run_sync(lambda: client.widget_keys.update(created.id, disabled=True))
            await gate.refresh()
            assert (await gate.check(created.public_key, ORIGIN)).reason is Reason.KEY_DISABLED
            assert gate.status.etag is not None
            assert (await gate.refresh()).outcome == "unchanged"


def test_all_wrong_options_are_named_together() -> None:
    address: Any = "https://hub.example"
    with pytest.raises(ConfigError) as caught:
        Gatekeeper(
            address,
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
def test_seconds_must_be_a_number(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Gatekeeper(MemorySource(), **{name: value})


@pytest.mark.parametrize("options", [{"unknown_key_wait": 0}, {"start_timeout": 0}, {"hard_stale": 0}])
def test_some_seconds_may_be_0(options: dict[str, Any]) -> None:
    Gatekeeper(MemorySource(), **options)


@pytest.mark.parametrize("prefix", [None, 7, "pk_ü", b"pk_live_"])
def test_a_key_prefix_must_be_ascii_text(prefix: Any) -> None:
    with pytest.raises(ConfigError, match="key_prefix"):
        Gatekeeper(MemorySource(), key_prefix=prefix)


def test_invalid_static_rows_are_named() -> None:
    with pytest.raises(ConfigError, match=r"row 1 \(id 'key-2'\)"):
        Gatekeeper.from_rows([row(1), bad_row(2)])


@pytest.mark.anyio
async def test_a_key_of_another_account_causes_no_fetch(hub: FakeHub) -> None:
    gate = Gatekeeper(HubSource(hub.url, "sk_live_acme_x"), refresh_interval=3600)
    async with gate:
        asked = len(hub.fetches)
        for number in range(5):
            decision = await gate.check(f"pk_live_other_{number:08}", ORIGIN)
            assert decision.reason is Reason.KEY_UNKNOWN
        assert len(hub.fetches) == asked


@pytest.mark.anyio
async def test_during_a_flood_a_new_key_waits_for_the_next_fetch_allowed(hub: FakeHub) -> None:
    """Unknown keys have used up the budget, and the next token comes within `unknown_key_wait`."""
    fake = FakeClock()
    async with gate_of(hub, fake, refresh_interval=1e6, unknown_key_wait=0.5) as gate, anyio.create_task_group() as group:
        await fake.asleep()
        for _ in range(5):
            await gate.check(STRANGERS_KEY, ORIGIN)
        asked = len(hub.fetches)
        hub.lists(row(1), row(2))
        fake.now += 4
        assert (await gate.check(client_key(2), ORIGIN)).reason is Reason.KEY_UNKNOWN
        fake.now += 0.75
        gate._lists.all[0].new_keys.wait = 15  # the fetch takes real time
        reasons: list[Reason] = []

        async def ask(key: str) -> None:
            reasons.append((await gate.check(key, ORIGIN)).reason)

        slept = len(fake.sleeps)
        group.start_soon(ask, client_key(2))
        group.start_soon(ask, client_key(2))
        await fake.asleep(slept + 2)
        assert fake.sleeps[slept:] == pytest.approx([0.25, 0.25])
        assert len(hub.fetches) == asked
        fake.now += 0.2500001
        await fake.wake_all()
        await hub.asked(asked + 1)
        with anyio.fail_after(15):
            while len(reasons) < 2:  # noqa: ASYNC110 - two tasks end
                await anyio.sleep(0.01)
        assert (reasons, len(hub.fetches)) == ([Reason.ALLOWED] * 2, asked + 1)
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_unknown_keys_leave_a_hub_alone_that_asks_for_it(hub: FakeHub) -> None:
    """Only `gate.refresh()` goes before the time that Retry-After gives."""
    fake = FakeClock()
    async with gate_of(hub, fake) as gate:
        await fake.asleep()
        hub.always(HubAnswer(429, headers={"retry-after": "300"}))
        await gate.refresh()
        asked = len(hub.fetches)
        for number in range(20, 30):
            fake.now += 2
            assert (await gate.check(client_key(number), ORIGIN)).reason is Reason.KEY_UNKNOWN
        assert len(hub.fetches) == asked
        hub.lists(row(1), row(20))
        assert (await gate.refresh()).outcome == "changed"
        assert (await gate.check(client_key(20), ORIGIN)).allowed


@pytest.mark.anyio
async def test_the_status_says_whether_a_refresher_runs(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake)
    said = [gate.status.is_refreshing]
    async with gate:
        await fake.asleep()
        said.append(gate.status.is_refreshing)
        fake.now += 15
        said.append(gate.status.is_refreshing)
        await gate.refresh()
        said.append(gate.status.is_refreshing)
    assert [*said, gate.status.is_refreshing] == [False, True, False, True, False]
