"""The imports of the package hold to the drawing of the house: a file imports only from files above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gatekeeper"

# From top to bottom; DESIGN.md section 2. The hub and the demo are rooms of their own, beside each other's files.
HOUSE = (
    "errors",
    "suffixes",
    "origins",
    "allowlist",
    "keys",
    "rows",
    "decisions",
    "memo",
    "packed",
    "index",
    "changes",
    "difference",
    "snapshot",
    "client",
    "sources",
    "freshness",
    "usage",
    "refresh",
    "lifecycle",
    "streams",
    "gate",
    "cors",
    "middleware",
    "health",
    "fastapi",
    "metrics",
    "hub",
    "demo",
    "cli",
    "__main__",
)
PURE = ("origins", "allowlist", "keys", "rows", "decisions", "packed", "index", "changes", "difference")
OPTIONAL = ("fastapi", "metrics", "hub", "demo", "cli", "__main__")

# What only one room may import.
ONLY = {
    "tldextract": ("suffixes",),
    "httpx": ("client", "demo"),
    "tenacity": ("client",),
    "sqlalchemy": ("hub",),
    "alembic": ("hub",),
    "uvicorn": ("demo", "cli"),
    "typer": ("cli",),
    "prometheus_client": ("metrics",),
}


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


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
    assert {room(path) for path in files()} == set(HOUSE)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_files_above_it_and_never_the_whole_package(path: Path) -> None:
    here = HOUSE.index(room(path))
    for module in imports(path):
        if module.split(".")[0] != "gatekeeper":
            continue
        assert module != "gatekeeper", f"{path} imports the package's __init__"
        there = module.split(".")[1]
        assert HOUSE.index(there) <= here, f"{path} imports {module}, which stands below it"
        assert there != room(path) or room(path) in {"client", "hub", "demo", "cli"}


@pytest.mark.parametrize(("library", "rooms"), ONLY.items())
def test_a_library_with_a_room_of_its_own_is_imported_nowhere_else(library: str, rooms: tuple[str, ...]) -> None:
    importers = {room(path) for path in files() if any(name.split(".")[0] == library for name in imports(path))}
    assert importers == set(rooms)


def test_the_public_names_do_not_import_what_is_optional() -> None:
    named = set(imports(PACKAGE / "__init__.py"))
    assert not named & {f"gatekeeper.{name}" for name in OPTIONAL}


@pytest.mark.parametrize("name", PURE)
def test_core_files_do_no_io_read_no_clock_and_contain_no_async(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith)]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input"}
    assert not set(imports(PACKAGE / f"{name}.py")) & {
        "time",
        "datetime",
        "os",
        "pathlib",
        "socket",
        "asyncio",
        "anyio",
        "logging",
    }
