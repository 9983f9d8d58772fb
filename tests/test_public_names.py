"""The public names."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import gatekeeper

PROMISED = {
    "Allowlist",
    "Answer",
    "AsyncHubClient",
    "CorsPolicy",
    "Decision",
    "FileSource",
    "Gatekeeper",
    "GatekeeperError",
    "GatekeeperMiddleware",
    "HubClient",
    "HubSource",
    "Origin",
    "Reason",
    "StaticSource",
    "WidgetKey",
    "__version__",
    "answer",
    "check_key",
    "decision_from",
    "guard",
}
MODULES = [
    module.name
    for module in pkgutil.walk_packages(gatekeeper.__path__, "gatekeeper.")
    # Alembic runs these files; they are not imported.
    if not module.name.endswith("__main__") and ".migrations." not in module.name
]


def test_every_promised_name_is_public() -> None:
    assert set(gatekeeper.__all__) >= PROMISED


def test_the_package_imports_exactly_its_public_names() -> None:
    tree = ast.parse(Path(str(gatekeeper.__file__)).read_text(encoding="utf-8"))
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(gatekeeper.__all__)
    assert sorted(gatekeeper.__all__) == list(gatekeeper.__all__)


def test_every_public_exception_is_of_the_one_tree() -> None:
    exceptions = [value for value in vars(gatekeeper).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(exceptions) > 10
    assert all(issubclass(exception, gatekeeper.GatekeeperError) for exception in exceptions)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_offers_and_has_it(name: str) -> None:
    module = importlib.import_module(name)
    defines = [node for node in ast.parse(inspect.getsource(module)).body if not isinstance(node, ast.Expr)]
    assert all(hasattr(module, public) for public in (module.__all__ if defines else ()))
