"""What a widget sends with its requests."""

from gatekeeper.testing.rows import DEFAULT_KEY, client_key

__all__ = ("frame_headers", "headers", "query")


def headers(origin: str | None, *, key: str = DEFAULT_KEY) -> dict[str, str]:
    """The headers of a widget's request.

    Args:
        origin: the page that the widget is on, such as "https://shop.acme.com"; None for no Origin header.
        key: the name of the row whose client key the widget has.

    Returns:
        The headers data-client-key and origin.
    """
    named = {} if origin is None else {"origin": origin}
    return {"data-client-key": client_key(key), **named}


def query(key: str = DEFAULT_KEY) -> dict[str, str]:
    """The query of a request that cannot set the key's header.

    WebSockets, EventSource and the documents of frames carry the key there.

    Args:
        key: the name of the row whose client key the widget has.

    Returns:
        The parameter client_key.
    """
    return {"client_key": client_key(key)}


def frame_headers(origin: str) -> dict[str, str]:
    """The headers of a browser's request for the document of a frame.

    Args:
        origin: the page that embeds the frame, such as "https://shop.acme.com".

    Returns:
        The headers referer and sec-fetch-dest. The key belongs in the query.
    """
    return {"referer": f"{origin}/", "sec-fetch-dest": "iframe"}
