"""What the commands print, and how they end."""

from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = (
    "REFUSED",
    "UNREACHABLE",
    "USAGE",
    "ask",
    "console",
    "legible",
    "moment",
    "plain",
    "print_json",
    "print_table",
    "several",
    "stop",
    "warn",
)

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
WIDE = 400  # characters


def console(*, stderr: bool = False) -> Console:
    """What to print lines by that people copy from: never wrapped, and nothing in them coloured by guesswork."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, for programs."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_table(table: Table) -> None:
    """Print a table, as wide as it has to be where no terminal sets a width: nothing is folded in a file or a pipe."""
    width = None if console().is_terminal else WIDE
    Console(highlight=False, width=width).print(table)


def ask(question: str, *, yes: bool) -> None:
    """Go on only if the user wants to.

    Args:
        question: what is about to happen.
        yes: the answer, where it was given along with the command.

    Raises:
        typer.Exit: the answer is no, or nobody is there to answer.
    """
    if yes:
        return
    try:
        sure = typer.confirm(question, err=True)
    except typer.Abort:
        stop(USAGE, "nobody is there to answer; add --yes to go on without asking")
    if not sure:
        stop(REFUSED, "nothing was changed")


def plain(text: str) -> str:
    """Text of somebody else, which plays no tricks on the terminal."""
    return text if text.isprintable() else repr(text)


def legible(text: str) -> str:
    """Text of somebody else as markup, which shows it as it is."""
    return escape(plain(text))


def moment(at: datetime) -> str:
    """A moment to the second, in UTC."""
    return at.astimezone(UTC).isoformat(sep=" ", timespec="seconds")


def several(count: int, noun: str) -> str:
    """So many of something, such as "1 key" and "2 keys"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def warn(message: str) -> None:
    """Say what is not as it should be."""
    console(stderr=True).print(f"[yellow]gatekeeper:[/] {escape(message)}")


def stop(code: int, message: str) -> NoReturn:
    """Say why it ends here.

    Args:
        code: the exit code.
        message: why, as a sentence.

    Raises:
        typer.Exit: always.
    """
    console(stderr=True).print(f"[red]gatekeeper:[/] {escape(message.removeprefix('gatekeeper: '))}")
    raise typer.Exit(code)
