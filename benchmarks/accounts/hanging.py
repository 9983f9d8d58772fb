"""Accounts of one gate while the hub of another of its accounts hangs, beside the same while that answers."""

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import script
from benchmarks.accounts.parameters import Parameters
from benchmarks.live.companions import Companion, companion
from benchmarks.live.database import Account, Kind, database
from benchmarks.live.hubs import Hub, Lateness, Owner, running_hub
from benchmarks.script import Figures

__all__ = ("measure",)

KINDS = ("hub answers", "hub hangs")
SENDERS = 16
BACKLOG = 1000
APART = 0.1  # seconds between two revocations at most
START = 5.0  # seconds that a start waits for the list that does not come


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Send requests to all accounts, and revoke keys of those whose hub answers."""
    kept_on, rest_on = script.processors()
    # Twice as many as are revoked, because one in ten is disabled already.
    size = parameters.keys + 2 * -(-parameters.trials * parameters.rounds * len(KINDS) // parameters.others)
    said: dict[str, list[Figures]] = {name: [] for name in KINDS}
    with database(kind) as kept:
        first, *others = kept.fill_evenly(parameters.others + 1, size)
        revoked = iter(_shuffled(others, parameters.keys))
        with running_hub(kept, rest_on) as hub, _silent_port() as silent:
            for name in script.interleaved(KINDS, parameters.rounds):
                address = f"http://127.0.0.1:{silent}" if name == "hub hangs" else hub.url
                sources = [
                    {"base_url": address, "token": first.gate},
                    *({"base_url": hub.url, "token": other.gate} for other in others),
                ]
                with companion("gates", kept_on) as gates:
                    started = gates.say(
                        start={
                            "sources": sources,
                            "together": True,
                            "interval": parameters.interval,
                            "patience": START,
                            "dead": int(name == "hub hangs"),
                            "warm": True,
                        }
                    )
                    seen = asyncio.run(_revoke(parameters, gates, hub, (first, others), revoked))
                said[name].append({"the others' lists are there after (s)": started["seconds"]} | seen)
    return {f"{name}: {figure}": value["median"] for name in KINDS for figure, value in script.spreads(said[name]).items()}


async def _revoke(
    parameters: Parameters, gates: Companion, hub: Hub, accounts: tuple[Account, list[Account]], revoked: Iterator[Any]
) -> Figures:
    first, others = accounts
    pairs = {
        "others": [pair for other in others for pair in _pairs(other, parameters.keys)],
        "the one": _pairs(first, parameters.keys),
    }
    gates.say(send={"pairs": pairs, "rate": parameters.rate, "senders": SENDERS})
    before = gates.say(idle={"seconds": parameters.interval})  # the same seconds for both
    dice, late = random.Random(1), Lateness()
    for _ in range(parameters.trials):
        await asyncio.sleep(dice.random() * APART)
        account, place = next(revoked)
        gates.say(watch={"pair": (account.client_key(place), account.origin(place))})
        async with Owner(hub.port, account) as owner:
            said = await owner.change(place, disabled=True)
        late.note(said, gates.say(refused={})["at"])
    sent = gates.say(sent={})
    wrong = {
        name: count for name, count in sent["answers"].items() if name.startswith("others") and not name.endswith("200")
    }
    if wrong:
        raise SystemExit(f"the other accounts are refused: {wrong}")
    return {
        **{f"others' requests, {name} (ms)": value for name, value in script.percentiles(sent["waits"]["others"]).items()},
        **late.figures("others' revocations"),
        "others' fetches in an interval": sum(before["fetches"][1:]),
    }


def _pairs(account: Account, count: int) -> list[tuple[str, str]]:
    return [(account.client_key(place), account.origin(place)) for place in account.enabled() if place < count]


def _shuffled(accounts: list[Account], busy: int) -> list[tuple[Account, int]]:
    """The keys to revoke: those that no request uses."""
    found = [(account, place) for account in accounts for place in account.enabled() if place >= busy]
    random.Random(1).shuffle(found)
    return found


@contextmanager
def _silent_port() -> Iterator[int]:
    """A hub that accepts connections, and never answers: the kernel accepts them for a socket that listens."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        yield listener.getsockname()[1]
