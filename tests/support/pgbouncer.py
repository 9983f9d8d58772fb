"""PgBouncer in transaction mode before a PostgreSQL server, on a free port."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.postgres import OWNER, PostgresCluster
from tests.support.starting import accepts, wait_until_ready

__all__ = ("find_pgbouncer", "pooled")

# Two connections to the server, so that those of several clients take turns on them.
CONFIG = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = 2
"""


def find_pgbouncer() -> str | None:
    """Find the program."""
    return shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")


@contextmanager
def pooled(program: str, cluster: PostgresCluster) -> Iterator[str]:
    """Run PgBouncer before a server, and give the URL of its databases, without a name."""
    directory = Path(tempfile.mkdtemp(prefix="gatekeeper-pgbouncer-"))  # other users may not enter a directory of pytest
    user = OWNER if os.geteuid() == 0 else None  # PgBouncer refuses to run as root
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = directory / "pgbouncer.ini"
    config.write_text(CONFIG.format(server=cluster.port, port=port, directory=directory))
    (directory / "users").write_text(f'"{OWNER}" ""\n')
    if user is not None:
        shutil.chown(directory, user)
    output = subprocess.DEVNULL
    process = subprocess.Popen([program, str(config)], user=user, cwd=directory, stdout=output, stderr=output)
    try:
        wait_until_ready(process, lambda: accepts(port), lambda: "PgBouncer")
        yield f"postgresql://{OWNER}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(directory)
