"""Listing: the account's list as it came, for sources; the refresher reads it, and repeats what fails by itself."""

import httpx
import msgspec

from gatekeeper.client.calls import Call, Calls
from gatekeeper.client.retries import never
from gatekeeper.errors import HubProtocolError

__all__ = ("Listing", "fetch")


class Listing(msgspec.Struct, frozen=True):
    """The account's list as it came.

    Attributes:
        body: a JSON array of rows.
        validator: what to send along next time, to be told if nothing has changed since.
    """

    body: bytes
    validator: str | None = None


def fetch(calls: Calls, validator: str | None) -> Call[Listing | None]:
    """The call for the list, if it is another one than the validator names."""
    headers = {"cache-control": "no-cache"}
    if validator is not None:
        headers["if-none-match"] = validator

    def read(response: httpx.Response) -> Listing | None:
        if response.status_code == httpx.codes.NOT_MODIFIED:
            etag = response.headers.get("etag", validator)
            if validator is None or etag.removeprefix("W/") != validator.removeprefix("W/"):
                problem = f"the hub at {calls.url} answered 304 about another list ({etag}) than it was asked for"
                raise HubProtocolError(calls.refusals.masked(problem), status=response.status_code)
            return None
        return Listing(response.content, response.headers.get("etag"))

    return Call("GET", "", read, never, headers=headers)
