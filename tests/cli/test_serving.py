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
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.mark.usefixtures("restored")
def test_old_garbage_is_collected_seldom_and_without_the_imports() -> None:
    gc.set_threshold(700, 10)
    collect_garbage_seldom()
    new_objects, collections, _ = gc.get_threshold()
    assert new_objects <= 10_000
    assert new_objects * collections >= 500_000
    assert gc.isenabled()
    assert len(gc.get_objects()) < gc.get_freeze_count()


@pytest.mark.usefixtures("restored")
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    assert raise_file_limit() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
