"""Run the benchmarks, keep their JSON and draw the README's charts.

python -m benchmarks [--full | --quick] [--only overhead,load] [--results DIR] [--charts .github] [--redraw]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import charts
from benchmarks.script import ROOT

# The short set: enough rounds for stable figures, and sizes that take minutes.
SHORT = {
    "overhead": ("--rounds=15", "--keys=1000,100000"),
    "lines": ("--rounds=20",),
    "matching": (),
    "start": ("--rounds=10",),
    "load": ("--servers=uvicorn", "--rounds=3", "--seconds=2"),
    "scale": ("--keys=1000,10000,100000", "--rounds=1"),
    "floods": ("--requests=100000", "--rounds=3", "--seconds=2"),
    "live": (
        "--trials=100",
        "--quiet-seconds=60",
        "--waiters=1000",
        "--rounds=5",
        "--many-keys=100000",
        "--deltas=100",
        "--imported=1000",
        "--outages=1",
        "--changes=1000",
        "--fair-keys=50000",
        "--fair-seconds=20",
    ),
    "accounts": (
        "--database=sqlite",
        "--rounds=1",
        "--idle=20",
        "--trials=50",
        "--listed-accounts=1000",
        "--quiet=60",
    ),
    "freshness": ("--trials=40", "--window=20", "--day=3600", "--soak=20"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the chosen benchmarks; return 1 if one fails."""
    options = _options(argv)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        results = options.results or Path(scratch)
        results.mkdir(parents=True, exist_ok=True)
        failed = [] if options.redraw else _run(options, results, console)
        options.charts.mkdir(parents=True, exist_ok=True)
        for name in options.only:
            file = results / f"{name}.json"
            if file.exists() and name not in failed:
                figures = json.loads(file.read_text(encoding="utf-8"))["figures"]
                for path in charts.draw(name, figures, options.charts):
                    console.print(f"drew {path}", highlight=False)
    return 1 if failed else 0


def _run(options: argparse.Namespace, results: Path, console: Console) -> list[str]:
    failed = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(options.only))
        for name in options.only:
            progress.update(task, description=name)
            parameters = ("--quick",) if options.quick else () if options.full else SHORT[name]
            command = [sys.executable, "-m", f"benchmarks.{name}", *parameters, f"--json={results.resolve() / name}.json"]
            begun = time.monotonic()
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            console.rule(f"{name}: {time.monotonic() - begun:.0f} s", align="left")
            console.print(ended.stdout, markup=False, highlight=False, soft_wrap=True)
            if ended.returncode:
                console.print(ended.stderr[-2000:], markup=False, highlight=False, soft_wrap=True)
                failed.append(name)
            progress.advance(task)
    return failed


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="use the default parameters of each script")
    size.add_argument(
        "--quick", action="store_true", help="use small parameters, to see that they run; the figures mean nothing"
    )
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(SHORT), help="run only these of " + ",".join(SHORT)
    )
    parser.add_argument("--results", type=Path, help="directory for the JSON")
    parser.add_argument("--charts", type=Path, default=ROOT / ".github", help="directory for the charts")
    parser.add_argument("--redraw", action="store_true", help="only draw the charts from the JSON in --results")
    options = parser.parse_args(argv)
    if unknown := set(options.only) - set(SHORT):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: expected some of {', '.join(SHORT)}")
    if options.redraw and options.results is None:
        parser.error("--redraw needs --results: expected the directory with the JSON of an earlier run")
    return options


if __name__ == "__main__":
    sys.exit(main())
