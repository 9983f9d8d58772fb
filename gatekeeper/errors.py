"""Every error that gatekeeper raises, in one tree.

GatekeeperError                  the root: catch this to catch them all
├── ConfigError                  options are wrong; lists every mistake found at construction
├── DecisionMissing              a request that the middleware has not decided was asked for its decision
├── InvalidOrigin                a header is not the serialised origin of a web page
├── InvalidEntry                 an allowlist entry is not one of the forms that the grammar has
├── InvalidClientKey             a client key does not have the form <prefix><account>_<random>
├── InvalidRow                   one row of the hub's list is not a widget key
├── DatabaseDown                 the database of a reference hub does not answer
├── SnapshotError                the list on disk cannot be used, or not be written
└── SourceError                  the list of widget keys could not be had
    ├── InvalidList              it came, and is not a JSON array of rows
    └── HubError                 the hub did not do what it was asked for
        ├── HubTransportError        no answer came: refused, unreachable, timed out, TLS
        ├── HubProtocolError         an answer came that a hub does not give
        ├── HubAuthenticationError   401: the token is missing, unknown or revoked
        ├── HubPermissionError       403: the token may not do this
        ├── HubNotFoundError         404: no such key, or no such path
        ├── HubInvalidRequestError   400, 409, 413, 415, 422: the hub refuses what it was sent
        ├── HubRateLimitedError      429: too many requests; says when to come back
        └── HubServerError           5xx: the hub itself failed
"""

from collections.abc import Iterable
from typing import Literal

__all__ = (
    "ConfigError",
    "DatabaseDown",
    "DecisionMissing",
    "EntryReason",
    "GatekeeperError",
    "HubAuthenticationError",
    "HubError",
    "HubInvalidRequestError",
    "HubNotFoundError",
    "HubPermissionError",
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

RowReason = Literal["not_an_object", "id", "suffix", "allowlist", "agent", "digest", "too_long", "other"]


class GatekeeperError(Exception):
    """The root of the tree."""


class ConfigError(GatekeeperError, ValueError):
    """Options are wrong.

    Args:
        problems: one sentence for every mistake; all of them are reported together.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("gatekeeper: " + "; ".join(self.problems))


class DecisionMissing(GatekeeperError, LookupError):
    """A request that GatekeeperMiddleware has not decided was asked for its decision."""


class InvalidOrigin(GatekeeperError, ValueError):
    """A header is not the serialised origin of a web page.

    Args:
        reason: what is wrong with it, as a word that programs can compare.
        detail: the same as a sentence.
    """

    def __init__(self, reason: OriginReason, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class InvalidEntry(GatekeeperError, ValueError):
    """An allowlist entry is not one of the forms that the grammar has.

    Args:
        reason: what is wrong with it, as a word that programs can compare.
        hint: what is wrong and how to mend it, as a sentence.
    """

    def __init__(self, reason: EntryReason, hint: str) -> None:
        self.reason = reason
        self.hint = hint
        super().__init__(hint)


class InvalidClientKey(GatekeeperError, ValueError):
    """A client key does not have the form <prefix><account>_<random>. The message never holds the key."""


class InvalidRow(GatekeeperError, ValueError):
    """One row of the hub's list is not a widget key.

    Args:
        index: the row's place in the list, from 0.
        problem: what was seen and what was expected, as a sentence.
        row_id: the row's id, where it has one.
        fields: the names of the fields that the row has.
        disabled_at: what the row says about its being disabled, where that can be read.
        reason: what is wrong with it, as a word that programs can compare.
    """

    def __init__(
        self,
        index: int,
        problem: str,
        *,
        row_id: str | None = None,
        fields: tuple[str, ...] = (),
        disabled_at: object = None,
        reason: RowReason = "other",
    ) -> None:
        self.index = index
        self.problem = problem
        self.row_id = row_id
        self.fields = fields
        self.disabled_at = disabled_at
        self.reason = reason
        named = "" if row_id is None else f" (id {row_id!r})"
        super().__init__(f"row {index}{named}: {problem}")


class DatabaseDown(GatekeeperError):
    """The database of a reference hub does not answer. The hub's log says why; asking again later may help."""

    def __init__(self) -> None:
        super().__init__("gatekeeper: the hub's database does not answer; try again")


class SnapshotError(GatekeeperError):
    """The list on disk cannot be used, or not be written; the gate goes on without it."""


class SourceError(GatekeeperError):
    """The list of widget keys could not be had.

    Args:
        problem: what was seen, what was expected and what to do, as a sentence without secrets.
        retry_after: seconds after which the other side wants to be asked again, where it said so.
        lasting: True where only a person can mend it (credentials, path), so that asking often is no use.
    """

    lasting = False

    def __init__(self, problem: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(problem)


class InvalidList(SourceError):
    """The list came, and is not a JSON array of rows."""


class HubError(SourceError):
    """The hub did not do what it was asked for.

    Args:
        problem: what was seen, what was expected and what to do, as a sentence without secrets.
        status: the status code of the hub's answer, where one came.
        errors: the hub's own list of what is wrong with a request, where it sent one.
        retry_after: seconds after which the hub wants to be asked again, where it said so.
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


class HubTransportError(HubError):
    """No answer came: the connection was refused, timed out, or was not trusted."""


class HubProtocolError(HubError):
    """An answer came that a hub does not give: a redirect, HTML, a body of the wrong shape."""


class HubAuthenticationError(HubError):
    """401: the token is missing, unknown or revoked."""

    lasting = True


class HubPermissionError(HubError):
    """403: the token may not do this."""

    lasting = True


class HubNotFoundError(HubError):
    """404: no such key, or no such path."""

    lasting = True


class HubInvalidRequestError(HubError):
    """400, 409, 413, 415, 422: the hub refuses what it was sent."""


class HubRateLimitedError(HubError):
    """429: too many requests."""


class HubServerError(HubError):
    """5xx: the hub itself failed."""
