"""What RefreshLog logs and counts: pure calls."""

import logging
from collections.abc import Callable

import pytest

from gatekeeper import InvalidRow, RefreshReport, SnapshotError, WidgetKey
from gatekeeper.client import TokenScope
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import ListDiff
from gatekeeper.index.packed import drain
from gatekeeper.sync.loading import ListBasis, Loaded
from gatekeeper.sync.log import SETTLED_AFTER, RefreshLog
from gatekeeper.sync.status import State
from tests.support.indexes import index_of, row, unreadable

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


class Lines(logging.Handler):
    """Keeps the level and the text of each line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append((record.levelname, record.getMessage()))


class Logged:
    """A log of refreshes, and the lines that it wrote."""

    def __init__(self) -> None:
        handler = Lines()
        self.lines = handler.lines
        logger = logging.Logger("a test's own")  # noqa: LOG001 - not in the tree of loggers
        logger.addHandler(handler)
        self.log = RefreshLog(logger, lambda: NOW)

    def fails(self, error: str, bug: Exception | None = None, *, has_list: bool = True) -> None:
        self.log.failure(RefreshReport("failed", error=error), bug, has_list=has_list)

    def succeeds(self, times: int = 1) -> None:
        for _ in range(times):
            self.log.success(RefreshReport("unchanged"))

    def said(self) -> list[tuple[str, str]]:
        """The lines since the last call."""
        lines = [(level, line.removeprefix("gatekeeper: ")) for level, line in self.lines]
        self.lines.clear()
        return lines

    def applies(self, index: KeyIndex, *rows: WidgetKey | InvalidRow) -> ChangeSet:
        diff = ListDiff(index)
        diff.add_rows(rows)
        changes = drain(diff.finish())
        loaded = Loaded(changes, ListBasis(), diff.rejected, diff.rejected_reasons)
        drain(changes.apply())
        self.log.list_applied(loaded, changes, index.ambiguous())
        return changes


def test_a_failure_is_logged_when_it_begins_and_when_it_changes() -> None:
    it = Logged()
    for error in ("500", "500", "401", "401", "500"):
        it.fails(error)
    says = [("WARNING", f"the list of widget keys stays as it is: {error}") for error in ("500", "401", "500")]
    assert it.said() == says
    assert it.log.counters["refresh_failed"] == 5
    assert it.log.last_error == "500"


def test_a_failure_that_comes_and_goes_is_logged_once() -> None:
    it = Logged()
    for _ in range(20):
        it.fails("500")
        it.succeeds(SETTLED_AFTER - 1)
    assert len(it.said()) == 1


def test_a_recovery_is_logged_after_six_successes() -> None:
    it = Logged()
    it.fails("500")
    it.said()
    it.succeeds(SETTLED_AFTER)
    assert it.said() == [("WARNING", "the list of widget keys comes again, 6 times in a row")]
    it.succeeds(10)
    assert it.said() == []
    it.fails("500")
    assert len(it.said()) == 1


def test_a_bug_is_logged_as_an_error() -> None:
    it = Logged()
    it.fails("a bug", ValueError())
    assert [level for level, _ in it.said()] == ["ERROR"]


@pytest.mark.parametrize(
    ("states", "lines"),
    [
        (["never_loaded"], []),
        (["fresh"], [("WARNING", "the list of widget keys is fresh: 5 keys")]),
        (["fresh", "fresh"], [("WARNING", "the list of widget keys is fresh: 5 keys")]),
        (["degraded"], [("WARNING", "the list of widget keys is degraded: it is 61 s old, and still decides; 500")]),
        (["expired"], [("ERROR", "the list of widget keys is expired: it is 61 s old, and lets no key in; 500")]),
    ],
)
def test_each_change_of_state_is_one_line(states: list[State], lines: list[tuple[str, str]]) -> None:
    it = Logged()
    it.fails("500")
    it.said()
    for state in states:
        it.log.state(state, 61.0, 5)
    assert it.said() == lines


def test_a_list_that_is_degraded_without_a_failure_is_logged() -> None:
    it = Logged()
    it.log.state("degraded", 60.0, 5)
    assert it.said() == [("WARNING", "the list of widget keys is degraded: it is 60 s old, and still decides")]


def test_a_list_that_is_fresh_again_says_so_and_logs_the_next_failure() -> None:
    it = Logged()
    it.fails("500")
    it.log.state("degraded", 61.0, 5)
    it.succeeds()
    it.said()
    it.log.state("fresh", 0.0, 5)
    assert it.said() == [("WARNING", "the list of widget keys is fresh again: 5 keys")]
    it.fails("500")
    assert len(it.said()) == 1


def test_a_row_that_cannot_be_read_is_logged_while_it_is_new() -> None:
    it, index = Logged(), index_of()
    for rows in ([unreadable("a")], [unreadable("a")], [unreadable("a"), unreadable("b")]):
        it.applies(index, *rows)
    assert it.said() == [
        ("WARNING", f"set aside, its key stays as it was: row 0 (id {row_id!r}): unreadable") for row_id in ("a", "b")
    ]
    assert it.log.rejected_rows == 2
    assert it.log.counters["rows_rejected"] == it.log.counters["rows_rejected_other"] == 4


def test_ids_that_come_more_than_once_are_logged_and_counted() -> None:
    it = Logged()
    it.applies(index_of(), row("a"), row("a", name="another"))
    text = "the list has id 'a' more than once; a disabled row stands, else the first"
    assert it.said() == [("WARNING", text)]
    assert it.log.counters["duplicate_ids"] == 1


def test_a_long_or_odd_id_is_logged_escaped_and_cut() -> None:
    it = Logged()
    key = row("a\n\x1b[31m" + "x" * 5000)
    it.applies(index_of(key), key, key)
    ((level, line),) = it.said()
    assert (level, line[:40]) == ("WARNING", r"the list has id 'a\n\x1b[31mxxxxxxxxxxxx")
    assert len(line) < 400


def test_keys_that_look_alike_are_logged_once() -> None:
    it, index = Logged(), index_of()
    for _ in range(3):
        it.applies(index, row("a"), row("b"))
    assert [level for level, _ in it.said()] == ["ERROR"]
    assert len(it.log.ambiguous) == 1
    it.applies(index, row("a"))
    assert it.log.ambiguous == ()


@pytest.mark.parametrize(
    ("disabled_at", "lag"),
    [
        (["2027-01-15T07:59:58Z"], 2.0),
        (["2027-01-15T07:59:58Z", "2027-01-15T07:59:30Z"], 30.0),
        (["2027-01-15T07:59:58"], 2.0),
        (["2027-01-15T08:00:09Z"], 0.0),  # a clock that goes ahead
        ([True], None),
        (["yesterday"], None),
        ([], None),
    ],
)
def test_the_lag_is_that_of_the_slowest_revocation(disabled_at: list[object], lag: float | None) -> None:
    it = Logged()
    index = index_of(*(row(str(number)) for number in range(len(disabled_at))))
    it.applies(index, *(row(str(number), disabled_at=when) for number, when in enumerate(disabled_at)))
    assert it.log.revocation_lag == lag
    assert it.log.counters["revocations"] == len(disabled_at)


def test_held_removals_are_logged_once_and_counted() -> None:
    it = Logged()
    it.log.removals_held(6, 10, is_first=True)
    it.log.removals_held(6, 10, is_first=False)
    text = "the list lacks 6 of 10 widget keys; they stay until two more lists lack as many, or for 60 s"
    assert it.said() == [("ERROR", text)]
    assert it.log.counters["removals_held"] == 2


@pytest.mark.parametrize(
    ("record", "lines", "counter"),
    [
        (lambda log: log.snapshot_failed(SnapshotError("it is damaged")), [("WARNING", "it is damaged")], "snapshot_failed"),
        (
            lambda log: log.snapshot_failed(ValueError()),
            [("ERROR", "the snapshot failed in a way that is a bug")],
            "snapshot_failed",
        ),
        (
            lambda log: log.crash(None),
            [("ERROR", "the refresher of the list of widget keys died and is brought back")],
            "refresher_restarts",
        ),
    ],
)
def test_failures_of_the_snapshot_and_crashes_are_logged_and_counted(
    record: Callable[[RefreshLog], None], lines: list[tuple[str, str]], counter: str
) -> None:
    it = Logged()
    record(it.log)
    assert it.said() == lines
    assert it.log.counters[counter] == 1


def test_a_restored_list_is_logged_once() -> None:
    it = Logged()
    it.log.restored("degraded", 7.0, 5, ("00000001",))
    assert it.said() == [("INFO", "5 widget keys come from the snapshot, 7 s old")]
    it.log.state("degraded", 8.0, 5)
    assert it.said() == []
    assert it.log.ambiguous == ("00000001",)


def test_a_failure_without_a_list_says_that_every_request_is_refused() -> None:
    """At a cold start while the hub is down, there is no list that could stay as it is."""
    it = Logged()
    it.fails("500", has_list=False)
    text = "every request is refused, because the list of widget keys has not come yet: 500"
    assert it.said() == [("WARNING", text)]


def test_a_first_list_after_failures_is_a_recovery() -> None:
    """Uvicorn's default logging shows nothing below a warning."""
    it = Logged()
    it.fails("500", has_list=False)
    it.said()
    it.succeeds()
    it.log.state("fresh", 0.0, 5)
    assert it.said() == [("WARNING", "the list of widget keys is fresh: 5 keys")]


def test_a_token_of_scope_admin_is_logged_once() -> None:
    """A hub behind a rolling update says the scope in some answers only."""
    it = Logged()
    scopes: list[TokenScope | None] = [None, "gate", "admin", "admin", None, "gate", "admin"]
    for scope in scopes:
        it.log.token_scope(scope)
    ((level, line),) = it.said()
    assert level == "WARNING"
    assert "the hub's token has the scope admin, so it can create, change and delete keys." in line
    assert "gatekeeper hub token create --scope gate" in line
