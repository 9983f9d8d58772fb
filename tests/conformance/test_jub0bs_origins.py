"""jub0bs/cors (Go), its own tests of patterns, of origins, of the tree of patterns and of its configuration."""

import itertools
from typing import Any

import pytest

from gatekeeper import Allowlist
from gatekeeper.matching.pattern import Pattern
from tests.conformance.corpora import Count, Difference, Outcome, accepted, judge, read_corpus, read_origin

ANY_PORT = -1
NO_PORT = 0
DEFAULT_PORTS = {"http": 80, "https": 443}


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = read_corpus("jub0bs_origins")
    return found


def is_for_many_apps(outcome: Outcome) -> bool:
    return outcome.vector["scheme"] not in DEFAULT_PORTS and "*" in outcome.name


def pattern_of(vector: dict[str, Any]) -> Pattern | None:
    """What jub0bs/cors reads in a pattern, in our terms."""
    if not vector["valid"]:
        return None
    host = vector["host_pattern"].removeprefix("*.")
    port = {ANY_PORT: "*", NO_PORT: None}.get(vector["port"], vector["port"])
    is_wildcard = vector["kind"] == "arbitrary_subdomains"
    assert is_wildcard == vector["host_pattern"].startswith("*.")
    return Pattern(vector["scheme"], f"[{host}]" if ":" in host else host, is_wildcard, port)


def test_an_entry_means_what_the_pattern_means(corpus: dict[str, list[dict[str, Any]]], counts: list[Count]) -> None:
    outcomes = []
    for vector in corpus["parse_pattern"]:
        got = None if accepted(vector["input"]) is None else Pattern.parse(vector["input"])
        outcomes.append(Outcome(vector["input"], pattern_of(vector), got, vector))
    differences = [
        Difference("refused", "an app is allowed exactly", where=is_for_many_apps),
        Difference("refused", "a trailing dot", ("http://example.com.:3999",)),
        Difference("allowed", "without a scheme: both", ("ab",)),
        Difference("allowed", "outer spaces are taken off", (" http://example.com:6060 ",)),
        Difference("allowed", "the scheme's default port is elided", ("http://foo:80", "https://foo:443")),
        Difference("allowed", "Unicode becomes A-labels", ("https://résumé.com",)),
        Difference("allowed", "IPv6 is compressed", ("http://[2001:4860:4860:0000:0000:0000:0000:8888]:90",)),
        Difference("allowed", "letter case is lowered", ("http://exAmplE.coM:3999",)),
    ]
    judge(counts, "jub0bs_origins: parse_pattern", outcomes, differences)


def origin_of(vector: dict[str, Any]) -> tuple[str, str, int | None] | None:
    """What jub0bs/cors reads in an Origin header, in our terms."""
    if not vector["parses"]:
        return None
    host = f"[{vector['host']}]" if "[" in vector["input"] else vector["host"]
    return vector["scheme"], host, vector["port"] or DEFAULT_PORTS.get(vector["scheme"])


def test_an_origin_header_is_read_as_there_but_validated(
    corpus: dict[str, list[dict[str, Any]]], counts: list[Count]
) -> None:
    outcomes = []
    for vector in corpus["parse_origin"]:
        origin = read_origin(vector["input"])
        got = None if origin is None else (origin.scheme, origin.host, origin.port)
        outcomes.append(Outcome(vector["input"], origin_of(vector), got, vector))
    # Origins of other schemes are read here and there, so that the page is told what it is: not allowed.
    differences = [
        Difference("refused", "a scheme begins with a letter", ("1ab://example.com",)),
        Difference("refused", "a label has at most 63 characters", (f"{'a' * 64}://{'a' * 253}:65535",)),
        Difference(
            "refused",
            "an IPv6 host is one, compressed",
            ("http://[example]:90", "http://[]", "http://[::1:]", "http://[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:6060"),
        ),
        Difference(
            "refused",
            "a host that ends in a number is a canonical IPv4 address",
            (
                "http://1:6060",
                "http://127.0.0.1.1",
                "http://256.0.0.1",
                "http://foo.bar.255:6060",
                "http://foo.bar.baz.012345678901234567890123456789:6060",
            ),
        ),
        Difference(
            "refused",
            "the host is labels of a-z 0-9 - _, none of them empty",
            (
                "https://.example.com",
                "https://example.com^8080",
                "https://example.com?",
                "http://127.0.0.1.",
                "http://127.0.0.1.:6060",
            ),
        ),
    ]
    judge(counts, "jub0bs_origins: parse_origin", outcomes, differences)


def test_lists_of_patterns_allow_the_same_origins_in_every_order(
    corpus: dict[str, list[dict[str, Any]]], counts: list[Count]
) -> None:
    outcomes = []
    for tree in corpus["tree"]:
        patterns = tree["patterns"] or []
        one_way, other_way = Allowlist.parse(patterns), Allowlist.parse(reversed(patterns))
        for origins, wanted in ((tree["accepts"] or [], True), (tree["rejects"] or [], False)):
            for origin in origins:
                got = one_way.allows(origin)
                assert got is other_way.allows(origin)
                outcomes.append(Outcome(origin, wanted, got, tree))
    differences = [
        Difference(
            "refused",
            "`*.` on a single label is refused",
            where=lambda outcome: ".kin" in outcome.name and outcome.name not in outcome.vector["patterns"],
        )
    ]
    judge(counts, "jub0bs_origins: tree", outcomes, differences)


def test_two_patterns_allow_together_what_each_allows_alone(
    corpus: dict[str, list[dict[str, Any]]],
) -> None:
    for tree in corpus["tree"]:
        origins = [*(tree["accepts"] or []), *(tree["rejects"] or [])]
        alone = {pattern: Allowlist.parse([pattern]) for pattern in tree["patterns"] or []}
        for pair in itertools.permutations(alone, 2):
            together = Allowlist.parse(pair)
            for origin in origins:
                assert together.allows(origin) is any(alone[pattern].allows(origin) for pattern in pair), (pair, origin)


def verdict_on_http(pattern: str) -> str | None:
    """What we call a page: insecure if a list warns of it and a list for https alone rejects it; None if it is no entry."""
    allowlist = Allowlist.parse([pattern])
    if not allowlist.patterns:
        return None
    warned = any(warning.reason == "http" for warning in allowlist.warnings)
    assert warned is (accepted(pattern, https_only=True) is None)
    return "insecure" if warned else "secure"


def test_the_same_patterns_are_called_insecure(corpus: dict[str, list[dict[str, Any]]], counts: list[Count]) -> None:
    outcomes = [
        Outcome(vector["pattern"], "insecure" if vector["want"] else "secure", verdict_on_http(vector["pattern"]))
        for vector in corpus["is_deemed_insecure"]
    ]
    differences = [
        Difference("refused", "a trailing dot", where=lambda outcome: outcome.name.endswith(".")),
        Difference("refused", "`*.` on a single label", ("http://*.alocalhost", "http://*.localhosta")),
    ]
    judge(counts, "jub0bs_origins: is_deemed_insecure", outcomes, differences)


def test_a_wildcard_over_an_effective_top_level_domain_is_rejected(
    corpus: dict[str, list[dict[str, Any]]], counts: list[Count]
) -> None:
    outcomes = [
        Outcome(vector["pattern"], not vector["want"], accepted(vector["pattern"]) is not None)
        for vector in corpus["host_is_effective_tld"]
    ]
    judge(counts, "jub0bs_origins: host_is_effective_tld", outcomes)


def test_the_same_patterns_may_be_configured(corpus: dict[str, list[dict[str, Any]]], counts: list[Count]) -> None:
    outcomes = [
        Outcome(rule["pattern"], rule["ok"], accepted(rule["pattern"], https_only=rule["credentialed"]) is not None)
        for rule in corpus["config_rules"]
    ]
    differences = [
        Difference("allowed", "Unicode becomes A-labels", ("https://www.résumé.com",)),
        Difference("allowed", "IPv6 is compressed", ("http://[0:0:0:0:0:0:0:0001]:9090",)),
        Difference("allowed", "the scheme's default port is elided", ("http://example.com:80", "https://example.com:443")),
    ]
    judge(counts, "jub0bs_origins: config_rules", outcomes, differences)
