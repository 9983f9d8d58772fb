"""Requests that wait for a change, for tests of several kinds."""

import asyncio

import httpx

from .support import PATH, RunningHub, eventually

__all__ = ("PATIENCE", "etag_of", "looked_at", "taken_on", "wait_for_change")

PATIENCE = 20.0


async def etag_of(client: httpx.AsyncClient) -> str:
    """Read the ETag of a list."""
    answer = await client.get(PATH)
    return str(answer.headers["ETag"])


def wait_for_change(
    client: httpx.AsyncClient, etag: str | None, prefer: str = "wait=50", **headers: str
) -> asyncio.Task[httpx.Response]:
    """Ask for a list that may be waited for."""
    condition = {} if etag is None else {"If-None-Match": etag}
    sent = {**condition, "Prefer": prefer, **headers}
    return asyncio.create_task(client.get(PATH, headers=sent))


async def taken_on(hub: RunningHub, count: int) -> None:
    """Let as many requests begin to wait."""
    async with asyncio.timeout(PATIENCE):
        while len(hub.hub.waiters) < count:  # noqa: ASYNC110 - the hub does not signal it
            await asyncio.sleep(0.005)


async def looked_at(hub: RunningHub, count: int) -> None:
    """Let as many requests wait, and have the first look at each of them succeed.

    Before that, a look that fails ends the wait.
    """
    await taken_on(hub, count)
    await eventually(lambda: not any(room.new for room in hub.hub.waiters._rooms.values()))
