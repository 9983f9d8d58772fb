"""The servers of the apps, and requests to them."""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.frameworks.serving import KEYS, STOPPED
from tests.support.client_keys import KEY
from tests.support.starting import accepts, wait_until, wait_until_ready
from tests.wire.servers import free_ports, server_process

__all__ = ("DEADLINE", "EVIL", "PAGE", "ROW", "Served", "serving")

PAGE, EVIL = "https://shop.acme.com", "https://evil.test"
ROW: dict[str, Any] = {
    "id": "1",
    "name": "shop",
    "last8": KEY[-8:],
    "domain_allowlist": [PAGE],
    "agent_id": "agent-1",
}
DEADLINE = 20.0  # seconds


class Served:
    """An app that a server serves.

    Args:
        server: the name of the server.
        port: its port.
        folder: the folder of the app's files.
        process: the server's process.
    """

    def __init__(self, server: str, port: int, folder: Path, process: Popen[bytes]) -> None:
        self.server = server
        self.process = process
        self._folder = folder
        self._port = port
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=DEADLINE, limits=limits)

    def get(self, path: str, page: str = PAGE, key: str = KEY) -> httpx.Response:
        """Send a request as the script of a page does."""
        return self.http.get(path, headers={"Origin": page, "data-client-key": key})

    def open(self, path: str, page: str = PAGE, query: str = "") -> ClientConnection:
        """Open a WebSocket as the script of a page does."""
        url = f"ws://127.0.0.1:{self._port}{path}?client_key={KEY}{query}"
        return connect(url, origin=Origin(page), proxy=None, open_timeout=DEADLINE)

    def ask(self, path: str = "/status") -> Any:
        """Ask the middleware outside of the gate."""
        return self.http.get(path).json()

    def wait_for(self, is_met: Callable[[Any], bool]) -> None:
        """Wait until the app's status fulfils a condition."""
        wait_until(self.ask, is_met)

    @contextmanager
    def revoked(self, path: str) -> Iterator[None]:
        """Disable the key while the context is open, and wait for its return."""
        self.list(disabled_at="2026-01-02T03:04:05Z")
        try:
            yield
        finally:
            self.list()
            wait_until(lambda: self.get(path).is_success)

    def list(self, **changes: Any) -> None:
        """Replace the list of keys by the one row, changed."""
        list_keys(self._folder, **changes)

    def stop(self) -> str | None:
        """Stop the server, and return what its app wrote at the end."""
        self.process.terminate()
        self.process.wait(DEADLINE)
        written = self._folder / "stopped"
        return written.read_text(encoding="utf-8") if written.exists() else None


def list_keys(folder: Path, **changes: Any) -> Path:
    """Write the list of keys to a file of this folder."""
    file = folder / "keys.json"
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps([ROW | changes]), encoding="utf-8")
    fresh.rename(file)
    return file


@contextmanager
def serving(server: str, apps: Collection[str], logs: Path) -> Iterator[dict[str, Served]]:
    """Serve apps while the context is open, each in its own process.

    Args:
        server: the name of the server.
        apps: the modules below `tests.frameworks.apps`.
        logs: the directory for logs and lists.

    Yields:
        What is served, by app.
    """
    with ExitStack() as stack:
        served = {}
        # Start all of them before waiting for the first.
        for app, port in zip(apps, free_ports(len(apps)), strict=True):
            folder = logs / app
            folder.mkdir()
            environment = {KEYS: str(list_keys(folder)), STOPPED: str(folder / "stopped")}
            path = f"tests.frameworks.apps.{app}:app"
            process = stack.enter_context(server_process(server, port, folder / "log", path, environment))
            served[app] = Served(server, port, folder, process)
            stack.callback(served[app].http.close)
        for app, each in served.items():
            wait_until_ready(
                each.process, partial(accepts, each.http.base_url.port or 0), partial(_describe, server, logs / app)
            )
        yield served


def _describe(server: str, folder: Path) -> str:
    return f"{server}, which wrote {(folder / 'log').read_text()!r},"
