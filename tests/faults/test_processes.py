"""Forks, workers and event loops: each refreshes for itself."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trio
from starlette.applications import Starlette

from gatekeeper import Gatekeeper, GatekeeperMiddleware, Reason
from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.forked import Child, forked
from tests.support.guarded import hub_source
from tests.support.rows import ORIGIN, as_json, client_key, row
from tests.support.starlette_client import TestClient
from tests.support.starting import ending

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"), pytest.mark.process]

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
BUSY = 2.0  # seconds that a busy machine may add
HEADERS = {"origin": ORIGIN, "data-client-key": client_key(1)}
REVOKED = (row(1), row(2, disabled_at="now"))


def gate_of(hub: FakeHub, **options: Any) -> Gatekeeper:
    return Gatekeeper(hub_source(hub.url), **{"refresh_interval": 300.0, "usage_interval": 0.0, **options})


async def reason(gate: Gatekeeper, number: int = 2) -> Reason:
    return (await gate.check(client_key(number), ORIGIN)).reason


async def refresh_and_see_the_revocation(gate: Gatekeeper) -> None:
    """Refresh in a child, and check what it decides."""
    await gate.check(client_key(1), ORIGIN)
    report = await gate.refresh()
    assert report.outcome in {"changed", "unchanged"}, report
    assert await reason(gate) is Reason.KEY_DISABLED
    assert await reason(gate, 1) is Reason.ALLOWED


# Forks


@pytest.mark.fault("fork")
def test_a_forked_child_shares_no_connection_and_refreshes(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))

    async def parent() -> None:
        async with gate_of(hub) as gate:
            assert await reason(gate) is Reason.ALLOWED
            ours = hub.requests[-1].port
            hub.lists(*REVOKED)
            assert forked(lambda: asyncio.run(refresh_and_see_the_revocation(gate))) == "well"
            theirs = {request.port for request in hub.requests[1:]}
            assert ours not in theirs
            assert await reason(gate) is Reason.ALLOWED  # the parent has not refreshed since
            await gate.refresh()
            assert await reason(gate) is Reason.KEY_DISABLED
            assert hub.requests[-1].port == ours

    asyncio.run(parent())


@pytest.mark.fault("fork")
def test_a_child_forked_during_a_fetch_does_not_wait_for_it(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))

    async def parent() -> None:
        async with gate_of(hub) as gate:
            hold = hub.hold()
            hub.then(HubAnswer(200, as_json(row(1), row(2), row(3)), hold=hold))
            fetching = asyncio.create_task(gate.refresh())
            await hub.asked(2)
            hub.lists(*REVOKED)
            assert forked(lambda: asyncio.run(refresh_and_see_the_revocation(gate))) == "well"
            assert not fetching.done()
            hold.release()
            assert (await fetching).outcome == "changed"
            assert await reason(gate, 3) is Reason.ALLOWED

    asyncio.run(parent())


@pytest.mark.fault("fork")
def test_a_grandchild_refreshes(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))

    async def parent() -> None:
        async with gate_of(hub) as gate:
            assert await reason(gate) is Reason.ALLOWED
            hub.lists(*REVOKED)

            def child() -> None:
                assert forked(lambda: asyncio.run(refresh_and_see_the_revocation(gate))) == "well"
                asyncio.run(refresh_and_see_the_revocation(gate))

            assert forked(child) == "well"

    asyncio.run(parent())


@pytest.mark.fault("fork")
def test_a_child_forked_while_another_thread_refreshes_is_not_stuck(hub: FakeHub) -> None:
    gate = gate_of(hub)
    rows = [row(number) for number in range(2000)]
    hub.lists(*rows)
    over = threading.Event()

    async def refresh_all_the_time() -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            hub.lists(*(row(number, disabled_at=turn) for number in range(turn % 2, 2000, 2)), *rows[1 - turn % 2 :: 2])
            await gate.refresh()

    async def child() -> None:
        with anyio.fail_after(PATIENCE):
            report = await gate.refresh()
        assert report.outcome != "failed", report

    thread = threading.Thread(target=lambda: asyncio.run(refresh_all_the_time()))
    thread.start()
    try:
        for _ in range(12):
            assert forked(lambda: asyncio.run(child())) == "well"
    finally:
        over.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


# Event loops


@pytest.mark.fault("several event loops")
def test_consecutive_event_loops_each_refresh(hub: FakeHub) -> None:
    gate = gate_of(hub)
    for number in range(1, 5):
        hub.lists(*(row(other) for other in range(1, number + 1)))

        async def use(number: int = number) -> None:
            await gate.refresh()
            assert await reason(gate, number) is Reason.ALLOWED

        asyncio.run(use())
    assert gate.status.last_error is None
    assert len({request.port for request in hub.requests}) == 4


@pytest.mark.fault("several event loops")
def test_clients_of_starlette_may_follow_each_other_and_overlap(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))
    gate = gate_of(hub)
    app = GatekeeperMiddleware(Starlette(lifespan=gate.lifespan), gatekeeper=gate)
    for _ in range(2):
        with TestClient(app) as first, TestClient(app) as second:
            assert {client.get("/", headers=HEADERS).status_code for client in (first, second)} == {404}  # the app's own
    assert TestClient(app).get("/", headers=HEADERS).status_code == 404
    assert gate.status.last_error is None


@pytest.mark.fault("several event loops")
def test_two_event_loops_share_the_list_and_no_connection(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))
    gate = gate_of(hub)
    barrier = threading.Barrier(2, timeout=PATIENCE)
    problems: list[BaseException] = []

    async def use() -> None:
        for _ in range(20):
            assert (await gate.refresh()).outcome != "failed"
            assert await reason(gate, 1) is Reason.ALLOWED
        await anyio.to_thread.run_sync(barrier.wait)

    def run() -> None:
        try:
            asyncio.run(use())
        except BaseException as problem:  # noqa: BLE001 - asserted below
            problems.append(problem)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert problems == []
    assert len({request.port for request in hub.requests}) == 2


@pytest.mark.fault("several event loops")
def test_a_gate_refreshes_on_trio_where_it_is_entered(hub: FakeHub) -> None:
    hub.lists(row(1), row(2))
    gate = gate_of(hub)

    async def use() -> None:
        async with gate:
            assert await reason(gate) is Reason.ALLOWED
            hub.lists(*REVOKED)
            await gate.refresh()
            assert await reason(gate) is Reason.KEY_DISABLED

    trio.run(use)
    asyncio.run(refresh_and_see_the_revocation(gate))


# Servers with workers


class Workers:
    """A server with several workers.

    Attributes:
        server: the process that was started.
    """

    def __init__(self, server: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.server = server
        self._url = f"http://127.0.0.1:{port}/"
        self._log = log

    def ask(self) -> dict[str, Any]:
        """Ask one of the workers, on a connection of its own."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                answer = httpx.get(self._url, headers=HEADERS, trust_env=False, timeout=PATIENCE, verify=False)
            except httpx.TransportError:
                assert self.server.poll() is None, self.log
                assert time.monotonic() < end, self.log
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.server.wait(0.05)
                continue
            assert answer.status_code == 200, answer.text + self.log
            said: dict[str, Any] = answer.json()
            return said

    def meet(self, count: int, but: frozenset[int] = frozenset()) -> frozenset[int]:
        """Ask until `count` workers have answered that are not in `but`."""
        return self.wait(lambda seen: len(seen.keys() - but) >= count) - but

    def wait(self, enough: Callable[[dict[int, dict[str, Any]]], bool]) -> frozenset[int]:
        """Ask until the last answers of the workers are `enough`."""
        seen: dict[int, dict[str, Any]] = {}
        end = time.monotonic() + PATIENCE
        while not enough(seen):
            assert time.monotonic() < end, (seen, self.log)
            said = self.ask()
            seen[said["pid"]] = said
        return frozenset(seen)

    @property
    def log(self) -> str:
        """The output of the server."""
        return self._log.read_text(errors="replace")


GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--bind=127.0.0.1:{port}", "--no-control-socket")
UVICORN = ("uvicorn", "--host=127.0.0.1", "--port={port}", "--log-level=warning")
SERVERS: dict[str, tuple[str, ...]] = {
    "gunicorn": (*GUNICORN, "--workers=2"),
    "gunicorn --preload": (*GUNICORN, "--workers=2", "--preload"),
    "uvicorn --workers": (*UVICORN, "--workers=2"),
}


@contextmanager
def serving(
    hub: FakeHub,
    directory: Path,
    command: tuple[str, ...],
    *,
    interval: float = 1.0,
    app: str = "tests.faults.served:app",
    **environment: str,
) -> Iterator[Workers]:
    """Run a server until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = directory / "server.log"
    path = os.pathsep.join([str(directory), str(ROOT)])
    variables = {**os.environ, "FAULTS_HUB": hub.url, "FAULTS_INTERVAL": str(interval), "PYTHONPATH": path, **environment}
    full = [sys.executable, "-m", *(part.format(port=port) for part in command), app]
    with (
        log.open("wb") as written,
        subprocess.Popen(full, cwd=directory, env=variables, stdout=written, stderr=written) as server,
        ending(server),
    ):
        yield Workers(server, port, log)
    said = log.read_text(errors="replace")
    for unwanted in ("Traceback", "different loop", "never awaited", "was destroyed but it is pending"):
        assert unwanted not in said, said


@pytest.mark.promise("works under every server")
@pytest.mark.parametrize("server", SERVERS)
def test_every_worker_refreshes(hub: FakeHub, tmp_path: Path, server: str) -> None:
    hub.lists(row(1), row(2))
    with serving(hub, tmp_path, SERVERS[server]) as workers:
        met = workers.meet(2)
        hub.lists(*REVOKED)
        workers.wait(lambda seen: {said["pid"] for said in seen.values() if said["reason"] == "key_disabled"} >= met)


@pytest.mark.promise("works under every server")
def test_preloaded_workers_refresh_within_a_second_of_a_request(hub: FakeHub, tmp_path: Path) -> None:
    hub.lists(row(1), row(2))
    command = SERVERS["gunicorn --preload"]
    with serving(hub, tmp_path, command, interval=300.0, FAULTS_LOADED="1", FAULTS_NO_LIFESPAN="1") as workers:
        hub.wait_for_requests(1)
        hub.lists(*REVOKED)
        first: dict[int, float] = {}
        late: dict[int, float] = {}
        end = time.monotonic() + PATIENCE
        while len(late) < 2:
            assert time.monotonic() < end, workers.log
            said = workers.ask()
            first.setdefault(said["pid"], time.monotonic())
            if said["reason"] == "key_disabled":
                late.setdefault(said["pid"], time.monotonic() - first[said["pid"]])
        assert max(late.values()) <= 1 + BUSY


@pytest.mark.promise("works under every server")
def test_workers_that_are_replaced_drop_no_request(hub: FakeHub, tmp_path: Path) -> None:
    hub.lists(row(1), row(2))
    with serving(hub, tmp_path, (*SERVERS["gunicorn --preload"], "--max-requests=8")) as workers:
        assert len(workers.meet(5)) == 5  # and every answer was 200


@pytest.mark.promise("works under every server")
def test_the_successor_of_a_killed_worker_refreshes(hub: FakeHub, tmp_path: Path) -> None:
    hub.lists(row(1), row(2))
    with serving(hub, tmp_path, SERVERS["gunicorn --preload"]) as workers:
        met = workers.meet(2)
        for pid in met:
            os.kill(pid, signal.SIGKILL)
        hub.lists(*REVOKED)
        fresh = workers.meet(2, but=met)
        workers.wait(lambda seen: {pid for pid, said in seen.items() if said["reason"] == "key_disabled"} >= fresh)


@pytest.mark.promise("works under every server")
def test_a_server_that_reloads_its_code_refreshes(hub: FakeHub, tmp_path: Path) -> None:
    hub.lists(row(1), row(2))
    module = tmp_path / "reloaded.py"
    shutil.copy(Path(__file__).with_name("served.py"), module)
    command = (*UVICORN, "--reload", f"--reload-dir={tmp_path}", "--reload-delay=0.2")
    with serving(hub, tmp_path, command, app="reloaded:app") as workers:
        met = workers.meet(1)
        module.write_text(module.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
        hub.lists(*REVOKED)
        fresh = workers.meet(1, but=met)
        workers.wait(lambda seen: {pid for pid, said in seen.items() if said["reason"] == "key_disabled"} >= fresh)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


# CPU starvation


@pytest.mark.fault("starved workers")
def test_sixteen_starved_workers_all_refresh_and_drift_apart(
    hub: FakeHub,
) -> None:
    interval = 4.0

    async def work(number: int) -> None:
        source = hub_source(hub.url, f"sk_live_acme_{number}")  # tells the workers apart
        async with Gatekeeper(source, refresh_interval=interval, start_timeout=PATIENCE, usage_interval=0.0) as gate:
            assert await reason(gate, 1) is Reason.ALLOWED
            while gate.status.counters.get("refresh_unchanged", 0) < 1:  # noqa: ASYNC110 - nothing signals it
                await anyio.sleep(0.05)

    children = [Child(partial(_run, partial(work, number))) for number in range(16)]
    over = threading.Event()

    def starve() -> None:
        # The workers run for a tenth of the time.
        while not over.is_set():
            for signal_number, seconds in ((signal.SIGSTOP, 0.09), (signal.SIGCONT, 0.01)):
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signal_number)
                over.wait(seconds)

    starving = threading.Thread(target=starve)
    starving.start()
    try:
        assert [child.says() for child in children] == ["well"] * 16
    finally:
        over.set()
        starving.join()
    by_worker: dict[str, list[float]] = {}
    for request in hub.requests:
        by_worker.setdefault(request.headers["authorization"], []).append(request.at)
    waits = sorted(times[1] - times[0] for times in by_worker.values())
    assert len(waits) == 16
    assert waits[-1] - waits[0] > 0.05 * interval
