"""Shared code of the benchmarks: parameters, rounds, spreads, JSON and tables.

A benchmark is a module with `Parameters`, a `measure` that turns them into figures, and a `tables` that shows figures.
"""

import argparse
import asyncio
import dataclasses
import json
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import msgspec
from rich.console import Console
from rich.table import Table

__all__ = (
    "Figures",
    "Table",
    "in_process",
    "interleaved",
    "memory",
    "need",
    "parameter",
    "percentiles",
    "processor_time",
    "processors",
    "quick",
    "run",
    "spread",
    "spreads",
    "table",
)

Figures = dict[str, Any]
if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = TypeVar("P", bound="DataclassInstance")
Name = TypeVar("Name")
PACKAGES = ("starlette", "httpx", "msgspec", "uvicorn", "uvloop", "httptools", "granian", "hypercorn", "asgi-cors", "redis")
ROOT = Path(__file__).parents[1]
PROCESS = "--process"
WIDTH = 140  # characters per line of output to a file
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def parameter(full: Any, in_brief: Any, meaning: str) -> Any:
    """Make a field of `Parameters`.

    Args:
        full: the value in a full run.
        in_brief: the value in a quick run.
        meaning: the help text.
    """
    return dataclasses.field(default=full, metadata={"quick": in_brief, "help": meaning})


def quick(parameters: type[P], **values: Any) -> P:
    """The parameters of a quick run, with some values replaced."""
    fields = dataclasses.fields(parameters)
    return parameters(**{field.name: field.metadata["quick"] for field in fields} | values)


def run(
    parameters: type[P],
    measure: Callable[[P], Figures],
    tables: Callable[[Figures], Iterable[Table]],
    argv: list[str] | None = None,
    *,
    process: Callable[..., Coroutine[Any, Any, Figures]] | None = None,
) -> None:
    """Run a benchmark as a script.

    Args:
        parameters: a dataclass of `parameter` fields.
        measure: a function from parameters to figures.
        tables: a function from figures to tables.
        argv: the command line, by default that of the process.
        process: the coroutine function that `in_process` runs in other processes.
    """
    argv = sys.argv[1:] if argv is None else argv
    if process is not None and argv[:1] == [PROCESS]:
        print(json.dumps(asyncio.run(process(**json.loads(argv[1])))))
        return
    module = sys.modules[measure.__module__]
    name = (module.__spec__.name if module.__spec__ is not None else module.__name__).removesuffix(".__main__")
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=(module.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="use small parameters, to see that it runs; the figures mean nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write parameters, machine and figures to FILE")
    types = get_type_hints(parameters)
    for field in dataclasses.fields(parameters):
        said = f"{field.metadata['help']} (full: {_text(field.default)}, quick: {_text(field.metadata['quick'])})"
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=_reader(types[field.name]), help=said)
    given = vars(parser.parse_args(argv))
    in_brief, file = given.pop("quick"), given.pop("json")
    given = {key: value for key, value in given.items() if value is not None}
    chosen = quick(parameters, **given) if in_brief else parameters(**given)
    busy = os.getloadavg()[0]
    figures = measure(chosen)
    if file is not None:
        about = {"benchmark": name.rpartition(".")[2], "machine": machine(), "load_average_at_start": busy}
        parameters_said = dataclasses.asdict(chosen)
        text = json.dumps(about | {"parameters": parameters_said, "figures": figures}, indent=2, default=str)
        file.write_text(text + "\n", encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(", ".join(f"{key} {_text(value)}" for key, value in dataclasses.asdict(chosen).items()), style="dim")
    for shown in tables(figures):
        console.print(shown)


def in_process(module: str, task: Figures, processor: int) -> Figures:
    """Run a benchmark's `process` in a process of its own.

    Args:
        module: the name of the benchmark.
        task: the arguments of its `process`.
        processor: the processor to which it is pinned.

    Returns:
        The figures of the process.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", PROCESS, json.dumps(task)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as running:
        os.sched_setaffinity(running.pid, {processor})
        said, _ = running.communicate()
    if running.returncode:
        raise SystemExit(f"the process of {module} failed with {task}")
    figures: Figures = json.loads(said)
    return figures


def processors() -> tuple[int, int]:
    """A processor for the measured process, and one for the rest.

    They are the same if there is only one.
    """
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def machine() -> dict[str, Any]:
    """Describe the machine and the installed packages."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": models[0] if models else platform.processor(),
        "processors": os.cpu_count(),
        "packages": {package: installed for package in PACKAGES if (installed := _installed(package))},
    }


def interleaved(names: Iterable[Name], rounds: int, *, seed: int = 1) -> Iterator[Name]:
    """Yield each name once per round, in changing order.

    A disturbance of the machine then affects all of them alike.
    """
    order = list(names)
    shuffle = random.Random(seed).shuffle
    for _ in range(rounds):
        shuffle(order)
        yield from order


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of several rounds, and its quartiles."""
    if len(values) < 2:  # noqa: PLR2004 - quartiles need two
        return dict.fromkeys(("median", "quartile_1", "quartile_3"), values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def spreads(figures: Sequence[Figures]) -> Figures:
    """The spread of each figure over several rounds of nested figures."""
    return {
        name: spreads([each[name] for each in figures])
        if isinstance(value, dict)
        else spread([each[name] for each in figures])
        for name, value in figures[0].items()
    }


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """The p50, p99 and maximum, each of which is an observed value."""
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys(("p50", "p99", "max"), math.nan)
    return {
        "p50": ordered[(len(ordered) - 1) // 2],
        "p99": ordered[math.ceil(len(ordered) * 0.99) - 1],
        "max": ordered[-1],
    }


def memory(process: int | str = "self") -> int:
    """The resident bytes of a process."""
    return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * PAGE


def processor_time(process: int) -> float:
    """The processor seconds of a process and its descendants."""
    # Skip the name, which may contain anything: these are the 14th and 15th fields, in ticks (proc(5)).
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    children = [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text(encoding="ascii").split()
    ]
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(map(processor_time, children))


def need(program: str, package: str) -> str:
    """Find the path of a program, or exit with its apt-get command."""
    found = shutil.which(program)
    if found is None:
        raise SystemExit(f"this benchmark needs {program}, which is not installed: apt-get install {package}")
    return found


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Make a table whose first column labels the rows."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown


def _reader(kind: Any) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = [part for part in text.split(",") if part] if str(kind).startswith("tuple") else text
        return msgspec.convert(value, kind, strict=False)

    return read


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
