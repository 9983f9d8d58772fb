"""Reason, Decision: the answer to "may this page use this key?", for programs and for people."""

from enum import Enum, StrEnum
from typing import Literal

import msgspec

from gatekeeper.keys.client_key import mask
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("CONFLICT", "Conflict", "Decision", "Reason")


class Conflict(Enum):
    """Stands where a request gave two different values for one thing."""

    CONFLICT = "conflict"


CONFLICT: Literal[Conflict.CONFLICT] = Conflict.CONFLICT


class Reason(StrEnum):
    """Why a request is allowed or refused, in the order in which they are checked."""

    NOT_READY = "not_ready"
    EXPIRED = "expired"
    KEY_MISSING = "key_missing"
    KEY_MALFORMED = "key_malformed"
    KEY_CONFLICT = "key_conflict"
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
        """The status code of the answer; 200 for `allowed`, where the app's own counts."""
        return _STATUS.get(self, 403)


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
    """

    reason: Reason
    key: WidgetKey | None = None
    last8: str | None = None
    origin: str | None = None
    matched: str | None = None
    add: str | None = None
    problem: str | None = None
    retry_after: int | None = None

    @property
    def allowed(self) -> bool:
        """Whether the page may use the key."""
        return self.reason is Reason.ALLOWED

    @property
    def status(self) -> int:
        """The status code of the answer; 200 where the page is allowed and the app's own counts."""
        return self.reason.status

    @property
    def title(self) -> str:
        """What happened, in a few words."""
        return _TITLES[self.reason]

    @property
    def agent_id(self) -> str | None:
        """The agent that the key is pinned to."""
        return None if self.key is None else self.key.agent_id

    @property
    def detail(self) -> str:
        """What was seen and what to do about it, as a sentence or two."""
        mend = f"add {'its domain' if self.add is None else repr(self.add)} to the key's allowed domains"
        if self.add is None and self.origin not in (None, "null"):
            mend = "serve it from a domain over https"
        return _DETAILS[self.reason].format(
            key="" if self.last8 is None else f" {mask(self.last8)}",
            origin="this page" if self.origin is None else self.origin,
            mend=mend,
            problem="" if self.problem is None else f": {self.problem}",
            retry_after="soon" if self.retry_after is None else f"in {self.retry_after} s",
        )

    def problem_json(self) -> bytes:
        """The body of a refusal, as application/problem+json (RFC 9457)."""
        return msgspec.json.encode(
            {
                "type": f"urn:gatekeeper:{self.reason}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "reason": self.reason,
                "origin": self.origin,
                "key": None if self.last8 is None else mask(self.last8),
            }
        )


_STATUS = {
    Reason.NOT_READY: 503,
    Reason.EXPIRED: 503,
    Reason.KEY_MISSING: 400,
    Reason.KEY_MALFORMED: 400,
    Reason.KEY_CONFLICT: 400,
    Reason.ORIGIN_CONFLICT: 400,
    Reason.ORIGIN_MALFORMED: 400,
    Reason.ALLOWED: 200,
}

_TITLES = {
    Reason.NOT_READY: "Not ready yet",
    Reason.EXPIRED: "The list of keys is too old",
    Reason.KEY_MISSING: "No client key",
    Reason.KEY_MALFORMED: "Not a client key",
    Reason.KEY_CONFLICT: "Two different client keys",
    Reason.KEY_UNKNOWN: "Unknown client key",
    Reason.KEY_AMBIGUOUS: "Ambiguous client key",
    Reason.KEY_DISABLED: "Disabled client key",
    Reason.ALLOWLIST_EMPTY: "No domain is allowed",
    Reason.ORIGIN_CONFLICT: "Two origins",
    Reason.ORIGIN_MALFORMED: "Not an origin",
    Reason.ORIGIN_NULL: "The page hides its origin",
    Reason.ORIGIN_MISSING: "No origin",
    Reason.ORIGIN_NOT_ALLOWED: "This page is not allowed",
    Reason.ALLOWED: "Allowed",
}

_DETAILS = {
    Reason.NOT_READY: "The list of widget keys has not been loaded yet. Try again {retry_after}.",
    Reason.EXPIRED: (
        "The list of widget keys could not be renewed for too long, so no key is trusted any more. "
        "The operator of the widget has to look at its connection to the hub. Try again {retry_after}."
    ),
    Reason.KEY_MISSING: (
        'The request names no client key. Put data-client-key="…" on the script tag that loads the widget, '
        "with the key that was shown when it was created."
    ),
    Reason.KEY_MALFORMED: (
        "What the request sends as its client key is not one{problem}. "
        "Copy the whole key from where it was shown when it was created."
    ),
    Reason.KEY_CONFLICT: "The request names two different client keys. Send one, in the header or in the query.",
    Reason.KEY_UNKNOWN: (
        "There is no widget key{key}. It may have been deleted, belong to another account, or be mistyped: "
        "compare its last 8 characters with the list of keys."
    ),
    Reason.KEY_AMBIGUOUS: (
        "Several widget keys end with{key}, so this one cannot be told from them. "
        "Create a new key, put it on the page, and disable the old ones."
    ),
    Reason.KEY_DISABLED: "The widget key{key} is disabled. Enable it again, or put another key on the page.",
    Reason.ALLOWLIST_EMPTY: (
        "The widget key{key} allows no domain at all, so {origin} cannot use it. If the page is yours, {mend}."
    ),
    Reason.ORIGIN_CONFLICT: "The request names its page twice. Something between the browser and here repeats headers.",
    Reason.ORIGIN_MALFORMED: (
        "What the request sends as the origin of its page is not one{problem}. "
        "Browsers send a scheme, a host and maybe a port, such as https://shop.acme.com."
    ),
    Reason.ORIGIN_NULL: (
        "The page hides its origin, as sandboxed iframes, local files and some redirects do. "
        "Serve it from a domain, and give a sandboxed iframe allow-same-origin."
    ),
    Reason.ORIGIN_MISSING: (
        "The request does not say which page it comes from: it has neither an Origin nor a Referer header. "
        "Use the widget on a web page, and let the page send its referrer."
    ),
    Reason.ORIGIN_NOT_ALLOWED: (
        "{origin} is not among the allowed domains of the widget key{key}. If the page is yours, {mend}."
    ),
    Reason.ALLOWED: "{origin} may use the widget key{key}.",
}
