"""The command line, in this process or another, and rows for it."""

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

from typer.testing import CliRunner

from gatekeeper.cli import app

ROWS = [
    {
        "id": "wk_1",
        "name": "Shop",
        "last8": "abcd1234",
        "domain_allowlist": ["*.acme.com", "shop.acme.co", "acme.com/x"],
        "agent_id": "agent_7",
    },
    {"id": "wk_2", "name": "Old", "last8": "efgh5678", "domain_allowlist": ["acme.com"], "disabled_at": "2026-01-02"},
]
KEY = "pk_live_acme_0000abcd1234"

# The variables of a developer's environment that lead elsewhere, or trust others.
_WAYS = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
WAYS = (*_WAYS, *map(str.lower, _WAYS))


def gatekeeper(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process, without other GATEKEEPER_ variables, proxies and certificates."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEKEEPER_") and name not in WAYS}
    return subprocess.run(
        [sys.executable, "-m", "gatekeeper", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=60,
        check=False,
    )


class Invoked(NamedTuple):
    """The result of a command that ran in this process.

    Attributes:
        code: the exit code.
        out: its standard output.
        err: its standard error.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, decoded from JSON."""
        return json.loads(self.out)


def invoke(*arguments: str, answer: str | None = None, **environment: str) -> Invoked:
    """Run a command in this process, with an answer to its question."""
    env = {**dict.fromkeys(WAYS), **environment}
    result = CliRunner().invoke(app, arguments, input=answer, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Invoked(result.exit_code, result.stdout, result.stderr)


class Keys:
    """`gatekeeper keys` with a hub in the environment.

    Args:
        environment: GATEKEEPER_HUB and GATEKEEPER_TOKEN.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: str, answer: str | None = None, **environment: str) -> Invoked:
        """Run a command in this process, with an answer to its question."""
        return invoke("keys", *arguments, answer=answer, **{**self.environment, **environment})

    def rows(self) -> list[dict[str, Any]]:
        """The rows that the hub lists."""
        rows: list[dict[str, Any]] = self("list", "--json").json
        return rows
