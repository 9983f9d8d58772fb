"""Observing and enforcing: the switch, the record of refused pages, and the log."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gatekeeper import ConfigError, Decision, Gatekeeper, Reason, StaticSource
from gatekeeper.gate.refusal_log import KEYS, LINES, PERIOD, RefusalLog
from gatekeeper.gate.refusals import MOST_PAGES
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.testing import FakeClock
from tests.support.forked import forked
from tests.support.rows import ORIGIN, client_key, row

EVIL = "https://evil.com"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def gate_of(**options: Any) -> Gatekeeper:
    return Gatekeeper.from_rows([row(1), row(2, disabled_at="now"), row(3, domain_allowlist=[])], **options)


def ask(gate: Gatekeeper, key: str | None, origin: str | None, **others: Any) -> bool:
    return gate.admits(gate.decide(key, origin, **others))


# The switch


@pytest.mark.parametrize("enforce", [None, 0, 1, "false", "yes"])
def test_the_switch_is_true_or_false(enforce: Any) -> None:
    said = rf"enforce is {enforce!r}: expected True or False"
    with pytest.raises(ConfigError, match=said):
        Gatekeeper.from_rows([], enforce=enforce)
    gate = gate_of()
    with pytest.raises(ConfigError, match=said):
        gate.enforce = enforce
    assert gate.enforce is True


def test_a_gate_says_once_that_it_only_observes(caplog: pytest.LogCaptureFixture) -> None:
    gate_of()
    assert warnings(caplog) == []
    gate = gate_of(enforce=False)
    gate.enforce = False
    assert warnings(caplog) == ["gatekeeper: the gate only observes: it lets every request through (enforce=False)"]
    gate.enforce = True
    assert warnings(caplog)[1:] == ["gatekeeper: the gate enforces from now on"]


def test_decisions_are_the_same_whether_they_are_enforced_or_not() -> None:
    observing, enforcing = gate_of(enforce=False), gate_of()
    for key in (client_key(1), client_key(2), client_key(3), client_key(9), None, "nonsense"):
        for origin in (ORIGIN, EVIL, "null", None, ""):
            decision = observing.decide(key, origin)
            assert decision == enforcing.decide(key, origin)
            assert observing.admits(decision)
            assert enforcing.admits(decision) == decision.allowed
    assert observing.decisions == enforcing.decisions
    assert observing.refusals[0].count == enforcing.refusals[0].count


def test_a_request_that_is_only_observed_is_admitted_and_counted() -> None:
    gate = gate_of(enforce=False)
    allowed, refused = gate.decide(client_key(1), ORIGIN), gate.decide(client_key(1), EVIL)
    assert (gate.admits(allowed), gate.admits(refused), gate.admits(refused)) == (True, True, True)
    assert (gate.status.enforce, gate.status.observed) == (False, 2)
    gate.enforce = True
    assert (gate.admits(allowed), gate.admits(refused)) == (True, False)
    assert (gate.status.enforce, gate.status.observed) == (True, 2)


# The record


def test_decisions_that_are_not_asked_about_leave_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    """Tools decide on pages that no request came from."""
    gate = gate_of()
    assert not gate.decide(client_key(1), EVIL).allowed
    assert (gate.refusals, warnings(caplog)) == ((), [])


def test_no_entry_is_advised_for_a_page_of_the_service_itself(caplog: pytest.LogCaptureFixture) -> None:
    gate = gate_of()
    assert not gate.admits(gate.decide(client_key(1), EVIL), from_own_frame=True)
    assert [(page.origin, page.entry) for page in gate.refusals] == [(EVIL, None)]
    assert "allowed domains" not in caplog.text


def test_refused_pages_are_recorded_at_once_with_the_entry_to_add() -> None:
    gate = gate_of()
    assert not list(gate.refusals)
    for _ in range(3):
        ask(gate, client_key(1), EVIL)
    ask(gate, client_key(1), None, referer=f"{EVIL}/page")
    ask(gate, client_key(1), "https://")
    ask(gate, client_key(2), ORIGIN)
    ask(gate, client_key(1), ORIGIN)
    ask(gate, client_key(9), EVIL)
    shown = [(page.key_id, page.origin, page.reason, page.count, page.entry) for page in gate.refusals]
    assert shown == [
        ("key-1", EVIL, "origin_not_allowed", 4, "evil.com"),
        ("key-1", None, "origin_malformed", 1, None),
        ("key-2", ORIGIN, "key_disabled", 1, None),
    ]


def test_the_times_of_a_page_are_those_of_its_requests() -> None:
    wall = FakeClock()
    gate = Gatekeeper(StaticSource([row(1)]), wall_clock=wall)
    ask(gate, client_key(1), EVIL)
    wall.now += 60
    ask(gate, client_key(1), EVIL)
    wall.now += 3600
    (page,) = gate.refusals
    assert (page.last_at - page.first_at).total_seconds() == 60
    assert page.last_at.timestamp() == wall.now - 3600


def test_the_record_is_bounded() -> None:
    gate = gate_of()
    for number in range(MOST_PAGES + 100):
        ask(gate, client_key(1), f"https://p{number}.evil.com")
    ask(gate, client_key(2), ORIGIN)
    assert len(gate.refusals) == MOST_PAGES
    assert "key-2" in {page.key_id for page in gate.refusals}


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_record_and_a_log_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    gate = gate_of(enforce=False)
    ask(gate, client_key(1), EVIL)

    def in_child() -> None:
        assert not list(gate.refusals)
        assert gate.status.observed == 0
        caplog.clear()
        ask(gate, client_key(1), "https://other.test")
        assert [page.origin for page in gate.refusals] == ["https://other.test"]
        assert len(warnings(caplog)) == 1

    # As in a thread of the parent at this moment.
    with gate._enforcement._log._lock:
        assert forked(in_child) == "well"
    assert [page.origin for page in gate.refusals] == [EVIL]


# The log


def test_the_first_refusal_of_each_key_and_page_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gate = gate_of()
    for _ in range(3):
        ask(gate, client_key(1), EVIL)
        ask(gate, client_key(2), ORIGIN)
        ask(gate, client_key(1), "null")
        ask(gate, client_key(1), None)
        ask(gate, client_key(9), EVIL)
        ask(gate, None, EVIL)
    last8 = {number: f"…{client_key(number)[-8:]}" for number in (1, 2)}
    advice = "to allow it, add 'evil.com' to the key's allowed domains"
    assert warnings(caplog) == [
        f"gatekeeper: refused the key {last8[1]} on {EVIL}: origin_not_allowed; {advice}",
        f"gatekeeper: refused the key {last8[2]} on {ORIGIN}: key_disabled",
        f"gatekeeper: refused the key {last8[1]} on null: origin_null",
        f"gatekeeper: refused the key {last8[1]} on a page without an origin: origin_missing",
    ]
    assert client_key(1) not in caplog.text


def test_the_log_says_that_a_request_was_let_through(caplog: pytest.LogCaptureFixture) -> None:
    gate = gate_of(enforce=False)
    ask(gate, client_key(1), EVIL)
    assert warnings(caplog)[1].startswith("gatekeeper: let through, though it would be refused, the key …")


@pytest.mark.parametrize(
    "origin", ["https://evil.com\nforged", "https://evil.com\x1b[2J", "https://evil\u202e.com", "a" * 9999]
)
def test_a_value_that_is_no_origin_is_not_logged(origin: str, caplog: pytest.LogCaptureFixture) -> None:
    ask(gate_of(), client_key(1), origin)
    (line,) = warnings(caplog)
    assert line.endswith("on a page without an origin: origin_malformed")


def log_of(clock: Callable[[], float]) -> tuple[RefusalLog, Callable[[int, int], None]]:
    log = RefusalLog(clock)

    def refuse(key: int, page: int) -> None:
        last8 = f"{key:08d}"
        widget_key = WidgetKey(f"key-{key}", "shop", last8, ())
        log.first(Decision(Reason.ORIGIN_NOT_ALLOWED, widget_key, last8, f"https://{page}.test"), enforce=True)

    return log, refuse


def test_a_flood_of_pages_and_keys_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeClock()
    _, refuse = log_of(fake)
    for page in range(3 * LINES):
        refuse(0, page)
    lines = warnings(caplog)
    assert len(lines) == LINES
    assert [line.endswith("; further pages of this key are not logged for 1 h") for line in lines] == [False] * 9 + [True]
    refuse(1, 0)
    assert len(warnings(caplog)) == LINES + 1
    for key in range(3 * KEYS):
        for page in range(2 * LINES):
            refuse(key, page)
    assert len(warnings(caplog)) == LINES * KEYS
    caplog.clear()
    fake.now += PERIOD + 1
    refuse(0, 99)
    assert len(warnings(caplog)) == 1


def test_no_request_waits_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log, refuse = log_of(FakeClock())
    with log._lock:
        thread = threading.Thread(target=refuse, args=(1, 1))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert warnings(caplog) == []
