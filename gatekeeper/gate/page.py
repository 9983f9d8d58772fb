"""Page: the page of a request. RequestIdentity: what decides a request."""

from typing import Final, Literal

import msgspec

from gatekeeper.errors import InvalidOrigin
from gatekeeper.gate.decisions import CONFLICT, Conflict, Reason
from gatekeeper.matching.origins import Origin

__all__ = ("BEHIND_FRAME", "NOT_FRAMED", "Page", "RequestIdentity", "Via", "as_bytes", "identity_of", "read_page")

# Client key and origin; or client key, None and referer, where there is no Origin; or client key, origin, None and grant.
# Beside a grant the origin is None if the request is known to come from the widget's own frame.
RequestIdentity = tuple[bytes | Conflict | None, ...]

Via = Literal["origin", "referer", "grant"]


class Page(msgspec.Struct, frozen=True, gc=False):
    """The page of a request: an origin, or why there is none.

    Attributes:
        origin: the origin of the page; None if there is none.
        seen: the origin as it is shown in a decision.
        reason: the reason of the refusal where there is no origin; `allowed` if none is needed.
        problem: what is wrong with the value that names the page.
        via: what names the page.
    """

    origin: Origin | None
    seen: str | None
    reason: Reason = Reason.ALLOWED
    problem: str | None = None
    via: Via | None = None


# The page that holds a frame, where the document's request does not name it: the browser enforces the allowlist.
BEHIND_FRAME: Final = Page(None, None)
# There is no frame: the request for its document comes from a script, a form or the address bar.
NOT_FRAMED: Final = Page(None, None, Reason.NOT_FRAMED)

_NOT_TEXT: Final = b"(not text)"  # malformed as a key, an origin, a referer and a grant


def as_bytes(value: object) -> bytes | Conflict | None:
    """A value of a request as it is decided.

    Args:
        value: text or bytes, None, CONFLICT. Anything else, such as a number in a JSON body, becomes a malformed value.
    """
    if value is None or value is CONFLICT or isinstance(value, bytes):
        return value
    # Never str(value): it raises for huge integers and for lists that are nested deeply.
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else _NOT_TEXT


def identity_of(
    client_key: bytes | Conflict | None,
    origin: bytes | Conflict | None,
    referer: bytes | Conflict | None = None,
    grant: bytes | Conflict | None = None,
) -> RequestIdentity:
    """Put together what decides a request.

    Args:
        client_key: the key that it names.
        origin: the value of its Origin header.
        referer: the value of its Referer header, which counts only where there is no Origin.
        grant: the grant that it sends.

    Returns:
        The identity, without what does not count.
    """
    if grant is not None:
        return client_key, origin, None, grant
    return (client_key, None, referer) if origin is None else (client_key, origin)


def read_page(origin: bytes | Conflict | None, referer: bytes | Conflict | None) -> Page:
    """Read the page that a request's headers name.

    Args:
        origin: the value of its Origin header; None where there is none.
        referer: the value of its Referer header, which counts only where there is no Origin.

    Returns:
        The page; nothing is raised.
    """
    if origin is CONFLICT or referer is CONFLICT:
        return Page(None, None, Reason.ORIGIN_CONFLICT)
    via: Via
    try:
        if origin is not None:
            page, via = Origin.parse(origin), "origin"
        elif referer is not None:
            page, via = Origin.from_referer(referer), "referer"
        else:
            return Page(None, None, Reason.ORIGIN_MISSING)
    except InvalidOrigin as error:
        if error.reason == "null":
            return Page(None, "null", Reason.ORIGIN_NULL)
        return Page(None, None, Reason.ORIGIN_MALFORMED, str(error))
    return Page(page, str(page), via=via)
