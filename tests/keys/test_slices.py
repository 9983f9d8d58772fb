"""ListReader, Slice: a list in slices, however it arrives."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import InvalidList, InvalidRow, WidgetKey
from gatekeeper.keys import slices as slices_module
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import SLICE, ListReader, Slice, read_list
from tests.keys.rows import ROW, body

MANY = settings(max_examples=150, deadline=None)
PIECE = 64 * 1024

Outcome = WidgetKey | tuple[int, str, str | None, object]


def row_bytes(row_id: str = "wk_1", **fields: object) -> bytes:
    """Encode a row of a list."""
    return json.dumps({"id": row_id, "last8": "UVwXyZ-_", "domain_allowlist": ["acme.com"]} | fields).encode()


def outcome(row: Any) -> Outcome:
    """Return a comparable form of a row or an error."""
    if isinstance(row, InvalidRow):
        return row.index, row.problem, row.row_id, row.disabled_at
    fields = [getattr(row, name) for name in WidgetKey.__struct_fields__]
    return msgspec.convert(fields, Fields).as_key()


class Fields(msgspec.Struct, array_like=True):
    """The fields of a row, in the order of a WidgetKey."""

    id: str
    name: str | None
    last8: str
    domain_allowlist: tuple[str, ...] | None
    agent_id: str | None
    disabled_at: Any
    created_at: str | None
    updated_at: str | None
    last_used_at: str | None
    key_sha256: str | None

    def as_key(self) -> WidgetKey:
        """The row as a WidgetKey."""
        return WidgetKey(**msgspec.structs.asdict(self) | {"domain_allowlist": self.domain_allowlist or ()})


def one_by_one(raws: Iterable[bytes]) -> list[Outcome]:
    """Read each row by itself."""
    outcomes: list[Outcome] = []
    for index, raw in enumerate(raws):
        try:
            outcomes.append(outcome(RowReader().read(index, raw)))
        except InvalidRow as error:
            outcomes.append(outcome(error))
    return outcomes


def pieces(text: bytes, size: int) -> Iterator[bytes]:
    """Cut a text into pieces of a size."""
    return (text[start : start + size] for start in range(0, len(text), size))


def slices(arriving: Iterable[bytes], reader: ListReader) -> Iterator[Slice]:
    """Feed a reader, and yield its slices after each piece."""
    for piece in arriving:
        reader.feed(piece)
        yield from reader
    reader.end()
    yield from reader


def read(arriving: Iterable[bytes], *, slice_size: int = SLICE) -> list[Outcome]:
    """Read a list as it arrives, in slices of a size."""
    reader = ListReader(RowReader(), slice_size)
    outcomes = [outcome(row) for piece in slices(arriving, reader) for row in reader.read(piece)[0]]
    assert reader.count == len(outcomes)
    return outcomes


EVIL_TEXTS = ("},{", '"},{"', "} , {", "}\n,\t{", "]", "[{", "\\", '\\"', '\\\\"},{', "[],{}", "\u2028é😀", "")
GOOD = [
    *(row_bytes(f"wk_{number}", name=text) for number, text in enumerate(EVIL_TEXTS)),
    row_bytes("},{", more={"a": [{}, {"b": 1}, {}], "c": "},{"}),
    row_bytes("nested", disabled_at=[{"x": [1]}, {"y": '},{"'}]),
    row_bytes("pretty", domain_allowlist=["},{", "]}"]).replace(b", ", b" ,\r\n\t").replace(b": ", b"\n: "),
    row_bytes("without", domain_allowlist=None),
    b'{"id":"short","last8":"UVwXyZ-_"}',
    row_bytes("other", name=7, created_at=[{}, {}]),
]
BAD = [
    b"7",
    b"null",
    b"NaN",
    b"[]",
    b"{}",
    b'"},{"',
    b"x y",
    b'{"id"}',
    b"[{}, {}]",
    b'{"id": "wk_1" "last8": "UVwXyZ-_"}',
    b'{"id": "wk_1", "last8": "UVwXyZ-_",}',
    b'{"id": "wk_1", "last8": "UVwXyZ-_"} {}',
    row_bytes(last8="short", more=[{}, {}]),
    row_bytes(disabled_at="2026", agent_id=7),
    row_bytes(name="\ud800},{"),
    row_bytes(last8="\ud800},{12"),
    row_bytes(name="HERE},{").replace(b"HERE", b"\xff\xfe"),
    row_bytes(id="HERE").replace(b"HERE", b"\xff\xfe"),
    row_bytes(name="HERE").replace(b"HERE", b"\n},{\x00"),
    row_bytes(name="HERE").replace(b"HERE", b"\\q"),
]
SEPARATORS = (b",", b" , ", b",\n  ", b"\n,", b"\r\n,\t \n")


def listed(raws: Iterable[bytes], separator: bytes = b",", around: bytes = b"") -> bytes:
    """Encode a list of rows."""
    return b"[" + around + separator.join(raws) + around + b"]"


# Good and bad rows.


@MANY
@given(
    raws=st.lists(st.sampled_from(GOOD) | st.sampled_from(GOOD) | st.sampled_from(BAD), max_size=12),
    separator=st.sampled_from(SEPARATORS),
    around=st.sampled_from([b"", b" ", b"\n  "]),
    begins=st.sampled_from([b"", b"\xef\xbb\xbf", b" \n", b"\xef\xbb\xbf\t"]),
    ends=st.sampled_from([b"", b" \r\n"]),
    piece_size=st.integers(1, 300),
    slice_size=st.integers(1, 300),
)
def test_a_list_is_read_like_its_rows_one_by_one_however_it_arrives(
    *, raws: list[bytes], separator: bytes, around: bytes, begins: bytes, ends: bytes, piece_size: int, slice_size: int
) -> None:
    text = begins + listed(raws, separator, around) + ends
    assert read(pieces(text, piece_size), slice_size=slice_size) == one_by_one(raws)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("raws", [GOOD, GOOD + BAD], ids=["good rows", "good and bad rows"])
def test_rows_are_the_same_wherever_a_slice_ends(raws: list[bytes], separator: bytes) -> None:
    text, expected = listed(raws, separator), one_by_one(raws)
    for slice_size in [*range(1, len(text), 17), len(text), 2 * len(text)]:
        assert read([text], slice_size=slice_size) == expected
    for slice_size in (1, 60, 200, SLICE):
        assert read(pieces(text, 1), slice_size=slice_size) == expected


@MANY
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"id": st.text(min_size=1), "last8": st.just("UVwXyZ-_")},
            optional={
                "name": st.none() | st.text() | st.lists(st.dictionaries(st.text(), st.text())),
                "domain_allowlist": st.lists(st.text()),
                "disabled_at": st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.text()),
            },
        ),
        max_size=6,
    ),
    indent=st.sampled_from([None, 1, "\t"]),
    ensure_ascii=st.booleans(),
    piece_size=st.integers(1, 100),
    slice_size=st.integers(1, 100),
)
def test_any_json_is_read_like_the_standard_library_does(
    *, rows: list[dict[str, Any]], indent: int | str | None, ensure_ascii: bool, piece_size: int, slice_size: int
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ensure_ascii).encode()
    expected = [outcome(RowReader().convert(index, row)) for index, row in enumerate(json.loads(text))]
    assert read(pieces(text, piece_size), slice_size=slice_size) == expected


def test_a_string_that_looks_like_two_rows_is_unchanged() -> None:
    (key,) = read([listed([row_bytes(name="a} , {b", last8="UVwXyZ-_")])], slice_size=1)
    assert isinstance(key, WidgetKey)
    assert key.name == "a} , {b"


@pytest.mark.parametrize(
    "bad",
    [
        *BAD,
        b"[" * 100_000 + b"]" * 100_000,
        row_bytes()[:-1] + b', "more": ' + b'{"a":' * 100_000 + b"7" + b"}" * 100_000 + b"}",
        row_bytes(name="},{" * 400_000, last8="short"),
    ],
    ids=lambda bad: repr(bad[:40]),
)
def test_a_bad_row_does_not_affect_other_rows(bad: bytes) -> None:
    raws = [row_bytes(str(number)) for number in range(20)]
    expected = one_by_one([*raws, bad, *raws])
    for slice_size in (1, 500, SLICE):
        assert read(pieces(listed([*raws, bad, *raws]), PIECE), slice_size=slice_size) == expected


def test_a_row_of_a_megabyte_is_read() -> None:
    raws = [row_bytes("first"), row_bytes("large", name="},{" * 350_000), row_bytes("last")]
    assert read(pieces(listed(raws), PIECE)) == one_by_one(raws)


# Refused lists.


def refused(arriving: Iterable[bytes], *, slice_size: int) -> str | None:
    """Return the message that refuses a list, or None."""
    try:
        read(arriving, slice_size=slice_size)
    except InvalidList as error:
        return str(error)
    return None


@pytest.mark.parametrize("slice_size", [1, 100, SLICE])
@pytest.mark.parametrize("separator", SEPARATORS[:2])
def test_a_list_that_breaks_off_anywhere_is_refused(separator: bytes, slice_size: int) -> None:
    text = listed(GOOD + BAD, separator)
    accepted = [end for end in range(len(text)) if not refused([text[:end]], slice_size=slice_size)]
    assert accepted == []
    assert refused([text], slice_size=slice_size) is None


@pytest.mark.parametrize("slice_size", [1, 100])
def test_a_list_that_breaks_off_is_refused_when_fed_byte_by_byte(slice_size: int) -> None:
    text = listed(GOOD[10:])
    assert [end for end in range(len(text)) if not refused(pieces(text[:end], 1), slice_size=slice_size)] == []


@MANY
@given(
    raws=st.lists(st.sampled_from(GOOD + BAD), max_size=4),
    rest=st.binary(min_size=1, max_size=8) | st.sampled_from([b"]", b",]", b",{}]", b"[]", b"{},{}]", b'"]', b"\x00", *BAD]),
    slice_size=st.integers(1, 200),
)
def test_a_list_with_more_data_after_its_end_is_refused(raws: list[bytes], rest: bytes, slice_size: int) -> None:
    is_space = not rest.strip(b" \t\r\n")
    assert (refused([listed(raws) + rest], slice_size=slice_size) is None) == is_space


@pytest.mark.parametrize("text", [b"[,]", b"[{},]", b"[,{}]", b"[{},,{}]", b"[{}, ,{}]", b"[{}]]", b"[{}],[{}]", b"[{}},{]"])
def test_extra_commas_and_brackets_are_refused(text: bytes) -> None:
    for slice_size in range(1, 9):
        for piece_size in range(1, 9):
            assert refused(pieces(text, piece_size), slice_size=slice_size)


def test_a_refused_list_is_explained_with_the_number_of_the_row() -> None:
    raws = [row_bytes(str(number)) for number in range(10)]
    text = listed(raws)
    array = "expected a JSON array of rows, got one "
    for slice_size in (1, 150, SLICE):
        assert refused([text + b"]"], slice_size=slice_size) == array + "with more data after its end, after 10 rows"
        assert refused([text[:-1] + b",]"], slice_size=slice_size) == array + "with an empty element, after 10 rows"
        assert refused([text[:-3] + b"]"], slice_size=slice_size) == array + "that breaks off inside row 9"
        assert refused([text[:-3]], slice_size=1) == array + "that breaks off after 9 rows"


FRAGMENTS = st.lists(
    st.sampled_from([b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b" ", b"\n", b"},{", b"7", *GOOD[:3]]), max_size=30
).map(b"".join)


@MANY
@given(
    text=st.binary() | FRAGMENTS | FRAGMENTS.map(lambda inside: b"[" + inside + b"]"),
    piece_size=st.integers(1, 20),
    slice_size=st.integers(1, 50),
)
def test_arbitrary_bytes_are_read_the_same_however_they_arrive(*, text: bytes, piece_size: int, slice_size: int) -> None:
    def attempt(arriving: Iterable[bytes], size: int) -> list[Outcome] | None:
        try:
            return read(arriving, slice_size=size)
        except InvalidList:
            return None

    assert attempt(pieces(text, piece_size), slice_size) == attempt([text], SLICE)


# Known slices.


@pytest.mark.slow
@MANY
@given(
    lists=st.lists(st.lists(st.sampled_from(GOOD[:-8:-1] + BAD), max_size=8), min_size=2, max_size=4),
    piece_size=st.integers(1, 300),
    slice_size=st.integers(1, 300),
)
def test_a_known_slice_can_be_skipped(*, lists: list[list[bytes]], piece_size: int, slice_size: int) -> None:
    known: dict[bytes, tuple[list[Any], int]] = {}
    for raws in [each for each in lists for _ in range(2)]:
        reader, found = ListReader(RowReader(), slice_size), []
        for piece in slices(pieces(listed(raws), piece_size), reader):
            digest = piece.digest()
            if digest in known:
                rows, size = known[digest]
                reader.advance(piece, len(rows), size)
            else:
                rows, size = known[digest] = reader.read(piece)
            found += rows
        assert reader.count == len(raws)
        assert [without_place(row) for row in found] == [without_place(row) for row in one_by_one(raws)]


def without_place(row: Any) -> object:
    """Return a comparable form without the index."""
    made = row if isinstance(row, WidgetKey | tuple) else outcome(row)
    return made[1:] if isinstance(made, tuple) else made


def test_a_list_cannot_end_with_a_known_slice_that_ends_inside_a_row() -> None:
    raw = row_bytes()[:-1] + b',"more":[{},{'
    reader = ListReader(RowReader())
    reader.feed(b"[" + raw + b"]")
    reader.end()
    piece = next(iter(reader))
    with pytest.raises(InvalidList, match="breaks off inside row 0"):
        reader.advance(piece, 0, 0)


def test_different_slices_have_different_digests() -> None:
    digests = {Slice(raw, None).digest() for raw in (*GOOD, *BAD, *GOOD)}
    assert len(digests) == len({*GOOD, *BAD})
    assert {len(digest) for digest in digests} == {16}


# Cost.


class Work(RowReader):
    """Counts the bytes that a list reader scans."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.bytes = 0
        for name in ("_BETWEEN_ROWS", "STRUCTURE"):
            patch.setattr(slices_module, name, CountingPattern(getattr(slices_module, name), self))

    def tidy(self, array: bytes) -> list[Any] | None:
        """See RowReader."""
        self.bytes += len(array)
        return super().tidy(array)

    def split(self, array: bytes) -> list[msgspec.Raw] | None:
        """See RowReader."""
        self.bytes += len(array)
        return super().split(array)


class CountingPattern:
    """A pattern that counts the bytes that it scans."""

    def __init__(self, pattern: re.Pattern[bytes], work: Work) -> None:
        self._pattern = pattern
        self._work = work

    def search(self, text: bytes, start: int) -> re.Match[bytes] | None:
        """See re.Pattern."""
        found = self._pattern.search(text, start)
        self._work.bytes += (found.end() if found else len(text)) - min(start, len(text))
        return found

    def finditer(self, text: bytes, start: int = 0) -> Iterator[re.Match[bytes]]:
        """See re.Pattern."""
        self._work.bytes += len(text) - start
        return self._pattern.finditer(text, start)


MEGABYTE = 1024 * 1024
MANY_TIMES = 300_000
LARGE = {
    "one string that looks like rows": [row_bytes(name="},{" * MEGABYTE)],
    "one string": [row_bytes(name="x" * 3 * MEGABYTE)],
    "one string of escapes": [row_bytes(name='"' * MANY_TIMES)],
    "rows around one string that looks like rows": [*GOOD, row_bytes(name="},{" * MEGABYTE), *GOOD],
    "one nested value": [row_bytes(more=[{}] * MANY_TIMES)],
    "rows of nested values": [row_bytes(more=[{}] * 100)] * 2000,
    "rows with nested values of a slice each": [row_bytes(more=[{}] * 30_000)] * 10,
    "rows and space": [*GOOD, b" " * 3 * MEGABYTE + row_bytes(), *GOOD],
    "rows": GOOD * 1000,
    "bad rows": (GOOD[:2] + BAD) * 500,
}


@pytest.mark.slow
@pytest.mark.parametrize("piece_size", [1000, PIECE, 10 * MEGABYTE], ids=["in small pieces", "in large pieces", "whole"])
@pytest.mark.parametrize("raws", LARGE.values(), ids=LARGE)
def test_no_list_makes_a_reader_scan_its_bytes_many_times(
    raws: list[bytes], piece_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = listed(raws)
    work = Work(monkeypatch)
    reader = ListReader(work)
    for piece in slices(pieces(text, piece_size), reader):
        reader.read(piece)
    assert reader.count == len(raws)
    assert work.bytes < 30 * len(text)


def test_well_formed_rows_are_scanned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = listed(row_bytes(str(number)) for number in range(40_000))
    work = Work(monkeypatch)
    reader = ListReader(work)
    for piece in slices(pieces(text, PIECE), reader):
        reader.read(piece)
    assert work.bytes < 1.1 * len(text)


@pytest.mark.parametrize("row_size", [100, MEGABYTE])
def test_a_reader_buffers_little_more_than_a_slice_and_a_row(row_size: int) -> None:
    text = listed(row_bytes(name="},{" * (row_size // 3)) for _ in range(8 * MEGABYTE // row_size))
    reader = ListReader(RowReader())
    held = []
    for piece in slices(pieces(text, PIECE), reader):
        held.append(len(reader._buffer))
        assert len(piece.raw) <= held[-1]
        reader.read(piece)
    assert len(text) > 8 * MEGABYTE
    assert max(held) <= 2 * (SLICE + PIECE) + 4 * row_size


def test_white_space_before_a_list_is_not_buffered() -> None:
    reader = ListReader(RowReader())
    for _ in range(100):
        reader.feed(b" \n" * 1000)
        assert list(reader) == []
        assert len(reader._buffer) < 10
    reader.feed(b"[]")
    reader.end()
    assert list(reader) == []
    assert reader.count == 0


def test_slices_come_while_the_list_arrives() -> None:
    text = listed(row_bytes(str(number)) for number in range(20_000))
    reader = ListReader(RowReader())
    for piece in pieces(text, PIECE):
        reader.feed(piece)
        for each in reader:
            reader.read(each)
        assert len(reader._buffer) < 3 * SLICE
    assert reader.count > 15_000


# Whole lists.


@pytest.mark.parametrize("text", [b"[]", b" [ ] \n", b"\xef\xbb\xbf[]"])
def test_an_empty_list_has_no_rows(text: bytes) -> None:
    assert read_list(RowReader(), text) == ([], [])


def test_a_byte_order_mark_is_skipped() -> None:
    (key,), rejected = read_list(RowReader(), b"\xef\xbb\xbf" + body(ROW))
    assert (key.id, rejected) == ("wk_1", [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b"{}", "got an object", id="an object"),
        pytest.param(b'{"data": []}', "got an object with the fields 'data'", id="an object around a list"),
        pytest.param(b'{"sk_live_acme_4fJq": 1}', "with the fields 'sk_live_…'", id="an object with a token"),
        pytest.param(b"null", "got null", id="null"),
        pytest.param(b'"[]"', "got a string", id="a string"),
        pytest.param(b"7", "got a number", id="a number"),
        pytest.param(b"true", "got true", id="a boolean"),
        pytest.param(b"", "nothing at all", id="nothing"),
        pytest.param(b" \n", "nothing at all", id="white space"),
        pytest.param(b"[", "breaks off after 0 rows", id="cut after the bracket"),
        pytest.param(body(ROW)[:-1], "breaks off after 0 rows", id="cut after a row"),
        pytest.param(body(ROW)[:-9], "breaks off after 0 rows", id="cut in a string"),
        pytest.param(body(ROW)[:-1] + b",]", "an empty element", id="a trailing comma"),
        pytest.param(body(ROW) * 2, "more data after its end, after 1 rows", id="two lists"),
        pytest.param(body(ROW) + b"\x00", "breaks off after 0 rows", id="a NUL after it"),
        pytest.param(b"NaN", "not JSON", id="NaN"),
        pytest.param(b"<!doctype html><title>Log in</title>", "HTML", id="a web page"),
        pytest.param("[]".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param("[]".encode("utf-32-le"), "breaks off", id="UTF-32"),
        pytest.param(b"\xef\xbb\xbf" * 2 + b"[]", "not JSON", id="two byte order marks"),
        pytest.param(b"\x1f\x8b\x08", "gzip", id="gzip"),
        pytest.param(b"[" * 100_000, "breaks off", id="100,000 brackets"),
        pytest.param(b"[" * 100_001 + b"]" * 100_000, "breaks off inside row 0", id="100,000 pairs of brackets and one"),
        pytest.param(b"[{}]]", "more data after its end", id="a bracket too many"),
        pytest.param(b"[,{}]", "an empty element", id="a leading comma"),
    ],
)
def test_a_body_that_is_not_an_array_is_an_invalid_list(text: bytes, said: str) -> None:
    with pytest.raises(InvalidList) as refused:
        read_list(RowReader(), text)
    assert "expected a JSON array of rows" in str(refused.value)
    assert said in str(refused.value)
    assert not refused.value.lasting


def test_bad_rows_are_reported_in_their_order() -> None:
    keys, rejected = read_list(RowReader(), body(None, ROW, {"id": "wk_2"}, 7, ROW))
    assert len(keys) == 2
    assert [error.index for error in rejected] == [0, 2, 3]


@MANY
@given(st.one_of(st.binary(), st.text().map(str.encode), st.binary().map(lambda noise: b'[{"id":"' + noise + b'"}]')))
def test_arbitrary_bodies_raise_nothing_but_invalid_list(text: bytes) -> None:
    try:
        keys, rejected = read_list(RowReader(), text)
    except InvalidList as error:
        message = str(error)
    else:
        message = f"{len(keys) + len(rejected)} rows, expected a JSON array of rows"
    assert "expected a JSON array of rows" in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"{}", "expected a JSON array of rows, got an object"),
        (b"x", "expected a JSON array of rows, got something that is not JSON"),
    ],
)
def test_the_wording_for_an_invalid_list(text: bytes, sentence: str) -> None:
    with pytest.raises(InvalidList) as refused:
        read_list(RowReader(), text)
    assert str(refused.value) == sentence
