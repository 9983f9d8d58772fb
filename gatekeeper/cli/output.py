"""Output, questions and exit codes of the commands."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from gatekeeper.cli.columns import align
from gatekeeper.cli.streams import OutputLost
from gatekeeper.quoting import masked

__all__ = (
    "REFUSED",
    "UNREACHABLE",
    "USAGE",
    "as_moment",
    "ask",
    "console",
    "legible",
    "moment",
    "plain",
    "print_columns",
    "print_json",
    "print_text",
    "several",
    "shown_once",
    "stop",
    "warn",
)

REFUSED, USAGE, UNREACHABLE = 1, 2, 3


def console(*, stderr: bool = False) -> Console:
    """Make a console for text that users copy: no wrapping, no highlighting."""
    return Console(stderr=stderr, emoji=False, highlight=False, soft_wrap=True)


def print_text(text: str) -> None:
    """Print a line that programs read, exactly as it is."""
    # Not with typer.echo, which replaces an ASCII stream by a stream of its own.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """Print a value as JSON. It is ASCII if the encoding lacks a character."""
    text = msgspec.json.format(msgspec.json.encode(value)).decode()
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2)
    print_text(text)


@contextmanager
def shown_once(lost: Callable[[], str]) -> Iterator[None]:
    """Name a secret's id if the block cannot print the secret.

    Args:
        lost: makes the message, with the id and the command that revokes it.

    Raises:
        OutputLost: standard output cannot be written; the message is printed on standard error.
    """
    try:
        yield
    except OutputLost:
        _print_error(lost())
        raise


def print_columns(
    rows: Sequence[Sequence[str]], *, foldable: Mapping[int, int], fold: bool = True, stderr: bool = False
) -> None:
    """Print rows of cells in columns that fit a terminal.

    Args:
        rows: the cells of each row, the titles first, as for `align`.
        foldable: the columns that may be folded, with their least widths, as for `align`.
        fold: whether to fold on a terminal. In a file or a pipe, nothing is folded.
        stderr: whether to print to standard error, as part of a question.
    """
    terminal = console(stderr=stderr)
    text = "\n".join(align(rows, width=terminal.width if fold and terminal.is_terminal else None, foldable=foldable))
    if stderr:
        terminal.print(text, markup=False)
    else:
        print_text(text)


def ask(question: str, *, yes: bool) -> None:
    """Ask for confirmation, and exit unless the user agrees.

    Args:
        question: the question, with what is about to happen.
        yes: whether the user has agreed by an option.

    Raises:
        typer.Exit: the answer is no, or there is no input to read it from.
    """
    if yes:
        return
    try:
        sure = typer.confirm(question, err=True)
    except typer.Abort:
        stop(USAGE, "there is no answer: add --yes to continue without asking")
    if not sure:
        stop(REFUSED, "nothing was changed")


def plain(text: str) -> str:
    """Escape the control characters of untrusted text, and mask its secrets."""
    text = masked(text)
    return text if text.isprintable() else repr(text)


def legible(text: str) -> str:
    """Turn untrusted text into rich markup that shows it literally."""
    return escape(plain(text))


def moment(at: datetime) -> str:
    """Format a datetime in UTC, to the second."""
    return at.astimezone(UTC).isoformat(sep=" ", timespec="seconds")


def as_moment(text: str) -> str:
    """Format an ISO 8601 time in UTC, to the second. Other text stays as it is."""
    try:
        at = datetime.fromisoformat(text)
        return text if at.tzinfo is None else moment(at)
    except (ValueError, OverflowError):
        return text


def several(count: int, noun: str) -> str:
    """Format a count with its noun, such as "1 key", "2 keys"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def warn(message: str) -> None:
    """Print a warning, without secrets."""
    console(stderr=True).print(f"[yellow]gatekeeper:[/] {escape(masked(message))}")


def stop(code: int, message: str) -> NoReturn:
    """Print an error, without secrets, and exit.

    Args:
        code: the exit code.
        message: the error, as a sentence.

    Raises:
        typer.Exit: always.
    """
    _print_error(message)
    raise typer.Exit(code)


def _print_error(message: str) -> None:
    console(stderr=True).print(f"[red]gatekeeper:[/] {escape(masked(message).removeprefix('gatekeeper: '))}")
