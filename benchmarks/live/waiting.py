"""Thousands of gates that wait for a change, as light clients of one hub process."""

import asyncio
import math
import statistics
import time
from http import HTTPStatus

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from benchmarks.live.companions import Companion, companion
from benchmarks.live.database import Kind, database
from benchmarks.live.hubs import Hub, Owner, running_hub
from benchmarks.live.parameters import Parameters
from benchmarks.script import Figures

__all__ = ("measure", "open_waiters", "settle")

IDLE = 0.2  # of one processor
LOOK = 0.5  # seconds of a look at the processor time
SETTLED_WITHIN = 120.0  # seconds


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Tell waiting clients of changes."""
    figures: Figures = {}
    with database(kind) as kept:
        (account,) = kept.fill(acme=parameters.keys)
        for count in parameters.waiters:
            with running_hub(kept._replace(workers=1)) as hub, companion("live.waiters") as waiters:
                figures |= asyncio.run(_tell(parameters, hub, Owner(hub.port, account), waiters, count))
    return figures


async def _tell(parameters: Parameters, hub: Hub, owner: Owner, waiters: Companion, count: int) -> Figures:
    async with owner:
        before = hub.memory
        used = hub.processor_time
        await open_waiters(hub, owner, waiters, count)
        connected = hub.processor_time - used
        memory = hub.memory - before
        rounds = []
        used = hub.processor_time
        for number in range(parameters.rounds):
            sent = time.monotonic()
            await owner.change(number, name=f"change {sent}")
            rounds.append(await asyncio.to_thread(waiters.say, told=sent))
            settle(hub)
        taken = hub.processor_time - used
    late = sum(count - each["told"] for each in rounds)
    told: Figures = {name: [each[name] * 1000 for each in rounds if each[name]] for name in ("first", "middle", "last")}
    return {
        f"{count:,} waiters: {name} (KB)" if name == "memory of a waiter" else f"{count:,} waiters: {name}": value
        for name, value in {
            "memory of a waiter": memory / 1000 / count,
            "first told, p50 (ms)": statistics.median(told["first"]),
            "half told, p50 (ms)": statistics.median(told["middle"]),
            "last told, p50 (ms)": statistics.median(told["last"]),
            "last told, max (ms)": max(told["last"]),
            "hub's processor time for a request (ms)": connected * 1000 / count,
            "hub's processor time for a waiter told (ms)": taken * 1000 / count / parameters.rounds,
            "not told within a minute": late,
            "connections lost": rounds[-1]["lost"],
            **{f"answers {status}": number for status, number in sorted(rounds[-1]["statuses"].items())},
        }.items()
    }


async def open_waiters(hub: Hub, owner: Owner, waiters: Companion, count: int) -> None:
    """Connect clients that wait for a change of an account's list, and wait until the hub has all of them."""
    said = await owner.ask("HEAD")
    if said.status != HTTPStatus.OK:
        raise SystemExit(f"the hub answers {said.status} to a HEAD for the list")
    opened = {"port": hub.port, "token": owner.account.gate, "etag": said.etag, "count": count}
    await asyncio.to_thread(waiters.say, open=opened)
    settle(hub)


def settle(hub: Hub) -> None:
    """Wait until a hub is idle."""
    used = -math.inf

    def is_busy() -> bool:
        nonlocal used
        before, used = used, hub.processor_time
        return used - before >= IDLE * LOOK

    try:
        Retrying(retry=retry_if_result(bool), wait=wait_fixed(LOOK), stop=stop_after_delay(SETTLED_WITHIN))(is_busy)
    except RetryError:
        raise SystemExit(f"the hub is still busy after {SETTLED_WITHIN:g} s") from None
