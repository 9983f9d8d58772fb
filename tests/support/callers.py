"""Both clients of the hub behind one interface, so that one test covers both."""

import asyncio
from operator import attrgetter
from typing import Any, Protocol

import httpx

from gatekeeper import AsyncHubClient, HubClient

from .rows import TOKEN


class Caller(Protocol):
    """A client; calling it calls one of its methods on widget keys, or another one such as "gates.list".

    Attributes:
        client: the client itself.
        http: its httpx client, if it was given one.
        naps: seconds that it would have waited between two attempts.
    """

    client: HubClient | AsyncHubClient
    http: httpx.Client | httpx.AsyncClient | None
    naps: list[float]

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method."""

    def close_client(self) -> None:
        """Close the client, as users do."""

    def close(self) -> None:
        """Close everything."""


class SyncCaller:
    """The client without an event loop."""

    client: HubClient | AsyncHubClient
    http: httpx.Client | httpx.AsyncClient | None

    def __init__(self, base_url: str, token: str = TOKEN, *, own: dict[str, Any] | None = None, **options: Any) -> None:
        """Make a client, with its own httpx client or one with the options `own`."""
        self._http = None if own is None else httpx.Client(**own)
        self.naps: list[float] = []
        self._client = HubClient(base_url, token, http=self._http, sleep=self.naps.append, **options)
        self.client, self.http = self._client, self._http

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method."""
        return method_of(self._client, method)(*args, **options)

    def close_client(self) -> None:
        """Close the client, as users do."""
        with self._client as entered:
            assert entered is self._client

    def close(self) -> None:
        """Close everything."""
        self._client.close()
        if self._http is not None:
            self._http.close()


class AsyncCaller:
    """The client with an event loop of its own."""

    client: HubClient | AsyncHubClient
    http: httpx.Client | httpx.AsyncClient | None

    def __init__(self, base_url: str, token: str = TOKEN, *, own: dict[str, Any] | None = None, **options: Any) -> None:
        """Make a client, with its own httpx client or one with the options `own`."""
        self._http = None if own is None else httpx.AsyncClient(**own)
        self.naps: list[float] = []

        async def nap(seconds: float) -> None:
            self.naps.append(seconds)

        self._client = AsyncHubClient(base_url, token, http=self._http, sleep=nap, **options)
        self.client, self.http = self._client, self._http
        self._runner = asyncio.Runner()

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method."""
        return self._runner.run(method_of(self._client, method)(*args, **options))

    def close_client(self) -> None:
        """Close the client, as users do."""

        async def leave() -> None:
            async with self._client as entered:
                assert entered is self._client

        self._runner.run(leave())

    def close(self) -> None:
        """Close everything."""
        self._runner.run(self._client.aclose())
        if self._http is not None:
            self._runner.run(self._http.aclose())
        self._runner.close()


def method_of(client: HubClient | AsyncHubClient, named: str) -> Any:
    """Find a method on widget keys, or another one such as "gates.list"."""
    return attrgetter(named if "." in named else f"widget_keys.{named}")(client)
