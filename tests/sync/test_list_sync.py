"""The status of a list, and the deadline of remembered decisions."""

import logging
import math
from collections import Counter
from pathlib import Path

import anyio
import pytest

from gatekeeper import HubSource, StaticSource
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.sync.list_sync import ListSync, SyncOptions
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer, HubRequest
from tests.support.memory_source import MemorySource
from tests.support.refreshing import running
from tests.support.rows import TOKEN, as_json, row

pytestmark = pytest.mark.anyio

PATIENT = HubAnswer(503, headers={"retry-after": "300"})


async def test_a_list_grows_old_by_the_clock(hub: FakeHub) -> None:
    hub.then(HubAnswer(500))
    hub.lists(row(1))
    async with running(hub, soft_stale=60, hard_stale=3600) as it:
        assert (it.status.state, it.status.age) == ("never_loaded", None)
        await it.refresh()
        assert (it.status.state, it.status.age) == ("fresh", 0)
        hub.always(PATIENT)
        states = []
        for seconds in (59, 2, 3538, 2, 10_000):
            await it.time.advance(seconds)
            states.append((it.status.state, it.status.age))
        assert states == [
            ("fresh", 59),
            ("degraded", 61),
            ("degraded", 3599),
            ("expired", 3601),
            ("expired", 13601),
        ]
        hub.lists(row(1))
        await it.refresh()
        assert (it.status.state, it.status.age) == ("fresh", 0)


async def test_the_age_of_a_list_runs_from_when_it_was_asked_for(hub: FakeHub) -> None:
    async with running(hub) as it, anyio.create_task_group() as group:
        hub.then(HubAnswer(200, as_json(row(1)), hold=(hold := hub.hold())))
        group.start_soon(it.refresher.refresh)
        await hub.asked(2)
        it.time.now += 4
        hold.release()
        await it.time.asleep(2)
        assert it.status.age == 4


async def test_decisions_are_remembered_while_the_refresher_is_on_schedule(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=10) as it:
        assert it.sync.deadline == it.time.now + 15
        await it.time.advance(100)
        assert it.sync.deadline == it.time.now + 15
        overdue = []
        for seconds in (0, 14, 1):
            it.time.now += seconds
            overdue.append(it.sync.is_overdue)
        assert overdue == [False, False, True]
        it.stop()
    assert it.sync.deadline == it.deadlines[-1] == -math.inf


async def test_decisions_are_remembered_no_longer_than_a_list_is_trusted(hub: FakeHub) -> None:
    async with running(hub, refresh_interval=10, hard_stale=12) as it:
        assert it.sync.deadline == it.deadlines[-1] == it.time.now + 12
        hub.always(PATIENT)
        await it.refresh()
        expired_at = it.time.now + 12
        await it.time.advance(100)
        assert it.sync.deadline == expired_at
        hub.lists(row(1))
        await it.refresh()
        assert it.sync.deadline == it.deadlines[-1] == it.time.now + 12


async def test_nothing_is_overdue_before_there_is_a_list(hub: FakeHub) -> None:
    hub.always(HubAnswer(500))
    async with running(hub) as it:
        it.time.now += 3600
        assert not it.sync.is_overdue


async def test_a_status_does_not_change_later(hub: FakeHub) -> None:
    hub.lists(row(1), row(2), etag='W/"7"')
    async with running(hub) as it:
        status = it.status
        assert (status.state, status.keys, status.generation, status.etag) == ("fresh", 2, 1, 'W/"7"')
        assert status.counters["refresh_changed"] == 1
        hub.lists(row(1))
        await it.refresh()
        assert (status.keys, status.counters["refresh_changed"]) == (2, 1)
        assert (it.status.keys, it.status.counters["refresh_changed"]) == (1, 2)


def warnings_of_scope(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "scope admin" in each.getMessage()]


async def test_an_admin_token_is_in_the_status_and_logged_once(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    """The operator replaces the token while the list stays the same, so the hub says the new scope in a 304."""
    token = "sk_live_acme_admin"

    def answer(request: HubRequest) -> HubAnswer:
        scope = request.headers["authorization"].rpartition("_")[2]
        headers = {"etag": '"1"', "token-scope": scope}
        return (
            HubAnswer(304, headers=headers)
            if "if-none-match" in request.headers
            else HubAnswer(200, as_json(row(1)), headers)
        )

    hub.always(answer)
    with caplog.at_level(logging.WARNING):
        async with running(HubSource(hub.url, lambda: token, timeout=60)) as it:
            scopes = [it.status.token_scope]
            assert len(warnings_of_scope(caplog)) == 1
            for scope in ("admin", "gate", "admin"):
                token = f"sk_live_acme_{scope}"
                assert (await it.refresh()).outcome == "unchanged"
                scopes.append(it.status.token_scope)
            assert scopes == ["admin", "admin", "gate", "admin"]
    assert len(warnings_of_scope(caplog)) == 1
    assert "sk_live_acme" not in caplog.text


async def test_a_hub_that_does_not_say_the_scope_is_not_remarked_on(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    async with running(hub) as it:
        assert it.status.token_scope is None
        hub.always(HubAnswer(403, headers={"token-scope": "admin"}))
        await it.refresh()
        assert it.status.token_scope is None
    async with running(MemorySource(row(1))) as it:
        assert (it.status.state, it.status.token_scope) == ("fresh", None)
    assert warnings_of_scope(caplog) == []


async def test_a_list_from_the_snapshot_says_no_scope(hub: FakeHub, tmp_path: Path) -> None:
    hub.then(HubAnswer(200, as_json(row(1)), {"token-scope": "admin"}))
    for state, scope in (("fresh", "admin"), ("degraded", None)):
        async with running(HubSource(hub.url, TOKEN, timeout=60), snapshot_path=tmp_path / "snapshot") as it:
            assert (it.status.state, it.status.token_scope) == (state, scope)
        hub.always(HubAnswer(503))


def test_a_list_that_never_changes_is_fresh_for_ever() -> None:
    fake = FakeClock()
    deadlines: list[float] = []
    sync = ListSync(
        StaticSource([row(1), {**row(1), "id": "another"}]),
        KeyIndex(),
        SyncOptions(soft_stale=1, hard_stale=2, snapshot_path="/nowhere", clock=fake),
        on_change=lambda: None,
        on_deadline=deadlines.append,
        take_used_keys=Counter,
        take_refused=list,
    )
    fake.now += 1e12
    assert (sync.status.state, sync.status.keys, len(sync.status.ambiguous)) == ("fresh", 2, 1)
    assert (sync.is_static, sync.deadline, sync.is_overdue, deadlines) == (True, math.inf, False, [math.inf])
