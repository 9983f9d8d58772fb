"""Gates, AsyncGates: the hub's methods on the gates that run."""

import httpx

from gatekeeper.client.address import collection_url
from gatekeeper.client.collection import Call, Collection
from gatekeeper.client.retries import if_it_may_pass, never
from gatekeeper.client.sending import AsyncSender, Sender
from gatekeeper.keys.gate_report import GateReport, GateRow

__all__ = ("AsyncGates", "GateCalls", "Gates")

GateRows = list[GateRow]  # `list` is a method in the classes that use it


class GateCalls(Collection):
    """The methods on gates as calls.

    Args:
        base_url: the hub's address.
        token: a bearer token.
        account: the account, if the token does not carry one.
    """

    def __init__(self, base_url: str, token: str, account: str | None) -> None:
        super().__init__(collection_url(base_url, "gates"), token, account)

    def list(self) -> Call[GateRows]:
        """List the gates of the account."""
        return Call("GET", "", self._read_rows, if_it_may_pass)

    def report(self, gate: GateReport) -> Call[None]:
        """Report a gate. It is never retried, as the next report says more."""
        return Call("POST", "", self.read_nothing, never, gate)

    def _read_rows(self, response: httpx.Response) -> GateRows:
        return self.decode(response, GateRows, "a list of gates")


class Gates:
    """The hub's methods on gates. Each raises a HubError on failure."""

    def __init__(self, calls: GateCalls, sender: Sender) -> None:
        self._calls = calls
        self._sender = sender

    def list(self) -> GateRows:
        """List the gates that have reported lately, the latest first.

        Returns:
            The gates. The reference hub gives those of the last 24 hours, 1,000 at most.

        Raises:
            HubError: the subclass for what went wrong; its `status` is 404 or 405 if the hub lists no gates.
        """
        return self._sender.send(self._calls, self._calls.list())

    def report(self, gate: GateReport) -> None:
        """Report that a gate runs, in place of its last report. A failed report is never retried.

        Args:
            gate: what the gate says of itself.

        Raises:
            HubError: the subclass for what went wrong; its `status` is 404 or 405 if the hub takes no such reports.
        """
        self._sender.send(self._calls, self._calls.report(gate))


class AsyncGates:
    """Gates with methods to await.

    Arguments, results and errors are documented in `Gates`.
    """

    def __init__(self, calls: GateCalls, sender: AsyncSender) -> None:
        self._calls = calls
        self._sender = sender

    async def list(self) -> GateRows:
        """List the gates that have reported lately. See `Gates.list`."""
        return await self._sender.send(self._calls, self._calls.list())

    async def report(self, gate: GateReport) -> None:
        """Report that a gate runs. See `Gates.report`."""
        await self._sender.send(self._calls, self._calls.report(gate))
