"""Wrong usage and missing extras of all commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from .support import KEY, gatekeeper


@pytest.mark.parametrize(
    "arguments", [("check",), ("check", KEY), ("check", KEY, "https://acme.com"), ("lint",), ("nonsense",)]
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert gatekeeper(*arguments).returncode == 2


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", ("lint", "acme.com"), "cli"),
        ("rich", ("lint", "acme.com"), "cli"),
        ("wsproto", ("demo",), "demo"),
        ("sqlalchemy", ("hub",), "hub"),
        ("uvicorn", ("hub",), "cli,hub"),
    ],
)
def test_a_missing_extra_is_reported_with_the_pip_command(
    tmp_path: Path, missing: str, arguments: tuple[str, ...], extra: str
) -> None:
    hide = (
        "import importlib.util as u, runpy, sys; found = u.find_spec;"
        f"u.find_spec = lambda name, *rest: None if name == {missing!r} else found(name, *rest);"
        f"sys.argv = ['gatekeeper', *{arguments!r}]; runpy.run_module('gatekeeper', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in {1, 2}
    assert f"pip install 'widget-gatekeeper[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
