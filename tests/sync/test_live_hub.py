"""A gate and the reference hub: every change reaches the gate while it waits, and none is missed."""

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from gatekeeper import AsyncHubClient, Gatekeeper, HubSource
from gatekeeper.testing import FakeClock
from tests.support.real_hub import Served, served_hub
from tests.support.refreshing import Running, until

pytestmark = [pytest.mark.anyio, pytest.mark.asyncio]

PAGE = "https://shop.test"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with served_hub(tmp_path) as served:
        yield served


async def test_changes_of_the_reference_hub_come_at_once(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """The gate would poll after an hour only."""
    caplog.set_level(logging.INFO, "gatekeeper")
    source = HubSource(served.url, served.gate_token)
    async with AsyncHubClient(served.url, served.token) as client, Gatekeeper(source, refresh_interval=3600) as gate:
        keys = client.widget_keys
        key = await keys.create("shop", domain_allowlist=["acme.com"])
        await until(lambda: gate.decide(key.public_key, "https://acme.com").allowed)
        await until(lambda: gate.status.is_live)  # noted just after the change is applied
        await keys.update(key.id, domain_allowlist=["acme.com", "shop.test"])
        await until(lambda: gate.decide(key.public_key, PAGE).allowed)
        await keys.update(key.id, disabled=True)
        await until(lambda: gate.decide(key.public_key, PAGE).reason == "key_disabled")
        await keys.update(key.id, disabled=False)
        await until(lambda: gate.decide(key.public_key, PAGE).allowed)
        await keys.delete(key.id)
        await until(lambda: not gate.decide(key.public_key, PAGE).allowed)
    assert sum("is live" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.slow
async def test_no_change_is_missed(served: Served) -> None:
    """300 random changes, of which several may come in one answer, compared with a whole list at the end."""
    chance = random.Random(7)
    it = Running(HubSource(served.url, served.gate_token), FakeClock(), {"refresh_interval": 3600})
    async with AsyncHubClient(served.url, served.token) as client, anyio.create_task_group() as group:
        keys = client.widget_keys
        ids = [(await keys.create(f"key {number}")).id for number in range(20)]
        group.start_soon(it.refresher.run)
        for number in range(300):
            row_id = chance.choice(ids)
            match chance.randrange(4):
                case 0:
                    ids.append((await keys.create(f"key {number}", domain_allowlist=["shop.test"])).id)
                case 1 if len(ids) > 5:
                    await keys.delete(row_id)
                    ids.remove(row_id)
                case 2:
                    await keys.update(row_id, disabled=chance.random() < 0.5)
                case _:
                    await keys.update(row_id, domain_allowlist=[f"shop-{number}.test"])
        listed = sorted(await keys.list(), key=lambda key: key.id)
        await until(lambda: sorted(it.index, key=lambda key: key.id) == listed)
        assert it.status.counters.get("refresh_failed", 0) == 0
        assert it.status.counters["refresh_changed"] > 50
        group.cancel_scope.cancel()
