"""What a request says: client key, headers, path, host."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.keys.client_key import MAX_CLIENT_KEY_LENGTH
from gatekeeper.matching.hosts import is_loopback

__all__ = (
    "Header",
    "Paths",
    "has_header",
    "is_at",
    "is_own",
    "path_problems",
    "route_path",
    "single_header",
    "value_in_query",
)

Header = tuple[bytes, bytes]  # name and value

LONGEST_VALUE = 3 * MAX_CLIENT_KEY_LENGTH  # bytes of a key of which every one is percent-encoded
MOST_SPELLINGS = 16  # of the key in one query that are read: decoding takes 0.1 µs for each %xx

_PORTS = {"https": ":443", "http": ":80"}


class Paths:
    """Paths that are not guarded like the others.

    Args:
        paths: exact paths; "/static/*" covers every path below "/static/".
    """

    def __init__(self, paths: Collection[str]) -> None:
        self._exact = frozenset(path for path in paths if not path.endswith("*"))
        self._prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))

    def covers(self, scope: Scope) -> bool:
        """Whether a connection's path below the mount point is listed."""
        path = route_path(scope)
        if path in self._exact:
            return True
        # An app may read "/static/../chat" as "/chat", or decode once more. Such a path is none by its prefix.
        return path.startswith(self._prefixes) and not any(odd in path for odd in ("/..", "\\", "%"))


def route_path(scope: Scope) -> str:
    """The path below the mount point.

    It is cut as Starlette's router cuts it: only at the end of a segment.

    Args:
        scope: an HTTP request or a WebSocket.
    """
    path: str = scope["path"]
    root_path: str = scope.get("root_path") or ""
    below = path.removeprefix(root_path)
    return below if below[:1] in {"", "/"} else path


def path_problems(option: str, paths: object, **others: Collection[str]) -> Iterator[str]:
    """Yield one sentence for each mistake in an option with paths.

    Args:
        option: its name.
        paths: its value.
        others: options that must not cover any of the paths, by their names.
    """
    if isinstance(paths, str):
        yield f"{option} is one string, {paths!r}: expected a collection of paths, such as ({paths!r},)"
        return
    if not isinstance(paths, Collection):
        yield f"{option} is {paths!r}: expected a collection of paths, such as ('/embed',)"
        return
    if problems := [problem for path in paths for problem in _path_problems(option, path)]:
        yield from problems
        return
    for name, listed in others.items():
        if any(path_problems(name, listed)):
            continue  # these are reported
        covered = [path for path in paths if Paths(listed).covers({"path": path.removesuffix("*")})]
        yield from (f"{option} has {path!r}, which {name} covers: list another path in one of them" for path in covered)


def _path_problems(option: str, path: object) -> Iterator[str]:
    if not isinstance(path, str) or not path.startswith("/") or "*" in path[:-1]:
        yield f"{option} has {path!r}: expected a path such as '/embed', or '/static/*' for every path below '/static/'"
    elif path.endswith("*") and not path.endswith("/*"):
        yield f"{option} has {path!r}: expected '/*' at the end, so that it covers whole path segments"
    elif path == "/*":
        yield f"{option} has '/*', which guards nothing: list single paths"


def is_at(host: bytes, origin: str) -> bool:
    """Whether an origin is at a host and port.

    http and https count as one: a proxy may have ended TLS. Origins with other schemes are at no host.

    Args:
        host: the value of a Host header.
        origin: a serialised origin.
    """
    scheme, _, authority = origin.partition("://")
    port = _PORTS.get(scheme)
    return port is not None and authority != "" and host.decode("latin-1").strip().lower() in (authority, authority + port)


def is_own(host: bytes, origin: bytes) -> bool:
    """Whether a request comes from a page of the service itself.

    Args:
        host: the value of its Host header.
        origin: the value of its Origin header. Over http it counts on loopback names only: elsewhere an attacker on the
            network can answer in the service's name.
    """
    text = origin.decode("latin-1")
    scheme, _, authority = text.partition("://")
    name = authority if authority.endswith("]") else authority.rpartition(":")[0] or authority
    return is_at(host, text) and (scheme == "https" or (scheme == "http" and is_loopback(name)))


def value_in_query(query: bytes, parameter: bytes, key: bytes | Conflict | None = None) -> bytes | Conflict | None:
    """The client key of a request, by its query and its header.

    The work is linear in the length of the query: 65 KB of any shape take at most 4 ms (benchmarks.overhead).

    Args:
        query: the raw query string.
        parameter: the name of the parameter that carries the key.
        key: the key in the header; None where there is none.

    Returns:
        The key; CONFLICT where two values differ, or where it has more than 16 spellings. Empty values are ignored. A
        value that is too long for a key is not decoded.
    """
    if b"&" not in query and b"%" not in query and b"+" not in query:  # a key alone takes half the time
        name, _, value = query.partition(b"=")
        if name != parameter or not value or value == key:
            return key
        return CONFLICT if key else value
    values = _values_of(parameter)(b"&" + query)
    if len(values) > 1:
        values = list(set(values))[: MOST_SPELLINGS + 1]
    for raw in values:
        value = _decoded(raw) if b"%" in raw or b"+" in raw else raw
        if value and value != key:
            if key:
                return CONFLICT
            key = value
    return key if len(values) <= MOST_SPELLINGS else CONFLICT


def single_header(headers: Iterable[Header], wanted: bytes) -> bytes | Conflict | None:
    """The value of a header, or None; CONFLICT if it is repeated."""
    values = [value for name, value in headers if name == wanted]
    return None if not values else values[0] if len(values) == 1 else CONFLICT


def has_header(headers: Iterable[Header], wanted: bytes) -> bool:
    """Whether a header is present."""
    return any(name == wanted for name, _ in headers)


@lru_cache(maxsize=64)
def _values_of(parameter: bytes) -> Callable[[bytes], list[bytes]]:
    """A function that finds the raw values of a parameter in "&" and a query, whatever the spelling of its name.

    No name is decoded: one pass of the pattern decides which names count.
    """
    any_spelling = b"".join(map(_spellings, parameter))
    # The plain name comes first, for speed: it takes a tenth of the time.
    plain = b"" if b"+" in parameter or b"&" in parameter or b"%" in parameter else re.escape(parameter) + b"|"
    return re.compile(b"&(?:" + plain + any_spelling + b")=([^&]*)").findall


def _spellings(byte: int) -> bytes:
    """A pattern for one byte of a name in a query, percent-encoded or not."""
    encoded = f"%(?i:{byte:02x})".encode("ascii")
    character = bytes((byte,))
    if character in b"+&":  # they mean something else where they are not encoded
        return encoded
    bare = b"%(?![0-9A-Fa-f]{2})" if character == b"%" else re.escape(character)
    return b"(?:" + bare + b"|" + encoded + b")"


def _decoded(value: bytes) -> bytes:
    """Decode a query as apps do. "+" is a space, %xx a byte (URL standard, section 5.1)."""
    return value if len(value) > LONGEST_VALUE else unquote_to_bytes(value.replace(b"+", b" "))
