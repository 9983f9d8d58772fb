"""gatekeeper hub backup, restore: copies of a hub's SQLite file."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatekeeper.cli.hub import DatabaseOption, HubOptions, PepperFileOption, problems, require_file, shown_account
from gatekeeper.cli.output import USAGE, ask, console, legible, plain, print_columns, several, stop, warn
from gatekeeper.cli.pepper import find_pepper, is_file
from gatekeeper.keys.client_key import mask

if TYPE_CHECKING:
    from gatekeeper.hub.restore import Differences

__all__ = ("backup", "restore")

KILLED = 128 + signal.SIGTERM
LEAST_NAME = 12  # cells to which a name may be folded


def backup(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="The file to write, which must not exist.", show_default=False)],
    database: DatabaseOption = None,
) -> None:
    """Back up the SQLite file of a hub, which may be running."""
    source = _require_sqlite(context, database)
    require_file(str(source))
    with problems(), _file_problems():
        from gatekeeper.hub.backup import back_up  # noqa: PLC0415 - an extra of its own

        back_up(source, file)
    console().print(f"{legible(str(source))} is backed up in {legible(str(file))}, without its pepper: keep that too")


def restore(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="A backup, or a copy of a hub's SQLite file.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    database: DatabaseOption = None,
    pepper_file: PepperFileOption = None,
) -> None:
    """Restore the SQLite file of a hub from a backup. Stop the hub first."""
    group: HubOptions = context.obj
    target = _require_sqlite(context, database)
    with problems(), _file_problems():
        from gatekeeper.hub.minting import Mint, random_text  # noqa: PLC0415 - an extra of its own
        from gatekeeper.hub.restore import restoring  # noqa: PLC0415 - the same

        pepper = find_pepper(str(target), pepper_file or group.pepper_file, create=False)
        check_value, now = Mint(pepper, random_text).check_value(), datetime.now(UTC)
        aside = target.with_name(f"{target.name}.replaced-{now:%Y%m%dT%H%M%SZ}")
        with restoring(file, target, check_value=check_value, now=now) as prepared:
            if prepared.differences is not None:
                _tell(prepared.differences)
            elif target.exists():
                warn(f"{target} is too damaged to say what has changed since the backup")
            ask(f"Restore {target} from {file}? What has changed since the backup is undone.", yes=yes)
            replaced = prepared.carry_out(aside)
    console().print(f"{legible(str(target))} is restored" + (f"; {legible(str(aside))} has what it replaced" * replaced))


def _require_sqlite(context: typer.Context, database: str | None) -> Path:
    group: HubOptions = context.obj
    named = database or group.database
    if not is_file(named):
        stop(USAGE, "only SQLite files are copied by this command: use pg_dump and pg_restore, as in the hub's README")
    return Path(named)


def _tell(differences: "Differences") -> None:
    keys, tokens = differences.keys, differences.tokens
    if keys:
        warn(f"{several(len(keys), 'key')} disabled or deleted since the backup will be allowed again:")
        of_keys = [(plain(key.id), mask(key.last8), plain(key.account), plain(key.name)) for key in keys]
        print_columns([("ID", "KEY", "ACCOUNT", "NAME"), *of_keys], foldable={3: LEAST_NAME}, stderr=True)
    if tokens:
        warn(f"{several(len(tokens), 'token')} revoked since the backup will be accepted again:")
        of_tokens = [(plain(token.id), shown_account(token.account), plain(token.name)) for token in tokens]
        print_columns([("ID", "ACCOUNT", "NAME"), *of_tokens], foldable={2: LEAST_NAME}, stderr=True)
    if differences.lost_keys or differences.lost_tokens:
        lost = f"{several(differences.lost_keys, 'key')} and {several(differences.lost_tokens, 'token')}"
        warn(f"{lost} made since the backup will be unknown")


@contextmanager
def _file_problems() -> Iterator[None]:
    """Exit with a sentence if a file cannot be written, and remove what is unfinished on SIGTERM."""
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(KILLED))
    try:
        yield
    except FileExistsError as error:
        stop(USAGE, f"{error.filename2 or error.filename} exists already: it is never overwritten")
    except OSError as error:
        stop(USAGE, f"cannot write {error.filename}: {error.strerror}")
    finally:
        signal.signal(signal.SIGTERM, former)
