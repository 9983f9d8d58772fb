"""Every exception that gatekeeper raises, in one tree.

GatekeeperError                  the base class: catch it to catch all of them
├── ConfigError                  the options are wrong; the message lists every mistake
├── DecisionMissing              the request has no decision: the gate did not see it
├── InvalidOrigin                a header is not the serialised origin of a page
├── InvalidEntry                 an allowlist entry breaks the grammar
├── InvalidClientKey             a client key is not of the form <prefix><account>_<random>
├── InvalidRow                   a row of the hub's list is not a widget key
├── DatabaseDown                 the database of a reference hub does not answer as it should
├── HubOverloaded                a reference hub has more requests than it can answer in time
├── SnapshotError                the snapshot on disk cannot be read or written
└── SourceError                  the list of widget keys could not be loaded
    ├── InvalidList              the list is not a JSON array of rows
    └── HubError                 a request to the hub failed
        ├── ClientClosed             the client was closed before the call, or during it
        ├── HubTransportError        no response: refused, unreachable, timed out, TLS
        ├── HubProtocolError         the response is not what a hub sends
        ├── HubAuthenticationError   401: the token is missing, unknown or revoked
        ├── HubPermissionError       403: the token lacks the permission
        ├── HubNotFoundError         404: no such key, or no such path
        ├── HubPreconditionFailedError   412: the row has changed since it was read
        ├── HubInvalidRequestError   400, 409, 413, 415, 422: the hub refuses the request
        ├── HubRateLimitedError      429: too many requests; has the time to retry after
        └── HubServerError           5xx: the hub failed
"""

from collections.abc import Iterable
from typing import Literal

from gatekeeper.quoting import quoted

__all__ = (
    "ClientClosed",
    "ConfigError",
    "DatabaseDown",
    "DecisionMissing",
    "EntryReason",
    "GatekeeperError",
    "HubAuthenticationError",
    "HubError",
    "HubInvalidRequestError",
    "HubNotFoundError",
    "HubOverloaded",
    "HubPermissionError",
    "HubPreconditionFailedError",
    "HubProtocolError",
    "HubRateLimitedError",
    "HubServerError",
    "HubTransportError",
    "InvalidClientKey",
    "InvalidEntry",
    "InvalidList",
    "InvalidOrigin",
    "InvalidRow",
    "OriginReason",
    "RowReason",
    "SnapshotError",
    "SourceError",
)

OriginReason = Literal["null", "too_long", "scheme", "characters", "userinfo", "host", "port"]

EntryReason = Literal[
    "not_text",
    "empty",
    "null",
    "any_origin",
    "scheme",
    "http_refused",
    "path",
    "query",
    "fragment",
    "userinfo",
    "backslash",
    "comma",
    "space",
    "wildcard",
    "wildcard_ip",
    "wildcard_public_suffix",
    "wildcard_single_label",
    "host",
    "idna",
    "ipv4",
    "ipv6",
    "trailing_dot",
    "port",
    "too_long",
    "too_many",
]

RowReason = Literal["not_an_object", "id", "suffix", "allowlist", "agent", "digest", "account", "too_long", "other"]


class GatekeeperError(Exception):
    """The base class of all exceptions of gatekeeper."""


class ConfigError(GatekeeperError, ValueError):
    """The options are wrong.

    Args:
        problems: a sentence for each mistake. All mistakes are reported together.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("gatekeeper: " + "; ".join(self.problems))


class DecisionMissing(GatekeeperError, LookupError):
    """The request has no decision, because the gate did not see it."""


class InvalidOrigin(GatekeeperError, ValueError):
    """A header is not the serialised origin of a page.

    Args:
        reason: the problem, as a word for programs.
        detail: the problem, as a sentence.
    """

    def __init__(self, reason: OriginReason, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class InvalidEntry(GatekeeperError, ValueError):
    """An allowlist entry breaks the grammar.

    Args:
        reason: the problem, as a word for programs.
        hint: the problem and its fix, as a sentence.
    """

    def __init__(self, reason: EntryReason, hint: str) -> None:
        self.reason = reason
        self.hint = hint
        super().__init__(hint)


class InvalidClientKey(GatekeeperError, ValueError):
    """A client key is not of the form <prefix><account>_<random>.

    The message never shows the key.
    """


class InvalidRow(GatekeeperError, ValueError):
    """A row of the hub's list is not a widget key.

    Args:
        index: the row's index in the list, from 0.
        problem: what was seen and what was expected, as a sentence.
        row_id: the row's id, if it is known.
        last8: the last 8 characters of the row's client key, if they are known.
        fields: the names of the row's fields.
        disabled_at: the row's `disabled_at`, if it is known.
        reason: the problem, as a word for programs.
    """

    def __init__(
        self,
        index: int,
        problem: str,
        *,
        row_id: str | None = None,
        last8: str | None = None,
        fields: tuple[str, ...] = (),
        disabled_at: object = None,
        reason: RowReason = "other",
    ) -> None:
        self.index = index
        self.problem = problem
        self.row_id = row_id
        self.last8 = last8
        self.fields = fields
        self.disabled_at = disabled_at
        self.reason = reason
        named = "" if row_id is None else f" (id {quoted(row_id)})"
        super().__init__(f"row {index}{named}: {problem}")


class DatabaseDown(GatekeeperError):
    """The database of a reference hub does not answer as it should.

    A server that is down or silent, a full disk and a read-only database are examples. A retry may succeed.

    Args:
        reason: what the database or its driver said.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"gatekeeper: the hub's database does not answer as it should: {reason}; try again")


class HubOverloaded(GatekeeperError):
    """A reference hub has more requests than it can answer in time. A retry may succeed.

    Args:
        reason: what a request has waited for, as a sentence.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"gatekeeper: the hub is overloaded: {reason}; try again")


class SnapshotError(GatekeeperError):
    """The snapshot on disk cannot be read or written. The gate works without it."""


class SourceError(GatekeeperError):
    """The list of widget keys could not be loaded.

    Args:
        problem: what was seen, what was expected and what to do, as a sentence without secrets.
        retry_after: the seconds to wait before a retry, if the source gave them.

    Attributes:
        lasting: True if the cause needs a person (credentials, path), so that frequent retries are useless.
    """

    lasting = False

    def __init__(self, problem: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(problem)


class InvalidList(SourceError):
    """The list is not a JSON array of rows."""


class HubError(SourceError):
    """A request to the hub failed.

    Args:
        problem: what was seen, what was expected and what to do, as a sentence without secrets.
        status: the status code of the hub's response, if there was one.
        errors: the hub's list of errors in the request, if it sent one: its own words, to be escaped before they are shown.
        retry_after: the seconds to wait before a retry, if the hub gave them.
    """

    def __init__(
        self,
        problem: str,
        *,
        status: int | None = None,
        errors: tuple[dict[str, str], ...] = (),
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.errors = errors
        super().__init__(problem, retry_after=retry_after)


class ClientClosed(HubError):
    """The client was closed before the call, or during it."""


class HubTransportError(HubError):
    """There was no response: refused, timed out, or not trusted."""


class HubProtocolError(HubError):
    """The response is not what a hub sends.

    It is a redirect, HTML, or a body of the wrong shape.
    """


class HubAuthenticationError(HubError):
    """401: the token is missing, unknown or revoked."""

    lasting = True


class HubPermissionError(HubError):
    """403: the token lacks the permission."""

    lasting = True


class HubNotFoundError(HubError):
    """404: no such key, or no such path."""

    lasting = True


class HubPreconditionFailedError(HubError):
    """412: the row has changed since it was read."""


class HubInvalidRequestError(HubError):
    """400, 409, 413, 415, 422: the hub refuses the request."""


class HubRateLimitedError(HubError):
    """429: too many requests."""


class HubServerError(HubError):
    """5xx: the hub failed."""
