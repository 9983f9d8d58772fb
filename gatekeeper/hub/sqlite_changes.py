"""SqliteChanges: tells a hub that another program has changed its file."""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from gatekeeper.errors import DatabaseDown, HubOverloaded
from gatekeeper.hub.changes import Watch

__all__ = ("SqliteChanges",)

INTERVAL: Final = 0.5  # Seconds; a look takes some 10 µs.


class SqliteChanges:
    """Looks at the version of a file while a request waits.

    SQLite counts the commits of all other connections, also of this process (https://www.sqlite.org/pragma.html, section
    data_version). The counts of two connections cannot be compared, so one connection stays open. It holds no more than the
    shared lock of the others.

    Args:
        path: the file.
        interval: the time between two looks, in seconds.
    """

    def __init__(self, path: Path, *, interval: float = INTERVAL) -> None:
        self._path = path
        self._interval = interval
        self._connection: sqlite3.Connection | None = None

    async def follow(self, watch: Watch) -> None:
        """Tell of changes until cancelled.

        Args:
            watch: who is told.
        """
        seen = None
        reading = None
        try:
            while True:
                await watch.begun()
                reading = asyncio.create_task(asyncio.to_thread(self._read_version))
                version = await asyncio.shield(reading)
                with suppress(DatabaseDown, HubOverloaded):
                    # What cannot be read counts as changed. That look fails, too, and the next one comes soon.
                    if version is None or version != seen:
                        await watch.look_at_all()
                    seen = version
                await asyncio.sleep(self._interval)
        finally:
            if reading is not None:
                await asyncio.wait([reading])  # its thread uses the connection
            self._close()

    def _read_version(self) -> int | None:
        try:
            if self._connection is None:
                # A connection of the default mode would create a file that is missing.
                location = f"{self._path.absolute().as_uri()}?mode=rw"
                self._connection = sqlite3.connect(location, uri=True, timeout=0, check_same_thread=False)
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            self._close()
            return None
        return int(version)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
