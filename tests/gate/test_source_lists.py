"""A gate with the sources of several accounts: isolation, sources that come and go, reports, snapshots, grants, forks."""

import asyncio
import gc
import gzip
import json
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from gatekeeper import ConfigError, FileSource, Gatekeeper, HubSource, Reason, StaticSource
from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.page import BEHIND_FRAME
from gatekeeper.matching.origins import Origin
from gatekeeper.sync.sources import Updates
from gatekeeper.testing import FakeClock, FakeHub, HubAnswer
from tests.gate.test_open_streams import Naps, Stream
from tests.support.accounts import AccountSource, proven_row, source_at
from tests.support.forked import forked
from tests.support.loops import asyncio_only, leaving_nothing_behind, run_skipping, threads_switching_often
from tests.support.refreshing import until
from tests.support.remembered import remembered_by
from tests.support.rows import ORIGIN, as_json, client_key, row

pytestmark = pytest.mark.anyio

SECRET = "a secret of sixteen characters or more"
ACME, SHOP = client_key(1, "acme"), client_key(1, "acme_shop")


def two(**options: Any) -> tuple[Gatekeeper, AccountSource, AccountSource]:
    """A gate of two accounts, in memory, whose clock stands still."""
    acme, shop = AccountSource("acme", row(1)), AccountSource("acme_shop", proven_row(1, "acme_shop"))
    fake = FakeClock()
    by_the_clock = {"clock": fake, "sleep": fake.sleep, "jitter": lambda: 0.5, "unknown_key_wait": 0.0}
    return Gatekeeper([acme, shop], **{**by_the_clock, **options}), acme, shop


class Late(AccountSource):
    """A source with one key that answers late."""

    def __init__(self, account: str, seconds: float) -> None:
        super().__init__(account, row(1))
        self._seconds = seconds

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Connect late."""
        await asyncio.sleep(self._seconds)
        async with super().connect() as updates:
            yield updates


class AllAccounts(StaticSource):
    """Rows of all accounts."""

    covers_all_accounts = True


class Stuck(Stream):
    """A stream whose last message does not go out."""

    async def close(self, refusal: Decision) -> None:
        """Take for ever."""
        self.refusal = refusal
        self._closed()
        await anyio.sleep_forever()


# Options


@pytest.mark.parametrize(
    ("sources", "options", "said"),
    [
        (lambda: [AccountSource(None)], {}, "the source AccountSource knows no account: pass it alone"),
        (lambda: [AccountSource("")], {}, "the source AccountSource has the account '': expected a name"),
        (lambda: [AccountSource(cast("Any", 7))], {}, "the source AccountSource has the account 7: expected a name"),
        (lambda: [AccountSource("acme"), AccountSource("acme")], {}, "account 'acme' has a source already"),
        (lambda: [AccountSource("acme")], {"account": "acme"}, "account is 'acme': with a list of sources"),
        (lambda: ["https://hub.example"], {}, "source is 'https://hub.example'"),
        (lambda: "https://hub.example", {}, "source is 'https://hub.example'"),
        (
            lambda: [HubSource("https://hub.example", "sk_all_token")],
            {},
            "the source HubSource is for all accounts: pass it alone, Gatekeeper(source), or replace it",
        ),
        (
            lambda: HubSource("https://hub.example", "sk_all_token"),
            {"account": "acme"},
            "account is 'acme', and the source is for all accounts: pass one or the other",
        ),
        (lambda: iter([AccountSource("acme")]), {}, "source is <list_iterator"),
    ],
)
def test_wrong_sources_are_a_config_error(sources: Callable[[], Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Gatekeeper(sources(), **options)
    (problem,) = error.value.problems
    assert problem.startswith(said)


def test_a_source_of_all_accounts_may_stand_alone() -> None:
    assert Gatekeeper(HubSource("https://hub.example", "sk_all_token")).accounts == ()


def test_a_file_in_place_of_the_directory_of_snapshots_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "keys.snapshot").touch()
    with pytest.raises(ConfigError, match="expected a directory"):
        Gatekeeper([AccountSource("acme")], snapshot_path=tmp_path / "keys.snapshot")


async def test_a_gate_of_one_source_takes_no_others() -> None:
    gate = Gatekeeper(AccountSource("acme"))
    with pytest.raises(ConfigError, match="was made for one source"):
        await gate.add_source(AccountSource("globex"))
    with pytest.raises(ConfigError, match="was made for one source"):
        await gate.remove_source("acme")
    assert gate.accounts == ("acme",)


async def test_an_account_that_the_gate_does_not_have_is_a_config_error() -> None:
    gate, *_ = two()
    for use in (gate.remove_source("globex"), gate.refresh(account="globex"), gate.add_source(AccountSource("acme"))):
        with pytest.raises(ConfigError, match="expected one"):
            await use
    assert gate.accounts == ("acme", "acme_shop")


# Isolation


async def test_a_key_of_another_account_is_refused_at_once() -> None:
    with FakeHub() as acme, FakeHub() as shop:
        gate = Gatekeeper([source_at(acme, "acme"), source_at(shop, "acme_shop")], unknown_key_wait=4.9)
        for hub in (acme, shop):
            hub.lists(row(1))
        async with gate:
            fetched = [len(hub.fetches) for hub in (acme, shop)]
            with anyio.fail_after(4):
                for account in ("globex", "acm", "shop", "acmeshop"):
                    for number in range(20):
                        assert (await gate.check(client_key(number, account), ORIGIN)).reason is Reason.KEY_UNKNOWN
            assert [len(hub.fetches) for hub in (acme, shop)] == fetched


@pytest.mark.parametrize("key", [None, "nonsense", "pk_live_acme"])
async def test_a_request_without_a_readable_key_waits_for_nothing(key: str | None) -> None:
    gate, acme, shop = two(unknown_key_wait=4.9)
    async with gate:
        fetched = len(acme.validators) + len(shop.validators)
        assert (await gate.check(key, ORIGIN)).reason in (Reason.KEY_MISSING, Reason.KEY_MALFORMED)
        assert len(acme.validators) + len(shop.validators) == fetched


@asyncio_only
async def test_a_key_of_another_account_does_not_wait_for_the_start() -> None:
    with FakeHub() as acme, acme.held():
        gate = Gatekeeper([source_at(acme, "acme")], start_timeout=30)
        with anyio.fail_after(10):
            assert (await gate.check(client_key(1, "globex"), ORIGIN)).reason is Reason.KEY_UNKNOWN
            assert (await gate.check(None, ORIGIN)).reason is Reason.NOT_READY
        await gate.stop()


@asyncio_only
async def test_a_request_waits_for_its_own_list_alone() -> None:
    with FakeHub() as acme, FakeHub() as shop:
        acme.lists(row(1))
        shop.lists(proven_row(1, "acme_shop"))
        gate = Gatekeeper([source_at(acme, "acme"), source_at(shop, "acme_shop")], start_timeout=30)
        async with anyio.create_task_group() as group:
            seen: list[Decision] = []

            async def ask() -> None:
                seen.append(await gate.check(ACME, ORIGIN))

            with acme.held():
                with anyio.fail_after(15):
                    # Its key may be of both accounts, until a list has its digest.
                    assert (await gate.check(SHOP, ORIGIN)).allowed
                group.start_soon(ask)
                await acme.asked(1)
                assert seen == []
            await until(lambda: seen)
        assert seen[0].allowed
        await gate.start()
        await gate.stop()


async def test_a_new_key_of_either_account_is_found() -> None:
    gate, acme, shop = two(unknown_key_wait=4.9, clock=anyio.current_time, sleep=anyio.sleep)
    async with gate:
        shop.rows.append(proven_row(2, "acme_shop"))
        assert (await gate.check(client_key(2, "acme_shop"), ORIGIN)).account == "acme_shop"
        acme.rows.append(row(3))
        assert (await gate.check(client_key(3, "acme_shop"), ORIGIN)).account == "acme"
        shop.broken = OSError("down")
        acme.rows.append(row(4))
        assert (await gate.check(client_key(4, "acme"), ORIGIN)).account == "acme"


@pytest.mark.fault("one of several accounts")
@pytest.mark.parametrize("trouble", ["changes", "failures", "no rows", "garbage"])
async def test_the_trouble_of_one_account_costs_the_others_nothing(trouble: str) -> None:
    gate, acme, shop = two()
    async with gate:
        assert gate.decide(SHOP, ORIGIN).allowed
        kept, fetched = remembered_by(gate), len(shop.validators)
        for number in range(30):
            if trouble == "changes":
                acme.rows = [row(1, name=str(number))]
            elif trouble == "failures":
                acme.broken = OSError("down")
            elif trouble == "garbage":
                acme.rows = [number]
            else:
                acme.rows = []
            await gate.refresh(account="acme")
            gate.decide(ACME, ORIGIN)
            assert gate.decide(SHOP, ORIGIN) is kept[0].decision
        assert kept[0] in remembered_by(gate)
        assert len(shop.validators) == fetched
        assert gate.statuses["acme_shop"].counters["refresh_changed"] == 1


async def test_an_expired_list_lets_the_keys_of_others_in() -> None:
    fake = FakeClock()
    gate, acme, _ = two(clock=fake, sleep=fake.sleep, hard_stale=100)
    async with gate:
        acme.broken = OSError("down")
        await fake.asleep(2)
        fake.now += 99
        await gate.refresh()
        fake.now += 2
        assert gate.decide(ACME, ORIGIN).reason is Reason.EXPIRED
        assert gate.decide(SHOP, ORIGIN).allowed
        assert [status.state for status in gate.statuses.values()] == ["expired", "fresh"]
        assert (gate.status.state, gate.status.account) == ("expired", "acme")


@pytest.mark.fault("one of several accounts")
def test_a_start_waits_as_long_as_lists_come() -> None:
    async def run() -> None:
        async with Gatekeeper([Late(f"a{number}", 0.7 * number) for number in range(5)]) as gate:
            assert [status.state for status in gate.statuses.values()] == ["fresh"] * 5
        many = [Late(f"a{number}", 0.7 * number) for number in range(20)]
        async with Gatekeeper([*many, Late("z", 90)], start_timeout=5) as gate:
            assert [status.state for status in gate.statuses.values()].count("fresh") == 8, "those of the first 5 s"

    run_skipping(run())


@pytest.mark.slow
async def test_a_hub_that_hangs_holds_up_no_start() -> None:
    with FakeHub() as acme, FakeHub() as shop, acme.held():
        shop.lists(proven_row(1, "acme_shop"))
        gate = Gatekeeper([source_at(acme, "acme"), source_at(shop, "acme_shop")], start_timeout=60)
        with anyio.fail_after(30):
            async with gate:
                assert gate.decide(SHOP, ORIGIN).allowed
                assert gate.statuses["acme"].state == "never_loaded"


async def test_uses_and_refused_pages_are_reported_to_the_hub_of_their_account() -> None:
    with FakeHub() as acme, FakeHub() as globex:
        fake = FakeClock()
        for hub in (acme, globex):
            hub.lists(row(1))  # with the same id
        sources = [source_at(acme, "acme"), source_at(globex, "globex")]
        gate = Gatekeeper(sources, clock=fake, sleep=fake.sleep, jitter=lambda: 0.5)
        async with gate:
            for account, times in (("acme", 2), ("globex", 3)):
                for _ in range(times):
                    assert gate.decide(client_key(1, account), ORIGIN).allowed
                gate.admits(gate.decide(client_key(1, account), f"https://{account}.test"))
        told = {hub: [each for each in hub.requests if each.method == "POST"] for hub in (acme, globex)}
        for hub, times, page in ((acme, 2, "https://acme.test"), (globex, 3, "https://globex.test")):
            said = json.dumps([_json(each) for each in told[hub]])
            assert f'"count": {times}' in said
            assert page in said
            assert said.count("https://") == 1
        assert {page.origin for page in gate.refusals} == {"https://acme.test", "https://globex.test"}


def _json(request: Any) -> Any:
    packed = request.headers.get("content-encoding") == "gzip"
    return json.loads(gzip.decompress(request.body) if packed else request.body)


async def test_the_log_names_the_account(caplog: pytest.LogCaptureFixture) -> None:
    gate, acme, _ = two()
    with caplog.at_level(logging.INFO, "gatekeeper"):
        async with gate:
            acme.broken = OSError("100 % down")
            await gate.refresh()
    lines = [each.getMessage() for each in caplog.records]
    assert "gatekeeper: acme_shop: the list of widget keys is fresh: 1 keys" in lines
    (failure,) = [line for line in lines if "100 % down" in line]
    assert failure.startswith("gatekeeper: acme: the list of widget keys stays")


def test_the_log_names_the_account_of_a_refused_page(caplog: pytest.LogCaptureFixture) -> None:
    sources = [StaticSource([row(1)], account=name) for name in ("acme", "globex")]
    all_accounts = AllAccounts([row(1, account="acme"), row(2, account="globex")])
    for gate, keys in (
        (Gatekeeper(sources), (ACME, client_key(1, "globex"))),
        (Gatekeeper(all_accounts), (ACME, client_key(2, "globex"))),
    ):
        caplog.clear()
        for key in keys:
            gate.admits(gate.decide(key, "https://evil.test"))
        begins = [each.getMessage().partition(" the key")[0] for each in caplog.records]
        assert begins == ["gatekeeper: acme: refused", "gatekeeper: globex: refused"]
    caplog.clear()
    alone = Gatekeeper(sources[0])
    alone.admits(alone.decide(ACME, "https://evil.test"))
    assert caplog.records[0].getMessage().startswith("gatekeeper: refused the key")


def test_strict_preflights_ask_all_lists() -> None:
    sources = [StaticSource([row(1, domain_allowlist=[f"{name}.test"])], account=name) for name in ("acme", "globex")]
    origins = Gatekeeper(sources).enabled_origins()
    allowed = [name for name in ("acme", "globex", "evil") if origins.allows(Origin.parse(f"https://{name}.test"))]
    assert allowed == ["acme", "globex"]


async def test_a_refresh_tells_the_worst_outcome() -> None:
    gate, acme, shop = two()
    async with gate:
        assert (await gate.refresh()).outcome == "unchanged"
        shop.rows = []
        assert (await gate.refresh(account="acme")).outcome == "unchanged"
        assert (await gate.refresh()).outcome == "changed"
        acme.broken = OSError("down")
        shop.rows = [proven_row(1, "acme_shop")]
        assert (await gate.refresh()).outcome == "failed"
        assert gate.decide(SHOP, ORIGIN).allowed
    assert (await Gatekeeper([]).refresh()).outcome == "unchanged"


# Sources that come and go


async def test_a_source_is_added_and_removed_while_the_gate_runs() -> None:
    gate, *_ = two()
    async with gate:
        assert gate.decide(client_key(1, "globex"), ORIGIN).reason is Reason.KEY_UNKNOWN
        await gate.add_source(globex := AccountSource("globex", row(1)))
        assert gate.decide(client_key(1, "globex"), ORIGIN).allowed
        assert gate.accounts == ("acme", "acme_shop", "globex")
        await gate.remove_source("globex")
        assert gate.decide(client_key(1, "globex"), ORIGIN).reason is Reason.KEY_UNKNOWN
        fetched = len(globex.validators)
        await gate.refresh()
        assert len(globex.validators) == fetched
        await gate.add_source(globex)
        assert gate.decide(client_key(1, "globex"), ORIGIN).allowed
    assert not gate.status.is_refreshing


async def test_counts_never_decrease_when_a_source_is_removed() -> None:
    gate, *_ = two()
    async with gate:
        await gate.refresh()
        before = gate.status
        await gate.remove_source("acme_shop")
        after = gate.status
        assert before.counters["refresh_unchanged"] >= 2
        assert all(after.counters[name] >= count for name, count in before.counters.items())
        assert after.keys < before.keys


@asyncio_only
async def test_a_removed_source_leaves_no_task_behind() -> None:
    gate, *_ = two(sleep=anyio.sleep)
    async with gate:
        await gate.remove_source("acme_shop")
        async with leaving_nothing_behind():
            await gate.add_source(AccountSource("globex", row(1)))
            await gate.remove_source("globex")


@asyncio_only
async def test_a_source_is_added_to_a_gate_that_was_started_without_any() -> None:
    gate = Gatekeeper([], unknown_key_wait=0.0)
    async with leaving_nothing_behind():
        await gate.start()
        await gate.add_source(AccountSource("acme", row(1)))
        assert gate.decide(ACME, ORIGIN).allowed
        await gate.stop()


async def test_a_source_may_be_added_before_the_start() -> None:
    gate = Gatekeeper([], unknown_key_wait=0.0)
    await gate.add_source(AccountSource("acme", row(1)))
    assert gate.decide(ACME, ORIGIN).reason is Reason.NOT_READY
    async with gate:
        assert gate.decide(ACME, ORIGIN).allowed


async def test_a_nested_account_ends_the_decisions_that_it_may_change() -> None:
    gate, acme, _ = two()
    async with gate:
        await gate.remove_source("acme_shop")
        acme.rows = [row(1)]
        assert gate.decide(SHOP, ORIGIN).account == "acme"
        assert len(remembered_by(gate)) == 1
        await gate.add_source(AccountSource("acme_shop", row(1)))
        assert gate.decide(SHOP, ORIGIN).reason is Reason.KEY_AMBIGUOUS
        await gate.remove_source("acme")
        assert gate.decide(SHOP, ORIGIN).account == "acme_shop"
        assert remembered_by(gate)
        await gate.add_source(AccountSource("acme", row(1)))
        assert gate.decide(SHOP, ORIGIN).reason is Reason.KEY_AMBIGUOUS


async def test_the_decisions_of_a_removed_source_end() -> None:
    gate, *_ = two()
    async with gate:
        assert gate.decide(SHOP, ORIGIN).allowed
        assert gate.decide(ACME, ORIGIN).allowed
        await gate.remove_source("acme_shop")
        assert [each.decision.account for each in remembered_by(gate)] == ["acme"]


def test_a_stream_that_waits_for_a_removed_source_is_watched_by_another() -> None:
    async def run() -> None:
        acme = AccountSource("acme", row(1))
        gate = Gatekeeper([acme], sleep=Naps().sleep, start_timeout=5, enforce=False)
        async with gate, anyio.create_task_group() as group:
            group.start_soon(gate.add_source, Late("globex", 30))
            await asyncio.sleep(0.5)
            stream = Stream()
            stream.identity = (client_key(1, "globex").encode(), ORIGIN.encode())
            group.start_soon(gate.watch, stream)
            await asyncio.sleep(0.5)
            await gate.remove_source("globex")
            await asyncio.sleep(0.5)
            gate.enforce = True
            acme.rows = [row(1, disabled_at="now")]
            await gate.refresh()
            await asyncio.sleep(0.5)
            assert stream.refusal is not None

    run_skipping(run())


def test_a_removed_source_keeps_nothing_waiting() -> None:
    async def run() -> None:
        globex = Late("globex", 3)
        async with Gatekeeper([AccountSource("acme", row(1))], start_timeout=60) as gate, anyio.create_task_group() as group:
            group.start_soon(gate.add_source, globex)
            await asyncio.sleep(0.5)
            seen: list[Decision] = []

            async def ask() -> None:
                seen.append(await gate.check(client_key(1, "globex"), ORIGIN))

            group.start_soon(ask)
            await asyncio.sleep(0.5)
            await gate.remove_source("globex")
            with anyio.fail_after(1):
                while not seen:  # noqa: ASYNC110 - time is skipped
                    await asyncio.sleep(0.1)
            assert seen[0].reason is Reason.KEY_UNKNOWN

    run_skipping(run())


async def test_a_removal_that_is_cancelled_ends_the_refresher_all_the_same() -> None:
    source = AccountSource("acme", row(1))
    async with Gatekeeper([source], sleep=Naps().sleep) as gate:
        stream = Stuck()
        stream.identity = (ACME.encode(), ORIGIN.encode())
        await gate.watch(stream)
        removed = gate._lists.of("acme")
        with anyio.move_on_after(0.01):
            await gate.remove_source("acme")
        await until(lambda: not removed.sync.status.is_refreshing)


def test_a_stream_that_opens_while_its_source_is_removed_is_closed() -> None:
    async def run() -> None:
        async with Gatekeeper([AccountSource("acme")], start_timeout=60) as gate, anyio.create_task_group() as group:
            group.start_soon(gate.add_source, Late("globex", 30))
            await asyncio.sleep(0.5)
            stream = Stream()
            stream.identity = (client_key(1, "globex").encode(), ORIGIN.encode())
            group.start_soon(gate.watch, stream)
            await asyncio.sleep(0.5)
            await gate.remove_source("globex")
            await asyncio.sleep(0.5)
            assert stream.refusal is not None
            assert stream.refusal.reason is Reason.KEY_UNKNOWN

    run_skipping(run())


async def test_nothing_keeps_the_list_of_a_removed_source() -> None:
    gate, *_ = two()
    async with gate:
        stream = Stream()
        stream.identity = (SHOP.encode(), ORIGIN.encode())
        await gate.watch(stream)
        removed = weakref.ref(gate._lists.of("acme_shop"))
        assert gate.decide(SHOP, ORIGIN).allowed
        await gate.remove_source("acme_shop")
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert removed() is None


async def test_the_streams_of_a_removed_source_are_closed_and_no_others() -> None:
    source, shop = AccountSource("acme", row(1)), AccountSource("acme_shop", proven_row(1, "acme_shop"))
    gate = Gatekeeper([source, shop], sleep=Naps().sleep, unknown_key_wait=0)
    async with gate:
        streams = {key: Stream() for key in (ACME, SHOP)}
        for key, stream in streams.items():
            stream.identity = (key.encode(), ORIGIN.encode())
            await gate.watch(stream)
        await anyio.wait_all_tasks_blocked()
        await gate.remove_source("acme_shop")
        refusals = [stream.refusal and stream.refusal.reason for stream in streams.values()]
        assert refusals == [None, Reason.KEY_UNKNOWN]
        late = Stream()
        late.identity = (client_key(1, "globex").encode(), ORIGIN.encode())
        await gate.watch(late)
        assert late.refusal is not None, "its source was removed between its decision and this"


async def test_an_observing_gate_leaves_the_streams_of_a_removed_source_open() -> None:
    gate = Gatekeeper([AccountSource("acme", row(1))], sleep=Naps().sleep, unknown_key_wait=0, enforce=False)
    async with gate:
        stream, late = Stream(), Stream()
        await gate.watch(stream)
        await anyio.wait_all_tasks_blocked()
        await gate.remove_source("acme")
        await gate.watch(late)
        assert (stream.refusal, late.refusal) == (None, None)


@asyncio_only
async def test_the_streams_of_a_removed_source_hold_up_no_others() -> None:
    gate = Gatekeeper([AccountSource("acme", row(1))], sleep=Naps().sleep)
    turns = 0
    async with gate, anyio.create_task_group() as group:

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        closed: list[int] = []
        streams = [Stuck(1, lambda: closed.append(turns)) for _ in range(1000)]
        for stream in streams:
            stream.identity = (ACME.encode(), ORIGIN.encode())
            await gate.watch(stream)
        group.start_soon(take_turns)
        await gate.remove_source("acme")
        group.cancel_scope.cancel()
    assert len(closed) == len(streams)
    assert max(closed.count(turn) for turn in closed) <= 64


async def test_a_gate_that_enforces_again_closes_streams_of_no_account() -> None:
    acme = AccountSource("acme", row(1))
    async with Gatekeeper([acme], sleep=Naps().sleep, unknown_key_wait=0, enforce=False) as gate:
        stream = Stream()
        stream.identity = (client_key(1, "globex").encode(), ORIGIN.encode())
        await gate.watch(stream)
        await anyio.wait_all_tasks_blocked()
        gate.enforce = True
        acme.rows = [row(1, disabled_at="now")]
        await gate.refresh()
        await anyio.wait_all_tasks_blocked()
        assert stream.refusal is not None


def test_an_observed_stream_of_no_account_waits_for_no_list() -> None:
    async def run() -> None:
        sources = [Late("acme", 30), AccountSource("globex", row(1))]
        async with Gatekeeper(sources, sleep=Naps().sleep, start_timeout=20, enforce=False) as gate:
            stream = Stream()
            stream.identity = (client_key(1, "initech").encode(), ORIGIN.encode())
            with anyio.fail_after(1):
                await gate.watch(stream)
            assert stream.forget is not None, "it is watched"

    run_skipping(run())


async def test_a_change_closes_streams_of_its_account() -> None:
    shop = AccountSource("acme_shop", proven_row(1, "acme_shop"), proven_row(2, "acme_shop"))
    gate = Gatekeeper([AccountSource("acme", row(1)), shop], sleep=Naps().sleep, unknown_key_wait=0)
    async with gate:
        stream = Stream()
        stream.identity = (SHOP.encode(), ORIGIN.encode())
        await gate.watch(stream)
        await anyio.wait_all_tasks_blocked()
        shop.rows = [proven_row(1, "acme_shop", disabled_at="now"), proven_row(2, "acme_shop")]
        await gate.refresh()
        await anyio.wait_all_tasks_blocked()
        assert stream.refusal is not None


BACKENDS: tuple[Any, ...] = ("asyncio", "trio")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_source_is_removed_in_all_event_loops(backend: Any) -> None:
    acme, shop = AccountSource("acme", row(1)), AccountSource("acme_shop", proven_row(1, "acme_shop"))
    gate = Gatekeeper([acme, shop], sleep=Naps().sleep, unknown_key_wait=0)
    opened, closed, may_leave = threading.Event(), threading.Event(), threading.Event()

    async def serve() -> None:
        async with gate:
            stream = Stream(1, closed.set)
            stream.identity = (SHOP.encode(), ORIGIN.encode())
            await gate.watch(stream)
            await anyio.wait_all_tasks_blocked()
            opened.set()
            await anyio.to_thread.run_sync(may_leave.wait)

    with start_blocking_portal(backend) as portal:
        served = portal.start_task_soon(serve)
        assert await anyio.to_thread.run_sync(opened.wait, 20)
        async with gate:
            removed = gate._lists.of("acme_shop")
            await gate.remove_source("acme_shop")
            assert await anyio.to_thread.run_sync(closed.wait, 20)
            await until(lambda: not removed.sync.status.is_refreshing)
            assert gate.statuses["acme"].is_refreshing
            may_leave.set()
            await anyio.to_thread.run_sync(served.result, 20)
            assert gate.statuses["acme"].is_refreshing


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_source_is_removed_while_another_event_loop_leaves_the_gate(backend: Any) -> None:
    gate, *_ = two(sleep=Naps().sleep)
    is_in, is_removed = threading.Event(), threading.Event()

    async def leave_meanwhile() -> None:
        async with gate:
            is_in.set()
            is_removed.wait(20)  # blocks the event loop, so that it sees the removal after it has begun to leave

    async def remove() -> None:
        async with gate:
            await gate.remove_source("acme")

    with start_blocking_portal(backend) as portal:
        leaving = portal.start_task_soon(leave_meanwhile)
        assert is_in.wait(20)
        anyio.run(remove)
        is_removed.set()
        leaving.result(20)
    assert gate.accounts == ("acme_shop",)
    assert not gate.status.is_refreshing


def test_an_event_loop_that_was_closed_breaks_no_removal() -> None:
    """A server that only stops its event loop ends no task."""
    gate, *_ = two(sleep=Naps().sleep)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(gate.start())
    loop.close()

    async def remove() -> None:
        async with gate:
            await gate.remove_source("acme")
            assert gate.decide(SHOP, ORIGIN).allowed

    anyio.run(remove)


def test_requests_of_threads_find_a_list_or_none_while_sources_come_and_go() -> None:
    stays, comes = StaticSource([row(1)], account="acme"), StaticSource([row(1)], account="globex")
    gate = Gatekeeper([stays])
    problems: list[Any] = []
    is_over = threading.Event()

    def decide() -> None:
        while not is_over.is_set():
            if not gate.decide(ACME, ORIGIN).allowed:
                problems.append("acme")
            if gate.decide(client_key(1, "globex"), ORIGIN).reason not in (Reason.ALLOWED, Reason.KEY_UNKNOWN):
                problems.append("globex")

    async def come_and_go() -> None:
        for _ in range(50):
            await gate.add_source(comes)
            assert gate.decide(client_key(1, "globex"), ORIGIN).allowed
            await gate.remove_source("globex")
            assert gate.decide(client_key(1, "globex"), ORIGIN).reason is Reason.KEY_UNKNOWN

    threads = [threading.Thread(target=decide) for _ in range(2)]
    with threads_switching_often():
        for thread in threads:
            thread.start()
        asyncio.run(come_and_go())
        is_over.set()
        for thread in threads:
            thread.join()
    assert problems == []


# Snapshots, grants, forks, TLS


def files_of(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_each_account_has_a_snapshot_in_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "snapshots"  # the gate makes it
    gate, acme, shop = two(snapshot_path=directory)
    async with gate:
        pass
    assert {"keys.acme.snapshot", "keys.acme_shop.snapshot"} <= {path.name for path in files_of(directory)}
    again, acme, shop = two(snapshot_path=directory)
    acme.broken = shop.broken = OSError("down")
    async with again:
        assert [again.decide(key, ORIGIN).allowed for key in (ACME, SHOP)] == [True, True]
        assert {status.from_snapshot for status in again.statuses.values()} == {True}


async def test_a_grant_belongs_to_its_account() -> None:
    rows = [row(1)]  # with one id and one suffix in both accounts
    sources = [StaticSource(rows, account=account) for account in ("acme", "globex")]
    gate = Gatekeeper(sources, grant_secrets=[SECRET], unknown_key_wait=0.0)
    decision = await gate.grant(ACME.encode(), BEHIND_FRAME)
    grant = decision.grant
    assert gate.decide(None, None, grant=grant).account == "acme"
    assert gate.decide(ACME, None, grant=grant).allowed
    assert gate.decide(client_key(1, "globex"), None, grant=grant).reason is Reason.KEY_CONFLICT
    assert gate.decide(None, "https://evil.test", grant=grant).reason is Reason.GRANT_FOREIGN
    assert (await gate.check(None, None, grant=grant)).allowed
    assert decision.key is not None
    assert gate.allowlist(decision.key, account="acme") is not None
    assert gate.allowlist(decision.key, account="initech") is None
    await gate.remove_source("acme")
    assert gate.decide(None, None, grant=grant).reason is Reason.KEY_UNKNOWN
    assert (await gate.check(None, None, grant=grant)).reason is Reason.KEY_UNKNOWN
    alone = Gatekeeper(sources[1], grant_secrets=[SECRET])
    assert alone.decide(None, None, grant=grant).reason is Reason.GRANT_INVALID


def test_several_sources_derive_no_secrets_of_grants() -> None:
    assert Gatekeeper([HubSource("https://hub.example", "sk_live_acme_token")]).grant_lifetime is None


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_keeps_the_lists_of_all_accounts_fresh() -> None:
    gate, _, shop = two()

    def in_child() -> None:
        assert remembered_by(gate) == []
        assert gate.decide(SHOP, ORIGIN).allowed
        shop.rows = [proven_row(1, "acme_shop", disabled_at="now")]

        async def use() -> None:
            async with gate:
                assert gate.decide(SHOP, ORIGIN).reason is Reason.KEY_DISABLED
                await gate.remove_source("acme")
                await gate.add_source(AccountSource("globex", row(1)))
                assert gate.decide(client_key(1, "globex"), ORIGIN).allowed

        asyncio.run(use())

    async def fork_while_running() -> str:
        async with gate:
            assert gate.decide(SHOP, ORIGIN).allowed
            said = forked(in_child)
            assert gate.accounts == ("acme", "acme_shop")
            assert gate.decide(SHOP, ORIGIN).allowed
        return said

    assert asyncio.run(fork_while_running()) == "well"


async def test_files_of_several_accounts_make_a_gate(tmp_path: Path) -> None:
    for account in ("acme", "globex"):
        (tmp_path / account).write_bytes(as_json(row(1)))
    async with Gatekeeper([FileSource(tmp_path / each, account=each) for each in ("acme", "globex")]) as gate:
        assert [gate.decide(client_key(1, each), ORIGIN).account for each in gate.accounts] == ["acme", "globex"]


def test_sources_of_one_gate_share_a_tls_context() -> None:
    shared: list[Any] = []

    class Sharing(AccountSource):
        def share_tls(self, tls: Any) -> None:
            shared.append(tls)

    Gatekeeper([Sharing("acme"), Sharing("globex")])
    assert len(shared) == 2
    assert shared[0] is shared[1]
    Gatekeeper(Sharing("acme"))
    assert len(shared) == 2


async def test_a_held_answer_of_one_hub_delays_no_refresh_of_another() -> None:
    with FakeHub() as acme, FakeHub() as globex:
        acme.lists(row(1))
        globex.lists(row(1))
        async with Gatekeeper([source_at(acme, "acme"), source_at(globex, "globex")]) as gate:
            acme.always(HubAnswer(200, as_json(row(1)), hold=(hold := acme.hold())))
            async with anyio.create_task_group() as group:
                group.start_soon(gate.refresh)
                await acme.asked(2)
                globex.lists(row(1, disabled_at="now"))
                with anyio.fail_after(15):
                    assert (await gate.refresh(account="globex")).outcome in ("changed", "unchanged")
                assert gate.decide(client_key(1, "globex"), ORIGIN).reason is Reason.KEY_DISABLED
                hold.release()
