"""Origin: which page a browser says it is on, in the Origin and the Referer header.

An Origin header is a serialised origin (URL standard 4.5 https://url.spec.whatwg.org/#origin, RFC 6454 section 6.2), and
browsers send nothing else, so whatever differs from its own serialisation by one byte was not written by a browser and is
refused. The functions on hosts serve allowlist entries too. Nothing here uses a regex, urllib or IDNA: requests wait on it.
"""

import ipaddress
import string
from typing import Self

import msgspec

from gatekeeper.errors import InvalidOrigin

__all__ = (
    "DEFAULT_PORTS",
    "Origin",
    "compress_ipv6",
    "ends_in_number",
    "is_host_name",
    "is_ipv4",
    "is_ipv4_mapped",
    "is_loopback",
)

DEFAULT_PORTS = {"https": 443, "http": 80}

MAX_HOST_LENGTH = 253  # RFC 1035 section 3.1: 255 octets on the wire, less the first length octet and the root label.
MAX_LABEL_LENGTH = 63  # RFC 1035 section 2.3.4
MAX_PORT = 65_535
MAX_AUTHORITY_LENGTH = MAX_HOST_LENGTH + len(":65535")
MAX_ORIGIN_LENGTH = len("https://") + MAX_AUTHORITY_LENGTH

_HOST_NAME_CHARACTERS = (string.ascii_lowercase + string.digits + "-_.").encode()
_HEX_DIGITS = frozenset("0123456789abcdef")


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The scheme, host and port of a web page.

    Attributes:
        scheme: "https" or "http".
        host: in lower case and A-labels, as browsers serialise it; IPv6 in brackets.
        port: the port, the scheme's default one included.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, value: str | bytes) -> Self:
        """Read the value of an Origin header.

        Args:
            value: the header's value; bytes as they came.

        Returns:
            The origin, whose `str()` is equal to `value`.

        Raises:
            InvalidOrigin: with reason "null" for an opaque origin, another one for what no browser sends.
        """
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if text == "null":
            raise InvalidOrigin("null", "the page has an opaque origin (a sandboxed iframe, a file or a data: URL)")
        scheme, authority = _scheme_and_authority(text)
        host, port = _host_and_port(authority)
        if port == DEFAULT_PORTS[scheme]:
            raise InvalidOrigin("port", "browsers leave out the scheme's default port")
        return cls(scheme, host, port or DEFAULT_PORTS[scheme])

    @classmethod
    def from_referer(cls, value: str | bytes) -> Self:
        """Read the origin of the page that a Referer header names.

        Args:
            value: the header's value; bytes as they came.

        Returns:
            The origin of that page.

        Raises:
            InvalidOrigin: for what is not an http or https URL, holds userinfo, or bytes that browsers percent-encode.
        """
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not (text.isascii() and text.isprintable()):
            raise InvalidOrigin("characters", "a Referer holds printable ASCII characters only")
        scheme, authority = _scheme_and_authority(text.lower())
        for end in "/?#\\":
            authority = authority.partition(end)[0]
        if "@" in authority:
            raise InvalidOrigin("userinfo", "browsers strip user names and passwords from a Referer")
        host, port = _host_and_port(authority)
        return cls(scheme, host, port or DEFAULT_PORTS[scheme])

    def __str__(self) -> str:
        """The serialised origin, as the Origin header has it."""
        if self.port == DEFAULT_PORTS[self.scheme]:
            return f"{self.scheme}://{self.host}"
        return f"{self.scheme}://{self.host}:{self.port}"


def _scheme_and_authority(text: str) -> tuple[str, str]:
    scheme, separator, authority = text.partition("://")
    if scheme not in DEFAULT_PORTS or not separator:
        raise InvalidOrigin("scheme", "an origin begins with https:// or http://")
    return scheme, authority


def _host_and_port(authority: str) -> tuple[str, int | None]:
    if len(authority) > MAX_AUTHORITY_LENGTH:
        raise InvalidOrigin("too_long", f"an origin has at most {MAX_ORIGIN_LENGTH} bytes")
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        host += bracket
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = authority.partition(":")
    if (colon or port) and (colon != ":" or not is_port(port)):
        raise InvalidOrigin("port", f"a port is a number from 1 to {MAX_PORT} without leading zeros")
    _require_host(host)
    return host, int(port) if port else None


def _require_host(host: str) -> None:
    if host.startswith("["):
        if compress_ipv6(host) != host:
            raise InvalidOrigin("host", "an IPv6 host stands in brackets, compressed, in lower case")
    elif ends_in_number(host):
        if not is_ipv4(host):
            raise InvalidOrigin("host", "a host that ends in a number is four decimal numbers from 0 to 255")
    elif not is_host_name(host):
        raise InvalidOrigin("host", "a host is labels of a-z, 0-9, - and _ with dots between them")


def is_port(text: str) -> bool:
    """Whether a text is a port as URLs serialise it: 1 to 65535 in ASCII digits, without leading zeros."""
    # The length comes first: int() of a long text takes quadratic time (CVE-2020-10735).
    return len(text) <= len(str(MAX_PORT)) and text.isascii() and text.isdigit() and text[0] != "0" and int(text) <= MAX_PORT


def is_host_name(host: str) -> bool:
    """Whether a text is labels of a-z, 0-9, "-" and "_" (1 to 63 of them, "-" not at an end), 253 characters at most."""
    # Bytes, for to delete characters from text takes twice as long.
    if not 0 < len(host) <= MAX_HOST_LENGTH or not host.isascii() or host.encode().translate(None, _HOST_NAME_CHARACTERS):
        return False
    if host[0] in ".-" or host[-1] in ".-" or ".." in host or ".-" in host or "-." in host:
        return False
    return len(host) <= MAX_LABEL_LENGTH or max(map(len, host.split("."))) <= MAX_LABEL_LENGTH


def ends_in_number(host: str) -> bool:
    """Whether browsers take a host for an IPv4 address (URL standard 3.5, "ends in a number checker")."""
    last = host.rpartition(".")[2]
    if last.isalpha():  # as most are
        return False
    if last.isascii() and last.isdigit():
        return True
    return last.startswith("0x") and _HEX_DIGITS.issuperset(last[2:])


def is_ipv4(host: str) -> bool:
    """Whether a text is an IPv4 address as URLs serialise it: four decimal numbers without leading zeros."""
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def compress_ipv6(host: str) -> str | None:
    """The serialisation of an IPv6 host (URL standard 3.6, "IPv6 serializer").

    Args:
        host: with its brackets.

    Returns:
        The host in brackets, compressed and in lower case; None if it is not one, or names a zone.
    """
    if not host.endswith("]") or "%" in host:
        return None
    try:
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return None
    if address.ipv4_mapped is not None:
        # Python 3.13 began to write these with dots, which browsers do not.
        high, low = divmod(int(address.ipv4_mapped), 0x10000)
        return f"[::ffff:{high:x}:{low:x}]"
    return f"[{address.compressed}]"


def is_ipv4_mapped(host: str) -> bool:
    """Whether a host is an IPv4 address in the clothes of an IPv6 one (RFC 4291 section 2.5.5.2), in brackets."""
    return host.startswith("[::ffff:") and ipaddress.IPv6Address(host[1:-1]).ipv4_mapped is not None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name: localhost, *.localhost (RFC 6761 section 6.3), 127.0.0.0/8, [::1]."""
    return (
        host == "localhost"
        or host.endswith(".localhost")
        or host == "[::1]"
        or (host.startswith("127.") and ends_in_number(host))
    )
