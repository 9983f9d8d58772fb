"""Refusals: turns every failure of a client's call into a HubError."""

import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from gatekeeper.client.address import ALL_ACCOUNTS_PREFIX, TOKEN_PREFIX, covers_all_accounts
from gatekeeper.errors import (
    ClientClosed,
    HubAuthenticationError,
    HubError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
    HubPreconditionFailedError,
    HubProtocolError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    InvalidList,
)
from gatekeeper.quoting import quoted

__all__ = ("Refusals",)

_MISSING_ACCOUNT = "X-Account-ID"  # the documented 400 names the header
_MAX_BODY = 1024 * 1024  # bytes of a refusal to read: room for 1,000 entries, each with a reason and a hint
_MAX_ERRORS = 1000
_MAX_VALUE = 2000  # characters of a member of an error; an allowlist entry has up to 1,024
_OF_HTTPX = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict)

_KINDS: dict[int, tuple[type[HubError], str]] = {
    400: (HubInvalidRequestError, ""),  # see _MISSING_ACCOUNT
    401: (HubAuthenticationError, ": the token is unknown or revoked; mint a new one at the hub"),
    403: (HubPermissionError, ": the token may not do this, or belongs to another account"),
    404: (
        HubNotFoundError,
        ": no such key, or no such path; hubs serve /api/v1/widget-keys, or /v1/widget-keys for a base URL with /v1",
    ),
    409: (HubInvalidRequestError, ""),
    412: (HubPreconditionFailedError, ": the row has changed since it was read; read it again before you change it"),
    413: (HubInvalidRequestError, ""),
    415: (HubInvalidRequestError, ""),
    422: (HubInvalidRequestError, ""),
    429: (HubRateLimitedError, ": too many requests"),
}


class Refusals:
    """Makes the errors of one client. None of them holds its token.

    Args:
        url: the URL of the hub's widget keys.
        token: the secret to mask wherever the other side repeats it.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    @contextmanager
    def transport_errors(self, http: httpx.Client | httpx.AsyncClient) -> Iterator[None]:
        """Turn every error of httpx into a HubTransportError.

        An answer that cannot be decoded is a HubProtocolError. Any failure of a closed client is ClientClosed: httpx raises
        a RuntimeError for a new request, and various errors for one under way.

        Args:
            http: the httpx client in use.
        """
        try:
            yield
        except HubError:
            raise
        except Exception as error:
            if http.is_closed:
                problem = f"the client of the hub at {self._url} is closed: keep it open until the last call has ended"
                raise ClientClosed(problem) from error
            if not isinstance(error, _OF_HTTPX):
                raise
            said = f": {self.quoted(_cause(error))}" if _cause(error) else ""
            problem = f"no usable answer from the hub at {self._url} ({type(error).__name__}{said})"
            kind = HubProtocolError if isinstance(error, httpx.DecodingError) else HubTransportError
            raise kind(problem) from error

    def refusal(self, response: httpx.Response) -> HubError:
        """The error for an answer's status, with the hub's own message."""
        status = response.status_code
        said, errors = self._said(response)
        where = f"the hub at {self._url} answered {status}"
        retry_after = _retry_after(response)
        if response.has_redirect_location:
            location = self.quoted(response.headers["location"])
            problem = f"{where}, a redirect to {location}, which is not followed: use that address if it is right"
            return HubProtocolError(problem, status=status)
        kind, advice = _KINDS.get(status, (HubServerError, "") if response.is_server_error else (HubProtocolError, ""))
        if _MISSING_ACCOUNT in said:
            advice = (
                ": the hub knows no token for all accounts (sk_all_…); use a source for each account"
                if covers_all_accounts(self._token)
                else ": the token carries no account that the hub knows; pass account="
            )
        return kind(where + advice + said, status=status, errors=errors, retry_after=retry_after)

    def unexpected(self, response: httpx.Response, expected: str, found: object) -> HubProtocolError:
        """The error for a success with an unexpected body.

        Args:
            response: the answer.
            expected: what its body should be.
            found: what it is, or the error from reading it.
        """
        problem = f"the hub at {self._url} answered {response.status_code} with something other than {expected}: {found}"
        return HubProtocolError(self._masked(problem), status=response.status_code)

    def not_a_list(self, response: httpx.Response, error: InvalidList) -> HubProtocolError:
        """The error for a success without a usable list."""
        problem = f"the hub at {self._url} answered {response.status_code} with no usable list: {error}"
        return HubProtocolError(self._masked(problem), status=response.status_code)

    def quoted(self, text: str) -> str:
        """Quote what the hub says, without the token. See `quoting.quoted`."""
        return quoted(self._masked(text))

    def _masked(self, text: str) -> str:
        """Mask the token. A hub, or a proxy before it, may repeat what it was sent."""
        prefix = ALL_ACCOUNTS_PREFIX if covers_all_accounts(self._token) else TOKEN_PREFIX
        return re.sub(_spellings(self._token), f"{prefix}…", text, flags=re.IGNORECASE)

    def _said(self, response: httpx.Response) -> tuple[str, tuple[dict[str, str], ...]]:
        """The message and errors of a refusal, from JSON or plain text."""
        text = response.content[:_MAX_BODY].decode("utf-8", "replace")
        body: object = text
        with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            body = msgspec.json.decode(text)
        errors: tuple[dict[str, str], ...] = ()
        if isinstance(body, dict):
            errors = self._errors(body.get("errors"))
            body = body.get("detail") or body.get("error") or body.get("message")
        if not isinstance(body, str) or not body.strip():
            return "", errors
        return f"; it says {self.quoted(' '.join(body.split()))}", errors

    def _errors(self, listed: object) -> tuple[dict[str, str], ...]:
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        return tuple(
            {self._member(name): self._member(value) for name, value in entry.items()} for entry in entries[:_MAX_ERRORS]
        )

    def _member(self, value: object) -> str:
        return self._masked(str(value))[:_MAX_VALUE]


def _spellings(token: str) -> str:
    """A pattern for a token as it is, or escaped for JSON, a script, a URL or HTML."""
    codes = ((re.escape(character), ord(character)) for character in token)
    return "".join(
        rf"(?:\\{{0,4}}{plain}|\\{{1,4}}(?:u00|x){code:02x}|%(?:25){{0,2}}{code:02x}|&#(?:{code}|x{code:x});)"
        for plain, code in codes
    )


def _cause(error: BaseException) -> str:
    """The innermost OS error in a chain of causes, e.g. why connecting failed."""
    said = str(error)
    seen: BaseException | None = error
    while seen is not None:
        if (
            isinstance(seen, OSError)
            and seen.errno
            and seen.errno > 0
            and not isinstance(seen, socket.gaierror | ssl.SSLError)
        ):
            said = f"{error}: {os.strerror(seen.errno)}"
        seen = seen.__cause__ or seen.__context__
    return said


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from now, or None. RFC 9110 section 10.2.3 allows a number or a date."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
