"""TlsContext: the TLS context that several httpx clients share."""

import ssl

import httpx

__all__ = ("TlsContext",)


class TlsContext:
    """The TLS context of httpx clients, made at the first use.

    Reading the CA certificates blocks the event loop for 20 ms, and they take 0.7 MiB.
    """

    def __init__(self) -> None:
        self._made: ssl.SSLContext | None = None

    def get(self) -> ssl.SSLContext:
        """The context. It verifies certificates and host names, and reads no environment variable."""
        if self._made is None:
            self._made = httpx.create_ssl_context(trust_env=False)
        return self._made
