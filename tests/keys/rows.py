"""Lists of a few rows, read in every way."""

import json

from gatekeeper import InvalidRow, WidgetKey
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import read_list

ROW = {"id": "wk_1", "last8": "UVwXyZ-_"}


def body(*rows: object) -> bytes:
    """Encode a list as the hub does."""
    return json.dumps(rows, ensure_ascii=False).encode()


def read_one(row: object) -> WidgetKey:
    """Read one good row, by itself and in a list. Both must agree."""
    reader = RowReader()
    (key,), rejected = read_list(reader, body(row))
    assert rejected == []
    assert reader.read(0, json.dumps(row).encode()) == key
    return key


def reject_one(row: object) -> InvalidRow:
    """Read a bad row between two good ones, which must stay."""
    first, last = {**ROW, "id": "first"}, {**ROW, "id": "last"}
    keys, (rejected,) = read_list(RowReader(), body(first, row, last))
    assert [key.id for key in keys] == ["first", "last"]
    assert rejected.index == 1
    return rejected
