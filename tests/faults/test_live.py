"""Faults of a live list: hubs that misbehave, and waits that nothing answers."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest

from gatekeeper import Gatekeeper, Reason, WidgetKey
from gatekeeper.keys.reader import RowReader
from gatekeeper.testing import GARBAGE, HANG_UP, FakeClock, FakeHub, HubAnswer, HubRequest, json_answer
from tests.needs import nginx
from tests.support.fault_proxy import FaultProxy
from tests.support.guarded import Guarded, hub_source
from tests.support.nginx import proxying_nginx
from tests.support.rows import ORIGIN, client_key, row
from tests.support.starting import wait_until

pytestmark = pytest.mark.anyio

Seen = TypeVar("Seen")

INTERVAL = 10.0  # seconds
WAIT = 9  # seconds, with the jitter of these tests
ROWS = [row(number) for number in range(12)]
REVOKED = {"disabled_at": "2026-11-01T00:00:00Z", "updated_at": "2026-11-01T00:00:00Z"}


@asynccontextmanager
async def waiting(hub: FakeHub, url: str | None = None, **options: Any) -> AsyncIterator[Guarded]:
    """Run a gate, by a fake clock, that waits for a change of its list."""
    fake = hub.clock = FakeClock()
    it = Guarded(hub_source(url or hub.url), fake, **{"jitter": lambda: 0.5, "refresh_interval": INTERVAL, **options})
    async with it.gate:
        await hub.waits()
        yield it


async def asks_again(hub: FakeHub, cause: Callable[[], object]) -> HubRequest:
    """Do something, and wait for the next request, which the gate sends once it has applied the answer before."""
    count = len(hub.requests)
    cause()
    await hub.asked(count + 1)
    return hub.requests[count]


async def is_answered(hub: FakeHub, it: Guarded, *answers: HubAnswer) -> None:
    """Let the gate wait in vain, and answer its next questions so."""
    hub.then(*answers)
    it.time.now += WAIT
    await it.time.asleep()


async def sleeps_until_it_asks(hub: FakeHub, it: Guarded, seconds: float) -> HubRequest:
    """Let the gate sleep until its next question, within some seconds."""
    count, began = len(hub.requests), it.time.now
    it.time.now += seconds
    await it.time.wake_all()
    await hub.asked(count + 1)
    assert it.time.now - began <= seconds
    return hub.requests[count]


def delta(it: Guarded, *rows: Any, **headers: str) -> HubAnswer:
    """What has changed since the list that a gate has."""
    assert it.status.etag is not None
    named = {"etag": 'W/"99-zz"', "delta_base": it.status.etag, "im": "rows", "preference_applied": f"wait={WAIT}"}
    return json_answer(list(rows), 226, **{name: text for name, text in {**named, **headers}.items() if text})


def removal(number: int) -> dict[str, Any]:
    return {"id": f"key-{number}", "last8": f"{number:08d}", "removed": True}


# A hub that misbehaves


async def test_a_live_list_tells_of_a_change_at_once() -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            asked = await asks_again(hub, lambda: hub.revoke("key-1"))
            assert (it.reason(1), it.reason(2), it.status.is_live) == (Reason.KEY_DISABLED, Reason.ALLOWED, True)
            assert (asked.headers["prefer"], asked.headers["a-im"]) == (f"wait={WAIT}", "rows")
            assert it.time.sleeps == []


@pytest.mark.fault("live hub answers early")
async def test_a_hub_that_answers_304_early_is_polled() -> None:
    """Otherwise a gate would ask without a pause."""

    def early(request: HubRequest) -> HubAnswer:
        tag = request.headers.get("if-none-match", "")
        return HubAnswer(304, headers={"etag": tag, "preference-applied": f"wait={WAIT}", "vary": "Prefer"})

    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            hub.always(early)
            it.time.now += WAIT
            await it.time.asleep()
            assert not it.status.is_live
            asked = len(hub.requests)
            await it.time.advance(10 * INTERVAL)
            assert len(hub.requests) - asked == 10
            assert it.status.state == "fresh"
            hub.lists(*ROWS[1:])
            await sleeps_until_it_asks(hub, it, INTERVAL)
            await hub.waits()
            assert (it.reason(0), it.status.is_live) == (Reason.KEY_UNKNOWN, True)


@pytest.mark.fault("live hub answers early")
async def test_a_hub_that_answers_early_with_no_changes_is_polled() -> None:
    def early(request: HubRequest) -> HubAnswer:
        tag = request.headers.get("if-none-match", "")
        applied = {"preference_applied": f"wait={WAIT}", "im": "rows"}
        return json_answer([], 226, etag=tag, delta_base=tag, **applied)

    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            hub.always(early)
            it.time.now += WAIT
            await it.time.asleep()
            asked = len(hub.requests)
            await it.time.advance(10 * INTERVAL)
            assert len(hub.requests) - asked == 10
            assert (it.status.is_live, it.status.state) == (False, "fresh")


@pytest.mark.fault("live hub stops waiting")
async def test_a_hub_that_stops_waiting_is_polled_within_two_intervals() -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            await asks_again(hub, lambda: hub.lists(*ROWS, row(20)))
            was_live = it.status.is_live
            hub.ignores = {"prefer"}
            stopped = it.time.now
            it.time.now += WAIT
            await it.time.asleep()
            assert (was_live, it.status.is_live) == (True, False)
            hub.revoke("key-1")
            await it.time.advance(2 * INTERVAL - (it.time.now - stopped))
            assert it.reason(1) is Reason.KEY_DISABLED


@pytest.mark.fault("live hub stops waiting")
async def test_a_hub_that_waits_again_is_live_within_an_interval() -> None:
    with FakeHub(*ROWS, live=True) as hub:
        hub.ignores = {"prefer"}
        hub.clock = fake = FakeClock()
        it = Guarded(hub_source(hub.url), fake, jitter=lambda: 0.5)
        async with it.gate:
            await fake.asleep()
            hub.ignores = set()
            await sleeps_until_it_asks(hub, it, INTERVAL)
            await hub.waits()
            await asks_again(hub, lambda: hub.revoke("key-1"))
            assert (it.status.is_live, it.reason(1)) == (True, Reason.KEY_DISABLED)


@pytest.mark.fault("live hub sends whole lists")
async def test_a_hub_that_only_waits_sends_whole_lists_at_once() -> None:
    with FakeHub(*ROWS, live=True) as hub:
        hub.ignores = {"a-im"}
        async with waiting(hub) as it:
            for number in (1, 2):
                await asks_again(hub, partial(hub.revoke, f"key-{number}"))
                assert (it.reason(number), it.status.is_live) == (Reason.KEY_DISABLED, True)
            assert it.time.sleeps == []


@pytest.mark.fault("changes of another list")
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"delta_base": ""}, id="no base"),
        pytest.param({"delta_base": 'W/"1-other"'}, id="another base"),
        pytest.param({"im": ""}, id="no IM"),
        pytest.param({"im": "vcdiff"}, id="another IM"),
        pytest.param({"etag": ""}, id="no ETag"),
    ],
)
async def test_after_changes_of_no_known_list_the_whole_one_follows(headers: dict[str, str]) -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            before = it.status
            await is_answered(hub, it, delta(it, row(1, **REVOKED), removal(2), **headers))
            assert it.allows(1, 2)
            assert it.status.generation == before.generation
            assert "226" in it.last_error
            asked = await sleeps_until_it_asks(hub, it, INTERVAL)
            assert "if-none-match" not in asked.headers
            await hub.waits()
            assert (it.status.state, it.status.etag) == ("fresh", before.etag)
            await asks_again(hub, lambda: hub.revoke("key-1"))
            assert it.reason(1) is Reason.KEY_DISABLED


@pytest.mark.fault("changes of another list")
async def test_changes_that_were_not_asked_for_are_refused() -> None:
    """In answer to the question for the whole list."""
    with FakeHub(*ROWS, live=True) as hub:
        hub.then(json_answer([removal(1)], 226, etag='"2"', delta_base='"1"', im="rows"))
        it = Guarded(hub_source(hub.url), FakeClock(), jitter=lambda: 0.5, start_timeout=0)
        async with it.gate:
            await it.time.asleep()
            assert it.reason(1) is Reason.NOT_READY
            assert "226" in it.last_error


@pytest.mark.fault("repeated rows in changes")
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row(1, name="first"), row(1, **REVOKED)], Reason.KEY_DISABLED),
        ([row(1, **REVOKED), row(1, name="last")], Reason.KEY_DISABLED),
        ([row(1, domain_allowlist=["other.test"]), row(1, name="last")], Reason.ORIGIN_NOT_ALLOWED),
        ([row(1, name="first"), removal(1)], Reason.KEY_UNKNOWN),
        ([removal(1), row(1, **REVOKED)], Reason.KEY_DISABLED),
    ],
)
async def test_of_repeated_rows_a_disabled_one_wins(rows: list[Any], reason: Reason) -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            await is_answered(hub, it, delta(it, *rows))
            assert (it.reason(1), it.reason(2)) == (reason, Reason.ALLOWED)
            asked = await sleeps_until_it_asks(hub, it, INTERVAL)
            assert "if-none-match" not in asked.headers


@pytest.mark.fault("everything removed by changes")
async def test_changes_that_remove_every_key_are_applied() -> None:
    """A delta names what it removes, and a whole list may lack rows by mistake."""
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            await asks_again(hub, hub.lists)
            assert {it.reason(number) for number in range(12)} == {Reason.KEY_UNKNOWN}
            assert (it.status.keys, it.status.held, it.status.is_live) == (0, 0, True)


@pytest.mark.fault("unreadable row in changes")
async def test_a_row_that_cannot_be_read_causes_a_whole_list_once_an_interval() -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            for name in ("first", "second", "third"):
                before = len(hub.requests)
                rows = [row(1, agent_id=7, name=name), row(2, name=name, **REVOKED), *ROWS[3:]]
                hub.lists(ROWS[0], *rows)
                await it.time.asleep()
                assert (it.reason(1), it.reason(2)) == (Reason.ALLOWED, Reason.KEY_DISABLED)
                assert it.status.rejected_rows == 1
                assert len(hub.requests) == before
                asked = await sleeps_until_it_asks(hub, it, INTERVAL)
                assert "if-none-match" not in asked.headers
                await hub.waits()
                assert it.allows(1, 3)


@pytest.mark.fault("unreadable row in changes")
async def test_an_unreadable_row_with_disabled_at_revokes_its_key() -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            await is_answered(hub, it, delta(it, row(1, agent_id=7, **REVOKED), {**removal(2), "removed": "yes"}))
            assert (it.reason(1), it.reason(2)) == (Reason.KEY_DISABLED, Reason.ALLOWED)


@pytest.mark.fault("unreadable row in changes")
@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"<html>", b'[{"id":"key-1","last8":"00000001","remo'])
async def test_changes_that_are_no_array_change_nothing(body: bytes) -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            whole = delta(it, removal(1))
            await is_answered(hub, it, HubAnswer(226, body, whole.headers))
            assert it.allows(*range(12))
            asked = await sleeps_until_it_asks(hub, it, INTERVAL)
            assert "if-none-match" not in asked.headers


# Waits that nothing answers


async def until(see: Callable[[], Seen]) -> Seen:
    """Look until something is true, while the gate goes on."""
    return await anyio.to_thread.run_sync(wait_until, see)


def waits_of(hub: FakeHub) -> list[str | None]:
    """The preferences of all requests."""
    return [request.headers.get("prefer") for request in hub.requests]


@pytest.mark.slow
@pytest.mark.fault("half-open connection during a wait")
async def test_a_connection_that_goes_silent_fails_5_s_after_the_wait() -> None:
    with FakeHub(*ROWS, live=True) as hub, FaultProxy(hub.url) as proxy:
        gate = Gatekeeper(hub_source(proxy.url), refresh_interval=1, jitter=lambda: 0.5)
        async with gate:
            await hub.waits()
            proxy.be_silent()
            hub.revoke("key-1")
            began = time.monotonic()
            error = await until(lambda: gate.status.last_error or "")
            assert time.monotonic() - began >= 5
            assert "no answer came within 5 s after the wait of 1 s" in error
            assert gate.decide(client_key(1), ORIGIN).allowed
            proxy.heal()
            await until(lambda: not gate.decide(client_key(1), ORIGIN).allowed)


@pytest.mark.slow
@pytest.mark.fault("proxy ends idle connections")
async def test_waits_become_shorter_than_a_proxy_lets_connections_idle() -> None:
    with FakeHub(*ROWS, live=True) as hub, FaultProxy(hub.url) as proxy:
        proxy.end_idle(2.5)
        gate = Gatekeeper(hub_source(proxy.url), refresh_interval=4, jitter=lambda: 0.5)
        async with gate:
            await until(lambda: "wait=2" in waits_of(hub))
            assert waits_of(hub)[1] == "wait=4"
            failures = gate.status.counters["refresh_failed"]
            await hub.asked(len(hub.requests) + 2)
            assert (gate.status.is_live, gate.status.counters["refresh_failed"]) == (True, failures)
            hub.revoke("key-1")
            await until(lambda: not gate.decide(client_key(1), ORIGIN).allowed)


@pytest.mark.fault("proxy ends idle connections")
@pytest.mark.parametrize("status", [408, 502, 503, 504, 524])
async def test_a_late_refusal_of_a_proxy_counts_as_the_end_of_its_patience(status: int) -> None:
    with FakeHub(*ROWS, live=True) as hub:
        async with waiting(hub) as it:
            await asks_again(hub, lambda: hub.lists(*ROWS, row(20)))
            holds = [hub.hold() for _ in range(3)]
            left = iter(holds)

            def answer(request: HubRequest) -> HubAnswer:
                if "prefer" in request.headers:
                    return HubAnswer(status, hold=next(left))
                return HubAnswer(304, headers={"etag": request.headers["if-none-match"]})

            def end_wait() -> None:
                it.time.now += WAIT

            hub.always(answer)
            await asks_again(hub, end_wait)
            for hold in holds[:2]:
                it.time.now += 5
                hold.release()
                await it.time.asleep()
                assert it.time.sleeps[-1] <= 1
                it.time.now += 1
                count = len(hub.requests)
                await it.time.wake_all()
                await hub.asked(count + 2)
            assert waits_of(hub)[-1] == "wait=4"
            holds[2].release()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.fault("proxy ends idle connections")
async def test_a_proxy_that_answers_504_makes_waits_shorter(tmp_path: Path) -> None:
    """So nginx ends a request that nothing answers for `proxy_read_timeout`."""
    with (
        FakeHub(*ROWS, live=True) as hub,
        proxying_nginx(nginx(), tmp_path / "nginx", hub.url, "proxy_read_timeout 2s;") as url,
    ):
        gate = Gatekeeper(hub_source(url), refresh_interval=4, jitter=lambda: 0.5)
        async with gate:
            await until(lambda: "wait=1" in waits_of(hub))
            failures = gate.status.counters["refresh_failed"]
            await hub.asked(len(hub.requests) + 2)
            assert (gate.status.is_live, gate.status.counters["refresh_failed"]) == (True, failures)
            hub.revoke("key-1")
            await until(lambda: not gate.decide(client_key(1), ORIGIN).allowed)


@pytest.mark.process
@pytest.mark.fault("proxy buffers answers")
async def test_a_proxy_that_buffers_delays_no_change(tmp_path: Path) -> None:
    options = "proxy_buffering on; gzip on; gzip_types application/json; gzip_min_length 1;"
    with (
        FakeHub(*ROWS, live=True) as hub,
        proxying_nginx(nginx(), tmp_path / "nginx", hub.url, options) as url,
    ):
        async with waiting(hub, url) as it:
            for number in (1, 2):
                await asks_again(hub, partial(hub.revoke, f"key-{number}"))
                assert (it.reason(number), it.status.is_live) == (Reason.KEY_DISABLED, True)


@pytest.mark.process
@pytest.mark.fault("proxy buffers answers")
async def test_a_hub_behind_a_proxy_that_drops_the_preference_is_polled(tmp_path: Path) -> None:
    options = 'proxy_set_header Prefer ""; proxy_set_header A-IM "";'
    with (
        FakeHub(*ROWS, live=True) as hub,
        proxying_nginx(nginx(), tmp_path / "nginx", hub.url, options) as url,
    ):
        hub.clock = fake = FakeClock()
        it = Guarded(hub_source(url), fake, jitter=lambda: 0.5)
        async with it.gate:
            await fake.asleep()
            hub.revoke("key-1")
            await fake.advance(INTERVAL)
            assert (it.reason(1), it.status.is_live) == (Reason.KEY_DISABLED, False)


@pytest.mark.fault("hub killed during waits")
async def test_a_killed_hub_is_asked_within_a_second_and_then_an_interval() -> None:
    """All gates of a hub are told at once that it has gone. They come back over one interval."""
    with FakeHub(*ROWS, live=True) as hub, FaultProxy(hub.url) as proxy:
        async with waiting(hub, proxy.url) as it:
            await asks_again(hub, lambda: hub.lists(*ROWS, row(20)))
            proxy.refuse()
            await it.time.asleep()
            (pause,) = it.time.sleeps
            assert 0 < pause <= 1
            await it.time.advance(1)
            assert it.time.sleeps[1] == pytest.approx(0.5 * INTERVAL)
            assert it.allows(*range(12))
            hub.revoke("key-1")
            proxy.heal()
            await sleeps_until_it_asks(hub, it, INTERVAL)
            await hub.waits()
            assert it.reason(1) is Reason.KEY_DISABLED


@pytest.mark.fault("hub killed during waits")
async def test_a_hub_that_comes_back_at_once_is_asked_within_a_second() -> None:
    with FakeHub(*ROWS, live=True) as hub, FaultProxy(hub.url) as proxy:
        async with waiting(hub, proxy.url) as it:
            await asks_again(hub, lambda: hub.lists(*ROWS, row(20)))
            proxy.hang_up()
            await it.time.asleep()
            hub.revoke("key-1")
            await sleeps_until_it_asks(hub, it, 1)
            await hub.waits()
            assert (it.reason(1), it.status.state) == (Reason.KEY_DISABLED, "fresh")


# Another database behind the same hub


REVOKED_AT = {"disabled_at": "2026-11-01T00:05:00Z"}


def stamped(number: int, minute: int, **fields: Any) -> dict[str, Any]:
    """A row that was last changed in some minute."""
    return row(number, updated_at=f"2026-11-01T00:{minute:02}:00Z", **fields)


@pytest.mark.fault("restored hub")
async def test_after_a_restore_no_older_row_loosens() -> None:
    with FakeHub(*(stamped(number, 0) for number in range(12)), live=True) as hub:
        async with waiting(hub) as it:
            revoked = [stamped(1, 5, disabled_at="2026-11-01T00:05:00Z"), *(stamped(number, 0) for number in range(2, 12))]
            await asks_again(hub, lambda: hub.lists(stamped(0, 0), *revoked))
            assert it.reason(1) is Reason.KEY_DISABLED
            backup = [*(stamped(number, 0) for number in range(11)), stamped(20, 0)]
            hub.restores(*backup)
            await it.time.asleep()
            assert (it.reason(1), it.reason(11)) == (Reason.KEY_DISABLED, Reason.KEY_UNKNOWN)
            assert it.allows(0, 2, 20)
            count = len(hub.requests)
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: it.gate.refresh(trust=True))
                await hub.asked(count + 1)
            assert it.allows(0, 1, 2, 20)


@pytest.mark.fault("restored hub")
async def test_a_restored_hub_with_new_stamps_counts_and_is_live() -> None:
    """As the reference hub's restore does it."""
    with FakeHub(*(stamped(number, 0) for number in range(12)), live=True) as hub:
        async with waiting(hub) as it:
            await asks_again(hub, lambda: hub.lists(*(stamped(number, 5, **REVOKED_AT) for number in range(12))))
            assert it.reason(1) is Reason.KEY_DISABLED
            asked = await asks_again(hub, lambda: hub.restores(*(stamped(number, 10) for number in range(12))))
            assert it.allows(*range(12))
            assert (it.status.is_live, asked.headers["if-none-match"]) == (True, it.status.etag)


@pytest.mark.fault("restored hub")
async def test_a_replica_that_lags_loosens_nothing_until_it_is_ahead() -> None:
    """After a failover it does not know the list, and a revocation of the last moment is not in it."""
    with FakeHub(*(stamped(number, 0) for number in range(12)), live=True) as hub:
        async with waiting(hub) as it:
            rows = [stamped(number, 0) for number in range(12) if number != 1]
            await asks_again(hub, lambda: hub.lists(*rows, stamped(1, 5, **REVOKED_AT)))
            hub.restores(*rows, stamped(1, 0))
            await it.time.asleep()
            assert it.reason(1) is Reason.KEY_DISABLED
            hub.lists(*rows, stamped(1, 7))
            await sleeps_until_it_asks(hub, it, INTERVAL)
            await hub.waits()
            assert it.allows(1)


# Everything at once


@pytest.mark.slow
@pytest.mark.promise("a live list misses no change")
@pytest.mark.parametrize("seed", range(6))
async def test_no_change_is_missed_whatever_the_hub_does_in_between(seed: int) -> None:
    dice = Random(seed)
    fields: list[dict[str, Any]] = [{}, REVOKED_AT, {"domain_allowlist": ["other.test"]}, {"last8": "zzzzzzzz"}]
    rows = {number: row(number) for number in range(12)}
    with FakeHub(*rows.values(), live=True) as hub:
        gate = Gatekeeper(hub_source(hub.url), refresh_interval=1, jitter=dice.random, unknown_key_wait=0)
        async with gate:
            for step in range(60):
                for _ in range(dice.randrange(4)):
                    number = dice.randrange(20)
                    rows[number] = stamped(number, step, **dice.choice(fields))
                    if dice.random() < 0.3:
                        del rows[number]
                listed = dice.sample(list(rows.values()), len(rows))
                (hub.restores if dice.random() < 0.1 else hub.lists)(*listed)
                hub.ignores = set(dice.sample(["prefer", "a-im", "if-none-match"], dice.choice([0, 0, 0, 1, 2])))
                if dice.random() < 0.2:
                    bad = [
                        HubAnswer(503),
                        HANG_UP,
                        GARBAGE,
                        HubAnswer(226, b"[]"),
                        json_answer([removal(3)], 226, im="rows"),
                    ]
                    hub.then(dice.choice(bad))
                if dice.random() < 0.5:
                    await anyio.sleep(dice.random() * 0.05)
                elif (await gate.refresh()).outcome != "failed" and not gate.status.held:
                    assert by_name(gate._lists.all[0].index) == by_name(keys_of(hub.rows))
            hub.ignores = set()
            while (await gate.refresh()).outcome == "failed" or gate.status.held:
                pass
            await hub.waits()
            assert decisions_of(gate) == decisions_of(Gatekeeper.from_rows(hub.rows))
            hub.lists()
            await until(lambda: gate.status.keys == 0 and gate.status.is_live)


def keys_of(rows: list[Any]) -> list[WidgetKey]:
    return [RowReader().convert(place, each) for place, each in enumerate(rows)]


def by_name(keys: Iterable[WidgetKey]) -> dict[tuple[str, str], WidgetKey]:
    return {(key.id, key.last8): key for key in keys}


def decisions_of(gate: Gatekeeper) -> list[Reason]:
    return [gate.decide(client_key(number), ORIGIN).reason for number in range(20)]
