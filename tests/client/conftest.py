"""Both clients, and a hub that misbehaves on demand."""

from collections.abc import Iterator
from typing import Any

import pytest

from gatekeeper.testing import FakeHub
from tests.client.support import Connect
from tests.support.callers import AsyncCaller, Caller, SyncCaller


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture(params=[SyncCaller, AsyncCaller], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    callers: list[Caller] = []

    def make(*args: Any, **options: Any) -> Caller:
        callers.append(request.param(*args, **options))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()


@pytest.fixture
def call(connect: Connect, hub: FakeHub) -> Caller:
    return connect(hub.url)
