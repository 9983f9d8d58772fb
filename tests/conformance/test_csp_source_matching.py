"""Content Security Policy in Chromium: source expressions and the URLs that they match."""

from gatekeeper import Allowlist
from tests.conformance.corpora import Count, Difference, Outcome, judge, read_corpus, read_referer

NO_ORIGIN = ("*.foo.bar http://*.foo.bar", "*.foo.bar http://.foo.bar")

DIFFERENCES = (
    Difference(
        "refused",
        "`*` alone is refused: a list names domains",
        ("http://* http://a.com", "http://* http://.", "http://*:111 http://a.com:111"),
    ),
    Difference("refused", "no page has such a host: a label is not empty and has no *", NO_ORIGIN),
    Difference("refused", "a port is 1 to 65535", ("a.com:* https://a.com:0",)),
    Difference(
        "refused",
        "a port is that port: nothing is upgraded from :80 to :443",
        ("a.com:80 https://a.com", "a.com:80 https://a.com:443"),
    ),
    Difference(
        "allowed",
        "without a scheme: both, whatever our own is",
        where=lambda outcome: outcome.vector["self_scheme"] == "https" and outcome.vector["url"].startswith("http://"),
    ),
)


def test_entries_match_pages_as_source_expressions_match_urls(counts: list[Count]) -> None:
    outcomes = []
    for vector in read_corpus("csp_source_matching")["matches"]:
        page = read_referer(vector["url"])
        got = page is not None and Allowlist.parse([vector["expression"]]).allows(page)
        outcomes.append(Outcome(f"{vector['expression']} {vector['url']}", vector["want"], got, vector))
    judge(counts, "csp_source_matching", outcomes, DIFFERENCES)
