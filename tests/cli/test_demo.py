"""gatekeeper demo, until a signal stops it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_stops_cleanly_and_leaves_nothing_behind(ending: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    demo = subprocess.Popen(
        [sys.executable, "-m", "gatekeeper", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert demo.stdout is not None
    printed = ""
    while "Ctrl-C" not in printed:
        line = demo.stdout.readline()
        assert line, printed
        printed += line
    assert list(tmp_path.glob("gatekeeper-demo-*"))
    demo.send_signal(ending)
    rest, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0, rest
    assert rest == ""
    assert list(tmp_path.iterdir()) == []
    assert "http://localhost:" in printed
    assert "curl -X PATCH" in printed
    assert "sk_live_" not in printed
