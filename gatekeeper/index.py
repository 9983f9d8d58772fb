"""KeyIndex: every widget key of the account, in memory, resolved by the last 8 characters of a client key."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

import msgspec

from gatekeeper.allowlist import Allowlist, find_entry, is_secure
from gatekeeper.decisions import Reason
from gatekeeper.keys import ClientKey, WidgetKey
from gatekeeper.origins import Origin

__all__ = ("Difference", "EnabledOrigins", "IndexedKey", "KeyIndex")

Counted = TypeVar("Counted")


class IndexedKey(msgspec.Struct, frozen=True):
    """A widget key, ready to be asked about pages.

    Attributes:
        widget_key: the row.
        allowlist: its entries, compiled.
    """

    widget_key: WidgetKey
    allowlist: Allowlist


class KeyIndex:
    """Every widget key of the account.

    Args:
        account: the account that client keys have to name; None where it is not known.
        https_only: allow no page over http, except on loopback names.
    """

    def __init__(self, *, account: str | None = None, https_only: bool = False) -> None:
        self.account = account
        self._https_only = https_only
        self._by_id: dict[str, IndexedKey] = {}
        self._by_last8: dict[str, tuple[IndexedKey, ...]] = {}
        self._enabled_origins: EnabledOrigins | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[IndexedKey]:
        return iter(self._by_id.values())

    def get(self, row_id: str) -> IndexedKey | None:
        """The key with this id."""
        return self._by_id.get(row_id)

    def resolve(self, client_key: ClientKey) -> IndexedKey | Literal[Reason.KEY_UNKNOWN, Reason.KEY_AMBIGUOUS]:
        """Find out whose key this is.

        Args:
            client_key: the key that a page sent.

        Returns:
            The one row that it can be. A row that tells its key's digest is it, or is not; of rows that tell none,
            one with the same last 8 characters is taken for it, and several cannot be told apart.
        """
        if self.account not in (None, client_key.account):
            return Reason.KEY_UNKNOWN
        candidates = self._by_last8.get(client_key.last8, ())
        if any(known.widget_key.key_sha256 for known in candidates):
            digest = client_key.sha256()
            proven = tuple(known for known in candidates if known.widget_key.key_sha256 == digest)
            candidates = proven or tuple(known for known in candidates if known.widget_key.key_sha256 is None)
        if not candidates:
            return Reason.KEY_UNKNOWN
        return candidates[0] if len(candidates) == 1 else Reason.KEY_AMBIGUOUS

    def ambiguous(self) -> tuple[str, ...]:
        """The last 8 characters of the client keys that `resolve` cannot tell apart."""
        return tuple(last8 for last8, known in self._by_last8.items() if len(known) > 1 and _collide(known))

    def compile(self, widget_key: WidgetKey) -> IndexedKey:
        """Make a row ready for the index, which takes much longer than anything that is done with it afterwards."""
        return IndexedKey(widget_key, Allowlist.parse(widget_key.domain_allowlist, https_only=self._https_only))

    def apply(self, difference: "Difference") -> None:
        """Change what a complete list changes, and touch nothing else."""
        for known in difference.removed:
            self._remove(known)
        for fresh in difference.put.values():
            if (known_before := self._by_id.get(fresh.widget_key.id)) is not None:
                self._remove(known_before)
            self._add(fresh)

    def enabled_origins(self) -> "EnabledOrigins":
        """What the enabled keys allow between them, kept up to date from the first call on."""
        if self._enabled_origins is None:
            self._enabled_origins = EnabledOrigins(https_only=self._https_only)
            for known in self:
                self._enabled_origins.count(known, +1)
        return self._enabled_origins

    def _add(self, fresh: IndexedKey) -> None:
        last8 = fresh.widget_key.last8
        self._by_id[fresh.widget_key.id] = fresh
        self._by_last8[last8] = (*self._by_last8.get(last8, ()), fresh)
        if self._enabled_origins is not None:
            self._enabled_origins.count(fresh, +1)

    def _remove(self, known: IndexedKey) -> None:
        last8 = known.widget_key.last8
        del self._by_id[known.widget_key.id]
        others = tuple(other for other in self._by_last8[last8] if other is not known)
        if others:
            self._by_last8[last8] = others
        else:
            del self._by_last8[last8]
        if self._enabled_origins is not None:
            self._enabled_origins.count(known, -1)


class Difference:
    """What a list changes in an index, worked out row by row before anything is changed.

    Args:
        index: the index that the list will be applied to.

    Attributes:
        put: the keys that are new or have changed, by id.
        duplicate_ids: the ids that came more than once.
    """

    def __init__(self, index: KeyIndex) -> None:
        self._index = index
        self._seen: dict[str, WidgetKey] = {}
        self.put: dict[str, IndexedKey] = {}
        self.duplicate_ids: set[str] = set()

    def see(self, row: WidgetKey) -> None:
        """Take the next row into account. Of two rows with one id a disabled one stands, else the first."""
        before = self._seen.get(row.id)
        if before is not None:
            self.duplicate_ids.add(row.id)
            if before.disabled or not row.disabled:
                return
        self._seen[row.id] = row
        known = self._index.get(row.id)
        if known is not None and known.widget_key == row:
            self.put.pop(row.id, None)
        else:
            self.put[row.id] = self._index.compile(row)

    def keep(self, row_id: str, disabled_at: object = None) -> None:
        """Leave a key as it is, because the list has a row for it that cannot be read.

        Args:
            row_id: whose row it is.
            disabled_at: what can be read of it; a revocation counts, whatever else is wrong with the row.
        """
        known = self._index.get(row_id)
        if known is None or row_id in self._seen:
            return
        self._seen[row_id] = known.widget_key
        if disabled_at is not None and not known.widget_key.disabled:
            revoked = msgspec.structs.replace(known.widget_key, disabled_at=disabled_at)
            self.put[row_id] = IndexedKey(revoked, known.allowlist)

    @property
    def removed(self) -> list[IndexedKey]:
        """The keys that the list no longer has; true once it is complete."""
        return [known for known in self._index if known.widget_key.id not in self._seen]

    @property
    def added(self) -> int:
        """How many keys are new."""
        return sum(self._index.get(row_id) is None for row_id in self.put)


class EnabledOrigins:
    """What all enabled keys allow between them, counted so that keys can come and go.

    Args:
        https_only: as for the keys' own allowlists.
    """

    def __init__(self, *, https_only: bool) -> None:
        self._https_only = https_only
        self._patterns: Counter[str] = Counter()
        self._bases: Counter[str] = Counter()
        self._base_lengths: Counter[int] = Counter()

    def count(self, known: IndexedKey, by: Literal[1, -1]) -> None:
        """Count a key's patterns in or out; a disabled key has none."""
        if known.widget_key.disabled:
            return
        bases = known.allowlist.bases
        _count(self._patterns, known.allowlist.patterns, by)
        _count(self._bases, bases, by)
        _count(self._base_lengths, map(len, bases), by)

    def allows(self, origin: Origin) -> bool:
        """Whether some enabled key allows this origin."""
        if self._https_only and not is_secure(origin):
            return False
        return find_entry(origin, self._patterns, self._bases, self._base_lengths) is not None


def _count(counter: Counter[Counted], values: Iterable[Counted], by: int) -> None:
    for value in values:
        counter[value] += by
        if not counter[value]:
            del counter[value]


def _collide(known: tuple[IndexedKey, ...]) -> bool:
    digests = [key.widget_key.key_sha256 for key in known]
    return len(set(digests)) < len(digests)
