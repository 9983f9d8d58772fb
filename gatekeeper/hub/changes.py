"""What tells a hub's process which accounts have changed."""

from typing import Protocol

__all__ = ("Changes", "Watch")


class Watch(Protocol):
    """The requests that wait, for what learns of changes."""

    async def begun(self) -> None:
        """Wait until a request waits."""
        ...

    def look(self, account: str) -> None:
        """Look at an account soon, if a request waits for its change.

        Args:
            account: an account that may have changed; any name may be given.
        """
        ...

    async def look_at_all(self) -> None:
        """Read the revisions of all accounts for whose change a request waits.

        Raises:
            DatabaseDown: the database does not answer.
        """
        ...


class Changes(Protocol):
    """Learns of changes that are made by other processes."""

    async def follow(self, watch: Watch) -> None:
        """Tell of changes until cancelled. It may tell of some that are none.

        Args:
            watch: who is told.
        """
        ...
