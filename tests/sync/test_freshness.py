"""How fresh a list is, by the clock, and what is noted about it."""

import time
from collections.abc import Iterator
from importlib.util import find_spec

import anyio
import pytest

from gatekeeper import Status
from gatekeeper.sync.freshness import TICK, Freshness, boot_clock, boot_sleep
from tests.support.fake_hub import Answer, FakeHub
from tests.support.fake_time import FakeTime
from tests.support.refreshing import running
from tests.support.rows import as_json, row

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


# What is noted, without a refresher


def freshness(fake: FakeTime, *, soft: float = 60.0, hard: float = 3600.0) -> Freshness:
    return Freshness(soft_stale=soft, hard_stale=hard, clock=fake.clock)


@pytest.mark.parametrize(
    ("age", "hard", "state", "expires_in"),
    [
        (0, 3600, "fresh", 3600),
        (59.5, 3600, "fresh", 3540.5),
        (60, 3600, "degraded", 3540),
        (3599.5, 3600, "degraded", 0.5),
        (3600, 3600, "expired", None),
        (1e9, 3600, "expired", None),
        (1e9, 0, "degraded", None),
        (30, 30, "expired", None),
    ],
)
def test_a_list_passes_from_state_to_state_with_its_age(
    age: float, hard: float, state: str, expires_in: float | None
) -> None:
    fake = FakeTime()
    fresh = freshness(fake, hard=hard)
    assert (fresh.state, fresh.age, fresh.expires_in) == ("never_loaded", None, None)
    fresh.accept(fake.now)
    fake.now += age
    assert (fresh.state, fresh.age, fresh.expires_in) == (state, age, expires_in)


def test_a_list_from_the_disk_is_degraded_from_the_first_and_expires_by_its_own_age() -> None:
    fake = FakeTime()
    fresh = freshness(fake)
    fresh.restore(5.0)
    assert (fresh.state, fresh.age, fresh.from_snapshot) == ("degraded", 5, True)
    fake.now += 3595
    assert fresh.state == "expired"
    fresh.accept(fake.now)
    assert (fresh.state, fresh.age, fresh.from_snapshot) == ("fresh", 0, False)


def test_a_list_that_was_asked_for_earlier_makes_none_older_or_younger() -> None:
    fake = FakeTime()
    fresh = freshness(fake)
    assert not fresh.is_superseded(fake.now)
    fresh.accept(fake.now)
    assert not fresh.is_superseded(fake.now)
    assert fresh.is_superseded(fake.now - 1)
    fresh.accept(fake.now - 50)
    fresh.supersede(fake.now - 50)
    assert fresh.age == 0


def test_an_accepted_list_ends_the_last_error() -> None:
    fake = FakeTime()
    fresh = freshness(fake)
    fresh.last_error = "the hub answered 500"
    fresh.supersede(fake.now)
    assert fresh.status(0).last_error == "the hub answered 500"
    fresh.accept(fake.now)
    assert fresh.status(0).last_error is None


@pytest.mark.parametrize(("hard", "lapsed"), [(3600, {"long ago", "just so"}), (0, set())])
def test_what_was_kept_for_a_bad_row_lapses_when_a_list_would_expire(hard: float, lapsed: set[str]) -> None:
    fake = FakeTime()
    fresh = freshness(fake, hard=hard)
    now = fake.now
    fresh.kept_since = {"long ago": now - 9999, "just so": now - 3600, "not yet": now - 3599}
    assert fresh.lapsed == lapsed


def test_the_status_has_everything_and_is_not_changed_by_what_comes_later() -> None:
    fake = FakeTime()
    fresh = freshness(fake)
    fresh.accept(fake.now)
    fresh.generation, fresh.validator, fresh.held, fresh.revocation_lag = 3, 'W/"7"', 4, 1.5
    fresh.last_error, fresh.ambiguous, fresh.rejected = "the hub answered 500", ("00000001",), ("row 3: …",)
    fresh.counters["refresh_changed"] = 3
    fake.now += 7
    status = fresh.status(1000)
    assert status == Status(
        state="fresh",
        age=7,
        keys=1000,
        generation=3,
        etag='W/"7"',
        last_error="the hub answered 500",
        ambiguous=("00000001",),
        rejected=("row 3: …",),
        counters={"refresh_changed": 3},
        held=4,
        from_snapshot=False,
        revocation_lag=1.5,
    )
    fresh.counters["refresh_changed"] += 1
    assert status.counters == {"refresh_changed": 3}


def test_a_pinned_list_is_fresh_for_ever() -> None:
    fake = FakeTime()
    fresh = freshness(fake)
    fresh.pin(("00000001",))
    fake.now += 1e12
    assert (fresh.state, fresh.status(1).ambiguous) == ("fresh", ("00000001",))


# The clock of a machine that may be suspended


async def test_a_sleeper_notices_within_a_tick_that_the_machine_was_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTime()
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        fake.now += seconds
        if len(naps) == 3:
            fake.now += 3600  # the machine was suspended meanwhile, which the event loop does not count

    monkeypatch.setattr("gatekeeper.sync.freshness.boot_clock", fake.clock)
    monkeypatch.setattr("gatekeeper.sync.freshness.anyio.sleep", nap)
    began = fake.now
    await boot_sleep(1800)
    assert naps == [TICK] * 3
    naps.clear()
    fake.now = began
    await boot_sleep(2.25)
    assert naps == [TICK, TICK, 0.25]
    await boot_sleep(0)
    await boot_sleep(-1)
    assert len(naps) == 3


async def test_a_sleeper_sleeps_as_long_as_told() -> None:
    began = boot_clock()
    await boot_sleep(0.05)
    assert 0.05 <= boot_clock() - began < 5
