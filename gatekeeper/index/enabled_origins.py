"""EnabledOrigins: the origins that any enabled key allows.

Strict preflights without a key are decided by it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.allowlist import Allowlist, find_entry
from gatekeeper.matching.origins import Origin, is_secure

__all__ = ("EnabledOrigins", "IndexedKey")

Item = TypeVar("Item")


class IndexedKey(msgspec.Struct, frozen=True, gc=False):
    """A widget key with its compiled allowlist.

    Attributes:
        widget_key: the row.
        allowlist: the compiled entries of the row.
    """

    widget_key: WidgetKey
    allowlist: Allowlist


class EnabledOrigins:
    """The origins that any enabled key allows.

    Patterns are counted, so that keys can be added and removed one by one. One thread may do so while others ask.

    Args:
        https_only: whether origins over http are refused, except on loopback names.
    """

    def __init__(self, *, https_only: bool) -> None:
        self._https_only = https_only
        self._patterns: Counter[str] = Counter()
        self._bases: Counter[str] = Counter()
        self._base_lengths: Counter[int] = Counter()
        self._lengths: tuple[int, ...] = ()  # replaced as a whole, because readers iterate over it

    def add(self, key: IndexedKey) -> None:
        """Count the patterns of a key. A disabled key has none."""
        self._count(key, +1)

    def remove(self, key: IndexedKey) -> None:
        """Stop counting the patterns of a key that was added."""
        self._count(key, -1)

    def allows(self, origin: Origin) -> bool:
        """Whether any enabled key allows this origin."""
        if self._https_only and not is_secure(origin):
            return False
        return find_entry(origin, self._patterns, self._bases, self._lengths) is not None

    def _count(self, key: IndexedKey, by: int) -> None:
        if key.widget_key.disabled:
            return
        bases = key.allowlist.bases
        _count(self._patterns, key.allowlist.patterns, by)
        _count(self._bases, bases, by)
        _count(self._base_lengths, map(len, bases), by)
        if len(self._base_lengths) != len(self._lengths):
            self._lengths = tuple(sorted(self._base_lengths, reverse=True))


def _count(counter: Counter[Item], values: Iterable[Item], by: int) -> None:
    for value in values:
        counter[value] += by
        if not counter[value]:
            del counter[value]
