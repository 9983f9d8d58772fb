"""What is remembered of what was decided, and how often it came."""

import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import anyio
import pytest

from gatekeeper import Gatekeeper, Reason
from gatekeeper.decisions import CONFLICT
from gatekeeper.memo import MEMO_SIZE

from .support.fake_hub import Answer, FakeHub
from .support.fake_time import FakeTime
from .support.guarded import gate_of
from .support.loops import threads_switching_often
from .support.rows import ORIGIN, client_key, row


@pytest.fixture(params=["asyncio", *(["trio"] if find_spec("trio") else [])])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.lists(row(1))
        yield hub


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


@pytest.mark.parametrize("key", [None, "", "nonsense", client_key(99), client_key(1, "globex"), CONFLICT, "x" * 10_000])
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
