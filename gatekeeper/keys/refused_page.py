"""RefusedPage: a page that was refused with a key, and how often."""

from datetime import datetime

import msgspec

__all__ = ("RefusedPage",)


class RefusedPage(msgspec.Struct, frozen=True):
    """A page that was refused with a key, and how often.

    Attributes:
        key_id: the id of the key.
        origin: the origin of the page, "null" included; None where the request named none, or a malformed one.
        reason: why, such as "origin_not_allowed".
        count: the number of requests, 1 or more.
        first_at: the time of the first one, with a time zone.
        last_at: the time of the last one, with a time zone.
        entry: the entry that would allow the page; None where adding one does not help.
    """

    key_id: str
    origin: str | None
    reason: str
    count: int
    first_at: datetime
    last_at: datetime
    entry: str | None = None
