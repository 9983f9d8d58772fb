"""Wrong usage and missing extras of all commands."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import gatekeeper as package

from .support import KEY, gatekeeper, invoke


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


def test_version_is_the_one_of_the_package() -> None:
    done = invoke("--version")
    assert (done.code, done.out) == (0, f"gatekeeper {package.__version__}\n")


@pytest.mark.parametrize(
    "command", [(), ("check",), ("lint",), ("demo",), ("keys",), ("keys", "list"), ("hub", "token", "create")]
)
def test_h_is_help(command: tuple[str, ...]) -> None:
    short, long = invoke(*command, "-h"), invoke(*command, "--help")
    assert short.code == 0
    assert short.out == long.out != ""


@pytest.mark.process
def test_completion_is_shown_for_the_installed_command() -> None:
    """`python -m gatekeeper` is no name that a shell can complete."""
    # The shell is the one that runs the command, and there may be none around the tests.
    script = f"{shlex.quote(sys.executable)} -m gatekeeper --show-completion; exit $?"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "_GATEKEEPER_COMPLETE" in done.stdout
    assert "python" not in done.stdout


@pytest.mark.process
def test_completion_completes_commands_and_options() -> None:
    for words, found in (("gatekeeper keys ren", "rename"), ("gatekeeper check --ca", "--ca-file")):
        last = str(len(words.split()) - 1)
        done = gatekeeper(_GATEKEEPER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=last)
        assert done.stdout.split() == [found], done.stderr
