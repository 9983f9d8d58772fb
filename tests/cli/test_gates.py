"""gatekeeper gates, against the reference hub and others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatekeeper.cli.gates import concerns, span
from gatekeeper.client import HubClient
from gatekeeper.keys.gate_report import GateReport, GateRow
from gatekeeper.testing.fake_hub import FakeHub, HubAnswer, json_answer
from tests.support.real_hub import Served

from .support import Invoked, Keys, invoke

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
GATES = "/api/v1/gates"


def row(gate_id: str = "a1", *, ago: float = 12, **fields: Any) -> GateRow:
    """A gate with a fresh list that was seen some seconds before noon."""
    usual = {"version": "0.1.0", "is_live": True, "state": "fresh", "list_age": 4.0, "keys": 12, "host": "web-1"}
    return GateRow(**{"id": gate_id, "seen_at": NOON - timedelta(seconds=ago), **usual, **fields})


def show(keys: Keys, *arguments: str) -> Invoked:
    """Run `gatekeeper gates` with the hub of `keys`."""
    return invoke("gates", *arguments, **keys.environment)


def lists(hub: FakeHub, *rows: GateRow) -> None:
    """Let the hub list gates, seen as long ago as they were before noon."""
    shift = datetime.now(UTC) - NOON
    hub.always(
        json_answer(msgspec.to_builtins([msgspec.structs.replace(each, seen_at=each.seen_at + shift) for each in rows]))
    )


# What is shown


def test_the_gates_of_the_reference_hub_are_shown(served: Served, keys: Keys) -> None:
    with HubClient(served.url, served.gate_token) as gate:
        gate.gates.report(GateReport("3f9a", "0.1.0", is_live=True, state="fresh", list_age=4, keys=1204, host="web-1"))
        gate.gates.report(GateReport("90b1", "0.1.0", is_live=False, state="fresh", list_age=61.4, keys=7))
    shown = show(keys)
    assert (shown.code, shown.err) == (0, "")
    titles, *lines = [line.split() for line in shown.out.splitlines()]
    assert titles == ["ID", "HOST", "VERSION", "LIST", "STATE", "AGE", "KEYS", "SEEN"]
    later, earlier = lines
    assert later[:7] == ["90b1", "0.1.0", "polled", "fresh", "1", "min", "7"]
    assert earlier[:8] == ["3f9a", "web-1", "0.1.0", "live", "fresh", "4.0", "s", "1204"]
    assert later[-1] == earlier[-1] == "ago"


def test_a_token_for_all_accounts_shows_the_gates_that_have_one(served: Served, keys: Keys, tmp_path: Path) -> None:
    database = {"GATEKEEPER_DATABASE": str(tmp_path / "hub.db"), "GATEKEEPER_PEPPER": "the pepper of these tests"}
    minted = invoke("hub", "token", "create", "--all-accounts", "--name", "gates", **database)
    token = minted.out.strip()
    with HubClient(served.url, token) as of_all, HubClient(served.url, served.gate_token) as of_acme:
        of_all.gates.report(GateReport("3f9a", "0.1.0", is_live=True, state="fresh", list_age=4, keys=1204))
        of_acme.gates.report(GateReport("90b1", "0.1.0", is_live=True, state="fresh", list_age=4, keys=7))
    shown = invoke("gates", "--json", GATEKEEPER_HUB=served.url, GATEKEEPER_TOKEN=token)
    assert (shown.code, shown.err) == (0, "")
    assert [gate["id"] for gate in shown.json] == ["3f9a"]
    assert [gate["id"] for gate in show(keys, "--json").json] == ["90b1"]


def test_the_list_is_printed_as_json(fake: FakeHub, at_fake: Keys) -> None:
    lists(fake, row(), row("b2", is_live=False, list_age=None, host=None, state="never_loaded", keys=0))
    shown = show(at_fake, "--json")
    assert shown.code == 0
    first, second = shown.json
    assert {name: value for name, value in first.items() if name != "seen_at"} == {
        "id": "a1",
        "version": "0.1.0",
        "is_live": True,
        "state": "fresh",
        "list_age": 4.0,
        "keys": 12,
        "host": "web-1",
    }
    assert (second["list_age"], second["host"]) == (None, None)
    assert datetime.fromisoformat(first["seen_at"]).tzinfo is not None
    assert "has no fresh list" in shown.err


def test_no_gates_are_said_to_be_none(keys: Keys) -> None:
    shown = show(keys)
    assert (shown.code, shown.out) == (0, "")
    assert "no gate has reported itself within 24 hours" in shown.err
    assert show(keys, "--json").json == []


def test_what_a_gate_says_cannot_steer_a_terminal(fake: FakeHub, at_fake: Keys) -> None:
    lists(fake, row(host="\x1b[2Jweb", version="[red]1", state="fresh\x07"))
    shown = show(at_fake)
    assert "\x1b" not in shown.out + shown.err
    assert "\x07" not in shown.out + shown.err
    assert "[red]1" in shown.out


def test_a_gate_seen_in_the_future_was_seen_just_now(fake: FakeHub, at_fake: Keys) -> None:
    lists(fake, row(ago=-3600))
    shown = show(at_fake)
    assert shown.out.splitlines()[1].endswith("0.0 s ago")
    assert shown.err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (8_640_000, "100 d"),
    ],
)
def test_spans_have_two_digits_or_so(seconds: float, text: str) -> None:
    assert span(seconds) == text


# What is warned of


def test_gates_in_order_are_no_concern() -> None:
    assert list(concerns([], NOON)) == []
    assert list(concerns([row(), row("b2", ago=179, is_live=False)], NOON)) == []


@pytest.mark.parametrize("state", ["degraded", "expired", "never_loaded", "new_state"])
def test_a_gate_without_a_fresh_list_is_named(state: str) -> None:
    assert list(concerns([row(), row("b2", state=state)], NOON)) == [
        "1 gate (b2) has no fresh list: see the log and /healthz there"
    ]


def test_gates_of_older_versions_are_named_with_the_newest() -> None:
    gates = [row(version="0.10.0"), row("b2", version="0.9.1"), row("c3"), row("d4", version="0.10.0rc1"), row("e5")]
    assert list(concerns(gates, NOON)) == [
        "3 gates (b2, c3, e5) have an older version than 0.10.0, which others have: update gatekeeper there"
    ]


def test_gates_of_versions_that_cannot_be_compared_are_no_concern() -> None:
    assert list(concerns([row(version="0.2.0.dev1"), row("b2", version="main"), row("c3", version="²")], NOON)) == []


def test_a_gate_that_is_silent_is_named_for_that_alone() -> None:
    gates = [row(version="0.2.0"), row("b2", ago=181, state="degraded"), row("c3", ago=80_000)]
    assert list(concerns(gates, NOON)) == [
        "2 gates (b2, c3) have not reported for 3 minutes: stopped, or cut off from the hub"
    ]


def test_a_warning_names_three_gates_at_most(fake: FakeHub, at_fake: Keys) -> None:
    lists(fake, row(), *(row(f"b{number}", state="expired") for number in range(5)))
    shown = show(at_fake)
    assert shown.code == 0
    assert "gatekeeper: 5 gates (b0, b1, b2 and 2 more) have no fresh list" in shown.err
    assert len(shown.out.splitlines()) == 7


# Hubs that list no gates


@pytest.mark.parametrize("status", [404, 405])
def test_a_hub_without_gates_is_said_to_be_one(fake: FakeHub, at_fake: Keys, status: int) -> None:
    fake.always(json_answer({"detail": "Not Found"}, status))
    shown = show(at_fake)
    assert (shown.code, shown.out) == (1, "")
    assert "this hub does not list gates; newer versions of the reference hub do" in shown.err
    assert f"{GATES} answered {status}" in shown.err


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (HubAnswer(200, b"<html>"), 2, "this hub does not list gates"),
        (json_answer({"detail": "no"}, 401), 1, "the token is unknown or revoked"),
        (json_answer({"detail": "no"}, 501), 3, "answered 501"),
        (HubAnswer(302, headers={"location": "https://login.example"}), 2, "a redirect"),
    ],
)
def test_other_failures_have_the_usual_codes(fake: FakeHub, at_fake: Keys, answer: HubAnswer, code: int, said: str) -> None:
    fake.always(answer)
    shown = show(at_fake)
    assert (shown.code, shown.out) == (code, "")
    assert said in shown.err


def test_a_gate_token_is_told_which_one_is_needed(served: Served) -> None:
    shown = invoke("gates", GATEKEEPER_HUB=served.url, GATEKEEPER_TOKEN=served.gate_token)
    assert (shown.code, shown.out) == (1, "")
    assert "gatekeeper hub token create --scope admin" in shown.err
