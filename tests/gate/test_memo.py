"""Remembered decisions, and the counts of their uses."""

import math
import threading
import time
from collections import Counter
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import Decision, Gatekeeper, Reason, WidgetKey
from gatekeeper.gate.decisions import CONFLICT
from gatekeeper.gate.grants import MAX_GRANT_LENGTH
from gatekeeper.gate.lease import Lease, Leases, UsedKeys
from gatekeeper.gate.memo import MOST_ALLOWED, MOST_REFUSED, ROOM, Memo, Remembered, may_be_remembered
from gatekeeper.matching.origins import MAX_ORIGIN_LENGTH
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer
from tests.support.guarded import gate_of
from tests.support.loops import threads_switching_often
from tests.support.remembered import leases_of, remembered_by
from tests.support.rows import ORIGIN, client_key, row

# The memo


def test_a_decision_about_a_known_key_is_remembered() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    for origin in (ORIGIN, "https://evil.com", "null", "https://acme.com/"):
        assert gate.decide(client_key(1), origin) is gate.decide(client_key(1).encode(), origin.encode())
    referred = gate.decide(client_key(1), None, referer="https://acme.com/")
    assert gate.decide(client_key(1), None, referer="https://acme.com/") is referred
    assert (len(gate.memo), len(gate.memo.allowed), len(gate.memo.refused)) == (5, 2, 3)


def test_a_referer_is_never_taken_for_an_origin() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    assert gate.decide(client_key(1), None, referer="https://acme.com/x").allowed
    assert gate.decide(client_key(1), "https://acme.com/x").reason is Reason.ORIGIN_MALFORMED
    assert gate.decide(client_key(1), None).reason is Reason.ORIGIN_MISSING
    assert gate.decide(client_key(1), "null", referer="https://acme.com/x").reason is Reason.ORIGIN_NULL


@pytest.mark.parametrize("key", [None, "", "nonsense", client_key(99), client_key(1, "globex"), CONFLICT, "x" * 10_000])
def test_decisions_without_a_row_are_not_remembered(key: Any) -> None:
    gate = Gatekeeper.from_rows([row(1)], account="acme")
    assert not gate.decide(key, ORIGIN).allowed
    assert not gate.memo


def test_a_flood_of_unknown_keys_is_not_remembered() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    for number in range(2, 5000):
        assert gate.decide(client_key(number), ORIGIN).reason is Reason.KEY_UNKNOWN
    assert not gate.memo


@pytest.mark.parametrize(("host", "most"), [("acme.com", MOST_ALLOWED), ("evil.com", MOST_REFUSED)])
def test_the_memo_is_bounded(host: str, most: int) -> None:
    gate = Gatekeeper.from_rows([row(1, domain_allowlist=["*.acme.com"])])
    for number in range(most + 1000):
        gate.decide(client_key(1), f"https://p{number}.{host}")
        assert len(gate.memo) <= most
    assert len(gate.memo) > most - ROOM


def test_a_flood_of_foreign_pages_evicts_no_allowed_page() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    first = gate.decide(client_key(1), ORIGIN)
    for number in range(MOST_ALLOWED + MOST_REFUSED):
        gate.decide(client_key(1), f"https://p{number}.evil.com")
    assert gate.decide(client_key(1), ORIGIN) is first


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


def test_concurrent_threads_do_not_fail_each_other() -> None:
    gate = Gatekeeper.from_rows([row(1, domain_allowlist=["*.acme.com"])])
    for number in range(MOST_ALLOWED):
        gate.decide(client_key(1), f"https://p{number}.acme.com")
    problems: list[str] = []
    end = time.monotonic() + 1

    def decide_again_and_again(name: str) -> None:
        number = 0
        try:
            while time.monotonic() < end and not problems:
                number += 1
                assert gate.decide(client_key(1), f"https://{name}-{number}.acme.com").allowed
        except Exception as error:  # noqa: BLE001 - any error is a problem
            problems.append(repr(error))

    with threads_switching_often():
        threads = [threading.Thread(target=decide_again_and_again, args=(f"t{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


@pytest.mark.anyio
async def test_a_gate_without_a_refresher_remembers_nothing(hub: FakeHub) -> None:
    gate = gate_of(hub)
    async with gate:
        assert gate.decide(client_key(1), ORIGIN).allowed
        assert len(remembered_by(gate)) == 1
    assert not remembered_by(gate)
    assert gate.decide(client_key(1), ORIGIN).allowed
    assert not remembered_by(gate)


@pytest.mark.anyio
async def test_a_change_of_any_key_applies_immediately(hub: FakeHub) -> None:
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
async def test_remembered_decisions_expire_with_the_list(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate:
        await fake.asleep()
        hub.always(HubAnswer(503, headers={"retry-after": "300"}))
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
async def test_remembered_decisions_expire_during_a_failing_fetch(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate, anyio.create_task_group() as group:
        await fake.asleep()
        assert gate.decide(client_key(1), ORIGIN).allowed
        hub.always(HubAnswer(500, hold=(hold := hub.hold())))
        group.start_soon(gate.refresh)
        await hub.asked(2)
        fake.now += 101
        hold.release()
        await fake.asleep(2)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.EXPIRED


@pytest.mark.anyio
async def test_a_decision_at_the_moment_of_expiry_does_not_outlive_it(hub: FakeHub) -> None:
    fake = FakeClock()
    gate = gate_of(hub, fake, hard_stale=100)
    async with gate:
        await fake.asleep()
        hub.always(HubAnswer(503, headers={"retry-after": "300"}))
        await fake.advance(100)
        gate.decide(client_key(1), ORIGIN)
        await fake.advance(1)
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.EXPIRED


# Counts


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(range(1, 5)), st.sampled_from([ORIGIN, "https://evil.com", "null", None]))
        | st.sampled_from(["forget", "tell"])
    )
)
def test_every_request_is_counted_once_through_evictions(steps: list[Any]) -> None:
    told: Counter[Reason] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gatekeeper.gate.memo.MOST_ALLOWED", 3)
        patch.setattr("gatekeeper.gate.memo.MOST_REFUSED", 3)
        patch.setattr("gatekeeper.gate.memo.ROOM", 2)
        gate = Gatekeeper.from_rows([row(1), row(2, disabled_at="now"), row(3, domain_allowlist=[])])
        for step in steps:
            if step == "forget":
                leases_of(gate).end()
            elif step == "tell":
                assert gate.decisions == told
            else:
                number, origin = step
                told[gate.decide(client_key(number), origin).reason] += 1
    assert gate.decisions == told


def remembered(reason: Reason, number: int = 1, lease: Lease | None = None) -> Remembered:
    key = WidgetKey(f"key-{number}", "shop", f"{number:08d}", ("acme.com",))
    return Remembered(Decision(reason, key, matched="acme.com"), lease or Lease(UsedKeys(), math.inf))


def test_only_allowed_requests_use_a_key_and_each_use_is_taken_once() -> None:
    memo, lease = Memo(), Leases().current
    for number, reason in enumerate(Reason):
        once = remembered(reason, number, lease)
        for _ in range(1 + number):
            memo.use(once)
    assert memo.reasons == Counter({reason: 1 + number for number, reason in enumerate(Reason)})
    allowed = list(Reason).index(Reason.ALLOWED)
    assert memo.take_used_keys(lease.used) == Counter({f"key-{allowed}": 1 + allowed})
    assert memo.take_used_keys(lease.used) == Counter()
    assert memo.reasons[Reason.ALLOWED] == 1 + allowed


def test_the_oldest_decision_is_evicted_and_its_uses_are_counted() -> None:
    memo, lease = Memo(most_allowed=2, room=1), Leases().current
    kept = [remembered(Reason.ALLOWED, number, lease) for number in range(3)]
    for number, one in enumerate(kept):
        one.uses = 5
        memo.remember((b"key", str(number).encode()), one)
    assert list(memo.allowed.values()) == kept[1:]
    assert all(one.is_kept for one in kept)
    assert lease.used.counts == Counter({"key-0": 5})
    memo.flush_uses()
    assert lease.used.counts == Counter({"key-0": 5, "key-1": 5, "key-2": 5})


class Interrupted(float):
    """A count that another thread adds to while it is read as an integer."""

    one: Remembered

    def __int__(self) -> int:
        self.one.uses += 1.0
        return super().__int__()


def test_a_request_that_comes_while_uses_are_counted_is_not_lost() -> None:
    memo, lease = Memo(), Leases().current
    memo.remember((b"key", b"origin"), one := remembered(Reason.ALLOWED, lease=lease))
    Interrupted.one, one.uses = one, Interrupted(5.0)
    assert memo.take_used_keys(lease.used) == Counter({"key-1": 5})
    assert memo.take_used_keys(lease.used) == Counter({"key-1": 1})


def test_the_uses_of_the_keys_of_two_lists_are_taken_apart() -> None:
    memo, leases = Memo(), (Leases(), Leases())
    for number, each in enumerate(leases, 1):
        for _ in range(number):
            memo.use(remembered(Reason.ALLOWED, lease=each.current))
    assert [memo.take_used_keys(each.used) for each in leases] == [{"key-1": 1}, {"key-1": 2}]


def test_a_new_decision_replaces_the_one_that_held_before_whatever_it_says() -> None:
    memo, leases = Memo(most_allowed=2, room=1), Leases()
    leases.renew(math.inf)
    for reason in (Reason.ALLOWED, Reason.KEY_DISABLED, Reason.ALLOWED):
        memo.remember((b"key", b"origin"), new := remembered(reason, lease=leases.current))
        new.uses = 1
        assert memo.find((b"key", b"origin"), 0.0) is new
        assert len(memo) == 1
        leases.end()
        assert memo.find((b"key", b"origin"), 0.0) is None
    assert memo.reasons == {Reason.ALLOWED: 2, Reason.KEY_DISABLED: 1}


def test_decisions_that_are_made_again_evict_no_others() -> None:
    memo, lease = Memo(most_allowed=2, room=1), Lease(UsedKeys(), math.inf)
    for name in (b"a", b"b", b"a", b"a", b"b"):
        memo.remember((b"key", name), remembered(Reason.ALLOWED, lease=lease))
        memo.remember((b"key", b"b"), remembered(Reason.ALLOWED, lease=lease))
    assert sorted(memo.allowed) == [(b"key", b"a"), (b"key", b"b")]


def test_under_lock_contention_a_decision_is_made_and_counted() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    with gate.memo._lock:
        assert gate.decide(client_key(1), ORIGIN).allowed
        assert gate.decide(client_key(1), ORIGIN).allowed
    assert not gate.memo
    assert gate.decisions == Counter({Reason.ALLOWED: 2})


LONGEST = b"o" * MAX_ORIGIN_LENGTH


@pytest.mark.parametrize(
    ("identity", "remembered"),
    [
        ((b"key", b"origin"), True),
        ((b"key", None, b"referer"), True),
        ((b"key", LONGEST), True),
        ((b"key", LONGEST + b"o"), False),
        ((b"key", None, LONGEST), True),
        ((b"key", None, LONGEST + b"o"), False),
        ((b"key", None, None), False),
        ((None, b"origin"), False),
        ((CONFLICT, b"origin"), False),
        ((b"key", CONFLICT), False),
        ((b"key", None, CONFLICT), False),
        ((None, None, None, b"grant"), True),
        ((None, None, None, b"g" * MAX_GRANT_LENGTH), True),
        ((None, None, None, b"g" * (MAX_GRANT_LENGTH + 1)), False),
        ((None, None, None, CONFLICT), False),
        ((None, b"https://evil.test", None, b"grant"), False),
        ((b"key", None, None, b"grant"), False),
    ],
)
def test_only_ordinary_requests_of_bounded_length_are_remembered(identity: Any, *, remembered: bool) -> None:
    assert may_be_remembered(identity) == remembered
