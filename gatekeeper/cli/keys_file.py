"""The file of minted keys, which an import writes and continues."""

import csv
import io
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from gatekeeper.cli.drafts import Content, Draft
from gatekeeper.cli.output import USAGE, plain, stop
from gatekeeper.client import CreatedWidgetKey

__all__ = ("KeysFile", "MintedKey", "read_minted")

KEYS_COLUMNS = ("line", "name", "domain_allowlist", "agent_id", "id", "public_key")
OWNER_ONLY = 0o600
# OWASP, "CSV Injection": what begins a formula, in a field or after what another locale takes for a separator.
FORMULA = re.compile(r"""(^|[,;\t\r\n])(["']*)(?=[=+\-@\t\r\n])""")
HARMLESS = re.compile(r"""(^|[,;\t\r\n])'(["']*)(?=[=+\-@\t\r\n])""")


class MintedKey(NamedTuple):
    """A key that an earlier import has minted.

    Attributes:
        content: the fields that it was minted with.
        id: its id at the hub.
    """

    content: Content
    id: str


class KeysFile:
    """The file of plaintexts, synced to the disk after each key.

    Args:
        path: the path of the file.
        resume: whether to append to the file of an earlier import.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        try:
            # O_EXCL: an existing file may hold the only copy of other keys.
            flags = os.O_WRONLY | os.O_APPEND | (0 if resume else os.O_CREAT | os.O_EXCL)
            self._file = os.fdopen(os.open(path, flags, OWNER_ONLY), "ab", buffering=0)
            if os.fstat(self._file.fileno()).st_size == 0:
                self._write(KEYS_COLUMNS)
        except FileExistsError:
            stop(
                USAGE, f"{path} already exists and may hold keys: choose another file with --out, or continue with --resume"
            )
        except OSError as error:
            stop(USAGE, f"cannot write {path}: {error.strerror}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, draft: Draft, created: CreatedWidgetKey) -> None:
        """Write a key and sync it to the disk, or exit."""
        name, entries, agent_id = draft.content
        fields = [name, " ".join(entries), agent_id or "", created.id]
        try:
            self._write((str(draft.line), *map(_harmless, fields), created.public_key))
        except OSError as error:
            key_id = plain(created.id)
            lost = f"the key {key_id} of line {draft.line} was minted but not saved: delete it with `gatekeeper keys delete"
            stop(USAGE, f"cannot write {self._path}: {error.strerror}; {lost} {key_id}`, then continue with --resume")

    def _write(self, fields: Iterable[str]) -> None:
        record = io.StringIO(newline="")
        csv.writer(record).writerow(fields)
        rest = memoryview(record.getvalue().encode())
        size = os.fstat(self._file.fileno()).st_size
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # Half a record would have to be deleted by hand.
                os.ftruncate(self._file.fileno(), size)
            raise


def read_minted(path: Path) -> list[MintedKey]:
    """Read the keys that an earlier import has minted, or exit.

    Args:
        path: the path of the file.

    Returns:
        The keys, in the order of the file.

    Raises:
        typer.Exit: there is no such file, or it is not as an import writes it; the reason is printed.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        stop(USAGE, f"there is no {path} to continue: run the import without --resume")
    except OSError as error:
        stop(USAGE, f"cannot read {path}: {error.strerror}")
    except UnicodeDecodeError:
        stop(USAGE, f"{path} was not written by an import: it is not UTF-8")
    if not text.endswith("\n") and text:
        stop(USAGE, f"the last line of {path} is cut short: delete that key at the hub and the line, then try again")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    minted: list[MintedKey] = []
    try:
        if text and tuple(next(reader)) != KEYS_COLUMNS:
            stop(USAGE, f"{path} was not written by this import: expected the first line {','.join(KEYS_COLUMNS)}")
        for fields in filter(None, reader):
            _, name, entries, agent_id, key_id, _ = (_original(field) for field in fields)
            minted.append(MintedKey(Content(name, tuple(entries.split()), agent_id or None), key_id))
    except (csv.Error, ValueError):
        stop(USAGE, f"line {reader.line_num} of {path} is not as an import writes it: restore it, then try again")
    return minted


def _harmless(field: str) -> str:
    """Keep a spreadsheet from reading a formula, by a single quote before it."""
    return FORMULA.sub(r"\1'\2", field)


def _original(field: str) -> str:
    return HARMLESS.sub(r"\1\2", field)
