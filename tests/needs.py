"""Programs that some tests need, beyond the packages of the extra `test`."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from .support.examples import FRAMEWORKS
from .support.nginx import find_nginx
from .support.pgbouncer import find_pgbouncer
from .support.postgres import find_postgres

__all__ = ("chromium", "fastapi_command", "frameworks", "lacking", "nginx", "openssl", "pgbouncer", "postgres")

REQUIRE_ALL = "GATEKEEPER_REQUIRE_ALL"


def chromium() -> Path:
    """Find Chromium, or skip the test."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        lacking("Chromium is not installed: apt-get install chromium")
    return Path(found)


def fastapi_command() -> list[str]:
    """The command line of FastAPI, or skip the test."""
    if find_spec("fastapi_cli") is None:
        lacking("the command line of FastAPI is not installed: pip install fastapi-cli")
    return [sys.executable, "-m", "fastapi"]


def frameworks() -> None:
    """Skip the test without the packages of the extra `frameworks`."""
    missing = sorted(name for name in FRAMEWORKS if find_spec(name) is None)
    if missing:
        lacking(f"{', '.join(missing)} are not installed: pip install -e '.[frameworks]'")


def nginx() -> str:
    """Find nginx, or skip the test."""
    program = find_nginx()
    if program is None:
        lacking("nginx is not installed: apt-get install nginx-light")
    return program


def openssl() -> str:
    """Find openssl, or skip the test."""
    program = shutil.which("openssl")
    if program is None:
        lacking("openssl is not installed: apt-get install openssl")
    return program


def pgbouncer() -> str:
    """Find PgBouncer, or skip the test."""
    program = find_pgbouncer()
    if program is None:
        lacking("PgBouncer is not installed: apt-get install pgbouncer")
    return program


def postgres() -> Path:
    """Find the directory of PostgreSQL's programs, or skip the test."""
    programs = find_postgres()
    if programs is None:
        lacking("PostgreSQL is not installed: apt-get install postgresql")
    return programs


def lacking(what: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be missing.

    Args:
        what: the missing program, and how to install it.
    """
    if os.environ.get(REQUIRE_ALL):
        pytest.fail(f"{REQUIRE_ALL} is set, and {what}")
    pytest.skip(what)
