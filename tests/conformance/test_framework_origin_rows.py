"""Rows from the tests of tower-http, django-cors-headers, Starlette and asgi-cors."""

from typing import Any

import pytest

from gatekeeper import Allowlist
from tests.conformance.corpora import Count, Difference, Outcome, accepted, judge, read_corpus

NULL = "`null` is refused: every sandboxed iframe and local file sends it"


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = read_corpus("framework_origin_rows")
    return found


def test_tower_http_trusts_the_same_origins(corpus: dict[str, list[dict[str, Any]]], counts: list[Count]) -> None:
    outcomes = [
        Outcome(row["input"], row["ok"], accepted(row["input"]) is not None) for row in corpus["tower_http_trusted_origin"]
    ]
    differences = [
        Difference("allowed", "without a scheme: both", ("example.com",)),
        Difference("allowed", "one trailing / is taken off", ("https://example.com/",)),
        Difference("allowed", "Unicode becomes A-labels", ("https://ümlaut.de", "https://日本.jp")),
    ]
    judge(counts, "framework_origin_rows: tower_http", outcomes, differences)


def test_django_cors_headers_allows_the_same_origins(corpus: dict[str, list[dict[str, Any]]], counts: list[Count]) -> None:
    outcomes = [
        Outcome(row["origin"], row["want"], Allowlist.parse(row["entries"]).allows(row["origin"]))
        for row in corpus["django_cors_headers"]
    ]
    differences = [
        Difference("refused", NULL, ("null",)),
        Difference("refused", "pages are at http:// and https://", ("file://",)),
    ]
    judge(counts, "framework_origin_rows: django_cors_headers", outcomes, differences)


def test_django_cors_headers_takes_the_same_entries(corpus: dict[str, list[dict[str, Any]]], counts: list[Count]) -> None:
    outcomes = [
        Outcome(row["entry"], row["ok"], accepted(row["entry"]) is not None)
        for row in corpus["django_cors_headers_entry_checks"]
    ]
    differences = [
        Difference("refused", NULL, ("null",)),
        Difference("refused", "pages are at http:// and https://", ("file://",)),
        Difference("allowed", "without a scheme: both", ("example.com",)),
    ]
    judge(counts, "framework_origin_rows: django_cors_headers_entry_checks", outcomes, differences)


def test_starlette_allows_the_same_origins_without_regular_expressions(
    corpus: dict[str, list[dict[str, Any]]], counts: list[Count]
) -> None:
    outcomes = []
    for row in corpus["starlette"]:
        entries = row.get("allow_origins") or [row["allow_origin_regex"]]
        outcomes.append(Outcome(row["origin"], row["want"], Allowlist.parse(entries).allows(row["origin"]), row))
    differences = [
        Difference("refused", "no regular expressions", where=lambda outcome: "allow_origin_regex" in outcome.vector)
    ]
    judge(counts, "framework_origin_rows: starlette", outcomes, differences)


def test_asgi_cors_allows_the_same_origins_without_globs(
    corpus: dict[str, list[dict[str, Any]]], counts: list[Count]
) -> None:
    outcomes = [
        Outcome(" ".join(row["entries"]), row["want"], Allowlist.parse(row["entries"]).allows(row["origin"]))
        for row in corpus["asgi_cors"]
    ]
    differences = [
        Difference("refused", "a port is a number or `*`: no globs", ("http://localhost:8*",)),
    ]
    judge(counts, "framework_origin_rows: asgi_cors", outcomes, differences)
