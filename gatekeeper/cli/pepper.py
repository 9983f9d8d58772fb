"""The pepper of a hub, the secret that keys its hashes."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from gatekeeper.cli.output import USAGE, console, stop, warn

__all__ = ("PEPPER_VARIABLE", "find_pepper", "is_file", "warn_if_exposed")

PEPPER_VARIABLE = "GATEKEEPER_PEPPER"
OWNER_ONLY = 0o600


def is_file(database: str) -> bool:
    """Whether a database is a SQLite file, not a URL."""
    return "://" not in database


def find_pepper(database: str, pepper_file: Path | None, *, create: bool = True) -> str:
    """Find the pepper of a database. A new SQLite file gets one beside it.

    Args:
        database: the path of a SQLite file, or the URL of a PostgreSQL database.
        pepper_file: a file with the pepper, which takes precedence over the environment.
        create: whether a SQLite file that does not exist yet gets a new pepper.

    Returns:
        The pepper.

    Raises:
        typer.Exit: no pepper, or an unreadable one; the reason is printed.
    """
    if pepper_file is not None:
        return _read(pepper_file)
    if pepper := os.environ.get(PEPPER_VARIABLE, "").strip():
        return pepper
    if not is_file(database):
        stop(USAGE, f"a PostgreSQL database needs a pepper: --pepper-file, or {PEPPER_VARIABLE} in the environment, "
             "with the output of `openssl rand -hex 32`")  # fmt: skip
    beside = Path(f"{database}.pepper")
    if not beside.exists():
        if Path(database).exists() or not create:
            stop(USAGE, f"the pepper of {database} is not in {beside}: expected its file as --pepper-file, or "
                 f"{PEPPER_VARIABLE} in the environment; with another pepper, all tokens are unknown")  # fmt: skip
        _make(beside)
    return _read(beside)


def _make(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        stop(USAGE, f"cannot write {path}: {error.strerror}")
    said = f"the pepper of the new database is in {path}; keep it: without it, every token has to be minted again"
    console(stderr=True).print(f"gatekeeper: {said}", markup=False)


def _read(path: Path) -> str:
    try:
        pepper = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        stop(USAGE, f"cannot read the pepper in {path}: {error.strerror}")
    except UnicodeDecodeError:
        stop(USAGE, f"the pepper in {path} is not text")
    if not pepper:
        stop(USAGE, f"the pepper in {path} is empty: expected a secret, such as the output of `openssl rand -hex 32`")
    warn_if_exposed(path)
    return pepper


def warn_if_exposed(path: Path) -> None:
    """Warn if other users can read a file."""
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            warn(f"other users can read {path}: run chmod 600 {path}")
