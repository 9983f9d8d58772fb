"""Serve a hub with uvicorn, in one process or several."""

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple, cast

from starlette.applications import Starlette

from gatekeeper.cli.output import USAGE, stop
from gatekeeper.cli.pepper import PEPPER_VARIABLE
from gatekeeper.matching.hosts import MAX_PORT

if sys.platform != "win32":
    import resource

__all__ = (
    "DATABASE_VARIABLE",
    "LISTEN_DATABASE_VARIABLE",
    "Address",
    "collect_garbage_seldom",
    "hub_from_environment",
    "raise_file_limit",
    "read_address",
    "require_free",
    "require_server",
    "serve",
)

DATABASE_VARIABLE = "GATEKEEPER_DATABASE"
LISTEN_DATABASE_VARIABLE = "GATEKEEPER_LISTEN_DATABASE"
# Between two collections of the youngest objects, which take 5 ms; and such collections between two of the next generation.
# Python's own 700 and 10 suit programs with few objects.
NEW_OBJECTS, COLLECTIONS = 5_000, 100
GRACE = 10  # seconds for open requests to finish; orchestrators kill after 10 (Docker) to 30 (Kubernetes)


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        host: a name or an IP address, without brackets.
        port: 0 for any free one.
    """

    host: str
    port: int


def require_server() -> None:
    """Exit with the pip command if uvicorn is missing."""
    if find_spec("uvicorn") is None:
        stop(USAGE, "serving a hub needs the extra `hub`: pip install 'widget-gatekeeper[cli,hub]'")


def read_address(text: str) -> Address:
    """Parse host:port, or exit."""
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare) != host.startswith("[") or not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        stop(USAGE, f"--listen is {text!r}: expected host:port, such as 127.0.0.1:8700 or [::1]:8700")
    return Address(bare, int(port))


def require_free(address: Address) -> None:
    """Exit if the address cannot be bound."""
    try:
        family, _, _, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        stop(USAGE, f"cannot listen on {address.host}:{address.port}: {error.strerror}")


def serve(database: str, listen_database: str | None, pepper: str, address: Address, *, workers: int) -> None:
    """Serve a hub until SIGTERM or SIGINT. Open requests are answered first.

    Args:
        database: the path of a SQLite file, or the URL of a PostgreSQL database.
        listen_database: as for `create_hub`.
        pepper: the pepper of the database.
        address: where to listen.
        workers: the number of processes.
    """
    import uvicorn  # noqa: PLC0415 - an extra of its own

    from gatekeeper.cli.http_protocol import MAX_HEAD, BoundedHttp, Lanes  # noqa: PLC0415 - imports uvicorn

    # Pass these to the workers in the environment: all users of the machine can read the arguments of a process.
    os.environ[DATABASE_VARIABLE] = database
    os.environ[PEPPER_VARIABLE] = pepper
    if listen_database is not None:
        os.environ[LISTEN_DATABASE_VARIABLE] = listen_database
    for ending in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again after its shutdown, which was requested and succeeded: exit with 0.
        signal.signal(ending, lambda *_: sys.exit(0))
    uvicorn.run(
        f"{__name__}:{hub_from_environment.__name__}",
        factory=True,
        host=address.host,
        port=address.port,
        workers=workers,
        http=cast("type[BoundedHttp]", partial(BoundedHttp, lanes=Lanes())),  # uvicorn only calls it
        h11_max_incomplete_event_size=MAX_HEAD,
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )


def hub_from_environment() -> Starlette:
    """Make the hub from the environment that `serve` has set."""
    from gatekeeper.hub import create_hub  # noqa: PLC0415 - an extra of its own
    from gatekeeper.hub.waiters import MAX_WAITING  # noqa: PLC0415 - the same

    collect_garbage_seldom()
    return create_hub(
        os.environ[DATABASE_VARIABLE],
        pepper=os.environ[PEPPER_VARIABLE],
        listen_database=os.environ.get(LISTEN_DATABASE_VARIABLE),
        # A request that waits has a connection. A hub without a free one would answer no others.
        max_waiting=min(MAX_WAITING, raise_file_limit() * 3 // 4),
    )


def collect_garbage_seldom() -> None:
    """Walk seldom through the objects that live for long.

    A request that waits keeps 18 KB of objects, through all of which each full collection walks. That took two fifths of the
    processor time of telling 1,000 of a change, and more than half with 5,000. What has been imported is left out: it stays.
    The event loop stops during each collection, so those of young objects are kept short.
    """
    gc.set_threshold(NEW_OBJECTS, COLLECTIONS)
    gc.freeze()


def raise_file_limit() -> int:
    """Raise the limit of open files as far as this process may.

    It bounds the connections.

    Returns:
        The limit.
    """
    if sys.platform == "win32":
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS allows fewer files than a hard limit of infinity.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
