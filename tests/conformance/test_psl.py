"""The Public Suffix List's own tests: a wildcard over a public suffix would allow any name registered there."""

from typing import Any

import pytest

from gatekeeper import Allowlist
from tests.conformance.corpora import Count, Difference, Outcome, accepted, judge, read_corpus


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_corpus("psl_tests")["cases"]
    return found


def test_a_wildcard_needs_a_registrable_domain(cases: list[dict[str, Any]], counts: list[Count]) -> None:
    outcomes = []
    for case in cases:
        entry = None if case["input"] is None else f"*.{case['input']}"
        outcomes.append(Outcome(str(entry), case["registrable_domain"] is not None, accepted(entry) is not None))
    judge(counts, "psl_tests: *.<name>", outcomes)


def test_a_wildcard_one_label_above_a_registrable_domain_is_rejected(
    cases: list[dict[str, Any]], counts: list[Count]
) -> None:
    domains = dict.fromkeys(case["registrable_domain"] for case in cases if case["registrable_domain"] is not None)
    entries = [f"*.{domain.partition('.')[2]}" for domain in domains]
    judge(counts, "psl_tests: *.<public suffix>", [Outcome(entry, None, accepted(entry)) for entry in entries])


def test_a_rejected_wildcard_allows_no_name_below_it(cases: list[dict[str, Any]]) -> None:
    suffixes = [case["input"].lower() for case in cases if case["input"] and case["registrable_domain"] is None]
    hosts = [suffix for suffix in suffixes if suffix.isascii() and not suffix.startswith(".")]
    assert hosts
    for host in hosts:
        assert not Allowlist.parse([f"*.{host}"]).allows(f"https://evil.{host}")


def test_a_public_suffix_without_a_wildcard_is_one_host_and_may_be_listed(
    cases: list[dict[str, Any]], counts: list[Count]
) -> None:
    suffixes = [case["input"] for case in cases if case["registrable_domain"] is None]
    outcomes = [Outcome(str(suffix), None, accepted(suffix)) for suffix in suffixes]
    on_purpose = Difference(
        "allowed",
        "an exact host is that host alone; only `*.` is refused on a public suffix",
        where=lambda outcome: outcome.name != "None" and not outcome.name.startswith("."),
    )
    judge(counts, "psl_tests: <public suffix>", outcomes, [on_purpose])
    for suffix in suffixes:
        if accepted(suffix) is not None:
            assert not Allowlist.parse([suffix]).allows(f"https://evil.{accepted(suffix)}")
