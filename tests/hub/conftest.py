"""A hub for each test, over a file of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from .support import RunningHub, running_hub


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio: SQLAlchemy's async core knows no other loop."""
    return "asyncio"


@pytest.fixture
async def hub(anyio_backend: str, tmp_path: Path) -> AsyncIterator[RunningHub]:  # noqa: ARG001 - makes the fixture async
    """Run a hub."""
    async with running_hub(tmp_path) as running:
        yield running


@pytest.fixture
async def acme(hub: RunningHub) -> httpx.AsyncClient:
    """Be the account acme."""
    return await hub.client("acme")


@pytest.fixture
async def globex(hub: RunningHub) -> httpx.AsyncClient:
    """Be the account globex."""
    return await hub.client("globex")
