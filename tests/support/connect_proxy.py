"""A proxy that tunnels to one server, whatever host it is asked for."""

import asyncio

from .fault_proxy import FaultProxy

__all__ = ("ConnectProxy",)


class ConnectProxy(FaultProxy):
    """Answers CONNECT (RFC 9110 section 9.3.6), and forwards bytes to an upstream.

    Args:
        upstream: URL of the server at the end of every tunnel.

    Attributes:
        heads: the heads of the CONNECT requests, in order.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.heads: list[str] = []
        self._scheme = "http"

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode("latin-1"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await super()._connect(reader, writer)
