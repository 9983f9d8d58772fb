"""SharedReads: one read of the database for all requests that ask meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Generic, TypeVar

__all__ = ("SharedReads",)

Key = TypeVar("Key")
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """Reads of single values, several of which are made as one.

    A read begins after all requests that share it. So none of them gets a value from before it asked.

    Args:
        read: reads the values of several keys. It leaves out the keys that have none.
    """

    def __init__(self, read: Callable[[Collection[Key]], Awaitable[Mapping[Key, Value]]]) -> None:
        self._read = read
        self._asked: set[Key] = set()
        self._answer: asyncio.Future[Mapping[Key, Value]] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> Value | None:
        """Read a value, together with what others ask for.

        Args:
            key: the key.

        Returns:
            The value; None if there is none.

        Raises:
            Exception: what `read` raised.
        """
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
        self._asked.add(key)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_all())
        # One of several that ask may be cancelled.
        return (await asyncio.shield(self._answer)).get(key)

    async def close(self) -> None:
        """Wait for a read that runs."""
        reading, self._reading = self._reading, None
        if reading is not None and not reading.done():
            await asyncio.wait([reading])

    async def _read_all(self) -> None:
        while (answer := self._answer) is not None:
            asked, self._asked, self._answer = self._asked, set(), None
            try:
                answer.set_result(await self._read(asked))
            except Exception as error:  # noqa: BLE001 - those who asked raise it
                answer.set_exception(error)
                answer.exception()  # all of them may have been cancelled
