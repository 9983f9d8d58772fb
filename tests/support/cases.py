"""One table of requests to the middleware and their exact answers, for tests and benchmarks."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from gatekeeper import Reason

from .client_keys import DISABLED_KEY, EMPTY_KEY, KEY, OTHER_KEY, TWIN_KEY, UNKNOWN_KEY

__all__ = ("CASES", "OF_FRAMES", "PAGE", "ROWS", "Case", "assert_headers_equal")

PAGE = "https://shop.acme.com"
FOREIGN_PAGE = "https://evil.test"
ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [PAGE]},
    {"id": "3", "name": "gone", "last8": DISABLED_KEY[-8:], "domain_allowlist": [PAGE], "disabled_at": "2026-01-02"},
    {"id": "4", "name": "none", "last8": EMPTY_KEY[-8:], "domain_allowlist": []},
    {"id": "5", "name": "twin", "last8": TWIN_KEY[-8:], "domain_allowlist": [PAGE]},
    {"id": "6", "name": "twin", "last8": TWIN_KEY[-8:], "domain_allowlist": [PAGE]},
]
OF_FRAMES = {"not_framed", "grant_foreign", "grant_invalid", "grant_expired"}  # reasons that need other options

VARY = {"vary": "Origin, data-client-key"}
VARY_WITH_REFERER = {"vary": "Origin, data-client-key, Referer"}
ECHO = {**VARY, "access-control-allow-origin": PAGE}
ANY = {"access-control-allow-origin": "*", "access-control-expose-headers": "Retry-After"}
REFUSED = {**VARY, **ANY}
PREFLIGHT = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, POST",
    "access-control-allow-headers": "content-type, data-client-key",
    "access-control-max-age": "600",
    "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
}


class Case(NamedTuple):
    """A request, and the answer of the middleware.

    Attributes:
        name: "allowed", "preflight" and the like, or the reason of a refusal.
        status: of the answer.
        headers: of the answer, besides those of the app, or of every refusal.
        key, origin, referer: headers of the request; None where it has none.
        query: of the URL.
        more: further headers of the request.
        method: of the request.
        state: of the list.
    """

    name: str
    status: int
    headers: Mapping[str, str]
    key: str | None = KEY
    origin: str | None = PAGE
    referer: str | None = None
    query: str = ""
    more: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    state: Literal["ready", "not_ready", "expired"] = "ready"


def _refused(reason: Reason, headers: Mapping[str, str] = REFUSED, **request: Any) -> Case:
    return Case(reason.value, reason.status, headers, **request)


_ASKS = (("access-control-request-method", "GET"), ("access-control-request-headers", "data-client-key"))
CASES = (
    Case("allowed", 200, ECHO),
    Case("allowed, query", 200, ECHO, key=None, query=f"client_key={KEY}"),
    Case("allowed, Referer", 200, VARY_WITH_REFERER, origin=None, referer=f"{PAGE}/cart"),
    Case("preflight", 204, PREFLIGHT, key=None, method="OPTIONS", more=_ASKS),
    _refused(Reason.NOT_READY, {**REFUSED, "retry-after": "2"}, state="not_ready"),
    _refused(Reason.EXPIRED, {**REFUSED, "retry-after": "30"}, state="expired"),
    _refused(Reason.KEY_MISSING, key=None),
    _refused(Reason.KEY_MALFORMED, key="sk_live_acme_0123456789"),
    _refused(Reason.KEY_CONFLICT, query=f"client_key={OTHER_KEY}"),
    _refused(Reason.KEY_UNKNOWN, key=UNKNOWN_KEY),
    _refused(Reason.KEY_AMBIGUOUS, key=TWIN_KEY),
    _refused(Reason.KEY_DISABLED, key=DISABLED_KEY),
    _refused(Reason.ALLOWLIST_EMPTY, key=EMPTY_KEY),
    _refused(Reason.ORIGIN_CONFLICT, more=(("origin", FOREIGN_PAGE),)),
    _refused(Reason.ORIGIN_MALFORMED, origin="HTTPS://shop.acme.com"),
    _refused(Reason.ORIGIN_NULL, origin="null"),
    _refused(Reason.ORIGIN_MISSING, {**VARY_WITH_REFERER, **ANY}, origin=None),
    _refused(Reason.ORIGIN_NOT_ALLOWED, origin=FOREIGN_PAGE),
)


def assert_headers_equal(headers: Iterable[tuple[bytes, bytes]], expected: Mapping[str, str]) -> None:
    """Assert that there are exactly these headers, once each: an unexpected one fails."""
    seen = sorted((name.decode().lower(), value.decode()) for name, value in headers)
    assert seen == sorted(expected.items()), f"{seen} instead of {sorted(expected.items())}"
