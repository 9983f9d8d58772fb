"""The pepper of a hub: where its commands find the secret that keys the hashes of keys and tokens."""

import os
import secrets
from pathlib import Path

from gatekeeper.cli.output import USAGE, console, stop, warn

__all__ = ("PEPPER_VARIABLE", "find_pepper", "is_file")

PEPPER_VARIABLE = "GATEKEEPER_PEPPER"
OWNER_ONLY = 0o600


def is_file(database: str) -> bool:
    """Whether a database is a SQLite file; any other has a URL."""
    return "://" not in database


def find_pepper(database: str, pepper_file: Path | None) -> str:
    """Find the pepper of a database; a SQLite file that is yet to be made gets one in a file beside it.

    Args:
        database: the path of a SQLite file, or the URL of a PostgreSQL database.
        pepper_file: a file with the pepper, which goes before the environment.

    Returns:
        The pepper.

    Raises:
        typer.Exit: there is none, or it cannot be read; the user has been told why.
    """
    if pepper_file is not None:
        return _read(pepper_file)
    if pepper := os.environ.get(PEPPER_VARIABLE, "").strip():
        return pepper
    if not is_file(database):
        stop(USAGE, f"a PostgreSQL database needs a pepper of yours: --pepper-file, or {PEPPER_VARIABLE} in the "
             "environment, with the output of `openssl rand -hex 32`")  # fmt: skip
    beside = Path(f"{database}.pepper")
    if not beside.exists():
        if Path(database).exists():
            stop(USAGE, f"{database} is there, and its pepper is not in {beside}: name the file by --pepper-file, or put "
                 f"it into the environment as {PEPPER_VARIABLE}; under another one no token is known")  # fmt: skip
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
    said = f"the pepper of the new database is in {path}; whoever loses it has to mint every token anew"
    console(stderr=True).print(f"gatekeeper: {said}", markup=False)


def _read(path: Path) -> str:
    try:
        pepper = path.read_text(encoding="utf-8").strip()
        mode = path.stat().st_mode
    except OSError as error:
        stop(USAGE, f"cannot read the pepper in {path}: {error.strerror}")
    except UnicodeDecodeError:
        stop(USAGE, f"the pepper in {path} is not text")
    if not pepper:
        stop(USAGE, f"the pepper in {path} is empty: expected a secret, such as the output of `openssl rand -hex 32`")
    if mode & 0o077:
        warn(f"others than its owner may read {path}: chmod 600 {path}")
    return pepper
