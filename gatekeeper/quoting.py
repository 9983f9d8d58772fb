"""quoted, masked: text of the other side, for messages and logs."""

import re

__all__ = ("SHOWN", "masked", "quoted")

SHOWN = 200  # characters; a page of HTML is longer
_SECRETS = re.compile(r"([ps]k_live_|sk_all_)[A-Za-z0-9_-]+")


def quoted(text: str, limit: int = SHOWN) -> str:
    r"""Quote text of the other side: escaped, cut, without secrets.

    Line breaks, control characters and characters that change the direction of text are escaped, so that the text can
    neither forge a line of a log nor reorder one (CWE-117, CWE-451). Tokens and client keys are masked as by `masked`.

    Args:
        text: what a hub, a proxy, a list or a file says.
        limit: characters to show, before they are escaped.

    Returns:
        The text as Python writes it, such as `'one\ntwo'`, with "…" at the end if it was cut.
    """
    text = masked(text)
    return repr(text if len(text) <= limit else f"{text[:limit]}…")


def masked(text: str) -> str:
    """Mask tokens and client keys.

    Only those that begin with `sk_live_`, `sk_all_` or `pk_live_` are found. Keys with another `key_prefix` of a gate are
    not masked.

    Args:
        text: any text.

    Returns:
        The text with "…" after the prefix of each secret. It is equal to the argument if that has none.
    """
    # A list may have many bad rows, and the search for secrets would take most of their time.
    if "k_live_" not in text and "sk_all_" not in text:
        return text
    return _SECRETS.sub(r"\1…", text)
