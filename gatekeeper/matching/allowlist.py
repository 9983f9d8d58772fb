"""Allowlist: which pages the owner of a key allows.

An entry is compiled to one string, its normalised form, and an origin is looked up by the few strings that would allow it:
no entry is ever scanned, so the time does not grow with their number.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Literal, Self, TypeVar

import msgspec

from gatekeeper.errors import EntryReason, InvalidEntry, InvalidOrigin
from gatekeeper.matching.hosts import ends_in_number, is_ipv4_mapped, is_loopback
from gatekeeper.matching.origins import DEFAULT_PORTS, Origin, is_secure
from gatekeeper.matching.pattern import Pattern
from gatekeeper.matching.suffixes import is_public_suffix, is_shared_host

__all__ = (
    "Allowlist",
    "EntrySuggestion",
    "EntryWarning",
    "RejectedEntry",
    "SuggestionReason",
    "WarningReason",
)

MAX_ENTRIES = 100
FEW = 4

Found = TypeVar("Found")
WarningReason = Literal["apex_not_listed", "shared_host", "http", "any_port"]
SuggestionReason = Literal["www_only", "no_subdomains", "default_port"]


class RejectedEntry(msgspec.Struct, frozen=True):
    """An entry that allows nothing, because the grammar does not have it.

    Attributes:
        entry: as written.
        reason: what is wrong with it, as a word that programs can compare.
        hint: what is wrong and how to mend it, as a sentence.
    """

    entry: str
    reason: EntryReason
    hint: str


class EntryWarning(msgspec.Struct, frozen=True):
    """An entry that works, and may not do what its writer expects.

    Attributes:
        entry: as written.
        reason: what to look at, as a word that programs can compare.
        hint: the same as a sentence that says what to do.
    """

    entry: str
    reason: WarningReason
    hint: str


class EntrySuggestion(msgspec.Struct, frozen=True):
    """What people forget when they write an entry like this one, though nothing is wrong with it.

    Attributes:
        entry: as written.
        reason: what may be missing, as a word that programs can compare.
        hint: the same as a sentence that names the entry to add.
    """

    entry: str
    reason: SuggestionReason
    hint: str


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
        return tuple(
            warning
            for normal, entry in self._entries.items()
            for warning in self._warnings_for(Pattern.parse(normal), entry)
        )

    @property
    def suggestions(self) -> tuple[EntrySuggestion, ...]:
        """What people forget, where nothing is wrong with what they wrote; worked out at every call."""
        return tuple(
            suggestion
            for normal, entry in self._entries.items()
            for suggestion in self._suggestions_for(Pattern.parse(normal), entry)
        )

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

    def lacking(self, origin: Origin | None) -> str | None:
        """The entry that would allow a page.

        Args:
            origin: where the page is; None where that is not known.

        Returns:
            The narrowest such entry; None where there can be none.
        """
        if origin is None or (self.https_only and not is_secure(origin)):
            return None
        return entry_for(origin)

    def nearest(self, origin: Origin, limit: int = 3) -> tuple[str, ...]:
        """The entries that look most like an origin which none of them allows, best first.

        Args:
            origin: the origin that was refused.
            limit: how many entries to give at most.

        Returns:
            Entries as written: those of the same host, then of hosts that it is below, then of hosts spelled alike.
        """
        hosts: dict[str, list[str]] = {}
        for normal, entry in self._entries.items():
            hosts.setdefault(Pattern.parse(normal).host, []).append(entry)
        parents = sorted((host for host in hosts if f".{origin.host}".endswith(f".{host}")), key=len, reverse=True)
        close = get_close_matches(origin.host, hosts.keys() - parents, n=limit, cutoff=0.5)
        return tuple(entry for host in parents + close for entry in hosts[host])[:limit]

    def _warnings_for(self, pattern: Pattern, entry: str) -> Iterator[EntryWarning]:
        if pattern.wildcard and not self._allows_apex(pattern):
            apex = str(msgspec.structs.replace(pattern, wildcard=False))
            yield EntryWarning(
                entry, "apex_not_listed", f"'{entry}' does not allow {pattern.host} itself: add '{apex}' if it should."
            )
        if pattern.wildcard and is_shared_host(pattern.host):
            hint = f"Strangers can have subdomains of {pattern.host}: list your own, such as 'my-shop.{pattern.host}'."
            yield EntryWarning(entry, "shared_host", hint)
        if not is_loopback(pattern.host):
            if pattern.scheme == "http":
                hint = f"'{entry}' trusts a page that anybody on its network path can change: use https if you can."
                yield EntryWarning(entry, "http", hint)
            if pattern.port == "*":
                hint = f"'{entry}' allows whatever runs on any port of {pattern.host}: name the port if you can."
                yield EntryWarning(entry, "any_port", hint)

    def _suggestions_for(self, pattern: Pattern, entry: str) -> Iterator[EntrySuggestion]:
        if pattern.wildcard or pattern.port is not None:
            return
        host, scheme = pattern.host, pattern.scheme or "https"

        def lacks(other: str) -> bool:
            return not self.allows(Origin(scheme, other, DEFAULT_PORTS[scheme]))

        if host == "localhost":
            hint = f"'{entry}' allows the ports 80 and 443 only: write 'localhost:*' for a development server."
            yield EntrySuggestion(entry, "default_port", hint)
        elif host.startswith("www.") and lacks(apex := host.removeprefix("www.")):
            hint = f"'{entry}' does not allow {apex}: add '{apex}' if visitors come there, too."
            yield EntrySuggestion(entry, "www_only", hint)
        elif _is_registrable(host) and host not in self._bases and lacks(f"www.{host}"):
            hint = f"'{entry}' allows no subdomain: add 'www.{host}', or '*.{host}' for all, if your pages are there."
            yield EntrySuggestion(entry, "no_subdomains", hint)

    def _allows_apex(self, pattern: Pattern) -> bool:
        for scheme in DEFAULT_PORTS if pattern.scheme is None else (pattern.scheme,):
            port = pattern.port if isinstance(pattern.port, int) else DEFAULT_PORTS[scheme]
            apex = Origin(scheme, pattern.host, port)
            if not self.allows(apex) and (is_secure(apex) or not self.https_only):
                return False
        return True


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


def entry_for(origin: Origin) -> str | None:
    """The narrowest entry worth writing for a page.

    Args:
        origin: where the page is.

    Returns:
        "shop.acme.com", "https://shop.acme.com:8443", "http://shop.acme.com" or "localhost:*"; None where no entry can
        allow the page.
    """
    if is_ipv4_mapped(origin.host):
        return None
    if is_loopback(origin.host):
        return f"{origin.host}:*"
    if origin.scheme == "https" and origin.port == DEFAULT_PORTS["https"]:
        return origin.host
    return str(origin)


def _entry_at(host: str, scheme: str, ports: Iterable[str], entries: Mapping[str, Found]) -> Found | None:
    for port in ports:
        spelled = host + port
        found = entries.get(spelled) or entries.get(f"{scheme}://{spelled}")
        if found is not None:
            return found
    return None


def _is_registrable(host: str) -> bool:
    """Whether a host stands directly below a public suffix, as acme.com and acme.co.uk do."""
    if ends_in_number(host) or is_loopback(host) or "." not in host:
        return False
    parent = host.partition(".")[2]
    return not is_public_suffix(host) and ("." not in parent or is_public_suffix(parent))
