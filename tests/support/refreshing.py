"""A refresher with a fake clock."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from gatekeeper import HubSource, RefreshReport, Source, Status, WidgetKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.sync.list_sync import ListSync, SyncOptions
from gatekeeper.testing import FakeClock, FakeHub

from .held_source import HeldSource
from .rows import TOKEN, client_key

__all__ = ("Running", "living", "running", "until")


class Running:
    """A running refresher and its parts.

    Attributes:
        time: its clock.
        changes: number of calls of `on_change`.
        deadlines: calls of `on_deadline`, in order.
        used: allowed requests by key id, for the next report.
        refused: refused pages, for the next report.
        stop: cancels it.
        stop_refresher: cancels the refresher alone.
    """

    def __init__(self, source: Source, fake: FakeClock, options: dict[str, Any]) -> None:
        self.time = fake
        self.stop: Callable[[], None] = lambda: None
        self.stop_refresher: Callable[[], None] = lambda: None
        self.changes = 0
        self.deadlines: list[float] = []
        self.used: Counter[str] = Counter()
        self.refused: list[RefusedPage] = []
        self.index = KeyIndex(account="acme")
        # Reports sleep too, and tests count the sleeps of the refresher.
        by_the_clock = {
            "clock": fake,
            "sleep": fake.sleep,
            "jitter": lambda: 0.5,
            "hard_stale": 3600.0,
            "usage_interval": 0.0,
        }
        self.sync = ListSync(
            source,
            self.index,
            SyncOptions(**{**by_the_clock, **options}),
            on_change=self._changed,
            on_deadline=self.deadlines.append,
            take_used_keys=self._take_used_keys,
            take_refused=self._take_refused,
        )
        self.refresher = self.sync.new_refresher()

    def _changed(self) -> None:
        self.changes += 1

    def _take_used_keys(self) -> Counter[str]:
        used, self.used = self.used, Counter()
        return used

    def _take_refused(self) -> list[RefusedPage]:
        refused, self.refused = self.refused, []
        return refused

    @property
    def status(self) -> Status:
        """The status of the list."""
        return self.sync.status

    @property
    def ids(self) -> list[str]:
        return sorted(key.id for key in self.index)

    def get(self, row_id: str) -> WidgetKey:
        (key,) = [key for key in self.index if key.id == row_id]
        return key

    def resolve(self, number: int) -> object:
        return self.index.resolve(ClientKey.parse(client_key(number)))

    async def refresh(self) -> RefreshReport:
        """Refresh, and wait until the refresher sleeps again."""
        slept = len(self.time.sleeps)
        report = await self.refresher.refresh()
        await self.time.asleep(slept + 1)
        return report


@asynccontextmanager
async def running(source: Source | FakeHub, *, jitter: float = 0.5, **options: Any) -> AsyncIterator[Running]:
    """Run a refresher that has fetched once."""
    fake = FakeClock()
    live = HubSource(source.url, TOKEN, timeout=60) if isinstance(source, FakeHub) else source
    harness = Running(live, fake, {"jitter": lambda: jitter, **options})
    async with anyio.create_task_group() as group:
        harness.stop = group.cancel_scope.cancel
        group.start_soon(harness.refresher.run)
        await fake.asleep()
        if harness.sync.reporting:
            group.start_soon(harness.sync.reporting.run, harness.refresher.schedule.first_fetch)
            await fake.asleep(2)
        yield harness
        group.cancel_scope.cancel()


@asynccontextmanager
async def living(source: FakeHub | HeldSource, **options: Any) -> AsyncIterator[Running]:
    """Run a refresher that waits for the next change of its source, by a clock that a live hub shares."""
    fake = FakeClock()
    asked = 0
    if isinstance(source, FakeHub):
        source.clock, asked = fake, len(source.requests)
    live = HubSource(source.url, TOKEN, timeout=60) if isinstance(source, FakeHub) else source
    harness = Running(live, fake, options)
    async with anyio.create_task_group() as group:
        harness.stop = group.cancel_scope.cancel

        async def run() -> None:
            with anyio.CancelScope() as scope:
                harness.stop_refresher = scope.cancel
                await harness.refresher.run()

        group.start_soon(run)
        if isinstance(source, FakeHub):
            await until(lambda: any("prefer" in request.headers for request in source.requests[asked:]))
            await source.waits()
        else:
            await until(lambda: source.held)
        yield harness
        group.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until a condition is met."""
    with anyio.fail_after(15):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await anyio.sleep(0.001)
