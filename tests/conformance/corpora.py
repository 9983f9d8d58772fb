"""Test vectors of other projects, and a judge that compares the package with them.

A vector conforms, or differs for a stated reason: a `Difference`. An unexplained difference fails, and so does a reason that
explains no vector, or that a vector contradicts.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from gatekeeper import Allowlist, InvalidOrigin, Origin
from tests.needs import lacking

__all__ = ("Count", "Difference", "Outcome", "accepted", "judge", "read_corpus", "read_origin", "read_referer")

BESIDE_THE_PROJECT = Path(__file__).parents[3] / "shared" / "corpora"
VARIABLE = "GATEKEEPER_CORPORA"
MOST_SHOWN = 20

Verdict = Literal["refused", "allowed"]


class Outcome(NamedTuple):
    """One vector, and the result. It conforms if the package gave what the corpus wants.

    Attributes:
        name: unique in its set.
        wanted: the result that the corpus wants; None or False for a refusal.
        got: the result of the package, in the same terms.
        vector: the vector in the corpus.
    """

    name: str
    wanted: object
    got: object
    vector: Any = None


def _everywhere(_: Outcome) -> bool:
    return True


@dataclass(frozen=True)
class Difference:
    """Why the vectors that it names or describes differ on purpose.

    Attributes:
        verdict: of the package, where the corpus wants the opposite; no reason explains a misread vector.
        reason: why, in words.
        names: of the vectors that differ for this reason; by default any.
        where: a rule that describes the vectors that differ for this reason.
        exact: whether every vector that the rule describes must differ.
    """

    verdict: Verdict
    reason: str
    names: tuple[str, ...] = ()
    where: Callable[[Outcome], bool] = _everywhere
    exact: bool = True

    def foretells(self, outcome: Outcome) -> bool:
        """Whether the reason describes this vector, which the corpus wants otherwise."""
        if bool(outcome.wanted) is (self.verdict == "allowed"):
            return False
        return (not self.names or outcome.name in self.names) and self.where(outcome)

    def explains(self, outcome: Outcome) -> bool:
        """Whether a vector does differ for this reason."""
        return bool(outcome.got) is (self.verdict == "allowed") and self.foretells(outcome)

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


@dataclass
class Count:
    """The results of one set of vectors.

    Attributes:
        vectors: the name of the set.
        conforming: number of vectors that conform.
        differing: number of vectors that differ, by reason.
        unexplained: number of vectors that differ without a reason.
    """

    vectors: str
    conforming: int = 0
    differing: dict[str, int] = field(default_factory=dict)
    unexplained: int = 0

    @property
    def total(self) -> int:
        """The number of vectors."""
        return self.conforming + sum(self.differing.values()) + self.unexplained


def read_corpus(name: str) -> Any:
    """Read a corpus, or skip the test where it is absent."""
    directory = Path(os.environ.get(VARIABLE) or BESIDE_THE_PROJECT)
    path = directory / f"{name}.json"
    if not path.is_file():
        lacking(f"{path} is not there: put the corpora beside the project, or name their directory in {VARIABLE}")
    return json.loads(path.read_text(encoding="utf-8"))


def judge(counts: list[Count], vectors: str, outcomes: Iterable[Outcome], differences: Sequence[Difference] = ()) -> None:
    """Count the outcomes of a set, and fail for a difference without a reason, or a wrong reason.

    Args:
        counts: where the count is appended.
        vectors: the name of the set.
        outcomes: of its vectors.
        differences: reasons; the first that explains a vector counts.
    """
    count = Count(vectors)
    counts.append(count)
    unexplained: list[str] = []
    contradicted: list[str] = []
    seen: dict[Difference, set[str]] = {difference: set() for difference in differences}
    for outcome in outcomes:
        if outcome.wanted == outcome.got:
            count.conforming += 1
            contradicted += [
                f"{outcome.name!a} conforms: not {difference}"
                for difference in differences
                if difference.exact and difference.foretells(outcome)
            ]
            continue
        reason = next((difference for difference in differences if difference.explains(outcome)), None)
        if reason is None:
            unexplained.append(f"{outcome.name!a}: wanted {outcome.wanted!r}, got {outcome.got!r}")
        else:
            seen[reason].add(outcome.name)
            count.differing[str(reason)] = count.differing.get(str(reason), 0) + 1
    count.unexplained = len(unexplained)
    idle = [
        f"{difference} explains nothing" + "".join(f" at {name!a}" for name in difference.names if name not in names)
        for difference, names in seen.items()
        if not names or not names.issuperset(difference.names)
    ]
    if count.total == 0:
        pytest.fail(f"{vectors}: the corpus has no such vectors")
    if unexplained or contradicted or idle:
        shown = unexplained[:MOST_SHOWN] + contradicted[:MOST_SHOWN] + idle
        pytest.fail(f"{vectors}: {len(unexplained)} unexplained differences\n" + "\n".join(shown), pytrace=False)


def accepted(entry: Any, *, https_only: bool = False) -> str | None:
    """The pattern of an entry; None if it is rejected, with a reason and a hint."""
    allowlist = Allowlist.parse([entry], https_only=https_only)
    if allowlist.patterns:
        (pattern,) = allowlist.patterns
        assert not allowlist.rejected
        return pattern
    (rejected,) = allowlist.rejected
    assert rejected.reason
    assert rejected.hint
    return None


def read_origin(value: str) -> Origin | None:
    """The origin in an Origin header, given as text and as bytes; None if it is refused."""
    return _read(Origin.parse, value)


def read_referer(value: str) -> Origin | None:
    """The origin in a Referer header, given as text and as bytes; None if it is refused."""
    return _read(Origin.from_referer, value)


def _read(parse: Callable[[str | bytes], Origin], value: str) -> Origin | None:
    readings: list[Origin | None] = []
    for given in (value, value.encode("utf-8", "surrogatepass")):
        try:
            readings.append(parse(given))
        except InvalidOrigin as error:
            assert error.reason  # noqa: PT017 - what is raised is one of two right answers
            readings.append(None)
    assert readings[0] == readings[1]
    return readings[0]
