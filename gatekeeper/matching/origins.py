"""Origin: the page that an Origin or Referer header names.

Browsers send a serialised origin (URL standard 4.5 https://url.spec.whatwg.org/#origin, RFC 6454 section 6.2) and nothing
else. A header that differs from its own serialisation by one byte was not written by a browser, and is refused. Requests
wait for these functions, so they use no regex, no urllib and no IDNA.
"""

import string
from typing import Self

import msgspec

from gatekeeper.errors import InvalidOrigin
from gatekeeper.matching.hosts import (
    MAX_HOST_LENGTH,
    MAX_PORT,
    compress_ipv6,
    ends_in_number,
    is_host_name,
    is_ipv4,
    is_loopback,
    is_port,
)

__all__ = ("DEFAULT_PORTS", "MAX_ORIGIN_LENGTH", "Origin", "is_scheme", "is_secure")

DEFAULT_PORTS = {"https": 443, "http": 80}

MAX_ORIGIN_LENGTH = len("https://") + MAX_HOST_LENGTH + len(":65535")

_SCHEME_CHARACTERS = frozenset(string.ascii_lowercase + string.digits + "+-.")


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The scheme, host and port of a page or an app.

    Attributes:
        scheme: "https", "http", or another in lower case, such as "capacitor" of an app.
        host: the host in lower case and A-labels, as browsers serialise it; IPv6 in brackets. It may end with one dot. Hosts
            of apps and extensions are in lower case, too (RFC 6454 section 4): Safari sends the id of an extension so, and
            shows it in upper case.
        port: the port, also where it is the scheme's default; None where another scheme has no port.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, value: str | bytes) -> Self:
        """Parse the value of an Origin header.

        Args:
            value: the header's value, as text or as raw bytes.

        Returns:
            The origin. Its `str()` equals `value`.

        Raises:
            InvalidOrigin: with reason "null" for an opaque origin, with another reason for a value that browsers never send.
        """
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if text == "null":
            raise InvalidOrigin("null", "the page has an opaque origin (a sandboxed iframe, a file or a data: URL)")
        _require_length(len(text))
        scheme, separator, authority = text.partition("://")
        default_port = DEFAULT_PORTS.get(scheme)
        if not separator or (default_port is None and not is_scheme(scheme)):
            raise InvalidOrigin("scheme", "an origin begins with a scheme such as https://")
        host, port = _host_and_port(authority)
        if port is None:
            return cls(scheme, host, default_port)
        if port == default_port:
            raise InvalidOrigin("port", "browsers leave out the scheme's default port")
        return cls(scheme, host, port)

    @classmethod
    def from_referer(cls, value: str | bytes) -> Self:
        """Parse the value of a Referer header.

        Args:
            value: the header's value, as text or as raw bytes.

        Returns:
            The origin of the page that it names.

        Raises:
            InvalidOrigin: if it is not an http or https URL, has userinfo, or has bytes that browsers percent-encode.
        """
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not (text.isascii() and text.isprintable()):
            raise InvalidOrigin("characters", "a Referer holds printable ASCII characters only")
        scheme, separator, authority = text.lower().partition("://")
        if scheme not in DEFAULT_PORTS or not separator:
            raise InvalidOrigin("scheme", "a Referer begins with https:// or http://")
        for end in "/?#\\":
            authority = authority.partition(end)[0]
        if "@" in authority:
            raise InvalidOrigin("userinfo", "browsers strip user names and passwords from a Referer")
        _require_length(len(scheme) + len(separator) + len(authority))
        host, port = _host_and_port(authority)
        return cls(scheme, host, port or DEFAULT_PORTS[scheme])

    def __str__(self) -> str:
        """The serialised origin, as in an Origin header."""
        if self.port == DEFAULT_PORTS.get(self.scheme):
            return f"{self.scheme}://{self.host}"
        return f"{self.scheme}://{self.host}:{self.port}"


def is_secure(origin: Origin) -> bool:
    """Whether a page of this origin is safe from network attackers.

    The pages of apps and extensions are: they come from the device.
    """
    return origin.scheme != "http" or is_loopback(origin.host)


def is_scheme(text: str) -> bool:
    """Whether a text is a scheme, in lower case.

    See RFC 3986 section 3.1.
    """
    return text[:1].isalpha() and _SCHEME_CHARACTERS.issuperset(text)


def _require_length(length: int) -> None:
    if length > MAX_ORIGIN_LENGTH:
        raise InvalidOrigin("too_long", f"an origin has at most {MAX_ORIGIN_LENGTH} bytes")


def _host_and_port(authority: str) -> tuple[str, int | None]:
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
            raise InvalidOrigin("host", "an IPv6 host is in brackets, compressed and in lower case")
        return
    # Browsers keep one dot at the end of a name, where it makes another site, and remove it from an IPv4 address.
    name = host.removesuffix(".")
    if ends_in_number(name):
        if not is_ipv4(host):
            raise InvalidOrigin("host", "a host that ends in a number is four decimal numbers from 0 to 255")
    elif not is_host_name(name):
        raise InvalidOrigin("host", "a host is labels of a-z, 0-9, - and _ with dots between them")
