"""Where the time of an allowed request goes, line by line.

    python -m benchmarks.lines [--rounds 60] [--requests 1000] [--json FILE] [--quick]

The middleware is compared with copies of itself that lack some lines. The cost of a step is the time of the middleware minus
that of the copy without it, for the same requests in the same round. The copies are made from the current source. If a step
is no longer found in it, the benchmark stops and says so.
"""

import asyncio
import gc
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from benchmarks import keys, overhead, script
from benchmarks.asgi import get, widget_app
from benchmarks.contenders import KEY, ORIGIN, REFERER, Contender, Floor
from benchmarks.script import Figures, parameter
from gatekeeper import FileSource, Gatekeeper
from gatekeeper.web import asgi

WHOLE = "gatekeeper, all of it"
LEAST = "gatekeeper, none of these"

# The text to replace for each step, and its replacement.
STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    "repeated headers, and a configurable key header": (
        ("origin = value if origin is None else CONFLICT", "origin = value"),
        ("elif name == key_header and value:", 'elif name == b"data-client-key":'),
        ("key = value if key is None or key == value else CONFLICT", "key = value"),
    ),
    "exempt paths": (("if self._unguarded is not None and self._unguarded.covers(scope):", "if False:"),),
    "a key in the query": (("if query:", "if False:"),),
    "frames": (
        ("        if self._frames is not None:\n            frames =", "        if False:\n            frames ="),
        ("if identity is None:", "if True:"),
    ),
    "the deadline of a remembered decision": (
        ("if remembered is None or clock() >= remembered.lease.ends_at:", "if remembered is None:"),
    ),
    "counting requests": (("remembered.uses += 1.0", "pass"),),
    "the decision in the request's state": (
        ('scope["state"][STATE_KEY] = decision', "pass"),
        ('scope["state"] = {STATE_KEY: decision}', "pass"),
    ),
    "headers of the app that are replaced or merged": (
        ("                    length = len(header[0])\n", ""),
        ("if (length != _VARY and length < _LONG) or header[0].lower() not in OWN:", "if True:"),
    ),
    "a copy of the app's message": (("message = message.copy()", "pass"),),
    "streams that can be closed": (
        ('elif "more_body" in message:', "elif False:"),
        ("            nonlocal send\n            if message", "            if message"),
        ('if "trailers" in message:', "if False:"),
        ('send = send_of(gate, identity, send, headers, trailers=message["trailers"])', "pass"),
        ('send = send_of(gate, identity, send, headers, more=message["more_body"])', "pass"),
        ("if send is not given:", "if False:"),
    ),
}


@dataclass(frozen=True)
class Parameters:
    rounds: int = parameter(60, 2, "rounds, in each of which every copy runs once")
    requests: int = parameter(1000, 100, "requests of a copy in a round")


def copy_without(*replacements: tuple[str, str]) -> Any:
    """Compile the middleware's class from its source, with some text replaced."""
    path = Path(str(asgi.__file__))
    source = path.read_text(encoding="utf-8")
    for before, after in replacements:
        if before not in source:
            raise SystemExit(f"the middleware no longer contains {before!r}: update STEPS in benchmarks.lines")
        source = source.replace(before, after)
    module = ModuleType("benchmarks.lines.copy")
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - our own source
    return module.GatekeeperMiddleware


async def _measure(parameters: Parameters) -> Figures:
    async with AsyncExitStack() as stack:
        rows = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "rows"
        keys.write_list(rows, overhead.SMALL)
        source = FileSource(rows, account=keys.ACCOUNT)
        gate = Gatekeeper(source, refresh_interval=86_000.0, clock=overhead.standing_clock)
        await stack.enter_async_context(gate)
        app = widget_app().build_middleware_stack()
        every_step = [replacement for step in STEPS.values() for replacement in step]
        apps = {
            "bare": app,
            "floor": Floor(app),
            "CORSMiddleware": CORSMiddleware(app, allow_origins=[ORIGIN.decode()]),
            WHOLE: copy_without()(app, gate),
            LEAST: copy_without(*every_step)(app, gate),
            **{step: copy_without(*replacements)(app, gate) for step, replacements in STEPS.items()},
        }
        asked = {
            name: Contender(guarded, lambda _: get(key=KEY, origin=ORIGIN, referer=REFERER))
            for name, guarded in apps.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in asked}
        gc.collect()
        gc.freeze()
        gc.disable()
        for name in script.interleaved(asked, parameters.rounds):
            taken[name].append(await overhead.time_of(asked[name], parameters.requests))
            gc.collect(1)
        gc.enable()
    return _figures(taken)


def _figures(taken: dict[str, list[float]]) -> Figures:
    def more(name: str, than: str) -> dict[str, float]:
        return script.spread([time - less for time, less in zip(taken[name], taken[than], strict=True)])

    return {
        "added_ns": {name: more(name, "bare") for name in ("floor", "CORSMiddleware", WHOLE, LEAST)},
        "steps_ns": {step: more(WHOLE, step) for step in STEPS},
    }


def measure(parameters: Parameters) -> Figures:
    """Measure what the middleware adds, and what each step costs, in nanoseconds."""
    return asyncio.run(_measure(parameters))


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables to print."""
    added = figures["added_ns"]
    floor = added["floor"]["median"]
    for title, by_name in (("added to an allowed request", added), ("cost of each step", figures["steps_ns"])):
        yield script.table(
            title,
            ("", "ns (quartiles)", "x floor"),
            [
                (
                    name,
                    "{median:,.0f} ({quartile_1:,.0f}-{quartile_3:,.0f})".format(**each),
                    f"{each['median'] / floor:.2f}",
                )
                for name, each in by_name.items()
            ],
        )


if __name__ == "__main__":
    script.run(Parameters, measure, tables)
