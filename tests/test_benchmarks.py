"""Each benchmark runs, with parameters too small to believe, and writes JSON that says what it measured and how."""

import dataclasses
import importlib
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .needs import lacking, postgres

pytest.importorskip("asgi_cors", reason="asgi-cors is not installed: pip install -e '.[bench]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[bench]'")
pytest.importorskip("redis", reason="redis is not installed: pip install -e '.[bench]'")
pytest.importorskip("uvloop", reason="uvloop is not installed: pip install -e '.[bench]'")

from benchmarks import guard, hub, lines, script
from benchmarks.__main__ import SHORT
from benchmarks.accounts import parameters as accounts
from benchmarks.live import parameters as live

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
TINY = {
    "overhead": ("--rounds=1", "--requests=50", "--keys=100,1000", "--cors-origins=10"),
    "lines": ("--rounds=1", "--requests=50"),
    "matching": ("--rounds=1", "--sizes=1,100"),
    "start": ("--rounds=1",),
    "load": ("--rounds=1", "--mixes=100", "--guards=bare,gatekeeper,Redis GET"),
    "scale": ("--keys=500", "--settle=0.1"),
    "floods": ("--requests=2000", "--seconds=0.2"),
    "live": (),
    "accounts": (),
    "freshness": ("--trials=4", "--window=0.5", "--interval=0.5", "--keys=100", "--day=60", "--soak=1"),
}
PROGRAMS = {"load": ("wrk", "redis-server"), "freshness": ("wrk",)}


def figures_of(name: str, directory: Path) -> dict[str, Any]:
    """Run a benchmark once a session, and read what it wrote."""
    for program in PROGRAMS.get(name, ()):
        need(program)
    file = directory / f"{name}.json"
    if not file.exists():
        run(f"benchmarks.{name}", "--quick", *TINY[name], f"--json={file}")
    written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert written["benchmark"] == name
    assert written["machine"]["packages"]["starlette"]
    assert written["parameters"]
    figures: dict[str, Any] = written["figures"]
    assert all(math.isfinite(number) for number in numbers(figures))
    return figures


def run(module: str, *options: str) -> str:
    ended = subprocess.run([sys.executable, "-m", module, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def numbers(figures: object) -> Iterator[float]:
    if isinstance(figures, dict):
        for value in figures.values():
            yield from numbers(value)
    elif isinstance(figures, int | float):
        yield figures


def need(program: str) -> None:
    if shutil.which(program) is None:
        lacking(f"{program} is not installed: apt-get install {program}")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


def test_overhead_has_every_kind_of_request_and_every_reason(results: Path) -> None:
    figures = figures_of("overhead", results)
    assert set(figures["allowed"]) == {"header key", "query key", "Referer", "no app headers"}
    for by_name in figures["allowed"].values():
        assert {"floor", "gatekeeper", "CORSMiddleware"} <= set(by_name)
    assert {"asgi-cors", "BaseHTTPMiddleware", "CORSMiddleware, regex"} <= set(figures["allowed"]["header key"])
    assert len(figures["refused"]["reasons"]) == 15
    assert set(figures["grant"]) == {"with a key, no frames", "with a key", "with a grant"}
    assert figures["first_sight_of_a_grant_us"]["median"] > 0
    assert all(each["taken_ns"]["median"] > 0 for each in figures["refused"]["reasons"].values())
    assert set(figures["flat"]["keys"]) == {"100", "1000"}
    assert "percent signs" in figures["long_query_ms"]
    assert all(each["median"] > 0 for each in figures["long_query_ms"].values())


def test_lines_finds_every_step_of_an_allowed_request_in_the_middleware(results: Path) -> None:
    figures = figures_of("lines", results)
    assert set(figures["steps_ns"]) == set(lines.STEPS)
    assert all("median" in each for each in figures["added_ns"].values())


def test_a_step_that_the_middleware_does_not_have_is_said() -> None:
    with pytest.raises(SystemExit, match="the middleware no longer contains 'what is not there'"):
        lines.copy_without(("what is not there", ""))


def test_matching_has_all_contenders_at_all_sizes(results: Path) -> None:
    curve = figures_of("matching", results)["curve_us"]
    assert {name: set(by_size) for name, by_size in curve.items()} == {name: {"1", "100"} for name in curve}
    assert len(curve) == 5


def test_an_import_opens_nothing_and_loads_no_public_suffixes(results: Path) -> None:
    figures = figures_of("start", results)
    assert figures["io_at_import"] == []
    assert ".tld_set_snapshot" in figures["io_of_first_wildcard"]
    assert figures["public_suffixes_are_loaded_by"] == {
        "import gatekeeper": False,
        "an entry without a wildcard": False,
        "an entry with a wildcard": True,
    }


def test_load_compares_with_the_bare_app_and_refuses_what_it_should(results: Path) -> None:
    by_workload = figures_of("load", results)["uvicorn"]
    assert set(by_workload) == {"allowed", "mix of 100 keys"}
    for by_guard in by_workload.values():
        assert by_guard["gatekeeper"]["requests_per_s"]["median"] > 0
        assert by_guard["gatekeeper"]["of_bare"] > 0
        assert by_guard["Redis GET"]["requests_per_s"]["median"] > 0
    assert by_workload["allowed"]["gatekeeper"]["refused"]["median"] == 0
    assert 0.03 < by_workload["mix of 100 keys"]["gatekeeper"]["refused"]["median"] < 0.09


def test_scale_counts_what_each_refresh_changed(results: Path) -> None:
    figures = figures_of("scale", results)["500"]["gatekeeper"]
    assert figures["ready_s"]["median"] > 0
    changed = {name: each["changed"]["median"] for name, each in figures["refreshes"].items()}
    assert changed == {
        "unchanged, ETag": 0,
        "unchanged, no ETag": 0,
        "0.1 % changed": 1,
        "1 % changed": 5,
        "100 % changed": 500,
    }


def test_floods_are_refused_and_ask_the_hub_next_to_nothing(results: Path) -> None:
    figures = figures_of("floods", results)
    for by_contender in figures["floods"].values():
        assert by_contender["gatekeeper"]["requests"] == 2000
        assert by_contender["gatekeeper"]["hub_requests"] <= 3
    assert set(figures["valid"]) == {"other valid requests", *figures["floods"]}


def test_every_worker_refuses_what_is_revoked_and_no_decision_is_wrong(results: Path) -> None:
    figures = figures_of("freshness", results)
    assert figures["workers"] == 2
    assert 0 < figures["by_a_worker_s"]["max"] < 10
    assert figures["wrong_decisions"] == figures["day"]["wrong_decisions"] == figures["soak"]["wrong_answers"] == 0
    assert figures["day"]["failed_refreshes"] > 0


def test_live_gates_know_of_all_changes_and_every_scenario_has_figures(results: Path) -> None:
    figures = figures_of("live", results)
    assert set(figures) == set(live.SCENARIOS)
    assert all(set(by_database) == {"sqlite"} for by_database in figures.values())
    of = {scenario: by_database["sqlite"] for scenario, by_database in figures.items()}
    assert of["revocation"]["traffic: wrong decisions"] == 0
    assert of["revocation"]["created, refused at the first request (%)"] == 0
    assert of["quiet"]["of 20 new keys, accepted by all gates at the first request"] == 20
    assert of["waiting"]["20 waiters: not told within a minute"] == 0
    assert of["delta"]["deltas"] > 0
    assert of["outages"]["wrong decisions at the end"] == 0
    assert of["fairness"]["read account: changes answered 5xx"] == 0


def test_live_gates_of_a_hub_of_two_processes_know_new_keys(tmp_path: Path) -> None:
    postgres()
    file = tmp_path / "live.json"
    run("benchmarks.live", "--quick", "--only=revocation", "--database=postgres", f"--json={file}")
    figures = json.loads(file.read_text(encoding="utf-8"))["figures"]["revocation"]["postgres"]
    assert figures["created, refused at the first request (%)"] == 0


def test_many_accounts_have_their_lists_and_none_harms_the_others(results: Path) -> None:
    figures = figures_of("accounts", results)
    assert set(figures) == set(accounts.SCENARIOS)
    of = {scenario: by_database["sqlite"] for scenario, by_database in figures.items()}
    assert all(of["together"][f"{kind}: memory of the process (MB)"] > 0 for kind in ("one gate", "a gate each"))
    assert all(
        of["hanging"][f"{kind}: others' revocations, p50 from the sending (ms)"] > 0 for kind in ("hub answers", "hub hangs")
    )
    assert all(of["listed"][f"{kind}: an allowed request (µs)"] > 0 for kind in ("all accounts", "one account"))


def test_the_charts_are_drawn_from_the_json(results: Path, tmp_path: Path) -> None:
    drawn = {"overhead": ("overhead", "keys"), "matching": ("matching",), "scale": ("lag",)} | (
        {"load": ("load",)} if shutil.which("wrk") else {}
    )
    for name in drawn:
        figures_of(name, results)
    run("benchmarks", "--redraw", f"--only={','.join(drawn)}", f"--results={results}", f"--charts={tmp_path}")
    assert {path.name for path in tmp_path.iterdir()} == {f"{chart}.svg" for charts in drawn.values() for chart in charts}
    assert all(re.search(r"gatekeeper", path.read_text(encoding="utf-8")) for path in tmp_path.iterdir())


def test_the_short_set_has_every_benchmark_and_names_parameters_that_exist() -> None:
    assert set(SHORT) == set(TINY)
    for name, options in SHORT.items():
        known = {field.name for field in dataclasses.fields(importlib.import_module(f"benchmarks.{name}").Parameters)}
        assert {option.removeprefix("--").partition("=")[0].replace("-", "_") for option in options} <= known


def test_every_round_has_every_name_once_and_the_order_changes() -> None:
    names = list("abcdef")
    rounds = list(zip(*[iter(script.interleaved(names, 20))] * len(names), strict=True))
    assert len(rounds) == 20
    assert all(sorted(each) == names for each in rounds)
    assert len(set(rounds)) > 10


def test_percentiles_are_observations_and_the_spread_is_of_quartiles() -> None:
    assert script.percentiles(range(200, 0, -1)) == {"p50": 100, "p99": 198, "max": 200}
    assert script.percentiles([7.0]) == {"p50": 7.0, "p99": 7.0, "max": 7.0}
    assert script.spread([5, 1, 3, 2, 4]) == {"median": 3, "quartile_1": 2, "quartile_3": 4}
    assert script.spread([2.5]) == {"median": 2.5, "quartile_1": 2.5, "quartile_3": 2.5}
    assert script.spreads([{"a": {"b": 1.0}}, {"a": {"b": 3.0}}])["a"]["b"]["median"] == 2.0


def test_what_is_given_stands_beside_quick_and_full_parameters(tmp_path: Path) -> None:
    file = tmp_path / "matching.json"
    run("benchmarks.matching", "--quick", "--sizes=2,3", f"--json={file}")
    assert json.loads(file.read_text(encoding="utf-8"))["parameters"] == {"rounds": 3, "sizes": [2, 3]}


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="apt-get install wrk"):
        script.need("wrk", "wrk")


def _given(factor: float, _figures: script.Figures) -> float:
    return factor


class TestGuard:
    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
        """Every ratio is what is due, and the benchmarks are asked for so many times."""
        asked: list[set[str]] = []

        def measure(benchmarks: set[str]) -> dict[str, Any]:
            asked.append(benchmarks)
            return {name: {} for name in benchmarks}

        monkeypatch.setattr(guard, "measure", measure)
        return asked

    @staticmethod
    def _limits(*factors: float) -> tuple[guard.Limit, ...]:
        return tuple(
            guard.Limit(f"ratio {place}", "overhead", partial(_given, factor), 1.0) for place, factor in enumerate(factors)
        )

    def test_it_passes_where_ratios_are_within_the_slack(
        self, monkeypatch: pytest.MonkeyPatch, measured: list[set[str]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(guard, "LIMITS", self._limits(0.5, 1.5))
        assert guard.main([]) == 0
        assert measured == [{"overhead"}]
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("factor", [1.51, math.nan])
    def test_it_measures_again_and_then_fails_with_a_sentence(
        self, factor: float, monkeypatch: pytest.MonkeyPatch, measured: list[set[str]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(guard, "LIMITS", self._limits(1.0, factor))
        assert guard.main([]) == 1
        assert measured == [{"overhead"}, {"overhead"}]
        assert "ratio 1 is" in capsys.readouterr().err

    def test_it_forgives_what_is_not_so_the_second_time(
        self, monkeypatch: pytest.MonkeyPatch, measured: list[set[str]]
    ) -> None:
        monkeypatch.setattr(guard, "LIMITS", (guard.Limit("ratio", "overhead", lambda _: 3.0 / len(measured) ** 2, 1.0),))
        assert guard.main([]) == 0
        assert len(measured) == 2

    def test_its_limits_are_found_in_what_the_benchmarks_write(self, results: Path) -> None:
        figures = {name: figures_of(name, results) for name in ("overhead", "matching")}
        assert all(math.isfinite(limit.read(figures[limit.benchmark])) for limit in guard.LIMITS)


def test_the_benchmark_of_the_hub_measures_both_kinds_of_database() -> None:
    postgres()
    printed: list[str] = []
    hub.main(["--rows", "1200", "--rounds", "1", "--creates", "3", "--json"], printed.append)
    report = json.loads("".join(printed))
    assert report["rows"] == 1200
    for figures in (report["figures"]["SQLite"], report["figures"]["PostgreSQL"]):
        assert all(
            figure["median"] > 0 for name, figure in figures.items() if "memory" not in name and "processor" not in name
        )
        assert figures["list gzip, size (MB)"]["median"] < figures["list identity, size (MB)"]["median"] / 2
        assert figures["list identity, first byte (ms)"]["median"] <= figures["list identity, whole (ms)"]["median"]
