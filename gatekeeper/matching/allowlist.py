"""Pattern, Allowlist: which pages the owner of a key allows.

    entry  = [ ("https" / "http") "://" ] host [ ":" ( 1..65535 / "*" ) ]
    host   = name / "*." name / IPv4 / "[" IPv6 "]"
    name   = label *( "." label );  label = 1..63 of a-z 0-9 - _, not beginning or ending with "-"

An entry is compiled to one string, its normalised form, and an origin is looked up by the few strings that would allow it:
no entry is ever scanned, so the time does not grow with their number.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Literal, Self, TypeVar
from unicodedata import bidirectional

import idna
import msgspec

from gatekeeper.errors import EntryReason, InvalidEntry, InvalidOrigin
from gatekeeper.matching.hosts import (
    MAX_HOST_LENGTH,
    compress_ipv6,
    ends_in_number,
    is_host_name,
    is_ipv4,
    is_ipv4_mapped,
    is_loopback,
    is_port,
)
from gatekeeper.matching.origins import DEFAULT_PORTS, Origin, is_secure
from gatekeeper.matching.suffixes import is_public_suffix, is_shared_host

__all__ = (
    "Allowlist",
    "EntrySuggestion",
    "EntryWarning",
    "Pattern",
    "RejectedEntry",
    "SuggestionReason",
    "WarningReason",
)

MAX_ENTRY_LENGTH = 1024
MAX_ENTRIES = 100
MAX_SHOWN = 80
FEW = 4
_JOINERS = "\u200c\u200d"
MAX_WILDCARD_BASE_LENGTH = MAX_HOST_LENGTH - len("x.")

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


class Pattern(msgspec.Struct, frozen=True, gc=False):
    """One allowlist entry, understood. Its `str()` is the normalised entry.

    Attributes:
        scheme: "https" or "http"; None for both.
        host: the host in A-labels, or the base of the wildcard.
        wildcard: whether it stands for every subdomain of the host, and not for the host itself.
        port: a port; "*" for any; None for the scheme's default one.
    """

    scheme: str | None
    host: str
    wildcard: bool
    port: int | Literal["*"] | None

    @classmethod
    def parse(cls, entry: str, *, https_only: bool = False) -> Self:
        """Read one entry as its owner wrote it.

        Args:
            entry: at most 1,024 characters.
            https_only: refuse `http://` except for loopback names.

        Returns:
            The pattern.

        Raises:
            InvalidEntry: with the reason, and a hint that says how to mend it.
        """
        plain = _plain_host(entry)
        if plain is not None:
            wildcard = entry.startswith("*.")
            if wildcard:
                _require_wildcard_base(plain)
            return cls(None, plain, wildcard, "*" if entry.endswith(":*") else None)
        scheme, authority = _split_scheme(_trim(entry))
        wildcard, host, port = _split_authority(authority)
        host = _normal_host(host)
        if wildcard:
            _require_name(host)
            _require_wildcard_base(host)
        if scheme is not None and port == DEFAULT_PORTS[scheme]:
            port = None
        pattern = cls(scheme, host, wildcard, port)
        if str(pattern) == "null":
            hint = (
                "'null' is what every sandboxed iframe and local file sends: it cannot be allowed; write the page's domain."
            )
            raise InvalidEntry("null", hint)
        if https_only and scheme == "http" and not is_loopback(host):
            mend = msgspec.structs.replace(pattern, scheme="https")
            raise InvalidEntry("http_refused", f"Only https pages are allowed here, not {_shown(entry)}: write '{mend}'.")
        return pattern

    def __str__(self) -> str:
        """The normalised entry."""
        scheme = "" if self.scheme is None else f"{self.scheme}://"
        star = "*." if self.wildcard else ""
        port = "" if self.port is None else f":{self.port}"
        return f"{scheme}{star}{self.host}{port}"

    @property
    def meaning(self) -> str:
        """The pages that this pattern allows, in words."""
        host = f"every subdomain of {self.host} (not {self.host} itself)" if self.wildcard else self.host
        schemes = "https and http" if self.scheme is None else f"{self.scheme} only"
        port = "the default port" if self.port is None else "any port" if self.port == "*" else f"port {self.port}"
        return f"{host}, {schemes}, {port}"


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


def _plain_host(entry: object) -> str | None:
    """The host of an entry that is normal as it is, without a scheme, and without a port but `:*`; None for any other entry.

    Most entries are like that, and to see it takes a third of what reading them step by step does, while a page waits.
    """
    if not isinstance(entry, str) or entry == "null":
        return None
    host = entry.removeprefix("*.").removesuffix(":*")
    return host if is_host_name(host) and "xn--" not in host and not ends_in_number(host) else None


def _trim(entry: str) -> str:
    if not isinstance(entry, str):
        raise InvalidEntry("not_text", f"An entry is text such as 'acme.com', not {type(entry).__name__}.")
    if len(entry) > MAX_ENTRY_LENGTH:
        raise InvalidEntry("too_long", f"An entry has at most {MAX_ENTRY_LENGTH} characters; this one has {len(entry)}.")
    text = entry.strip(" \t")
    if not text:
        raise InvalidEntry("empty", "The entry is empty: write a domain such as 'acme.com', or delete it.")
    if "," in text:
        raise InvalidEntry("comma", f"{_shown(text)} has a comma: write one entry for every domain.")
    if " " in text or not (text.isprintable() or all(map(_is_visible, text))):
        raise InvalidEntry("space", f"{_shown(text)} has a space or an invisible character in it: delete it.")
    if "\\" in text:
        raise InvalidEntry("backslash", f"{_shown(text)} has a backslash: write a domain such as 'acme.com'.")
    return text


def _is_visible(character: str) -> bool:
    return character.isprintable() or character in _JOINERS


def _split_scheme(text: str) -> tuple[str | None, str]:
    scheme, separator, authority = text.partition("://")
    if not separator:
        return None, text.removesuffix("/")
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS:
        hint = f"{_shown(text)} begins with {_shown(scheme + '://')}: pages are at https:// or http:// only."
        raise InvalidEntry("scheme", hint)
    return scheme, authority.removesuffix("/")


def _split_authority(authority: str) -> tuple[bool, str, int | Literal["*"] | None]:
    ends: tuple[tuple[str, EntryReason], ...] = (("#", "fragment"), ("?", "query"), ("/", "path"))
    for mark, reason in ends:
        before, found, _ = authority.partition(mark)
        if found and not any(other in before for other, _ in ends):
            host = before if before and not before.endswith(":") else "acme.com"
            hint = f"{_shown(authority)} has a {reason}, and a page's origin has none: write {_shown(host)}."
            raise InvalidEntry(reason, hint)
    if "@" in authority:
        hint = f"{_shown(authority)} has a user name: write {_shown(authority.rpartition('@')[2] or 'acme.com')}."
        raise InvalidEntry("userinfo", hint)
    host, port = _split_port(authority)
    if host == "*":
        hint = "'*' would allow every page there is: write the domains that may use the key, such as '*.acme.com'."
        raise InvalidEntry("any_origin", hint)
    base = host.removeprefix("*.")
    if base.endswith("."):
        mend = host.rstrip(".") if base.strip(".") else "acme.com"
        hint = f"{_shown(host)} ends with a dot, which browsers take for another site: write {_shown(mend)}."
        raise InvalidEntry("trailing_dot", hint)
    if "*" in base:
        hint = f"{_shown(host)} has a '*' that is not a whole label at its beginning: write it as in '*.acme.com'."
        raise InvalidEntry("wildcard", hint)
    return base != host, base, port


def _split_port(authority: str) -> tuple[str, int | Literal["*"] | None]:
    if authority.removeprefix("*.").startswith("["):
        host, bracket, rest = authority.partition("]")
        host += bracket
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = authority.rpartition(":")
        if not colon:
            return authority, None
        if ":" in host:
            hint = f"{_shown(authority)} has several colons: write an IPv6 address in brackets, such as '[::1]:8080'."
            raise InvalidEntry("ipv6", hint)
    if port == "*" and colon == ":":
        return host, "*"
    if colon == ":" and is_port(port):
        return host, int(port)
    if not colon:
        return host, None
    hint = f"{_shown(colon + port)} is not a port: write ':' and a number from 1 to 65535, or ':*' for any port."
    raise InvalidEntry("port", hint)


def _normal_host(host: str) -> str:
    if host.startswith("["):
        return _normal_ipv6(host)
    if not host:
        raise InvalidEntry("host", "The entry has no host: write a domain such as 'acme.com'.")
    host = _to_a_labels(host)
    if ends_in_number(host):
        if not is_ipv4(host):
            hint = f"{_shown(host)} is not an IPv4 address: write four numbers from 0 to 255, such as '192.168.0.10'."
            raise InvalidEntry("ipv4", hint)
    elif not is_host_name(host):
        hint = (
            f"{_shown(host)} is not a domain: labels of 1 to 63 letters, digits, '-' or '_', not beginning or ending"
            f" with '-', with single dots between them, {MAX_HOST_LENGTH} characters at most."
        )
        raise InvalidEntry("host", hint)
    return host


def _normal_ipv6(host: str) -> str:
    compressed = compress_ipv6(host)
    if compressed is None or is_ipv4_mapped(compressed):
        hint = f"{_shown(host)} is not an IPv6 address, without a zone and not IPv4-mapped: write it as in '[2001:db8::1]'."
        raise InvalidEntry("ipv6", hint)
    return compressed


def _to_a_labels(host: str) -> str:
    """The host as browsers send it (URL standard 3.3, "domain to ASCII": UTS 46 without transitional mappings).

    The length comes first: IDNA is slow on hostile hosts (CVE-2024-3651, CVE-2026-45409).
    """
    if len(host) > MAX_HOST_LENGTH:
        raise InvalidEntry("host", f"A domain has at most {MAX_HOST_LENGTH} characters; this one has {len(host)}.")
    if host.isascii() and "xn--" not in host.lower():
        return host.lower()
    try:
        labels = [_to_unicode(label) for label in idna.uts46_remap(host, std3_rules=False).split(".")]
        _require_valid_labels(labels)
        return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)
    except ValueError as error:
        hint = f"{_shown(host)} is not an internationalised domain that browsers can visit ({error}): check its spelling."
        raise InvalidEntry("idna", hint) from error


def _to_unicode(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    decoded = label[4:].encode("ascii").decode("punycode")
    if decoded.isascii() or decoded.startswith("xn--") or decoded.encode("punycode").decode() != label[4:]:
        raise idna.IDNAError(f"{label!r} is not Punycode")
    if idna.uts46_remap(decoded, std3_rules=False) != decoded:
        raise idna.IDNAError(f"{label!r} stands for a spelling that browsers map to another")
    return decoded


def _require_valid_labels(labels: list[str]) -> None:
    """UTS 46 section 4.1, Validity Criteria, with CheckBidi and CheckJoiners, as browsers have it.

    Not idna.encode: it applies IDNA 2008, which has no symbols, and there are sites at ☃.net and i❤.ws.
    """
    right_to_left = any(bidirectional(character) in {"R", "AL", "AN"} for character in "".join(labels))
    for label in labels:
        if not label.isascii():
            idna.check_nfc(label)
            idna.check_initial_combiner(label)
        if right_to_left and label:
            idna.check_bidi(label, check_ltr=True)
        for place, character in enumerate(label):
            if character in _JOINERS and not idna.valid_contextj(label, place):
                raise idna.IDNAError(f"a joiner stands where none may, in {label!r}")


def _require_name(base: str) -> None:
    if base.startswith("[") or ends_in_number(base):
        raise InvalidEntry("wildcard_ip", f"An IP address has no subdomains: write '{base}'.")


def _require_wildcard_base(base: str) -> None:
    if len(base) > MAX_WILDCARD_BASE_LENGTH:
        hint = f"No subdomain fits: after '*.' a domain has at most {MAX_WILDCARD_BASE_LENGTH} characters."
        raise InvalidEntry("host", hint)
    if "." not in base:
        if base == "localhost":
            return
        hint = f"'*.{base}' would allow everybody's domains under .{base}: write your own, such as '*.acme.{base}'."
        raise InvalidEntry("wildcard_single_label", hint)
    if is_public_suffix(base):
        hint = f"Anybody can get a subdomain of {base}: write your own, such as 'my-shop.{base}'."
        raise InvalidEntry("wildcard_public_suffix", hint)


def _is_registrable(host: str) -> bool:
    """Whether a host stands directly below a public suffix, as acme.com and acme.co.uk do."""
    if ends_in_number(host) or is_loopback(host) or "." not in host:
        return False
    parent = host.partition(".")[2]
    return not is_public_suffix(host) and ("." not in parent or is_public_suffix(parent))


def _shown(text: str) -> str:
    """A piece of an entry for a message: quoted, its invisible characters escaped, cut to a length that a person reads."""
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return ascii(cut) if not cut.isprintable() else repr(cut)
