"""Processes for the benchmarks, pinned to processors: servers, Redis, wrk."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import keys, script
from benchmarks.asgi import PATH
from benchmarks.served import VARIABLE
from tests.support.starting import accepts, wait_until_ready

__all__ = ("SERVERS", "Load", "Served", "free_port", "redis", "serve", "wrk")

APP = "benchmarks.served:app"
SERVERS = {
    "uvicorn": (
        "uvicorn",
        APP,
        "--host=127.0.0.1",
        "--loop=uvloop",
        "--http=httptools",
        "--log-level=error",
        "--timeout-keep-alive=600",  # watchers may be idle for minutes
    ),
    "granian": ("granian", APP, "--interface=asgi", "--host=127.0.0.1", "--loop=uvloop", "--log-level=error"),
    "hypercorn": ("hypercorn", APP, "--worker-class=uvloop", "--log-level=ERROR"),
}


class Served(NamedTuple):
    """A served app."""

    port: int
    process: int


class Load(NamedTuple):
    """The results of wrk.

    Attributes:
        requests: the number of requests.
        requests_per_s: requests per second.
        p50_ms: the median latency in milliseconds.
        p99_ms: the 99th percentile in milliseconds.
        p999_ms: the 99.9th percentile in milliseconds.
        refused: the share of answers with a status of 400 or more.
        errors: the number of failed requests.
    """

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    refused: float
    errors: int


@contextlib.contextmanager
def serve(server: str, guarded: dict[str, Any], *, processor: int | None = None, workers: int = 1) -> Iterator[Served]:
    """Serve an app in other processes.

    Args:
        server: one of SERVERS.
        guarded: the arguments of `benchmarks.served.create`.
        processor: the processor to which all workers are pinned.
        workers: the number of workers.
    """
    port = free_port()
    bind = (f"--bind=127.0.0.1:{port}",) if server == "hypercorn" else (f"--port={port}",)
    count = () if workers == 1 else (f"--workers={workers}",)
    environment = os.environ | {VARIABLE: json.dumps(guarded)}
    command = [sys.executable, "-m", *SERVERS[server], *bind, *count]
    with subprocess.Popen(command, cwd=script.ROOT, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            if processor is not None:
                os.sched_setaffinity(process.pid, {processor})
            wait_until_ready(process, partial(_answers, port), lambda: f"{server} with {guarded}")
            yield Served(port, process.pid)
        finally:
            _stop(process)


@contextlib.contextmanager
def redis(processor: int) -> Iterator[int]:
    """Run Redis without persistence, and yield its port."""
    port = free_port()
    command = [script.need("redis-server", "redis-server"), "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            os.sched_setaffinity(process.pid, {processor})
            wait_until_ready(process, partial(accepts, port), lambda: "redis-server")
            yield port
        finally:
            _stop(process)


def wrk(port: int, tape: Path, *, seconds: int, connections: int, processor: int) -> Load:
    """Load an app with the requests of a tape, in a loop."""
    command = [script.need("wrk", "wrk"), "--threads=1", f"--connections={connections}", f"--duration={seconds}s"]
    command += [f"--script={script.ROOT / 'benchmarks/tape.lua'}", f"http://127.0.0.1:{port}{PATH}", "--", str(tape)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, {processor})
        said, _ = process.communicate()
    seen = json.loads(said.splitlines()[-1])
    requests = seen["requests"]
    return Load(
        requests,
        requests / (seen["duration_us"] / 1e6),
        seen["p50_us"] / 1000,
        seen["p99_us"] / 1000,
        seen["p999_us"] / 1000,
        seen["refused"] / max(requests, 1),
        seen["errors"],
    )


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", PATH, headers={"data-client-key": keys.client_key(0), "origin": keys.origin(0)})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
