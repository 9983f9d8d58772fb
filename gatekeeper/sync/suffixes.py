"""load_suffixes_for: loads the public suffixes in a thread, in time."""

from gatekeeper.matching.suffixes import has_public_suffixes, load_public_suffixes
from gatekeeper.sync.threads import in_thread

__all__ = ("load_suffixes_for",)


async def load_suffixes_for(rows: bytes) -> None:
    """Load the public suffixes if entries have a wildcard.

    Args:
        rows: the rows with these entries, as JSON or MessagePack.
    """
    if b"*." in rows and not has_public_suffixes():
        await in_thread(load_public_suffixes)
