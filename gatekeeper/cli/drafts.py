"""Read a CSV file of keys to mint, as spreadsheets write it."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gatekeeper.cli.output import USAGE, several, stop
from gatekeeper.matching.allowlist import Allowlist

__all__ = ("Content", "Draft", "read_drafts")

COLUMNS = ("name", "domain_allowlist", "agent_id")
REQUIRED = ("name", "domain_allowlist")
DELIMITERS = (",", ";", "\t")  # Excel writes `;` where the comma is the decimal sign, and tabs as "Unicode Text"
EXPECTED = f"expected the columns {','.join(COLUMNS)}, where agent_id is optional"
SAVE_AS = "save the file as CSV UTF-8 (comma delimited)"
QUOTE = 'write a field that contains a quote as "Tom ""T"" Smith"'
MAX_HEADER = 1000  # characters that are read
SHOWN = 100  # characters of a header that is not understood


class Content(NamedTuple):
    """The fields of a key to mint.

    Attributes:
        name: the key's name.
        domain_allowlist: its entries.
        agent_id: the agent to pin it to, or None.
    """

    name: str
    domain_allowlist: tuple[str, ...]
    agent_id: str | None


class Draft(NamedTuple):
    """A record of the file, which describes a key.

    Attributes:
        line: the number of the line where it begins, from 1.
        content: its fields.
    """

    line: int
    content: Content


class BadRecord(ValueError):
    """A record of the file does not describe a key."""


class Lines:
    """The lines of a file, which csv.reader reads one by one.

    Args:
        text: the text, whose line breaks inside and outside of quotes are as in the file.
    """

    def __init__(self, text: str) -> None:
        self._lines = list(io.StringIO(text, newline=""))
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        while self.taken < len(self._lines):
            self.taken += 1
            yield self._lines[self.taken - 1]

    def since(self, start: int) -> str:
        """The lines that were taken after the first `start` ones."""
        return "".join(self._lines[start : self.taken])


def read_drafts(file: Path) -> tuple[list[Draft], list[str]]:
    """Read a file of keys to mint, or exit.

    Records are as in RFC 4180: a quoted field may contain line breaks, and a quote in it is doubled. The separator is a
    comma, a semicolon or a tab, as in the first line. The encoding is UTF-8, or UTF-16 with a byte order mark.

    Args:
        file: the path of the file.

    Returns:
        The keys to mint, and a sentence about each bad record, with the number of the line where it begins.

    Raises:
        typer.Exit: the file cannot be read, or its first line does not name the columns; the reason is printed.
    """
    lines = Lines(_decode(file))
    delimiter, header = _header(file, next(iter(lines), ""))
    drafts: list[Draft] = []
    bad: list[str] = []
    for line, fields in _records(lines, delimiter):
        try:
            content = _content(fields, header)
        except BadRecord as error:
            bad.append(f"line {line}: {error}")
        else:
            drafts += [Draft(line, content)] if content is not None else []
    if not drafts and not bad:
        stop(USAGE, f"{file} has no line after the first one, so there is no key to mint")
    return drafts, bad


def _decode(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        stop(USAGE, f"cannot read {file}: {error.strerror}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            stop(USAGE, f"{file} is not valid UTF-16 ({error.reason}): {SAVE_AS}")
    # Bytes that are not UTF-8 concern their record only.
    return content.decode("utf-8-sig", errors="surrogateescape")


def _header(file: Path, line: str) -> tuple[str, list[str]]:
    """The separator and the columns that the first line names."""
    if not line.strip():
        stop(USAGE, f"{file} is empty, or its first line is: {EXPECTED}")
    headers = {delimiter: _columns(line[:MAX_HEADER], delimiter) for delimiter in DELIMITERS}
    delimiter = next((each for each, header in headers.items() if set(REQUIRED) <= set(header)), None)
    if delimiter is None:
        stop(USAGE, f"the first line of {file} is {line.strip()[:SHOWN]!r}: {EXPECTED}; if it has them, {SAVE_AS}")
    header = headers[delimiter]
    unknown = [column for column in header if column not in COLUMNS]
    if unknown:
        stop(USAGE, f"the first line of {file} has the unknown column {unknown[0]!r}: {EXPECTED}")
    if len(set(header)) < len(header):
        stop(USAGE, f"the first line of {file} has a column twice: {EXPECTED}")
    return delimiter, header


def _columns(line: str, delimiter: str) -> list[str]:
    return [column.strip().lower() for column in next(csv.reader([line], delimiter=delimiter))]


def _records(lines: Lines, delimiter: str) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """Read records, each with the number of its first line."""
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    well_formed = _well_formed(delimiter)
    while True:
        start = lines.taken
        try:
            fields = next(reader, None)
        except csv.Error as error:
            closed = not str(error).startswith("unexpected end")
            reason = str(error) if closed else "a quoted field is not closed"
            yield start + 1, BadRecord(f"it is not valid CSV: {reason}; {QUOTE}")
            # A quote that was not meant to open a field must not take the lines after it.
            lines.taken = start + 1
            reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
            continue
        if fields is None:
            return
        if well_formed.fullmatch(lines.since(start)):
            yield start + 1, fields
        else:
            yield start + 1, BadRecord(f"it is not valid CSV: a quote is in a field without quotes around it; {QUOTE}")


def _well_formed(delimiter: str) -> re.Pattern[str]:
    # RFC 4180 section 2 rule 5, which csv.reader does not check even if it is strict.
    field = rf'(?:"(?:[^"]|"")*+"|[^"{re.escape(delimiter)}\r\n]*+)'
    return re.compile(rf"{field}(?:{re.escape(delimiter)}{field})*+[\r\n]*+")


def _content(fields: list[str] | BadRecord, header: Sequence[str]) -> Content | None:
    """The key that a record describes, or None if the record is blank."""
    if isinstance(fields, BadRecord):
        raise fields
    if not any(field.strip() for field in fields):
        return None
    if len(fields) != len(header):
        raise BadRecord(f"it has {several(len(fields), 'field')}: expected {len(header)}, as in the first line")
    row = dict(zip(header, (field.strip() for field in fields), strict=True))
    for column, field in row.items():
        _require_text(column, field)
    entries = tuple(row["domain_allowlist"].replace(";", " ").split())
    rejected = Allowlist.parse(entries).rejected
    if rejected:
        raise BadRecord(" ".join(entry.hint for entry in rejected))
    if not row["name"]:
        raise BadRecord("it has no name")
    return Content(row["name"], entries, row.get("agent_id") or None)


def _require_text(column: str, field: str) -> None:
    for character in re.sub(r"[\t\r\n]", " ", field):
        if "\udc80" <= character <= "\udcff":
            raise BadRecord(f"its {column} is not UTF-8: {SAVE_AS}")
        if not character.isprintable():
            raise BadRecord(f"its {column} contains {character!r}, which is not printable: delete it there")
