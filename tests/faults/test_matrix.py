"""Tests name every fault and every promise in gatekeeper/sync/README.md, and no others."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
README = TESTS.parent / "gatekeeper" / "sync" / "README.md"


def names_in_table(heading: str) -> list[str]:
    """The first column of the table below a heading."""
    section = re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading + "\n")]
    return re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE)[1:]


def names_in_tests(mark: str) -> set[str]:
    """The names in marks such as `pytest.mark.fault("gzip bomb")`."""
    texts = (path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    return {
        ast.literal_eval(node.args[0])
        for text in texts
        if f"pytest.mark.{mark}" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{mark}"
    }


@pytest.mark.parametrize(("heading", "mark"), [("Faults", "fault"), ("Promises", "promise")])
def test_every_name_in_the_table_has_a_test(heading: str, mark: str) -> None:
    names = names_in_table(heading)
    assert len(set(names)) == len(names)
    assert names_in_tests(mark) == set(names)
