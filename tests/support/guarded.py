"""A gate that goes by a fake clock, and what it decides."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import httpx

from gatekeeper import Gatekeeper, HubSource, Reason, RefreshReport, Source, Status

from .fake_hub import FakeHub, Request
from .fake_time import FakeTime
from .rows import ORIGIN, TOKEN, client_key

__all__ = ("Guarded", "gaps", "gate_of", "guarded", "hub_source")


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def hub_source(url: str, token: str | Callable[[], str] = TOKEN, *, timeout: float = 60.0, **options: Any) -> HubSource:
    """Make a source that has patience with a machine that has much else to do, and trust that is loaded but once."""

    def http() -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=_trust(), trust_env=False, timeout=timeout)

    return HubSource(url, token, **{"http": http, **options})


def gate_of(hub: FakeHub, fake: FakeTime | None = None, **options: Any) -> Gatekeeper:
    """Make a gate for a hub, by a clock that stands still; it has patience with a machine that has much else to do."""
    fake = FakeTime() if fake is None else fake
    return Gatekeeper(
        HubSource(hub.url, TOKEN, timeout=60),
        **{"clock": fake.clock, "sleep": fake.sleep, "jitter": fake.dice, "unknown_key_wait": 4.9, **options},
    )


class Guarded:
    """A gate at work, and the clock that it goes by.

    Attributes:
        gate: the gate.
        time: the clock.
    """

    def __init__(self, source: Source, fake: FakeTime, **options: Any) -> None:
        self.time = fake
        # What is reported to the hub has a sleep of its own, and tests count those of the refresher.
        by_the_clock = {"clock": fake.clock, "sleep": fake.sleep, "jitter": fake.dice, "usage_interval": 0.0}
        self.gate = Gatekeeper(source, **{**by_the_clock, "unknown_key_wait": 4.9, **options})

    @property
    def status(self) -> Status:
        """How fresh the gate's list is."""
        return self.gate.status

    @property
    def last_error(self) -> str:
        """Why the last fetch failed."""
        assert self.status.last_error is not None
        return self.status.last_error

    def reason(self, number: int = 1, origin: str = ORIGIN) -> Reason:
        """What the gate decides at once."""
        return self.gate.decide(client_key(number), origin).reason

    def allows(self, *numbers: int) -> bool:
        """Whether the gate allows every one of these keys."""
        return all(self.reason(number) is Reason.ALLOWED for number in numbers)

    async def refresh(self) -> RefreshReport:
        """Refresh, and wait until the refresher sleeps again."""
        slept = len(self.time.sleeps)
        report = await self.gate.refresh()
        await self.time.asleep(slept + 1)
        return report

    async def fail(self) -> str:
        """Refresh once more, which has to fail and to change nothing; give the reason."""
        before = self.status
        report = await self.refresh()
        assert report.outcome == "failed", report
        after = self.status
        assert (after.keys, after.generation) == (before.keys, before.generation)
        assert after.counters["refresh_failed"] == before.counters.get("refresh_failed", 0) + 1
        return self.last_error


@asynccontextmanager
async def guarded(
    at: str | FakeHub | Source, *, jitter: float = 0.5, source: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Guarded]:
    """Run a gate that has tried once to get a list.

    Args:
        at: the hub, its URL, or a source.
        jitter: what its dice show.
        source: options of a source that is made for that URL.
        options: those of the gate.
    """
    fake = FakeTime(jitter=jitter)
    if isinstance(at, FakeHub):
        at.clock = fake.clock
        at = at.url
    live = hub_source(at, **(source or {})) if isinstance(at, str) else at
    it = Guarded(live, fake, **{"start_timeout": 0.0, **options})
    async with it.gate:
        await fake.asleep()
        yield it


def gaps(requests: list[Request]) -> list[float]:
    """How many seconds lay between each request and the next."""
    return [later.at - earlier.at for earlier, later in pairwise(requests)]
