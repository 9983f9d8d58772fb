"""Changes while many read long lists, report use, or read slowly."""

import asyncio
import time

from benchmarks import script
from benchmarks.live.companions import companion
from benchmarks.live.database import Account, Kind, database
from benchmarks.live.hubs import Hub, Owner, running_hub
from benchmarks.live.imported import changed_meanwhile
from benchmarks.live.parameters import Parameters
from benchmarks.script import Figures

__all__ = ("measure",)

APART = 0.1  # seconds between two changes of an account
REPORTED_KEYS = 5000
SHARE_OF_SLOW = 6  # the slow readers' account has a sixth of the keys
OTHERS = 1000  # keys of the third account


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Change keys of the account that is read, and of one that nothing else happens to."""
    with database(kind) as kept:
        accounts = kept.fill(acme=parameters.fair_keys, globex=parameters.fair_keys // SHARE_OF_SLOW, initech=OTHERS)
        with running_hub(kept) as hub:
            figures = asyncio.run(_change(parameters, hub, accounts))
            log = hub.log
    return figures | {"warnings in the hub's log": log.count("WARNING") + log.count("ERROR")}


async def _change(parameters: Parameters, hub: Hub, accounts: list[Account]) -> Figures:
    acme, globex, initech = accounts
    ids = [acme.row(place)["id"] for place in range(min(REPORTED_KEYS, acme.size))]
    figures: Figures = {}
    with companion("live.readers") as load:
        used = hub.processor_time
        load.say(
            start={
                "port": hub.port,
                "token": acme.gate,
                "slow_token": globex.gate,
                "ids": ids,
                "readers": parameters.readers,
                "reports": parameters.reports,
                "slow": parameters.slow,
            }
        )
        async with Owner(hub.port, acme) as busy, Owner(hub.port, initech) as other, Owner(hub.port, initech) as reader:
            over = asyncio.ensure_future(asyncio.sleep(parameters.fair_seconds))
            both, listed = await asyncio.gather(
                asyncio.gather(*(changed_meanwhile(over, owner, range(100), APART) for owner in (busy, other))),
                _list_meanwhile(over, reader),
            )
        figures["hub's processor time (s)"] = hub.processor_time - used
        said = await asyncio.to_thread(load.say, stop=True)
    for whose, (waits, failures) in zip(("read account", "other account"), both, strict=True):
        figures |= {f"{whose}: change, {name} (ms)": value * 1000 for name, value in script.percentiles(waits).items()}
        figures |= {f"{whose}: changes": len(waits), f"{whose}: changes answered 5xx": failures}
    figures |= {f"other account: list, {name} (ms)": value * 1000 for name, value in script.percentiles(listed).items()}
    return figures | said


async def _list_meanwhile(over: "asyncio.Future[None]", owner: Owner) -> list[float]:
    waits: list[float] = []
    while not over.done() or not waits:
        begun = time.monotonic()
        said = await owner.ask("GET")
        if said.status == 200:  # noqa: PLR2004 - OK
            waits.append(said.at - begun)
        await asyncio.sleep(APART)
    return waits
