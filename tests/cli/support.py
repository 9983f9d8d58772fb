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


def gatekeeper(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process, without other GATEKEEPER_ variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEKEEPER_")}
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


class Keys:
    """`gatekeeper keys` with a hub in the environment.

    Args:
        environment: GATEKEEPER_HUB and GATEKEEPER_TOKEN.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: str, answer: str | None = None) -> Invoked:
        """Run a command in this process, with an answer to its question."""
        result = CliRunner().invoke(app, ["keys", *arguments], input=answer, env=self.environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Invoked(result.exit_code, result.stdout, result.stderr)

    def rows(self) -> list[dict[str, Any]]:
        """The rows that the hub lists."""
        rows: list[dict[str, Any]] = self("list", "--json").json
        return rows
