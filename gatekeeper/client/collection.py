"""Call, Collection: what a client sends, and how answers are read."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
import msgspec

from gatekeeper.client.refusals import Refusals
from gatekeeper.client.retries import MayRepeat
from gatekeeper.errors import ConfigError

__all__ = ("Answer", "Call", "Collection")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One call, independent of the client that sends it.

    Attributes:
        method: the HTTP method.
        path: the path below the collection.
        read: the function that reads a successful answer.
        may_repeat: the test of whether an error is worth a retry.
        body: the content to send as JSON.
        headers: headers in addition to those of every call.
        done_when_repeated: the error status which tells a retry that an earlier attempt succeeded.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    may_repeat: MayRepeat
    body: Mapping[str, object] | Sequence[object] | msgspec.Struct | None = None
    headers: Mapping[str, str] | None = None
    done_when_repeated: int | None = None


class Collection:
    """Things of one kind at a hub, such as widget keys.

    Args:
        url: of the collection.
        token: a bearer token.
        account: the account, if the token does not carry one.

    Attributes:
        url: as given.
        refusals: makes the errors of its calls.
    """

    def __init__(self, url: str, token: str, account: str | None) -> None:
        self.url = url
        self.refusals = Refusals(url, token)
        self._parsed_url = httpx.URL(url)
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        if account is not None:
            self._headers["x-account-id"] = account

    def request(self, http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
        """Build the request of a call."""
        headers, content = {**self._headers, **(call.headers or {})}, None
        if call.body is not None:
            content = _encode(call.body)
            headers["content-type"] = "application/json"
        # An ETag may hold obs-text (RFC 9110 section 8.8.3), which Latin-1 sends back byte for byte.
        raw_headers = httpx.Headers(headers, encoding="latin-1")
        # Parsing a URL takes a third of the time to build a request.
        url = self.url + call.path if call.path else self._parsed_url
        return http.build_request(call.method, url, content=content, headers=raw_headers)

    def transport_errors(self, http: httpx.Client | httpx.AsyncClient) -> AbstractContextManager[None]:
        """See `Refusals.transport_errors`."""
        return self.refusals.transport_errors(http)

    def read(self, call: Call[Answer], response: httpx.Response, *, attempt: int = 1) -> Answer:
        """Read an answer, or raise its HubError. Attempts are numbered from 1."""
        if response.is_success or (attempt > 1 and response.status_code == call.done_when_repeated):
            return call.read(response)
        raise self.refusals.refusal(response)

    def decode(self, response: httpx.Response, kind: type[Answer], expected: str) -> Answer:
        """Decode the JSON of an answer, or raise a HubProtocolError."""
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.refusals.unexpected(response, expected, error) from error

    def read_nothing(self, response: httpx.Response) -> None:
        """Accept an empty answer, or any JSON."""
        if not response.content:
            return
        try:
            msgspec.json.decode(response.content)  # hubs may confirm a report with some; a login page is HTML
        except msgspec.DecodeError as error:
            said = self.refusals.quoted(response.content.decode("utf-8", "replace"))
            raise self.refusals.unexpected(response, "an empty answer or JSON", said) from error


def _encode(body: Mapping[str, object] | Sequence[object] | msgspec.Struct) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise ConfigError([f"an argument holds a lone surrogate ({error}): expected valid Unicode text"]) from None
