"""KeyIndex: every widget key of the account, in memory, resolved by the last 8 characters of a client key.

Keys are kept packed, and unpacked when a page asks for one. Whatever walks over all of them does so in steps of about a
millisecond.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, count, islice
from threading import Lock
from typing import Literal, TypeVar

import msgspec
from cachetools import FIFOCache

from gatekeeper.index.packed import id_of, last8_of, row_of, slot_of, unpack, with_slot
from gatekeeper.keys.widget_key import ClientKey, WidgetKey
from gatekeeper.matching.allowlist import Allowlist, find_entry
from gatekeeper.matching.origins import Origin, is_secure

__all__ = ("STEP", "EnabledOrigins", "IndexedKey", "KeyIndex", "steps_of")

READY = 4096  # keys that are kept unpacked and compiled, at about 2 KB each
STEP = 512  # keys
# To make room for one key more, a dict of a million takes 100 ms, in which nothing else happens; dicts of 4,000 take 0.2. A
# prime, so that the keys of one shelf have nothing in common in the bits of their hashes by which a dict finds its places.
SHELVES = 251
# Two of a million random keys have the same last 8 of 64 characters with a chance of 0.2 %. Where more than these have
# them, they are no random characters, and to look at all of them at every page would take long.
MAX_NAMESAKES = 16

Item = TypeVar("Item")


class IndexedKey(msgspec.Struct, frozen=True, gc=False):
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
        slots: how many numbers have been given to keys.
    """

    def __init__(self, *, account: str | None = None, https_only: bool = False) -> None:
        self.account = account
        self.slots = 0
        self._https_only = https_only
        # By last 8; several keys that have the same are apart from the others, by id, so that the garbage collector has
        # nothing to visit on the shelves.
        self._shelves: list[dict[str, bytes]] = [{} for _ in range(SHELVES)]
        self._namesakes: dict[str, dict[str, bytes]] = {}
        self._free_slots: list[int] = []
        self._count = 0
        self._moves = 0
        self._ready: FIFOCache[bytes, IndexedKey] = FIFOCache(READY)
        self._ready_lock = Lock()
        self._enabled_origins: EnabledOrigins | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[WidgetKey]:
        return (unpack(packed) for step in self.walk() for _, packed in step)

    def resolve(self, client_key: ClientKey) -> IndexedKey | Literal["unknown", "ambiguous"]:
        """Find out whose key this is.

        Args:
            client_key: the key that a page sent.

        Returns:
            The one row that it can be. A row that tells its key's digest is it, or is not; of rows that tell none,
            one with the same last 8 characters is taken for it, and several cannot be told apart, nor can more than 16
            of whatever kind.
        """
        if self.account not in (None, client_key.account):
            return "unknown"
        last8 = client_key.last8
        packed = self._shelf(last8).get(last8)
        if packed is not None:
            known = self._make_ready(packed)
            digest = known.widget_key.key_sha256
            return known if digest is None or digest == client_key.sha256() else "unknown"
        return self._resolve_among(self._namesakes.get(last8, {}), client_key)

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
        """The keys with these last 8 characters, packed."""
        packed = self._shelf(last8).get(last8)
        return tuple(self._namesakes.get(last8, {}).values()) if packed is None else (packed,)

    def candidate(self, last8: str, row_id: str) -> bytes | None:
        """The only key with these last 8 characters, or of several the one with this id, packed; None if there is none."""
        packed = self._shelves[hash(last8) % SHELVES].get(last8)  # not _shelf(), for this is asked about every row of a list
        if packed is None and last8 in self._namesakes:
            return self._namesakes[last8].get(row_id)
        return packed

    def find(self, last8: str, row_id: str) -> bytes | None:
        """The key with these last 8 characters and this id, packed; None if there is none."""
        packed = self.candidate(last8, row_id)
        return None if packed is None or id_of(packed) != row_id else packed

    def walk(self) -> Iterator[list[tuple[str, bytes]]]:
        """Every key's last 8 characters and packed row, in steps.

        Raises:
            RuntimeError: if keys come or go before the last step.
        """
        moves = self._moves
        on_shelves = (item for shelf in self._shelves for item in shelf.items())
        namesakes = ((last8, packed) for last8, others in self._namesakes.items() for packed in others.values())
        for items in (on_shelves, namesakes):
            for step in steps_of(items):
                if self._moves != moves:
                    raise RuntimeError("keys have come or gone while somebody walked over the index")
                yield step

    def free_slots(self) -> Iterator[int]:
        """The numbers that keys will be given, one after the other, when they are added."""
        return chain(reversed(self._free_slots), count(self.slots))

    def take_slots(self, many: int) -> None:
        """Give away the first so many `free_slots`."""
        reused = min(many, len(self._free_slots))
        del self._free_slots[len(self._free_slots) - reused :]
        self.slots += many - reused

    def give_back_slot(self, slot: int) -> None:
        """Note that no key has this number any more."""
        self._free_slots.append(slot)

    def add(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """Add keys, whose slots have been taken.

        Args:
            keys: the last 8 characters and the packed row of each.
        """
        namesakes = self._namesakes
        for last8, packed in keys:
            shelf = self._shelves[hash(last8) % SHELVES]
            if last8 in namesakes:
                namesakes[last8][id_of(packed)] = packed
            elif (other := shelf.setdefault(last8, packed)) is not packed:
                # In this order, so that a thread that decides meanwhile finds either what was or what is.
                namesakes[last8] = {id_of(each): each for each in (other, packed)}
                del shelf[last8]
            self._count += 1
            if self._enabled_origins is not None:
                self._count_origins(packed, +1)
        self._moves += 1

    def replace(self, packed: bytes) -> None:
        """Give the key with the same slot, last 8 characters and id another row."""
        last8 = last8_of(packed)
        shelf = self._shelf(last8)
        if last8 in shelf:
            known, shelf[last8] = shelf[last8], packed
        else:
            namesakes, its_id = self._namesakes[last8], id_of(packed)
            known, namesakes[its_id] = namesakes[its_id], packed
        self._count_origins(known, -1)
        self._count_origins(packed, +1)

    def remove(self, last8: str, packed: bytes) -> None:
        """Drop a key, and give its slot back."""
        namesakes = self._namesakes.get(last8)
        if namesakes is None:
            del self._shelf(last8)[last8]
        else:
            del namesakes[id_of(packed)]
            if len(namesakes) == 1:
                (self._shelf(last8)[last8],) = namesakes.values()
                del self._namesakes[last8]
        self.give_back_slot(slot_of(packed))
        self._count -= 1
        self._moves += 1
        self._count_origins(packed, -1)

    def restore(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """Add keys that `walk` gave, of this index or of another process's.

        Args:
            keys: the last 8 characters and the packed row of each.
        """
        slots = self.free_slots()
        packed = [(last8, with_slot(next(slots), row_of(packed))) for last8, packed in keys]
        self.take_slots(len(packed))
        self.add(packed)

    def clear(self) -> None:
        """Drop every key."""
        for step in list(self.walk()):
            for last8, packed in step:
                self.remove(last8, packed)

    def after_fork(self) -> None:
        """Make a lock anew that another thread of the parent process may have held."""
        self._ready_lock = Lock()

    def _resolve_among(
        self, namesakes: Mapping[str, bytes], client_key: ClientKey
    ) -> IndexedKey | Literal["unknown", "ambiguous"]:
        if len(namesakes) > MAX_NAMESAKES:
            return "ambiguous"
        # Others may come or go meanwhile, in another thread.
        candidates = [self._make_ready(packed) for packed in tuple(namesakes.values())]
        digest = client_key.sha256() if candidates else None
        proven = [known for known in candidates if known.widget_key.key_sha256 == digest]
        possible = proven or [known for known in candidates if known.widget_key.key_sha256 is None]
        if not possible:
            return "unknown"
        return possible[0] if len(possible) == 1 else "ambiguous"

    def _shelf(self, last8: str) -> dict[str, bytes]:
        return self._shelves[hash(last8) % SHELVES]

    def _count_origins(self, packed: bytes, by: Literal[1, -1]) -> None:
        if self._enabled_origins is not None:
            self._enabled_origins.count(self._compile(unpack(packed)), by)

    def _make_ready(self, packed: bytes) -> IndexedKey:
        ready = self._ready.get(packed)
        if ready is not None:
            return ready
        known = self._compile(unpack(packed))
        # Tools decide in threads, and to evict is not atomic. Whoever would have to wait does without.
        if self._ready_lock.acquire(blocking=False):
            try:
                self._ready[packed] = known
            finally:
                self._ready_lock.release()
        return known

    def _compile(self, key: WidgetKey) -> IndexedKey:
        return IndexedKey(key, Allowlist.parse(key.domain_allowlist, https_only=self._https_only))


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


def steps_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in lists that are short enough to be gone through before others get their turn."""
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
    digests = [unpack(each).key_sha256 for each in packed]
    return len(set(digests)) < len(digests)
