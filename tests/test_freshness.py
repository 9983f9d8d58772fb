"""How fresh a list is, by the clock, and what is noted about it."""

import time
from collections.abc import Iterator
from importlib.util import find_spec

import anyio
import pytest

from gatekeeper.freshness import boot_clock

from .support.fake_hub import Answer, FakeHub
from .support.refreshing import running
from .support.rows import as_json, row

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", *(["trio"] if find_spec("trio") else [])])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.lists(row(1))
        yield hub


# How fresh the list is


async def test_a_list_grows_old_by_the_clock(hub: FakeHub) -> None:
    hub.then(Answer(500))
    hub.lists(row(1))
    async with running(hub, soft_stale=60, hard_stale=3600) as it:
        fresh = it.freshness
        assert (fresh.state, fresh.age, fresh.expires_in) == ("never_loaded", None, None)
        await it.refresh()
        assert (fresh.state, fresh.age, fresh.expires_in) == ("fresh", 0, 3600)
        hub.always(Answer(503, headers={"retry-after": "300"}))
        states = []
        for seconds in (59, 2, 3538, 2, 10_000):
            await it.time.advance(seconds)
            states.append((fresh.state, fresh.age))
        assert states == [
            ("fresh", 59),
            ("degraded", 61),
            ("degraded", 3599),
            ("expired", 3601),
            ("expired", 13601),
        ]
        assert fresh.expires_in is None
        hub.lists(row(1))
        await it.refresh()
        assert (fresh.state, fresh.age) == ("fresh", 0)


async def test_a_list_may_be_trusted_for_ever(hub: FakeHub) -> None:
    async with running(hub, hard_stale=0) as it:
        it.time.now += 1e9
        assert (it.freshness.state, it.freshness.expires_in) == ("degraded", None)


async def test_the_age_of_a_list_runs_from_when_it_was_asked_for(hub: FakeHub) -> None:
    async with running(hub) as it, anyio.create_task_group() as group:
        hub.then(Answer(200, as_json(row(1)), hold=(hold := hub.hold())))
        group.start_soon(it.refresher.refresh)
        await hub.asked(2)
        it.time.now += 4
        hold.release()
        await it.time.asleep(2)
        assert it.freshness.age == 4


async def test_a_clock_that_runs_backwards_makes_no_list_younger_than_new(hub: FakeHub) -> None:
    async with running(hub) as it:
        it.time.now -= 100
        assert it.freshness.age == 0


async def test_decisions_are_forgotten_at_the_moment_the_list_expires(hub: FakeHub) -> None:
    async with running(hub, hard_stale=100, soft_stale=1000) as it:
        hub.always(Answer(503, headers={"retry-after": "300"}))
        await it.refresh()
        assert it.time.sleeps[-1] == 100
        changes = it.changes
        await it.time.advance(99)
        assert it.changes == changes
        await it.time.advance(2)
        assert it.freshness.state == "expired"
        assert it.changes > changes
        assert it.time.sleeps[-1] == 200


async def test_decisions_are_forgotten_when_the_list_expires_during_a_fetch(hub: FakeHub) -> None:
    async with running(hub, hard_stale=100) as it, anyio.create_task_group() as group:
        hub.always(Answer(500, hold=(hold := hub.hold())))
        group.start_soon(it.refresher.refresh)
        await hub.asked(2)
        changes = it.changes
        it.time.now += 101
        hold.release()
        await it.time.asleep(2)
        assert it.freshness.state == "expired"
        assert it.changes > changes


async def test_decisions_are_forgotten_when_the_list_expired_while_the_machine_was_suspended(hub: FakeHub) -> None:
    async with running(hub, hard_stale=100) as it:
        changes = it.changes
        hub.always(Answer(500))
        it.time.now += 3600
        await it.time.wake()
        assert it.freshness.state == "expired"
        assert it.changes > changes


async def test_decisions_are_forgotten_when_an_expired_list_is_renewed(hub: FakeHub) -> None:
    hub.lists(row(1), etag='"1"')
    async with running(hub, hard_stale=100) as it:
        hub.always(Answer(500))
        await it.time.advance(200)
        changes = it.changes
        hub.lists(row(1), etag='"1"')
        assert (await it.refresh()).outcome == "unchanged"
        assert it.freshness.state == "fresh"
        assert it.changes > changes


async def test_a_refresh_meanwhile_does_not_make_the_moment_of_expiry_be_missed(hub: FakeHub) -> None:
    async with running(hub, hard_stale=100) as it:
        hub.always(Answer(503, headers={"retry-after": "300"}))
        await it.time.advance(60)
        await it.refresh()
        changes = it.changes
        await it.time.advance(41)
        assert it.freshness.state == "expired"
        assert it.changes > changes


def test_the_clock_never_runs_backwards_and_needs_no_boot_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boot_clock() <= boot_clock()
    assert boot_clock() >= time.monotonic() - 1
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert boot_clock() == pytest.approx(time.monotonic(), abs=1)
