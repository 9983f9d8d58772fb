"""web-platform-tests, url/resources/urltestdata.json: the origin that a browser computes for a URL."""

from collections.abc import Iterator
from typing import Any

import pytest

from gatekeeper import Allowlist, InvalidOrigin, Origin
from tests.conformance.corpora import Count, Difference, Outcome, accepted, judge, read_corpus, read_origin, read_referer

# Browsers take these hosts; no one can have a certificate or a registration for one.
SYMBOLS = "!\"$&'()*+,-.;=_`{}~"
NO_HOSTS_OF_OURS = ("http://.", "http://..", f"http://{SYMBOLS}")
HOST = Difference("refused", "the host is labels of a-z 0-9 - _, not empty", NO_HOSTS_OF_OURS)


def is_page(origin: object) -> bool:
    return str(origin).startswith(("http://", "https://"))


OTHER_SCHEME = Difference("refused", "pages are at http:// and https://", where=lambda outcome: not is_page(outcome.wanted))


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_corpus("wpt_url_origin")["cases"]
    return found


def serialised(origin: Origin | None) -> str | None:
    return None if origin is None else str(origin)


def test_an_origin_from_a_browser_is_read_and_written_unchanged(cases: list[dict[str, Any]], counts: list[Count]) -> None:
    origins = [case["origin"] for case in cases if case.get("origin", "null") != "null"]
    outcomes = (Outcome(origin, origin, serialised(read_origin(origin))) for origin in origins)
    # Origins of other schemes are read, too, so that the page is told what it is: not allowed.
    differences = (HOST, Difference("refused", HOST.reason, (f"wss://{SYMBOLS}",)))
    judge(counts, "wpt_url_origin: its origin, as the Origin header", outcomes, differences)


def test_an_origin_from_a_browser_can_be_listed(cases: list[dict[str, Any]], counts: list[Count]) -> None:
    outcomes = []
    for origin in dict.fromkeys(case["origin"] for case in cases if case.get("origin", "null") != "null"):
        pattern = accepted(origin)
        assert Allowlist.parse([origin]).allows(origin) is (pattern is not None)
        outcomes.append(Outcome(origin, origin, pattern))
    # An Origin's Punycode is not validated, so these hosts are read there, "https://xn--" since a label may end with "-".
    bad_punycode = ("http://a.b.c.xn--pokxncvks", "http://10.0.0.xn--pokxncvks", "https://xn--")
    differences = (
        Difference("refused", OTHER_SCHEME.reason, where=OTHER_SCHEME.where),
        Difference("refused", HOST.reason, NO_HOSTS_OF_OURS),
        Difference("refused", "bad Punycode", bad_punycode),
    )
    judge(counts, "wpt_url_origin: its origin, as an entry", outcomes, differences)


def test_a_browser_that_computes_an_opaque_origin_is_refused_as_null(cases: list[dict[str, Any]]) -> None:
    opaque = {case["origin"] for case in cases if case.get("origin") == "null"}
    assert opaque == {"null"}
    with pytest.raises(InvalidOrigin) as error:
        Origin.parse(*opaque)
    assert error.value.reason == "null"


def test_no_url_that_is_not_its_own_origin_passes_for_an_origin(cases: list[dict[str, Any]], counts: list[Count]) -> None:
    outcomes = [
        Outcome(
            case["input"],
            case["input"] if case.get("origin") == case["input"] else None,
            serialised(read_origin(case["input"])),
        )
        for case in cases
    ]
    assert any(outcome.wanted for outcome in outcomes)
    judge(counts, "wpt_url_origin: the URL, as the Origin header", outcomes)


def authority_of(url: str) -> str:
    authority = url.partition("://")[2]
    for end in "/?#\\":
        authority = authority.partition(end)[0]
    return authority


# What a browser takes from a script or an address bar, and never writes into a Referer.
NEVER_WRITTEN = (
    OTHER_SCHEME,
    Difference(
        "refused",
        "a Referer has no control and no non-ASCII bytes",
        where=lambda outcome: not (outcome.name.isascii() and outcome.name.isprintable()),
    ),
    Difference(
        "refused",
        "http:// or https:// is written out",
        where=lambda outcome: not outcome.name.lower().startswith(("http://", "https://")),
    ),
    Difference("refused", "a Referer has no userinfo", where=lambda outcome: "@" in authority_of(outcome.name)),
    Difference(
        "refused",
        "the host is serialised: no %, IPv4 as four decimal numbers",
        where=lambda outcome: str(outcome.wanted).partition("://")[2] not in outcome.name.lower(),
    ),
    Difference("refused", HOST.reason, tuple(f"{origin}/" for origin in NO_HOSTS_OF_OURS)),
)


def test_a_referer_gives_its_own_origin_or_none(cases: list[dict[str, Any]], counts: list[Count]) -> None:
    outcomes = []
    for case in cases:
        origin = None if case.get("origin", "null") == "null" else case["origin"]
        got = serialised(read_referer(case["input"]))
        assert got in {None, origin}
        outcomes.append(Outcome(case["input"], origin, got))
    judge(counts, "wpt_url_origin: the URL, as the Referer header", outcomes, NEVER_WRITTEN)


def referers(case: dict[str, Any]) -> Iterator[str]:
    """What browsers send for a page: its serialised URL without userinfo and fragment, or its origin and a slash."""
    scheme, _, rest = case["href"].partition("://")
    authority, slash, path = rest.partition("/")
    yield f"{scheme}://{authority.rpartition('@')[2]}{slash}{path.partition('#')[0]}"
    yield f"{case['origin']}/"


def test_the_referer_of_a_page_gives_the_origin_of_that_page(cases: list[dict[str, Any]], counts: list[Count]) -> None:
    pages = [case for case in cases if is_page(case.get("origin")) and case["protocol"] != "blob:"]
    outcomes = (
        Outcome(case["origin"], case["origin"], serialised(read_referer(referer)))
        for case in pages
        for referer in referers(case)
    )
    judge(counts, "wpt_url_origin: the Referer that its page sends", outcomes, (HOST,))
