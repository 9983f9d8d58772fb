"""gatekeeper: may this page use this client key? An ASGI middleware, and what keeps it fresh."""

from gatekeeper.allowlist import Allowlist, EntrySuggestion, EntryWarning, RejectedEntry
from gatekeeper.client import AsyncHubClient, CreatedWidgetKey, HubClient
from gatekeeper.cors import CorsPolicy
from gatekeeper.decisions import Decision, Reason
from gatekeeper.errors import (
    ConfigError,
    DecisionMissing,
    GatekeeperError,
    HubAuthenticationError,
    HubError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
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
from gatekeeper.freshness import RefreshReport, Status
from gatekeeper.gate import Gatekeeper
from gatekeeper.keys import WidgetKey
from gatekeeper.middleware import GatekeeperMiddleware, decision_from
from gatekeeper.origins import Origin
from gatekeeper.sources import FileSource, HubSource, Source, StaticSource

__all__ = (
    "Allowlist",
    "AsyncHubClient",
    "ConfigError",
    "CorsPolicy",
    "CreatedWidgetKey",
    "Decision",
    "DecisionMissing",
    "EntrySuggestion",
    "EntryWarning",
    "FileSource",
    "Gatekeeper",
    "GatekeeperError",
    "GatekeeperMiddleware",
    "HubAuthenticationError",
    "HubClient",
    "HubError",
    "HubInvalidRequestError",
    "HubNotFoundError",
    "HubPermissionError",
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
    "Origin",
    "Reason",
    "RefreshReport",
    "RejectedEntry",
    "SnapshotError",
    "Source",
    "SourceError",
    "StaticSource",
    "Status",
    "WidgetKey",
    "decision_from",
)
