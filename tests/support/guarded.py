"""A gate with a fake clock, and its decisions."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import httpx

from gatekeeper import Gatekeeper, HubSource, Reason, RefreshReport, Source, Status
from gatekeeper.testing import FakeClock, FakeHub, HubRequest

from .rows import ORIGIN, TOKEN, client_key

__all__ = ("Guarded", "gaps", "gate_of", "guarded", "hub_source")


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def hub_source(url: str, token: str | Callable[[], str] = TOKEN, *, timeout: float = 60.0, **options: Any) -> HubSource:
    """Make a source with a generous timeout; the trust store is loaded once."""

    def http() -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=_trust(), trust_env=False, timeout=timeout)

    return HubSource(url, token, **{"http": http, **options})


def gate_of(hub: FakeHub, fake: FakeClock | None = None, **options: Any) -> Gatekeeper:
    """Make a gate for a hub, with a fake clock and generous timeouts."""
    fake = FakeClock() if fake is None else fake
    return Gatekeeper(
        HubSource(hub.url, TOKEN, timeout=60),
        **{"clock": fake, "sleep": fake.sleep, "jitter": lambda: 0.5, "unknown_key_wait": 4.9, **options},
    )


class Guarded:
    """A running gate and its clock.

    Attributes:
        gate: the gate.
        time: its clock.
    """

    def __init__(self, source: Source, fake: FakeClock, **options: Any) -> None:
        self.time = fake
        # Reports sleep too, and tests count the sleeps of the refresher.
        by_the_clock = {"clock": fake, "sleep": fake.sleep, "usage_interval": 0.0}
        self.gate = Gatekeeper(source, **{**by_the_clock, "unknown_key_wait": 4.9, **options})

    @property
    def status(self) -> Status:
        """The status of the gate."""
        return self.gate.status

    @property
    def last_error(self) -> str:
        """Why the last fetch failed."""
        assert self.status.last_error is not None
        return self.status.last_error

    def reason(self, number: int = 1, origin: str = ORIGIN) -> Reason:
        """The reason of the gate's decision."""
        return self.gate.decide(client_key(number), origin).reason

    def allows(self, *numbers: int) -> bool:
        """Whether the gate allows all of these keys."""
        return all(self.reason(number) is Reason.ALLOWED for number in numbers)

    async def refresh(self) -> RefreshReport:
        """Refresh, and wait until the refresher sleeps again."""
        slept = len(self.time.sleeps)
        report = await self.gate.refresh()
        await self.time.asleep(slept + 1)
        return report

    async def fail(self) -> str:
        """Refresh, assert that it fails and changes nothing; return the error."""
        before = self.status
        report = await self.refresh()
        assert report.outcome == "failed", report
        after = self.status
        assert (after.keys, after.generation) == (before.keys, before.generation)
        assert after.counters["refresh_failed"] == before.counters.get("refresh_failed", 0) + 1
        return self.last_error


@asynccontextmanager
async def guarded(
    at: str | FakeHub | Source,
    *,
    jitter: float | Callable[[], float] = 0.5,
    source: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Guarded]:
    """Run a gate that has made one fetch.

    Args:
        at: the hub, its URL, or a source.
        jitter: from 0 to 1, or a function that gives it.
        source: options of the source for a URL.
        options: of the gate.
    """
    fake = FakeClock()
    if isinstance(at, FakeHub):
        at.clock = fake
        at = at.url
    live = hub_source(at, **(source or {})) if isinstance(at, str) else at
    draw = jitter if callable(jitter) else lambda: jitter
    it = Guarded(live, fake, **{"jitter": draw, "start_timeout": 0.0, **options})
    async with it.gate:
        await fake.asleep(2 if it.gate._lists.all[0].sync.reporting else 1)
        yield it


def gaps(requests: list[HubRequest]) -> list[float]:
    """Seconds between each request and the next."""
    return [later.at - earlier.at for earlier, later in pairwise(requests)]
