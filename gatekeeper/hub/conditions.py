"""The entity tags that a conditional request names."""

from starlette.requests import Request

__all__ = ("read_tags",)


def read_tags(request: Request, name: str) -> frozenset[str] | None:
    """Read a header of entity tags (RFC 9110 section 13.1).

    Args:
        request: the request.
        name: the name of the header, such as If-Match.

    Returns:
        The tags as sent, with their quotes; "*" stands for any. None if the request does not have the header.
    """
    fields = request.headers.getlist(name)
    # A tag of this hub has no comma.
    return frozenset(tag.strip() for tag in ",".join(fields).split(",")) if fields else None
