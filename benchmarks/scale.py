"""The cost of 1,000 to 1,000,000 keys: start, memory, refreshes and lag.

    python -m benchmarks.scale [--keys 1000,10000,100000,1000000] [--rounds 3] [--json FILE] [--quick]

Each size runs in a process pinned to one processor. The list comes uncompressed over loopback from a hub on another. The
alternative to gatekeeper is `json.loads` in a thread and a dict of the rows, which replaces the old dict. Memory is the
resident memory of the process less that after its imports; the peak is the kernel's (VmHWM). Before and during a refresh,
requests are guarded at a steady rate, and a probe measures how late the event loop wakes a sleep of one millisecond.
"""

import asyncio
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import httpx

from benchmarks import fake_hub, keys, script
from benchmarks.asgi import get, mere_app, receive, send
from benchmarks.script import Figures, parameter
from gatekeeper import Allowlist, Gatekeeper, GatekeeperMiddleware, HubSource

CONTENDERS = ("gatekeeper", "json.loads in a thread")
REFRESHES = ("unchanged, ETag", "unchanged, no ETag", "0.1 % changed", "1 % changed", "100 % changed")
PROBE = 0.001  # seconds
BURST = 10  # guarded requests per probe: 10,000/s
LONG = 600.0  # seconds, longer than anything here takes


@dataclass(frozen=True)
class Parameters:
    keys: tuple[int, ...] = parameter((1_000, 10_000, 100_000, 1_000_000), (1_000, 5_000), "numbers of keys")
    rounds: int = parameter(3, 1, "processes of each size and contender")
    contenders: tuple[str, ...] = parameter(CONTENDERS, CONTENDERS, "contenders")
    settle: float = parameter(1.0, 0.3, "seconds after which memory counts as steady")


class Keeper(Protocol):
    """A contender."""

    async def load(self) -> None: ...

    async def refresh(self) -> int:
        """Refresh the list, and return the number of changed keys."""
        ...

    async def request(self, number: int) -> None: ...


class Gate:
    """gatekeeper."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._gate = Gatekeeper(
            HubSource(url, keys.TOKEN, timeout=60.0), refresh_interval=LONG, fetch_timeout=LONG, start_timeout=LONG
        )
        self._stack = stack
        self._app = GatekeeperMiddleware(mere_app, self._gate)

    async def load(self) -> None:
        await self._stack.enter_async_context(self._gate)
        if self._gate.status.state != "fresh":
            raise SystemExit(f"there is no list: {self._gate.status.last_error}")

    async def refresh(self) -> int:
        report = await self._gate.refresh()
        if report.outcome == "failed":
            raise SystemExit(f"the refresh failed: {report.error}")
        return report.added + report.changed + report.removed

    async def request(self, number: int) -> None:
        await self._app(_request(number), receive, send)


class Plain:
    """The alternative without gatekeeper, with ETags as well."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=LONG)
        self._stack = stack
        self._etag = ""
        self._rows: dict[str, dict[str, Any]] = {}

    async def load(self) -> None:
        await self._stack.enter_async_context(self._client)
        await self.refresh()

    async def refresh(self) -> int:
        answer = await self._client.get("/api/v1/widget-keys", headers={"if-none-match": self._etag})
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return 0
        rows = await asyncio.to_thread(json.loads, answer.content)
        self._rows = {row["last8"]: row for row in rows}
        self._etag = answer.headers.get("etag", "")
        return len(rows)

    async def request(self, number: int) -> None:
        headers = dict(_request(number)["headers"])
        row = self._rows.get(headers[b"data-client-key"].decode()[-8:])
        allowed = row and headers[b"origin"].decode().partition("://")[2] in row["domain_allowlist"]
        await send({"type": "http.response.start", "status": 200 if allowed else 403, "headers": []})


class Lags:
    """The lag of the event loop in milliseconds, under guarded requests."""

    def __init__(self, keeper: Keeper, count: int) -> None:
        self.seen: list[float] = []
        self._keeper = keeper
        self._enabled = keys.enabled(min(count, 1_000))

    async def watch(self) -> None:
        number = 0
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(PROBE)
            self.seen.append((time.perf_counter() - asked - PROBE) * 1000)
            for _ in range(BURST):
                number += 1
                await self._keeper.request(self._enabled[number % len(self._enabled)])

    def taken(self) -> dict[str, float]:
        seen, self.seen = self.seen, []
        return script.percentiles(seen)


class Collections:
    """The number of full garbage collections, and the longest in milliseconds."""

    def __init__(self) -> None:
        self.full = 0
        self.longest_ms = 0.0
        self._begun = 0.0
        gc.callbacks.append(self._called)

    def _called(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < 2:  # noqa: PLR2004 - the oldest of three
            return
        if phase == "start":
            self._begun = time.perf_counter()
            return
        self.full += 1
        self.longest_ms = max(self.longest_ms, (time.perf_counter() - self._begun) * 1000)


def measure(parameters: Parameters) -> Figures:
    """The spreads over the processes, by number of keys and contender."""
    kept_on, rest_on = script.processors()
    figures: Figures = {}
    for count in parameters.keys:
        with tempfile.TemporaryDirectory() as directory:
            lists = _write_lists(Path(directory), count)
            said: dict[str, list[Figures]] = {contender: [] for contender in parameters.contenders}
            for contender in script.interleaved(said, parameters.rounds):
                with fake_hub.running(Path(lists["first"]), processor=rest_on) as there:
                    task = {"contender": contender, "count": count, "ports": there.ports, "lists": lists}
                    task["settle"] = parameters.settle
                    said[contender].append(script.in_process("scale", task, kept_on))
        figures[str(count)] = {contender: script.spreads(each) for contender, each in said.items()}
    return figures


def _write_lists(directory: Path, count: int) -> dict[str, str]:
    changed: dict[str, Callable[[int], bool]] = {
        "first": lambda _: False,
        "0.1 % changed": lambda number: number % 1000 == 0,
        "1 % changed": lambda number: number % 100 == 0,
        "100 % changed": lambda _: True,
    }
    for name, is_changed in changed.items():
        keys.write_list(directory / name, count, is_changed, f"{name.partition(' ')[0]}.changed.example.com")
    return {name: str(directory / name) for name in changed}


async def process(contender: str, count: int, ports: tuple[int, int], lists: dict[str, str], settle: float) -> Figures:
    """Keep a number of keys in this process, and measure the cost."""
    there = fake_hub.Hub(*ports)
    collections = Collections()
    async with AsyncExitStack() as stack:
        stack.callback(there.close)
        keeper: Keeper = Gate(there.url, stack) if contender == "gatekeeper" else Plain(there.url, stack)
        Allowlist.parse(("*.example.com",))  # load the list of public suffixes
        await httpx.AsyncClient().aclose()  # and OpenSSL before measuring
        gc.collect()
        before = script.memory()
        begun = time.perf_counter()
        await keeper.load()
        ready = time.perf_counter() - begun
        await asyncio.sleep(settle)
        steady = script.memory()
        figures: Figures = {
            "ready_s": ready,
            "bytes_per_key": (steady - before) / count,
            "steady_bytes": steady,
            "full_collections_at_load": collections.full,
            "refreshes": {},
        }
        lags = Lags(keeper, count)
        async with anyio.create_task_group() as group:
            group.start_soon(lags.watch)
            await asyncio.sleep(settle)
            lags.taken()  # drop the first sights of keys
            await asyncio.sleep(settle)
            figures["lag_ms"] = lags.taken()
            for name in REFRESHES:
                path = Path(lists.get(name, lists["first"]))
                await asyncio.to_thread(there.serve, path, etag=name != "unchanged, no ETag")
                await asyncio.sleep(settle)
                figures["refreshes"][name] = await _refresh(keeper, lags, collections)
            group.cancel_scope.cancel()
    return figures


async def _refresh(keeper: Keeper, lags: Lags, collections: Collections) -> Figures:
    steady = script.memory()
    lags.taken()
    full = collections.full
    _forget_peak()
    begun = time.perf_counter()
    changed = await keeper.refresh()
    taken = time.perf_counter() - begun
    return {
        "s": taken,
        "changed": changed,
        "lag_ms": lags.taken(),
        "peak_of_steady": _peak() / steady,
        "full_collections": collections.full - full,
    }


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak (proc(5))


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _request(number: int) -> dict[str, Any]:
    return get(key=keys.client_key(number).encode(), origin=keys.origin(number).encode())


def tables(figures: Figures) -> Iterator[script.Table]:
    """The tables of the figures."""
    yield script.table(
        "the first list",
        ("keys", "", "ready s (quartiles)", "bytes a key", "full collections"),
        [
            (
                f"{int(count):,}",
                contender,
                "{median:.3f} ({quartile_1:.3f}-{quartile_3:.3f})".format(**each["ready_s"]),
                f"{each['bytes_per_key']['median']:,.0f}",
                f"{each['full_collections_at_load']['median']:.0f}",
            )
            for count, by_contender in figures.items()
            for contender, each in by_contender.items()
        ],
    )
    columns = ("refresh", "s", "lag p50 ms", "p99 ms", "max ms", "peak x steady", "full collections")
    for count, by_contender in figures.items():
        for contender, each in by_contender.items():
            lag = each["lag_ms"]
            rows = [("none", "", *_lag_cells(lag), "", "")]
            rows += [(name, *_cells(refresh)) for name, refresh in each["refreshes"].items()]
            yield script.table(f"refreshes of {int(count):,} keys: {contender}", columns, rows)


def _cells(refresh: Figures) -> tuple[str, ...]:
    return (
        f"{refresh['s']['median']:.3f}",
        *_lag_cells(refresh["lag_ms"]),
        f"{refresh['peak_of_steady']['median']:.2f}",
        f"{refresh['full_collections']['median']:.0f}",
    )


def _lag_cells(lag: Figures) -> tuple[str, str, str]:
    p50, p99, most = (f"{lag[name]['median']:.2f}" for name in ("p50", "p99", "max"))
    return p50, p99, most


if __name__ == "__main__":
    script.run(Parameters, measure, tables, process=process)
