"""What a hub costs on which almost nothing changes."""

import asyncio
import random
import time
from collections.abc import Iterator
from http import HTTPStatus

from benchmarks import keys
from benchmarks.live.database import Kind, database
from benchmarks.live.gates import asked_directly, request_with, served_gates
from benchmarks.live.hubs import PATH, Hub, Owner, running_hub
from benchmarks.live.parameters import Parameters
from benchmarks.live.proxy import Proxy, Tally
from benchmarks.live.traffic import traffic
from benchmarks.script import Figures
from benchmarks.servers import Served

__all__ = ("measure",)

USED = 20  # keys
RATE = 20.0  # requests a second with them
MINUTE = 60.0  # seconds between two changes
NEW = 20  # keys that are made at the end
LIST = f"GET {PATH}"


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Change a key a minute, and then make new keys."""
    with database(kind) as kept:
        (account,) = kept.fill(acme=parameters.quiet_keys)
        with (
            running_hub(kept) as hub,
            Proxy(hub.port) as proxy,
            served_gates(parameters.gates, proxy.url, account, parameters.interval) as served,
        ):
            with traffic(served.port, keys.enabled(parameters.quiet_keys)[:USED], RATE):
                quiet = asyncio.run(_change_seldom(parameters, hub, proxy, Owner(hub.port, account)))
            new = asyncio.run(_create(parameters, served, Owner(hub.port, account)))
    return quiet | new


async def _change_seldom(parameters: Parameters, hub: Hub, proxy: Proxy, owner: Owner) -> Figures:
    await asyncio.sleep(2 * parameters.interval)  # until the last gate has its list, and asks for the next
    proxy.tally = Tally()
    used, begun = hub.processor_time, time.monotonic()
    changes = 0
    async with owner:
        while (rest := begun + parameters.quiet_seconds - time.monotonic()) > 0:
            if time.monotonic() >= begun + (changes + 0.5) * MINUTE:
                changes += 1
                await owner.change(changes + USED * 2, name=f"change {changes}")
            await asyncio.sleep(min(rest, 0.5))
    tally = proxy.tally
    shares = parameters.gates * parameters.quiet_seconds / MINUTE
    kilobytes = {name: sum(tally.bytes[path] for path in paths) / 1000 / shares for name, paths in _parts(tally)}
    return {
        "hub's processor time (s)": hub.processor_time - used,
        **{f"{name} (KB a gate and minute)": value for name, value in kilobytes.items()},
        **{f"answers {status} to the list": tally.answers[LIST, status] for status in (304, 226, 200)},
        "other requests": sum(count for (asked, _), count in tally.answers.items() if asked != LIST),
        "changes": changes,
    }


def _parts(tally: Tally) -> Iterator[tuple[str, list[str]]]:
    yield "list", [LIST]
    yield "all", list(tally.bytes)


async def _create(parameters: Parameters, served: Served, owner: Owner) -> Figures:
    """Make keys at random times, and use each at once, at one gate."""
    dice = random.Random(1)
    accepted = 0
    begun = time.monotonic()
    async with owner, asked_directly(served, parameters.gates) as gates:
        for due in sorted(dice.random() * parameters.new_within for _ in range(NEW)):
            await asyncio.sleep(max(0.0, begun + due - time.monotonic()))
            said = await owner.ask("POST", body={"name": "new", "domain_allowlist": ["new.example.org"]})
            statuses = await gates.ask(request_with(said.body["public_key"], "https://new.example.org"))
            accepted += set(statuses) == {HTTPStatus.OK}
    return {f"of {NEW} new keys, accepted by all gates at the first request": accepted}
