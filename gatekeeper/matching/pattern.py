"""Pattern: one allowlist entry in normal form.

The grammar of a trimmed entry in A-labels:

    entry  = web / app
    web    = [ ("https" / "http") "://" ] [ "*." ] host [ ":" ( 1..65535 / "*" ) ]     ; no "*." before an IP address
    app    = scheme "://" host [ ":" 1..65535 ]                                        ; an app or an extension, exactly
    host   = name / IPv4 / "[" IPv6 "]"
    name   = label *( "." label );  label = 1..63 of a-z 0-9 - _
"""

from typing import Literal, Self

import msgspec

from gatekeeper.errors import EntryReason, InvalidEntry
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
from gatekeeper.matching.idn import JOINERS, to_a_labels
from gatekeeper.matching.origins import DEFAULT_PORTS, MAX_ORIGIN_LENGTH, is_scheme
from gatekeeper.matching.suffixes import is_public_suffix

__all__ = ("MAX_ENTRY_LENGTH", "REFUSED_SCHEMES", "Pattern", "compile_entry")

MAX_ENTRY_LENGTH = 1024
MAX_SHOWN = 80
MAX_WILDCARD_BASE_LENGTH = MAX_HOST_LENGTH - len("x.")

# Schemes whose pages have no origin of their own (URL standard 4.5), and schemes of no page, with that of the page meant.
REFUSED_SCHEMES = {
    "file": None,
    "data": None,
    "blob": None,
    "about": None,
    "javascript": None,
    "null": None,
    "ws": "http",
    "wss": "https",
    "ftp": "https",
}


class Pattern(msgspec.Struct, frozen=True, gc=False):
    """One parsed allowlist entry. Its `str()` is the normalised entry.

    Attributes:
        scheme: "https", "http", or that of an app or an extension; None for https and http.
        host: the host in A-labels, without the "*." of a wildcard.
        wildcard: True if the entry means every subdomain of the host, and not the host itself.
        port: the port; "*" for any; None for the scheme's default.
    """

    scheme: str | None
    host: str
    wildcard: bool
    port: int | Literal["*"] | None

    @classmethod
    def parse(cls, entry: str, *, https_only: bool = False) -> Self:
        """Parse one entry.

        Args:
            entry: the entry as written, at most 1,024 characters.
            https_only: True to refuse `http://`, except for loopback names.

        Returns:
            The pattern.

        Raises:
            InvalidEntry: with a reason, and a hint that says how to fix the entry.
        """
        plain = _plain_host(entry)
        if plain is not None:
            return cls(None, plain, entry.startswith("*."), "*" if entry.endswith(":*") else None)
        scheme, authority = _split_scheme(_trim(entry))
        if scheme is not None and scheme not in DEFAULT_PORTS:
            host, app_port = _split_app(scheme, authority)
            return cls(scheme, host, wildcard=False, port=app_port)
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
                "'null' cannot be allowed, because every sandboxed iframe and local file sends it: write the page's domain."
            )
            raise InvalidEntry("null", hint)
        if https_only and scheme == "http" and not is_loopback(host):
            secure = msgspec.structs.replace(pattern, scheme="https")
            raise InvalidEntry("http_refused", f"Only https pages are allowed here, not {_shown(entry)}: write '{secure}'.")
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
        if self.scheme is not None and self.scheme not in DEFAULT_PORTS:
            return f"the app or extension at {self}, exactly"
        host = f"every subdomain of {self.host} (not {self.host} itself)" if self.wildcard else self.host
        schemes = "https and http" if self.scheme is None else f"{self.scheme} only"
        port = "the default port" if self.port is None else "any port" if self.port == "*" else f"port {self.port}"
        return f"{host}, {schemes}, {port}"


def compile_entry(entry: str, *, https_only: bool = False) -> tuple[str, str | None]:
    """Compile one entry to what it is looked up by.

    Args:
        entry: as for `Pattern.parse`.
        https_only: as for `Pattern.parse`.

    Returns:
        The normalised entry; the host of a wildcard, None for another entry.

    Raises:
        InvalidEntry: as `Pattern.parse`.
    """
    plain = _plain_host(entry)
    if plain is not None:  # a request waits, and the pattern with its text would take half of the time
        return entry, plain if entry.startswith("*.") else None
    pattern = Pattern.parse(entry, https_only=https_only)
    return str(pattern), pattern.host if pattern.wildcard else None


def _plain_host(entry: object) -> str | None:
    """Return the host of an entry in the common form, or None.

    The common form is a normal host without a scheme, with `:*` or no port. Most entries have it, and a request waits: this
    check takes a third of the time of parsing step by step. It raises InvalidEntry for a wildcard that would allow too much.
    """
    if not isinstance(entry, str) or entry == "null":
        return None
    host = entry.removeprefix("*.").removesuffix(":*")
    if not is_host_name(host) or "xn--" in host or ends_in_number(host):
        return None
    if entry.startswith("*."):
        _require_wildcard_base(host)
    return host


def _trim(entry: str) -> str:
    if not isinstance(entry, str):
        raise InvalidEntry("not_text", f"An entry is text such as 'acme.com', not {type(entry).__name__}.")
    if len(entry) > MAX_ENTRY_LENGTH:
        raise InvalidEntry("too_long", f"An entry has at most {MAX_ENTRY_LENGTH} characters; this one has {len(entry)}.")
    text = entry.strip(" \t")
    if not text:
        raise InvalidEntry("empty", "The entry is empty: write a domain such as 'acme.com', or delete it.")
    _require_allowable_scheme(text)
    if "," in text:
        raise InvalidEntry("comma", f"{_shown(text)} has a comma: write one entry for each domain.")
    if " " in text or not (text.isprintable() or all(map(_is_visible, text))):
        raise InvalidEntry("space", f"{_shown(text)} has a space or an invisible character in it: delete it.")
    if "\\" in text:
        raise InvalidEntry("backslash", f"{_shown(text)} has a backslash: write a domain such as 'acme.com'.")
    return text


def _is_visible(character: str) -> bool:
    return character.isprintable() or character in JOINERS


def _split_scheme(text: str) -> tuple[str | None, str]:
    scheme, separator, authority = text.partition("://")
    if not separator:
        return None, text.removesuffix("/")
    scheme = scheme.lower()
    if not is_scheme(scheme):
        hint = (
            f"{_shown(text)} begins with {_shown(scheme + '://')}, which is no scheme: write 'https://', 'http://', or that"
            " of an app, such as 'capacitor://'."
        )
        raise InvalidEntry("scheme", hint)
    return scheme, authority.removesuffix("/")


def _require_allowable_scheme(text: str) -> None:
    scheme, colon, rest = text.partition(":")
    scheme, rest = scheme.lower(), rest.removesuffix("/")
    if not colon or scheme not in REFUSED_SCHEMES or rest == "*" or is_port(rest):
        return
    meant = REFUSED_SCHEMES[scheme]
    if meant is None:
        hint = (
            f"Pages at {_shown(scheme + ':')} have no origin of their own, and 'null' cannot be allowed: write the domain of"
            " a web page, such as 'acme.com'."
        )
    else:
        page = f"{meant}://{rest.removeprefix('//').partition('/')[0] or 'acme.com'}"
        hint = f"{_shown(text)} is not the address of a page: write {_shown(page)}."
    raise InvalidEntry("scheme", hint)


def _split_app(scheme: str, authority: str) -> tuple[str, int | None]:
    prefix = f"{scheme}://"
    if "*" in authority:
        hint = f"{_shown(prefix + authority)} has a '*', but an app or an extension is allowed exactly: write its Origin."
        raise InvalidEntry("wildcard", hint)
    if not authority.isascii():
        hint = f"{_shown(prefix + authority)} has a letter that is not ASCII: write the Origin of the app or the extension."
        raise InvalidEntry("host", hint)
    _, host, port = _split_authority(authority, prefix)
    host = _normal_host(host)
    length = len(prefix + host) + (0 if port is None else len(f":{port}"))
    if length > MAX_ORIGIN_LENGTH:
        raise InvalidEntry("too_long", f"An Origin has at most {MAX_ORIGIN_LENGTH} characters; this one has {length}.")
    return host, None if port is None else int(port)


def _split_authority(authority: str, prefix: str = "") -> tuple[bool, str, int | Literal["*"] | None]:
    ends: tuple[tuple[str, EntryReason], ...] = (("#", "fragment"), ("?", "query"), ("/", "path"))
    for mark, reason in ends:
        before, found, _ = authority.partition(mark)
        if found and not any(other in before for other, _ in ends):
            host = prefix + (before if before and not before.endswith(":") else "acme.com")
            hint = (
                f"{_shown(prefix + authority)} has a {reason}, which is not part of a page's origin: write {_shown(host)}."
            )
            raise InvalidEntry(reason, hint)
    if "@" in authority:
        host = prefix + (authority.rpartition("@")[2] or "acme.com")
        raise InvalidEntry("userinfo", f"{_shown(prefix + authority)} has a user name: write {_shown(host)}.")
    host, port = _split_port(authority, "" if prefix else ", or ':*' for any port")
    if host == "*":
        hint = "'*' would allow every page on the web: write the domains that may use the key, such as '*.acme.com'."
        raise InvalidEntry("any_origin", hint)
    base = host.removeprefix("*.")
    if base.endswith("."):
        fixed = prefix + (host.rstrip(".") if base.strip(".") else "acme.com")
        hint = f"{_shown(prefix + host)} ends with a dot, which makes it another site for browsers: write {_shown(fixed)}."
        raise InvalidEntry("trailing_dot", hint)
    if "*" in base:
        hint = f"{_shown(host)} has a '*' that is not the whole first label: write it as in '*.acme.com'."
        raise InvalidEntry("wildcard", hint)
    return base != host, base, port


def _split_port(authority: str, alternative: str) -> tuple[str, int | Literal["*"] | None]:
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
    hint = f"{_shown(colon + port)} is not a port: write ':' and a number from 1 to 65535{alternative}."
    raise InvalidEntry("port", hint)


def _normal_host(host: str) -> str:
    if host.startswith("["):
        return _normal_ipv6(host)
    if not host:
        raise InvalidEntry("host", "The entry has no host: write a domain such as 'acme.com'.")
    if len(host) > MAX_HOST_LENGTH:  # before IDNA, which is slow on hostile hosts (CVE-2024-3651, CVE-2026-45409)
        raise InvalidEntry("host", f"A domain has at most {MAX_HOST_LENGTH} characters; this one has {len(host)}.")
    try:
        host = to_a_labels(host)
    except ValueError as error:
        hint = f"{_shown(host)} is not an internationalised domain that browsers can visit ({error}): check its spelling."
        raise InvalidEntry("idna", hint) from error
    if ends_in_number(host):
        if not is_ipv4(host):
            hint = f"{_shown(host)} is not an IPv4 address: write four numbers from 0 to 255, such as '192.168.0.10'."
            raise InvalidEntry("ipv4", hint)
    elif not is_host_name(host):
        hint = (
            f"{_shown(host)} is not a domain: write labels of 1 to 63 letters, digits, '-' or '_', with single dots between"
            f" them, at most {MAX_HOST_LENGTH} characters in all."
        )
        raise InvalidEntry("host", hint)
    return host


def _normal_ipv6(host: str) -> str:
    compressed = compress_ipv6(host)
    if compressed is None or is_ipv4_mapped(compressed):
        hint = f"{_shown(host)} is not an IPv6 address, or has a zone, or is IPv4-mapped: write it as in '[2001:db8::1]'."
        raise InvalidEntry("ipv6", hint)
    return compressed


def _require_name(base: str) -> None:
    if base.startswith("[") or ends_in_number(base):
        raise InvalidEntry("wildcard_ip", f"An IP address has no subdomains: write '{base}'.")


def _require_wildcard_base(base: str) -> None:
    if len(base) > MAX_WILDCARD_BASE_LENGTH:
        hint = f"No subdomain would fit: a domain after '*.' has at most {MAX_WILDCARD_BASE_LENGTH} characters."
        raise InvalidEntry("host", hint)
    if "." not in base:
        if base == "localhost":
            return
        hint = f"'*.{base}' would allow every domain under .{base}: write your own, such as '*.acme.{base}'."
        raise InvalidEntry("wildcard_single_label", hint)
    if is_public_suffix(base):
        hint = f"Subdomains of {base} have different owners: write your own, such as 'my-shop.{base}'."
        raise InvalidEntry("wildcard_public_suffix", hint)


def _shown(text: str) -> str:
    """Quote part of an entry for a message, escaped and shortened."""
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return ascii(cut) if not cut.isprintable() else repr(cut)
