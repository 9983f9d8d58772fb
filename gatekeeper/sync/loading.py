"""ListLoader: reads a list and compares it with the index.

- A list is read in slices as it arrives, and the loader yields to the event loop after each. A slice that the last list
  had, byte for byte, is not read again.
- A list is accepted when it is complete, and at least 80 % of its rows are good.
- A row never loosens by an older one. Of a whole list that is older than the last one by the source's clock, only
  revocations are taken, and the fetch has failed: a cache on the way keeps an old list, or the clock was set back. If its
  date goes on with the time, it is believed after 10 minutes.
- Changes are read whole, and apply to the list that they name only. Where one of their rows cannot be read, or is older than
  the row held, what can be is applied, and the whole list is asked for next.
- For the first entry with a wildcard, the public suffixes are loaded in a thread, so that no request has to wait for them.
"""

import hashlib
from array import array
from collections.abc import Callable, Collection, Generator, Mapping
from typing import NamedTuple, TypeVar

import anyio.lowlevel
import msgspec

from gatekeeper.client import Listing
from gatekeeper.errors import InvalidList, InvalidRow, RowReason, SourceError
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.delta_diff import DeltaDiff
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import ListDiff
from gatekeeper.index.precedence import CLOCK_SKEW, Precedence
from gatekeeper.keys.delta import DeltaReader
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import ListReader
from gatekeeper.quoting import quoted
from gatekeeper.sync.cadence import UNCONDITIONAL_AFTER, WholeLists
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.sources import Basis, Delta, FullList, Unchanged, Updates
from gatekeeper.sync.suffixes import load_suffixes_for

__all__ = ("KnownSlice", "ListBasis", "ListLoader", "Loaded", "OnAnswer")

MAX_REJECTED_SHARE = 0.2
MAX_ROWS = 2_000_000
ROWS_PER_CHANGE = 20  # at most 100,000 changes of 2,000,000 rows: each takes 920 bytes more than its row until it is applied

OnAnswer = Callable[[FullList | Unchanged | Delta], None]
"""Called once an answer begins to arrive."""

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
        is_exact: whether every row of the list could be read, and no id came twice, so that the index equals it.
    """

    validator: str | None = None
    dated_at: float | None = None
    digest: bytes | None = None
    slices: Mapping[bytes, KnownSlice] = {}
    is_exact: bool = False


class Loaded(NamedTuple):
    """A complete list, or what has changed in one, read and compared.

    Attributes:
        changes: what it changes in the index; None if its bytes are those of the last list.
        basis: what is known of it once it is applied.
        rejected: the first rows that cannot be read.
        rejected_reasons: how many such rows there are, by what is wrong with them.
        problem: why only the list's revocations count; None if all of it does.
        is_trusted: whether the list counts as it is, so that no removal is held.
        changed_ids: the ids of the rows of which changes tell, and which can be read; None for a whole list.
    """

    changes: ChangeSet | None
    basis: ListBasis
    rejected: list[InvalidRow]
    rejected_reasons: Mapping[RowReason, int]
    problem: str | None = None
    is_trusted: bool = False
    changed_ids: Collection[str] | None = None


class ListLoader:
    """Reads lists of one source, in one event loop.

    Attributes:
        work: seconds that reading the last list took, without waits for its bytes.
    """

    def __init__(
        self, index: KeyIndex, rows: RowReader, whole_lists: WholeLists, clock: Clock, *, max_rows: int = MAX_ROWS
    ) -> None:
        self.work = 0.0
        self._index = index
        self._rows = rows
        self._changes = DeltaReader(rows)
        self._whole_lists = whole_lists
        self._clock = clock
        self._max_rows = max_rows
        self._older: _Older | None = None

    async def load(
        self,
        updates: Updates,
        question: Basis,
        basis: ListBasis,
        expired_ids: Collection[str],
        *,
        has_list: bool,
        is_trusted: bool = False,
        on_answer: OnAnswer,
    ) -> Loaded | None:
        """Read the list; None if the source calls it unchanged.

        Args:
            updates: asks the source.
            question: what it is asked for.
            basis: what is known of the last list.
            expired_ids: ids of keys that are no longer retained for rows that cannot be read.
            has_list: whether there is a list that the source may call unchanged.
            is_trusted: whether the list counts as it is, however old it may be.
            on_answer: called once the answer begins to arrive.

        Raises:
            SourceError: if the source fails, or the list is not accepted.
        """
        self.work = 0.0
        async with updates(question) as update:
            if not isinstance(update, FullList | Unchanged | Delta):
                raise SourceError(f"the source gave {type(update).__name__}: expected FullList, Unchanged or Delta")
            on_answer(update)
            if isinstance(update, Unchanged):
                if not has_list:
                    raise SourceError("the source says that nothing has changed, and has not given a list yet")
                return None
            if isinstance(update, Delta):
                return await self._load_changes(update, question, basis)
            listing = update.listing
            problem = None if is_trusted else self._problem_of_age(listing, basis)
            precedence = Precedence(listing.dated_at, problem is None, is_trusted)
            diff = ListDiff(self._index, expired_ids=expired_ids, precedence=precedence)
            slices, digest = await self._read(listing, diff, basis)
        _require_trustworthy(diff)
        changes: ChangeSet = await _in_turns(diff.finish())
        self._whole_lists.note(self.work)
        if problem is not None:
            return Loaded(changes, ListBasis(dated_at=basis.dated_at), diff.rejected, diff.rejected_reasons, problem)
        is_exact = not (diff.rejected_count or changes.duplicate_ids)
        loaded = ListBasis(listing.validator, listing.dated_at, digest, slices, is_exact)
        # Where the last list left no slices, because an id came twice in it, this one may leave some.
        if digest == basis.digest and not expired_ids and slices.keys() <= basis.slices.keys():
            loaded = msgspec.structs.replace(loaded, slices=basis.slices)
            return Loaded(None, loaded, diff.rejected, diff.rejected_reasons, is_trusted=is_trusted)
        return Loaded(changes, loaded, diff.rejected, diff.rejected_reasons, is_trusted=is_trusted)

    async def _read(self, listing: Listing, diff: ListDiff, basis: ListBasis) -> tuple[dict[bytes, KnownSlice], bytes]:
        slices: dict[bytes, KnownSlice] = {}
        digest = hashlib.blake2b()
        reader = ListReader(self._rows)
        async for chunk in listing.chunks:
            reader.feed(chunk)
            await self._add_slices(reader, diff, basis, slices, digest)
        reader.end()
        await self._add_slices(reader, diff, basis, slices, digest)
        return slices, digest.digest()

    async def _load_changes(self, update: Delta, question: Basis, basis: ListBasis) -> Loaded:
        listing = update.listing
        if question.validator is None or not _is_same(update.base, question.validator):
            named, asked = quoted(update.base), quoted(question.validator or "no list")
            raise SourceError(f"the source gave changes of the list {named}: expected those of {asked}")
        diff, changed_ids = DeltaDiff(self._index, precedence=Precedence(listing.dated_at)), set[str]()
        reader = ListReader(self._changes)
        async for chunk in listing.chunks:
            reader.feed(chunk)
            await self._add_changes(reader, diff, changed_ids)
        reader.end()
        await self._add_changes(reader, diff, changed_ids)
        changes: ChangeSet = await _in_turns(diff.finish())
        is_sound = not (diff.rejected_count or diff.contradiction_count or changes.duplicate_ids)
        dates = [each for each in (basis.dated_at, listing.dated_at) if each is not None]
        loaded = ListBasis(
            listing.validator if is_sound else None, max(dates, default=None), is_exact=basis.is_exact and is_sound
        )
        return Loaded(changes, loaded, diff.rejected, diff.rejected_reasons, changed_ids=changed_ids)

    async def _add_changes(self, reader: ListReader, diff: DeltaDiff, changed_ids: set[str]) -> None:
        for piece in reader:
            if diff.count:  # changes that come in one piece are applied without a turn of other tasks
                await anyio.lowlevel.checkpoint()
            await load_suffixes_for(piece.raw)
            began = self._clock()
            rows, _ = reader.read(piece)
            diff.add_rows(rows)
            changed_ids.update(row.id for row in rows if not isinstance(row, InvalidRow))
            self.work += self._clock() - began
            if diff.count > (most := self._max_rows // ROWS_PER_CHANGE):
                raise InvalidList(f"the changes have more than {most} rows: expected fewer, or the whole list")

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
            await load_suffixes_for(piece.raw)
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
                raise InvalidList(f"the list has more than {self._max_rows} rows: expected fewer")
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


def _is_same(validator: str, other: str) -> bool:
    """Compare two validators, as RFC 9110 section 8.8.3.2 does weakly."""
    return validator.removeprefix("W/") == other.removeprefix("W/")


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
