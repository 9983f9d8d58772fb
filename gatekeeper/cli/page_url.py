"""The origin that a page's URL stands for."""

from gatekeeper.matching.origins import DEFAULT_PORTS, Origin

__all__ = ("origin_at",)


def origin_at(url: str) -> Origin:
    """Read the origin of a page from its URL.

    Args:
        url: the URL of a page on the web, in an app or in an extension.

    Returns:
        The origin that a browser sends for it.

    Raises:
        InvalidOrigin: if it is no such URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() in DEFAULT_PORTS:
        return Origin.from_referer(url)
    for end in "/?#":
        rest = rest.partition(end)[0]
    return Origin.parse(f"{scheme}://{rest}".lower())
