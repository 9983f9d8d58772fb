"""CorsPolicy and the headers made from it. See "CORS protocol", section 3.3 of the Fetch standard."""

import string
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal

import msgspec
from starlette.types import Message

from gatekeeper.errors import ConfigError
from gatekeeper.gate.decisions import Conflict
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.matching.hosts import is_loopback
from gatekeeper.web.request import Header, has_header

__all__ = (
    "OWN",
    "PUBLIC",
    "CorsHeaders",
    "CorsPolicy",
    "as_public",
    "frame_ancestors",
    "is_token",
    "merge_vary",
    "with_headers",
)

# The gate replaces these headers of the app, or merges them with its own.
OWN = frozenset({b"access-control-allow-origin", b"access-control-allow-credentials", b"vary"})
_NAMING = OWN - {b"vary"}
PUBLIC: Header = (b"access-control-allow-origin", b"*")
_CREDENTIALS: Header = (b"access-control-allow-credentials", b"true")

_TOKEN_CHARACTERS = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")  # RFC 9110 section 5.6.2


class CorsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What browsers may let allowed pages do.

    Attributes:
        allow_methods: the methods that pages may use.
        allow_headers: the request headers that pages may set, besides the key header.
        expose_headers: the response headers that pages may read.
        max_age: seconds for which a browser may cache the answer to a preflight.
        allow_credentials: whether pages may send cookies; needs `preflight="strict"` and a gate with `https_only=True`.
        preflight: "open" answers every well-formed origin, with "*", and leaves the decision to the actual request,
            because the headers of a preflight carry no key; "strict" answers only origins that the key in the URL allows
            or, without a key, that some enabled key allows, and answers them by name.
        allow_private_network: whether public pages may reach a widget service in a private network.

    Raises:
        ConfigError: listing everything that is wrong.
    """

    allow_methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    allow_headers: tuple[str, ...] = ("content-type",)
    expose_headers: tuple[str, ...] = ()
    max_age: int = 600
    allow_credentials: bool = False
    preflight: Literal["open", "strict"] = "open"
    allow_private_network: bool = False

    def __post_init__(self) -> None:
        if problems := tuple(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        for option in ("allow_methods", "allow_headers", "expose_headers"):
            names = getattr(self, option)
            if isinstance(names, str):
                yield f"{option} is one string, {names!r}: expected a tuple of names, such as ({names!r},)"
                continue
            if not isinstance(names, tuple | list):
                yield f"{option} is {names!r}: expected a tuple of names"
                continue
            for name in names:
                if not is_token(name) or name == "*":
                    yield f"{option} has {name!r}: expected the name of a method or header, and not '*'"
        if isinstance(self.max_age, bool) or not isinstance(self.max_age, int) or self.max_age < 0:
            yield f"max_age is {self.max_age!r}: expected seconds, 0 or more"
        if self.preflight not in ("open", "strict"):
            yield f"preflight is {self.preflight!r}: expected 'open' or 'strict'"


class CorsHeaders:
    """The headers of a policy, built once. Each response gets a list of its own.

    Args:
        policy: the policy.
        key_header: the header that carries the client key.
        varies_by: other request headers by which responses vary.

    Attributes:
        vary: the Vary header of a response.
        vary_with_referer: the Vary header where the Referer replaced a missing Origin; such a response gains no other.
        allowed: the headers added to an allowed response, besides the page's own origin.
        observed: those added to the response to a refused page that is let through, besides PUBLIC.
    """

    def __init__(self, policy: CorsPolicy, key_header: str, *, varies_by: tuple[str, ...] = ()) -> None:
        credentials: tuple[Header, ...] = ()
        if policy.allow_credentials:
            credentials = (_CREDENTIALS,)
        expose: tuple[Header, ...] = ()
        if policy.expose_headers:
            expose = ((b"access-control-expose-headers", _joined(policy.expose_headers)),)
        self.vary: Header = (b"vary", _joined(("Origin", key_header, *varies_by)))
        self.vary_with_referer: Header = (b"vary", _joined(("Origin", key_header, *varies_by, "Referer")))
        self.allowed: tuple[Header, ...] = (self.vary, *expose, *credentials)
        self.observed: tuple[Header, ...] = (self.vary, *expose)
        asked: tuple[str, ...] = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")
        if policy.allow_private_network:
            asked = (*asked, "Access-Control-Request-Private-Network")
        self._is_public = policy.preflight == "open"
        self._private_network = policy.allow_private_network
        answered: tuple[Header, ...] = (
            (b"access-control-allow-methods", _joined(policy.allow_methods)),
            (b"access-control-allow-headers", _joined((*policy.allow_headers, key_header))),
            (b"access-control-max-age", str(policy.max_age).encode("ascii")),
            (b"vary", _joined(asked)),
        )
        self._open_preflight: tuple[Header, ...] = (PUBLIC, *answered)
        self._strict_preflight: tuple[Header, ...] = (*answered, *credentials)

    def of_allowed(self, origin: bytes | Conflict | None) -> list[Header]:
        """The headers that an allowed response gains.

        Args:
            origin: the value of the request's Origin header; None where the Referer replaced it.

        Returns:
            A new list.
        """
        return (
            [(b"access-control-allow-origin", origin), *self.allowed]
            if isinstance(origin, bytes)
            else [self.vary_with_referer]
        )

    def of_observed(self, origin: bytes | Conflict | None) -> list[Header]:
        """The headers that the response to a refused page gains.

        Args:
            origin: as for `of_allowed`.

        Returns:
            A new list. Any page may read the response.
        """
        return [self.vary_with_referer] if origin is None else [PUBLIC, *self.observed]

    def preflight(self, origin: bytes | None, asked: Iterable[Header]) -> list[Header]:
        """The headers of the answer to a preflight.

        Args:
            origin: the value of its Origin header; None to answer as an open policy does, without credentials.
            asked: its headers, of which one may ask for access to a private network.

        Returns:
            A new list. What the policy does not allow is left out, which browsers read as a refusal.
        """
        # An open preflight decides nothing. Scanners call it a reflected origin if it repeats what it was asked.
        if origin is None or self._is_public:
            headers = list(self._open_preflight)
        else:
            headers = [(b"access-control-allow-origin", origin), *self._strict_preflight]
        if self._private_network and has_header(asked, b"access-control-request-private-network"):
            headers.append((b"access-control-allow-private-network", b"true"))
        return headers


def frame_ancestors(allowlist: Allowlist | None) -> Header:
    """The CSP header that lets only a key's pages frame a document.

    See CSP3 section 6.4.2.

    Args:
        allowlist: the allowlist of the key; None if no page may frame the document.

    Returns:
        The header. Hosts that CSP has no syntax for (IPv6, underscores) are left out, so they cannot frame the document.
        Apps and extensions are in it: only sources with their scheme match them, and "*" does not.
    """
    sources = () if allowlist is None else tuple(_csp_sources(allowlist))
    return b"content-security-policy", ("frame-ancestors " + (" ".join(sources) or "'none'")).encode("ascii")


def merge_vary(headers: list[Header], members: bytes) -> None:
    """Merge another Vary header into the one of a list.

    Some caches read only the last of several lines (nginx before 1.23).

    Args:
        headers: the headers of a response, with one Vary header in lower case.
        members: the value of the other one.
    """
    for position, (name, value) in enumerate(headers):
        if name == b"vary":
            headers[position] = (name, _merged(value, members))
            return


def with_headers(start: Message, headers: list[Header]) -> Message:
    """The start of an app's answer, with the gate's headers.

    Args:
        start: the message of the app.
        headers: the headers of the gate, with one Vary header in lower case. The app's own are added to the list.

    Returns:
        A new message.
    """
    for name, value in start.get("headers", ()):
        lower = name.lower()
        if lower == b"vary":
            merge_vary(headers, value)
        elif lower not in OWN:
            headers.append((name, value))
    return {**start, "headers": headers}


def as_public(start: Message) -> Message:
    """The start of an app's answer that any page may read.

    Args:
        start: the message of the app.

    Returns:
        A new message, without credentials; the same one if the app says itself which origins or credentials it allows.
    """
    headers = start.get("headers", ())
    if any(name.lower() in _NAMING for name, _ in headers):
        return start
    return {**start, "headers": [*headers, PUBLIC]}


@lru_cache(maxsize=256)
def _merged(value: bytes, more: bytes) -> bytes:
    """The members of both lists, each once; "*" where it is one of them (RFC 9110 section 12.5.5)."""
    members: dict[bytes, bytes] = {}
    for member in (value + b"," + more).split(b","):
        if name := member.strip():
            members.setdefault(name.lower(), name)
    return b"*" if b"*" in members else b", ".join(members.values())


def is_token(name: object) -> bool:
    """Whether a value can name a method or a header."""
    return isinstance(name, str) and name != "" and _TOKEN_CHARACTERS.issuperset(name)


def _csp_sources(allowlist: Allowlist) -> Iterator[str]:
    for normal in allowlist.patterns:
        if "[" in normal or "_" in normal:
            continue
        if "://" in normal:
            yield normal
            continue
        yield f"https://{normal}"
        if not allowlist.https_only or is_loopback(normal.removeprefix("*.").partition(":")[0]):
            yield f"http://{normal}"


def _joined(names: tuple[str, ...]) -> bytes:
    return ", ".join(names).encode("ascii")
