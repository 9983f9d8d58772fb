"""ListReader: reads the hub's list in slices, while it arrives.

The list is never in memory as a whole. A bad row does not affect other rows. A list that is not a JSON array to its last
byte is refused as a whole.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from gatekeeper.errors import InvalidList, InvalidRow
from gatekeeper.keys.reader import RowReader, as_widget_key
from gatekeeper.keys.salvage import STRUCTURE
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.quoting import quoted

__all__ = ("SLICE", "ListReader", "RowDecoder", "Slice", "read_list")

# Bytes of JSON that are decoded in one step: about 500 rows, which take 1 ms.
SLICE = 128 * 1024
# Maximum bytes of a row while it arrives. Rows of over 64 KB are refused later; a row without an end would fill the memory.
MAX_ROW = 8 * 1024 * 1024

# A slice may end inside a row. Then this many cuts near its end are tried, enough for rows with a few nested objects. That
# is eight times as fast as scanning the whole slice.
_ENDS = 8
_TAIL = 4096  # bytes

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_EXPECTED_ARRAY = "expected a JSON array of rows"
_BETWEEN_ROWS = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_KINDS = {
    b"{": "an object",
    b'"': "a string",
    b"<": "HTML or XML",
    b"t": "true",
    b"f": "false",
    b"n": "null",
    b"\x1f": "gzip",
    b"\xff": "UTF-16",
    b"\xfe": "UTF-16",
}


def read_list(rows: RowReader, body: bytes) -> tuple[list[WidgetKey], list[InvalidRow]]:
    """Read a whole list.

    Args:
        rows: the decoder of rows.
        body: JSON in UTF-8.

    Returns:
        The good rows, and an error for each bad one.

    Raises:
        InvalidList: if the body is not a JSON array.
    """
    tidy = rows.tidy(body.removeprefix(_BOM))
    if tidy is not None:
        return list(map(as_widget_key, tidy)), []
    keys: list[WidgetKey] = []
    rejected: list[InvalidRow] = []
    reader = ListReader(rows)
    reader.feed(body)
    reader.end()
    for piece in reader:
        for row in reader.read(piece)[0]:
            if isinstance(row, InvalidRow):
                rejected.append(row)
            else:
                keys.append(as_widget_key(row))
    return keys, rejected


class RowDecoder(Protocol):
    """Decodes the elements of an array: a RowReader, or a DeltaReader."""

    def tidy(self, array: bytes) -> list[Any] | None:
        """Decode an array of well-formed rows, else None."""
        ...

    def split(self, array: bytes) -> list[msgspec.Raw] | None:
        """Split valid JSON into its elements, else None."""
        ...

    def read(self, index: int, raw: msgspec.Raw | bytes) -> Any:
        """Decode one element, or raise InvalidRow."""
        ...


class Slice(NamedTuple):
    """Consecutive rows of a list.

    Attributes:
        raw: the bytes of the rows, without the list's brackets. They may end with part of a row.
        rest_at: the position in the reader's buffer of the bytes that follow; None for the last slice of a list.
    """

    raw: bytes
    rest_at: int | None

    def digest(self) -> bytes:
        """A 16-byte digest of `raw`, to recognise a slice."""
        return hashlib.blake2b(self.raw, digest_size=16).digest()


class ListReader:
    """Cuts a list into slices of whole rows while it arrives.

    Feed it and iterate over it, as often as bytes arrive. Then end it and iterate once more.

    A slice ends where "},{" looks like the end of a row. If that was inside a string or a nested value, reading the slice
    shows it, and the part of a row at its end comes again with the next slice.

    Args:
        rows: the decoder of rows.
        slice_size: the approximate size of a slice in bytes.

    Attributes:
        count: the number of rows read or skipped.
    """

    def __init__(self, rows: RowDecoder, slice_size: int = SLICE) -> None:
        self._rows = rows
        self._slice_size = slice_size
        self._buffer = bytearray()
        self._is_open = False
        self._is_closed = False
        self._has_ended = False
        self._cut_from = self._wanted = slice_size
        self.count = 0

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self._buffer += data

    def end(self) -> None:
        """Mark the end of the list."""
        self._has_ended = True

    def __iter__(self) -> Iterator[Slice]:
        """Iterate over the slices that have arrived.

        Each must be passed to `read` or `advance` before the next step.

        Raises:
            InvalidList: if the bytes so far are not the start of a JSON array.
        """
        if not self._is_open and not self._open():
            return
        while not self._is_closed and (piece := self._next()):
            yield piece

    def read(self, piece: Slice) -> tuple[list[Any], int]:
        """Decode the rows of a slice, and advance past them.

        Args:
            piece: the current slice.

        Returns:
            What the decoder gives, such as rows with the attributes of a WidgetKey in its order, or InvalidRows; and their
            size in bytes.

        Raises:
            InvalidList: if the slice cannot be part of a JSON array.
        """
        rows, size = self._rows.tidy(b"[%b]" % piece.raw), len(piece.raw)
        if rows is None:
            elements, size = self._split(piece.raw)
            rows = [_read(self._rows, self.count + place, raw) for place, raw in enumerate(elements)]
        self.advance(piece, len(rows), size)
        return rows, size

    def advance(self, piece: Slice, count: int, size: int) -> None:
        """Advance past the rows of a slice. Call it alone to skip known rows.

        Args:
            piece: the current slice.
            count: the number of its whole rows.
            size: the size of those rows in bytes. The bytes behind them are part of a row.

        Raises:
            InvalidList: if the slice has no whole row and the list ends or the row is too long.
        """
        self.count += count
        if size < len(piece.raw):
            if not size and len(piece.raw) > MAX_ROW:
                raise InvalidList(f"{_EXPECTED_ARRAY}, got one with more than {MAX_ROW} bytes in row {self.count}")
            if not size and piece.rest_at is None:
                raise InvalidList(f"{_EXPECTED_ARRAY}, got one that breaks off inside row {self.count}")
            del self._buffer[:size]
        elif piece.rest_at is None:
            self._buffer.clear()
            self._is_closed = True
        else:
            del self._buffer[: piece.rest_at]
        # A row that is longer than a slice is tried again when twice as many bytes have arrived.
        self._cut_from = self._wanted = self._slice_size if size else 2 * len(piece.raw)

    def _open(self) -> bool:
        """Find the opening bracket; False if it has not arrived yet."""
        if len(self._buffer) < len(_BOM) and not self._has_ended:
            return False
        begins = bytes(self._buffer).removeprefix(_BOM).lstrip(_SPACE)
        if not begins and not self._has_ended:
            # Drop the white space, so that it is scanned only once.
            self._buffer = bytearray(len(_BOM) * b" ")
            return False
        if not begins.startswith(b"["):
            raise InvalidList(f"{_EXPECTED_ARRAY}, got {_kind(begins)}")
        self._buffer = bytearray(begins[1:])
        self._is_open = True
        return True

    def _next(self) -> Slice | None:
        if len(self._buffer) < self._wanted and not self._has_ended:
            return None
        if cut := _BETWEEN_ROWS.search(self._buffer, self._cut_from):
            return Slice(bytes(self._buffer[: cut.start() + 1]), cut.end() - 1)
        if self._has_ended:
            return self._last()
        if len(self._buffer) > MAX_ROW:
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one with more than {MAX_ROW} bytes in row {self.count}, or no rows")
        # Wait for twice as many bytes before the next search, so that the total work stays linear.
        self._wanted = 2 * len(self._buffer)
        return None

    def _last(self) -> Slice | None:
        raw = bytes(self._buffer).rstrip(_SPACE)
        if not raw.endswith(b"]"):
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one that breaks off after {self.count} rows")
        raw = raw[:-1]
        if raw.strip(_SPACE):
            return Slice(raw, None)
        self._is_closed = True
        return None

    def _split(self, raw: bytes) -> tuple[Sequence[msgspec.Raw | bytes], int]:
        """Split a slice into its elements, and return their size in bytes."""
        ends = [(len(raw), len(raw))]
        last = list(_BETWEEN_ROWS.finditer(raw, max(0, len(raw) - _TAIL)))[-_ENDS:]
        ends += [(between.start() + 1, between.end() - 1) for between in reversed(last)]
        for end, size in ends:
            elements = self._rows.split(b"[" + raw[:end] + b"]")
            if elements is not None:
                return elements, size
        return _elements(raw, self.count)


def _read(rows: RowDecoder, index: int, raw: msgspec.Raw | bytes) -> Any:
    try:
        return rows.read(index, raw)
    except InvalidRow as error:
        # The causes and the traceback would keep 1.6 KB a row in memory.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)


def _elements(raw: bytes, count: int) -> tuple[list[bytes], int]:
    """Split a slice of invalid JSON, and return its whole rows' size."""
    elements: list[bytes] = []
    start = depth = 0
    for token in STRUCTURE.finditer(raw):
        mark = token.group()
        if mark == b'"':
            return elements, start
        if mark in b"[{":
            depth += 1
        elif depth and mark in b"]}":
            depth -= 1
        elif not depth and mark == b",":
            elements.append(_element(raw[start : token.start()], count + len(elements)))
            start = token.end()
        elif not depth and mark in b"]}":
            raise InvalidList(
                f"{_EXPECTED_ARRAY}, got one with more data after its end, after {count + len(elements) + 1} rows"
            )
    if depth:
        return elements, start
    elements.append(_element(raw[start:], count + len(elements)))
    return elements, len(raw)


def _element(raw: bytes, count: int) -> bytes:
    element = raw.strip(_SPACE)
    if not element:
        raise InvalidList(f"{_EXPECTED_ARRAY}, got one with an empty element, after {count} rows")
    return element


def _kind(text: bytes) -> str:
    """Describe a text that is not an array, by its first bytes."""
    first = text[:1]
    if not first:
        return "nothing at all"
    fields = re.findall(rb'[{,]\s*"([A-Za-z0-9_-]{1,40})"\s*:', text[:400]) if first == b"{" else ()
    named = f" with the fields {', '.join(quoted(field.decode()) for field in fields[:5])}" if fields else ""
    return _KINDS.get(first, "a number" if first.isdigit() or first == b"-" else "something that is not JSON") + named
