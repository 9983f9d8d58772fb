"""The grammar of hosts and ports, shared by headers and allowlist entries.

Requests wait for these functions, so they use no regex, no urllib and no IDNA.
"""

import ipaddress
import string

__all__ = (
    "MAX_HOST_LENGTH",
    "MAX_PORT",
    "compress_ipv6",
    "ends_in_number",
    "is_host_name",
    "is_ipv4",
    "is_ipv4_mapped",
    "is_loopback",
    "is_port",
)

MAX_HOST_LENGTH = 253  # RFC 1035 section 3.1: 255 octets on the wire, less the first length octet and the root label.
MAX_LABEL_LENGTH = 63  # RFC 1035 section 2.3.4
MAX_PORT = 65_535

_HOST_NAME_CHARACTERS = (string.ascii_lowercase + string.digits + "-_.").encode()
_HEX_DIGITS = frozenset("0123456789abcdef")


def is_port(text: str) -> bool:
    """Whether a text is a port as URLs serialise it.

    That is 1 to 65535 in ASCII digits, without leading zeros.
    """
    # Check the length first: int() of a long text takes quadratic time (CVE-2020-10735).
    return len(text) <= len(str(MAX_PORT)) and text.isascii() and text.isdigit() and text[0] != "0" and int(text) <= MAX_PORT


def is_host_name(host: str) -> bool:
    """Whether a text is a host name of at most 253 characters.

    A label has 1 to 63 of a-z, 0-9, "-" and "_". It may begin or end with "-", because browsers go to foo-.example.com
    (Chromium 156), though RFC 1123 section 2.1 forbids such a name.
    """
    # Bytes, because deleting characters from a str takes twice as long.
    if not 0 < len(host) <= MAX_HOST_LENGTH or not host.isascii() or host.encode().translate(None, _HOST_NAME_CHARACTERS):
        return False
    if host[0] == "." or host[-1] == "." or ".." in host:
        return False
    return len(host) <= MAX_LABEL_LENGTH or max(map(len, host.split("."))) <= MAX_LABEL_LENGTH


def ends_in_number(host: str) -> bool:
    """Whether browsers parse a host as an IPv4 address.

    This is the "ends in a number checker" of URL standard 3.5.
    """
    last = host.rpartition(".")[2]
    if last.isalpha():  # the common case
        return False
    if last.isascii() and last.isdigit():
        return True
    return last.startswith("0x") and _HEX_DIGITS.issuperset(last[2:])


def is_ipv4(host: str) -> bool:
    """Whether a text is four decimal numbers, as URLs serialise IPv4."""
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def compress_ipv6(host: str) -> str | None:
    """Serialise an IPv6 host (URL standard 3.6, "IPv6 serializer").

    Args:
        host: the host in brackets.

    Returns:
        The host in brackets, compressed and in lower case; None if it is not IPv6 or has a zone.
    """
    if not host.endswith("]") or "%" in host:
        return None
    try:
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return None
    if address.ipv4_mapped is not None:
        # Python 3.13 and later write these with dots, browsers do not.
        high, low = divmod(int(address.ipv4_mapped), 0x10000)
        return f"[::ffff:{high:x}:{low:x}]"
    return f"[{address.compressed}]"


def is_ipv4_mapped(host: str) -> bool:
    """Whether a host in brackets is IPv4-mapped (RFC 4291 section 2.5.5.2)."""
    return host.startswith("[::ffff:") and ipaddress.IPv6Address(host[1:-1]).ipv4_mapped is not None


def is_loopback(host: str) -> bool:
    """Whether a host names this machine.

    Those are localhost, *.localhost (RFC 6761 section 6.3), 127.0.0.0/8 and [::1].
    """
    return (
        host == "localhost"
        or host.endswith(".localhost")
        or host == "[::1]"
        or (host.startswith("127.") and ends_in_number(host))
    )
