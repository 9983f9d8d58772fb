"""RowReader, ListReader: the hub's list as it arrives, in slices of whole rows, so that nobody has to hold it whole.

A bad row never disturbs its neighbours; a list that is not a JSON array to its last byte is refused as a whole.
"""

import hashlib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from gatekeeper.errors import ConfigError, InvalidList, InvalidRow, RowReason
from gatekeeper.keys.client_key import SUFFIX_LENGTH
from gatekeeper.keys.salvage import STRUCTURE, decode_leniently, is_encodable, outline, replace_surrogates
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("ListReader", "RowReader", "Slice")

# Bytes of JSON that are decoded at once: about 500 rows, and 1 ms.
SLICE = 128 * 1024
# Bytes in which a row has to end. One of over 64 KB is refused; one that never ends would fill the memory.
MAX_ROW = 8 * 1024 * 1024
DIGEST_LENGTH = 64  # hexadecimal digits of SHA-256

# Where a slice ends inside a row, so many places before its end are tried, which is eight times as fast as to go through
# all of it: enough for rows with a few objects in them.
_ENDS = 8
_TAIL = 4096  # bytes

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_EXPECTED_ARRAY = "expected a JSON array of rows"
_EXPECTED_SUFFIX = f"Expected {SUFFIX_LENGTH} characters of a-z, A-Z, 0-9, '_' and '-'"
_EXPECTED_TEXT = {
    "key_sha256": f"Expected {DIGEST_LENGTH} hexadecimal digits in lower case",
    "id": "Expected at least 1 character",
}
_EXPECTED_UNICODE = "Expected text, got half a surrogate pair in what decides"
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


class RowReader:
    """Reads rows of the hub's list, one by one or many at once.

    Args:
        suffix_field: the field that holds the last 8 characters of a key; the hub's documentation does not name it.

    Raises:
        ConfigError: if another field of a row has that name.
    """

    def __init__(self, suffix_field: str = "last8") -> None:
        self._names = tuple(suffix_field if field == "last8" else field for field in WidgetKey.__struct_fields__)
        if not suffix_field or len(set(self._names)) < len(self._names):
            taken = ", ".join(repr(name) for name in self._names if name != suffix_field)
            raise ConfigError([f"suffix_field is {suffix_field!r}: expected a name, and none of {taken}"])
        self._suffix_field = suffix_field
        self._deciding = tuple(suffix_field if field == "last8" else field for field in _DECIDING)
        row_type = msgspec.defstruct("Row", _fields(Any, _DECIDING), rename={"last8": suffix_field}, kw_only=True)
        tidy_row_type = msgspec.defstruct(
            "TidyRow", _fields(str | None, _TIDY), rename={"last8": suffix_field}, kw_only=True, gc=False
        )
        self._decoder = msgspec.json.Decoder(row_type)
        self._row_type = row_type
        self._list_decoder = msgspec.json.Decoder(types.GenericAlias(list, tidy_row_type))
        self._raw_decoder = msgspec.json.Decoder(list[msgspec.Raw])

    def read(self, index: int, raw: msgspec.Raw | bytes) -> WidgetKey:
        """Read one row of a list.

        Args:
            index: the row's place in the list, from 0, for the message.
            raw: the row's own bytes.

        Returns:
            The row.

        Raises:
            InvalidRow: saying which row, which field and why.
        """
        try:
            return _widget_key(self._decoder.decode(raw))
        except msgspec.ValidationError as error:
            raise self._invalid(index, decode_leniently(bytes(raw)), error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            row = decode_leniently(bytes(raw))
            if row is None:
                problem = f"expected an object with the fields of a widget key: {error}"
                raise InvalidRow(index, problem, reason="not_an_object", **outline(bytes(raw))) from error
            if not isinstance(row, dict) or not self._can_decide(row):
                raise self._invalid(index, row, error) from error
            return self.convert(index, row)

    def convert(self, index: int, row: WidgetKey | Mapping[str, Any]) -> WidgetKey:
        """Read one row that is a Python object already.

        Args:
            index: the row's place among its neighbours, from 0, for the message.
            row: the row, or a mapping with the fields that the hub's JSON has.

        Returns:
            The row.

        Raises:
            InvalidRow: saying which row, which field and why.
        """
        fields = dict(zip(self._names, msgspec.structs.astuple(row), strict=True)) if isinstance(row, WidgetKey) else row
        try:
            known = {name: fields[name] for name in self._names if name in fields}
            if not self._can_decide(known):
                raise msgspec.ValidationError(_EXPECTED_UNICODE)
            legible = {name: replace_surrogates(value) for name, value in known.items()}
            key = _widget_key(msgspec.convert(legible, self._row_type))
        except (msgspec.ValidationError, TypeError) as error:
            raise self._invalid(index, fields, error) from error
        return row if isinstance(row, WidgetKey) and row == key else key

    def read_all(self, body: bytes) -> tuple[list[WidgetKey], list[InvalidRow]]:
        """Read a whole list at once.

        Args:
            body: JSON in UTF-8.

        Returns:
            The rows, and what is wrong with those that are none.

        Raises:
            InvalidList: if the body is not a JSON array.
        """
        tidy = self.tidy(body.removeprefix(_BOM))
        if tidy is not None:
            return list(map(_widget_key, tidy)), []
        keys: list[WidgetKey] = []
        rejected: list[InvalidRow] = []
        reader = ListReader(self)
        reader.feed(body)
        reader.end()
        for piece in reader:
            for row in piece.rows():
                if isinstance(row, InvalidRow):
                    rejected.append(row)
                else:
                    keys.append(_widget_key(row))
        return keys, rejected

    def tidy(self, array: bytes) -> list[Any] | None:
        """Read an array of rows, by far the fastest way, if each of them has nothing but what it should.

        Args:
            array: JSON in UTF-8.

        Returns:
            Rows with the attributes of a WidgetKey in its order; None if there is anything out of the ordinary.
        """
        try:
            rows: list[Any] = self._list_decoder.decode(array)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        suffixes = "".join([row.last8 for row in rows])
        digests = "".join([row.key_sha256 for row in rows if row.key_sha256])
        return rows if _SUFFIXES.fullmatch(suffixes) and _DIGESTS.fullmatch(digests) else None

    def split(self, array: bytes) -> list[msgspec.Raw] | None:
        """Tell apart the elements of an array without reading them.

        Args:
            array: JSON in UTF-8.

        Returns:
            Each one's bytes; None if this is not JSON.
        """
        try:
            return self._raw_decoder.decode(array)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _can_decide(self, row: Mapping[str, Any]) -> bool:
        """What people read may be garbled; what the gate decides by may not."""
        return all(is_encodable(row.get(name)) for name in self._deciding)

    def _invalid(self, index: int, row: object, error: Exception) -> InvalidRow:
        if not isinstance(row, Mapping):
            problem = f"expected an object with the fields of a widget key: {error}"
            return InvalidRow(index, problem, reason="not_an_object")
        fields = tuple(str(name) for name in row)
        row_id = row.get("id")
        return InvalidRow(
            index,
            self._problem(row, fields, str(error)),
            row_id=row_id if isinstance(row_id, str) else None,
            fields=fields,
            disabled_at=row.get("disabled_at"),
            reason=self._reason(fields, str(error)),
        )

    def _reason(self, fields: tuple[str, ...], error: str) -> RowReason:
        missing = [field for field in (self._suffix_field, "id") if field not in fields]
        field = missing[0] if missing else _split_error(error)[1]
        return _REASONS.get("last8" if field == self._suffix_field else field, "other")

    def _problem(self, row: Mapping[str, Any], fields: tuple[str, ...], error: str) -> str:
        if self._suffix_field not in fields:
            return (
                f"there is no field {self._suffix_field!r}, only {', '.join(map(repr, fields)) or 'none at all'}; "
                "name the one with the key's last 8 characters by suffix_field="
            )
        expected, field = _split_error(error)
        value = row.get(field)
        if isinstance(value, str) and field in {self._suffix_field, "key_sha256", "id"}:
            # Never the value itself: a secret may stand in the wrong field.
            return f"{_EXPECTED_TEXT.get(field, _EXPECTED_SUFFIX)} in {field!r}, got text of {len(value)} characters"
        return f"{expected} in {field!r}" if field else error


class ListReader:
    """Cuts a list into slices of whole rows while it arrives. Feed it, and see what it has; end it, and do so once more.

    A slice ends where "},{" looks like the end of a row. Where that stood inside a string or a nested value, which shows
    when the slice is read, the part of a row at its end comes again with the next slice.

    Args:
        rows: reads the rows.

    Attributes:
        rows: as given.
        count: how many rows have been read or skipped.
    """

    def __init__(self, rows: RowReader) -> None:
        self.rows = rows
        self._buffer = bytearray()
        self._is_open = False
        self._is_closed = False
        self._has_ended = False
        self._cut_from = self._wanted = SLICE
        self.count = 0

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer += data

    def end(self) -> None:
        """Note that nothing more will come."""
        self._has_ended = True

    def __iter__(self) -> Iterator["Slice"]:
        """The slices that can be told so far; each has to be read or skipped before the next one is asked for.

        Raises:
            InvalidList: if what has arrived is not a JSON array.
        """
        if not self._is_open and not self._open():
            return
        while not self._is_closed and (piece := self._next()):
            yield piece

    def _open(self) -> bool:
        """Find the bracket that begins the list; False if it has not arrived yet."""
        if len(self._buffer) < len(_BOM) and not self._has_ended:
            return False
        begins = bytes(self._buffer).removeprefix(_BOM).lstrip(_SPACE)
        if not begins and not self._has_ended:
            # However much space comes, it is looked at once.
            self._buffer = bytearray(len(_BOM) * b" ")
            return False
        if not begins.startswith(b"["):
            raise InvalidList(f"{_EXPECTED_ARRAY}, got {_kind(begins)}")
        self._buffer = bytearray(begins[1:])
        self._is_open = True
        return True

    def _next(self) -> "Slice | None":
        if len(self._buffer) < self._wanted and not self._has_ended:
            return None
        if cut := _BETWEEN_ROWS.search(self._buffer, self._cut_from):
            return Slice(self, bytes(self._buffer[: cut.start() + 1]), cut.end() - 1)
        if self._has_ended:
            return self._last()
        if len(self._buffer) > MAX_ROW:
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one with more than {MAX_ROW} bytes in row {self.count}, or no rows")
        # Twice as much has to arrive before it is worth another look, so that no byte is looked at again and again.
        self._wanted = 2 * len(self._buffer)
        return None

    def _last(self) -> "Slice | None":
        raw = bytes(self._buffer).rstrip(_SPACE)
        if not raw.endswith(b"]"):
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one that breaks off after {self.count} rows")
        raw = raw[:-1]
        if raw.strip(_SPACE):
            return Slice(self, raw, None)
        self._is_closed = True
        return None

    def take(self, piece: "Slice", count: int, size: int) -> None:
        """Go on behind the rows of a slice.

        Args:
            piece: the last slice that was given.
            count: how many rows it has.
            size: how many bytes they take; what follows them is part of a row.

        Raises:
            InvalidList: if there are none, and nothing more comes.
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
        # A row that is longer than a slice is looked at again when there is twice as much of it.
        self._cut_from = self._wanted = SLICE if size else 2 * len(piece.raw)


class Slice:
    """Some rows of a list, one after another.

    Args:
        reader: whose slice it is.
        raw: see below.
        rest_at: where the reader has what follows; None for a list's last slice.

    Attributes:
        raw: their bytes, without the list's brackets; at the end there may be part of a row.
        size: how many of the bytes are whole rows, once they were read.
        rest_at: as given.
    """

    def __init__(self, reader: ListReader, raw: bytes, rest_at: int | None) -> None:
        self._reader = reader
        self.raw = raw
        self.size = len(raw)
        self.rest_at = rest_at

    def digest(self) -> bytes:
        """What tells these bytes from any others."""
        return hashlib.blake2b(self.raw, digest_size=16).digest()

    def skip(self, count: int, size: int) -> None:
        """Take no look at the rows, because they are known.

        Args:
            count: how many there are.
            size: the `size` of the slice with these bytes that was read.

        Raises:
            InvalidList: if no list can have such a slice here.
        """
        self._reader.take(self, count, size)

    def rows(self) -> list[Any]:
        """Read the rows.

        Returns:
            For each row an object with the attributes of a WidgetKey in its order, or an InvalidRow.

        Raises:
            InvalidList: if no list can have such a slice.
        """
        reader = self._reader
        rows = reader.rows.tidy(b"[%b]" % self.raw)
        if rows is None:
            elements, self.size = self._split()
            rows = [_read(reader.rows, reader.count + place, raw) for place, raw in enumerate(elements)]
        reader.take(self, len(rows), self.size)
        return rows

    def _split(self) -> tuple[Sequence[msgspec.Raw | bytes], int]:
        """The elements, and how many bytes they take."""
        ends = [(len(self.raw), len(self.raw))]
        last = list(_BETWEEN_ROWS.finditer(self.raw, max(0, len(self.raw) - _TAIL)))[-_ENDS:]
        ends += [(between.start() + 1, between.end() - 1) for between in reversed(last)]
        for end, size in ends:
            elements = self._reader.rows.split(b"[" + self.raw[:end] + b"]")
            if elements is not None:
                return elements, size
        return _elements(self.raw, self._reader.count)


def _read(rows: RowReader, index: int, raw: msgspec.Raw | bytes) -> WidgetKey | InvalidRow:
    try:
        return rows.read(index, raw)
    except InvalidRow as error:
        # What led to it would keep 1.6 KB a row in memory.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)


def _elements(raw: bytes, count: int) -> tuple[list[bytes], int]:
    """The whole rows of a slice, also where they are no JSON, and how many bytes they take."""
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
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one that something follows, after {count + len(elements) + 1} rows")
    if depth:
        return elements, start
    elements.append(_element(raw[start:], count + len(elements)))
    return elements, len(raw)


def _element(raw: bytes, count: int) -> bytes:
    element = raw.strip(_SPACE)
    if not element:
        raise InvalidList(f"{_EXPECTED_ARRAY}, got one with nothing beside a comma, after {count} rows")
    return element


def _kind(text: bytes) -> str:
    """What a text is instead of an array, as far as its beginning tells."""
    first = text[:1]
    if not first:
        return "nothing at all"
    fields = re.findall(rb'[{,]\s*"([A-Za-z0-9_-]{1,40})"\s*:', text[:400]) if first == b"{" else ()
    named = f" with the fields {', '.join(repr(field.decode()) for field in fields[:5])}" if fields else ""
    return _KINDS.get(first, "a number" if first.isdigit() or first == b"-" else "something that is not JSON") + named


# What the gate decides by is typed, and a row that has it otherwise is refused; the rest is for people to read.
_DECIDING = {
    "id": Annotated[str, msgspec.Meta(min_length=1)],
    "last8": Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{{SUFFIX_LENGTH}}}\Z")],
    "domain_allowlist": tuple[str, ...] | None,
    "agent_id": str | None,
    "key_sha256": Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{DIGEST_LENGTH}}}\Z")] | None,
}
# The same, but for the characters of suffixes and digests: to match a pattern in each row would double the time of a list.
_TIDY = _DECIDING | {
    "last8": Annotated[str, msgspec.Meta(min_length=SUFFIX_LENGTH, max_length=SUFFIX_LENGTH)],
    "key_sha256": Annotated[str, msgspec.Meta(min_length=DIGEST_LENGTH, max_length=DIGEST_LENGTH)] | None,
}
_SUFFIXES = re.compile(r"[A-Za-z0-9_-]*")
_DIGESTS = re.compile(r"[0-9a-f]*")
_REQUIRED = ("id", "last8")
_REASONS: dict[str, RowReason] = {
    "id": "id",
    "last8": "suffix",
    "domain_allowlist": "allowlist",
    "agent_id": "agent",
    "key_sha256": "digest",
}


def _fields(readable: Any, deciding: Mapping[str, Any]) -> list[tuple[str, Any] | tuple[str, Any, Any]]:
    """The fields of a row in the order of WidgetKey, of the types given for those that people read and the others."""
    # Whatever stands in disabled_at, its presence decides.
    types = {**dict.fromkeys(WidgetKey.__struct_fields__, readable), "disabled_at": Any, **deciding}
    return [(field, types[field]) if field in _REQUIRED else (field, types[field], None) for field in types]


def _widget_key(row: Any) -> WidgetKey:
    return WidgetKey(
        row.id,
        _text(row.name),
        row.last8,
        row.domain_allowlist or (),
        row.agent_id,
        row.disabled_at,
        _text(row.created_at),
        _text(row.updated_at),
        _text(row.last_used_at),
        row.key_sha256,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _split_error(error: str) -> tuple[str, str]:
    """What msgspec expected, and in which field of a row; "" where it names none."""
    expected, _, path = error.partition(" - at `$.")
    return expected, path.rstrip("`").partition("[")[0]
