"""Files of rows, and hubs for the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatekeeper.testing import FakeHub
from tests import needs
from tests.support.postgres import PostgresCluster
from tests.support.real_hub import Served, served_hub
from tests.support.rows import TOKEN

from .support import ROWS, Keys


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with served_hub(tmp_path) as served:
        yield served


@pytest.fixture
def keys(served: Served) -> Keys:
    return Keys({"GATEKEEPER_HUB": served.url, "GATEKEEPER_TOKEN": served.token})


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def at_fake(fake: FakeHub) -> Keys:
    return Keys({"GATEKEEPER_HUB": fake.url, "GATEKEEPER_TOKEN": TOKEN})


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    with PostgresCluster(needs.postgres()) as cluster:
        cluster.start()
        yield cluster
