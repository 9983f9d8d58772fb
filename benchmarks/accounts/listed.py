"""One list of all accounts, beside the list of one account that is as long."""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

from benchmarks import script
from benchmarks.accounts.parameters import Parameters
from benchmarks.live.companions import Companion, companion
from benchmarks.live.database import Account, Kind, database
from benchmarks.live.hubs import PATH, Hub, Lateness, Owner, running_hub
from benchmarks.live.proxy import Proxy, Tally
from benchmarks.script import Figures

__all__ = ("measure",)

OWNERS = 20  # accounts that change keys
REPEATED = 500  # keys in rotation, fewer than a gate remembers
GATES = 4  # that the quiet hub has
USED, RATE, SENDERS = 20, 20.0, 4  # keys, requests a second with them, and senders, on the quiet hub
MINUTE = 60.0  # seconds between two changes
APART = 0.1  # seconds between two revocations at most
MB = 1e6
LIST = f"GET {PATH}"


class _Listed(NamedTuple):
    """A hub with a list, and keys of it that are not disabled, in random order.

    Attributes:
        hub: the hub.
        token: of its gates.
        keys: the keys, with their accounts.
        changed: of these, the ones that are changed one after the other.
    """

    hub: Hub
    token: str
    keys: list[tuple[Account, int]]
    changed: Iterator[tuple[Account, int]]

    @property
    def repeated(self) -> list[tuple[Account, int]]:
        """The keys with which requests are repeated."""
        return self.keys[: min(REPEATED, len(self.keys) // 2)]


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Load the list, decide by it, and change it."""
    kept_on, rest_on = script.processors()
    count = parameters.listed_accounts * parameters.listed_keys
    with ExitStack() as stack:
        several, single = (stack.enter_context(database(kind)) for _ in range(2))
        accounts = several.fill_evenly(parameters.listed_accounts, parameters.listed_keys, minted=OWNERS)
        (account,) = single.fill(acme=count)
        hubs = [stack.enter_context(running_hub(kept, rest_on)) for kept in (several, single)]
        lists = {
            "all accounts": _listed(hubs[0], several.mint_for_all(), accounts),
            "one account": _listed(hubs[1], account.gate, [account]),
        }
        figures = _decide(parameters, lists, kept_on)
        for name, listed in lists.items():
            figures[name] |= _keep_quiet(parameters, listed)
    return {f"{name}: {figure}": value for name, each in figures.items() for figure, value in each.items()}


def _listed(hub: Hub, token: str, accounts: list[Account]) -> _Listed:
    keys = [(account, place) for account in accounts for place in account.enabled()]
    random.Random(1).shuffle(keys)
    return _Listed(hub, token, keys, ((account, place) for account, place in reversed(keys) if account.admin))


def _decide(parameters: Parameters, lists: dict[str, _Listed], processor: int) -> dict[str, Figures]:
    with ExitStack() as stack:
        gates = {name: stack.enter_context(companion("gates", processor)) for name in lists}
        figures = {name: _load(parameters, gates[name], listed) for name, listed in lists.items()}
        taken: dict[str, list[float]] = {name: [] for name in lists}
        for name in script.interleaved(lists, parameters.rounds):
            pairs = _pairs(lists[name].repeated)
            taken[name] += gates[name].say(requests={"pairs": pairs, "count": parameters.requests})["taken"]
        for name, listed in lists.items():
            figures[name]["an allowed request (µs)"] = statistics.median(taken[name])
            figures[name] |= asyncio.run(_revoke(parameters, gates[name], listed))
    return figures


def _load(parameters: Parameters, gates: Companion, listed: _Listed) -> Figures:
    count = parameters.listed_accounts * parameters.listed_keys
    sources = [{"base_url": listed.hub.url, "token": listed.token}]
    started = gates.say(start={"sources": sources, "together": False, "interval": parameters.interval, "warm": True})
    if started["keys"] != count:
        raise SystemExit(f"the gate has {started['keys']} keys: expected {count}")
    seen_first = listed.keys[len(listed.repeated) :][: parameters.sights]
    sights = gates.say(sights={"pairs": _pairs(seen_first)})
    return {
        "the list is there after (s)": started["seconds"],
        "bytes a key": started["grown"] / count,
        "memory of the process (MB)": started["memory"] / MB,
        **{f"first sight of a key, {name} (µs)": value for name, value in script.percentiles(sights["taken"]).items()},
    }


def _pairs(keys: list[tuple[Account, int]]) -> list[tuple[str, str]]:
    return [(account.client_key(place), account.origin(place)) for account, place in keys]


async def _revoke(parameters: Parameters, gates: Companion, listed: _Listed) -> Figures:
    dice, late = random.Random(1), Lateness()
    for _ in range(parameters.trials):
        await asyncio.sleep(dice.random() * APART)
        account, place = next(listed.changed)
        gates.say(watch={"pair": (account.client_key(place), account.origin(place))})
        async with Owner(listed.hub.port, account) as owner:
            said = await owner.change(place, disabled=True)
        late.note(said, gates.say(refused={})["at"])
    return late.figures("a revocation")


def _keep_quiet(parameters: Parameters, listed: _Listed) -> Figures:
    with Proxy(listed.hub.port) as proxy, companion("gates") as gates:
        sources: list[Any] = [{"base_url": proxy.url, "token": listed.token}] * GATES
        gates.say(start={"sources": sources, "together": False, "interval": parameters.interval})
        gates.say(send={"pairs": {"used": _pairs(listed.keys[:USED])}, "rate": RATE, "senders": SENDERS})
        return asyncio.run(_change_seldom(parameters, proxy, listed))


async def _change_seldom(parameters: Parameters, proxy: Proxy, listed: _Listed) -> Figures:
    await asyncio.sleep(parameters.interval)
    proxy.tally = Tally()
    used, begun, changes = listed.hub.processor_time, time.monotonic(), 0
    while (rest := begun + parameters.quiet - time.monotonic()) > 0:
        if time.monotonic() >= begun + (changes + 0.5) * MINUTE:
            changes += 1
            account, place = next(listed.changed)
            async with Owner(listed.hub.port, account) as owner:
                await owner.change(place, name=f"change {changes}")
        await asyncio.sleep(min(rest, 0.5))
    minutes = parameters.quiet / MINUTE
    return {
        f"quiet, {GATES} gates: hub's processor time a minute (s)": (listed.hub.processor_time - used) / minutes,
        f"quiet, {GATES} gates: list (KB a gate and minute)": proxy.tally.bytes[LIST] / 1000 / GATES / minutes,
        f"quiet, {GATES} gates: whole lists": proxy.tally.answers[LIST, 200],
    }
