"""Salvage from unreadable rows: the key's id, and whether it is disabled."""

import json
import re
from typing import Any, NoReturn

import msgspec

__all__ = ("STRUCTURE", "decode_leniently", "is_encodable", "outline", "replace_surrogates")

# Strings are matched whole, because they may contain brackets and commas. A lone quotation mark begins an incomplete string.
STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
_VALUE = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*"|[^ \t\r\n",:]+)', re.DOTALL)


def outline(raw: bytes, suffix_field: str = "last8") -> dict[str, Any]:
    """Find the `row_id`, `last8` and `disabled_at` of an InvalidRow in invalid JSON."""
    names = {b'"id"': "row_id", b'"%b"' % suffix_field.encode("utf-8", "replace"): "last8"}
    found: dict[str, Any] = {}
    depth = 0
    for token in STRUCTURE.finditer(raw):
        mark = token.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        elif depth == 1 and (value := _VALUE.match(raw, token.end())):
            text = decode_leniently(value.group(1))
            if mark in names and isinstance(text, str):
                found[names[mark]] = text
            elif mark == b'"disabled_at"' and value.group(1) != b"null":
                found["disabled_at"] = True
    return found


def decode_leniently(text: bytes) -> object:
    """Decode JSON with the standard library, which accepts more than msgspec.

    None if it cannot be decoded. Bytes that are not UTF-8 become lone surrogates.
    """
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def is_encodable(value: object) -> bool:
    """Whether msgspec can encode a value: no lone surrogates, limited nesting."""
    try:
        msgspec.json.encode(value)
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def replace_surrogates(value: object) -> object:
    """Replace lone surrogates in a text by "?". Other values are returned unchanged."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
