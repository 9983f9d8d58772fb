"""Fixtures that many tests share."""

from collections.abc import Iterator

import pytest

from tests.support.fake_hub import FakeHub
from tests.support.rows import row


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks by which tests name rows of gatekeeper/sync/README.md."""
    config.addinivalue_line("markers", "fault(name): a row of the table of faults")
    config.addinivalue_line("markers", "promise(name): a row of the table of promises")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """Run a hub with one key, `row(1)`."""
    with FakeHub() as hub:
        hub.lists(row(1))
        yield hub
