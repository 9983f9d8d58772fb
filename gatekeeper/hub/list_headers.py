"""The headers of answers to requests for the list."""

from typing import Final

from gatekeeper.hub.tokens import TokenScope

__all__ = ("SCOPE_HEADER", "delta_headers", "list_headers", "wait_headers", "whole_headers")

# Tells a gate that its token may do more than it needs.
SCOPE_HEADER: Final = "Token-Scope"

# A gate takes `Prefer` in it for a hub that holds requests.
_VARY: Final = "Authorization, X-Account-ID, Accept-Encoding, A-IM, Prefer"


def list_headers(etag: str, token_scope: TokenScope) -> dict[str, str]:
    """The headers of the list, and of a 304 for it.

    Args:
        etag: the ETag of the list, compressed or not.
        token_scope: the scope of the token that asked for it.
    """
    # `no-cache` lets caches store the list but makes them revalidate each time, so that no cache keeps a revoked key alive.
    return {
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Vary": _VARY,
        SCOPE_HEADER: token_scope,
    }


def whole_headers(etag: str, token_scope: TokenScope, *, gzip: bool) -> dict[str, str]:
    """The headers of the whole list.

    Args:
        etag: the ETag of the list, compressed or not.
        token_scope: the scope of the token that asked for it.
        gzip: whether it is compressed.
    """
    encoding = {"Content-Encoding": "gzip"} if gzip else {}
    return list_headers(etag, token_scope) | encoding


def delta_headers(etag: str, base: str, token_scope: TokenScope, *, gzip: bool) -> dict[str, str]:
    """The headers of a delta (RFC 3229).

    Args:
        etag: the ETag of the list that it leads to.
        base: the member of If-None-Match that it starts from, as sent.
        token_scope: the scope of the token that asked for it.
        gzip: whether it is compressed.
    """
    # A cache that does not know 226 might take the delta for the list.
    headers = {
        "ETag": etag,
        "IM": "rows",
        "Delta-Base": base,
        "Cache-Control": "no-store",
        "Vary": f"{_VARY}, If-None-Match",
        SCOPE_HEADER: token_scope,
    }
    if gzip:
        headers["Content-Encoding"] = "gzip"
    return headers


def wait_headers(seconds: int, *, is_last: bool) -> dict[str, str]:
    """The further headers of an answer for which the client could wait.

    Args:
        seconds: the longest wait.
        is_last: whether the hub stops.
    """
    # A client that asks again at once would otherwise do so over a connection that is about to be closed.
    closing = {"Connection": "close"} if is_last else {}
    return {"Preference-Applied": f"wait={seconds}", **closing}  # RFC 7240 section 3
