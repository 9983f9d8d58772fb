"""The requirements of pyproject.toml: what the core needs, and lower bounds that are tested."""

import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
BOUND = re.compile(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+(?:b\d+)?)(?:,<\d+)?")
LOWEST = "GATEKEEPER_LOWEST"  # set where the lowest versions are installed


def bounds(*extras: str) -> dict[str, str]:
    """The lower bound of each package of the core, or of these extras."""
    found = {}
    for requirement in [each for extra in extras for each in EXTRAS[extra]] if extras else PROJECT["dependencies"]:
        if not requirement.startswith(f"{PROJECT['name']}["):
            bound = BOUND.fullmatch(requirement)
            assert bound, f"{requirement} has no lower bound"
            found[bound[1]] = bound[2]
    return found


def without_zeros(release: str) -> str:
    """A release without the zeros at its end: 9.0 is 9."""
    return re.sub(r"(\.0)+$", "", release)


def test_the_core_needs_these_packages_and_no_others() -> None:
    needed = {"anyio", "cachetools", "httpx", "idna", "itsdangerous", "msgspec", "starlette", "tenacity", "tldextract"}
    assert set(bounds()) == needed


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_requirement_has_a_lower_bound(extra: str) -> None:
    assert bounds(extra)


def test_a_package_has_the_same_bound_wherever_it_is_required() -> None:
    seen: dict[str, set[str]] = {}
    for found in (bounds(), *(bounds(extra) for extra in EXTRAS)):
        for package, bound in found.items():
            seen.setdefault(package, set()).add(bound)
    assert {package: found for package, found in seen.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("package", "bound"), (bounds() | bounds("cli", "demo", "fastapi", "hub", "metrics", "postgres", "test")).items()
)
def test_the_lowest_versions_are_the_bounds(package: str, bound: str) -> None:
    installed = version(package)
    if os.environ.get(LOWEST):
        assert without_zeros(installed) == without_zeros(bound), f"{package}>={bound} says this, and {installed} is tested"
