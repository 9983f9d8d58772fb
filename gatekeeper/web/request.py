"""What a request says: its client key, its headers, its exempt path."""

from collections.abc import Collection, Iterable, Iterator
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from gatekeeper.gate.decisions import CONFLICT, Conflict

__all__ = ("ExemptPaths", "Header", "exempt_problems", "has_header", "key_in_query", "single_header")

Header = tuple[bytes, bytes]  # name and value


class ExemptPaths:
    """Paths that are served without a client key.

    Args:
        paths: exact paths; "/static/*" covers every path below "/static/".
    """

    def __init__(self, paths: Collection[str]) -> None:
        self._exact = frozenset(path for path in paths if not path.endswith("*"))
        self._prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))

    def covers(self, scope: Scope) -> bool:
        """Whether a connection's path, relative to the mount point, is exempt."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in self._exact:
            return True
        # An app may read "/static/../chat" as "/chat", or decode once more. Such a path is never exempt by its prefix.
        return path.startswith(self._prefixes) and not any(odd in path for odd in ("/..", "\\", "%"))


def exempt_problems(paths: Collection[str]) -> Iterator[str]:
    """Yield one sentence for each mistake in exempt paths."""
    if isinstance(paths, str):
        yield f"exempt is one string, {paths!r}: expected a collection of paths, such as ({paths!r},)"
        return
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path[:-1]:
            yield f"exempt has {path!r}: expected a path such as '/healthz', or '/static/*' for every path below '/static/'"
        elif path.endswith("*") and not path.endswith("/*"):
            yield f"exempt has {path!r}: expected '/*' at the end, so that it covers whole path segments"
        elif path == "/*":
            yield "exempt has '/*', which guards nothing: list the paths that need no key"


def key_in_query(query: bytes, parameter: bytes, key: bytes | Conflict | None = None) -> bytes | Conflict | None:
    """The client key of a request, by its query and its header.

    Args:
        query: the raw query string.
        parameter: the name of the parameter that carries the key.
        key: the key in the header; None where there is none.

    Returns:
        The key; CONFLICT where two values differ. Empty values are ignored.
    """
    is_encoded = b"%" in query or b"+" in query
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if is_encoded:
            name, value = _decoded(name), _decoded(value)
        if name == parameter and value:
            key = value if not key or key == value else CONFLICT
    return key


def single_header(headers: Iterable[Header], wanted: bytes) -> bytes | Conflict | None:
    """The value of a header, or None; CONFLICT if it is repeated."""
    values = [value for name, value in headers if name == wanted]
    return None if not values else values[0] if len(values) == 1 else CONFLICT


def has_header(headers: Iterable[Header], wanted: bytes) -> bool:
    """Whether a header is present."""
    return any(name == wanted for name, _ in headers)


def _decoded(text: bytes) -> bytes:
    """Decode a query as apps do. "+" is a space, %xx a byte (URL standard, section 5.1)."""
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text
