"""Gates in a process of their own, which tell what they cost. It imports little besides gatekeeper.

`python -m benchmarks.gates` obeys one command a line, `{"start": {"sources": […], …}}` for example: see `_Gates`.
"""

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.asgi import BATCH, answer, get, mere_app, receive, send
from benchmarks.obeying import obey
from gatekeeper import Allowlist, Gatekeeper, GatekeeperMiddleware, HubSource, Status

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = 0.05  # seconds between two looks at all lists
PAUSE = 0.001  # seconds between two requests with a key that is watched
OVERDUE = 90.0  # seconds after which what is awaited counts as missed

Said = dict[str, Any]
Pair = tuple[str, str]  # a client key and the page that it allows


class _Gates:
    """Gates of one process. Each command is a method, and its fields are the arguments."""

    def __init__(self) -> None:
        self._gates: list[Gatekeeper] = []
        self._sending: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[float] | None = None
        self._waits: dict[str, list[float]] = {}
        self._answers: Counter[str] = Counter()
        self._imported = _memory()

    async def obey(self, command: Said) -> Said:
        """Run a command."""
        commands: dict[str, Callable[..., Awaitable[Said]]] = {
            "start": self.start,
            "idle": self.idle,
            "send": self.send,
            "sent": self.sent,
            "watch": self.watch,
            "refused": self.refused,
            "sights": self.sights,
            "requests": self.requests,
        }
        ((name, fields),) = command.items()
        return await commands[name](**fields)

    async def start(
        self,
        sources: list[Said],
        *,
        together: bool,
        interval: float,
        patience: float = OVERDUE,
        dead: int = 0,
        warm: bool = False,
    ) -> Said:
        """Start one gate for all sources together, or a gate for each, and wait for the lists.

        Args:
            sources: the arguments of each HubSource.
            together: whether they are the accounts of one gate.
            interval: seconds between two fetches of a list that is polled.
            patience: seconds that the start waits for lists.
            dead: the number of accounts whose hub does not answer.
            warm: whether to load OpenSSL and the list of public suffixes before measuring.
        """
        if warm:
            Allowlist.parse(("*.example.com",))
            await httpx.AsyncClient().aclose()
        gc.collect()
        before, begun = _memory(), time.monotonic()
        made = [HubSource(**each) for each in sources]
        new = partial(Gatekeeper, refresh_interval=interval, start_timeout=patience)
        self._gates = [new(made)] if together else [new(each) for each in made]
        starting = asyncio.gather(*(gate.start() for gate in self._gates))
        if not dead:
            await starting  # looking at all lists meanwhile would take memory
        await self._until(lambda status: status.state == "fresh", len(made) - dead)
        seconds = time.monotonic() - begun
        await starting
        await self._until(lambda status: status.is_live, len(made) - dead)
        gc.collect()
        return {
            "seconds": seconds,
            "keys": sum(status.keys for status in self._statuses()),
            "imported": self._imported,
            "grown": _memory() - before,
            "memory": _memory(),
        }

    async def idle(self, seconds: float) -> Said:
        """Wait, and tell the processor seconds and the fetches of each list meanwhile."""
        used, before = time.process_time(), self._fetches()
        await asyncio.sleep(seconds)
        used, after = time.process_time() - used, self._fetches()
        fetches = [later - earlier for earlier, later in zip(before, after, strict=True)]
        return {"used": used, "fetches": fetches, "memory": _memory()}

    async def send(self, pairs: dict[str, list[Pair]], rate: float, senders: int) -> Said:
        """Send allowed requests at a steady rate, until `sent`.

        Args:
            pairs: keys and pages, by a name for what they have in common.
            rate: requests a second with the pairs of each name.
            senders: how many send the requests of a name at once.
        """
        for name, each in pairs.items():
            self._waits[name] = []
            self._sending += [
                asyncio.create_task(self._send(name, each[place::senders], senders / rate, place / rate))
                for place in range(min(senders, len(each)))
            ]
        return {}

    async def sent(self) -> Said:
        """End the sending, and tell the milliseconds that the requests took."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        return {"waits": self._waits, "answers": self._answers}

    async def watch(self, pair: Pair) -> Said:
        """Begin to ask with a key, again and again, until it is refused."""
        self._watching = asyncio.create_task(self._refused(*pair))
        return {}

    async def refused(self) -> Said:
        """Tell the monotonic time of the refusal."""
        assert self._watching is not None
        async with asyncio.timeout(OVERDUE):
            return {"at": await self._watching}

    async def sights(self, pairs: list[Pair]) -> Said:
        """Decide on pages that the gate has never seen, and tell the microseconds of each."""
        taken = []
        for client_key, page in pairs:
            begun = time.perf_counter_ns()
            decision = self._gates[0].decide(client_key, page)
            taken.append((time.perf_counter_ns() - begun) / 1000)
            if not decision.allowed:
                raise SystemExit(f"a key is refused on its page: {decision.reason}")
        return {"taken": taken}

    async def requests(self, pairs: list[Pair], count: int) -> Said:
        """Make requests that the gate remembers, and tell the microseconds of one."""
        app = GatekeeperMiddleware(mere_app, self._gates[0])
        encoded = [(client_key.encode(), page.encode()) for client_key, page in pairs]
        taken = []
        for first in range(0, count, BATCH):
            chosen = [encoded[place % len(encoded)] for place in range(first, first + BATCH)]
            scopes = [get(key=client_key, origin=page) for client_key, page in chosen]
            begun = time.perf_counter_ns()
            for scope in scopes:
                await app(scope, receive, send)
            taken.append((time.perf_counter_ns() - begun) / 1000 / BATCH)
        return {"taken": taken}

    def _statuses(self) -> list[Status]:
        return [status for gate in self._gates for status in (gate.statuses.values() if gate.accounts else [gate.status])]

    def _fetches(self) -> list[int]:
        names = ("refresh_changed", "refresh_unchanged", "refresh_failed")
        return [sum(status.counters.get(name, 0) for name in names) for status in self._statuses()]

    async def _until(self, holds: Callable[[Status], bool], count: int) -> None:
        deadline = time.monotonic() + OVERDUE
        while (seen := sum(map(holds, self._statuses()))) < count:
            if time.monotonic() > deadline:
                errors = {status.last_error for status in self._statuses()}
                raise SystemExit(f"{seen} of {count} lists are there, or live, after {OVERDUE:g} s: {errors}")
            await asyncio.sleep(TICK)

    async def _send(self, name: str, pairs: list[Pair], pause: float, delay: float) -> None:
        app = GatekeeperMiddleware(mere_app, self._gates[0])
        due, place = time.monotonic() + delay, 0
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            client_key, page = pairs[place % len(pairs)]
            status, _ = await answer(app, get(key=client_key.encode(), origin=page.encode()))
            self._waits[name].append((time.monotonic() - due) * 1000)
            self._answers[f"{name}: {status}"] += 1
            due, place = due + pause, place + 1

    async def _refused(self, client_key: str, page: str) -> float:
        gate = self._gates[0]
        while gate.decide(client_key, page).allowed:  # noqa: ASYNC110 - as requests come
            await asyncio.sleep(PAUSE)
        return time.monotonic()


def _memory() -> int:
    """The resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


if __name__ == "__main__":
    asyncio.run(obey(_Gates().obey))
