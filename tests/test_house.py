"""The imports of the package hold to the drawing of the house: a room imports only from the rooms above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gatekeeper"

# The rooms from top to bottom: packages, and modules beside them. A room imports from the floors above its own.
HOUSE = (
    ("errors",),
    ("matching",),
    ("keys",),
    ("index",),
    ("client",),
    ("sync",),
    ("gate",),
    ("web",),
    ("fastapi", "health", "metrics"),
    ("hub",),
    ("demo",),
    ("cli",),
)
FLOORS = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}
# Rooms that import less than all that stands above them.
ONLY_FROM: dict[str, set[str]] = {
    "matching": {"errors"},
    "keys": {"errors", "matching"},
    "index": {"errors", "matching", "keys"},
    "client": {"errors", "matching", "keys"},
    "sync": {"errors", "keys", "index", "client"},
    "gate": {"errors", "matching", "keys", "index", "sync"},
    "web": {"errors", "matching", "keys", "gate"},
    "hub": {"errors", "matching", "keys"},
}
PURE = ("matching", "keys", "index")  # no IO, no clock, nothing asynchronous
OPTIONAL = ("fastapi", "metrics", "hub", "demo", "cli")
OUTSIDE = ("__init__.py", "__main__.py")  # they import from anywhere, and nothing imports them

# What only one room may import.
ONLY = {
    "tldextract": ("matching",),
    "idna": ("matching",),
    "httpx": ("client", "demo"),
    "tenacity": ("client",),
    "sqlalchemy": ("hub",),
    "alembic": ("hub",),
    "uvicorn": ("cli", "demo"),
    "typer": ("cli",),
    "prometheus_client": ("metrics",),
}


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in OUTSIDE]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module or ""


def test_every_file_has_its_place_in_the_drawing() -> None:
    assert {room(path) for path in files()} == set(FLOORS)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_rooms_above_its_own(path: Path) -> None:
    here = room(path)
    for module in imports(path):
        if module.split(".")[0] != "gatekeeper":
            continue
        assert module != "gatekeeper", f"{path} imports the package's __init__"
        there = module.split(".")[1]
        if there != here:
            assert FLOORS[there] < FLOORS[here], f"{path} imports {module}, which stands no higher"
            assert there in ONLY_FROM.get(here, FLOORS), f"{path} imports {module}, and its room may not"


@pytest.mark.parametrize("package", [path.parent for path in files() if path.name == "__init__.py"], ids=room)
def test_a_package_says_what_lives_there_and_what_it_imports(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    if package.parent == PACKAGE:
        allowed = ONLY_FROM.get(package.name, set())
        assert all(each in docstring for each in ("import", *allowed)), docstring


@pytest.mark.parametrize(("library", "rooms"), ONLY.items())
def test_a_library_with_a_room_of_its_own_is_imported_nowhere_else(library: str, rooms: tuple[str, ...]) -> None:
    importers = {room(path) for path in files() if any(name.split(".")[0] == library for name in imports(path))}
    assert importers == set(rooms)


def test_the_public_names_do_not_import_what_is_optional() -> None:
    named = set(imports(PACKAGE / "__init__.py"))
    assert not named & {f"gatekeeper.{name}" for name in OPTIONAL}


@pytest.mark.parametrize("path", [path for path in files() if room(path) in PURE], ids=lambda path: path.stem)
def test_core_files_do_no_io_read_no_clock_and_contain_no_async(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith)]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input"}
    assert not set(imports(path)) & {"time", "datetime", "os", "pathlib", "socket", "asyncio", "anyio", "logging"}
