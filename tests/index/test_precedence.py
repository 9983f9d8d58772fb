"""Which of the held and the listed row of a key counts: pure calls."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import InvalidRow, WidgetKey
from gatekeeper.index.packed import drain, pack, unpack_row
from gatekeeper.index.precedence import Precedence, seconds
from tests.support.indexes import OTHER, apply, by_id, compare, index_of, row, unreadable

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()
OLDER, NEWER = "2026-01-02T11:00:00Z", "2026-01-02T12:00:00Z"


def key(updated_at: str | None, disabled_at: object = None, name: str = "shop") -> WidgetKey:
    return WidgetKey("a", name, "abcdefgh", ("acme.com",), disabled_at=disabled_at, updated_at=updated_at)


@pytest.mark.parametrize(
    ("held", "listed", "is_older"),
    [
        (OLDER, NEWER, False),
        (NEWER, NEWER, False),
        (NEWER, OLDER, True),
        ("2026-01-02T12:00:00.000001Z", NEWER, True),
        ("2026-01-02T12:00:00.5Z", "2026-01-02T12:00:00.25Z", True),
        (NEWER, "2026-01-02T12:00:00.000001Z", False),
        ("2026-01-02T12:00:00+00:00", "2026-01-02T13:00:00+02:00", True),
        ("2026-01-02T12:00:00+00:00", "2026-01-02T11:00:00-02:00", False),
        (NEWER, "2026-01-02T11:59:59", True),  # UTC by default
        # Where a time is missing or cannot be read, the rule does not apply.
        (None, OLDER, False),
        (NEWER, None, False),
        ("a while ago", OLDER, False),
        (NEWER, "yesterday", False),
        ("", OLDER, False),
    ],
)
def test_times_are_compared_as_times(held: str | None, listed: str | None, *, is_older: bool) -> None:
    before, after = pack(key(held)), pack(key(listed, name="renamed"))
    chosen, kind = Precedence(dated_at=NOON).choose(before, after)
    assert (chosen, kind) == ((before, "none") if is_older else (after, "change"))


@pytest.mark.parametrize(("ahead", "is_older"), [(-60.0, True), (0.0, True), (5.0, True), (6.0, False), (86_400.0, False)])
def test_a_held_time_that_lies_ahead_of_the_list_does_not_count(ahead: float, *, is_older: bool) -> None:
    """The clock of the hub went ahead, and was set back since."""
    held = datetime.fromtimestamp(NOON + ahead, UTC).isoformat()
    before, after = pack(key(held)), pack(key("2026-01-01T00:00:00Z", name="renamed"))
    assert Precedence(dated_at=NOON).choose(before, after)[0] == (before if is_older else after)
    assert Precedence().choose(before, after)[0] == before  # the list does not say when it was made


@pytest.mark.parametrize("precedence", [Precedence(NOON), Precedence(NOON, may_loosen=False)])
def test_of_an_older_row_only_the_revocation_is_taken(precedence: Precedence) -> None:
    held = key(NEWER, name="held")
    chosen, kind = precedence.choose(pack(held), pack(key(OLDER, disabled_at="2026-01-02T11:00:00Z", name="listed")))
    assert (unpack_row(chosen), kind) == (key(NEWER, disabled_at="2026-01-02T11:00:00Z", name="held"), "revocation")


def test_a_list_that_may_not_loosen_enables_no_key_though_its_row_is_newer() -> None:
    held = pack(key(OLDER, disabled_at="now"))
    assert Precedence(NOON, may_loosen=False).choose(held, pack(key(NEWER))) == (held, "none")


def test_a_trusted_list_counts_as_it_is() -> None:
    held, listed = pack(key(NEWER, disabled_at="now")), pack(key(OLDER))
    assert Precedence(NOON, is_trusted=True).choose(held, listed) == (listed, "change")


def written(minutes: int, hours: int, *, is_naive: bool) -> str:
    at = (datetime(2026, 1, 2, tzinfo=UTC) + timedelta(minutes=minutes)).astimezone(timezone(timedelta(hours=hours)))
    return (at.replace(tzinfo=None) if is_naive and not hours else at).isoformat()


times = st.one_of(
    st.none(),
    st.sampled_from(["", "never", "2026-13-01"]),
    st.builds(written, st.integers(-3, 3), st.integers(-2, 2), is_naive=st.booleans()),
)


def naive_seconds(time: str | None) -> float | None:
    """Read a time, as the rule says it."""
    try:
        at = datetime.fromisoformat(str(time))
    except ValueError:
        return None
    return at.replace(tzinfo=at.tzinfo or UTC).timestamp()


@given(held=times, listed=times, was=st.booleans(), now=st.booleans())
def test_a_row_never_loosens_by_an_older_one(held: str | None, listed: str | None, *, was: bool, now: bool) -> None:
    before = key(held, disabled_at="then" if was else None)
    after = key(listed, disabled_at="now" if now else None, name="renamed")
    chosen = unpack_row(Precedence().choose(pack(before), pack(after))[0])
    ours, theirs = naive_seconds(held), naive_seconds(listed)
    if ours is not None and theirs is not None and theirs < ours:
        assert chosen.disabled == (was or now)
        assert chosen.name == "shop"
    else:
        assert chosen == after


@pytest.mark.parametrize(
    "value", [None, 7, True, "", "now", "2026-01-02", "9999-99-99T00:00:00Z", [], "0001-01-01T00:00:00"]
)
def test_no_value_makes_the_reading_of_a_time_fail(value: object) -> None:
    assert seconds(value) is None or isinstance(value, str)


# In a whole list


def stamped(row_id: str, updated_at: str, **fields: Any) -> WidgetKey:
    fields = {"last8": OTHER.last8 if row_id == "b" else "first-01", "domain_allowlist": ("acme.com",), **fields}
    return WidgetKey(row_id, None, updated_at=updated_at, **fields)


def test_a_slice_with_an_older_row_is_read_again() -> None:
    index = index_of(stamped("a", NEWER, disabled_at="now"), stamped("b", NEWER))
    changes = apply(index, [stamped("a", OLDER), stamped("b", NEWER)])
    assert changes.overruled_count == 1
    assert (by_id(index)["a"].disabled, by_id(index)["b"].disabled) == (True, False)


def test_an_older_row_moves_no_key_back_to_its_former_plaintext() -> None:
    """The plaintext of a key was replaced; an old copy of the list still has the former one."""
    index = index_of(stamped("a", NEWER, last8="newkey-1"))
    changes = apply(index, [stamped("a", OLDER, last8="oldkey-1")])
    assert (by_id(index)["a"].last8, changes.overruled_count) == ("newkey-1", 1)
    apply(index, [stamped("a", OLDER, last8="oldkey-1", disabled_at="then")])
    assert (by_id(index)["a"].last8, by_id(index)["a"].disabled) == ("newkey-1", True)
    apply(index, [stamped("a", "2026-01-02T13:00:00Z", last8="oldkey-1")])
    assert (by_id(index)["a"].last8, by_id(index)["a"].disabled) == ("oldkey-1", False)


def test_a_list_that_may_not_loosen_adds_and_removes_no_key() -> None:
    index = index_of(stamped("a", NEWER), stamped("b", NEWER))
    rows: list[WidgetKey | InvalidRow] = [
        stamped("a", NEWER, disabled_at="now"),
        stamped("c", NEWER, last8="third-01"),
        unreadable("d"),
    ]
    changes = compare(index, rows, precedence=Precedence(NOON, may_loosen=False))
    assert (changes.added_count, changes.changed_count, changes.removed_count) == (0, 1, 0)
    drain(changes.apply())
    assert {row_id: each.disabled for row_id, each in by_id(index).items()} == {"a": True, "b": False}
    apply(index, [row("a"), row("b", OTHER), stamped("c", NEWER, last8="third-01")])
    assert set(by_id(index)) == {"a", "b", "c"}
