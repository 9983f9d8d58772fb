"""The servers, started once for all tests of this package."""

from collections.abc import Iterator

import pytest

from tests.wire.servers import running


@pytest.fixture(scope="session")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Run every server, and return their ports."""
    with running(tmp_path_factory.mktemp("wire")) as ports:
        yield ports
