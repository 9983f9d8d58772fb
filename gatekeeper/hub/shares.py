"""Shares: an amount that accounts share."""

from collections import Counter

__all__ = ("Shares",)


class Shares:
    """An amount that accounts share. Each can take as much as it leaves to the others.

    So one account can have half of it, each of two a third, and the next account always finds some.

    Args:
        most: the amount.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def take(self, account: str, amount: int) -> bool:
        """Take a part, unless it is too large.

        Args:
            account: the account.
            amount: the part.

        Returns:
            Whether it was taken.
        """
        has = self._taken[account] + amount
        if has > self._most - self._taken.total() - amount:
            return False
        self._taken[account] = has
        return True

    def give_back(self, account: str, amount: int) -> None:
        """Give back a part.

        Args:
            account: the account.
            amount: the part.
        """
        self._taken[account] -= amount
        if not self._taken[account]:
            del self._taken[account]
