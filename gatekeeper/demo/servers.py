"""Serves several apps on loopback in one event loop."""

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
        """Leave Ctrl-C to the event loop, which stops all servers together."""
        yield


def listen(port: int) -> socket.socket:
    """Open a listening socket on loopback.

    Args:
        port: the port; if it is in use or 0, a free one is chosen.

    Returns:
        The socket.
    """
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError:
        return socket.create_server((LOOPBACK, 0))


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[str]:
    """Serve an app while the context is open.

    Args:
        app: the app, whose lifespan is run.
        listener: the socket to serve on, which is closed at the end.

    Yields:
        The app's URL, once it answers.
    """
    # The default WebSocket implementation logs an error for every refusal (Kludex/uvicorn#3138).
    config = uvicorn.Config(app, ws="wsproto", log_level="warning", timeout_graceful_shutdown=1)
    server = _Server(config)
    raised: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for that
            await anyio.sleep(0.01)
        try:
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        except Exception as error:  # noqa: BLE001 - raised below; here it would cancel the server's shutdown
            raised = error
        server.should_exit = True
    if raised is not None:
        raise raised
