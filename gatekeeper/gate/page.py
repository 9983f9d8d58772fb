"""Page: the page of a request. RequestIdentity: what decides it."""

import msgspec

from gatekeeper.errors import InvalidOrigin
from gatekeeper.gate.decisions import CONFLICT, Conflict, Reason
from gatekeeper.matching.origins import Origin

__all__ = ("Page", "RequestIdentity", "read_page")

# Client key and origin of a request; or client key, None and referer, where there is no Origin.
RequestIdentity = tuple[bytes | Conflict | None, ...]


class Page(msgspec.Struct, frozen=True, gc=False):
    """The page of a request: an origin, or why there is none."""

    origin: Origin | None
    seen: str | None
    reason: Reason = Reason.ALLOWED
    problem: str | None = None


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
    try:
        if origin is not None:
            page = Origin.parse(origin)
        elif referer is not None:
            page = Origin.from_referer(referer)
        else:
            return Page(None, None, Reason.ORIGIN_MISSING)
    except InvalidOrigin as error:
        if error.reason == "null":
            return Page(None, "null", Reason.ORIGIN_NULL)
        return Page(None, None, Reason.ORIGIN_MALFORMED, str(error))
    return Page(page, str(page))
