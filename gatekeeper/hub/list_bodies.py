"""ListBodies: the bodies of lists, each read once for many clients.

A body is read from the database as fast as the database can, into a spool, and sent from there as fast as each client can.
So a slow client holds no connection and no transaction, and fifty clients cost the database as much as one.

A client gets no list that is older than its request. It joins a body that has not begun to be read, or one of the same
revision as the list has at the time of the request. Only the use of the keys may be older, by at most SHARED_FOR.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec

from gatekeeper.errors import DatabaseDown
from gatekeeper.hub.rows import KeyRow
from gatekeeper.hub.spools import PIECE, Spool, Spools
from gatekeeper.hub.store import KeyStore
from gatekeeper.hub.turns import Turns

__all__ = ("ListBodies", "ListBody")

# Seconds for which others may join a body. Use that was reported since is missing from it.
SHARED_FOR: Final = 10.0

# Readers at once, of all accounts and of each. One holds a piece of the body, its connection and its task.
READERS: Final = 256
READERS_EACH: Final = 64

# Bodies that are read from the database at once, of all accounts and of each. Reading keeps a processor busy, so that two at
# once take twice as long. And all who come during the first one can share the second.
BODIES: Final = 5
BODIES_EACH: Final = 1

PATIENCE: Final = 4.0  # Seconds; a gate waits 5 s for the first byte.

# zlib's default of 6 makes this list a tenth smaller and takes twice as long.
_GZIP_LEVEL: Final = 1
_GZIP_FORMAT: Final = 31  # zlib's wbits: 15 for the largest window, plus 16 for the gzip header and trailer.


class ListBody:
    """The body of a list that is being sent.

    Args:
        spool: holds it.
        started_at: when it was asked for, in seconds.

    Attributes:
        etag: the ETag of the list; empty until it is known.
        has_begun: whether its state of the database may be fixed already.
        is_complete: whether all of it is in the spool.
        failure: why it cannot be completed, if it cannot.
        readers: the number of its readers.
        reading: the task that reads it from the database.
        scope: of this task, to cancel it.
    """

    reading: asyncio.Task[None]

    def __init__(self, spool: Spool, started_at: float) -> None:
        self.etag = ""
        self.has_begun = False
        self.is_complete = False
        self.failure: Exception | None = None
        self.readers = 0
        # A cancelled task would leave its thread, which writes to the file.
        self.scope = anyio.CancelScope()
        self.started_at = started_at
        self._spool = spool
        self._news = asyncio.Event()

    async def opened(self) -> None:
        """Wait until the ETag is known.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: the hub cannot read it in time.
        """
        while not self.etag:
            await self._next()

    async def begun(self) -> None:
        """Wait until it is certain that the disk takes the body.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: the disk is full, or the hub cannot read the list in time.
        """
        while not (self._spool.in_file or self.is_complete):
            await self._next()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Read the body from its beginning, as it comes in.

        Yields:
            Bytes, at most 256 KiB at once.

        Raises:
            DatabaseDown: the database has failed before the end.
            HubOverloaded: the disk is full.
        """
        sent = 0
        while not self.is_complete or sent < self._spool.length:
            # After the first one, full pieces alone: each costs a round through the server.
            if sent and not self.is_complete and self._spool.length < sent + PIECE:
                await self._next()
            elif chunk := await self._spool.read(sent):
                sent += len(chunk)
                yield chunk
            else:
                await self._next()

    async def write(self, keys: KeyStore, account: str, *, gzip: bool) -> None:
        """Read the list from the database into the spool."""
        self.has_begun = True
        async with keys.list(account) as opened:
            self.etag = opened.etag
            encoded = _encode(opened.pages)
            async for chunk in _compress(encoded) if gzip else encoded:
                pieces = self._spool.length // PIECE
                await self._spool.append(chunk)
                if self._spool.length // PIECE > pieces or not pieces:
                    self.tell()
        self.is_complete = True

    def tell(self) -> None:
        """Wake all who wait for news."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def close(self) -> None:
        """Stop reading, and give everything back."""
        self.scope.cancel()
        await asyncio.wait([self.reading])
        self._spool.close()

    async def _next(self) -> None:
        if self.failure is not None:
            raise self.failure
        await self._news.wait()


class ListBodies:
    """The bodies of lists that are being sent.

    Args:
        keys: the keys.
        spools: makes the spools.
        readers: the turns of those who read bodies.
        reading: the turns of bodies that are read from the database.
        shared_for: how long others may join a body, in seconds.
        clock: a function that returns seconds, which never go back.
    """

    def __init__(
        self,
        keys: KeyStore,
        *,
        spools: Spools | None = None,
        readers: Turns | None = None,
        reading: Turns | None = None,
        shared_for: float = SHARED_FOR,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._spools = spools or Spools()
        self._readers = readers or Turns(READERS, "to receive the list", patience=PATIENCE, each=READERS_EACH)
        self._reading = reading or Turns(BODIES, "to read the list", patience=PATIENCE, each=BODIES_EACH)
        self._shared_for = shared_for
        self._clock = clock
        self._newest: dict[tuple[str, bool], ListBody] = {}
        self._open: set[ListBody] = set()

    @asynccontextmanager
    async def reading(self, account: str, etag: str, *, gzip: bool) -> AsyncIterator[ListBody]:
        """Open the body of a list.

        Args:
            account: the account.
            etag: the ETag that the list has now. The body has this one or a later one.
            gzip: whether the body is compressed.

        Yields:
            The body, whose first bytes are there.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: there are too many readers, or too many lists, or the disk is full.
        """
        async with self._readers.taking(account):
            body = await self._join(account, etag, gzip=gzip)
            try:
                await body.begun()
                yield body
            finally:
                await self._leave(body)

    async def close(self) -> None:
        """Stop all reading. Requests that still wait for a body get no more of it."""
        for body in self._open:
            body.scope.cancel()
        if self._open:
            await asyncio.wait([body.reading for body in self._open])

    async def _join(self, account: str, etag: str, *, gzip: bool) -> ListBody:
        while True:
            body = self._newest.get((account, gzip))
            if body is None or not self._is_joinable(body):
                body = self._start(account, gzip=gzip)
            is_later = not body.has_begun
            body.readers += 1
            try:
                await body.opened()
            except BaseException:
                await self._leave(body)
                raise
            if is_later or body.etag == etag:
                return body
            self._forget(body)
            await self._leave(body)

    def _is_joinable(self, body: ListBody) -> bool:
        is_recent = not body.has_begun or self._clock() - body.started_at < self._shared_for
        return is_recent and body.failure is None

    def _start(self, account: str, *, gzip: bool) -> ListBody:
        body = ListBody(self._spools.new(account), self._clock())
        body.reading = asyncio.create_task(self._read(body, account, gzip=gzip))
        self._newest[account, gzip] = body
        self._open.add(body)
        return body

    async def _read(self, body: ListBody, account: str, *, gzip: bool) -> None:
        try:
            with body.scope:
                async with self._reading.taking(account):
                    await body.write(self._keys, account, gzip=gzip)
        except Exception as error:  # noqa: BLE001 - its readers raise it
            body.failure = error
        finally:
            if not body.is_complete and body.failure is None:
                body.failure = DatabaseDown("the hub stops")
            body.tell()

    async def _leave(self, body: ListBody) -> None:
        body.readers -= 1
        if not body.readers:
            self._forget(body)
            # The last reader may have been cancelled.
            with anyio.CancelScope(shield=True):
                await body.close()
            self._open.discard(body)

    def _forget(self, body: ListBody) -> None:
        """Let no one else join a body."""
        for key in [key for key, newest in self._newest.items() if newest is body]:
            del self._newest[key]


async def _encode(pages: AsyncIterator[list[KeyRow]]) -> AsyncIterator[bytes]:
    encoder = msgspec.json.Encoder()
    before = b"["
    async for rows in pages:
        yield before + encoder.encode(rows)[1:-1]
        before = b","
    yield b"]" if before == b"," else b"[]"


async def _compress(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    compressor = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)
    async for chunk in chunks:
        # zlib releases the GIL, so a thread keeps the event loop free for other requests.
        yield await anyio.to_thread.run_sync(compressor.compress, chunk)
    yield compressor.flush()
