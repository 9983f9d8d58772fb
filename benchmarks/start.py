"""The cost of importing gatekeeper: time, modules and IO.

    python -m benchmarks.start [--rounds 20] [--json FILE] [--quick]

Each round imports each contender once, in a fresh interpreter and in changing order; the time is that of the import
statement alone. An audit hook records the files and sockets that `import gatekeeper` opens, apart from the import system's
own and after the import of starlette and httpx. The list of public suffixes is read for the first entry with a wildcard: not
at import, and not for an entry without one.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import script
from benchmarks.script import Figures, parameter

TOGETHER = "starlette and httpx"
CONTENDERS = {
    TOGETHER: "import starlette.applications, httpx",
    "gatekeeper": "import gatekeeper",
    "starlette": "import starlette.applications",
    "httpx": "import httpx",
    "fastapi": "import fastapi",
}
STAGES = {
    "import gatekeeper": "import gatekeeper",
    "an entry without a wildcard": 'import gatekeeper; gatekeeper.Allowlist.parse(["acme.com"])',
    "an entry with a wildcard": 'import gatekeeper; gatekeeper.Allowlist.parse(["*.acme.com"])',
}
LOADED = "{}; from gatekeeper.matching.suffixes import has_public_suffixes; print(has_public_suffixes())"
TIMED = "import time; begun = time.perf_counter(); {}; print(time.perf_counter() - begun)"
AUDITED = """
import json, sys
import starlette.applications, httpx

seen = []

def hook(event, args):
    if event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so")):
        seen.append(f"open {args[0]}")
    elif event.startswith(("socket.", "subprocess.", "os.mkdir", "os.remove", "os.rename")):
        seen.append(event)

sys.addaudithook(hook)
import gatekeeper
at_import = len(seen)
gatekeeper.Allowlist.parse(["*.acme.com"])
print(json.dumps([seen[:at_import], seen[at_import:]]))
"""
DEAREST = 8


@dataclass(frozen=True)
class Parameters:
    rounds: int = parameter(20, 2, "fresh interpreters per contender")


def measure(parameters: Parameters) -> Figures:
    """The milliseconds of each import, with modules, files and connections."""
    installed = {name: code for name, code in CONTENDERS.items() if _is_there(code)}
    taken: dict[str, list[float]] = {name: [] for name in installed}
    for code in installed.values():
        _python(code)  # compile now, so that no round does
    for name in script.interleaved(installed, parameters.rounds):
        taken[name].append(float(_python(TIMED.format(installed[name])).stdout) * 1000)
    spreads = {name: script.spread(times) for name, times in taken.items()}
    at_import, later = json.loads(_python(AUDITED).stdout)
    dearest = sorted(_imports(STAGES["import gatekeeper"]).items(), key=lambda item: -item[1])
    return {
        "import_ms": spreads,
        "of_starlette_and_httpx": spreads["gatekeeper"]["median"] / spreads[TOGETHER]["median"],
        "io_at_import": at_import,
        "io_of_first_wildcard": [Path(what).name for what in later],
        "public_suffixes_are_loaded_by": {
            stage: _python(LOADED.format(code)).stdout.strip() == "True" for stage, code in STAGES.items()
        },
        "dearest_modules_ms": dict(dearest[:DEAREST]),
    }


def _imports(code: str) -> dict[str, float]:
    """The imported modules, with cumulative milliseconds."""
    modules = {}
    for line in _python(code, "-X", "importtime").stderr.splitlines():
        _, cumulative, module = line.removeprefix("import time:").split("|")
        if cumulative.strip().isdigit():
            modules[module.strip()] = int(cumulative) / 1000
    return modules


def _is_there(code: str) -> bool:
    return _python(code, check=False).returncode == 0


def _python(code: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], cwd=script.ROOT, capture_output=True, text=True, check=check
    )


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables of the figures."""
    together = figures["import_ms"][TOGETHER]["median"]
    yield script.table(
        "import",
        ("", "ms (quartiles)", f"x {TOGETHER}"),
        [
            (name, "{median:.0f} ({quartile_1:.0f}-{quartile_3:.0f})".format(**each), f"{each['median'] / together:.2f}")
            for name, each in figures["import_ms"].items()
        ],
    )
    opened = {"import gatekeeper": figures["io_at_import"], "the first wildcard": figures["io_of_first_wildcard"]}
    rows = [(f"opened or connected by {stage}", ", ".join(what) or "nothing") for stage, what in opened.items()]
    loaded = figures["public_suffixes_are_loaded_by"].items()
    rows += [(f"public suffixes are loaded by {stage}", "yes" if is_loaded else "no") for stage, is_loaded in loaded]
    yield script.table("files, sockets and public suffixes", ("", ""), rows)
    dearest = figures["dearest_modules_ms"].items()
    yield script.table(
        "dearest modules, with all that they import", ("", "ms"), [(name, f"{ms:.1f}") for name, ms in dearest]
    )


if __name__ == "__main__":
    script.run(Parameters, measure, tables)
