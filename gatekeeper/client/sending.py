"""Sender, AsyncSender: send the calls of a client, and repeat some."""

from collections.abc import Callable

import httpx
from tenacity import AsyncRetrying, Retrying

from gatekeeper.client.collection import Answer, Call, Collection
from gatekeeper.client.retries import MayRepeat

__all__ = ("AsyncSender", "Sender")


class Sender:
    """Sends calls, and blocks until they are answered.

    Args:
        http: the httpx client that sends the requests.
        attempts: makes the attempts of one call.
    """

    def __init__(self, http: httpx.Client, attempts: Callable[[MayRepeat], Retrying]) -> None:
        self._http = http
        self._attempts = attempts

    def send(self, to: Collection, call: Call[Answer]) -> Answer:
        """Send a call to a collection, and read the answer."""
        for attempt in self._attempts(call.may_repeat):
            with attempt:
                with to.transport_errors(self._http):
                    response = self._http.send(to.request(self._http, call), follow_redirects=False)
                answer = to.read(call, response, attempt=attempt.retry_state.attempt_number)
        return answer


class AsyncSender:
    """Sends calls, and awaits the answers.

    Args:
        http: the httpx client that sends the requests.
        attempts: makes the attempts of one call.

    Attributes:
        http: as given.
    """

    def __init__(self, http: httpx.AsyncClient, attempts: Callable[[MayRepeat], AsyncRetrying]) -> None:
        self.http = http
        self._attempts = attempts

    async def send(self, to: Collection, call: Call[Answer]) -> Answer:
        """Send a call to a collection, and read the answer."""
        async for attempt in self._attempts(call.may_repeat):
            with attempt:
                with to.transport_errors(self.http):
                    response = await self.http.send(to.request(self.http, call), follow_redirects=False)
                answer = to.read(call, response, attempt=attempt.retry_state.attempt_number)
        return answer
