"""Fixtures that many tests share."""

from collections.abc import Iterator

import pytest

from gatekeeper.testing import FakeHub
from tests.support.rows import row


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of this folder. Those of faults and promises name rows of gatekeeper/sync/README.md."""
    config.addinivalue_line("markers", "asyncio: runs on asyncio only")
    config.addinivalue_line("markers", "fault(name): a row of the table of faults")
    config.addinivalue_line("markers", "promise(name): a row of the table of promises")


@pytest.hookimpl(tryfirst=True)  # before pytest reads the marks
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with the mark `asyncio` on that event loop only."""
    if "anyio_backend" in metafunc.fixturenames and metafunc.definition.get_closest_marker("asyncio"):
        metafunc.definition.add_marker(pytest.mark.parametrize("anyio_backend", ["asyncio"]))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """Run a hub with one key, `row(1)`."""
    with FakeHub() as hub:
        hub.lists(row(1))
        yield hub
