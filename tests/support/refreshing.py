"""A refresher that goes by a fake clock, and what it works with."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from gatekeeper import HubSource, RefreshReport, Source, WidgetKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.refresher import Refresher

from .fake_hub import FakeHub
from .fake_time import FakeTime
from .rows import TOKEN, client_key

__all__ = ("Running", "running")


class Running:
    """A refresher at work, and what it works with."""

    def __init__(self, source: Source, fake: FakeTime, options: dict[str, Any]) -> None:
        self.time = fake
        self.stop: Callable[[], None] = lambda: None
        self.changes = 0
        self.index = KeyIndex(account="acme")
        self.freshness = Freshness(
            soft_stale=options.pop("soft_stale", 60.0), hard_stale=options.pop("hard_stale", 3600.0), clock=fake.clock
        )
        self.refresher = Refresher(
            source,
            self.index,
            self.freshness,
            self._changed,
            **{"interval": 10.0, "timeout": 30.0, "clock": fake.clock, "sleep": fake.sleep, "jitter": fake.dice, **options},
        )

    def _changed(self) -> None:
        self.changes += 1

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
    fake = FakeTime(jitter=jitter)
    harness = Running(HubSource(source.url, TOKEN, timeout=60) if isinstance(source, FakeHub) else source, fake, options)
    async with anyio.create_task_group() as group:
        harness.stop = group.cancel_scope.cancel
        group.start_soon(harness.refresher.run)
        await fake.asleep()
        yield harness
        group.cancel_scope.cancel()
