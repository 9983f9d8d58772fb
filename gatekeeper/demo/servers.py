"""Apps served on loopback, several in one event loop."""

import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

__all__ = ("listen", "serving")

LOOPBACK = "127.0.0.1"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave Ctrl-C to the event loop, which ends all servers at once."""
        yield


def listen(port: int) -> socket.socket:
    """A listening socket on loopback.

    Args:
        port: the port to take; another free one is taken where it is in use, and for 0.

    Returns:
        The socket.
    """
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError:
        return socket.create_server((LOOPBACK, 0))


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[str]:
    """Serve an app for as long as the context lasts.

    Args:
        app: the app; its lifespan is run.
        listener: the socket to serve on; it is closed afterwards.

    Yields:
        The app's URL, once it answers.
    """
    # Not the default implementation of WebSockets, which logs an error for every refusal (Kludex/uvicorn#3138).
    config = uvicorn.Config(app, ws="wsproto", log_level="warning", timeout_graceful_shutdown=1)
    server = _Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await anyio.sleep(0.01)
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        server.should_exit = True
