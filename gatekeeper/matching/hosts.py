"""The grammar of hosts and ports, which Origin headers and allowlist entries share.

Nothing here uses a regex, urllib or IDNA: requests wait on it.
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
