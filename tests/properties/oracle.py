"""A naive reading of origins and entries.

It shares no code with the package, only lists of labels, loops and comparisons, so both agree only if both are right. It
understands ASCII entries without Punycode.
"""

from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443}
DIGITS = "0123456789"
HEX = "0123456789abcdef"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCHEME = LETTERS + DIGITS + "+-."
LABEL = "abcdefghijklmnopqrstuvwxyz0123456789-_"
ANY_PORT = 0
HIGHEST_PORT = 65535
LONGEST_ORIGIN = 267
LONGEST_ENTRY = 1024
LONGEST_NAME = 253
LONGEST_WILDCARD_BASE = 251
LONGEST_LABEL = 63
MOST_ENTRIES = 100
IPV6_GROUPS = 8
IPV4_PARTS = 4
REFUSED_SCHEMES = ["file", "data", "blob", "about", "javascript", "null", "ws", "wss", "ftp"]
PUBLIC_SUFFIXES = {"com", "co", "co.uk", "io", "github.io", "vercel.app", "foo.ck", "test"}


class ReadEntry(NamedTuple):
    """A valid entry. Its port is None for the default of each scheme, ANY_PORT for `:*`."""

    schemes: tuple[str, ...]
    wildcard: bool
    host: str
    port: int | None


def read_origin(value: str) -> tuple[str, str, int | None] | None:
    """Return the scheme, host and effective port of a serialised origin."""
    if not value.isascii() or len(value) > LONGEST_ORIGIN or "://" not in value:
        return None
    scheme, authority = value.split("://", 1)
    if not _all_in(scheme, SCHEME) or not _all_in(scheme[0], LETTERS):
        return None
    return _read_origin_after(scheme, authority)


def _read_origin_after(scheme: str, authority: str) -> tuple[str, str, int | None] | None:
    host, port_text = _split_port(authority)
    if host.startswith("["):
        groups = None if "." in host else _read_ipv6(host[1:-1])
        good_host = groups is not None and host == f"[{_write_ipv6(groups)}]"
    else:
        good_host = _is_ipv4(host) or _is_name(host.removesuffix("."))
    if not good_host:
        return None
    if port_text == "":
        return scheme, host, DEFAULT_PORTS.get(scheme)
    port = _read_port(port_text)
    if port is None or port == DEFAULT_PORTS.get(scheme):
        return None
    return scheme, host, port


def read_entry(entry: str) -> ReadEntry | None:
    """Read an ASCII entry without Punycode. Return None if it is rejected."""
    if not entry.isascii() or len(entry) > LONGEST_ENTRY:
        return None
    text = entry.strip(" \t").lower()
    text = text.removesuffix("/")
    if text == "null":
        return None
    schemes: tuple[str, ...] = ("https", "http")
    if "://" in text:
        scheme, text = text.split("://", 1)
        if scheme not in schemes:
            return _read_app(scheme, text)
        schemes = (scheme,)
    wildcard = text.startswith("*.")
    host, port_text = _split_port(text.removeprefix("*."))
    read_host = _read_wildcard_base(host) if wildcard else _read_exact_host(host)
    if read_host is None:
        return None
    if port_text == "":
        return ReadEntry(schemes, wildcard, read_host, None)
    port = ANY_PORT if port_text == ":*" else _read_port(port_text)
    return None if port is None else ReadEntry(schemes, wildcard, read_host, port)


def _read_app(scheme: str, authority: str) -> ReadEntry | None:
    if scheme in REFUSED_SCHEMES or not _all_in(scheme, SCHEME) or not _all_in(scheme[0], LETTERS):
        return None
    host, port_text = _split_port(authority)
    read_host = _read_exact_host(host)
    if read_host is None or len(f"{scheme}://{read_host}{port_text}") > LONGEST_ORIGIN:
        return None
    port = None if port_text == "" else _read_port(port_text)
    return None if port_text != "" and port is None else ReadEntry((scheme,), wildcard=False, host=read_host, port=port)


def allows(entries: list[str], origin: str) -> bool:
    """Whether any of the first hundred entries allows the origin."""
    read = read_origin(origin)
    if read is None:
        return False
    for entry in entries[:MOST_ENTRIES]:
        meaning = read_entry(entry)
        if meaning is not None and _covers(meaning, *read):
            return True
    return False


def _covers(entry: ReadEntry, scheme: str, host: str, port: int | None) -> bool:
    if scheme not in entry.schemes:
        return False
    if entry.port is None and port != DEFAULT_PORTS.get(scheme):
        return False
    if entry.port not in (None, ANY_PORT, port):
        return False
    if not entry.wildcard:
        return host == entry.host
    labels = host.split(".")
    base = entry.host.split(".")
    return len(labels) > len(base) and labels[len(labels) - len(base) :] == base


def _split_port(authority: str) -> tuple[str, str]:
    end_of_brackets = authority.find("]") if authority.startswith("[") else 0
    if end_of_brackets == -1:
        return "", authority
    if end_of_brackets > 0:
        return authority[: end_of_brackets + 1], authority[end_of_brackets + 1 :]
    colon = authority.find(":")
    if colon == -1:
        return authority, ""
    return authority[:colon], authority[colon:]


def _read_port(port_text: str) -> int | None:
    digits = port_text[1:]
    if port_text[:1] != ":" or not _all_in(digits, DIGITS) or digits.startswith("0") or len(digits) > len("65535"):
        return None
    return int(digits) if int(digits) <= HIGHEST_PORT else None


def _read_exact_host(host: str) -> str | None:
    if host.startswith("["):
        groups = _read_ipv6(host[1:-1])
        if groups is None or groups[:6] == [0, 0, 0, 0, 0, 0xFFFF]:
            return None
        return f"[{_write_ipv6(groups)}]"
    return host if _is_ipv4(host) or _is_name(host) else None


def _read_wildcard_base(base: str) -> str | None:
    if not _is_name(base) or len(base) > LONGEST_WILDCARD_BASE or base in PUBLIC_SUFFIXES:
        return None
    if "." not in base and base != "localhost":
        return None
    return base


def _is_name(host: str) -> bool:
    labels = host.split(".")
    for label in labels:
        if not _all_in(label, LABEL) or len(label) > LONGEST_LABEL:
            return False
    return len(host) <= LONGEST_NAME and not _is_number(labels[-1])


def _is_number(label: str) -> bool:
    return _all_in(label, DIGITS) or label == "0x" or (label.startswith("0x") and _all_in(label[2:], HEX))


def _is_ipv4(host: str) -> bool:
    return _read_ipv4(host) is not None


def _read_ipv4(host: str) -> list[int] | None:
    parts = host.split(".")
    if len(parts) != IPV4_PARTS:
        return None
    for part in parts:
        if part not in [str(number) for number in range(256)]:
            return None
    return [int(part) for part in parts]


def _read_ipv6(text: str) -> list[int] | None:
    if text.count("::") > 1 or ":::" in text:
        return None
    if "::" not in text:
        groups = _read_groups(text)
        return groups if groups is not None and len(groups) == IPV6_GROUPS else None
    left_text, right_text = text.split("::")
    left = _read_groups(left_text) if left_text else []
    right = _read_groups(right_text) if right_text else []
    if left is None or right is None or "." in left_text or len(left) + len(right) >= IPV6_GROUPS:
        return None
    return left + [0] * (IPV6_GROUPS - len(left) - len(right)) + right


def _read_groups(text: str) -> list[int] | None:
    parts = text.split(":")
    octets = _read_ipv4(parts[-1])
    tail = []
    if octets is not None:
        parts = parts[:-1]
        tail = [octets[0] * 256 + octets[1], octets[2] * 256 + octets[3]]
    for part in parts:
        if not _all_in(part, HEX) or len(part) > len("ffff"):
            return None
    return [int(part, 16) for part in parts] + tail


def _write_ipv6(groups: list[int]) -> str:
    start, length = 0, 0
    for first in range(IPV6_GROUPS):
        run = 0
        while first + run < IPV6_GROUPS and groups[first + run] == 0:
            run += 1
        if run > length:
            start, length = first, run
    words = [f"{group:x}" for group in groups]
    if length <= 1:
        return ":".join(words)
    return ":".join(words[:start]) + "::" + ":".join(words[start + length :])


def _all_in(text: str, alphabet: str) -> bool:
    return text != "" and all(character in alphabet for character in text)
