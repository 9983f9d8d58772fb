"""Revisions and their ETags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.hub.accounts import Revision

MARK = "0123456789abcdef"

revisions = st.builds(Revision, st.integers(1, 10**18 - 1), st.text("0123456789abcdef", min_size=16, max_size=16))


@given(revisions)
def test_a_revision_is_read_from_its_weak_and_strong_tag(revision: Revision) -> None:
    strong = revision.etag.removeprefix("W/")
    assert Revision.parse(revision.etag) == Revision.parse(strong) == revision
    assert strong == f'"{revision.number}-{revision.mark}"'


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "*",
        '"*"',
        f"7-{MARK}",
        f'"7-{MARK}',
        f'7-{MARK}"',
        f"W/7-{MARK}",
        f'w/"7-{MARK}"',
        f'W/W/"7-{MARK}"',
        f' "7-{MARK}"',
        f'"7-{MARK}"\n',
        f'"-{MARK}"',
        f'"07-{MARK}"',
        f'"0-{MARK}"',
        f'"+7-{MARK}"',
        f'"-7-{MARK}"',
        f'"7 -{MARK}"',
        f'"²-{MARK}"',
        f'"٧-{MARK}"',
        f'"7{MARK}"',
        f'"7-{MARK.upper()}"',
        f'"7-{MARK[:-1]}"',
        f'"7-{MARK}0"',
        f'"7-{MARK[:-1]}g"',
        f'"{10**18}-{MARK}"',
        f'"{"9" * 5000}-{MARK}"',
    ],
)
def test_a_tag_that_no_revision_has_is_none(tag: str) -> None:
    assert Revision.parse(tag) is None


@given(st.text())
def test_any_text_is_a_tag_of_one_revision_or_none(text: str) -> None:
    revision = Revision.parse(text)
    assert revision is None or text in {revision.etag, revision.etag.removeprefix("W/")}
