"""gatekeeper keys import: mint a key for each CSV line."""

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn, Self

import typer
from rich.progress import track

from gatekeeper.cli.connection import with_client
from gatekeeper.cli.output import REFUSED, UNREACHABLE, USAGE, console, several, stop, warn
from gatekeeper.client import CreatedWidgetKey, HubClient
from gatekeeper.errors import (
    ConfigError,
    HubAuthenticationError,
    HubError,
    HubInvalidRequestError,
    HubPermissionError,
    HubProtocolError,
)
from gatekeeper.matching.allowlist import Allowlist

__all__ = ("import_keys",)

COLUMNS = ("name", "domain_allowlist", "agent_id")
KEYS_COLUMNS = ("line", "name", "id", "public_key")
OWNER_ONLY = 0o600


class Draft(NamedTuple):
    """A line of the file, which describes a key.

    Attributes:
        line: the number of the line, from 1.
        name: the key's name.
        domain_allowlist: its entries.
        agent_id: the agent to pin it to, or None.
    """

    line: int
    name: str
    domain_allowlist: list[str]
    agent_id: str | None


class BadLine(ValueError):
    """A line of the file does not describe a key."""


@with_client
def import_keys(
    client: HubClient,
    *,
    file: Annotated[Path, typer.Argument(help="CSV: name, domain_allowlist (spaces or ; between entries), agent_id.")],
    keys_file: Annotated[
        Path | None, typer.Option("--out", help="Where to write the keys; by default beside the file.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier import of the file.")] = False,
) -> None:
    """Mint a key for each line. Only you can read the file of keys."""
    target = keys_file or file.with_suffix(".keys.csv")
    drafts, bad = _read(file)
    done = _minted(target) if resume else set()
    drafts = [draft for draft in drafts if (draft.line, draft.name) not in done]
    for problem in bad:
        warn(problem)
    with KeysFile(target, resume=resume) as keys:
        minted = 0
        for draft in track(drafts, "minting", console=console(stderr=True), disable=not drafts):
            try:
                created = client.widget_keys.create(
                    draft.name, domain_allowlist=draft.domain_allowlist, agent_id=draft.agent_id
                )
            except HubInvalidRequestError as error:
                bad.append(f"line {draft.line}: {error}")
                warn(bad[-1])
                continue
            except (ConfigError, HubError) as error:
                _give_up(draft, error, minted, file, target)
            keys.add(draft, created)
            minted += 1
    console().print(f"{several(minted, 'key')} minted and written to {target}, which only you can read")
    if bad:
        again = f"correct them in place and run: gatekeeper keys import {file} --out {target} --resume"
        stop(REFUSED, f"{several(len(bad), 'line')} failed: {again}")


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
            self._file = os.fdopen(os.open(path, flags, OWNER_ONLY), "a", encoding="utf-8", newline="")
            self._lines = csv.writer(self._file)
            if self._file.tell() == 0:
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
        # All that could be written has been flushed. On a full disk, closing fails once more.
        with suppress(OSError):
            self._file.close()

    def add(self, draft: Draft, created: CreatedWidgetKey) -> None:
        """Write a key and sync it to the disk."""
        try:
            self._write((draft.line, draft.name, created.id, created.public_key))
        except OSError as error:
            lost = f"the key {created.id} of line {draft.line} was minted but not saved: delete it"
            stop(USAGE, f"cannot write {self._path}: {error.strerror}; {lost}, then continue with --resume")

    def _write(self, fields: Iterable[object]) -> None:
        self._lines.writerow(fields)
        self._file.flush()
        os.fsync(self._file.fileno())


def _read(file: Path) -> tuple[list[Draft], list[str]]:
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as opened:
            lines = [line.rstrip("\n") for line in opened]
    except OSError as error:
        stop(USAGE, f"cannot read {file}: {error.strerror}")
    header = [column.strip() for column in next(csv.reader(lines[:1]), [])]
    if not {"name", "domain_allowlist"} <= set(header) <= set(COLUMNS) or len(set(header)) < len(header):
        stop(USAGE, f"the first line of {file} is {','.join(header)!r}: expected the columns {','.join(COLUMNS)}")
    drafts: list[Draft] = []
    bad: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            drafts.extend(_draft(number, line, header))
        except (BadLine, csv.Error) as error:
            bad.append(f"line {number}: {error}")
    return drafts, bad


def _draft(number: int, line: str, header: list[str]) -> Iterator[Draft]:
    # Parse line by line, so that an unclosed quote does not swallow other lines.
    fields = next(csv.reader([line], strict=True), [])
    if not any(field.strip() for field in fields):
        return
    if len(fields) != len(header):
        raise BadLine(f"it has {several(len(fields), 'field')}: expected {len(header)}, as in the first line")
    if not line.replace("\t", " ").isprintable():
        raise BadLine("it contains characters that are not UTF-8 or not printable")
    row = dict(zip(header, (field.strip() for field in fields), strict=True))
    entries = row["domain_allowlist"].replace(";", " ").split()
    rejected = Allowlist.parse(entries).rejected
    if rejected:
        raise BadLine(" ".join(entry.hint for entry in rejected))
    if not row["name"]:
        raise BadLine("it has no name")
    yield Draft(number, row["name"], entries, row.get("agent_id") or None)


def _minted(target: Path) -> set[tuple[int, str]]:
    """The lines, by number and name, that already have a key."""
    try:
        text = target.read_text(encoding="utf-8")
    except FileNotFoundError:
        stop(USAGE, f"there is no {target} to continue: run the import without --resume")
    except OSError as error:
        stop(USAGE, f"cannot read {target}: {error.strerror}")
    except UnicodeDecodeError:
        stop(USAGE, f"{target} was not written by an import")
    rows = list(csv.reader(text.splitlines()))
    if rows and tuple(rows[0]) != KEYS_COLUMNS:
        stop(USAGE, f"{target} was not written by an import")
    if not text.endswith("\n") and text:
        stop(USAGE, f"the last line of {target} is cut short: delete that key at the hub and the line, then try again")
    return {(int(row[0]), row[1]) for row in rows[1:] if len(row) == len(KEYS_COLUMNS) and row[0].isdecimal()}


def _give_up(draft: Draft, error: Exception, minted: int, file: Path, target: Path) -> NoReturn:
    refused = isinstance(error, HubAuthenticationError | HubPermissionError)
    code = REFUSED if refused else USAGE if isinstance(error, ConfigError | HubProtocolError) else UNREACHABLE
    unsure = "" if refused else f" Line {draft.line} may have its key: see `gatekeeper keys list`."
    again = f"gatekeeper keys import {file} --out {target} --resume"
    stop(code, f"{error}. Minted and written to {target}: {several(minted, 'key')}.{unsure} To continue: {again}")
