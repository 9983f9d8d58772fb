"""The table `Who lets what in` is printed by its script, and gatekeeper allows exactly what it should."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("asgi_cors", reason="asgi-cors is not installed: pip install -e '.[bench]'")
pytest.importorskip("corsheaders", reason="django-cors-headers is not installed: pip install -e '.[bench]'")
pytest.importorskip("flask_cors", reason="flask-cors is not installed: pip install -e '.[bench]'")

from benchmarks import peers

README = (Path(__file__).parent.parent / "gatekeeper/matching/README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Who lets what in\n")[2].partition("\n## ")[0].strip()


def test_the_section_is_what_the_script_prints() -> None:
    named = {name: re.findall(rf"{name} ([0-9.]+[0-9])", SECTION) for name in peers.PEERS}
    assert all(len(versions) == 1 for versions in named.values()), named
    installed = {name: [version(package)] for name, package in peers.PEERS.items()}
    if named != installed:
        pytest.skip(f"the table was made with {named}, and there are {installed}")
    printed: list[str] = []
    peers.main(printed.append)
    assert "\n".join(printed) == SECTION


@pytest.mark.parametrize("row", peers.ROWS, ids=lambda row: f"{row.entry} {row.origin}")
def test_the_gate_lets_in_what_should_be_and_nothing_else(row: peers.Row) -> None:
    assert peers.gatekeeper(row).startswith("in") == row.due


def test_the_table_has_both_origins_that_should_be_let_in_and_hostile_ones() -> None:
    assert {row.due for row in peers.ROWS} == {True, False}


def test_the_peers_say_in_out_or_that_they_have_no_such_form() -> None:
    said = {name: {peers.answers(row)[name].rstrip("³⁴") for row in peers.ROWS} for name in peers.ASKED}
    assert said["gatekeeper"] == {"in", "out"}
    assert all({"in", "out"} <= answers <= {"in", "out", "-"} for answers in said.values())
