"""A hub with one key, and the proxy before it, for every test of a fault."""

from collections.abc import Iterator

import pytest

from tests.support.fake_hub import FakeHub
from tests.support.fault_proxy import FaultProxy
from tests.support.rows import row


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as servers do; trio has a test of its own."""
    return "asyncio"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """Run a hub with one key."""
    with FakeHub() as hub:
        hub.lists(row(1))
        yield hub


@pytest.fixture
def proxy(hub: FakeHub) -> Iterator[FaultProxy]:
    """Run a proxy before the hub."""
    with FaultProxy(hub.url) as proxy:
        yield proxy
