"""rs/cors (Go): a `*` stands for any bytes, anywhere, and an empty list allows every origin."""

from typing import Any

import pytest

from gatekeeper import Reason
from tests.conformance.asgi import gate_for
from tests.conformance.corpora import Count, Difference, Outcome, accepted, judge, read_corpus
from tests.support.client_keys import KEY

ANY_ORIGIN = Difference("refused", "`*` alone is refused: a list names domains", ("*",))
SUBSTRING = Difference("refused", "`*` anywhere but a leading whole label is refused", ("foo*bar", "h*"))


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = read_corpus("rs_cors")
    return found


def is_allowed(entries: list[str], origin: str | None) -> bool:
    return gate_for(*entries).decide(KEY, origin).allowed


def test_a_wildcard_inside_a_name_matches_nothing(corpus: dict[str, list[dict[str, Any]]], counts: list[Count]) -> None:
    outcomes = []
    for vector in corpus["wildcard_match"]:
        entry = f"{vector['prefix']}*{vector['suffix']}"
        assert accepted(entry) is None
        outcomes.append(Outcome(entry, vector["want"], is_allowed([entry], vector["s"])))
    named = Difference("refused", SUBSTRING.reason, SUBSTRING.names[:1])
    judge(counts, "rs_cors: wildcard_match", outcomes, [named])


def test_lists_allow_the_same_origins_with_two_exceptions(
    corpus: dict[str, list[dict[str, Any]]], counts: list[Count]
) -> None:
    outcomes = [
        Outcome(" ".join(vector["entries"]), vector["want"], is_allowed(vector["entries"], vector["origin"]))
        for vector in corpus["origin_allowed"]
    ]
    empty = Difference("refused", "no entries: the key is blocked", where=lambda outcome: not outcome.name)
    judge(counts, "rs_cors: origin_allowed", outcomes, [ANY_ORIGIN, empty])
    assert gate_for().decide(KEY, "https://acme.com").reason is Reason.ALLOWLIST_EMPTY


def test_a_pattern_that_is_nearly_a_bare_wildcard_is_rejected(
    corpus: dict[str, list[dict[str, Any]]], counts: list[Count]
) -> None:
    outcomes = []
    for vector in corpus["near_arbitrary"]:
        (entry,) = vector["entries"]
        assert accepted(entry) is None
        outcomes.append(Outcome(entry, vector["want"], is_allowed([entry], vector["origin"])))
    named = Difference("refused", SUBSTRING.reason, SUBSTRING.names[1:])
    judge(counts, "rs_cors: near_arbitrary", outcomes, [named])
