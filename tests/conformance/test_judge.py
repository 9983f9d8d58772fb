"""The judge of conformance fails where it should; otherwise the other tests here prove nothing."""

from pathlib import Path

import pytest

from tests.conformance.corpora import VARIABLE, Count, Difference, Outcome, judge, read_corpus
from tests.needs import REQUIRE_ALL

REFUSED = Outcome("a", "https://a", None)
ALLOWED = Outcome("b", None, "https://b")
CONFORMING = Outcome("c", "https://c", "https://c")
MISREAD = Outcome("d", "https://d", "https://evil.test")

REFUSES = Difference("refused", "we refuse it")
ALLOWS = Difference("allowed", "we allow it")
REFUSES_A = Difference("refused", "we refuse it", ("a",))


def test_vectors_are_counted_by_outcome() -> None:
    counts: list[Count] = []
    judge(counts, "vectors", [REFUSED, ALLOWED, CONFORMING, CONFORMING], [REFUSES_A, ALLOWS])
    (count,) = counts
    assert (count.total, count.conforming, count.unexplained) == (4, 2, 0)
    assert count.differing == {"refused: we refuse it": 1, "allowed: we allow it": 1}


@pytest.mark.parametrize("outcome", [REFUSED, ALLOWED, MISREAD])
def test_an_unexplained_difference_fails_and_is_counted(outcome: Outcome) -> None:
    counts: list[Count] = []
    with pytest.raises(pytest.fail.Exception, match=f"1 unexplained differences\n'{outcome.name}': wanted"):
        judge(counts, "vectors", [outcome, CONFORMING])
    assert (counts[0].total, counts[0].conforming, counts[0].unexplained) == (2, 1, 1)


def test_a_reason_to_refuse_does_not_explain_that_a_vector_is_allowed() -> None:
    with pytest.raises(pytest.fail.Exception, match="1 unexplained differences"):
        judge([], "vectors", [REFUSED, ALLOWED], [REFUSES])


def test_a_reason_to_allow_does_not_explain_that_a_vector_is_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match="1 unexplained differences"):
        judge([], "vectors", [REFUSED, ALLOWED], [ALLOWS])


def test_no_reason_explains_that_a_vector_is_taken_for_another_one() -> None:
    with pytest.raises(pytest.fail.Exception, match="1 unexplained differences"):
        judge([], "vectors", [REFUSED, ALLOWED, MISREAD], [REFUSES, ALLOWS])


def test_a_reason_that_explains_nothing_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="allowed: we allow it explains nothing"):
        judge([], "vectors", [REFUSED, CONFORMING], [REFUSES_A, ALLOWS])


def test_a_named_vector_that_conforms_or_is_gone_fails() -> None:
    named = Difference("refused", "we refuse them", ("a", "c"))
    for outcomes in ([REFUSED, CONFORMING], [REFUSED]):
        with pytest.raises(pytest.fail.Exception, match=r"we refuse them explains nothing at 'c'$"):
            judge([], "vectors", outcomes, [named])


def test_a_vector_that_conforms_against_the_rule_of_a_reason_fails() -> None:
    described = Difference("refused", "we refuse them", where=lambda outcome: outcome.name in {"a", "c"})
    with pytest.raises(pytest.fail.Exception, match=r"'c' conforms: not refused: we refuse them"):
        judge([], "vectors", [REFUSED, CONFORMING], [described])


def test_a_vector_may_conform_against_an_inexact_rule() -> None:
    counts: list[Count] = []
    judge(counts, "vectors", [REFUSED, CONFORMING], [Difference("refused", "we refuse some", exact=False)])
    assert (counts[0].conforming, sum(counts[0].differing.values())) == (1, 1)


def test_a_vector_that_both_sides_refuse_contradicts_no_reason_to_refuse() -> None:
    counts: list[Count] = []
    judge(counts, "vectors", [REFUSED, Outcome("e", None, None)], [REFUSES])
    assert (counts[0].conforming, sum(counts[0].differing.values())) == (1, 1)


def test_a_reason_explains_only_the_vectors_that_it_names_and_describes() -> None:
    named = Difference("refused", "another one", ("z",))
    described = Difference("refused", "another one", where=lambda outcome: outcome.name == "z")
    for difference in (named, described):
        with pytest.raises(pytest.fail.Exception, match="'a': wanted 'https://a', got None"):
            judge([], "vectors", [REFUSED, Outcome("z", "https://z", None)], [difference])


def test_a_set_without_vectors_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="the corpus has no such vectors"):
        judge([], "vectors", [])


def test_an_absent_corpus_skips_the_test_and_says_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_ALL, raising=False)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=f"{tmp_path}/psl_tests.json is not there: .*{VARIABLE}"):
        read_corpus("psl_tests")


def test_an_absent_corpus_fails_the_test_where_everything_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REQUIRE_ALL, "1")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="is not there"):
        read_corpus("psl_tests")


def test_a_corpus_is_read_from_the_directory_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.json").write_text('{"cases": ["é", "\\ud800"]}', encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert read_corpus("own") == {"cases": ["é", "\ud800"]}
