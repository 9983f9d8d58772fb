"""A gate whose hub has a name, with a resolver of its own. Runs in namespaces of its own."""

import asyncio
import socket
import struct
import sys
import tempfile
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import anyio

from gatekeeper import Reason
from gatekeeper.testing import FakeHub
from tests.support.fault_proxy import FaultProxy
from tests.support.guarded import guarded
from tests.support.namespaces import mount, raise_loopback
from tests.support.rows import ORIGIN, client_key, row

NAME = "hub.test"
A, AAAA = 1, 28  # RFC 1035 section 3.2.2, RFC 3596 section 2.1
NXDOMAIN = 3  # RFC 1035 section 4.1.1


class Resolver:
    """A name server on port 53 that knows one name.

    Attributes:
        addresses: of that name; none if there is no such name.
        is_silent: whether it does not answer.
        asked: number of queries.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.is_silent = False
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, name="resolver", daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            self.asked += 1
            if not self.is_silent:
                self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", query[end - 4 : end - 2])
        wanted = {A: 4, AAAA: 6}.get(kind)
        packed = [ip_address(text).packed for text in self.addresses if ip_address(text).version == wanted]
        code = 0 if self.addresses else NXDOMAIN
        head = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(packed), 0, 0)
        # Each record points to the name in the question (RFC 1035 section 4.1.4), with a time to live of 0.
        records = [struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(data)) + data for data in packed]
        return head + query[12:end] + b"".join(records)


async def unknown() -> None:
    """The name no longer exists."""
    resolver = Resolver("127.0.0.1")
    with FakeHub() as hub, FaultProxy(hub.url) as proxy:
        hub.lists(row(1))
        async with guarded(proxy.url.replace("127.0.0.1", NAME)) as it:
            assert it.allows(1)
            resolver.addresses = ()
            proxy.hang_up()
            error = await it.fail()
            assert NAME in error, error
            assert it.allows(1)
            resolver.addresses = ("127.0.0.1",)
            await it.refresh()
            assert it.status.last_error is None


async def silent() -> None:
    """The resolver does not answer, and the event loop is not blocked."""
    resolver = Resolver("127.0.0.1")
    with FakeHub() as hub, FaultProxy(hub.url) as proxy:
        hub.lists(row(1))
        async with guarded(proxy.url.replace("127.0.0.1", NAME), source={"timeout": 1.0}) as it:
            resolver.is_silent = True
            proxy.hang_up()
            lags: list[float] = []

            async def tick() -> None:
                while True:
                    began = time.monotonic()
                    await anyio.sleep(0.01)
                    lags.append(time.monotonic() - began)
                    assert (await it.gate.check(client_key(1), ORIGIN)).allowed

            async with anyio.create_task_group() as group:
                group.start_soon(tick)
                began = time.monotonic()
                assert await it.fail()
                took = time.monotonic() - began
                group.cancel_scope.cancel()
            assert took < 10, took
            assert max(lags) < 2.5, max(lags)  # a resolver that blocks the event loop blocks it for 5 s
            assert len(lags) > 20
            resolver.is_silent = False
            await it.refresh()
            assert it.allows(1)


async def moved() -> None:
    """The name has a new address, and nothing answers at the old one."""
    resolver = Resolver("127.0.0.1")
    with FakeHub() as old, FaultProxy(old.url) as proxy:
        old.lists(row(1))
        port = int(proxy.url.rpartition(":")[2])
        with FakeHub(address=("127.0.0.2", port)) as new:
            new.lists(row(1), row(2))
            async with guarded(f"http://{NAME}:{port}", source={"timeout": 1.0}) as it:
                resolver.addresses = ("127.0.0.2",)
                proxy.be_silent()
                await it.refresh()
                await it.refresh()
                assert it.allows(1, 2)
                assert it.status.state == "fresh"


async def ipv6_only() -> None:
    """The name has an IPv6 address only."""
    Resolver("::1")
    with FakeHub(address=("::1", 8080)) as hub:
        assert hub.url == "http://[::1]:8080"
        hub.lists(row(1))
        async with guarded(f"http://{NAME}:8080") as it:
            assert it.allows(1)


async def never_there() -> None:
    """The name has never existed."""
    Resolver()
    async with guarded(f"http://{NAME}") as it:
        assert it.reason(1) is Reason.NOT_READY
        assert NAME in it.last_error


if __name__ == "__main__":
    raise_loopback()
    with tempfile.TemporaryDirectory() as directory:
        configuration = Path(directory) / "resolv.conf"
        configuration.write_text("nameserver 127.0.0.1\noptions timeout:2 attempts:2\n", encoding="ascii")
        mount("--bind", configuration, "/etc/resolv.conf")
        asyncio.run({f.__name__: f for f in (unknown, silent, moved, ipv6_only, never_there)}[sys.argv[1]]())
    print("well")  # noqa: T201 - the test reads it
