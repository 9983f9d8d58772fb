"""Checker: which requests wait for lists, and when they are decided again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatekeeper import Basis, FullList, Gatekeeper, Reason, Unchanged
from gatekeeper.gate.memo import Remembered
from gatekeeper.gate.page import RequestIdentity
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


def count_decisions(gate: Gatekeeper) -> Counter[Reason]:
    """Count decisions from now on, also those that answer no request."""
    decided, decide = Counter[Reason](), gate._deciding.requests.decide

    def counted(identity: RequestIdentity) -> Remembered:
        remembered = decide(identity)
        decided[remembered.decision.reason] += 1
        return remembered

    gate._deciding.requests.decide = counted  # type: ignore[method-assign]
    return decided


async def test_a_request_that_no_wait_helps_is_decided_once(hub: FakeHub) -> None:
    async with guarded(hub, start_timeout=0.0, unknown_key_wait=0.0) as it:
        decided = count_decisions(it.gate)
        for key, reason in ((None, "key_missing"), ("nonsense", "key_malformed"), (client_key(9), "key_unknown")):
            assert (await it.gate.check(key, ORIGIN)).reason == reason
        assert decided == {Reason.KEY_MISSING: 1, Reason.KEY_MALFORMED: 1, Reason.KEY_UNKNOWN: 1}


async def test_without_time_left_a_gate_without_a_list_decides_once() -> None:
    source = MemorySource()
    source.broken = OSError("unreachable")
    async with Gatekeeper(source, start_timeout=0.0) as gate:
        decided = count_decisions(gate)
        assert (await gate.check(client_key(1), ORIGIN)).reason is Reason.NOT_READY
        assert decided == {Reason.NOT_READY: 1}


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
