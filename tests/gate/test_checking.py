"""Checker: which requests wait for lists, and when they are decided again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatekeeper import Basis, FullList, Gatekeeper, Reason, Unchanged
from gatekeeper.gate.memo import Remembered
from gatekeeper.gate.page import read_page
from gatekeeper.sync.running import RunningOnAsyncio
from gatekeeper.testing import FakeHub
from tests.support.accounts import AccountSource, proven_row
from tests.support.guarded import guarded
from tests.support.loops import asyncio_only
from tests.support.memory_source import MemorySource
from tests.support.refreshing import until
from tests.support.rows import ORIGIN, client_key, row

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
SHOP = client_key(1, "acme_shop")  # the list of "acme" may have it, too


class Held(AccountSource):
    """A source that answers once it is released."""

    def __init__(self, account: str) -> None:
        super().__init__(account, proven_row(1, account))
        self.released = asyncio.Event()
        self.asked = 0

    @asynccontextmanager
    async def updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged]:
        """Give the rows once released."""
        self.asked += 1
        await self.released.wait()
        async with super().updates(basis) as update:
            yield update


async def decided(gate: Gatekeeper, key: bytes | None) -> list[Reason]:
    """Check a key, and list all decisions that are made for it."""
    page, reasons = read_page(ORIGIN.encode(), None), list[Reason]()

    def decide() -> Remembered:
        remembered = gate._deciding.decider.decide(key, page)
        reasons.append(remembered.decision.reason)
        return remembered

    await gate._checker.check_key(key, decide)
    return reasons


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.KEY_MISSING),
        (b"nonsense", Reason.KEY_MALFORMED),
        (client_key(9).encode(), Reason.KEY_UNKNOWN),
        (client_key(1).encode(), Reason.ALLOWED),
    ],
)
async def test_a_request_that_no_wait_helps_is_decided_once(hub: FakeHub, key: bytes | None, reason: Reason) -> None:
    async with guarded(hub, start_timeout=0.0, unknown_key_wait=0.0) as it:
        assert await decided(it.gate, key) == [reason]


async def test_without_time_left_a_gate_without_a_list_decides_once() -> None:
    source = MemorySource()
    source.broken = OSError("unreachable")
    async with Gatekeeper(source, start_timeout=0.0) as gate:
        assert await decided(gate, client_key(1).encode()) == [Reason.NOT_READY]


@asyncio_only
@pytest.mark.parametrize("turns", range(20))
async def test_first_lists_that_come_during_a_look_at_several_decide(turns: int) -> None:
    """Without any time to wait."""
    sources = [AccountSource("acme", row(2)), AccountSource("acme_shop", proven_row(1, "acme_shop"))]
    gate = Gatekeeper(sources, start_timeout=0.0)
    gate._lifecycle.running()
    for _ in range(turns):
        await asyncio.sleep(0)
    try:
        assert (await gate.check(SHOP, ORIGIN)).reason is gate.decide(SHOP, ORIGIN).reason
    finally:
        await gate.stop()


@asyncio_only
@pytest.mark.parametrize("turns", range(5))
async def test_a_list_that_comes_while_another_is_brought_back_decides(turns: int) -> None:
    acme, shop = Held("acme"), Held("acme_shop")
    gate = Gatekeeper([acme, shop], start_timeout=3 * PATIENCE)
    running = gate._lifecycle.running()
    assert isinstance(running, RunningOnAsyncio)
    async with asyncio.timeout(PATIENCE):
        await until(lambda: (acme.asked, shop.asked) == (1, 1))
        crashed: Any = running._running[gate._lifecycle.lists()[0]]
        crashed._task.cancel()
        await asyncio.wait([crashed._task])
        shop.released.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        assert (await gate.check(SHOP, ORIGIN)).reason is Reason.ALLOWED
    await running.stop()


@asyncio_only
@pytest.mark.parametrize("turns", range(40))
async def test_an_unknown_key_is_decided_by_the_lists_of_the_answer(turns: int) -> None:
    """Several lists may have it, and there is no time to wait for them."""
    acme, shop = AccountSource("acme"), AccountSource("acme_shop")
    async with Gatekeeper([acme, shop], unknown_key_wait=0.0) as gate:
        shop.rows = [proven_row(1, "acme_shop")]
        refreshing = asyncio.create_task(gate.refresh())
        for _ in range(turns):
            await asyncio.sleep(0)
        decision = await gate.check(SHOP, ORIGIN)
        assert decision.reason is gate.decide(SHOP, ORIGIN).reason
        await refreshing
        assert (await gate.check(SHOP, ORIGIN)).allowed
