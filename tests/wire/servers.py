"""The servers of the guarded app, each in its own process."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.support.starting import accepts, ending, wait_until_ready

__all__ = ("DAPHNE", "SERVERS", "free_ports", "running", "server_process")

ROOT = Path(__file__).parents[2]
APP = "tests.wire.app:app"

# uvicorn has two HTTP parsers and two WebSocket implementations, which can be combined freely.
UVICORN = ("uvicorn", "{app}", "--host=127.0.0.1", "--port={port}", "--loop=asyncio", "--log-level=error")
COMMANDS = {
    "httptools": (*UVICORN, "--http=httptools", "--ws=websockets-sansio"),
    "h11": (*UVICORN, "--http=h11", "--ws=wsproto"),
    "hypercorn": ("hypercorn", "{app}", "--bind=127.0.0.1:{port}", "--workers=0", "--log-level=ERROR"),
    "granian": ("granian", "{app}", "--interface=asgi", "--port={port}", "--loop=asyncio", "--log-level=error"),
}
SERVERS = tuple(COMMANDS)  # those of the tables
DAPHNE = "daphne"
COMMANDS |= {
    DAPHNE: ("daphne", "--bind=127.0.0.1", "--port={port}", "--verbosity=0", "{app}"),
    "gunicorn": (
        *("gunicorn", "{app}", "--worker-class=uvicorn_worker.UvicornWorker", "--bind=127.0.0.1:{port}"),
        *("--no-control-socket", "--log-level=error"),
    ),
    "uvicorn": ("uvicorn", "{app}", "--host=127.0.0.1", "--port={port}", "--log-level=error"),  # with what it finds
}

# The gate itself raises nothing. A server that has already refused a body raises this for the gate's answer.
GATE = "gatekeeper/web/asgi.py"
ANSWERED_ALREADY = "h11._util.LocalProtocolError: can't handle event type Response"


@contextmanager
def running(
    logs: Path, app: str = APP, environment: Mapping[str, str] | None = None, servers: Sequence[str] = SERVERS
) -> Iterator[dict[str, int]]:
    """Run servers while the context is open.

    Their logs are then checked for exceptions of the gate.

    Args:
        logs: the directory for the servers' logs.
        app: the import path of the app.
        environment: additional environment variables for the app.
        servers: the names of the servers.

    Yields:
        The ports, by server.
    """
    ports = dict(zip(servers, free_ports(len(servers)), strict=True))
    with ExitStack() as stack:
        # Start all of them before waiting for the first.
        processes = {
            name: stack.enter_context(server_process(name, port, _log(logs, name), app, environment or {}))
            for name, port in ports.items()
        }
        for name, process in processes.items():
            wait_until_ready(process, partial(accepts, ports[name]), partial(_describe, name, logs))
        yield ports
    for name in servers:
        log = _log(logs, name).read_text(errors="replace")
        for raised in log.split("Traceback (most recent call last):")[1:]:
            assert GATE not in raised or ANSWERED_ALREADY in raised, f"{name} wrote:\n{log}"


@contextmanager
def server_process(
    name: str, port: int, log_file: Path, app: str, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one server while the context is open, and stop it as a supervisor does.

    Args:
        name: the name of the server.
        port: a free port.
        log_file: the file for its log.
        app: the import path of the app.
        environment: additional environment variables for the app.

    Yields:
        The process.
    """
    command = [sys.executable, "-m", *(part.format(app=app, port=port) for part in COMMANDS[name])]
    with (
        log_file.open("wb") as log,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
        ending(process),
    ):
        yield process


def _describe(name: str, logs: Path) -> str:
    return f"{name}, which wrote {_log(logs, name).read_text()!r},"


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name}.log"


def free_ports(count: int) -> list[int]:
    """Ports that no other program listens on."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
