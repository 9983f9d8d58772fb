"""Precedence: whether the held or the listed row of a key counts.

A cache on the way may give an old list, so that a row never loosens by an older one: of a row whose `updated_at` is older
than that of the held row, only a revocation is taken.
"""

from datetime import UTC, datetime

import msgspec

from gatekeeper.index.packed import ChangeKind, compare_rows, with_revocation

__all__ = ("Precedence", "seconds")

CLOCK_SKEW = 5.0  # seconds that the clocks of two machines of one hub may differ by


class Precedence(msgspec.Struct, frozen=True):
    """How a list compares with the index.

    Attributes:
        dated_at: when the list was made, in seconds since 1970; None if it does not say so.
        may_loosen: False for a list of which only revocations are taken.
        is_trusted: True for a list that counts as it is, such as that of a restored hub.
    """

    dated_at: float | None = None
    may_loosen: bool = True
    is_trusted: bool = False

    def choose(self, held: bytes, listed: bytes) -> tuple[bytes, ChangeKind]:
        """Choose between two rows of a key.

        Args:
            held: the row in the index.
            listed: the row in the list.

        Returns:
            One of the rows, or the held row with the revocation of the other; and how it differs from the held one.
        """
        change = compare_rows(held, listed)
        if self.is_trusted or (self.may_loosen and not self._is_older(change.updated_before, change.updated_after)):
            return listed, change.kind
        if change.kind == "revocation":
            return with_revocation(held, change.disabled_at), "revocation"
        return held, "none"

    def _is_older(self, held: str | None, listed: str | None) -> bool:
        if held is None or listed is None or held == listed:
            return False
        if held < listed and len(held) == len(listed) and held[-1] == listed[-1] == "Z":  # the usual case
            return False
        before, after = seconds(held), seconds(listed)
        if before is None or after is None or before <= after:
            return False
        # A held time in the future was written by a clock that has been set back since.
        return self.dated_at is None or before <= self.dated_at + CLOCK_SKEW


def seconds(time: object) -> float | None:
    """Read a time in ISO 8601 as seconds since 1970, else None."""
    try:
        at = datetime.fromisoformat(time) if isinstance(time, str) else None
        return None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
