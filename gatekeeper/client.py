"""HubClient, AsyncHubClient: the hub's four methods on widget keys. The only importer of httpx.

The two share everything but the sending: a call is a request and the function that reads its answer.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from msgspec import UNSET, UnsetType

from gatekeeper.errors import (
    ConfigError,
    HubAuthenticationError,
    HubError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
    HubProtocolError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    InvalidRow,
)
from gatekeeper.keys import RowReader, WidgetKey, mask
from gatekeeper.origins import MAX_PORT

__all__ = (
    "UNSET",
    "AsyncHubClient",
    "CreatedWidgetKey",
    "HubClient",
    "Listing",
    "WidgetKeyList",
    "account_of",
    "require_hub",
)

TOKEN_PREFIX = "sk_live_"  # noqa: S105 - the public beginning of every token of the hub
_SHOWN = 200

Answer = TypeVar("Answer")


class CreatedWidgetKey(WidgetKey, frozen=True, kw_only=True):
    """A widget key and its plaintext, which is told this once.

    Attributes:
        public_key: the whole client key, for the page's script tag. It does not show in the `repr`.
    """

    public_key: str

    def __repr__(self) -> str:
        return f"CreatedWidgetKey(id={self.id!r}, name={self.name!r}, public_key={mask(self.last8)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As `repr`, for tracebacks by rich: msgspec would show every field."""
        return [("id", self.id), ("name", self.name), ("public_key", mask(self.last8))]


class WidgetKeyList(list[WidgetKey]):
    """The rows of the account, oldest first.

    Attributes:
        rejected: what is wrong with those rows of the answer that are no widget keys.
    """

    rejected: tuple[InvalidRow, ...] = ()


class Listing(msgspec.Struct, frozen=True):
    """The account's list as it came.

    Attributes:
        body: a JSON array of rows.
        validator: what to send along next time, to be told if nothing has changed since.
    """

    body: bytes
    validator: str | None = None


@dataclass(frozen=True)
class _Call(Generic[Answer]):
    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] | None = None


class _Calls:
    """What both clients send, and how they read what comes back."""

    def __init__(self, base_url: str, token: str, account: str | None, suffix_field: str) -> None:
        require_hub(base_url, token, account)
        self._url = _widget_keys_url(base_url)
        self._token = token
        self._account = account
        self._suffix_field = suffix_field
        self._rows = RowReader(suffix_field)

    def list(self) -> _Call[WidgetKeyList]:
        return _Call("GET", "", self._read_list)

    def fetch(self, validator: str | None) -> _Call[Listing | None]:
        headers = {"cache-control": "no-cache"}
        if validator is not None:
            headers["if-none-match"] = validator
        return _Call("GET", "", lambda response: self._read_listing(response, validator), headers=headers)

    def create(self, name: str, domain_allowlist: Iterable[str], agent_id: str | None) -> _Call[CreatedWidgetKey]:
        body = {"name": name, "domain_allowlist": list(domain_allowlist), "agent_id": agent_id}
        return _Call("POST", "", self._read_created, body=body)

    def update(
        self,
        key_id: str,
        name: str | UnsetType,
        domain_allowlist: Iterable[str] | UnsetType,
        agent_id: str | None | UnsetType,
        disabled: bool | UnsetType,  # noqa: FBT001 - the public methods take it by keyword
    ) -> _Call[WidgetKey]:
        entries = domain_allowlist if isinstance(domain_allowlist, UnsetType) else list(domain_allowlist)
        changes = {"name": name, "domain_allowlist": entries, "agent_id": agent_id, "disabled": disabled}
        body = {field: value for field, value in changes.items() if value is not UNSET}
        return _Call("PATCH", f"/{quote(key_id, safe='')}", self._read_row, body=body)

    def delete(self, key_id: str) -> _Call[WidgetKey | None]:
        return _Call("DELETE", f"/{quote(key_id, safe='')}", self._read_deleted)

    def request(self, http: httpx.Client | httpx.AsyncClient, call: _Call[Any]) -> httpx.Request:
        headers = {"authorization": f"Bearer {self._token}", "accept": "application/json", **(call.headers or {})}
        if self._account is not None:
            headers["x-account-id"] = self._account
        content = None
        if call.body is not None:
            content = msgspec.json.encode(call.body)
            headers["content-type"] = "application/json"
        return http.build_request(call.method, self._url + call.path, content=content, headers=headers)

    def read(self, call: _Call[Answer], response: httpx.Response) -> Answer:
        if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
            return call.read(response)
        raise self._error(response)

    @contextmanager
    def transport_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict) as error:
            said = f": {error}" if str(error) else ""
            problem = f"no usable answer from the hub at {self._url} ({type(error).__name__}{said})"
            kind = HubProtocolError if isinstance(error, httpx.DecodingError) else HubTransportError
            raise kind(self._masked(problem)) from error

    def _error(self, response: httpx.Response) -> HubError:
        status = response.status_code
        said, errors = self._said(response)
        where = f"the hub at {self._url} answered {status}"
        retry_after = _retry_after(response)
        if response.has_redirect_location:
            location = self._masked(response.headers["location"])
            problem = f"{where}, a redirect to {location!r}, which is not followed: name that address if it is right"
            return HubProtocolError(problem, status=status)
        kind, advice = _KINDS.get(status, (HubServerError, "") if response.is_server_error else (HubProtocolError, ""))
        return kind(where + advice + said, status=status, errors=errors, retry_after=retry_after)

    def _read_list(self, response: httpx.Response) -> WidgetKeyList:
        rows, rejected = self._rows.read_all(response.content)
        listed = WidgetKeyList(rows)
        listed.rejected = tuple(rejected)
        return listed

    def _read_listing(self, response: httpx.Response, validator: str | None) -> Listing | None:
        if response.status_code == httpx.codes.NOT_MODIFIED:
            etag = response.headers.get("etag", validator)
            if validator is None or etag.removeprefix("W/") != validator.removeprefix("W/"):
                problem = f"the hub at {self._url} answered 304 about another list ({etag}) than it was asked for"
                raise HubProtocolError(self._masked(problem), status=response.status_code)
            return None
        return Listing(response.content, response.headers.get("etag"))

    def _read_created(self, response: httpx.Response) -> CreatedWidgetKey:
        fields = self._fields(response)
        public_key = fields.get("public_key")
        if not isinstance(public_key, str):
            raise HubProtocolError(f"the hub at {self._url} created a key and did not tell its public_key")
        row = self._row(response, {self._suffix_field: public_key[-8:], **fields})
        return CreatedWidgetKey(**msgspec.structs.asdict(row), public_key=public_key)

    def _read_row(self, response: httpx.Response) -> WidgetKey:
        return self._row(response, self._fields(response))

    def _read_deleted(self, response: httpx.Response) -> WidgetKey | None:
        return None if response.status_code == httpx.codes.NO_CONTENT else self._read_row(response)

    def _fields(self, response: httpx.Response) -> dict[str, Any]:
        try:
            return msgspec.json.decode(response.content, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._not_a_row(response, error) from error

    def _row(self, response: httpx.Response, fields: dict[str, Any]) -> WidgetKey:
        try:
            return self._rows.convert(0, fields)
        except InvalidRow as error:
            raise self._not_a_row(response, error) from error

    def _not_a_row(self, response: httpx.Response, error: Exception) -> HubProtocolError:
        problem = f"the hub at {self._url} answered {response.status_code} with something other than a row: {error}"
        return HubProtocolError(self._masked(problem), status=response.status_code)

    def _said(self, response: httpx.Response) -> tuple[str, tuple[dict[str, str], ...]]:
        """What the hub says about a refusal: a JSON string, a problem's detail and errors, or a line of text."""
        text = self._masked(response.content.decode("utf-8", "replace"))
        body: object = text
        with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            body = msgspec.json.decode(text)
        errors: tuple[dict[str, str], ...] = ()
        if isinstance(body, dict):
            listed = body.get("errors")
            if isinstance(listed, list):
                errors = tuple(
                    {str(name): str(value) for name, value in error.items()} for error in listed if isinstance(error, dict)
                )
            body = body.get("detail") or body.get("error") or body.get("message")
        if not isinstance(body, str) or not body.strip():
            return "", errors
        return f"; it says {' '.join(body.split())[:_SHOWN]!r}", errors

    def _masked(self, text: str) -> str:
        """A hub, or something before it, may repeat what it was sent."""
        return text.replace(self._token, f"{TOKEN_PREFIX}…")


class HubClient:
    """The hub's methods, for programs without an event loop.

    Args:
        base_url: where the hub is, such as "https://hub.example"; "/api" or "/api/v1" may be part of it.
        token: a bearer token, `sk_live_<account>_…`.
        account: the account, where the token does not carry one; sent as X-Account-ID.
        timeout: seconds that connecting, and every wait for bytes, may take.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        http: your own httpx client, with proxies, certificates, a transport; it stays open when this one is closed.

    Attributes:
        widget_keys: list, create, update, delete.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        account: str | None = None,
        timeout: float = 10.0,
        suffix_field: str = "last8",
        http: httpx.Client | None = None,
    ) -> None:
        calls = _Calls(base_url, token, account, suffix_field)
        self._owns_http = http is None
        self._http = httpx.Client(timeout=timeout, trust_env=False) if http is None else http
        self.widget_keys = WidgetKeys(calls, self._http)

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class WidgetKeys:
    """The four methods of the hub on widget keys. Each raises a HubError that says what happened."""

    def __init__(self, calls: _Calls, http: httpx.Client) -> None:
        self._calls = calls
        self._http = http

    def list(self) -> WidgetKeyList:
        """Every key of the account, oldest first, without its plaintext.

        Returns:
            The rows, with those that cannot be read in `rejected`.

        Raises:
            HubError: of the kind that fits.
            InvalidList: if the answer is not an array of rows.
        """
        return self._send(self._calls.list())

    def create(self, name: str, *, domain_allowlist: Iterable[str] = (), agent_id: str | None = None) -> CreatedWidgetKey:
        """Mint a key.

        Args:
            name: what to call it, 1 to 200 characters.
            domain_allowlist: entries; without any, no page may use the key yet.
            agent_id: the agent to pin it to.

        Returns:
            The row, and the plaintext in `public_key`, which is told this once.

        Raises:
            HubError: of the kind that fits; HubInvalidRequestError has the hub's list of bad entries in `errors`.
        """
        return self._send(self._calls.create(name, domain_allowlist, agent_id))

    def update(
        self,
        key_id: str,
        *,
        name: str | UnsetType = UNSET,
        domain_allowlist: Iterable[str] | UnsetType = UNSET,
        agent_id: str | None | UnsetType = UNSET,
        disabled: bool | UnsetType = UNSET,
    ) -> WidgetKey:
        """Change what is given and leave the rest.

        Args:
            key_id: the row's id.
            name: a new name.
            domain_allowlist: the entries that replace the present ones.
            agent_id: the agent to pin the key to; None unpins it.
            disabled: True revokes the key, False enables it again.

        Returns:
            The row as it now is.

        Raises:
            HubError: of the kind that fits; HubNotFoundError where the account has no such key.
        """
        return self._send(self._calls.update(key_id, name, domain_allowlist, agent_id, disabled))

    def delete(self, key_id: str) -> WidgetKey | None:
        """Remove a key that was never used; revoke one that was.

        Args:
            key_id: the row's id.

        Returns:
            None if the key is gone; its row if it was used before and is now disabled.

        Raises:
            HubError: of the kind that fits; HubNotFoundError where the account has no such key.
        """
        return self._send(self._calls.delete(key_id))

    def _send(self, call: _Call[Answer]) -> Answer:
        with self._calls.transport_errors():
            response = self._http.send(self._calls.request(self._http, call), follow_redirects=False)
        return self._calls.read(call, response)


class AsyncHubClient:
    """The hub's methods, for programs with an event loop.

    Args:
        base_url: where the hub is, such as "https://hub.example"; "/api" or "/api/v1" may be part of it.
        token: a bearer token, `sk_live_<account>_…`.
        account: the account, where the token does not carry one; sent as X-Account-ID.
        timeout: seconds that connecting, and every wait for bytes, may take.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        http: your own httpx client, with proxies, certificates, a transport; it stays open when this one is closed.

    Attributes:
        widget_keys: list, create, update, delete.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        account: str | None = None,
        timeout: float = 10.0,
        suffix_field: str = "last8",
        http: httpx.AsyncClient | None = None,
    ) -> None:
        calls = _Calls(base_url, token, account, suffix_field)
        self._owns_http = http is None
        self._http = httpx.AsyncClient(timeout=timeout, trust_env=False) if http is None else http
        self.widget_keys = AsyncWidgetKeys(calls, self._http)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncWidgetKeys:
    """The four methods of the hub on widget keys. Each raises a HubError that says what happened."""

    def __init__(self, calls: _Calls, http: httpx.AsyncClient) -> None:
        self._calls = calls
        self._http = http

    async def list(self) -> WidgetKeyList:
        """Every key of the account, oldest first, without its plaintext.

        Returns:
            The rows, with those that cannot be read in `rejected`.

        Raises:
            HubError: of the kind that fits.
            InvalidList: if the answer is not an array of rows.
        """
        return await self._send(self._calls.list())

    async def fetch(self, validator: str | None = None) -> Listing | None:
        """The account's list as it came, if it has changed.

        Args:
            validator: the one of the listing that is known; None to get the list in any case.

        Returns:
            The listing; None if the hub says that nothing has changed since.

        Raises:
            HubError: of the kind that fits.
        """
        return await self._send(self._calls.fetch(validator))

    async def create(
        self, name: str, *, domain_allowlist: Iterable[str] = (), agent_id: str | None = None
    ) -> CreatedWidgetKey:
        """Mint a key.

        Args:
            name: what to call it, 1 to 200 characters.
            domain_allowlist: entries; without any, no page may use the key yet.
            agent_id: the agent to pin it to.

        Returns:
            The row, and the plaintext in `public_key`, which is told this once.

        Raises:
            HubError: of the kind that fits; HubInvalidRequestError has the hub's list of bad entries in `errors`.
        """
        return await self._send(self._calls.create(name, domain_allowlist, agent_id))

    async def update(
        self,
        key_id: str,
        *,
        name: str | UnsetType = UNSET,
        domain_allowlist: Iterable[str] | UnsetType = UNSET,
        agent_id: str | None | UnsetType = UNSET,
        disabled: bool | UnsetType = UNSET,
    ) -> WidgetKey:
        """Change what is given and leave the rest.

        Args:
            key_id: the row's id.
            name: a new name.
            domain_allowlist: the entries that replace the present ones.
            agent_id: the agent to pin the key to; None unpins it.
            disabled: True revokes the key, False enables it again.

        Returns:
            The row as it now is.

        Raises:
            HubError: of the kind that fits; HubNotFoundError where the account has no such key.
        """
        return await self._send(self._calls.update(key_id, name, domain_allowlist, agent_id, disabled))

    async def delete(self, key_id: str) -> WidgetKey | None:
        """Remove a key that was never used; revoke one that was.

        Args:
            key_id: the row's id.

        Returns:
            None if the key is gone; its row if it was used before and is now disabled.

        Raises:
            HubError: of the kind that fits; HubNotFoundError where the account has no such key.
        """
        return await self._send(self._calls.delete(key_id))

    async def _send(self, call: _Call[Answer]) -> Answer:
        with self._calls.transport_errors():
            response = await self._http.send(self._calls.request(self._http, call), follow_redirects=False)
        return self._calls.read(call, response)


_KINDS: dict[int, tuple[type[HubError], str]] = {
    400: (HubInvalidRequestError, ""),
    401: (HubAuthenticationError, ": it does not know the token, or no longer; mint a new one at the hub"),
    403: (HubPermissionError, ": the token may not do this, or is another account's"),
    404: (HubNotFoundError, ": there is no such key, or no such path; end the base URL with /v1 where the hub has no /api"),
    409: (HubInvalidRequestError, ""),
    413: (HubInvalidRequestError, ""),
    415: (HubInvalidRequestError, ""),
    422: (HubInvalidRequestError, ""),
    429: (HubRateLimitedError, ": too many requests"),
}


def account_of(token: str) -> str | None:
    """The account that a bearer token carries: what stands between sk_live_ and the last underscore; None without one."""
    account, _, random = token.removeprefix(TOKEN_PREFIX).rpartition("_")
    return account if token.startswith(TOKEN_PREFIX) and account and random else None


def require_hub(base_url: str, token: str, account: str | None) -> None:
    """Check what a client is made with, before it is made.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """
    problems = tuple(_problems(base_url, token, account))
    if problems:
        raise ConfigError(problems)


def _problems(base_url: str, token: str, account: str | None) -> Iterator[str]:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        yield f"base_url is not a URL ({error}): expected something like 'https://hub.example'"
    else:
        if url.scheme not in ("https", "http") or not url.host or (url.port or 0) > MAX_PORT:
            yield f"base_url is {base_url!r}: expected something like 'https://hub.example'"
        if url.userinfo or "?" in base_url or "#" in base_url:
            yield "base_url has a user name, a query or a fragment: expected scheme, host, port and path only"
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        yield "token is empty or holds characters that no header can carry: expected 'sk_live_<account>_…'"
    elif account is None and account_of(token) is None:
        yield "token carries no account (it is not of the form sk_live_<account>_…): name it by account="
    if account is not None and not (account.isascii() and account.isprintable() and account.strip() == account != ""):
        yield f"account is {account!r}: expected a name such as 'acme'"


def _widget_keys_url(base_url: str) -> str:
    url = httpx.URL(base_url)
    path = url.path.rstrip("/")
    if not path.endswith("/v1"):
        path += "/v1" if path.endswith("/api") else "/api/v1"
    return str(url.copy_with(path=f"{path}/widget-keys"))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from now (RFC 9110 section 10.2.3: a number of them, or a date); None for anything else."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
