"""The import of very many keys while gates wait for changes, beside the changes of another account."""

import asyncio
import time
from typing import Any

from benchmarks import script
from benchmarks.live.companions import companion
from benchmarks.live.database import Account, Kind, database
from benchmarks.live.hubs import Hub, Owner, running_hub
from benchmarks.live.parameters import Parameters
from benchmarks.live.waiting import open_waiters
from benchmarks.script import Figures

__all__ = ("changed_meanwhile", "measure")

CONNECTIONS = 8  # over which keys are created
APART = 0.02  # seconds between two changes of the other account
OTHERS = 100  # keys of the other account


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Import keys, with and without waiting gates."""
    figures: Figures = {}
    for count in (0, min(parameters.waiters)):
        with database(kind) as kept:
            acme, globex = kept.fill(acme=parameters.keys, globex=OTHERS)
            with running_hub(kept) as hub:
                said = asyncio.run(_import(parameters, hub, acme, globex, count))
        figures |= {f"{count:,} waiters: {name}": value for name, value in said.items()}
    return figures


async def _import(parameters: Parameters, hub: Hub, acme: Account, globex: Account, count: int) -> Figures:
    with companion("live.waiters") as waiters:
        async with Owner(hub.port, acme) as owner, Owner(hub.port, globex) as other:
            await open_waiters(hub, owner, waiters, count)
            begun, used = time.monotonic(), hub.processor_time
            creating = asyncio.gather(*(_create(hub, acme, parameters.imported // CONNECTIONS) for _ in range(CONNECTIONS)))
            waits, failures = await changed_meanwhile(creating, other, range(OTHERS))
            seconds = time.monotonic() - begun
            told = await asyncio.to_thread(waiters.say, told=time.monotonic() - 1.0) if count else {"statuses": {}}
    answers = sum(told["statuses"].values())
    taken = script.percentiles(waits)
    return {
        "import (keys a second)": parameters.imported / seconds,
        **{f"other account's change, {name} (ms)": value * 1000 for name, value in taken.items()},
        "other account's changes": len(waits),
        "other account's 503": failures,
        "hub's processor time (s)": hub.processor_time - used,
        "answers to a waiter a second": answers / max(count, 1) / seconds,
    }


async def _create(hub: Hub, account: Account, count: int) -> None:
    async with Owner(hub.port, account) as owner:
        for number in range(count):
            host = f"customer{number}.example"
            await owner.insist("POST", "", {"name": f"Customer {number}", "domain_allowlist": [host, f"*.{host}"]})


async def changed_meanwhile(
    work: "asyncio.Future[Any]", owner: Owner, places: range, apart: float = APART
) -> tuple[list[float], int]:
    """Change keys of an account one by one until some work is done.

    Returns:
        The seconds of each change, and the number of those that were not acknowledged.
    """
    waits: list[float] = []
    failures = 0
    while not work.done() or not waits:
        begun = time.monotonic()
        row = owner.account.row(places[len(waits) % len(places)])
        said = await owner.ask("PATCH", f"/{row['id']}", {"name": f"change {begun}"})
        waits.append(said.at - begun)
        failures += said.status >= 500  # noqa: PLR2004 - server errors
        await asyncio.sleep(apart)
    await work
    return waits, failures
