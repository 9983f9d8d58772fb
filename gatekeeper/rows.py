"""RowReader, ListReader: the hub's list as it arrives, in slices of whole rows, so that nobody has to hold it whole.

A bad row never disturbs its neighbours; a list that is not a JSON array to its last byte is refused as a whole.
"""

import hashlib
import json
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NoReturn

import msgspec

from gatekeeper.errors import ConfigError, InvalidList, InvalidRow
from gatekeeper.keys import SUFFIX_LENGTH, WidgetKey

__all__ = ("ListReader", "RowReader", "Slice")

# Bytes of JSON that are decoded at once: about 500 rows, and 1 ms.
SLICE = 128 * 1024

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_EXPECTED_ARRAY = "expected a JSON array of rows"
_EXPECTED_SUFFIX = f"Expected {SUFFIX_LENGTH} characters of a-z, A-Z, 0-9, '_' and '-'"
_EXPECTED_TEXT = {"key_sha256": "Expected 64 hexadecimal digits in lower case", "id": "Expected at least 1 character"}
_BETWEEN_ROWS = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
# Strings whole, since they may hold what looks like structure. A quotation mark alone begins one that has not arrived yet.
_STRUCTURE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)
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
        row_type = msgspec.defstruct("Row", _fields(Any), rename={"last8": suffix_field}, kw_only=True)
        tidy_row_type = msgspec.defstruct(
            "TidyRow", _fields(str | None), rename={"last8": suffix_field}, kw_only=True, gc=False
        )
        self._decoder = msgspec.json.Decoder(row_type)
        self._row_type = row_type
        self._list_decoder = msgspec.json.Decoder(types.GenericAlias(list, tidy_row_type))

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
            raise self._invalid(index, _leniently(bytes(raw)), error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            row = _leniently(bytes(raw))
            # What people read may be garbled; what the gate decides by may not.
            if not isinstance(row, dict) or not all(_is_clean(row.get(name)) for name in self._deciding):
                raise self._invalid(index, row, error) from error
            return self.convert(index, {name: _legible(value) for name, value in row.items()})

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
        if isinstance(row, WidgetKey):
            return row
        try:
            known = {name: row[name] for name in self._names if name in row}
            return _widget_key(msgspec.convert(known, self._row_type))
        except (msgspec.ValidationError, TypeError) as error:
            raise self._invalid(index, row, error) from error

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
        return rows

    def _invalid(self, index: int, row: object, error: Exception) -> InvalidRow:
        if not isinstance(row, Mapping):
            return InvalidRow(index, f"expected an object with the fields of a widget key: {error}")
        fields = tuple(str(name) for name in row)
        row_id = row.get("id")
        return InvalidRow(
            index,
            self._problem(row, fields, str(error)),
            row_id=row_id if isinstance(row_id, str) else None,
            fields=fields,
            disabled_at=row.get("disabled_at"),
        )

    def _problem(self, row: Mapping[str, Any], fields: tuple[str, ...], error: str) -> str:
        if self._suffix_field not in fields:
            return (
                f"there is no field {self._suffix_field!r}, only {', '.join(map(repr, fields)) or 'none at all'}; "
                "name the one with the key's last 8 characters by suffix_field="
            )
        expected, _, path = error.partition(" - at `$.")
        field = path.rstrip("`").partition("[")[0]
        value = row.get(field)
        if isinstance(value, str) and field in {self._suffix_field, "key_sha256", "id"}:
            # Never the value itself: a secret may stand in the wrong field.
            return f"{_EXPECTED_TEXT.get(field, _EXPECTED_SUFFIX)} in {field!r}, got text of {len(value)} characters"
        return f"{expected} in {field!r}" if path else error


class ListReader:
    """Cuts a list into slices of whole rows while it arrives. Feed it, and see what it has; end it, and do so once more.

    A slice ends where "},{" looks like the end of a row. Where that stood inside a string or a nested value, which shows
    when the slice is read, its rows are told apart byte by byte instead.

    Args:
        rows: reads the rows.

    Attributes:
        count: how many rows have been read or skipped.
    """

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows
        self._buffer = bytearray()
        self._is_open = False
        self._is_closed = False
        self._has_ended = False
        self._wanted = SLICE
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
        while len(self._buffer) >= self._wanted and (cut := _BETWEEN_ROWS.search(self._buffer, self._wanted)):
            raw = bytes(self._buffer[: cut.start() + 1])
            del self._buffer[: cut.end() - 1]
            yield Slice(self, raw)
        if self._has_ended and not self._is_closed:
            yield from self._last()
        if self._is_closed and self._buffer.strip(_SPACE):
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one that something follows, after {self.count} rows")

    def _open(self) -> bool:
        """Find the bracket that begins the list; False if it has not arrived yet."""
        start = bytes(self._buffer[: len(_BOM)])
        if _BOM.startswith(start) and len(start) < len(_BOM) and not self._has_ended:
            return False
        list_begins = bytes(self._buffer).removeprefix(_BOM).lstrip(_SPACE)
        if not list_begins and not self._has_ended:
            return False
        if not list_begins.startswith(b"["):
            raise InvalidList(f"{_EXPECTED_ARRAY}, got {_kind(list_begins)}")
        self._buffer = bytearray(list_begins[1:])
        self._is_open = True
        return True

    def _last(self) -> Iterator["Slice"]:
        raw = bytes(self._buffer).rstrip(_SPACE)
        self._buffer.clear()
        if not raw.endswith(b"]"):
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one that breaks off after {self.count} rows")
        raw = raw[:-1]
        self._is_closed = True
        if raw.strip(_SPACE) or self.count:
            yield Slice(self, raw)

    def one_by_one(self, raw: bytes) -> list[bytes]:
        """Tell apart the rows of a slice that cannot be read as a whole, and take back what is only part of a row.

        Args:
            raw: the slice.

        Returns:
            The bytes of each row.

        Raises:
            InvalidList: if no list can have such a slice.
        """
        self._buffer[:0] = raw + (b"]" if self._is_closed else b",")
        elements, end, is_closed = _elements(self._buffer, len(raw))
        del self._buffer[:end]
        if self._is_closed and not is_closed:
            raise InvalidList(f"{_EXPECTED_ARRAY}, got one that breaks off inside row {self.count + len(elements)}")
        self._is_closed = is_closed
        # Of a row that is longer than everything so far, twice as much has to arrive before it is worth another look.
        self._wanted = SLICE if elements else 2 * len(self._buffer)
        return elements


class Slice:
    """Some rows of a list, one after another.

    Attributes:
        raw: their bytes, without the list's brackets.
    """

    def __init__(self, reader: ListReader, raw: bytes) -> None:
        self._reader = reader
        self.raw = raw

    def digest(self) -> bytes:
        """What tells these bytes from any others."""
        return hashlib.blake2b(self.raw, digest_size=16).digest()

    def skip(self, count: int) -> None:
        """Take no look at the rows, because they are known.

        Args:
            count: how many there are.
        """
        self._reader.count += count

    def rows(self) -> list[Any]:
        """Read the rows.

        Returns:
            For each row an object with the attributes of a WidgetKey in its order, or an InvalidRow.

        Raises:
            InvalidList: if no list can have such a slice.
        """
        reader, rows = self._reader, self._reader._rows  # noqa: SLF001 - the two are one
        tidy = rows.tidy(b"[" + self.raw + b"]") if self.raw else None
        if tidy is None:
            tidy = [_read(rows, reader.count + place, raw) for place, raw in enumerate(reader.one_by_one(self.raw))]
        reader.count += len(tidy)
        return tidy


def _read(rows: RowReader, index: int, raw: bytes) -> WidgetKey | InvalidRow:
    try:
        return rows.read(index, raw)
    except InvalidRow as error:
        return error


def _elements(text: bytearray, enough: int) -> tuple[list[bytes], int, bool]:
    """The elements that fill so many bytes of an array's inside, where they end, and whether the array does, too."""
    elements: list[bytes] = []
    start = depth = 0
    for token in _STRUCTURE.finditer(text):
        mark = token.group()
        if mark == b'"':
            break
        if mark in b"[{":
            depth += 1
        elif mark in b"]}" and depth:
            depth -= 1
        elif not depth and mark in b",]}":
            element = bytes(text[start : token.start()]).strip(_SPACE)
            if not element:
                raise InvalidList(f"{_EXPECTED_ARRAY}, got one with nothing beside a comma")
            elements.append(element)
            start = token.end()
            if mark != b"," or start > enough:
                return elements, start, mark != b","
    return elements, start, False


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
    "key_sha256": Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")] | None,
}
_REQUIRED = ("id", "last8")


def _fields(readable: Any) -> list[tuple[str, Any] | tuple[str, Any, Any]]:
    """The fields of a row in the order of WidgetKey, those for people of the type given."""
    # Whatever stands in disabled_at, its presence decides.
    types = dict.fromkeys(WidgetKey.__struct_fields__, readable) | {"disabled_at": Any} | _DECIDING
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


def _leniently(text: bytes) -> object:
    """What the standard library reads, which takes more for JSON than msgspec does; None where not even that can."""
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _is_clean(value: object) -> bool:
    try:
        msgspec.json.encode(value)
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _legible(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
