"""web-platform-tests, toascii.json and IdnaTestV2.json: the A-labels that a browser makes of a host.

An entry written in Unicode has to become the A-labels that a browser sends, or it would never match; or be rejected.
"""

from collections.abc import Callable
from typing import Any

import pytest

from gatekeeper import Allowlist
from tests.conformance.corpora import Count, Difference, Outcome, accepted, judge, read_corpus

LABEL_CHARACTERS = set("abcdefghijklmnopqrstuvwxyz0123456789-_")
JOINERS = {"\u200c", "\u200d"}


def is_label(label: str) -> bool:
    return 1 <= len(label) <= 63 and set(label) <= LABEL_CHARACTERS


def is_no_host(outcome: Outcome) -> bool:
    host = str(outcome.wanted)
    return len(host) > 253 or not all(is_label(label) for label in host.split("."))


def has_something_invisible(outcome: Outcome) -> bool:
    return any(not character.isprintable() and character not in JOINERS for character in outcome.name)


def is_bad_punycode_among(cases: list[dict[str, Any]]) -> Callable[[Outcome], bool]:
    """Tell bad Punycode without an IDNA of our own: browsers let it pass, and make it of no host written in Unicode."""
    made = {case["output"] for case in cases if not case["input"].isascii() and case["output"] is not None}

    def is_bad_punycode(outcome: Outcome) -> bool:
        has_a_labels = any(label.startswith("xn--") for label in outcome.name.lower().split("."))
        return outcome.name.isascii() and has_a_labels and outcome.wanted not in made

    return is_bad_punycode


TRAILING_DOT = Difference("refused", "a trailing dot", where=lambda outcome: str(outcome.wanted).endswith("."))
NO_HOST = Difference(
    "refused",
    "a label is 1 to 63 of a-z 0-9 - _; a name has at most 253 characters",
    where=is_no_host,
)
INVISIBLE = Difference(
    "refused", "an invisible character inside, refused as an inner space is", where=has_something_invisible
)


@pytest.fixture(scope="module")
def corpora() -> dict[str, list[dict[str, Any]]]:
    return {name: read_corpus(name)["cases"] for name in ("wpt_toascii", "wpt_idnatestv2")}


@pytest.mark.parametrize(
    ("name", "differences"),
    [("wpt_toascii", (NO_HOST, INVISIBLE)), ("wpt_idnatestv2", (TRAILING_DOT, NO_HOST, INVISIBLE))],
)
def test_an_entry_matches_what_a_browser_sends_or_is_rejected(
    corpora: dict[str, list[dict[str, Any]]], name: str, differences: tuple[Difference, ...], counts: list[Count]
) -> None:
    outcomes = []
    for case in corpora[name]:
        host = case["output"] or None  # no http URL has an empty host
        pattern = accepted(case["input"])
        assert pattern in {None, host}
        if pattern is not None:
            assert Allowlist.parse([case["input"]]).allows(f"https://{host}")
        outcomes.append(Outcome(case["input"], host, pattern))
    bad_punycode = Difference(
        "refused",
        "bad Punycode: no Unicode host becomes it",
        where=is_bad_punycode_among([case for cases in corpora.values() for case in cases]),
        exact=False,  # the corpora do not have every host in Unicode too
    )
    judge(counts, name, outcomes, (*differences, bad_punycode))
