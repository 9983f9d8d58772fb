"""The metrics, as Prometheus scrapes them."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message

from gatekeeper import Gatekeeper, HubServerError, Reason, RefusedPage
from gatekeeper.client import KeyUsage
from gatekeeper.errors import RowReason
from gatekeeper.metrics import collector
from gatekeeper.sync.status import State
from gatekeeper.testing import FakeHub, HubAnswer
from gatekeeper.web.streams import ResponseStream
from tests.support.guarded import guarded
from tests.support.memory_source import MemorySource
from tests.support.rows import ORIGIN, TOKEN, bad_row, client_key, row
from tests.support.several import several

README = (Path(__file__).parent.parent / "gatekeeper/sync/README.md").read_text(encoding="utf-8")
CLOSED_SETS: dict[str, set[str]] = {
    "gatekeeper_accounts": set(get_args(State)),
    "gatekeeper_decisions": {reason.value for reason in Reason},
    "gatekeeper_gate_reports": {"reported", "failed"},
    "gatekeeper_refused_reports": {"reported", "failed"},
    "gatekeeper_refreshes": {"changed", "unchanged", "failed"},
    "gatekeeper_rows_rejected": set(get_args(RowReason)),
    "gatekeeper_snapshots": {"saved", "failed"},
    "gatekeeper_state": set(get_args(State)),
    "gatekeeper_token_scope": {"gate", "admin"},
    "gatekeeper_usage_reports": {"reported", "failed"},
}

Samples = dict[tuple[str, str], float]


def registry(gate: Gatekeeper) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=True)
    made.register(collector(gate))
    return made


def scrape(at: CollectorRegistry) -> Samples:
    """Scrape the samples, by name and the value of any label."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(at).decode())
        for sample in family.samples
    }


def by_state(samples: Samples) -> dict[str, float]:
    """The accounts by the states that any has."""
    return {state: value for (name, state), value in samples.items() if name == "gatekeeper_accounts" and value}


def changed(before: Samples, after: Samples) -> Samples:
    return {name: value - before[name] for name, value in after.items() if value != before[name]}


def test_decisions_are_counted_by_reason() -> None:
    gate = Gatekeeper.from_rows([row(1)])
    metrics = registry(gate)
    before = scrape(metrics)
    for _ in range(3):
        gate.decide(client_key(1), ORIGIN)
    gate.admits(gate.decide(client_key(1), "https://evil.example"))
    gate.admits(gate.decide(client_key(2), ORIGIN))
    gate.admits(gate.decide(None, ORIGIN))
    assert changed(before, scrape(metrics)) | {("gatekeeper_list_age_seconds", ""): 0} == {
        ("gatekeeper_decisions_total", "allowed"): 3,
        ("gatekeeper_decisions_total", "origin_not_allowed"): 1,
        ("gatekeeper_decisions_total", "key_unknown"): 1,
        ("gatekeeper_decisions_total", "key_missing"): 1,
        ("gatekeeper_refused_pages", ""): 1,
        ("gatekeeper_list_age_seconds", ""): 0,
    }


def test_requests_that_are_only_observed_are_counted() -> None:
    gate = Gatekeeper.from_rows([row(1)], enforce=False)
    metrics = registry(gate)
    assert scrape(metrics)["gatekeeper_enforcing", ""] == 0
    for origin in ("https://evil.example", "https://evil.example", "null", ORIGIN):
        gate.admits(gate.decide(client_key(1), origin))
    gate.admits(gate.decide(None, ORIGIN))
    seen = scrape(metrics)
    assert (seen["gatekeeper_observed_requests_total", ""], seen["gatekeeper_refused_pages", ""]) == (4, 2)
    gate.enforce = True
    gate.admits(gate.decide(client_key(1), "null"))
    seen = scrape(metrics)
    assert (seen["gatekeeper_observed_requests_total", ""], seen["gatekeeper_enforcing", ""]) == (4, 1)


def test_every_value_of_every_label_exists_from_the_start() -> None:
    families = text_string_to_metric_families(generate_latest(registry(Gatekeeper(MemorySource()))).decode())
    labelled = {family.name: {value for sample in family.samples for value in sample.labels.values()} for family in families}
    assert {name: values for name, values in labelled.items() if values} == CLOSED_SETS


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_age_and_state_of_the_list_are_metrics() -> None:
    with FakeHub() as hub:
        hub.always(HubAnswer(503))
        async with guarded(hub, jitter=1.0, soft_stale=60, hard_stale=600) as it:
            metrics = registry(it.gate)

            def state() -> list[str]:
                return [label for (name, label), value in scrape(metrics).items() if name == "gatekeeper_state" and value]

            seen = scrape(metrics)
            assert state() == ["never_loaded"]
            assert ("gatekeeper_list_age_seconds", "") not in seen
            assert ("gatekeeper_revocation_lag_seconds", "") not in seen
            assert seen["gatekeeper_refreshes_total", "failed"] == 1
            hub.lists(row(1))
            await it.refresh()
            assert state() == ["fresh"]
            hub.always(HubAnswer(503))
            for seconds, expected in ((59, "fresh"), (1, "degraded"), (540, "expired")):
                await it.time.advance(seconds)
                assert state() == [expected]
            assert scrape(metrics)["gatekeeper_list_age_seconds", ""] == 600


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_scope_of_the_token_is_a_metric() -> None:
    with FakeHub() as hub:
        async with guarded(hub) as it:
            metrics = registry(it.gate)

            def scopes() -> list[str]:
                seen = scrape(metrics)
                return [label for name, label in seen if name == "gatekeeper_token_scope" and seen[name, label]]

            assert scopes() == []
            for scope in ("admin", "gate"):
                hub.always(HubAnswer(200, b"[]", {"token-scope": scope}))
                await it.refresh()
                assert scopes() == [scope]


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_faults_of_a_list_are_metrics() -> None:
    with FakeHub() as hub:
        rows = [row(number) for number in range(20)]
        hub.lists(*rows)
        async with guarded(hub, wall_clock=lambda: 1_000.0) as it:
            metrics = registry(it.gate)
            before = scrape(metrics)
            assert before["gatekeeper_keys", ""] == 20
            revoked = {**rows[1], "disabled_at": "1970-01-01T00:16:30Z"}
            alike = row(2, id="another")
            hub.lists(rows[0], revoked, alike, *rows[2:], rows[3], bad_row(4, id="bad"))
            await it.refresh()
            after = scrape(metrics)
            assert after.pop(("gatekeeper_revocation_lag_seconds", "")) == 10
            assert changed(before, after) == {
                ("gatekeeper_refreshes_total", "changed"): 1,
                ("gatekeeper_keys", ""): 1,
                ("gatekeeper_ambiguous_keys", ""): 1,
                ("gatekeeper_rows_rejected_total", "suffix"): 1,
                ("gatekeeper_list_rejected_rows", ""): 1,
                ("gatekeeper_duplicate_ids_total", ""): 1,
                ("gatekeeper_revocations_total", ""): 1,
            }
            hub.lists(*rows[:5])
            await it.refresh()
            assert scrape(metrics)["gatekeeper_removals_held", ""] == 16


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_snapshots_and_event_loop_lag_are_metrics(tmp_path: Path) -> None:
    with FakeHub() as hub:
        hub.lists(row(1))
        async with guarded(hub, snapshot_path=tmp_path / "snapshot") as it:
            assert scrape(registry(it.gate))["gatekeeper_snapshots_total", "saved"] == 1
            it.time.now += 13
            await it.time.wake()
            assert scrape(registry(it.gate))["gatekeeper_event_loop_lag_seconds", ""] == 3
        hub.always(HubAnswer(503))
        async with guarded(hub, snapshot_path=tmp_path / "snapshot") as it:
            assert scrape(registry(it.gate))["gatekeeper_list_from_snapshot", ""] == 1


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_restarts_closed_streams_and_reports_are_metrics() -> None:
    class ReportingSource(MemorySource):
        async def report_usage(self, used: Mapping[str, KeyUsage]) -> None:
            if "key-2" in used:
                raise HubServerError("the hub fails")

        async def report_refused(self, pages: Sequence[RefusedPage]) -> None:
            if len(pages) > 1:
                raise HubServerError("the hub fails")

    async def send(_message: Message) -> None:
        pass

    gate = Gatekeeper(ReportingSource(row(1), row(2)))
    metrics = registry(gate)
    others = asyncio.all_tasks()
    async with gate:
        before = scrape(metrics)
        for task in (ours := asyncio.all_tasks() - others):
            task.cancel()
        await asyncio.wait(ours)
        assert (await gate.check(client_key(1), ORIGIN)).allowed
        gate.admits(gate.decide(client_key(1), "null"))
        await gate.watch(ResponseStream((client_key(3).encode(), ORIGIN.encode()), send, gate.watch))
    gate.admits(gate.decide(client_key(2), ORIGIN))
    gate.admits(gate.decide(client_key(1), "null"))
    gate.admits(gate.decide(client_key(2), "null"))
    async with gate:
        pass
    happened = changed(before, scrape(metrics))
    assert {name: value for name, value in happened.items() if "list_age" not in name[0] and "refreshes" not in name[0]} == {
        ("gatekeeper_decisions_total", "allowed"): 2,
        ("gatekeeper_decisions_total", "origin_null"): 3,
        ("gatekeeper_refused_pages", ""): 2,
        ("gatekeeper_refused_reports_total", "reported"): 1,
        ("gatekeeper_refused_reports_total", "failed"): 1,
        ("gatekeeper_refresher_restarts_total", ""): 1,
        ("gatekeeper_streams_closed_total", ""): 1,
        ("gatekeeper_usage_reports_total", "reported"): 1,
        ("gatekeeper_usage_reports_total", "failed"): 1,
    }


@pytest.mark.anyio
async def test_reports_of_the_gate_on_itself_are_counted() -> None:
    with FakeHub(row(1)) as hub:
        async with guarded(hub, usage_interval=30.0, refresh_interval=60.0) as it:
            metrics = registry(it.gate)
            await it.time.advance(100)
            hub.always(HubAnswer(500))
            await it.time.advance(60)
            counted = scrape(metrics)
    assert [counted["gatekeeper_gate_reports_total", outcome] for outcome in ("reported", "failed")] == [2, 1]


def test_several_gates_of_one_process_have_a_label() -> None:
    made = CollectorRegistry(auto_describe=True)
    made.register(collector({"eu": Gatekeeper.from_rows([row(1), row(2)]), "us": Gatekeeper.from_rows([row(1)])}))
    scraped = generate_latest(made).decode()
    assert 'gatekeeper_keys{gate="eu"} 2.0' in scraped
    assert 'gatekeeper_keys{gate="us"} 1.0' in scraped
    assert 'gatekeeper_decisions_total{gate="us",reason="allowed"} 0.0' in scraped
    assert len(re.findall("# TYPE gatekeeper_keys gauge", scraped)) == 1


@pytest.mark.parametrize(("rows", "state"), [((), "never_loaded"), ((row(1),), "fresh")])
def test_a_gate_of_one_source_counts_as_one_account(rows: tuple[Any, ...], state: str) -> None:
    gate = Gatekeeper.from_rows(rows) if rows else Gatekeeper(MemorySource())
    assert by_state(scrape(registry(gate))) == {state: 1}


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_accounts_are_counted_by_the_state_of_their_lists() -> None:
    async with several("acme", "globex", "initech", rows=(row(1), row(2)), broken=("initech",), soft_stale=60) as it:
        metrics = registry(it.gate)
        it.fail("globex")
        await it.time.advance(75)
        seen = scrape(metrics)
        assert by_state(seen) == {"fresh": 1, "degraded": 1, "never_loaded": 1}
        assert seen["gatekeeper_state", "never_loaded"] == 1
        assert seen["gatekeeper_keys", ""] == 4
        it.sources["initech"].broken = None
        await it.gate.refresh(account="initech")
        seen = scrape(metrics)
        assert by_state(seen) == {"fresh": 2, "degraded": 1}
        assert (seen["gatekeeper_state", "degraded"], seen["gatekeeper_list_age_seconds", ""]) == (1, 75)
        assert seen["gatekeeper_refreshes_total", "failed"] == sum(
            status.counters.get("refresh_failed", 0) for status in it.gate.statuses.values()
        )


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_number_of_accounts_changes_no_series_and_none_is_named() -> None:
    names = tuple(f"customer-{number}" for number in range(50))
    rows = (row(1), row(1, id="another"))
    async with several("acme", rows=rows) as one, several(*names, rows=rows) as many:
        few, much = (scrape(registry(it.gate)) for it in (one, many))
        assert few.keys() == much.keys()
        assert "customer" not in generate_latest(registry(many.gate)).decode()
        assert (few["gatekeeper_ambiguous_keys", ""], much["gatekeeper_ambiguous_keys", ""]) == (1, 50)


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_gate_without_accounts_counts_none() -> None:
    async with several() as it:
        assert by_state(scrape(registry(it.gate))) == {}


@settings(max_examples=50, deadline=None)
@given(
    key=st.one_of(st.text(max_size=30), st.binary(max_size=30), st.sampled_from([client_key(1), client_key(9)])),
    origin=st.one_of(st.none(), st.text(max_size=30), st.sampled_from([ORIGIN, "https://evil.example", "null"])),
)
def test_nothing_from_a_request_becomes_a_label(key: str | bytes, origin: str | None) -> None:
    gate = Gatekeeper.from_rows([row(1)])
    metrics = registry(gate)
    before = scrape(metrics)
    gate.decide(key, origin)
    after = scrape(metrics)
    assert after.keys() == before.keys()
    decided = {name for name in after if name[0] == "gatekeeper_decisions_total"}
    assert sum(after[name] - before[name] for name in decided) == 1


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_neither_the_token_nor_anything_from_a_row_is_scraped() -> None:
    with FakeHub() as hub:
        hub.lists(*(row(number, name="a secret") for number in range(9)), bad_row(9, id="a secret", disabled_at="a secret"))
        async with guarded(hub) as it:
            it.gate.decide(client_key(1), ORIGIN)
            hub.always(HubAnswer(401))
            await it.refresh()
            scraped = generate_latest(registry(it.gate)).decode()
    for secret in ("a secret", TOKEN, "key-1", "00000001", "acme"):
        assert secret not in scraped


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_scrape_from_another_thread_loses_no_decision() -> None:
    rows = [row(number) for number in range(200)]
    source = MemorySource(*rows)
    gate = Gatekeeper(source)
    failures: list[Exception] = []
    done = threading.Event()

    def keep_scraping() -> None:
        metrics = registry(gate)
        while not done.is_set():
            try:
                generate_latest(metrics)
            except Exception as error:  # noqa: BLE001 - any failure is reported by the test
                failures.append(error)
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=keep_scraping)
    decided = 0
    try:
        async with gate:
            thread.start()
            for number in range(30_000):
                gate.decide(client_key(number % 200), f"https://{number % 97}.example")
                decided += 1
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert sum(gate.decisions.values()) == decided


def test_without_prometheus_client_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import gatekeeper.metrics"
    hidden = (
        "import importlib.util as u, sys; found = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'prometheus_client' else found(name, *rest);" + code
    )
    ran = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert "ImportError: gatekeeper.metrics needs the extra `metrics`" in ran.stderr
    assert "pip install 'widget-gatekeeper[metrics]'" in ran.stderr


def test_every_alert_of_the_readme_uses_existing_metrics_and_labels() -> None:
    (rules,) = re.findall(r"```yaml\n(groups:.+?)```", README, flags=re.DOTALL)
    scraped = scrape(registry(Gatekeeper.from_rows([])))
    # This one is absent until a key was revoked.
    names = {name for name, _ in scraped} | {"gatekeeper_revocation_lag_seconds"}
    assert set(re.findall(r"\bgatekeeper_\w+", rules)) <= names
    for name, wanted in re.findall(r'(gatekeeper_\w+)\{\w+=~?"([^"]+)"', rules):
        assert {(name, value) for value in wanted.split("|")} <= scraped.keys()
    alerted = " ".join(re.findall(r"expr: (.+)", rules))
    for what in (
        "list_age_seconds",
        "revocation_lag_seconds",
        'refreshes_total{outcome="failed"}',
        "list_rejected_rows",
        "ambiguous_keys",
        "removals_held",
        "refresher_restarts_total",
        "event_loop_lag_seconds",
        'token_scope{scope="admin"}',
        'accounts{state=~"never_loaded|degraded|expired"}',
    ):
        assert f"gatekeeper_{what}" in alerted
