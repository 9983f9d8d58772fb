"""Rules for all files: what a package may import, the prose, names of tests, sizes of modules and classes."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gatekeeper"

# Packages, and modules beside them, from top to bottom. Each imports only from the layers above its own.
LAYERS = (
    ("quoting", "version"),
    ("errors",),
    ("matching",),
    ("keys",),
    ("index",),
    ("client",),
    ("sync",),
    ("gate",),
    ("web",),
    ("fastapi", "health", "metrics"),
    ("testing",),
    ("hub",),
    ("demo",),
    ("cli",),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
# Packages that import less than all that stands above them.
ONLY_FROM: dict[str, set[str]] = {
    "matching": {"errors"},
    "errors": {"quoting"},
    "keys": {"errors", "matching", "quoting"},
    "index": {"errors", "matching", "keys"},
    "client": {"errors", "matching", "keys", "quoting"},
    "sync": {"errors", "matching", "keys", "index", "client", "quoting", "version"},
    "gate": {"errors", "matching", "keys", "index", "sync"},
    "web": {"errors", "matching", "keys", "gate"},
    "testing": {"errors", "matching", "keys", "gate"},
    "hub": {"errors", "matching", "keys", "quoting"},
}
PURE = ("matching", "keys", "index")  # no IO, no clock, nothing asynchronous
OPTIONAL = ("fastapi", "metrics", "testing", "hub", "demo", "cli")
OUTSIDE = ("__init__.py", "__main__.py")  # may import from anywhere, and nothing imports them

# Libraries that only some packages may import.
ONLY = {
    "tldextract": ("matching",),
    "idna": ("matching",),
    "httpx": ("cli", "client", "demo"),
    "tenacity": ("client", "hub"),
    "sqlalchemy": ("hub",),
    "alembic": ("hub",),
    "uvicorn": ("cli", "demo"),
    "typer": ("cli",),
    "prometheus_client": ("metrics",),
}


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in OUTSIDE]


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module or ""


def test_every_file_is_in_a_layer() -> None:
    assert {package_of(path) for path in files()} == set(LEVELS)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_layers_above_its_own(path: Path) -> None:
    here = package_of(path)
    for module in imports(path):
        if module.split(".")[0] != "gatekeeper":
            continue
        assert module != "gatekeeper", f"{path} imports the package's __init__"
        there = module.split(".")[1]
        if there != here:
            assert LEVELS[there] < LEVELS[here], f"{path} imports {module}, which is in no higher layer"
            assert there in ONLY_FROM.get(here, LEVELS), f"{path} imports {module}, and its package may not"


@pytest.mark.parametrize("package", [path.parent for path in files() if path.name == "__init__.py"], ids=package_of)
def test_a_package_says_what_it_imports(package: Path) -> None:
    docstring = ast.get_docstring(parsed(package / "__init__.py")) or ""
    if package.parent == PACKAGE:
        allowed = ONLY_FROM.get(package.name, set())
        assert all(each in docstring for each in ("import", *allowed)), docstring


@pytest.mark.parametrize(("library", "packages"), ONLY.items())
def test_a_library_is_imported_only_where_it_may_be(library: str, packages: tuple[str, ...]) -> None:
    importers = {package_of(path) for path in files() if any(name.split(".")[0] == library for name in imports(path))}
    assert importers == set(packages)


def test_the_public_names_import_no_optional_package() -> None:
    named = set(imports(PACKAGE / "__init__.py"))
    assert not named & {f"gatekeeper.{name}" for name in OPTIONAL}


@pytest.mark.parametrize("path", [path for path in files() if package_of(path) in PURE], ids=lambda path: path.stem)
def test_pure_packages_do_no_io_and_read_no_clock(path: Path) -> None:
    tree = parsed(path)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith)]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input"}
    assert not set(imports(path)) & {"time", "os", "pathlib", "socket", "asyncio", "anyio", "logging"}
    read_clocks = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not read_clocks & {"now", "utcnow", "today"}


# Prose and size


ROOT = PACKAGE.parent
# Classes that may have more attributes, and why.
LARGE_CLASSES = {
    "cli.explanation.Explanation": "a report, flat for programs that read its JSON",
    "index.list_diff.ListDiff": "a builder: four counts for its caller, and what it has collected for the change set",
    "sync.status.Status": "a report, with a field for each question of an operator",
}
MAX_LINES = 400
MAX_ATTRIBUTES = 12
MAX_FIRST_SENTENCE = 12  # words
MAX_TEST_NAME = 70  # characters

PEOPLE = re.compile(r"\b(who|no|some|every|any)(ever|body)\b", re.IGNORECASE)
DOCUMENT = re.compile(r"\b[A-Z][A-Z-]+\.md\b")
SECTION = re.compile(r"\b[A-Z][A-Z-]{4,},? (section|row) \d")  # "RFC 9110 section 8" is published

Function = ast.FunctionDef | ast.AsyncFunctionDef


def texts() -> list[Path]:
    """The files of the package and the tests that people read, without this one."""
    found = [path for folder in ("gatekeeper", "tests") for path in sorted((ROOT / folder).rglob("*"))]
    return [path for path in found if path.suffix in {".py", ".md", ".html", ".js"} and path != Path(__file__)]


def lines_that_match(pattern: re.Pattern[str], path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [f"{path}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if pattern.search(line)]


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """The public module, classes and functions of a file, with their docstrings."""
    tree = parsed(path)
    yield str(path), ast.get_docstring(tree) or ""
    yield from documented_within(tree, str(path))


def documented_within(node: ast.Module | ast.ClassDef, where: str) -> Iterator[tuple[str, str]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function) and not child.name.startswith("_"):
            yield f"{where}:{child.lineno} {child.name}", ast.get_docstring(child) or ""
            if isinstance(child, ast.ClassDef):
                yield from documented_within(child, where)


def first_sentence(docstring: str) -> str:
    return re.split(r"(?<=[.!?])\s|\n\n", docstring, maxsplit=1)[0]


def attributes(node: ast.ClassDef) -> set[str]:
    """The annotated fields of a class, and what its methods assign to self."""
    fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)}
    stored = {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }
    return fields | stored


def test_no_text_has_the_words_for_people() -> None:
    assert [line for path in texts() for line in lines_that_match(PEOPLE, path)] == []


def test_texts_cite_published_documents_only() -> None:
    cited = {name for path in texts() for name in DOCUMENT.findall(path.read_text(encoding="utf-8"))}
    assert cited <= {path.name for folder in (ROOT, ROOT / ".github") for path in folder.glob("*.md")}
    assert [line for path in texts() for line in lines_that_match(SECTION, path)] == []


def test_docstrings_begin_with_a_short_sentence() -> None:
    sentences = [(where, first_sentence(text)) for path in PACKAGE.rglob("*.py") for where, text in documented(path)]
    assert [(where, text) for where, text in sentences if len(text.split()) > MAX_FIRST_SENTENCE] == []


def test_names_of_tests_are_short_and_have_no_numbers_of_a_table() -> None:
    names = [
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, Function) and node.name.startswith("test_")
    ]
    assert [name for name in names if len(name) > MAX_TEST_NAME or re.match(r"test_(row_|p\d+_)", name)] == []


def test_no_module_has_over_400_lines() -> None:
    lines = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_no_class_has_over_12_attributes_without_a_reason() -> None:
    large = {
        f"{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.{node.name}"
        for path in files()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and len(attributes(node)) > MAX_ATTRIBUTES
    }
    assert large == set(LARGE_CLASSES)
