"""The time of lists, 304 answers and creates of the reference hub.

    python -m benchmarks.hub [--rows 100000] [--rounds 7] [--creates 100] [--json]

A hub with one uvicorn worker runs in a process of its own, over a SQLite file and, if PostgreSQL is installed, over a server
with default settings (so commits are synced). The client is http.client over loopback, which does not decode bodies.
Figures are medians with quartiles.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import NamedTuple

import anyio
from sqlalchemy import Connection, insert

from gatekeeper.hub import create_hub
from gatekeeper.hub.tables import widget_keys
from tests.support.postgres import PostgresCluster, find_postgres

PEPPER = "the pepper of this benchmark"
PATH = "/api/v1/widget-keys"
UNCHANGED = 100  # conditional requests in a round
CONNECTIONS = 8
SLICE = 5000  # rows per insert
WORKER = """
import socket, sys, uvicorn
from gatekeeper.hub import create_hub

app = create_hub(sys.argv[1], pepper=sys.argv[2])
uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="error")).run([socket.socket(fileno=int(sys.argv[3]))])
"""


class Served(NamedTuple):
    """A running hub."""

    process: int
    port: int
    headers: dict[str, str]


class Listed(NamedTuple):
    """A received list: seconds to first byte and end, bytes, ETag."""

    first_byte: float
    whole: float
    length: int
    etag: str


async def fill(database: str | Path, rows: int) -> str:
    """Fill a database with keys of one account, and return a token."""
    app = create_hub(database, pepper=PEPPER)
    now = datetime.now(UTC)
    async with app.router.lifespan_context(app):
        token: str = await app.state.hub.tokens.mint("acme", name="benchmark")

        def insert_all(connection: Connection) -> None:
            for start in range(0, rows, SLICE):
                values = [_row(number, now) for number in range(start, min(start + SLICE, rows))]
                connection.execute(insert(widget_keys), values)

        await app.state.hub.keys._database.write(insert_all)  # noqa: SLF001 - 100,000 creates would take minutes
    return token


def _row(number: int, now: datetime) -> dict[str, object]:
    return {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "account": "acme",
        "name": f"Customer {number}",
        "last8": f"{number:08}",
        "domain_allowlist": [f"customer{number}.example", f"*.customer{number}.example", "localhost:*"],
        "agent_id": "agent-7",
        "created_at": now,
        "updated_at": now,
        "last_used_at": now,
        # Like real digests, these do not compress.
        "key_sha256": f"{hash((number, 1)) & (2**64 - 1):016x}{hash((number, 2)) & (2**64 - 1):016x}" * 2,
        "keyed_hash": f"{number:064x}",
        "use_count": number,
    }


@contextmanager
def serving(database: str | Path, rows: int) -> Iterator[Served]:
    """Run a hub over a new database."""
    token = anyio.run(fill, database, rows)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = [str(database), PEPPER, str(listener.fileno())]
        hub = subprocess.Popen([sys.executable, "-c", WORKER, *arguments], pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
    try:
        yield Served(hub.pid, port, {"Authorization": f"Bearer {token}"})
    finally:
        hub.terminate()
        hub.wait()


def ask(connection: HTTPConnection, served: Served, **headers: str) -> HTTPResponse:
    """Request the list."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", PATH, headers=served.headers | named)
    return connection.getresponse()


def measure_list(connection: HTTPConnection, served: Served, encoding: str) -> Listed:
    """Read the whole list."""
    begun = time.perf_counter()
    answer = ask(connection, served, Accept_Encoding=encoding)
    length = len(answer.read(1))
    first_byte = time.perf_counter() - begun
    length += len(answer.read())
    return Listed(first_byte, time.perf_counter() - begun, length, str(answer.headers["ETag"]))


def measure_unchanged(connection: HTTPConnection, served: Served, etag: str) -> float:
    """The seconds until a 304 for the list."""
    begun = time.perf_counter()
    for _ in range(UNCHANGED):
        answer = ask(connection, served, If_None_Match=etag)
        answer.read()
        if answer.status != 304:  # noqa: PLR2004 - Not Modified
            raise SystemExit(f"the hub answers {answer.status} for a list that has not changed")
    return (time.perf_counter() - begun) / UNCHANGED


def measure_creates(served: Served, creates: int) -> float:
    """The creates per second, over several connections."""

    def create_many(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", served.port)
        body = json.dumps({"name": f"Customer {number}", "domain_allowlist": [f"customer{number}.example"]})
        for _ in range(creates):
            connection.request("POST", PATH, body, served.headers | {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:  # noqa: PLR2004 - Created
                raise SystemExit(f"the hub answers {answer.status} to a create")
        connection.close()

    begun = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(create_many, range(CONNECTIONS)))
    return creates * CONNECTIONS / (time.perf_counter() - begun)


def peak_memory(process: int) -> float:
    """The peak memory of a process, in MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def processor_time(process: int) -> float:
    """The processor seconds of a process, little affected by other programs."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(database: str | Path, rows: int, rounds: int, creates: int) -> dict[str, list[float]]:
    """Measure each figure once a round. Creates come last: they change the list."""
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    with serving(database, rows) as served:
        connection = HTTPConnection("127.0.0.1", served.port)
        ask(connection, served, If_None_Match="*").read()
        before = peak_memory(served.process)
        for _ in range(rounds):
            for encoding in ("identity", "gzip"):
                begun = processor_time(served.process)
                listed = measure_list(connection, served, encoding)
                note(f"list {encoding}, processor (ms)", (processor_time(served.process) - begun) * 1000)
                note(f"list {encoding}, first byte (ms)", listed.first_byte * 1000)
                note(f"list {encoding}, whole (ms)", listed.whole * 1000)
                note(f"list {encoding}, size (MB)", listed.length / 1e6)
                note("unchanged, 304 (ms)", measure_unchanged(connection, served, listed.etag) * 1000)
        note("memory gained by lists (MiB)", peak_memory(served.process) - before)
        connection.close()
        for _ in range(rounds):
            note("creates (1/s)", measure_creates(served, creates))
    return figures


def summary(figures: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The medians and quartiles."""
    summed = {}
    for name, values in figures.items():
        low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        summed[name] = {"median": middle, "quartile_1": low, "quartile_3": high}
    return summed


@contextmanager
def databases() -> Iterator[dict[str, str | Path]]:
    """Make an empty database of each available kind."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        found: dict[str, str | Path] = {"SQLite": Path(directory) / "hub.db"}
        programs = find_postgres()
        if programs is not None:
            cluster = stack.enter_context(PostgresCluster(programs, settings=()))
            cluster.start()
            found["PostgreSQL"] = cluster.create_schema()
        yield found


def main(argv: list[str] | None = None, print_line: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--creates", type=int, default=100, help="creates per connection in a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    with databases() as found:
        figures = {
            kind: summary(measure(database, options.rows, options.rounds, options.creates))
            for kind, database in found.items()
        }
    if options.json:
        print_line(json.dumps({"rows": options.rows, "rounds": options.rounds, "figures": figures}, indent=2))
        return
    print_line(f"a hub of {options.rows:,} keys, one worker, medians of {options.rounds} rounds and quartiles")
    for kind, named in figures.items():
        print_line(kind)
        for name, figure in named.items():
            spread = f"{figure['quartile_1']:.2f}-{figure['quartile_3']:.2f}"
            print_line(f"  {name:32}{figure['median']:>10.2f}{spread:>22}")


if __name__ == "__main__":
    main()
