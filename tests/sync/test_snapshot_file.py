"""snapshot_file: a file for the snapshot of each account."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.sync.snapshot_file import snapshot_file

MAX_FILE_NAME = 255  # bytes, on Linux, macOS and Windows
TEMPORARY = ".4194304.01234567.new"  # is appended while the file is written


@pytest.mark.parametrize(
    ("account", "name"),
    [
        ("acme", "keys.acme.snapshot"),
        ("acme_shop-2", "keys.acme_shop-2.snapshot"),
        ("ACME", "keys.%41%43%4d%45.snapshot"),
        ("a/b", "keys.a%2fb.snapshot"),
        ("a%2fb", "keys.a%252fb.snapshot"),
        ("..", "keys.%2e%2e.snapshot"),
        ("con", "keys.con.snapshot"),
        ("bücher", "keys.b%c3%bccher.snapshot"),
        ("", "keys..snapshot"),
    ],
)
def test_the_name_of_an_accounts_file(account: str, name: str) -> None:
    assert snapshot_file("folder", account) == Path("folder") / name


def test_a_long_account_is_cut_and_told_apart_by_a_digest() -> None:
    names = [snapshot_file("folder", "a" * length).name for length in (150, 151, 152)]
    assert names[0] == f"keys.{'a' * 150}.snapshot"
    assert all(name.startswith(f"keys.{'a' * 150}%-") for name in names[1:])
    assert len(set(names)) == len(names)


@given(st.lists(st.text(max_size=4) | st.text(min_size=148, max_size=152), unique=True))
def test_each_account_has_a_file_of_its_own(accounts: list[str]) -> None:
    names = [snapshot_file("folder", account).name for account in accounts]
    assert len({name.lower() for name in names}) == len(accounts)


@given(st.text(st.characters(), max_size=300))
def test_a_file_is_right_in_the_directory_under_a_short_name(account: str) -> None:
    path = snapshot_file("folder", account)
    assert path.parent == Path("folder")
    assert path.name.isascii()
    assert len(f".{path.name}{TEMPORARY}") <= MAX_FILE_NAME
