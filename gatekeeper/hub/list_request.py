"""ListRequest: what a request for the list asks for besides the list."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from starlette.requests import Request

from gatekeeper.hub.accounts import Revision
from gatekeeper.hub.conditions import read_tags

__all__ = ("MAX_WAIT", "ListRequest", "read_list_request")

# Seconds. Proxies end a request that has had no answer for so long (nginx's proxy_read_timeout).
MAX_WAIT: Final = 60

_ACCEPTED: Final = re.compile(r"\s*([^\s;,]+)\s*(?:;\s*[qQ]\s*=\s*([0-9.]+)\s*)?")

# A comma within a quoted string separates nothing. What is matched is never tried again, so that the time is linear.
_ELEMENT: Final = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.)*+"?+)++')
_PREFERENCE: Final = re.compile(r'\s*+([^\s;="]++)\s*+(?:=\s*+("[^"\\]*+"|[^\s;="]*+)\s*+)?(?:;.*)?')
_SECONDS: Final = re.compile(r"[0-9]+")


class ListRequest(NamedTuple):
    """A request for the list, apart from its bearer.

    Attributes:
        tags: the entity tags of If-None-Match, as sent; "*" stands for any.
        takes_delta: whether the client takes the rows that have changed in place of the list.
        takes_gzip: whether the client takes gzip.
        wait: the seconds, at most MAX_WAIT, that the client wants to wait for a change; None for an answer at once.
    """

    tags: frozenset[str]
    takes_delta: bool
    takes_gzip: bool
    wait: int | None

    def names(self, etag: str) -> bool:
        """Whether If-None-Match names the list (RFC 9110 section 13.1.2).

        Args:
            etag: the ETag of the current list. ETags are compared weakly.
        """
        held = {tag.removeprefix("W/") for tag in self.tags}
        return etag.removeprefix("W/") in held or "*" in held

    @property
    def bases(self) -> dict[Revision, str]:
        """The revisions that a delta may start from, with their tags."""
        if not self.takes_delta:
            return {}
        parsed = ((Revision.parse(tag), tag) for tag in self.tags)
        return {revision: tag for revision, tag in parsed if revision is not None}


def read_list_request(request: Request) -> ListRequest:
    """Read the headers of a request for the list.

    What they do not say in the right form counts as not said.

    Args:
        request: the request.

    Returns:
        What it asks for.
    """
    fields = request.headers.getlist
    codings = _weigh(fields("Accept-Encoding"))  # RFC 9110 section 12.5.3
    return ListRequest(
        tags=read_tags(request, "If-None-Match") or frozenset(),
        takes_delta=_weigh(fields("A-IM")).get("rows", False),  # RFC 3229 section 10.5.3
        takes_gzip=codings.get("gzip", codings.get("x-gzip", codings.get("*", False))),
        wait=_read_wait(fields("Prefer")),
    )


def _weigh(fields: Iterable[str]) -> dict[str, bool]:
    """Tell which of the named things are accepted, with a weight above 0."""
    weights = {}
    for field in fields:
        for candidate in field.split(","):
            accepted = _ACCEPTED.fullmatch(candidate)
            if accepted is not None:
                weights[accepted[1].lower()] = accepted[2] is None or accepted[2].strip("0.") != ""
    return weights


def _read_wait(fields: Iterable[str]) -> int | None:
    # Of a preference that is given twice, the first one counts (RFC 7240 section 2).
    value = next((value for name, value in _preferences(fields) if name == "wait"), "")
    # Any number of digits has a float.
    return int(min(float(value), MAX_WAIT)) or None if _SECONDS.fullmatch(value) else None


def _preferences(fields: Iterable[str]) -> Iterator[tuple[str, str]]:
    for field in fields:
        for element in _ELEMENT.findall(field):
            preference = _PREFERENCE.fullmatch(element)
            if preference is not None:
                yield preference[1].lower(), (preference[2] or "").strip('"')
