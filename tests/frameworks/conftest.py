"""Every app under one server after the other."""

from collections.abc import Iterator

import pytest

from tests.frameworks.matrix import APPS, SERVERS
from tests.frameworks.running import Served, serving
from tests.needs import frameworks


@pytest.fixture(scope="module", params=SERVERS)
def apps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """Serve every app with one server."""
    frameworks()
    with serving(request.param, APPS, tmp_path_factory.mktemp(request.param)) as apps:
        yield apps
