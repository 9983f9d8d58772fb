"""Page: what a request says about the page it comes from."""

import msgspec

from gatekeeper.errors import InvalidOrigin
from gatekeeper.gate.decisions import CONFLICT, Conflict, Reason
from gatekeeper.matching.origins import Origin

__all__ = ("Asked", "Page", "read_page")

# What a request sent: its client key, its origin, and its referer where that counts.
Asked = tuple[bytes | Conflict | None, ...]


class Page(msgspec.Struct, frozen=True, gc=False):
    """What a request says about its page: an origin, or the reason why there is none."""

    origin: Origin | None
    seen: str | None
    reason: Reason = Reason.ALLOWED
    problem: str | None = None


def read_page(origin: bytes | Conflict | None, referer: bytes | Conflict | None) -> Page:
    """What a request's headers say about its page.

    Args:
        origin: the value of its Origin header; None where there is none.
        referer: the value of its Referer header, which counts only where there is no Origin.

    Returns:
        The page, whatever was given.
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
