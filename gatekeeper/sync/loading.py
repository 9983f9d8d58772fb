"""ListLoader: reads a list and compares it with the index.

- A list is read in slices as it arrives, and the loader yields to the event loop after each. A slice that the last list
  had, byte for byte, is not read again.
- A list is accepted when it is complete, and at least 80 % of its rows are good.
- A row never loosens by an older one. Of a whole list that is older than the last one by the source's clock, only
  revocations are taken, and the fetch has failed: a cache on the way keeps an old list, or the clock was set back. If its
  date goes on with the time, it is believed after 10 minutes.
- Every 10 minutes the list is asked for without its validator, in case the validator is stuck.
"""

import hashlib
from array import array
from collections.abc import Collection, Generator, Mapping
from typing import NamedTuple, TypeVar

import anyio.lowlevel
import msgspec

from gatekeeper.client import Listing
from gatekeeper.errors import InvalidList, InvalidRow, RowReason, SourceError
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import ListDiff
from gatekeeper.index.precedence import CLOCK_SKEW, Precedence
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import ListReader
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.sources import Basis, FullList, Unchanged, Updates

__all__ = ("KnownSlice", "ListBasis", "ListLoader", "Loaded")

UNCONDITIONAL_AFTER = 600.0  # seconds between two lists that are asked for without a validator
MAX_REJECTED_SHARE = 0.2
MAX_ROWS = 2_000_000

Value = TypeVar("Value")


class KnownSlice(NamedTuple):
    """A slice of a list whose rows need not be read again.

    Attributes:
        slots: where the index has them.
        size: bytes of the slice that are whole rows.
    """

    slots: "array[int]"
    size: int


class ListBasis(msgspec.Struct, frozen=True):
    """What is known of the last list that was applied.

    Attributes:
        validator: the source's own name for the list.
        dated_at: when the list was made, in seconds since 1970, by the source's clock.
        digest: a digest of the list's bytes.
        slices: the slices of which the index has every row as it is there, by their digests.
    """

    validator: str | None = None
    dated_at: float | None = None
    digest: bytes | None = None
    slices: Mapping[bytes, KnownSlice] = {}


class Loaded(NamedTuple):
    """A complete list, read and compared.

    Attributes:
        changes: what it changes in the index; None if its bytes are those of the last list.
        basis: what is known of it once it is applied.
        rejected: the first rows that cannot be read.
        rejected_reasons: how many such rows there are, by what is wrong with them.
        problem: why only the list's revocations count; None if all of it does.
        is_trusted: whether the list counts as it is, so that no removal is held.
    """

    changes: ChangeSet | None
    basis: ListBasis
    rejected: list[InvalidRow]
    rejected_reasons: Mapping[RowReason, int]
    problem: str | None = None
    is_trusted: bool = False


class ListLoader:
    """Reads lists of one source, in one event loop.

    Attributes:
        work: seconds that reading the last list took, without waits for its bytes.
    """

    def __init__(self, index: KeyIndex, rows: RowReader, clock: Clock, *, max_rows: int = MAX_ROWS) -> None:
        self.work = 0.0
        self._index = index
        self._rows = rows
        self._clock = clock
        self._max_rows = max_rows
        self._whole_list_at = clock()
        self._older: _Older | None = None

    async def load(
        self,
        updates: Updates,
        basis: ListBasis,
        expired_ids: Collection[str],
        *,
        has_list: bool,
        is_trusted: bool = False,
    ) -> Loaded | None:
        """Read the list; None if the source calls it unchanged.

        Args:
            updates: asks the source.
            basis: what is known of the last list.
            expired_ids: ids of keys that are no longer retained for rows that cannot be read.
            has_list: whether there is a list that the source may call unchanged.
            is_trusted: whether the list counts as it is, however old it may be.

        Raises:
            SourceError: if the source fails, or the list is not accepted.
        """
        is_due = is_trusted or self._clock() - self._whole_list_at >= UNCONDITIONAL_AFTER
        async with updates(Basis(None if is_due else basis.validator)) as update:
            if isinstance(update, Unchanged):
                if not has_list:
                    raise SourceError("the source says that nothing has changed, and has not given a list yet")
                return None
            if not isinstance(update, FullList):
                raise SourceError(f"the source gave {type(update).__name__}: expected FullList or Unchanged")
            listing = update.listing
            problem = None if is_trusted else self._problem_of_age(listing, basis)
            precedence = Precedence(listing.dated_at, problem is None, is_trusted)
            diff = ListDiff(self._index, expired_ids=expired_ids, precedence=precedence)
            slices, digest = await self._read(listing, diff, basis)
        _require_trustworthy(diff)
        changes: ChangeSet | None = await _in_turns(diff.finish())
        self._whole_list_at = self._clock()
        if problem is not None:
            return Loaded(changes, ListBasis(dated_at=basis.dated_at), diff.rejected, diff.rejected_reasons, problem)
        loaded = ListBasis(listing.validator, listing.dated_at, digest, slices)
        # Where the last list left no slices, because an id came twice in it, this one may leave some.
        if digest == basis.digest and not expired_ids and slices.keys() <= basis.slices.keys():
            changes, loaded = None, msgspec.structs.replace(loaded, slices=basis.slices)
        return Loaded(changes, loaded, diff.rejected, diff.rejected_reasons, is_trusted=is_trusted)

    async def _read(self, listing: Listing, diff: ListDiff, basis: ListBasis) -> tuple[dict[bytes, KnownSlice], bytes]:
        slices: dict[bytes, KnownSlice] = {}
        digest = hashlib.blake2b()
        reader = ListReader(self._rows)
        self.work = 0.0
        async for chunk in listing.chunks:
            reader.feed(chunk)
            await self._add_slices(reader, diff, basis, slices, digest)
        reader.end()
        await self._add_slices(reader, diff, basis, slices, digest)
        return slices, digest.digest()

    async def _add_slices(
        self,
        reader: ListReader,
        diff: ListDiff,
        basis: ListBasis,
        slices: dict[bytes, KnownSlice],
        digest: "hashlib.blake2b",
    ) -> None:
        before = diff.count
        for piece in reader:
            began = self._clock()
            its_digest = piece.digest()
            digest.update(its_digest)
            known = basis.slices.get(its_digest)
            if known is not None and diff.add_known_slice(known.slots):
                reader.advance(piece, len(known.slots), known.size)
                slices[its_digest] = known
            else:
                rows, size = reader.read(piece)
                if (slots := diff.add_rows(rows)) is not None:
                    slices[its_digest] = KnownSlice(slots, size)
            self.work += self._clock() - began
            await anyio.lowlevel.checkpoint()
            if diff.count > self._max_rows:
                raise InvalidList(f"the list has more than {self._max_rows} rows: expected those of one account")
        if diff.count == before:
            await anyio.lowlevel.checkpoint()  # a chunk without a complete row yields no slice

    def _problem_of_age(self, listing: Listing, basis: ListBasis) -> str | None:
        """Say what is wrong with a list that is older."""
        if listing.dated_at is None or basis.dated_at is None:
            return None
        behind = basis.dated_at - listing.dated_at
        if behind <= (0 if listing.is_copy else CLOCK_SKEW):
            self._older = None
            return None
        now = self._clock()
        older = self._older = self._older or _Older(now, listing.dated_at)
        passed = now - older.since
        goes_on = listing.dated_at - older.dated_at >= passed - CLOCK_SKEW
        if passed >= UNCONDITIONAL_AFTER and goes_on and not listing.is_copy:
            return None  # the clock of the source was set back
        return (
            f"the list was made {behind:.0f} s before the last one, by its Date and Age, so only revocations count: "
            "let no cache between here and the hub keep the list"
        )


class _Older(NamedTuple):
    """When the first list came that was older, and its date."""

    since: float
    dated_at: float


def _require_trustworthy(diff: ListDiff) -> None:
    rejected = diff.rejected_count
    if rejected > MAX_REJECTED_SHARE * diff.count:
        share = f"{rejected} of {diff.count} rows are not widget keys"
        raise InvalidList(f"{share}, so the list is not trusted: {diff.rejected[0]}")


async def _in_turns(steps: Generator[None, None, Value]) -> Value:
    """Take all steps, and yield to the event loop after each."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: Value = end.value
            return value
        await anyio.lowlevel.checkpoint()
