"""StaticSource: rows that never change."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from gatekeeper.client import Listing
from gatekeeper.errors import ConfigError, InvalidRow
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.sync.sources import Basis, FullList, Unchanged, Updates

__all__ = ("StaticSource",)


class StaticSource:
    """Rows that never change, for tests and tools.

    Args:
        rows: widget keys, or mappings with the fields that the hub's JSON has.
        account: the account that client keys have to name; None for any.

    Attributes:
        rows: the widget keys.

    Raises:
        ConfigError: with one sentence for each row that is not a widget key.
    """

    never_changes: Literal[True] = True
    suffix_field = "last8"

    def __init__(self, rows: Iterable[WidgetKey | Mapping[str, Any]], *, account: str | None = None) -> None:
        self.account = account
        reader = RowReader()
        keys: list[WidgetKey] = []
        problems = []
        for index, row in enumerate(rows):
            try:
                keys.append(reader.convert(index, row))
            except InvalidRow as error:
                problems.append(str(error))
        if problems:
            raise ConfigError(problems)
        self.rows: Sequence[WidgetKey] = keys

    @property
    def fingerprint(self) -> str:
        """See Source."""
        return hashlib.blake2b(msgspec.json.encode(self.rows), digest_size=16).hexdigest()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Keep nothing open: the rows are in memory."""
        yield self._updates

    @asynccontextmanager
    async def _updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged]:
        validator = self.fingerprint
        is_known = basis.validator == validator
        yield Unchanged() if is_known else FullList(Listing.whole(msgspec.json.encode(self.rows), validator))
