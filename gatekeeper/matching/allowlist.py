"""Allowlist: the pages that the owner of a key allows.

An entry is compiled to one string, its normalised form. An origin is looked up by the few strings that would allow it, so
the time does not grow with the number of entries.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Self, TypeVar

from gatekeeper.errors import InvalidEntry, InvalidOrigin
from gatekeeper.matching import advice
from gatekeeper.matching.advice import EntrySuggestion, EntryWarning, RejectedEntry
from gatekeeper.matching.origins import DEFAULT_PORTS, Origin, is_secure
from gatekeeper.matching.pattern import compile_entry

__all__ = ("MAX_ENTRIES", "Allowlist", "find_entry")

MAX_ENTRIES = 100
FEW = 4

Found = TypeVar("Found")


class Allowlist:
    """The pages that the owner of a key allows, compiled for lookup.

    Attributes:
        https_only: True if pages over http are refused, except on loopback names.
        rejected: the bad entries, each with a reason and a hint.
    """

    __slots__ = ("_base_lengths", "_bases", "_entries", "https_only", "rejected")

    def __init__(
        self, entries: Mapping[str, str], rejected: tuple[RejectedEntry, ...], bases: Iterable[str], *, https_only: bool
    ) -> None:
        self._entries = entries
        distinct = tuple(dict.fromkeys(bases))
        # Most keys have one wildcard or none. A set of one member takes 216 bytes, and a request waits for what is sorted.
        self._bases: Collection[str] = frozenset(distinct) if len(distinct) > FEW else distinct
        lengths = sorted(set(map(len, distinct)), reverse=True) if len(distinct) > 1 else map(len, distinct)
        self._base_lengths = tuple(lengths)
        self.https_only = https_only
        self.rejected = rejected

    @classmethod
    def parse(cls, entries: Iterable[str], *, https_only: bool = False) -> Self:
        """Compile the entries of a key, without the bad ones.

        Args:
            entries: the entries as written. Those beyond the first 100 are rejected.
            https_only: True to refuse pages over http, except on loopback names.

        Returns:
            The allowlist. It keeps the first of several entries with the same meaning.

        Raises:
            TypeError: if `entries` is one string.
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
                normal, base = compile_entry(entry, https_only=https_only)
            except InvalidEntry as error:
                rejected.append(RejectedEntry(entry, error.reason, error.hint))
            else:
                # Most entries are in normal form already: keep one string, as there may be a million keys.
                compiled.setdefault(entry if entry == normal else normal, entry)
                if base is not None:
                    bases.append(base)
        return cls(compiled, tuple(rejected), bases, https_only=https_only)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The accepted entries, normalised, in the order given."""
        return tuple(self._entries)

    @property
    def bases(self) -> Collection[str]:
        """The hosts of the wildcard entries, without duplicates."""
        return self._bases

    @property
    def warnings(self) -> tuple[EntryWarning, ...]:
        """Entries that may not do what their author expects. Computed on each access."""
        return advice.warnings(self._entries, self.allows, https_only=self.https_only)

    @property
    def suggestions(self) -> tuple[EntrySuggestion, ...]:
        """Entries that are often forgotten beside these. Computed on each access."""
        return advice.suggestions(self._entries, self.allows)

    def allows(self, origin: Origin | str) -> bool:
        """Whether the page at an origin may use the key.

        Args:
            origin: an origin, or its serialisation. Any other text is refused.
        """
        return self.match(origin) is not None

    def match(self, origin: Origin | str) -> str | None:
        """Find the entry that allows an origin.

        Args:
            origin: an origin, or its serialisation. Any other text is refused.

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
        """Suggest the entry that would allow a page.

        Args:
            origin: the page's origin; None if it is unknown.

        Returns:
            The narrowest such entry; None if no entry can allow the page.
        """
        if origin is None or (self.https_only and not is_secure(origin)):
            return None
        return advice.entry_for(origin)

    def nearest(self, origin: Origin, limit: int = 3) -> tuple[str, ...]:
        """Find the entries that are most similar to a refused origin.

        Args:
            origin: the refused origin.
            limit: the largest number of entries to return.

        Returns:
            Entries as written, best first: those of the same host, of its parent domains, of hosts with a similar spelling.
        """
        return advice.nearest(self._entries, origin, limit)


def find_entry(
    origin: Origin, entries: Mapping[str, Found], bases: Collection[str], base_lengths: Iterable[int]
) -> Found | None:
    """Look up the entry that allows an origin.

    Exact hosts come first, then wildcards, the narrowest first. Only its exact entry allows an app or an extension.

    Args:
        origin: the origin.
        entries: normalised entries, mapped to the values to return. A falsy value counts as absent.
        bases: the hosts of the wildcards among the entries.
        base_lengths: the lengths of those hosts, longest first. Suffixes of the origin's host of other lengths are skipped.

    Returns:
        The value of the entry that allows the origin; None if there is no such entry.
    """
    scheme, host, port = origin.scheme, origin.host, origin.port
    default_port = DEFAULT_PORTS.get(scheme)
    if default_port is None:  # an app or an extension; entries without a scheme are for web pages alone
        return entries.get(str(origin)) or None
    ports = ("", f":{port}", ":*") if port == default_port else (f":{port}", ":*")
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
