"""Random changes of an account's keys, and whether gates decide by all of them at the end."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from benchmarks import keys
from benchmarks.live.database import Account
from benchmarks.live.gates import Gates, request_with
from benchmarks.live.hubs import Owner
from benchmarks.script import Figures

__all__ = ("change_at_random",)

PAGE = "https://last.example.net"
OWNERS = 4  # connections that change keys
SHOWN = 5  # wrong decisions that are named
CALM = (1.0, 4.0)  # seconds between two outages

Outage = Callable[[], Awaitable[object]]


async def change_at_random(count: int, port: int, account: Account, gates: Gates, outages: Sequence[Outage]) -> Figures:
    """Change keys while outages happen, and compare what gates decide with a whole list.

    Args:
        count: the number of changes.
        port: the port of the hub.
        account: the account.
        gates: the gates.
        outages: functions that cause one, in turn.

    Returns:
        The number of wrong decisions of all gates once they know of the last change, and the time until then.
    """
    known = _KnownKeys(account)
    async with Owner(port, account) as owner:
        last = (await owner.insist("POST", "", {"name": "last", "domain_allowlist": []})).body
    changing = asyncio.gather(*(_change(known, port, account, count // OWNERS, seed) for seed in range(OWNERS)))
    happened = await _fail_until(changing, outages)
    await changing
    async with Owner(port, account) as owner:
        # A gate that knows of the last change has been told of all others.
        said = await owner.insist("PATCH", f"/{last['id']}", {"domain_allowlist": [PAGE]})
        late = max(await gates.until(request_with(last["public_key"], PAGE), HTTPStatus.OK)) - said.at
        listed = (await owner.insist("GET", "")).body
    decisions = known.decisions(listed)
    wrong = await _wrong(decisions, gates)
    for key, page in wrong[:SHOWN]:
        print(f"a gate decides wrongly on …{key[-8:]} and {page}, expected {decisions[key, page]}", file=sys.stderr)
    return {
        "random changes": count // OWNERS * OWNERS,
        "outages meanwhile": happened,
        "keys at the end": len(listed),
        "decisions compared": len(decisions) * gates.count,
        "wrong decisions at the end": len(wrong),
        "last change known after (s)": late,
    }


class _KnownKeys:
    """The plaintexts of an account's keys, and the pages that they have ever allowed."""

    def __init__(self, account: Account) -> None:
        numbers = range(account.first, account.first + account.size)
        self.ids = [account.row(place)["id"] for place in range(account.size)]
        self._plaintexts = {keys.last8(number): keys.client_key(number) for number in numbers}
        self._pages: dict[str, set[str]] = {keys.last8(number): {keys.origin(number)} for number in numbers}

    def add(self, created: dict[str, Any]) -> None:
        """Note a new key."""
        self.ids.append(created["id"])
        self._plaintexts[created["last8"]] = created["public_key"]
        self.note(created)

    def note(self, row: dict[str, Any]) -> None:
        """Note the pages of a changed key."""
        self._pages.setdefault(row["last8"], set()).update(entry for entry in row["domain_allowlist"] if "://" in entry)

    def decisions(self, listed: list[dict[str, Any]]) -> dict[tuple[str, str], HTTPStatus]:
        """What each key and page are answered by a whole list, the keys that are not in it last."""
        rows = {row["last8"]: row for row in listed}
        due = {}
        for last8 in sorted(self._plaintexts, key=lambda each: each not in rows):
            row = rows.get(last8)
            entries = () if row is None or row["disabled_at"] else row["domain_allowlist"]
            for page in self._pages[last8]:
                is_allowed = page in entries or page.removeprefix("https://") in entries
                due[self._plaintexts[last8], page] = HTTPStatus.OK if is_allowed else HTTPStatus.FORBIDDEN
        return due


async def _change(known: _KnownKeys, port: int, account: Account, count: int, seed: int) -> None:
    dice = random.Random(seed)
    async with Owner(port, account) as owner:
        for number in range(count):
            page = f"https://v{seed}-{number}.example.net"
            kind = dice.choices(("page", "disable", "enable", "create", "delete"), (40, 25, 20, 10, 5))[0]
            path = f"/{dice.choice(known.ids)}"
            if kind == "create":
                said = await owner.insist("POST", "", {"name": page, "domain_allowlist": [page]})
                known.add(said.body)
            elif kind == "delete":
                await owner.insist("DELETE", path)
            else:
                change = {"domain_allowlist": [page]} if kind == "page" else {"disabled": kind == "disable"}
                said = await owner.insist("PATCH", path, change)
                if said.status == HTTPStatus.OK:
                    known.note(said.body)


async def _fail_until(changing: "asyncio.Future[Any]", outages: Sequence[Outage]) -> int:
    dice = random.Random(1)
    happened = 0
    while not changing.done():
        await outages[happened % len(outages)]()
        happened += 1
        await asyncio.wait([changing], timeout=dice.uniform(*CALM))
    return happened


async def _wrong(decisions: dict[tuple[str, str], HTTPStatus], gates: Gates) -> list[tuple[str, str]]:
    """The keys and pages that a gate decides otherwise than due."""
    return [asked for asked, due in decisions.items() if set(await gates.ask(request_with(*asked))) != {due}]
