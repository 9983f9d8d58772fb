"""What a process does before it serves a hub."""

import gc
from collections.abc import Iterator

import pytest

from gatekeeper.cli.serving import collect_garbage_seldom, raise_file_limit

resource = pytest.importorskip("resource")


@pytest.fixture
def restored() -> Iterator[None]:
    """Leave the settings of this process as they were."""
    thresholds, files = gc.get_threshold(), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    gc.set_threshold(*thresholds)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.mark.usefixtures("restored")
def test_garbage_is_collected_seldom() -> None:
    gc.set_threshold(700)
    collect_garbage_seldom()
    assert gc.get_threshold()[0] > 10_000
    assert gc.isenabled()


@pytest.mark.usefixtures("restored")
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    assert raise_file_limit() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
