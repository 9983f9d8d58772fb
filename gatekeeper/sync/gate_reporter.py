"""GateReporter: tells the hub that this gate runs."""

import logging
import re
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import anyio

from gatekeeper.errors import HubError, SourceError
from gatekeeper.keys.gate_report import GateReport
from gatekeeper.sync.account_log import Logger
from gatekeeper.sync.reports import NO_SUCH_ENDPOINT
from gatekeeper.sync.status import Status
from gatekeeper.version import __version__

__all__ = ("FIRST", "INTERVAL", "GateReporter", "ReportsGate")

INTERVAL = 60.0  # seconds between two reports, ± 20 %
FIRST = (10.0, 60.0)  # seconds to the first one, at least and at most: what runs for a moment is no gate to watch

_HOST = re.compile(r"[!-~]{1,255}")

logger = logging.getLogger("gatekeeper")


@runtime_checkable
class ReportsGate(Protocol):
    """A source that takes reports on the gate itself."""

    async def report_gate(self, gate: GateReport) -> None:
        """Report that the gate runs.

        Args:
            gate: what it says of itself, in place of its last report.

        Raises:
            SourceError: if that fails; the next report comes at its time. A HubError with the status 404 or 405 ends the
                reports of this process.
        """
        ...


class GateReporter:
    """Reports the gate of this process, whether or not it has traffic.

    Args:
        source: takes the reports.
        look: gives the status of the list.
        timeout: seconds that a report may take.
        counters: counts of reports.
        host: gives the name of the machine.
        log_to: where it is logged.
    """

    def __init__(
        self,
        source: ReportsGate,
        look: Callable[[], Status],
        *,
        timeout: float,
        counters: Counter[str],
        host: Callable[[], str] = socket.gethostname,
        log_to: Logger = logger,
    ) -> None:
        self._source = source
        self._look = look
        self._timeout = timeout
        self._counters = counters
        self._host = host
        self._log = log_to
        self._is_over = False
        self.forget()

    async def report(self) -> None:
        """Report the gate, unless the hub takes no such reports."""
        if self._is_over:
            return
        try:
            with anyio.fail_after(self._timeout, reason=f"it has taken {self._timeout:g} s"):
                await self._source.report_gate(self._describe())
            self._counters["gate_reported"] += 1
        except Exception as error:  # noqa: BLE001 - a source of the user's own raises anything; it is logged
            if isinstance(error, HubError) and error.status in NO_SUCH_ENDPOINT:
                self._is_over = True
                self._log.info("gatekeeper: the hub takes no reports on gates; this one sends no more")
                return
            self._counters["gate_failed"] += 1
            bug = None if isinstance(error, SourceError | TimeoutError) else error
            self._log.debug("gatekeeper: a report on this gate has failed: %s", error, exc_info=bug)

    async def flush(self) -> None:
        """Send no last report: the hub notices that there are no more."""

    def forget(self) -> None:
        """Become another gate, in a forked child."""
        self._id = secrets.token_hex(8)

    def _describe(self) -> GateReport:
        status, host = self._look(), self._host()
        return GateReport(
            id=self._id,
            version=__version__,
            is_live=status.is_live,
            state=status.state,
            list_age=None if status.age is None else round(status.age, 3),
            keys=status.keys,
            host=host if _HOST.fullmatch(host) else None,
        )
