"""Fixtures of the tests of faults."""

from collections.abc import Iterator

import pytest

from gatekeeper.testing import FakeHub
from tests.support.fault_proxy import FaultProxy


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as servers do; trio has its own test."""
    return "asyncio"


@pytest.fixture
def proxy(hub: FakeHub) -> Iterator[FaultProxy]:
    """Run a proxy in front of the hub."""
    with FaultProxy(hub.url) as proxy:
        yield proxy
