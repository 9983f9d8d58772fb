"""The processor time of a delta of one row, for a hub and a gate with very many keys."""

import asyncio
import time

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from benchmarks import keys, script
from benchmarks.live.applying import measure_applying
from benchmarks.live.database import Kind, database
from benchmarks.live.gates import served_gates
from benchmarks.live.hubs import Hub, Owner, running_hub
from benchmarks.live.parameters import Parameters
from benchmarks.live.proxy import Proxy, Tally
from benchmarks.live.quiet import LIST
from benchmarks.live.waiting import settle
from benchmarks.script import Figures

__all__ = ("measure",)

APART = 0.05  # seconds between two changes, so that each has a delta of its own
TOLD_WITHIN = 15.0  # seconds; a gate that was told of nothing by then polls


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Change rows, first without a gate and then with one that waits."""
    with database(kind) as kept:
        (account,) = kept.fill(acme=parameters.many_keys)
        with running_hub(kept) as hub, Proxy(hub.port) as proxy:
            owner = Owner(hub.port, account)
            alone = _hub_time(parameters, hub, owner, 0)
            begun = time.monotonic()
            with served_gates(1, proxy.url, account, parameters.interval) as served:
                started = time.monotonic() - begun
                settle(hub)
                _begin(owner, proxy)
                proxy.tally = Tally()
                used = script.processor_time(served.process)
                together = _hub_time(parameters, hub, owner, 1)
                used = script.processor_time(served.process) - used
                deltas = proxy.tally.answers[LIST, 226]
    each = 1000 / max(deltas, 1)
    return {
        "changes": parameters.deltas,
        "deltas": deltas,
        "whole lists": proxy.tally.answers[LIST, 200],
        "hub's processor time for a change (ms)": alone * 1000 / parameters.deltas,
        "hub's processor time for its delta (ms)": (together - alone) * each,
        "gate's processor time for a delta, with the request (ms)": used * each,
        **measure_applying(parameters.many_keys, parameters.deltas),
        "list's bytes a delta": sum(proxy.tally.bytes.values()) / max(deltas, 1),
        "start of the gate (s)": started,
    }


def _begin(owner: Owner, proxy: Proxy) -> None:
    """Change keys until the gate is told of a change, or has polled."""
    before = proxy.tally.answers[LIST, 226]

    def is_told() -> bool:
        asyncio.run(_change_one(owner))
        return proxy.tally.answers[LIST, 226] > before

    # A gate that does not wait yet is told of the next change.
    Retrying(
        retry=retry_if_result(lambda told: not told),
        wait=wait_fixed(1.0),
        stop=stop_after_delay(TOLD_WITHIN),
        retry_error_callback=lambda _: False,
    )(is_told)


async def _change_one(owner: Owner) -> None:
    async with owner:
        await owner.change(1, name=f"change {time.monotonic()}")


def _hub_time(parameters: Parameters, hub: Hub, owner: Owner, part: int) -> float:
    """The processor seconds of a hub for all changes."""
    used = hub.processor_time
    asyncio.run(_change(parameters, owner, part))
    return hub.processor_time - used


async def _change(parameters: Parameters, owner: Owner, part: int) -> None:
    step = 1 + parameters.many_keys // parameters.deltas // 2
    chosen = keys.enabled(parameters.many_keys)[part::step][: parameters.deltas]
    async with owner:
        for number in chosen:
            await owner.change(number, name=f"change {part}")
            await asyncio.sleep(APART)
