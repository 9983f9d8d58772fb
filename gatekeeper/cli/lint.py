"""gatekeeper lint: explain allowlist entries."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from gatekeeper.cli.output import REFUSED, USAGE, console, legible, stop, warn
from gatekeeper.errors import InvalidList
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import read_list
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.matching.pattern import Pattern

__all__ = ("explain", "lint")


def lint(
    entries: Annotated[list[str] | None, typer.Argument(help="Allowlist entries.", show_default=False)] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="A file with one entry per line, or a JSON file of rows.")] = None,
    https_only: Annotated[bool, typer.Option("--https-only", help="Read entries like a gate with https_only=True.")] = False,
) -> None:
    """Explain each entry: its meaning and normal form, or its error."""
    if bool(entries) == (file is not None):
        stop(USAGE, "expected either entries or a file of them (--file)")
    out = console()
    rejected = False
    lists = [("", tuple(entries or ()))] if file is None else _lists_in(file)
    for title, written in lists:
        if title:
            out.print(f"[bold]{legible(title)}[/]")
        allowlist = Allowlist.parse(written, https_only=https_only)
        rejected = rejected or bool(allowlist.rejected)
        for line in explain(written, allowlist, https_only=https_only):
            out.print(line)
    raise typer.Exit(REFUSED if rejected else 0)


def explain(written: Iterable[str], allowlist: Allowlist, *, https_only: bool = False) -> Iterator[str]:
    """Explain each entry in a line or two.

    Args:
        written: the entries.
        allowlist: the allowlist that contains them; its other entries affect warnings and suggestions.
        https_only: as for the allowlist.

    Yields:
        Lines of rich markup.
    """
    rejected = {entry.entry: entry for entry in allowlist.rejected}
    warnings, suggestions = allowlist.warnings, allowlist.suggestions
    if not allowlist:
        yield "[yellow]blocked[/]   no entry is valid, so no page can use the key"
    for entry in written:
        if entry in rejected:
            reason, hint = rejected[entry].reason, rejected[entry].hint
            yield f"[red]rejected[/]  {legible(entry)}  ({reason})\n          {legible(hint)}"
            continue
        pattern = Pattern.parse(entry, https_only=https_only)
        normalised = "" if str(pattern) == entry else f" -> {legible(str(pattern))}"
        yield f"[green]ok[/]        {legible(entry)}{normalised}\n          {legible(pattern.meaning)}"
        for warning in warnings:
            if warning.entry == entry:
                yield f"          [yellow]warning[/] {legible(warning.hint)}"
        for suggestion in suggestions:
            if suggestion.entry == entry:
                yield f"          [cyan]tip[/] {legible(suggestion.hint)}"


def _lists_in(file: Path) -> list[tuple[str, tuple[str, ...]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows, rejected = read_list(RowReader(), text.encode())
    except (OSError, UnicodeDecodeError) as error:
        stop(USAGE, f"cannot read {str(file)!r}: {error}")
    except InvalidList:
        return [("", tuple(line for line in text.splitlines() if line.strip()))]
    for problem in rejected:
        warn(f"left out: {problem}")
    return [(f"{row.name or row.id} ({mask(row.last8)})", row.domain_allowlist) for row in rows]
