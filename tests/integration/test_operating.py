"""Metrics and logs of real server processes, by the README's examples."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.examples import example
from tests.support.rows import TOKEN
from tests.support.starting import accepts, ending, wait_until_ready
from tests.wire.servers import free_ports

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
README = "gatekeeper/sync/README.md"
HUB = 'HubSource("https://hub.example", "sk_live_acme_gatetoken")'
PORTS = "range(9101, 9106)"
STOPPED_WITHIN = 20.0  # seconds
WORKERS = {
    "uvicorn": ("uvicorn", "main:app", "--host=127.0.0.1", "--port={port}", "--workers=2"),
    "gunicorn --preload": (
        *("gunicorn", "main:app", "--worker-class=uvicorn_worker.UvicornWorker", "--bind=127.0.0.1:{port}"),
        *("--no-control-socket", "--workers=2", "--preload"),
    ),
}
ONE_PROCESS = ("uvicorn", "main:app", "--host=127.0.0.1", "--port={port}")
INFO, WARNING = "the list of widget keys is fresh: 1 keys", "the list of widget keys has not come yet"


class Server:
    """A server of `main.py` in a folder, in a process of its own.

    Attributes:
        process: the process.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8")

    def wait(self, is_met: Callable[[], bool]) -> None:
        """Wait until a condition is met."""
        wait_until_ready(self.process, is_met, lambda: f"the server, which wrote {self.log!r},")


@contextmanager
def serving(folder: Path, command: tuple[str, ...], code: str) -> Iterator[Server]:
    """Serve the app of this code while the context is open."""
    (folder / "main.py").write_text(code, encoding="utf-8")
    (port,) = free_ports(1)
    full = [sys.executable, "-m", *(part.format(port=port) for part in command)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    log = folder / "server.log"
    with (
        log.open("wb") as written,
        subprocess.Popen(full, cwd=folder, env=environment, stdout=written, stderr=written) as process,
    ):
        server = Server(process, log)
        with ending(process):
            server.wait(lambda: accepts(port))
            yield server
    assert "Traceback" not in server.log, server.log


def with_hub(code: str, hub: FakeHub) -> str:
    """An example that reads its list from this hub."""
    assert code.count(HUB) == 1
    return code.replace(HUB, f"HubSource({hub.url!r}, {TOKEN!r})")


# Metrics


def scraped(ports: list[int]) -> dict[int, dict[str, float]]:
    """The metrics at each of the ports that answers."""
    found = {}
    for port in filter(accepts, ports):
        try:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        except httpx.TransportError:
            continue  # its worker is ending
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found[port] = {"".join((sample.name, *sample.labels.values())): sample.value for sample in samples}
    return found


@pytest.mark.parametrize("server", WORKERS)
def test_each_worker_has_a_port_for_its_metrics(hub: FakeHub, tmp_path: Path, server: str) -> None:
    """A worker is killed, and the one in its place takes the port."""
    ports = free_ports(3)
    code = with_hub(example(README, "Metrics of each worker"), hub)
    assert code.count(PORTS) == 1
    code = code.replace(PORTS, repr(ports))
    # A function, because a preloaded module runs in the parent.
    code += "\nimport os\nfrom prometheus_client import Gauge\nGauge('pid', 'The process.').set_function(os.getpid)\n"
    with serving(tmp_path, WORKERS[server], code) as served:
        served.wait(lambda: len(scraped(ports)) == 2)
        first, second, *_ = ports
        before = scraped(ports)
        assert list(before) == [first, second]
        assert [each["gatekeeper_statefresh"] for each in before.values()] == [1.0, 1.0]
        assert before[first]["pid"] != before[second]["pid"]
        os.kill(int(before[first]["pid"]), signal.SIGKILL)
        served.wait(lambda: scraped(ports).get(first, before[first])["pid"] != before[first]["pid"])
        after = scraped(ports)
        assert list(after) == [first, second]
        assert after[second]["pid"] == before[second]["pid"]
        assert after[first]["gatekeeper_statefresh"] == 1.0
    assert scraped(ports) == {}


def test_without_a_free_port_the_app_is_served_all_the_same(hub: FakeHub, tmp_path: Path) -> None:
    code = with_hub(example(README, "Metrics of each worker"), hub).replace(PORTS, "range(0)")
    with serving(tmp_path, ONE_PROCESS, code) as served:
        assert "no port in range(0, 0) is free for metrics" in served.log


# Logs


APP = f"""
from fastapi import FastAPI
from gatekeeper import Gatekeeper, HubSource, guard

app = guard(FastAPI(), Gatekeeper({HUB}, start_timeout=20))
"""


def log_of(folder: Path, code: str, *options: str) -> str:
    """What uvicorn has written when this code has started and ended."""
    with serving(folder, (*ONE_PROCESS, *options), code) as served:
        pass
    assert TOKEN not in served.log
    return served.log


def test_by_default_uvicorn_shows_warnings_only(hub: FakeHub, tmp_path: Path) -> None:
    """The first fetch fails, and the second brings the list."""
    hub.then(HubAnswer(503))
    log = log_of(tmp_path, with_hub(APP, hub))
    assert log.count(WARNING) == 1
    assert "keys is fresh" in log  # a warning, too, after a failure


def test_by_default_uvicorn_shows_no_line_of_level_info(hub: FakeHub, tmp_path: Path) -> None:
    assert "list of widget keys" not in log_of(tmp_path, with_hub(APP, hub))


def test_the_lines_of_the_readme_show_each_info_line_once(hub: FakeHub, tmp_path: Path) -> None:
    log = log_of(tmp_path, example(README, "Logging") + with_hub(APP, hub))
    assert log.count(INFO) == 1
    assert f" INFO gatekeeper: gatekeeper: {INFO}" in log
    assert log.count("Application startup complete") == 1
    assert "HTTP Request" not in log  # of httpx


def test_the_configuration_of_the_readme_shows_each_info_line_once(hub: FakeHub, tmp_path: Path) -> None:
    configuration = (ROOT / README).read_text(encoding="utf-8").partition("```json\n")[2].partition("```")[0]
    (tmp_path / "logging.json").write_text(configuration, encoding="utf-8")
    log = log_of(tmp_path, with_hub(APP, hub), "--log-config=logging.json")
    assert log.count(INFO) == 1
    assert f" INFO gatekeeper: gatekeeper: {INFO}" in log
    assert log.count("Application startup complete") == 1
    assert "HTTP Request" not in log
