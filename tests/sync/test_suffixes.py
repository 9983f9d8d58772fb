"""The public suffixes are loaded in a thread, before a request needs them."""

import subprocess
import sys
from pathlib import Path

import pytest

import gatekeeper

pytestmark = pytest.mark.process

NOTING = """
import asyncio, json, sys, threading
from pathlib import Path
from gatekeeper import FileSource, Gatekeeper
loaded_by = []

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".tld_set_snapshot"):
        loaded_by.append(threading.current_thread().name)

sys.addaudithook(note)

async def serve(entry, **options):
    Path("rows.json").write_text(json.dumps([{"id": "1", "last8": "12345678", "domain_allowlist": [entry]}]))
    async with Gatekeeper(FileSource("rows.json"), **options) as gate:
        assert gate.status.keys == 1
        print(entry, *loaded_by)
"""


def run(code: str, directory: Path) -> list[str]:
    """Run code in a new interpreter, and return the lines that it prints."""
    command = [sys.executable, "-c", NOTING + code]
    places = {"PYTHONPATH": str(Path(gatekeeper.__file__).parents[1])}
    ran = subprocess.run(command, cwd=directory, env=places, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_gate_loads_them_for_the_first_list_with_a_wildcard(tmp_path: Path) -> None:
    lines = run("asyncio.run(serve('acme.com')); asyncio.run(serve('*.acme.com'))", tmp_path)
    assert lines[0] == "acme.com"
    assert lines[1].startswith("*.acme.com asyncio_")


def test_a_gate_loads_them_for_a_snapshot_with_a_wildcard(tmp_path: Path) -> None:
    run("asyncio.run(serve('*.acme.com', snapshot_path='snapshot'))", tmp_path)
    code = """
async def restore():
    Path("rows.json").unlink()
    async with Gatekeeper(FileSource("rows.json"), snapshot_path="snapshot") as gate:
        print(gate.status.keys, *loaded_by)
asyncio.run(restore())
"""
    (line,) = run(code, tmp_path)
    assert line.startswith("1 asyncio_")


def test_a_hub_loads_them_before_it_serves(tmp_path: Path) -> None:
    code = """
from gatekeeper.hub import create_hub

async def serve():
    hub = create_hub("hub.db", pepper="pepper")
    async with hub.router.lifespan_context(hub):
        print(*loaded_by)

asyncio.run(serve())
"""
    (line,) = run(code, tmp_path)
    assert line.startswith("asyncio_")


def test_one_thread_loads_them_for_lists_that_come_together(tmp_path: Path) -> None:
    code = """
async def serve_all():
    Path("rows.json").write_text(json.dumps([{"id": "1", "last8": "12345678", "domain_allowlist": ["*.acme.com"]}]))
    sources = [FileSource("rows.json", account=f"account-{number}") for number in range(20)]
    async with Gatekeeper(sources) as gate:
        print(gate.status.keys, len(loaded_by))
asyncio.run(serve_all())
"""
    assert run(code, tmp_path) == ["20 1"]
