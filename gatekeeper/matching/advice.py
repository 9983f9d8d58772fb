"""Advice about a key's entries: rejections, warnings, suggestions, the entry to add."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Literal

import msgspec

from gatekeeper.errors import EntryReason
from gatekeeper.matching.hosts import ends_in_number, is_ipv4_mapped, is_loopback
from gatekeeper.matching.origins import DEFAULT_PORTS, Origin, is_secure
from gatekeeper.matching.pattern import REFUSED_SCHEMES, Pattern
from gatekeeper.matching.suffixes import is_public_suffix, is_shared_host

__all__ = (
    "EntrySuggestion",
    "EntryWarning",
    "RejectedEntry",
    "SuggestionReason",
    "WarningReason",
    "entry_for",
    "nearest",
    "suggestions",
    "warnings",
)

Entries = Mapping[str, str]  # from normalised entries to the entries as written
Allows = Callable[[Origin], bool]  # whether the entries allow an origin
WarningReason = Literal[
    "apex_not_listed", "shared_host", "http", "any_port", "shared_origin", "one_installation", "misspelt_scheme"
]
SuggestionReason = Literal["www_only", "no_subdomains", "default_port", "extension_id"]

# The origins of apps whose framework was given no other host: Capacitor, Cordova with and without the Ionic web view, Tauri.
# "localhost" and "tauri.localhost" are the hosts of Android, and of Tauri on Windows.
_SHARED_SCHEMES = {"capacitor", "ionic", "app", "tauri"}
_SHARED_HOSTS = {"localhost", "tauri.localhost"}
# Firefox, Safari and Visual Studio Code give each installation ids of its own.
_SCHEMES_OF_ONE_INSTALLATION = {"moz-extension", "safari-web-extension", "vscode-webview"}
_KNOWN_SCHEMES = {*DEFAULT_PORTS, *_SHARED_SCHEMES, *_SCHEMES_OF_ONE_INSTALLATION, "chrome-extension"}
_ID_LENGTH = 32  # of an extension in Chrome, in letters from a to p
_ID_LETTERS = frozenset("abcdefghijklmnop")


class RejectedEntry(msgspec.Struct, frozen=True):
    """An entry that breaks the grammar, so it allows nothing.

    Attributes:
        entry: the entry as written.
        reason: the problem, as a word for programs.
        hint: the problem and its fix, as a sentence.
    """

    entry: str
    reason: EntryReason
    hint: str


class EntryWarning(msgspec.Struct, frozen=True):
    """A valid entry that may not do what its author expects.

    Attributes:
        entry: the entry as written.
        reason: the problem, as a word for programs.
        hint: the problem and its fix, as a sentence.
    """

    entry: str
    reason: WarningReason
    hint: str


class EntrySuggestion(msgspec.Struct, frozen=True):
    """An entry that is often forgotten beside a valid one.

    Attributes:
        entry: the valid entry as written.
        reason: what may be missing, as a word for programs.
        hint: what may be missing and the entry to add, as a sentence.
    """

    entry: str
    reason: SuggestionReason
    hint: str


def warnings(entries: Entries, allows: Allows, *, https_only: bool) -> tuple[EntryWarning, ...]:
    """Find entries that may not do what their author expects."""
    return tuple(
        warning
        for normal, entry in entries.items()
        for warning in _warnings_for(Pattern.parse(normal), entry, allows, https_only=https_only)
    )


def suggestions(entries: Entries, allows: Allows) -> tuple[EntrySuggestion, ...]:
    """Find entries that are often forgotten beside these."""
    patterns = {Pattern.parse(normal): entry for normal, entry in entries.items()}
    bases = {pattern.host for pattern in patterns if pattern.wildcard}
    return tuple(
        suggestion for pattern, entry in patterns.items() for suggestion in _suggestions_for(pattern, entry, bases, allows)
    )


def nearest(entries: Entries, origin: Origin, limit: int) -> tuple[str, ...]:
    """Find the entries most similar to a refused origin, best first."""
    hosts: dict[str, list[str]] = {}
    for normal, entry in entries.items():
        hosts.setdefault(Pattern.parse(normal).host, []).append(entry)
    parents = sorted((host for host in hosts if f".{origin.host}".endswith(f".{host}")), key=len, reverse=True)
    close = get_close_matches(origin.host, hosts.keys() - parents, n=limit, cutoff=0.5)
    return tuple(entry for host in parents + close for entry in hosts[host])[:limit]


def entry_for(origin: Origin) -> str | None:
    """Write the narrowest practical entry that allows a page.

    Args:
        origin: the page's origin.

    Returns:
        An entry such as "shop.acme.com", "https://shop.acme.com:8443", "http://shop.acme.com", "localhost:*" or
        "capacitor://app.acme.com"; None if no entry can allow the page.
    """
    if origin.scheme in REFUSED_SCHEMES or origin.host.endswith(".") or is_ipv4_mapped(origin.host):
        return None
    if origin.scheme not in DEFAULT_PORTS:
        return str(origin)
    if is_loopback(origin.host):
        return f"{origin.host}:*"
    if origin.scheme == "https" and origin.port == DEFAULT_PORTS["https"]:
        return origin.host
    return str(origin)


def _warnings_for(pattern: Pattern, entry: str, allows: Allows, *, https_only: bool) -> Iterator[EntryWarning]:
    if pattern.wildcard and not _allows_apex(pattern, allows, https_only=https_only):
        apex = str(msgspec.structs.replace(pattern, wildcard=False))
        hint = f"'{entry}' does not allow {pattern.host} itself: add '{apex}' if it should."
        yield EntryWarning(entry, "apex_not_listed", hint)
    if pattern.wildcard and is_shared_host(pattern.host):
        hint = f"Subdomains of {pattern.host} have different owners: list your own, such as 'my-shop.{pattern.host}'."
        yield EntryWarning(entry, "shared_host", hint)
    if not is_loopback(pattern.host):
        if pattern.scheme == "http":
            hint = f"'{entry}' trusts a page that a network attacker can change: use https if you can."
            yield EntryWarning(entry, "http", hint)
        if pattern.port == "*":
            hint = f"'{entry}' allows pages on every port of {pattern.host}: name the port if you can."
            yield EntryWarning(entry, "any_port", hint)
    if _is_shared_origin(pattern):
        hint = (
            f"'{entry}' allows every app that has kept the default host of its framework: give your app a host of its own,"
            " and list that, if you can."
        )
        yield EntryWarning(entry, "shared_origin", hint)
    if pattern.scheme in _SCHEMES_OF_ONE_INSTALLATION:
        hint = f"'{entry}' allows one installation only: each has an id of its own at {pattern.scheme}://."
        yield EntryWarning(entry, "one_installation", hint)
    if pattern.scheme is not None and pattern.scheme not in _KNOWN_SCHEMES:
        for known in get_close_matches(pattern.scheme, _KNOWN_SCHEMES, n=1, cutoff=0.8):
            meant = msgspec.structs.replace(pattern, scheme=known)
            hint = f"'{entry}' allows an app with the scheme {pattern.scheme}://: write '{meant}' if you mean that."
            yield EntryWarning(entry, "misspelt_scheme", hint)


def _is_shared_origin(pattern: Pattern) -> bool:
    if pattern.scheme is None or pattern.scheme in DEFAULT_PORTS:
        return pattern.host in _SHARED_HOSTS and not pattern.wildcard and pattern.port is None
    return pattern.scheme in _SHARED_SCHEMES and pattern.host == "localhost"


def _suggestions_for(pattern: Pattern, entry: str, bases: set[str], allows: Allows) -> Iterator[EntrySuggestion]:
    host, scheme = pattern.host, pattern.scheme or "https"
    if pattern.wildcard or pattern.port is not None or scheme not in DEFAULT_PORTS:
        return

    def lacks(other: str) -> bool:
        return not allows(Origin(scheme, other, DEFAULT_PORTS[scheme]))

    if host == "localhost":
        ports = "ports 80 and 443" if pattern.scheme is None else f"port {DEFAULT_PORTS[pattern.scheme]}"
        hint = f"'{entry}' allows {ports} only: write 'localhost:*' for a development server."
        yield EntrySuggestion(entry, "default_port", hint)
    elif host.startswith("www.") and lacks(apex := host.removeprefix("www.")):
        hint = f"'{entry}' does not allow {apex}: add '{apex}' if it serves your pages, too."
        yield EntrySuggestion(entry, "www_only", hint)
    elif _is_registrable(host) and host not in bases and lacks(f"www.{host}"):
        hint = f"'{entry}' allows no subdomain: add 'www.{host}', or '*.{host}' for all, if your pages are there."
        yield EntrySuggestion(entry, "no_subdomains", hint)
    elif len(host) == _ID_LENGTH and _ID_LETTERS.issuperset(host):
        hint = f"'{entry}' allows a web page: write 'chrome-extension://{host}' if it is the id of an extension."
        yield EntrySuggestion(entry, "extension_id", hint)


def _allows_apex(pattern: Pattern, allows: Allows, *, https_only: bool) -> bool:
    for scheme in DEFAULT_PORTS if pattern.scheme is None else (pattern.scheme,):
        port = pattern.port if isinstance(pattern.port, int) else DEFAULT_PORTS[scheme]
        apex = Origin(scheme, pattern.host, port)
        if not allows(apex) and (is_secure(apex) or not https_only):
            return False
    return True


def _is_registrable(host: str) -> bool:
    """Whether a host is directly below a public suffix, like acme.co.uk."""
    if ends_in_number(host) or is_loopback(host) or "." not in host:
        return False
    parent = host.partition(".")[2]
    return not is_public_suffix(host) and ("." not in parent or is_public_suffix(parent))
