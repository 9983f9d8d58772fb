"""Indexes, rows, and lists that change an index."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gatekeeper import InvalidRow, Origin, WidgetKey
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import ListDiff, load
from gatekeeper.index.packed import SLOT, drain, id_of
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.matching.allowlist import Allowlist

FIRST = ClientKey.parse("pk_live_acme_first-0123456789")
SECOND = ClientKey.parse("pk_live_acme_second-0123456789")
THIRD = ClientKey.parse("pk_live_acme_third-0123456789")
OTHER = ClientKey.parse("pk_live_acme_other-abcdefghij")
STRANGER = ClientKey.parse("pk_live_globex_first-0123456789")
LAST8 = FIRST.last8
assert {key.last8 for key in (FIRST, SECOND, THIRD, STRANGER)} == {LAST8} != {OTHER.last8}

Listed = WidgetKey | InvalidRow

CLIENT_KEYS = (FIRST, SECOND, THIRD, OTHER, STRANGER)
ENTRIES = ("acme.com", "*.acme.com", "https://*.acme.com:8443", "*.shop.test", "shop.test:*", "localhost:*", "*", "")
ORIGINS = tuple(
    Origin.parse(origin)
    for origin in (
        "https://acme.com",
        "http://acme.com",
        "https://a.acme.com",
        "http://a.acme.com",
        "https://a.acme.com:8443",
        "https://a.shop.test",
        "https://shop.test:81",
        "http://localhost:3000",
        "https://unlike.test",
    )
)


def row(
    row_id: str,
    client_key: ClientKey = FIRST,
    *entries: str,
    digest: bool = False,
    disabled_at: object = None,
    name: str | None = None,
) -> WidgetKey:
    """Make a row for a client key."""
    return WidgetKey(
        row_id,
        name,
        client_key.last8,
        entries or ("acme.com",),
        disabled_at=disabled_at,
        key_sha256=client_key.sha256() if digest else None,
    )


def used(widget_key: WidgetKey) -> WidgetKey:
    """The row after its key was used."""
    return msgspec.structs.replace(widget_key, last_used_at="2026-11-22T00:00:00Z")


def nested() -> object:
    """A list nested too deeply to be packed."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    return value


def compiled(widget_key: WidgetKey) -> IndexedKey:
    """The key with its compiled allowlist."""
    return IndexedKey(widget_key, Allowlist.parse(widget_key.domain_allowlist))


def unreadable(row_id: str | None, disabled_at: object = None) -> InvalidRow:
    """Make an unreadable row."""
    return InvalidRow(0, "unreadable", row_id=row_id, disabled_at=disabled_at)


def compare(index: KeyIndex, rows: Iterable[Listed], **options: Any) -> ChangeSet:
    """Compare a list with an index."""
    diff = ListDiff(index, **options)
    diff.add_rows(rows)
    return drain(diff.finish())


def apply(index: KeyIndex, rows: Iterable[Listed]) -> ChangeSet:
    """Apply a list to an index."""
    changes = compare(index, rows)
    drain(changes.apply())
    return changes


class WatchedIndex(KeyIndex):
    """An index that records replacements and walks.

    Attributes:
        replaced: the ids of the keys whose rows were replaced, in order.
        walks: the number of walks begun.
    """

    def __init__(self, *, account: str | None = None, https_only: bool = False) -> None:
        super().__init__(account=account, https_only=https_only)
        self.replaced: list[str] = []
        self.walks = 0

    def replace(self, packed: bytes) -> None:
        """Record the id, then replace the row."""
        self.replaced.append(id_of(packed))
        super().replace(packed)

    def walk(self) -> Iterator[list[tuple[str, bytes]]]:
        """Count the walk, then begin it."""
        self.walks += 1
        return super().walk()


def index_of(*rows: WidgetKey, account: str | None = None, https_only: bool = False) -> WatchedIndex:
    """Make an index of these rows."""
    index = WatchedIndex(account=account, https_only=https_only)
    load(index, rows)
    return index


def known_as(index: KeyIndex, row_id: str) -> IndexedKey | None:
    """The key with this id."""
    widget_key = next((each for each in index if each.id == row_id), None)
    return None if widget_key is None else index.get(widget_key.last8, row_id)


def packed_size(widget_key: WidgetKey) -> int:
    """The size of a packed row in bytes."""
    return len(msgspec.msgpack.encode(msgspec.structs.astuple(widget_key)))


def resolved(index: KeyIndex, client_key: ClientKey) -> str:
    """The id that a client key resolves to, otherwise the reason."""
    found = index.resolve(client_key)
    return found if isinstance(found, str) else found.widget_key.id


def by_id(index: KeyIndex) -> dict[str, WidgetKey]:
    """The rows of an index by id, which must be unique."""
    keys = list(index)
    assert len({each.id for each in keys}) == len(keys) == len(index)
    return {each.id: each for each in keys}


def decisions(index: KeyIndex) -> dict[str, object]:
    """Everything that an index can answer."""

    def known(found: IndexedKey | str | None) -> object:
        return (
            (found.widget_key, [found.allowlist.match(page) for page in ORIGINS]) if isinstance(found, IndexedKey) else found
        )

    return {
        "rows": sorted((each.id, repr(each)) for each in index),
        "by row": {row_id: known(known_as(index, row_id)) for row_id in "abcdef"},
        "resolved": {key.value: known(index.resolve(key)) for key in CLIENT_KEYS},
        "ambiguous": set(index.ambiguous()),
        "enabled origins": [index.enabled_origins().allows(page) for page in ORIGINS],
        "size": len(index),
        "slots": len({packed[:SLOT] for step in index.walk() for _, packed in step}),
    }
