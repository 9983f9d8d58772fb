"""Listening on a socket, and closing every connection at the end."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ("listening",)


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None,
    address: tuple[str, int],
) -> AsyncIterator[str]:
    """Listen on a socket, and close every connection at the end.

    Args:
        serve: serves one connection.
        tls: the certificate, for a server with TLS.
        address: to listen on; port 0 for any free one.

    Returns:
        A context manager that gives the server's URL.

    Raises:
        OSError: if the address cannot be listened on.
    """
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.get_running_loop().create_task(converse(reader, writer))
        connections[connection] = writer
        connection.add_done_callback(connections.pop)

    server = await asyncio.start_server(connected, *address, ssl=tls)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{'http' if tls is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.close()
        left = connections.copy()
        for connection in left:
            connection.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for writer in left.values():  # tasks cancelled before they began close nothing
            writer.transport.abort()
