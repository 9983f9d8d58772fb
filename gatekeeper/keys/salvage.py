"""What a row that cannot be read still says: whose row it is, and whether its key is disabled."""

import json
import re
from typing import Any, NoReturn

import msgspec

__all__ = ("STRUCTURE", "decode_leniently", "is_encodable", "outline", "replace_surrogates")

# Strings whole, since they may hold what looks like structure. A quotation mark alone begins one that has not arrived yet.
STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
_TOLD = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*"|[^ \t\r\n",:]+)', re.DOTALL)


def outline(raw: bytes) -> dict[str, Any]:
    """Whose row it is, and whether it says that the key is disabled, where the row as a whole cannot be read."""
    found: dict[str, Any] = {}
    depth = 0
    for token in STRUCTURE.finditer(raw):
        mark = token.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        elif depth == 1 and (value := _TOLD.match(raw, token.end())):
            text = decode_leniently(value.group(1))
            if mark == b'"id"' and isinstance(text, str):
                found["row_id"] = text
            elif mark == b'"disabled_at"' and value.group(1) != b"null":
                found["disabled_at"] = True
    return found


def decode_leniently(text: bytes) -> object:
    """What the standard library reads, which takes more for JSON than msgspec does; None where not even that can."""
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def is_encodable(value: object) -> bool:
    """Whether a value can be written as JSON: half a surrogate pair cannot, nor can what is nested too deep."""
    try:
        msgspec.json.encode(value)
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def replace_surrogates(value: object) -> object:
    """Text with "?" for each half of a surrogate pair; any other value unchanged."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
