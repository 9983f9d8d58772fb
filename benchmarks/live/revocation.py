"""From a change that the hub has acknowledged to the first decision by it, in all gates."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from benchmarks import keys
from benchmarks.live.database import Kind, database
from benchmarks.live.gates import Gates, asked_directly, request, request_with, served_gates
from benchmarks.live.hubs import Lateness, Owner, running_hub
from benchmarks.live.parameters import Parameters
from benchmarks.live.traffic import traffic
from benchmarks.script import Figures
from benchmarks.servers import Served

__all__ = ("measure",)

APART = 0.05  # seconds between two changes at most
PAGE = "https://added-{}.example.org"


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Revoke keys, create keys and add domains under traffic."""
    with database(kind) as kept:
        (account,) = kept.fill(acme=parameters.keys)
        allowed = keys.enabled(parameters.keys)
        busy, changed = allowed[: len(allowed) // 2], allowed[len(allowed) // 2 :]
        if len(changed) <= 2 * parameters.trials:
            raise SystemExit(f"{parameters.trials} trials need more than {parameters.keys} keys: expected 5 keys a trial")
        with (
            running_hub(kept) as hub,
            served_gates(parameters.gates, hub.url, account, parameters.interval) as served,
            traffic(served.port, busy, parameters.traffic) as background,
        ):
            figures = asyncio.run(_change(parameters, Owner(hub.port, account), served, changed))
    return figures | {f"traffic: {name}": value for name, value in background.items()}


async def _change(parameters: Parameters, owner: Owner, served: Served, numbers: list[int]) -> Figures:
    dice = random.Random(1)
    async with owner, asked_directly(served, parameters.gates) as gates:
        await _warm_up(owner, gates, numbers.pop())
        changes = _Changes(owner, gates)
        kinds: list[Callable[[int], Awaitable[None]]] = [changes.revoke, changes.create, changes.add_page]
        for trial in range(parameters.trials):
            for change in dice.sample(kinds, len(kinds)):
                await asyncio.sleep(dice.random() * APART)
                await change(numbers[2 * trial + (change == changes.add_page)])
    return changes.figures()


async def _warm_up(owner: Owner, gates: Gates, number: int) -> None:
    """Change a key once: the hub then has loaded the public suffixes, and the gates know that it is live."""
    entries = [*keys.row(number)["domain_allowlist"], "*.example.org"]
    for page in ("https://one.example.org", "https://two.example.org"):
        await owner.change(number, domain_allowlist=[*entries, page])
        await gates.until(request(number, page), HTTPStatus.OK)
    await owner.change(number, disabled=True)
    await gates.until(request(number), HTTPStatus.FORBIDDEN)


class _Changes:
    """Changes keys, and notes how long it takes until all gates decide by it."""

    def __init__(self, owner: Owner, gates: Gates) -> None:
        self._owner = owner
        self._gates = gates
        self._late = {change: Lateness() for change in ("revoked", "created", "page added")}
        self._accepted: list[int] = []  # by each gate at the first request with a new key

    def figures(self) -> Figures:
        """What was noted."""
        figures: Figures = {}
        for change, late in self._late.items():
            figures |= late.figures(change)
        return figures | {"created, refused at the first request (%)": 100 * (1 - sum(self._accepted) / len(self._accepted))}

    async def revoke(self, number: int) -> None:
        """Revoke a key whose page is allowed."""
        await self._expect(request(number), HTTPStatus.OK)
        decided = asyncio.create_task(self._gates.decided(request(number), HTTPStatus.FORBIDDEN))
        self._late["revoked"].note(await self._owner.change(number, disabled=True), max(await decided))

    async def create(self, number: int) -> None:
        """Create a key, and use it at once."""
        said = await self._owner.ask("POST", body={"name": f"new {number}", "domain_allowlist": ["new.example.org"]})
        sent = request_with(said.body["public_key"], "https://new.example.org")
        answers = await self._gates.answers(sent)
        self._accepted += [answer.status == HTTPStatus.OK for answer in answers]
        accepted = [answer.at for answer in answers if answer.status == HTTPStatus.OK and answer.at is not None]
        if len(accepted) < len(answers):
            accepted = await self._gates.until(sent, HTTPStatus.OK)
        self._late["created"].note(said, max(accepted))

    async def add_page(self, number: int) -> None:
        """Add a page to a key that did not allow it."""
        page = PAGE.format(number)
        await self._expect(request(number, page), HTTPStatus.FORBIDDEN)
        entries = [*keys.row(number)["domain_allowlist"], page]
        decided = asyncio.create_task(self._gates.decided(request(number, page), HTTPStatus.OK))
        self._late["page added"].note(await self._owner.change(number, domain_allowlist=entries), max(await decided))

    async def _expect(self, sent: bytes, status: HTTPStatus) -> None:
        statuses = await self._gates.ask(sent)
        if set(statuses) != {status}:
            raise SystemExit(f"gates answer {statuses} before the change: expected {status.value}")
