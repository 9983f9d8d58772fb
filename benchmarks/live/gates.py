"""Real gates: the guarded app under uvicorn, in one process for each gate."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

from benchmarks import keys, servers, wire
from benchmarks.asgi import PATH
from benchmarks.live.database import Account
from benchmarks.served import DECIDES

__all__ = ("OVERDUE", "Gates", "asked_directly", "request", "request_with", "served_gates")

PAUSE = 0.001  # seconds between two requests with the same key
OVERDUE = 90.0  # seconds after which a change counts as missed


class Gates:
    """Gates, each asked over a connection of its own.

    Args:
        connections: to each of them.

    Attributes:
        connections: as given.
    """

    def __init__(self, connections: Iterable[wire.Connection]) -> None:
        self.connections = list(connections)

    def __add__(self, others: "Gates") -> "Gates":
        return Gates([*self.connections, *others.connections])

    @property
    def count(self) -> int:
        """Their number."""
        return len(self.connections)

    async def until(self, head: bytes, status: HTTPStatus) -> list[float]:
        """Ask all of them until they answer with a status; the times of those answers."""
        return await asyncio.gather(*(_until(connection, head, status) for connection in self.connections))

    async def decided(self, head: bytes, status: HTTPStatus) -> list[float]:
        """The times at which each of them begins to decide in this way on a request, which is then sent."""
        watching = head.replace(PATH.encode(), f"{DECIDES}{status.value}".encode(), 1)
        answers = await asyncio.gather(*(connection.exchange(watching) for connection in self.connections))
        if set(statuses := await self.ask(head)) != {status}:
            raise SystemExit(f"gates answer {statuses} after a change that they know: expected {status.value}")
        return [float(answer.header(b"x-decided-at")) for answer in answers]

    async def ask(self, head: bytes) -> list[int]:
        """Ask all of them once; their statuses."""
        return [answer.status for answer in await self.answers(head)]

    async def answers(self, head: bytes) -> list[wire.Answer]:
        """Ask all of them once; their answers."""
        return await asyncio.gather(*(each.ask(head) for each in self.connections))


async def _until(connection: wire.Connection, head: bytes, status: HTTPStatus) -> float:
    begun = time.monotonic()
    while (seen := (await connection.ask(head)).status) != status:
        if time.monotonic() > begun + OVERDUE:
            raise SystemExit(f"a gate still answers {seen}, expected {status}, {OVERDUE:g} s after a change")
        await asyncio.sleep(PAUSE)
    return time.monotonic()


@contextmanager
def served_gates(count: int, hub: str, account: Account, interval: float) -> Iterator[servers.Served]:
    """Serve the guarded app by a number of processes."""
    guarded = {"guard": "gatekeeper", "hub": hub, "token": account.gate, "stamped": True, "interval": interval}
    with servers.serve("uvicorn", guarded, workers=count) as served:
        yield served


@asynccontextmanager
async def asked_directly(served: servers.Served, count: int) -> AsyncIterator[Gates]:
    """Connect to each process."""
    async with wire.connected_to_workers(served.port, count, request(0)) as connections:
        yield Gates(connections.values())


def request(number: int, page: str | None = None) -> bytes:
    """The request of a key's page, by default one that is allowed."""
    return request_with(keys.client_key(number), page or keys.origin(number))


def request_with(client_key: str, page: str) -> bytes:
    """The request of a page with a key."""
    return wire.request(client_key.encode(), page.encode())
