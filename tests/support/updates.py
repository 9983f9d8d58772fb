"""Asking a source for its list."""

from gatekeeper import Basis, FullList, Updates

__all__ = ("read",)


async def read(updates: Updates, validator: str | None) -> tuple[bytes, str | None] | None:
    """Fetch a whole list and its validator; None if it has not changed."""
    async with updates(Basis(validator)) as update:
        return (await update.listing.read(), update.listing.validator) if isinstance(update, FullList) else None
