"""Every row of the fault matrix, and every promise, has a test that bears its number."""

import ast
import re
from pathlib import Path

FAULTS = {*range(1, 42), *range(50, 61)}
PROMISES = {1, 6, *range(7, 12), *range(13, 21)}
# What belongs to open sockets and streams is tested where they are.
ROW_OF_STREAMS, PROMISE_OF_STREAMS = 55, 7


def numbers(kind: str) -> set[int]:
    """The numbers that the tests beside this one bear."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
            names += [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
            found |= {int(match[1]) for name in names if (match := re.match(rf"test_{kind}(\d+)_", name))}
    return found


def test_every_row_of_the_matrix_has_a_test() -> None:
    assert numbers("row_") | {ROW_OF_STREAMS} == FAULTS


def test_every_promise_has_a_test() -> None:
    assert numbers("p") | {PROMISE_OF_STREAMS} == PROMISES
