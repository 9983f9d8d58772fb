"""HubClient: the hub's methods, for programs without an event loop."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Self

import httpx
from msgspec import UNSET, UnsetType
from tenacity import Retrying

from gatekeeper.client.calls import Answer, Call, Calls, KeyEvents
from gatekeeper.client.records import CreatedWidgetKey, KeyUsage, WidgetKeyList
from gatekeeper.client.retries import MayRepeat, Retries
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("HubClient", "WidgetKeys")


class HubClient:
    """The hub's methods, for programs without an event loop.

    Args:
        base_url: where the hub is, such as "https://hub.example"; "/api" or "/api/v1" may be part of it.
        token: a bearer token, `sk_live_<account>_…`.
        account: the account, where the token does not carry one; sent as X-Account-ID.
        timeout: seconds that connecting, and every wait for bytes, may take.
        suffix_field: the field of a row that holds the last 8 characters of its key.
        http: your own httpx client, with proxies, certificates, a transport; it stays open when this one is closed.
        max_attempts: how often a call is sent at most, where repeating it is harmless; 1 repeats nothing.
        retry_within: seconds from the first attempt in which another one may begin, waits that the hub asks for included.
        sleep: waits for seconds, between two attempts.

    Attributes:
        widget_keys: list, create, update, delete, events, report_usage.

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
        self._owns_http = http is None
        self._http = httpx.Client(timeout=timeout, trust_env=False) if http is None else http
        self.widget_keys = WidgetKeys(calls, self._http, partial(retries.blocking, sleep=sleep))

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
    """The hub's methods on widget keys. Each raises a HubError that says what happened."""

    def __init__(self, calls: Calls, http: httpx.Client, attempts: Callable[[MayRepeat], Retrying]) -> None:
        self._calls = calls
        self._http = http
        self._attempts = attempts

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
            ConfigError: `domain_allowlist` is one text and no list of them; nothing was sent.
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
            ConfigError: the id, or the entries, cannot be meant; nothing was sent.
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
            ConfigError: the id, or the entries, cannot be meant; nothing was sent.
            HubError: of the kind that fits; HubNotFoundError where the account has no such key.
        """
        return self._send(self._calls.delete(key_id))

    def events(self, key_id: str) -> KeyEvents:
        """Everything that was done to a key, oldest first, also after it is gone.

        Args:
            key_id: the row's id.

        Returns:
            The events.

        Raises:
            ConfigError: the id cannot be meant; nothing was sent.
            HubError: of the kind that fits; HubNotFoundError where the account never had such a key, or the hub keeps no
                events.
        """
        return self._send(self._calls.events(key_id))

    def report_usage(self, usage: Mapping[str, KeyUsage]) -> None:
        """Tell the hub which keys were used; what comes back with an error is never sent again by itself.

        Args:
            usage: what is new since the last report, by the row's id; some thousands of rows at once, since a hub may
                refuse more than 1 MB.

        Raises:
            HubError: of the kind that fits; its `status` is 404 or 405 where the hub has no place for reports.
        """
        self._send(self._calls.report_usage(usage))

    def _send(self, call: Call[Answer]) -> Answer:
        for attempt in self._attempts(call.may_repeat):
            with attempt:
                with self._calls.transport_errors():
                    response = self._http.send(self._calls.request(self._http, call), follow_redirects=False)
                answer = self._calls.read(call, response, attempt=attempt.retry_state.attempt_number)
        return answer
