"""Reason, Decision: may this page use this key, and why."""

from enum import Enum, StrEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from gatekeeper.keys.client_key import mask
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("CONFLICT", "Conflict", "Decision", "Reason")


class Conflict(Enum):
    """Stands where a request gave two different values for one thing."""

    CONFLICT = "conflict"


CONFLICT: Literal[Conflict.CONFLICT] = Conflict.CONFLICT


class Reason(StrEnum):
    """Why a request is allowed or refused, in the order of checks."""

    NOT_READY = "not_ready"
    EXPIRED = "expired"
    NOT_FRAMED = "not_framed"
    KEY_MISSING = "key_missing"
    KEY_MALFORMED = "key_malformed"
    KEY_CONFLICT = "key_conflict"
    GRANT_FOREIGN = "grant_foreign"
    GRANT_INVALID = "grant_invalid"
    GRANT_EXPIRED = "grant_expired"
    KEY_UNKNOWN = "key_unknown"
    KEY_AMBIGUOUS = "key_ambiguous"
    KEY_DISABLED = "key_disabled"
    ALLOWLIST_EMPTY = "allowlist_empty"
    ORIGIN_CONFLICT = "origin_conflict"
    ORIGIN_MALFORMED = "origin_malformed"
    ORIGIN_NULL = "origin_null"
    ORIGIN_MISSING = "origin_missing"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    ALLOWED = "allowed"

    @property
    def status(self) -> int:
        """The status code of the answer; 200 for `allowed`."""
        return _TEXTS[self].status


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The answer for one key and one page.

    Attributes:
        reason: why.
        key: the row that the client key resolved to, where it did.
        last8: the last 8 characters of the client key, where it is well formed.
        origin: the origin of the page as serialised, "null" included; None where there is none or it is malformed.
        matched: the entry of the allowlist, as written, that allows the page.
        add: the entry that would allow the page, where adding one is what helps.
        problem: what is wrong with the value that the reason names, where that can be said.
        retry_after: seconds after which to ask again, where that can help.
        via: what named the page: "origin", "referer" or "grant"; None if nothing did.
        grant: the grant for the frame's own requests: of a frame's document, and where the grant of a request is past half
            its life. The `repr` does not show it.
        account: the account whose list decided; where the list knows none, that of the key's row.
    """

    reason: Reason
    key: WidgetKey | None = None
    last8: str | None = None
    origin: str | None = None
    matched: str | None = None
    add: str | None = None
    problem: str | None = None
    retry_after: int | None = None
    via: Literal["origin", "referer", "grant"] | None = None
    grant: str | None = None
    account: str | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Decision({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Hide the grant, from rich tracebacks, too. msgspec would show every field."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        return list((shown | {"grant": self.grant and "…"}).items())

    @property
    def allowed(self) -> bool:
        """Whether the page may use the key."""
        return self.reason is Reason.ALLOWED

    @property
    def status(self) -> int:
        """The status code of the answer; 200 if the page is allowed."""
        return self.reason.status

    @property
    def title(self) -> str:
        """What happened, in a few words."""
        return _TEXTS[self.reason].title

    @property
    def agent_id(self) -> str | None:
        """The agent that the key is pinned to."""
        return None if self.key is None else self.key.agent_id

    @property
    def detail(self) -> str:
        """What was seen and what to do, in a sentence or two."""
        mend = f"add {'its domain' if self.add is None else repr(self.add)} to the key's allowed domains"
        if self.add is None and self.origin is not None and self.origin != "null":
            has_dot = self.origin.endswith(".") or ".:" in self.origin
            mend = "open it without the dot at the end of its host" if has_dot else "serve it from a domain over https"
        return _TEXTS[self.reason].detail.format(
            key="" if self.last8 is None else f" {mask(self.last8)}",
            origin="this page" if self.origin is None else self.origin,
            page="not known" if self.origin is None else self.origin,
            mend=mend,
            problem="" if self.problem is None else f": {self.problem}",
            retry_after="soon" if self.retry_after is None else f"in {self.retry_after} s",
        )

    @property
    def differs_in_own_frame(self) -> bool:
        """Whether the answer to the widget's own frame is another one."""
        return self.reason in _FROM_OWN_FRAME

    def problem_json(self, *, from_own_frame: bool = False) -> bytes:
        """The body of a refusal, as application/problem+json (RFC 9457).

        Args:
            from_own_frame: whether the origin is that of the service itself. Then the detail advises no entry: one with the
                service's own host would allow every page that embeds the widget's frame.
        """
        told = self.reason, self.last8, self.origin, self.add, self.problem, self.retry_after
        return _problem_json(*told, differs=from_own_frame and self.differs_in_own_frame)


# Refused pages ask again and again. The longest bodies have 1.1 KB; 256 of them take 0.5 MB with their keys (tracemalloc).
@lru_cache(maxsize=256)
def _problem_json(
    reason: Reason,
    last8: str | None,
    origin: str | None,
    add: str | None,
    problem: str | None,
    retry_after: int | None,
    *,
    differs: bool,
) -> bytes:
    decision = Decision(reason, None, last8, origin, add=add, problem=problem, retry_after=retry_after)
    return msgspec.json.encode(
        {
            "type": f"urn:gatekeeper:{reason}",
            "title": decision.title,
            "status": decision.status,
            "detail": _FROM_OWN_FRAME[reason].format(origin=origin) if differs else decision.detail,
            "reason": reason,
            "origin": origin,
            "key": None if last8 is None else mask(last8),
            "retry_after": retry_after,
        }
    )


class _Text(NamedTuple):
    """The status code of a reason, and its text."""

    status: int
    title: str
    detail: str


_TEXTS = {
    Reason.NOT_READY: _Text(
        503,
        "Not ready yet",
        "The list of widget keys has not been loaded yet. Try again {retry_after}.",
    ),
    Reason.EXPIRED: _Text(
        503,
        "The list of keys is too old",
        "The list of widget keys could not be renewed for too long, so no key is trusted any more. "
        "The operator of the widget has to look at its connection to the hub. Try again {retry_after}.",
    ),
    Reason.NOT_FRAMED: _Text(
        403,
        "Not in a frame",
        "This is the document of a widget's frame, and only a page that embeds it in an iframe can open it. "
        "Open the page on which the widget is.",
    ),
    Reason.KEY_MISSING: _Text(
        400,
        "No client key",
        'The request names no client key. Put data-client-key="…" on the script tag that loads the widget, '
        "with the key that was shown when it was created.",
    ),
    Reason.KEY_MALFORMED: _Text(
        400,
        "Not a client key",
        "The request sends a malformed client key{problem}. Copy the whole key from where it was shown when it was created.",
    ),
    Reason.KEY_CONFLICT: _Text(
        400,
        "Two different client keys",
        "The request names two different client keys. Send one, in the header or in the query.",
    ),
    Reason.GRANT_FOREIGN: _Text(
        403,
        "A grant of another site",
        "A grant counts only in requests of the widget's own frame, and the page of this one is {page}. "
        "Scripts on a customer's page send the client key. If the frame or the service has another public host name, "
        "its operator has to list it in own_origins.",
    ),
    Reason.GRANT_INVALID: _Text(
        403,
        "Not a grant",
        "The request sends a grant that this service has not signed, or that has been changed. Load the page with the "
        "widget again. If that does not help, all servers of the widget need the same secrets.",
    ),
    Reason.GRANT_EXPIRED: _Text(
        403,
        "The grant has ended",
        "The grant of the widget's frame does not count any more: its time is over, or the allowed domains of the widget "
        "key{key} have changed. Load the page with the widget again.",
    ),
    Reason.KEY_UNKNOWN: _Text(
        403,
        "Unknown client key",
        "There is no widget key{key}. It may have been deleted, belong to another account, or be mistyped: "
        "compare its last 8 characters with the list of keys.",
    ),
    Reason.KEY_AMBIGUOUS: _Text(
        403,
        "Ambiguous client key",
        "Several widget keys end with{key}, so this one cannot be told from them. "
        "Create a new key, put it on the page, and disable the old ones.",
    ),
    Reason.KEY_DISABLED: _Text(
        403,
        "Disabled client key",
        "The widget key{key} is disabled. Enable it again, or put another key on the page.",
    ),
    Reason.ALLOWLIST_EMPTY: _Text(
        403,
        "No domain is allowed",
        "The widget key{key} allows no domain at all, so {origin} cannot use it. If the page is yours, {mend}.",
    ),
    Reason.ORIGIN_CONFLICT: _Text(
        400,
        "Two origins",
        "The request names its page twice. Something between the browser and here repeats headers.",
    ),
    Reason.ORIGIN_MALFORMED: _Text(
        400,
        "Not an origin",
        "The request sends a malformed origin{problem}. "
        "Browsers send a scheme, a host and maybe a port, such as https://shop.acme.com.",
    ),
    Reason.ORIGIN_NULL: _Text(
        403,
        "The page hides its origin",
        "The page hides its origin, as sandboxed iframes, local files and some redirects do. "
        "Serve it from a domain, and give a sandboxed iframe allow-same-origin.",
    ),
    Reason.ORIGIN_MISSING: _Text(
        403,
        "No origin",
        "The request does not say which page it comes from: it has neither an Origin nor a Referer header. "
        "Use the widget on a web page, and let the page send its referrer.",
    ),
    Reason.ORIGIN_NOT_ALLOWED: _Text(
        403,
        "This page is not allowed",
        "{origin} is not among the allowed domains of the widget key{key}. If the page is yours, {mend}.",
    ),
    Reason.ALLOWED: _Text(
        200,
        "Allowed",
        "{origin} may use the widget key{key}.",
    ),
}

_NO_ENTRY = (
    "{origin} is the widget's own host: the request comes from the widget's own frame, and does not say which page embeds "
    "it. Do not allow this host, or every page could use the key. Send the frame's grant in place of the key: "
    'see "Frames" in the reference of gatekeeper.web.'
)
# Details for requests of the widget's own frame, in place of those that advise an entry or a script tag.
_FROM_OWN_FRAME = {
    Reason.ALLOWLIST_EMPTY: _NO_ENTRY,
    Reason.ORIGIN_NOT_ALLOWED: _NO_ENTRY,
    Reason.KEY_MISSING: (
        "The request comes from the widget's own frame, {origin}, and has neither a grant nor a client key. Scripts of the "
        "frame send its grant. Files that its document loads send none: the operator of the widget lists them in exempt."
    ),
}
