"""Revocations after outages of a hub, its database and its network, and random changes with outages in between."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from itertools import islice

from benchmarks import keys
from benchmarks.live.database import Account, Database, Kind, database
from benchmarks.live.gates import Gates, asked_directly, request, served_gates
from benchmarks.live.hubs import Hub, Owner, running_hub
from benchmarks.live.parameters import Parameters
from benchmarks.live.proxy import Proxy
from benchmarks.live.random_changes import change_at_random
from benchmarks.script import Figures

__all__ = ("measure",)

CALM = 1.0  # seconds before an outage

Outage = Callable[[float], Awaitable[None]]


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Revoke keys after outages; then change keys at random while there are some."""
    with database(kind) as kept:
        (account,) = kept.fill(acme=parameters.keys)
        with running_hub(kept) as hub, Proxy(hub.port, idle_limit=parameters.idle_limit) as proxy:
            return asyncio.run(_measure(parameters, _Site(kept, hub, proxy), account))


async def _measure(parameters: Parameters, site: "_Site", account: Account) -> Figures:
    figures: Figures = {}
    async with Owner(site.hub.port, account) as owner, _gates(parameters, site, account) as (direct, proxied):
        numbers = iter(keys.enabled(parameters.keys)[1:])
        for name, outage in site.outages.items():
            gates = proxied if name in site.of_network else direct
            late = []
            for number in islice(numbers, parameters.outages):
                late.append(await _lateness(parameters, outage, owner, gates, number))
                # The others may have met the outage, too, and the next one is to be one by itself.
                await (direct + proxied).until(request(number), HTTPStatus.FORBIDDEN)
            figures[f"refused after the end, latest (s): {name}"] = max(late)
        busy = [await _idle(parameters, owner, proxied, next(numbers)) for _ in range(parameters.outages)]
        figures["refused after the revocation, latest (s): proxy that drops idle connections"] = max(busy)
        figures["hub stopped within, longest (s)"] = max(site.stops)
        outages = [partial(run, parameters.outage / 2) for run in site.outages.values()]
        figures |= await change_at_random(parameters.changes, site.hub.port, account, direct + proxied, outages)
    return figures


async def _lateness(parameters: Parameters, outage: Outage, owner: Owner, gates: Gates, number: int) -> float:
    """The seconds from the end of an outage until all gates refuse a key that was revoked at that moment."""
    await asyncio.sleep(CALM)
    await gates.until(request(number), HTTPStatus.OK)
    await outage(parameters.outage)
    ended = time.monotonic()
    await owner.insist("PATCH", f"/{owner.account.row(number)['id']}", {"disabled": True})
    return max(await gates.until(request(number), HTTPStatus.FORBIDDEN)) - ended


async def _idle(parameters: Parameters, owner: Owner, gates: Gates, number: int) -> float:
    await asyncio.sleep(2 * parameters.idle_limit)
    await gates.until(request(number), HTTPStatus.OK)
    acknowledged = (await owner.insist("PATCH", f"/{owner.account.row(number)['id']}", {"disabled": True})).at
    return max(await gates.until(request(number), HTTPStatus.FORBIDDEN)) - acknowledged


@asynccontextmanager
async def _gates(parameters: Parameters, site: "_Site", account: Account) -> AsyncIterator[tuple[Gates, Gates]]:
    """Half of the gates reach the hub directly, the others through the proxy."""
    half = parameters.gates // 2
    with (
        served_gates(half, site.hub.url, account, parameters.interval) as direct,
        served_gates(half, site.proxy.url, account, parameters.interval) as proxied,
    ):
        async with asked_directly(direct, half) as one, asked_directly(proxied, half) as other:
            yield one, other


class _Site:
    """A hub with its database and its network, all of which can fail."""

    def __init__(self, kept: Database, hub: Hub, proxy: Proxy) -> None:
        self.hub = hub
        self.proxy = proxy
        self.stops: list[float] = []
        self.of_network = {"network silent"}
        self.outages: dict[str, Outage] = {
            "hub killed": self._while(hub.kill, hub.start),
            "hub stopped": self._while(self._stop, hub.start),
            "hub frozen": self._while(lambda: hub.signal(signal.SIGSTOP), lambda: hub.signal(signal.SIGCONT)),
            "network silent": self._while(proxy.be_silent, proxy.heal),
        }
        if kept.cluster is not None:
            self.outages["PostgreSQL restarted"] = self._while(kept.cluster.stop, kept.cluster.start)

    def _stop(self) -> None:
        begun = time.monotonic()
        self.hub.stop()
        self.stops.append(time.monotonic() - begun)

    @staticmethod
    def _while(begin: Callable[[], None], end: Callable[[], None]) -> Outage:
        async def run(seconds: float) -> None:
            await asyncio.to_thread(begin)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(end)

        return run
