"""The Python examples of the documents."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ("FRAMEWORKS", "example", "examples", "examples_below", "imports_frameworks")

ROOT = Path(__file__).parents[2]

# What the extra `frameworks` installs. The examples with one of these are served by tests/frameworks.
FRAMEWORKS = frozenset(
    {
        "blacksheep",
        "django",
        "falcon",
        "litestar",
        "opentelemetry",
        "quart",
        "sentry_sdk",
        "slowapi",
        "socketio",
        "sse_starlette",
        "strawberry",
    }
)


def examples(text: str) -> Iterator[tuple[str, str]]:
    """The examples of a document, each with the heading above it."""
    heading = ""
    for found in re.finditer(
        r"^#+ (?P<heading>[^\n]+)$|^```python\n(?P<code>.+?)^```", text, flags=re.MULTILINE | re.DOTALL
    ):
        if found["heading"]:
            heading = found["heading"]
        else:
            yield heading, found["code"]


def imports_frameworks(code: str) -> bool:
    """Whether an example needs the extra `frameworks`."""
    return not FRAMEWORKS.isdisjoint(_imported(code))


def example(document: str, heading: str) -> str:
    """The only example below a heading.

    Args:
        document: the path of the document.
        heading: the heading.
    """
    (code,) = examples_below(document, heading)
    return code


def examples_below(document: str, heading: str) -> list[str]:
    """The examples below a heading.

    Args:
        document: the path of the document.
        heading: the heading.
    """
    return [code for above, code in examples((ROOT / document).read_text(encoding="utf-8")) if above == heading]


def _imported(code: str) -> set[str]:
    nodes: list[Any] = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}
