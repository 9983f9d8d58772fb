"""The first steps in README.md: a hub, a key, and a guarded app that FastAPI's own command serves."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.needs import fastapi_command
from tests.support.examples import example
from tests.support.starting import accepts, ending, wait_until_ready
from tests.wire.servers import free_ports

ROOT = Path(__file__).parents[2]
TOKEN = re.compile(r"sk_live_acme_\w+")


def steps() -> list[list[str]]:
    """The commands that follow the example, without those that install."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"That is `main.py`.+?```sh\n(.+?)```", text, flags=re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [command for command in commands if command[0] not in {"pip", "export"}]


@contextmanager
def serving(command: list[str], port: int, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a server until the block ends."""
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=silent, stderr=silent) as server, ending(server):
        wait_until_ready(server, partial(accepts, port), lambda: " ".join(command))
        yield


@pytest.mark.process
def test_the_first_steps_reach_an_app_that_allows_the_page_of_the_key(tmp_path: Path) -> None:
    token, hub, create, serve = steps()
    hub_port, app_port = free_ports(2)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEKEEPER_")}
    environment |= {"PYTHONPATH": str(ROOT), "GATEKEEPER_HUB": f"http://127.0.0.1:{hub_port}"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=True)
        return done.stdout + done.stderr

    environment["GATEKEEPER_TOKEN"] = TOKEN.findall(run(*token))[0]
    hub = [sys.executable, "-m", *hub[:-1]]  # the last word sends it to the background
    hub[hub.index("127.0.0.1:8700")] = f"127.0.0.1:{hub_port}"
    source = f'HubSource("{environment["GATEKEEPER_HUB"]}", "{environment["GATEKEEPER_TOKEN"]}")'
    main = example("README.md", "Mounting")
    (tmp_path / serve[-1]).write_text(re.sub(r"HubSource\(.+?\)", source, main), encoding="utf-8")
    with ExitStack() as stack:
        stack.enter_context(serving(hub, hub_port, tmp_path, environment))
        key = re.findall(r"pk_live_acme_\w+", run(*create))[0]
        served = [*fastapi_command(), *serve[1:], "--host", "127.0.0.1", "--port", str(app_port)]
        stack.enter_context(serving(served, app_port, tmp_path, environment))
        url = f"http://127.0.0.1:{app_port}/api/v1/widget/config"
        with httpx.Client(trust_env=False, timeout=20) as client:
            allowed = client.get(url, headers={"data-client-key": key, "origin": "https://shop.acme.com"})
            assert allowed.json() == {"agent_id": None}
            refused = client.get(url, headers={"data-client-key": key, "origin": "https://evil.example"})
            assert refused.json()["reason"] == "origin_not_allowed"
