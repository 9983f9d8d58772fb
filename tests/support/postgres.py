"""A PostgreSQL server for tests, on a free port and in its own directory."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg import sql

from tests.support.starting import wait_until_ready

__all__ = ("PostgresCluster", "dump", "find_postgres")

PATIENCE: Final = 30.0  # seconds for a server to start
OWNER: Final = "postgres"  # PostgreSQL refuses to run as root; Debian's package makes this user.

# The data need not survive a power cut.
QUICK: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def find_postgres() -> Path | None:
    """Find the directory of PostgreSQL's programs."""
    found = shutil.which("initdb")
    # Debian has a directory for each version, outside of the path.
    installed = [Path(found).resolve()] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class PostgresCluster:
    """A server that can be restarted on the same port.

    Args:
        programs: the directory of initdb and postgres.
        settings: of the server.
    """

    def __init__(self, programs: Path, *, settings: tuple[str, ...] = QUICK) -> None:
        self._programs = programs
        self._settings = settings
        self._user = OWNER if os.geteuid() == 0 else None
        self._names = (f"hub_{number}" for number in count(1))
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Make the directory."""
        # Other users may not enter a directory of pytest.
        self._directory = Path(tempfile.mkdtemp(prefix="gatekeeper-postgres-"))
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        options = ["--auth=trust", f"--username={OWNER}", "--encoding=UTF8", "--no-sync", "--no-instructions"]
        self._run("initdb", f"--pgdata={self._directory / 'data'}", *options).check_returncode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server and remove everything."""
        self.stop()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = [*self._settings, "listen_addresses=127.0.0.1", f"unix_socket_directories={self._directory}"]
        command = [str(self._programs / "postgres"), "-D", str(self._directory / "data"), "-p", str(self.port)]
        self._server = subprocess.Popen(
            [*command, *(part for setting in settings for part in ("-c", setting))],
            user=self._user,
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        asking = ("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        wait_until_ready(self._server, lambda: self._run(*asking).returncode == 0, lambda: "PostgreSQL")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all processes of the server with SIGSTOP: it accepts connections, and answers nothing."""
        assert self._server is not None
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children")
        processes = [self._server.pid, *map(int, children.read_text(encoding="ascii").split())]
        try:
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        """Stop the server, closing all connections."""
        if self._server is not None:
            self._run("pg_ctl", "stop", "-D", str(self._directory / "data"), "-m", "fast")
            self._server.wait(PATIENCE)
            self._server = None

    @property
    def url(self) -> str:
        """The URL of a database that always exists."""
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/postgres"

    def create_schema(self) -> str:
        """Make a schema, which has a tenth of the files of a database; return its URL."""
        name = next(self._names)
        with psycopg.connect(self.url) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"{self.url}?options=-csearch_path%3D{name}"

    def create_database(self, *clauses: str, **settings: str) -> str:
        """Make a database with these clauses, and settings for its sessions; return its URL."""
        name = next(self._names)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {' '.join(clauses)}".encode())
            for setting, value in settings.items():
                connection.execute(f"ALTER DATABASE {name} SET {setting} = {value}".encode())
        return f"{self.url.rpartition('/')[0]}/{name}"

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(self._programs / program), *arguments]
        return subprocess.run(command, user=self._user, cwd=self._directory, capture_output=True, check=False)


def dump(url: str) -> bytes:
    """Read every row of every table, as text."""
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema").fetchall()
        rows = [
            connection.execute(sql.SQL("SELECT {0}::text FROM {0}").format(sql.Identifier(table))).fetchall()
            for (table,) in tables
        ]
    return repr(rows).encode()
