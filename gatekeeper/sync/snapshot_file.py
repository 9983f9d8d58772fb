"""snapshot_file: the name of the snapshot of an account."""

import hashlib
import string
from pathlib import Path

__all__ = ("snapshot_file",)

# Capitals are quoted as well: some file systems do not tell them from small letters.
_PLAIN = frozenset(f"{string.ascii_lowercase}{string.digits}_-")
MAX_NAME = 150  # characters; file systems take 255 bytes, and temporary files have some more than the snapshot
_DIGEST = 16  # bytes


def snapshot_file(directory: str | Path, account: str) -> Path:
    """Name the file with the snapshot of an account.

    Args:
        directory: the directory for the snapshots of all accounts.
        account: the account; any text.

    Returns:
        The path, such as `directory/keys.acme.snapshot`. It differs for each account, also where the file system does not
        tell capitals from small letters, and is always right in the directory.
    """
    encoded = account.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}" for byte in encoded)
    if len(name) > MAX_NAME:
        digest = hashlib.blake2b(encoded, digest_size=_DIGEST).hexdigest()
        name = f"{name[:MAX_NAME]}%-{digest}"  # "%-" is in no other name
    return Path(directory) / f"keys.{name}.snapshot"  # Windows has no files that are called "con" or "nul"
