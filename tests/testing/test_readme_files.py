"""What the reference says, and its files as pytest runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gatekeeper import testing
from tests.test_readme import DOCUMENTS, MODULES, ROOT

OF_THE_WHOLE_APP = """
from gatekeeper.testing import headers

def test_the_app_of_main(client):
    assert client.get("/config", headers=headers("https://shop.acme.com")).status_code == 200
    assert client.get("/config", headers=headers("https://evil.example")).status_code == 403
"""


@pytest.mark.parametrize("name", testing.__all__)
def test_the_reference_has_every_name(name: str) -> None:
    section = DOCUMENTS["gatekeeper/web/README.md"].partition("\n## Testing your app\n")[2].partition("\n## ")[0]
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", section.replace("```", ""))


@pytest.mark.process
def test_the_files_of_the_reference_pass_under_pytest(tmp_path: Path) -> None:
    """One of them is an app that is built at import, and is given a hub before."""
    for name in ("service", "main", "test_service", "conftest"):
        (tmp_path / f"{name}.py").write_text("#" + MODULES[name], encoding="utf-8")
    (tmp_path / "test_main.py").write_text(OF_THE_WHOLE_APP, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in run.stdout, run.stdout + run.stderr
