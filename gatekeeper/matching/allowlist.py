"""Allowlist: which pages the owner of a key allows.

An entry is compiled to one string, its normalised form, and an origin is looked up by the few strings that would allow it:
no entry is ever scanned, so the time does not grow with their number.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Self, TypeVar

from gatekeeper.errors import InvalidEntry, InvalidOrigin
from gatekeeper.matching import advice
from gatekeeper.matching.advice import EntrySuggestion, EntryWarning, RejectedEntry
from gatekeeper.matching.origins import DEFAULT_PORTS, Origin, is_secure
from gatekeeper.matching.pattern import Pattern

__all__ = ("MAX_ENTRIES", "Allowlist", "find_entry")

MAX_ENTRIES = 100
FEW = 4

Found = TypeVar("Found")


class Allowlist:
    """The pages that the owner of a key allows, compiled for lookup.

    Attributes:
        https_only: whether no page over http is allowed, except on loopback names.
        rejected: the entries that allow nothing, with the reason and a hint.
    """

    __slots__ = ("_base_lengths", "_bases", "_entries", "https_only", "rejected")

    def __init__(
        self, entries: Mapping[str, str], rejected: tuple[RejectedEntry, ...], bases: Iterable[str], *, https_only: bool
    ) -> None:
        self._entries = entries
        distinct = tuple(dict.fromkeys(bases))
        # A set of one takes 216 bytes, and most keys have one wildcard or none.
        self._bases: Collection[str] = frozenset(distinct) if len(distinct) > FEW else distinct
        self._base_lengths = tuple(sorted(set(map(len, distinct)), reverse=True))
        self.https_only = https_only
        self.rejected = rejected

    @classmethod
    def parse(cls, entries: Iterable[str], *, https_only: bool = False) -> Self:
        """Compile the entries of a key. A bad entry is set aside, and the others live.

        Args:
            entries: as their owner wrote them; those beyond the first 100 are rejected.
            https_only: allow no page over http, except on loopback names.

        Returns:
            The allowlist. Of two entries with the same meaning the first one stands for both.

        Raises:
            TypeError: for one string in place of several.
        """
        if isinstance(entries, str):
            raise TypeError(f"Allowlist.parse takes several entries, not one string: write [{entries!r}]")
        compiled: dict[str, str] = {}
        rejected: list[RejectedEntry] = []
        bases = []
        for number, entry in enumerate(entries, start=1):
            try:
                if number > MAX_ENTRIES:
                    raise InvalidEntry("too_many", f"A key has at most {MAX_ENTRIES} entries; this is entry {number}.")
                pattern = Pattern.parse(entry, https_only=https_only)
            except InvalidEntry as error:
                rejected.append(RejectedEntry(entry, error.reason, error.hint))
            else:
                normal = str(pattern)
                # Most entries are normal as they are, and a million keys need not have them twice.
                compiled.setdefault(entry if entry == normal else normal, entry)
                if pattern.wildcard:
                    bases.append(pattern.host)
        return cls(compiled, tuple(rejected), bases, https_only=https_only)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The accepted entries, normalised, in their order."""
        return tuple(self._entries)

    @property
    def bases(self) -> Collection[str]:
        """The hosts below which some entry allows every subdomain, each once."""
        return self._bases

    @property
    def warnings(self) -> tuple[EntryWarning, ...]:
        """What the owner of the key may want to look at; worked out at every call."""
        return advice.warnings(self._entries, self.allows, https_only=self.https_only)

    @property
    def suggestions(self) -> tuple[EntrySuggestion, ...]:
        """What people forget, where nothing is wrong with what they wrote; worked out at every call."""
        return advice.suggestions(self._entries, self.allows)

    def allows(self, origin: Origin | str) -> bool:
        """Whether the page at this origin may use the key.

        Args:
            origin: an origin, or one serialised; any other text is not allowed.
        """
        return self.match(origin) is not None

    def match(self, origin: Origin | str) -> str | None:
        """Find the entry that allows an origin.

        Args:
            origin: an origin, or one serialised; any other text is not allowed.

        Returns:
            The entry as written; None if no entry allows the origin.
        """
        if not isinstance(origin, Origin):
            try:
                origin = Origin.parse(origin)
            except InvalidOrigin:
                return None
        if self.https_only and not is_secure(origin):
            return None
        return find_entry(origin, self._entries, self._bases, self._base_lengths)

    def entry_that_would_allow(self, origin: Origin | None) -> str | None:
        """The entry that would allow a page.

        Args:
            origin: where the page is; None where that is not known.

        Returns:
            The narrowest such entry; None where there can be none.
        """
        if origin is None or (self.https_only and not is_secure(origin)):
            return None
        return advice.entry_for(origin)

    def nearest(self, origin: Origin, limit: int = 3) -> tuple[str, ...]:
        """The entries that look most like an origin which none of them allows, best first.

        Args:
            origin: the origin that was refused.
            limit: how many entries to give at most.

        Returns:
            Entries as written: those of the same host, then of hosts that it is below, then of hosts spelled alike.
        """
        return advice.nearest(self._entries, origin, limit)


def find_entry(
    origin: Origin, entries: Mapping[str, Found], bases: Collection[str], base_lengths: Iterable[int]
) -> Found | None:
    """Look an origin up by the strings that would allow it: exact hosts first, then wildcards, the narrowest first.

    Args:
        origin: the origin.
        entries: from normalised entry to whatever stands for it.
        bases: the hosts of the wildcards among them.
        base_lengths: the lengths of those hosts, longest first, so that only suffixes that can be one are cut.

    Returns:
        What stands for the entry that allows the origin; None if none does.
    """
    scheme, host, port = origin.scheme, origin.host, origin.port
    ports = ("", f":{port}", ":*") if port == DEFAULT_PORTS[scheme] else (f":{port}", ":*")
    found = _entry_at(host, scheme, ports, entries)
    if found is not None:
        return found
    for length in base_lengths:
        if len(host) > length and host[-length - 1] == "." and (base := host[-length:]) in bases:
            found = _entry_at(f"*.{base}", scheme, ports, entries)
            if found is not None:
                return found
    return None


def _entry_at(host: str, scheme: str, ports: Iterable[str], entries: Mapping[str, Found]) -> Found | None:
    for port in ports:
        spelled = host + port
        found = entries.get(spelled) or entries.get(f"{scheme}://{spelled}")
        if found is not None:
            return found
    return None
