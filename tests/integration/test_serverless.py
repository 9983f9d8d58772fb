"""Serverless platforms: no lifespan, and event loops that run during requests only."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gatekeeper import Gatekeeper, guard
from gatekeeper.sync.clock import boot_clock, boot_sleep
from gatekeeper.testing import FakeHub, Hold, HubAnswer
from tests.support.guarded import hub_source
from tests.support.rows import ORIGIN, client_key, row

HOUR = 3600.0
INTERVAL = 300.0  # seconds; no refresher is due while a test runs
PATIENCE = 30.0  # seconds for a fetch that takes milliseconds

Invoke = Callable[[], int]


class Function:
    """A guarded app without a lifespan, which a platform freezes between two requests.

    Args:
        hub: the hub.
        snapshot: the file that keeps the list.
        wait: seconds that a request waits for a fetch after a freeze.

    Attributes:
        gate: its gate.
        frozen: seconds for which it was frozen.
    """

    def __init__(self, hub: FakeHub, snapshot: Path | None = None, wait: float = PATIENCE) -> None:
        self.frozen = 0.0
        self.gate = Gatekeeper(
            hub_source(hub.url),
            refresh_interval=INTERVAL,
            start_timeout=PATIENCE,
            unknown_key_wait=wait,
            usage_interval=0.0,  # anyio warns if a loop ends while a report connects
            snapshot_path=snapshot,
            clock=self._clock,
            sleep=partial(boot_sleep, clock=self._clock),
        )
        self.app = guard(Starlette(routes=[Route("/", PlainTextResponse("hello"))]), self.gate)

    async def get(self) -> int:
        """Send one request, as with `lifespan="off"`; return the status."""
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://widget.example") as client:
            return (await client.get("/", headers={"origin": ORIGIN, "data-client-key": client_key(1)})).status_code

    async def get_in_lifespan(self) -> int:
        """Send one request in a lifespan of its own, as with `lifespan="auto"`; return the status."""
        async with self.app.router.lifespan_context(self.app):
            return await self.get()

    def _clock(self) -> float:
        return boot_clock() + self.frozen


@contextmanager
def one_loop(function: Function) -> Iterator[Invoke]:
    """Run one event loop during requests only, as Mangum does."""
    with asyncio.Runner() as runner:
        yield lambda: runner.run(function.get())


@contextmanager
def loop_each(function: Function) -> Iterator[Invoke]:
    """Run an event loop for each request."""
    yield lambda: asyncio.run(function.get())


either = pytest.mark.parametrize("loops", [one_loop, loop_each])
Loops = Callable[[Function], AbstractContextManager[Invoke]]


@contextmanager
def revoked_slowly(hub: FakeHub, function: Function, invoke: Invoke) -> Iterator[Hold]:
    """Freeze a function that has a list, while the hub revokes its key and answers slowly."""
    assert invoke() == 200
    hub.lists(row(1, disabled_at="now"))
    function.frozen = HOUR
    with hub.held() as hold:
        yield hold


@either
def test_the_first_request_starts_the_gate_and_waits_for_the_list(hub: FakeHub, loops: Loops) -> None:
    function = Function(hub)
    assert hub.requests == []
    with loops(function) as invoke:
        assert invoke() == 200
        assert len(hub.fetches) == 1


@either
def test_a_key_revoked_during_a_freeze_is_refused_at_once(hub: FakeHub, loops: Loops) -> None:
    function = Function(hub)
    with loops(function) as invoke:
        assert invoke() == 200
        hub.lists(row(1, disabled_at="now"))
        function.frozen = HOUR
        assert invoke() == 403
        hub.lists(row(1))
        function.frozen = 2 * HOUR
        assert invoke() == 200


@either
def test_the_last_list_decides_after_a_freeze_without_a_hub(hub: FakeHub, loops: Loops) -> None:
    function = Function(hub)
    with loops(function) as invoke:
        assert invoke() == 200
        hub.always(HubAnswer(503))
        function.frozen = HOUR
        assert invoke() == 200
        assert (function.gate.status.state, function.gate.status.counters["refresh_failed"]) == ("degraded", 1)


def test_requests_on_one_loop_share_a_list_until_the_next_is_due(hub: FakeHub) -> None:
    function = Function(hub)
    with one_loop(function) as invoke:
        assert [invoke() for _ in range(5)] == [200] * 5
        assert len(hub.fetches) == 1
        function.frozen = 2 * INTERVAL
        assert invoke() == 200
        assert len(hub.fetches) == 2


def test_each_request_with_a_loop_of_its_own_fetches(hub: FakeHub) -> None:
    function = Function(hub)
    with loop_each(function) as invoke:
        assert [invoke() for _ in range(3)] == [200] * 3
    assert len(hub.fetches) == 3


def test_on_one_loop_a_slow_fetch_goes_on_in_the_next_requests(hub: FakeHub) -> None:
    function = Function(hub, wait=0.01)
    with one_loop(function) as invoke, revoked_slowly(hub, function, invoke) as hold:
        assert invoke() == 200  # the last list decides
        hold.release()
        deadline = time.monotonic() + PATIENCE
        while invoke() != 403:
            assert time.monotonic() < deadline
    assert len(hub.fetches) == 2


def test_a_slow_fetch_ends_with_the_loop_of_its_request(hub: FakeHub) -> None:
    function = Function(hub, wait=0.01)

    async def get_during_fetch(number: int) -> int:
        status = await function.get()
        await hub.asked(number)
        return status

    with loop_each(function) as invoke, revoked_slowly(hub, function, invoke):
        assert [asyncio.run(get_during_fetch(number)) for number in (2, 3, 4)] == [200] * 3


def test_a_lifespan_for_each_request_fetches_each_time(hub: FakeHub) -> None:
    """Mangum runs the lifespan at every request unless it is told not to."""
    function = Function(hub)
    with asyncio.Runner() as runner:
        assert [runner.run(function.get_in_lifespan()) for _ in range(3)] == [200] * 3
    assert len(hub.fetches) == 3


def test_an_instance_that_starts_without_the_hub_decides_by_the_snapshot(hub: FakeHub, tmp_path: Path) -> None:
    """The snapshot is written while one of the first requests runs."""
    snapshot = tmp_path / "keys.snapshot"
    with one_loop(Function(hub, snapshot)) as invoke:
        deadline = time.monotonic() + PATIENCE
        while not snapshot.exists():
            assert invoke() == 200
            assert time.monotonic() < deadline
    hub.always(HubAnswer(503))
    function = Function(hub, snapshot)
    with one_loop(function) as invoke:
        assert invoke() == 200
        assert function.gate.status.from_snapshot
