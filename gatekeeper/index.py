"""KeyIndex: every widget key of the account, in memory, resolved by the last 8 characters of a client key.

Rows are kept packed, as bytes that the garbage collector never visits, and unpacked when a page asks for one: that takes
half the memory of typed rows (DESIGN 11). Whatever walks over all of them does so in steps of about a millisecond.
"""

from array import array
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from itertools import islice
from threading import Lock
from typing import Any, Literal, TypeVar

import msgspec
from cachetools import FIFOCache

from gatekeeper.allowlist import Allowlist, find_entry, is_secure
from gatekeeper.decisions import Reason
from gatekeeper.errors import InvalidRow, RowReason
from gatekeeper.keys import ClientKey, WidgetKey
from gatekeeper.origins import Origin

__all__ = ("Difference", "EnabledOrigins", "IndexedKey", "KeyIndex")

# Keys that are kept unpacked and compiled, at about 2 KB each: as many as the memo of decisions can hold twice over.
READY = 4096
STEP = 512  # keys
SHOWN = 10  # rows that cannot be read, and are told about
SLOT = 4  # bytes that number a key, before its packed row
BUCKETS = 256  # of ids, each small enough to be looked through in one step
MAX_PACKED = 64 * 1024  # bytes; 100 entries of the usual length take 3 KB
# Two of a million random keys have the same last 8 of 64 characters with a chance of 0.2 %. Where more than these have
# them, they are no random characters, and to look at all of them at every page would take long.
MAX_NAMESAKES = 16

Item = TypeVar("Item")


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

    Attributes:
        slots: how many numbers have been given to keys; the next new key gets this one, or a free one below it.
    """

    def __init__(self, *, account: str | None = None, https_only: bool = False) -> None:
        self.account = account
        self.slots = 0
        self._https_only = https_only
        self._packed: dict[str, bytes] = {}
        # Apart from the others, so that the garbage collector has nothing to visit there; by last 8, and then by id.
        self._namesakes: dict[str, dict[str, bytes]] = {}
        self._free_slots: list[int] = []
        self._count = 0
        self._ready: FIFOCache[bytes, IndexedKey] = FIFOCache(READY)
        self._ready_lock = Lock()
        self._enabled_origins: EnabledOrigins | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[WidgetKey]:
        return (_unpack(packed) for step in self.walk() for _, packed in step)

    def resolve(self, client_key: ClientKey) -> IndexedKey | Literal[Reason.KEY_UNKNOWN, Reason.KEY_AMBIGUOUS]:
        """Find out whose key this is.

        Args:
            client_key: the key that a page sent.

        Returns:
            The one row that it can be. A row that tells its key's digest is it, or is not; of rows that tell none,
            one with the same last 8 characters is taken for it, and several cannot be told apart, nor can more than 16
            of whatever kind.
        """
        if self.account not in (None, client_key.account):
            return Reason.KEY_UNKNOWN
        if len(self._namesakes.get(client_key.last8, ())) > MAX_NAMESAKES:
            return Reason.KEY_AMBIGUOUS
        candidates = [self._make_ready(packed) for packed in self.with_last8(client_key.last8)]
        if any(known.widget_key.key_sha256 for known in candidates):
            digest = client_key.sha256()
            proven = [known for known in candidates if known.widget_key.key_sha256 == digest]
            candidates = proven or [known for known in candidates if known.widget_key.key_sha256 is None]
        if not candidates:
            return Reason.KEY_UNKNOWN
        return candidates[0] if len(candidates) == 1 else Reason.KEY_AMBIGUOUS

    def get(self, widget_key: WidgetKey) -> IndexedKey | None:
        """The key as it is now; None if it is gone.

        Args:
            widget_key: how it once was.
        """
        packed = self.find(widget_key.last8, widget_key.id)
        return None if packed is None else self._make_ready(packed)

    def ambiguous(self) -> tuple[str, ...]:
        """The last 8 characters of the client keys that `resolve` cannot tell apart."""
        return tuple(last8 for last8, namesakes in self._namesakes.items() if _collide(namesakes.values()))

    def enabled_origins(self) -> "EnabledOrigins":
        """What the enabled keys allow between them, kept up to date from the first call on."""
        if self._enabled_origins is None:
            self._enabled_origins = EnabledOrigins(https_only=self._https_only)
            for key in self:
                self._enabled_origins.count(self._compile(key), +1)
        return self._enabled_origins

    def with_last8(self, last8: str) -> tuple[bytes, ...]:
        """The keys with these last 8 characters, each as the number of its slot and its packed row."""
        packed = self._packed.get(last8)
        return tuple(self._namesakes.get(last8, {}).values()) if packed is None else (packed,)

    def candidate(self, last8: str, row_id: str) -> bytes | None:
        """The only key with these last 8 characters, or of several the one with this id, packed; None if there is none."""
        packed = self._packed.get(last8)
        return self._namesakes.get(last8, {}).get(row_id) if packed is None else packed

    def find(self, last8: str, row_id: str) -> bytes | None:
        """The key with these last 8 characters and this id, packed; None if there is none."""
        packed = self.candidate(last8, row_id)
        return None if packed is None or _id(packed) != row_id else packed

    def walk(self) -> Iterator[list[tuple[str, bytes]]]:
        """Every key's last 8 characters and packed row, in steps.

        Raises:
            RuntimeError: if keys come or go before the last step.
        """
        yield from _steps(self._packed.items())
        yield from _steps((last8, packed) for last8, others in self._namesakes.items() for packed in others.values())

    def load(self, rows: Iterable[WidgetKey]) -> None:
        """Put a complete list into an index, all at once.

        Args:
            rows: the list.
        """
        difference = Difference(self)
        difference.see(rows)
        for steps in (difference.finish(), self.apply(difference)):
            for _ in steps:
                pass

    def clear(self) -> None:
        """Drop every key."""
        for step in list(self.walk()):
            for last8, packed in step:
                self._remove(last8, packed)

    def restore(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Add keys that `walk` gave, of this index or of another process's.

        Args:
            rows: the last 8 characters and the packed row of each.
        """
        for last8, packed in rows:
            self._add(last8, packed[SLOT:])

    def apply(self, difference: "Difference") -> Iterator[None]:
        """Change what a complete list changes, and touch nothing else.

        Args:
            difference: a finished one; it is empty afterwards.

        Returns:
            Steps. Whoever begins has to take them all, for between two of them part of the list is applied.
        """
        for changes in (difference.used, difference.changed):
            while changes:
                # Each row is freed when it has been applied, and not all of them at once.
                for _ in range(min(STEP, len(changes))):
                    self._replace(changes.popitem()[1])
                yield
        difference.new.reverse()
        while difference.new:
            for _ in range(min(STEP, len(difference.new))):
                row = difference.new.pop()
                self._add(_head(row).last8, row)
            yield
        # At last, so that of several keys that cannot be told apart none stands alone until its own change is there.
        while difference.removed:
            for _ in range(min(STEP, len(difference.removed))):
                self._remove(*difference.removed.pop())
            yield

    def after_fork(self) -> None:
        """Make a lock anew that another thread of the parent process may have held."""
        self._ready_lock = Lock()

    def _add(self, last8: str, row: bytes) -> None:
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot = self.slots
            self.slots += 1
        packed = slot.to_bytes(SLOT) + row
        if last8 in self._namesakes:
            self._namesakes[last8][_id(packed)] = packed
        elif last8 in self._packed:
            # In this order, so that a thread that decides meanwhile finds either what was or what is.
            self._namesakes[last8] = {_id(each): each for each in (self._packed[last8], packed)}
            del self._packed[last8]
        else:
            self._packed[last8] = packed
        self._count += 1
        self._count_origins(packed, +1)

    def _remove(self, last8: str, packed: bytes) -> None:
        namesakes = self._namesakes.get(last8)
        if namesakes is None:
            del self._packed[last8]
        else:
            del namesakes[_id(packed)]
            if len(namesakes) == 1:
                (self._packed[last8],) = namesakes.values()
                del self._namesakes[last8]
        self._free_slots.append(_slot(packed))
        self._count -= 1
        self._count_origins(packed, -1)

    def _replace(self, packed: bytes) -> None:
        head = _head(memoryview(packed)[SLOT:])
        if head.last8 in self._packed:
            known, self._packed[head.last8] = self._packed[head.last8], packed
        else:
            namesakes = self._namesakes[head.last8]
            known, namesakes[head.id] = namesakes[head.id], packed
        self._count_origins(known, -1)
        self._count_origins(packed, +1)

    def _count_origins(self, packed: bytes, by: Literal[1, -1]) -> None:
        if self._enabled_origins is not None:
            self._enabled_origins.count(self._compile(_unpack(packed)), by)

    def _make_ready(self, packed: bytes) -> IndexedKey:
        try:
            return self._ready[packed]
        except KeyError:
            known = self._compile(_unpack(packed))
        # Tools decide in threads, and to evict is not atomic. Whoever would have to wait does without.
        if self._ready_lock.acquire(blocking=False):
            try:
                self._ready[packed] = known
            finally:
                self._ready_lock.release()
        return known

    def _compile(self, key: WidgetKey) -> IndexedKey:
        return IndexedKey(key, Allowlist.parse(key.domain_allowlist, https_only=self._https_only))


class Difference:
    """What a list changes in an index, worked out row by row before anything is changed.

    See all rows, then finish, and then apply it. Of rows with one id the first disabled one stands, else the first; if one
    that cannot be read says that the key is disabled, then it is, whatever stands.

    Args:
        index: the index that the list will be applied to.
        lapsed: ids of keys that are not kept any longer for a row that cannot be read, unless they are disabled.

    Attributes:
        new: the packed rows of keys that the index lacks.
        changed: the packed rows of keys of which something is new, by slot, the slot's number before each.
        used: the same of those of which nothing is new but when they were used.
        removed: the last 8 characters and packed row of the keys that the list no longer has; known when it is finished.
        kept: the ids of keys that stay as they are because the list has a row for them that cannot be read.
        duplicate_ids: the ids that came more than once.
        revoked_at: what the rows say that newly revoke a key.
        rejected: what is wrong with the first of the rows that cannot be read.
        rejected_reasons: how many such rows there were, by what is wrong with them.
        count: how many rows there were.
        slots_hold: whether what `see` returned will be true of the next list, once this one is applied: no later row has
            touched a key that was as it is known.
    """

    def __init__(self, index: KeyIndex, *, lapsed: Collection[str] = ()) -> None:
        self._index = index
        self._lapsed = lapsed
        # What `count` was when the row came that stands, by slot, where one has come, and by place in `new`.
        self._seen_at = array("I", bytes(array("I").itemsize * index.slots))
        self._new_at = array("I")
        self._seen_count = 0
        self._new_ids = [array("q") for _ in range(BUCKETS)]
        self._spoiled: dict[str, object] = {}
        self.new: list[bytes] = []
        self.changed: dict[int, bytes] = {}
        self.used: dict[int, bytes] = {}
        self.removed: list[tuple[str, bytes]] = []
        self.kept: list[str] = []
        self.duplicate_ids: set[str] = set()
        self.revoked_at: list[object] = []
        self.rejected: list[InvalidRow] = []
        self.rejected_reasons: Counter[RowReason] = Counter()
        self.count = 0
        self.slots_hold = True

    @property
    def rejected_count(self) -> int:
        """How many rows cannot be read."""
        return self.rejected_reasons.total()

    @property
    def is_empty(self) -> bool:
        """Whether to apply it would change no decision."""
        return not (self.new or self.changed or self.removed)

    def see(self, rows: Iterable[Any]) -> "array[int] | None":
        """Take the next rows into account.

        Args:
            rows: objects with the attributes of a WidgetKey in its order, or InvalidRows.

        Returns:
            The slots of the rows' keys if the index has all of these rows just as they are, for `see_slots`.
        """
        candidate, seen_at = self._index.candidate, self._seen_at
        slots = array("I")
        before = self.count
        for row in rows:
            self.count += 1
            if isinstance(row, InvalidRow):
                self._spoil(row)
                continue
            packed_row = _pack(row)
            known = candidate(row.last8, row.id)
            if known is not None and _has_row(known, packed_row) and not seen_at[_slot(known)]:
                slot = _slot(known)
                self._see_slot(slot)
                slots.append(slot)
            else:
                self._see_other(row, packed_row)
        return slots if len(slots) == self.count - before else None

    def see_slots(self, slots: "array[int]") -> bool:
        """Take rows into account of which it is known that the index has them just as they are.

        Args:
            slots: what `see` returned for them when the list was seen that was applied last, and whose `slots_hold`.

        Returns:
            False, and nothing is taken into account, if one of them has come before.
        """
        seen_at = self._seen_at
        if any(seen_at[slot] for slot in slots):
            return False
        for slot in slots:
            self.count += 1
            self._see_slot(slot)
        return True

    def finish(self) -> Iterator[None]:
        """Find out what the list no longer has, and which ids it has twice, once all of it was seen.

        Returns:
            Steps, to be taken while the index does not change.
        """
        repeated = yield from self._find_repeated()
        known = yield from self._compare_known()
        if repeated or known or self._spoiled:
            new = yield from self._compare_new(repeated, known)
            yield from self._settle_known(known, new)
            yield from self._settle_new(new)

    def _see_slot(self, slot: int) -> None:
        self._seen_at[slot] = self.count
        self._seen_count += 1

    def _see_other(self, row: Any, packed_row: bytes) -> None:
        if len(packed_row) > MAX_PACKED:
            problem = f"Expected at most {MAX_PACKED} bytes in a row, got {len(packed_row)}"
            self._spoil(InvalidRow(self.count - 1, problem, row_id=row.id, disabled_at=row.disabled_at, reason="too_long"))
            return
        known = self._index.find(row.last8, row.id)
        if known is None:
            self._new_at.append(self.count)
            self._new_ids[hash(row.id) % BUCKETS].append(hash(row.id))
            self.new.append(packed_row)
        elif not self._seen_at[_slot(known)]:
            self._see_slot(_slot(known))
            self._change(known, packed_row)
        else:
            self.duplicate_ids.add(row.id)
            if _standing(self._row_of(known), packed_row) is packed_row:
                self._seen_at[_slot(known)] = self.count
                self._change(known, packed_row)
                self.slots_hold = False

    def _row_of(self, known: bytes) -> bytes:
        """The row that a known key will have, as far as the list was seen."""
        slot = _slot(known)
        return (self.changed.get(slot) or self.used.get(slot) or known)[SLOT:]

    def _change(self, known: bytes, packed_row: bytes) -> None:
        slot = _slot(known)
        self.changed.pop(slot, None)
        self.used.pop(slot, None)
        if not _has_row(known, packed_row):
            before, after = _unpack(known), _decode(packed_row)
            if after.disabled and not before.disabled:
                self.revoked_at.append(after.disabled_at)
            used_now = msgspec.structs.replace(before, last_used_at=after.last_used_at)
            (self.used if _pack(used_now) == packed_row else self.changed)[slot] = known[:SLOT] + packed_row

    def _spoil(self, row: InvalidRow) -> None:
        self.rejected_reasons[row.reason] += 1
        if len(self.rejected) < SHOWN:
            self.rejected.append(row)
        if row.row_id is not None and self._spoiled.get(row.row_id) is None:
            self._spoiled[row.row_id] = row.disabled_at

    def _find_repeated(self) -> Generator[None, None, set[int]]:
        """The hashes that several new ids have."""
        repeated: set[int] = set()
        for ids in self._new_ids:
            if len(set(ids)) < len(ids):
                repeated.update(each for each, times in Counter(ids).items() if times > 1)
            yield
        return repeated

    def _compare_known(self) -> Generator[None, None, dict[str, tuple[str, bytes]]]:
        """The known keys whose id another row of the list has, too, by that id; the others are seen or removed."""
        known: dict[str, tuple[str, bytes]] = {}
        is_plain = not self.new and not self._spoiled
        if is_plain and self._seen_count == len(self._index):
            return known
        new_ids: list[set[int]] = []
        for ids in self._new_ids if self._seen_count else ():
            new_ids.append(set(ids))
            yield
        for step in self._index.walk():
            for last8, packed in step:
                seen = self._seen_at[_slot(packed)]
                if seen and is_plain:
                    continue
                row_id = _id(packed)
                if row_id in self._spoiled or (seen and hash(row_id) in new_ids[hash(row_id) % BUCKETS]):
                    known[row_id] = (last8, packed)
                elif not seen:
                    self.removed.append((last8, packed))
            yield
        return known

    def _compare_new(self, repeated: set[int], known: Collection[str]) -> Generator[None, None, dict[str, int]]:
        """The places of the new rows whose id another row of the list has, too; of several, the one that stands."""
        places: dict[str, int] = {}
        for step in _steps(enumerate(self.new)):
            for place, row in step:
                row_id = _head(row).id
                if hash(row_id) not in repeated and row_id not in known and row_id not in self._spoiled:
                    continue
                first = places.setdefault(row_id, place)
                if first == place:
                    continue
                self.duplicate_ids.add(row_id)
                if _standing(self.new[first], row) is row:
                    places[row_id] = place
                    self.new[first] = b""
                else:
                    self.new[place] = b""
            yield
        return places

    def _settle_known(self, known: Mapping[str, tuple[str, bytes]], new: dict[str, int]) -> Iterator[None]:
        for step in _steps(known.items()):
            for row_id, (last8, packed) in step:
                slot, place = _slot(packed), new.get(row_id)
                seen, disabled_at = self._seen_at[slot], self._spoiled.get(row_id)
                if seen and place is not None:
                    self.duplicate_ids.add(row_id)
                if not self._stays(packed, place) or (not seen and place is None and self._lapses(packed, disabled_at)):
                    self.removed.append((last8, packed))
                    self.changed.pop(slot, None)
                    self.used.pop(slot, None)
                    self.slots_hold = self.slots_hold and not seen
                    continue
                if place is not None:
                    self.new[place] = b""
                    del new[row_id]
                if not seen:
                    self.kept.append(row_id)
                row = self._row_of(packed)
                revoked = _revoked(row, disabled_at)
                if revoked is not row:
                    self._change(packed, revoked)
                    self.slots_hold = self.slots_hold and not seen
            yield

    def _lapses(self, packed: bytes, disabled_at: object) -> bool:
        """Whether a known key is kept no longer for a row that cannot be read; a revoked one always is."""
        return disabled_at is None and _id(packed) in self._lapsed and not _unpack(packed).disabled

    def _stays(self, packed: bytes, place: int | None) -> bool:
        """Whether a known key does, and not the new row with its id and other last characters."""
        if place is None:
            return True
        seen_at = self._seen_at[_slot(packed)]
        if not seen_at:
            return False
        row, new = self._row_of(packed), self.new[place]
        is_first = seen_at < self._new_at[place]
        return (_standing(row, new) if is_first else _standing(new, row)) is row

    def _settle_new(self, new: Mapping[str, int]) -> Iterator[None]:
        for step in _steps(new.items()):
            for row_id, place in step:
                self.new[place] = _revoked(self.new[place], self._spoiled.get(row_id))
            yield
        standing: list[bytes] = []
        for rows in _steps(self.new):
            standing.extend(filter(None, rows))
            yield
        self.new = standing


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


class _PackedKey(msgspec.Struct, array_like=True):
    """A WidgetKey, field by field, without the names of the fields."""

    id: str
    name: str | None
    last8: str
    domain_allowlist: tuple[str, ...]
    agent_id: str | None
    disabled_at: Any
    created_at: str | None
    updated_at: str | None
    last_used_at: str | None
    key_sha256: str | None


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The fields that a packed row begins with."""

    id: str
    name: str | None
    last8: str


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(_Head).decode
_decode_fields = msgspec.msgpack.Decoder(_PackedKey).decode
_as_tuple = msgspec.structs.astuple
_ALLOWLIST = WidgetKey.__struct_fields__.index("domain_allowlist")
_DISABLED_AT = WidgetKey.__struct_fields__.index("disabled_at")


def _pack(row: Any) -> bytes:
    fields = _as_tuple(row)
    if fields[_ALLOWLIST] is None:
        fields = (*fields[:_ALLOWLIST], (), *fields[_ALLOWLIST + 1 :])
    try:
        return _encode(fields)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # What cannot be packed is what says that the key is disabled, where it could be anything. It still says so.
        return _encode((*fields[:_DISABLED_AT], True, *fields[_DISABLED_AT + 1 :]))


def _decode(row: bytes | memoryview) -> WidgetKey:
    key = _decode_fields(row)
    return WidgetKey(
        key.id,
        key.name,
        key.last8,
        key.domain_allowlist,
        key.agent_id,
        key.disabled_at,
        key.created_at,
        key.updated_at,
        key.last_used_at,
        key.key_sha256,
    )


def _standing(first: bytes, second: bytes) -> bytes:
    """Which of two rows with one id counts."""
    return second if _decode(second).disabled and not _decode(first).disabled else first


def _revoked(row: bytes, disabled_at: object) -> bytes:
    """A row after a revocation, which counts whatever else is wrong with the row that brings it."""
    key = _decode(row)
    return row if disabled_at is None or key.disabled else _pack(msgspec.structs.replace(key, disabled_at=disabled_at))


def _unpack(packed: bytes) -> WidgetKey:
    return _decode(memoryview(packed)[SLOT:])


def _id(packed: bytes) -> str:
    return _head(memoryview(packed)[SLOT:]).id


def _has_row(packed: bytes, row: bytes) -> bool:
    return len(packed) == SLOT + len(row) and packed.endswith(row)


def _slot(packed: bytes) -> int:
    return int.from_bytes(packed[:SLOT])


def _steps(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while step := list(islice(iterator, STEP)):
        yield step


def _count(counter: Counter[Item], values: Iterable[Item], by: int) -> None:
    for value in values:
        counter[value] += by
        if not counter[value]:
            del counter[value]


def _collide(packed: Collection[bytes]) -> bool:
    if len(packed) > MAX_NAMESAKES:
        return True
    digests = [_unpack(each).key_sha256 for each in packed]
    return len(set(digests)) < len(digests)
