"""HubClient: the hub's methods as blocking calls."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import httpx
from msgspec import UNSET, UnsetType

from gatekeeper.client.address import account_of
from gatekeeper.client.calls import Calls, KeyEvents, RefusedPages
from gatekeeper.client.gates import GateCalls, Gates
from gatekeeper.client.records import CreatedWidgetKey, KeyUsage, VersionedWidgetKey, WidgetKeyList
from gatekeeper.client.retries import Retries
from gatekeeper.client.sending import Sender
from gatekeeper.keys.refused_page import RefusedPage

__all__ = ("HubClient", "WidgetKeys")


class HubClient:
    """The hub's methods as blocking calls.

    Args:
        base_url: the hub's address, such as "https://hub.example"; "/api" or "/api/v1" may be part of it.
        token: a bearer token, `sk_live_<account>_…`. `list`, `get` and the reports need the scope gate, the others admin. A
            token `sk_all_…` is for those three, with the keys of all accounts.
        account: the account, if the token does not carry one; sent as X-Account-ID.
        timeout: seconds for connecting, and for each wait for bytes.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        http: your own httpx client, with proxies, certificates or a transport; closing this client leaves it open.
        max_attempts: attempts at most, for calls that are safe to repeat; 1 disables retries.
        retry_within: seconds from the first attempt within which a retry may begin, including waits that the hub asks for.
        sleep: a function that waits for seconds between two attempts.

    Attributes:
        account: the account of the keys; None if the token is for all accounts.
        widget_keys: the methods: list, get, create, update, delete, events, refused, report_usage, report_refused.
        gates: the methods on gates that run: list, report.

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
        max_attempts: int = 3,
        retry_within: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        retries = Retries(max_attempts, retry_within)
        calls = Calls(base_url, token, account, suffix_field, other_problems=retries.problems)
        self.account = account or account_of(token)
        self._owns_http = http is None
        self._http = httpx.Client(timeout=timeout, trust_env=False) if http is None else http
        sender = Sender(self._http, partial(retries.blocking, sleep=sleep))
        self.widget_keys = WidgetKeys(calls, sender)
        self.gates = Gates(GateCalls(base_url, token, account), sender)

    def close(self) -> None:
        """Close the connections, unless `http` was passed in."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class WidgetKeys:
    """The hub's methods on widget keys. Each raises a HubError on failure."""

    def __init__(self, calls: Calls, sender: Sender) -> None:
        self._calls = calls
        self._sender = sender

    def list(self) -> WidgetKeyList:
        """List every key of the account, oldest first, without plaintexts.

        Returns:
            The rows; malformed rows are in `rejected`.

        Raises:
            HubError: the subclass for what went wrong; HubProtocolError if the answer is not an array of rows.
        """
        return self._sender.send(self._calls, self._calls.list())

    def get(self, key_id: str) -> VersionedWidgetKey:
        """Read a key.

        Args:
            key_id: the row's id.

        Returns:
            The row, with its ETag in `etag`.

        Raises:
            ConfigError: the id is invalid; nothing was sent.
            HubError: the subclass for what went wrong; HubNotFoundError if the account has no such key; its `status` is 404
                or 405 if the hub answers no single rows.
        """
        return self._sender.send(self._calls, self._calls.get(key_id))

    def create(self, name: str, *, domain_allowlist: Iterable[str] = (), agent_id: str | None = None) -> CreatedWidgetKey:
        """Create a key.

        Args:
            name: the name of the key, 1 to 200 characters.
            domain_allowlist: the entries; with none, no page may use the key yet.
            agent_id: the agent to pin the key to.

        Returns:
            The row, with the plaintext in `public_key`. The hub shows the plaintext only here.

        Raises:
            ConfigError: `domain_allowlist` is a string instead of a list of entries; nothing was sent.
            HubError: the subclass for what went wrong; HubInvalidRequestError lists the bad entries in `errors`.
        """
        return self._sender.send(self._calls, self._calls.create(name, domain_allowlist, agent_id))

    def update(
        self,
        key_id: str,
        *,
        name: str | UnsetType = UNSET,
        domain_allowlist: Iterable[str] | UnsetType = UNSET,
        agent_id: str | None | UnsetType = UNSET,
        disabled: bool | UnsetType = UNSET,
        if_match: str | None = None,
    ) -> VersionedWidgetKey:
        """Change the given fields of a key.

        Args:
            key_id: the row's id.
            name: a new name.
            domain_allowlist: the entries that replace the current ones.
            agent_id: the agent to pin the key to; None unpins it.
            disabled: True revokes the key, False enables it again.
            if_match: the `etag` of the row that the change is meant for; None for any row. A hub without ETags ignores it.

        Returns:
            The updated row.

        Raises:
            ConfigError: the id, the entries or the ETag are invalid; nothing was sent.
            HubError: the subclass for what went wrong; HubNotFoundError if the account has no such key;
                HubPreconditionFailedError if the row has another ETag by now, and was left as it is.
        """
        return self._sender.send(
            self._calls, self._calls.update(key_id, name, domain_allowlist, agent_id, disabled, if_match)
        )

    def delete(self, key_id: str, *, if_match: str | None = None) -> VersionedWidgetKey | None:
        """Delete a key that was never used, or revoke one that was.

        Args:
            key_id: the row's id.
            if_match: as for `update`.

        Returns:
            None if the key was deleted; its disabled row if the key was revoked instead.

        Raises:
            ConfigError: the id or the ETag is invalid; nothing was sent.
            HubError: the subclass for what went wrong; HubNotFoundError if the account has no such key;
                HubPreconditionFailedError if the row has another ETag by now, and was left as it is.
        """
        return self._sender.send(self._calls, self._calls.delete(key_id, if_match))

    def events(self, key_id: str) -> KeyEvents:
        """List the audit trail of a key, oldest first, even if deleted.

        Args:
            key_id: the row's id. The reference hub also takes the last 8 characters of the key.

        Returns:
            The events.

        Raises:
            ConfigError: the id is invalid; nothing was sent.
            HubError: the subclass for what went wrong; HubNotFoundError if the account never had such a key, or the hub
                keeps no events.
        """
        return self._sender.send(self._calls, self._calls.events(key_id))

    def refused(self, key_id: str | None = None) -> RefusedPages:
        """List the pages that gates have refused, the most frequent first.

        Args:
            key_id: the row's id; None for the pages of all keys.

        Returns:
            The pages. The reference hub gives those of the last 30 days, 1,000 at most.

        Raises:
            ConfigError: the id is invalid; nothing was sent.
            HubError: the subclass for what went wrong; HubNotFoundError if the account has no such key; its `status` is 404
                or 405 if the hub keeps no refused pages.
        """
        return self._sender.send(self._calls, self._calls.refused(key_id))

    def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Report which keys were used. A failed report is never retried.

        Args:
            usage: the use since the last report, by row id; a few thousand rows at most, as a hub may refuse more than
                1 MB.

        Raises:
            HubError: the subclass for what went wrong; its `status` is 404 or 405 if the hub takes no reports.
        """
        self._sender.send(self._calls, self._calls.report_usage(usage))

    def report_refused(self, pages: Sequence[RefusedPage]) -> None:
        """Report which pages were refused. A failed report is never retried.

        Args:
            pages: the pages that were refused since the last report, with the counts since then; 1,000 at most.

        Raises:
            HubError: the subclass for what went wrong; its `status` is 404 or 405 if the hub takes no such reports.
        """
        self._sender.send(self._calls, self._calls.report_refused(pages))
