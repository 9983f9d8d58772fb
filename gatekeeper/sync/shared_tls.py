"""SharedTls: one TLS context for several sources."""

from gatekeeper.client import TlsContext
from gatekeeper.sync.sources import SharesTls, Source

__all__ = ("SharedTls",)


class SharedTls:
    """Gives sources one TLS context, made at the first connection."""

    def __init__(self) -> None:
        self._context = TlsContext()

    def share_with(self, source: Source) -> None:
        """Let a source use the context, if it can."""
        if isinstance(source, SharesTls):
            source.share_tls(self._context)
