"""gatekeeper: ASGI middleware that guards an embeddable widget."""

from gatekeeper.client import AsyncHubClient, CreatedWidgetKey, HubClient, KeyUsage, Listing, VersionedWidgetKey
from gatekeeper.errors import (
    ClientClosed,
    ConfigError,
    DecisionMissing,
    GatekeeperError,
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
    InvalidClientKey,
    InvalidEntry,
    InvalidList,
    InvalidOrigin,
    InvalidRow,
    SnapshotError,
    SourceError,
)
from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.keys.gate_report import GateReport, GateRow
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.advice import EntrySuggestion, EntryWarning, RejectedEntry
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.matching.origins import Origin
from gatekeeper.sync.file_source import FileSource
from gatekeeper.sync.gate_reporter import ReportsGate
from gatekeeper.sync.hub_source import HubSource
from gatekeeper.sync.sources import (
    Basis,
    CoversAllAccounts,
    Delta,
    FullList,
    ReportsRefused,
    ReportsUsage,
    Source,
    Unchanged,
    Updates,
)
from gatekeeper.sync.static_source import StaticSource
from gatekeeper.sync.status import RefreshReport, Status
from gatekeeper.version import __version__
from gatekeeper.web.answers import Answer, answer
from gatekeeper.web.asgi import GatekeeperMiddleware
from gatekeeper.web.cors import CorsPolicy
from gatekeeper.web.guard import guard
from gatekeeper.web.key_check import check_key
from gatekeeper.web.state import decision_from

__all__ = (
    "Allowlist",
    "Answer",
    "AsyncHubClient",
    "Basis",
    "ClientClosed",
    "ConfigError",
    "CorsPolicy",
    "CoversAllAccounts",
    "CreatedWidgetKey",
    "Decision",
    "DecisionMissing",
    "Delta",
    "EntrySuggestion",
    "EntryWarning",
    "FileSource",
    "FullList",
    "GateReport",
    "GateRow",
    "Gatekeeper",
    "GatekeeperError",
    "GatekeeperMiddleware",
    "HubAuthenticationError",
    "HubClient",
    "HubError",
    "HubInvalidRequestError",
    "HubNotFoundError",
    "HubPermissionError",
    "HubPreconditionFailedError",
    "HubProtocolError",
    "HubRateLimitedError",
    "HubServerError",
    "HubSource",
    "HubTransportError",
    "InvalidClientKey",
    "InvalidEntry",
    "InvalidList",
    "InvalidOrigin",
    "InvalidRow",
    "KeyUsage",
    "Listing",
    "Origin",
    "Reason",
    "RefreshReport",
    "RefusedPage",
    "RejectedEntry",
    "ReportsGate",
    "ReportsRefused",
    "ReportsUsage",
    "SnapshotError",
    "Source",
    "SourceError",
    "StaticSource",
    "Status",
    "Unchanged",
    "Updates",
    "VersionedWidgetKey",
    "WidgetKey",
    "__version__",
    "answer",
    "check_key",
    "decision_from",
    "guard",
)
