"""Files that only their owner can read, and that appear once they are complete."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gatekeeper.hub.files import whole_file


def refusing(number: int) -> Callable[[Path, Path], None]:
    """A link that fails, as on a file system without hard links."""

    def link(_existing: Path, _new: Path) -> None:
        raise OSError(number, os.strerror(number), "/a/directory/that/is/gone")

    return link


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_is_renamed_where_there_are_no_hard_links(tmp_path: Path, number: int) -> None:
    """FAT and some network shares have none."""
    path = tmp_path / "file"
    with whole_file(path, link=refusing(number)) as unfinished:
        unfinished.write_text("whole")
    assert path.read_text() == "whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("link", [os.link, refusing(errno.EPERM)])
def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileExistsError), whole_file(path, link=link):
        path.write_text("another")
    assert path.read_text() == "another"


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match="Input/output error") as caught, whole_file(path, link=refusing(errno.EIO)):
        pass
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
