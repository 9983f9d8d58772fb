"""Faults of a live list between real gates and the reference hub: killed workers, and notifications that get lost."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
import psycopg
import pytest

from gatekeeper import AsyncHubClient, Gatekeeper, HubSource
from gatekeeper.client import CreatedWidgetKey
from tests import needs
from tests.hub.support import PATH, hub_process, listen, running_hub
from tests.support.pgbouncer import pooled
from tests.support.postgres import PostgresCluster
from tests.support.real_hub import served_hub
from tests.support.starting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.process, pytest.mark.slow]

ORIGIN = "https://acme.com"
WAITERS = 1000
INTERVAL = 2.0  # seconds
LISTENERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'"


class Guarded(NamedTuple):
    """A gate that waits for changes, and a client of its hub."""

    gate: Gatekeeper
    client: AsyncHubClient

    async def new_key(self) -> CreatedWidgetKey:
        """Create a key, and wait until the gate knows it."""
        key = await self.client.widget_keys.create("shop", domain_allowlist=["acme.com"])
        await self.sees(key, allowed=True)
        return key

    async def revoke(self, key: CreatedWidgetKey) -> float:
        """Disable a key, and give the seconds until the gate refuses it."""
        began = time.monotonic()
        await self.client.widget_keys.update(key.id, disabled=True)
        await self.sees(key, allowed=False)
        return time.monotonic() - began

    async def sees(self, key: CreatedWidgetKey, *, allowed: bool) -> None:
        await anyio.to_thread.run_sync(wait_until, lambda: self.gate.decide(key.public_key, ORIGIN).allowed is allowed)


@asynccontextmanager
async def guarding(url: str, token: str, *, interval: float) -> AsyncIterator[Guarded]:
    """Run a gate until the end of the block, which begins once its list is live."""
    async with (
        AsyncHubClient(url, token) as client,
        Gatekeeper(HubSource(url, token), refresh_interval=interval, unknown_key_wait=0) as gate,
    ):
        guarded = Guarded(gate, client)
        await guarded.new_key()
        await anyio.to_thread.run_sync(wait_until, lambda: gate.status.is_live)
        yield guarded


# A killed worker


def waiter(address: tuple[str, int], request: bytes) -> socket.socket:
    """Ask for a change over a connection of its own."""
    connection = socket.create_connection(address, timeout=60)
    connection.sendall(request)
    return connection


@pytest.mark.fault("hub killed during waits")
async def test_a_killed_worker_lets_all_that_wait_know_and_loses_no_revocation(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    async with running_hub(database) as running:
        token = await running.hub.tokens.mint("acme", name="tests")
    with listen() as listener, ExitStack() as waiting:
        address = listener.getsockname()
        async with hub_process(database, listener) as (url, process), guarding(url, token, interval=INTERVAL) as guarded:
            key, late = await guarded.new_key(), await guarded.new_key()
            tag = guarded.gate.status.etag
            request = (
                f"GET {PATH} HTTP/1.1\r\nHost: hub.test\r\nAuthorization: Bearer {token}\r\nIf-None-Match: {tag}\r\n"
                "A-IM: rows\r\nPrefer: wait=60\r\n\r\n"
            ).encode()

            def open_files() -> int:
                return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))

            others = open_files()
            waiters = [waiting.enter_context(waiter(address, request)) for _ in range(WAITERS)]
            await anyio.to_thread.run_sync(wait_until, lambda: open_files() >= others + WAITERS)
            process.kill()
            await process.wait()
            assert await anyio.to_thread.run_sync(all_have_ended, waiters)
            assert guarded.gate.decide(key.public_key, ORIGIN).allowed
            async with hub_process(database, listener):
                began = time.monotonic()
                await guarded.revoke(key)
                assert time.monotonic() - began < INTERVAL + 15
                await anyio.to_thread.run_sync(wait_until, lambda: guarded.gate.status.is_live)
                await guarded.revoke(late)


def all_have_ended(waiters: list[socket.socket]) -> bool:
    """Whether each connection ends without an answer."""
    for connection in waiters:
        try:
            if connection.recv(1):
                return False
        except ConnectionError:
            continue
    return True


# Notifications that get lost


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """Make a server that only this module stops and starts."""
    with PostgresCluster(needs.postgres()) as cluster:
        cluster.start()
        yield cluster


async def lose_listeners(url: str) -> None:
    """End each connection that listens, as a failover or a reset does."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(LISTENERS)


@pytest.mark.fault("lost notifications")
async def test_a_change_at_the_loss_of_the_listening_connection_is_told(cluster: PostgresCluster, tmp_path: Path) -> None:
    url = cluster.create_database()
    with served_hub(tmp_path, url) as served:
        async with guarding(served.url, served.token, interval=10) as guarded:
            for pause in (0.0, 0.0, 0.01, 0.05, 0.2):
                key = await guarded.new_key()
                await lose_listeners(url)
                await asyncio.sleep(pause)
                assert await guarded.revoke(key) < 10
            await anyio.to_thread.run_sync(wait_until, lambda: guarded.gate.status.is_live)  # noted just after the change


@pytest.mark.fault("lost notifications")
async def test_a_restarted_database_loses_no_change(cluster: PostgresCluster, tmp_path: Path) -> None:
    url = cluster.create_database()
    with served_hub(tmp_path, url) as served:
        async with guarding(served.url, served.token, interval=10) as guarded:
            key = await guarded.new_key()
            cluster.stop()
            assert guarded.gate.decide(key.public_key, ORIGIN).allowed
            cluster.start()
            assert await guarded.revoke(key) < 15


@pytest.mark.fault("lost notifications")
async def test_behind_a_pooler_that_passes_no_notification_changes_are_told(
    cluster: PostgresCluster, tmp_path: Path
) -> None:
    url = cluster.create_database()
    with pooled(needs.pgbouncer(), cluster) as pooler, served_hub(tmp_path, f"{pooler}/{url.rpartition('/')[2]}") as served:
        async with guarding(served.url, served.token, interval=10) as guarded:
            for _ in range(3):
                assert await guarded.revoke(await guarded.new_key()) < 10
