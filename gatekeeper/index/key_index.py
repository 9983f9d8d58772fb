"""KeyIndex: every widget key of an account, or of all, in memory.

Keys are found by the last 8 characters of the client key. They are kept packed, and unpacked when a page asks for one. A
walk over all of them takes steps of about a millisecond.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, combinations, count, islice
from threading import Lock
from typing import Literal

from gatekeeper.index.enabled_origins import EnabledOrigins, IndexedKey
from gatekeeper.index.packed import id_of, last8_of, row_of, slot_of, steps_of, unpack, with_slot
from gatekeeper.keys.client_key import ClientKey, share_keys
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.allowlist import Allowlist

__all__ = ("KeyIndex",)

MAX_COMPILED = 4096  # keys that are kept unpacked and compiled, at about 2 KB each
ROOM = 64  # of these that are evicted together: a dict skips all deleted entries each time that its first item is asked for
# A dict of a million entries takes 100 ms to grow, which blocks everything else; dicts of 4,000 take 0.2 ms. The number is
# prime, so that the hashes of the keys in one bucket do not share the low bits that choose their places in its dict.
BUCKETS = 251
# Up to this many keys share one bucket: a gate may have an index for each of hundreds of small accounts.
MAX_IN_ONE = 1024
# Two of a million random keys share their last 8 of 64 characters with a chance of 0.2 %. More than 16 that do are not
# random, and comparing all of them for every page would take long.
MAX_SUFFIX_COLLISIONS = 16


class KeyIndex:
    """Every widget key of an account, or of all accounts.

    Args:
        account: the account that client keys must name, whatever the rows say; None accepts any. Then a row that has an
            account is found only by client keys that may be of that account.
        https_only: whether pages over http are refused, except on loopback names.
        max_compiled: the number of keys that are kept unpacked and compiled.

    Attributes:
        slots: the number of slots in use or free for reuse.
    """

    def __init__(self, *, account: str | None = None, https_only: bool = False, max_compiled: int = MAX_COMPILED) -> None:
        self.account = account
        self.slots = 0
        self._https_only = https_only
        # By last 8. Keys whose last 8 collide are kept apart, by id, so that the buckets hold nothing that the garbage
        # collector visits. A key may move from its bucket to the collisions and never moves back. Readers look in the bucket
        # first, so a thread that resolves a key while another one applies a list always finds it.
        self._buckets: list[dict[str, bytes]] = [{}]
        self._suffix_collisions: dict[str, dict[str, bytes]] = {}
        self._free_slots: list[int] = []
        self._count = 0
        self._moves = 0  # additions and removals so far; `walk` fails when it changes
        # A dict, because FIFOCache takes 0.5 µs longer for the first sight of a key.
        self._compiled: dict[bytes, IndexedKey] = {}
        self._max_compiled = max_compiled
        self._compiled_lock = Lock()
        self._enabled_origins: EnabledOrigins | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[WidgetKey]:
        return (unpack(packed) for step in self.walk() for _, packed in step)

    def resolve(self, client_key: ClientKey) -> IndexedKey | Literal["unknown", "ambiguous"]:
        """Find the row of a client key.

        Args:
            client_key: the key that a page sent.

        Returns:
            Of the rows with its last 8 characters, and of an account that it may be of: the row with the digest of the key;
            otherwise the only row without a digest. "ambiguous" if several rows qualify, or if more than 16 rows have these
            last 8 characters.
        """
        if self.account is not None and not client_key.may_be_of(self.account):
            return "unknown"
        last8 = client_key.last8
        packed = self._bucket(last8).get(last8)
        if packed is not None:
            key = self._get_compiled(packed)
            digest, account = key.widget_key.key_sha256, key.widget_key.account
            if account is not None and self.account is None and not client_key.may_be_of(account):
                return "unknown"
            return key if digest is None or digest == client_key.sha256() else "unknown"
        return self._resolve_collision(self._suffix_collisions.get(last8, {}), client_key)

    def get(self, last8: str, row_id: str) -> IndexedKey | None:
        """Return the current version of a key; None if it was removed.

        Args:
            last8: its last 8 characters.
            row_id: its id.
        """
        packed = self.candidate(last8, row_id)
        return None if packed is None or id_of(packed) != row_id else self._get_compiled(packed)

    def ambiguous(self) -> tuple[str, ...]:
        """Return the last 8 characters of the client keys that are ambiguous."""
        # Copied, as everywhere that readers iterate: another thread may add or remove keys meanwhile.
        return tuple(last8 for last8, keys in self._suffix_collisions.copy().items() if self._are_ambiguous(keys))

    def enabled_origins(self) -> EnabledOrigins:
        """Return the origins of all enabled keys.

        They are counted at the first call, and kept up to date from then on.
        """
        if self._enabled_origins is None:
            self._enabled_origins = EnabledOrigins(https_only=self._https_only)
            for key in self:
                self._enabled_origins.add(self._compile(key))
        return self._enabled_origins

    def candidate(self, last8: str, row_id: str) -> bytes | None:
        """Return the key that may have this id, if any.

        The only key with these last 8 characters may have another id. Of several, the one with this id is returned.
        """
        buckets = self._buckets  # not _bucket(): this is called for every row of a list
        packed = buckets[hash(last8) % len(buckets)].get(last8)
        if packed is None and (keys := self._suffix_collisions.get(last8)) is not None:
            return keys.get(row_id)
        return packed

    def walk(self) -> Iterator[list[tuple[str, bytes]]]:
        """Iterate over all keys in steps: last 8 characters and packed key.

        Raises:
            RuntimeError: if a key is added or removed before the last step.
        """
        moves = self._moves
        in_buckets = (item for bucket in self._buckets for item in bucket.items())
        colliding = ((last8, packed) for last8, keys in self._suffix_collisions.items() for packed in keys.values())
        for items in (in_buckets, colliding):
            for step in steps_of(items):
                if self._moves != moves:
                    raise RuntimeError("keys were added or removed during a walk over the index")
                yield step

    def free_slots(self) -> Iterator[int]:
        """Iterate over the slots that the next keys get. The index must not change meanwhile."""
        return chain(reversed(self._free_slots), count(self.slots))

    def allocate_slots(self, number: int) -> None:
        """Mark the first so many `free_slots` as used."""
        reused = min(number, len(self._free_slots))
        del self._free_slots[len(self._free_slots) - reused :]
        self.slots += number - reused

    def release_slot(self, slot: int) -> None:
        """Mark a slot as free."""
        self._free_slots.append(slot)

    def add(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """Add keys whose slots are allocated.

        Args:
            keys: the last 8 characters and the packed key of each.
        """
        collisions, buckets = self._suffix_collisions, self._buckets
        for last8, packed in keys:
            bucket = buckets[hash(last8) % len(buckets)]
            if last8 in collisions:
                collisions[last8][id_of(packed)] = packed
            elif (other := bucket.setdefault(last8, packed)) is not packed:
                # In this order, a reader finds either the old state or the new one.
                collisions[last8] = {id_of(each): each for each in (other, packed)}
                del bucket[last8]
            self._count += 1
            if self._enabled_origins is not None:
                self._enabled_origins.add(self._compile(unpack(packed)))
        if len(buckets) == 1 and len(buckets[0]) > MAX_IN_ONE:
            self._split()
        self._moves += 1  # last, so that a walk over the bucket from before fails: it would show no later change

    def replace(self, packed: bytes) -> None:
        """Replace a key by one with the same slot, suffix and id."""
        last8 = last8_of(packed)
        bucket = self._bucket(last8)
        if last8 in bucket:
            before, bucket[last8] = bucket[last8], packed
        else:
            keys, row_id = self._suffix_collisions[last8], id_of(packed)
            before, keys[row_id] = keys[row_id], packed
        if self._enabled_origins is not None:
            # In this order, an origin that both rows allow is never refused meanwhile.
            self._enabled_origins.add(self._compile(unpack(packed)))
            self._enabled_origins.remove(self._compile(unpack(before)))

    def remove(self, last8: str, packed: bytes) -> None:
        """Remove a key and release its slot."""
        keys = self._suffix_collisions.get(last8)
        if keys is None:
            del self._bucket(last8)[last8]
        else:
            del keys[id_of(packed)]
            if not keys:
                del self._suffix_collisions[last8]
        self.release_slot(slot_of(packed))
        self._count -= 1
        self._moves += 1
        if self._enabled_origins is not None:
            self._enabled_origins.remove(self._compile(unpack(packed)))

    def restore(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """Add keys that `walk` yielded, in this process or another.

        Args:
            keys: the last 8 characters and the packed key of each, whose slot is ignored.
        """
        slots = self.free_slots()
        packed = [(last8, with_slot(next(slots), row_of(packed))) for last8, packed in keys]
        self.allocate_slots(len(packed))
        self.add(packed)

    def clear(self) -> None:
        """Remove every key."""
        for step in list(self.walk()):
            for last8, packed in step:
                self.remove(last8, packed)

    def after_fork(self) -> None:
        """Drop what another thread was changing at the fork."""
        if self._compiled_lock.locked():
            self._compiled = {}
            self._compiled_lock = Lock()

    def _resolve_collision(
        self, keys: dict[str, bytes], client_key: ClientKey
    ) -> IndexedKey | Literal["unknown", "ambiguous"]:
        if len(keys) > MAX_SUFFIX_COLLISIONS:
            return "ambiguous"
        candidates = [self._get_compiled(packed) for packed in keys.copy().values()]
        if self.account is None:
            candidates = [key for key in candidates if _may_be_of(client_key, key.widget_key.account)]
        digest = client_key.sha256() if candidates else None
        proven = [key for key in candidates if key.widget_key.key_sha256 == digest]
        possible = proven or [key for key in candidates if key.widget_key.key_sha256 is None]
        if not possible:
            return "unknown"
        return possible[0] if len(possible) == 1 else "ambiguous"

    def _are_ambiguous(self, keys: dict[str, bytes]) -> bool:
        if len(keys) > MAX_SUFFIX_COLLISIONS:
            return True
        rows = [unpack(each) for each in keys.copy().values()]
        return any(
            one.key_sha256 == other.key_sha256 and (self.account is not None or share_keys(one.account, other.account))
            for one, other in combinations(rows, 2)
        )

    def _bucket(self, last8: str) -> dict[str, bytes]:
        buckets = self._buckets
        return buckets[hash(last8) % len(buckets)]

    def _split(self) -> None:
        """Spread the keys over all buckets, for good."""
        buckets: list[dict[str, bytes]] = [{} for _ in range(BUCKETS)]
        for last8, packed in self._buckets[0].items():
            buckets[hash(last8) % BUCKETS][last8] = packed
        self._buckets = buckets  # replaced as a whole: another thread may be looking for a key

    def _get_compiled(self, packed: bytes) -> IndexedKey:
        compiled = self._compiled.get(packed)
        if compiled is not None:
            return compiled
        key = self._compile(unpack(packed))
        # Other threads decide, too, and evicting is not atomic. Never block here: if the lock is held, skip caching.
        if self._compiled_lock.acquire(blocking=False):
            try:
                if len(self._compiled) >= self._max_compiled:
                    for oldest in list(islice(self._compiled, ROOM)):
                        del self._compiled[oldest]
                self._compiled[packed] = key
            finally:
                self._compiled_lock.release()
        return key

    def _compile(self, key: WidgetKey) -> IndexedKey:
        return IndexedKey(key, Allowlist.parse(key.domain_allowlist, https_only=self._https_only))


def _may_be_of(client_key: ClientKey, account: str | None) -> bool:
    return account is None or client_key.may_be_of(account)
