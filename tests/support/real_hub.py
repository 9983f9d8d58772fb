"""The reference hub under uvicorn, in its own thread."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import uvicorn

from gatekeeper.hub import create_hub


class Served(NamedTuple):
    """The URL of the hub, and tokens of the account acme.

    Attributes:
        url: of the hub.
        token: of scope admin.
        gate_token: of scope gate.
    """

    url: str
    token: str
    gate_token: str


@contextmanager
def served_hub(directory: Path, url: str | None = None) -> Iterator[Served]:
    """Serve a hub with one account and no keys, on a file in a directory or on the PostgreSQL database of a URL."""
    ready: SimpleQueue[Served] = SimpleQueue()
    app = create_hub(directory / "hub.db" if url is None else url, pepper="the pepper of these tests")
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None))

    async def serve(listener: socket.socket) -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn does not signal that it is ready
            await asyncio.sleep(0.005)
        tokens = app.state.hub.tokens
        token, gate_token = await tokens.mint("acme", name="tests"), await tokens.mint("acme", name="gate", scope="gate")
        ready.put(Served("http://{}:{}".format(*listener.getsockname()), token, gate_token))
        await serving

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(serve(listener)), name="real hub")
        thread.start()
        try:
            yield ready.get(timeout=10)
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
