"""The statuses of several accounts, put together."""

import itertools
from typing import Any

import pytest

from gatekeeper.sync.status import State, Status, combined


def status(state: State = "fresh", age: float | None = 1.0, **fields: Any) -> Status:
    usual: dict[str, Any] = {"keys": 0, "generation": 0, "etag": None, "last_error": None}
    return Status(state, age, **{**usual, "ambiguous": (), "rejected": (), "counters": {}, **fields})


NEVER = status("never_loaded", None)


@pytest.mark.parametrize(
    ("statuses", "account"),
    [
        ({"acme": status()}, "acme"),
        ({"acme": status(age=1), "globex": status(age=2)}, "globex"),
        ({"acme": status(age=900), "globex": status("degraded", 61)}, "globex"),
        ({"acme": status("degraded", 900), "globex": status("expired", 100)}, "globex"),
        ({"acme": status("expired", 90_000), "globex": NEVER}, "globex"),
        ({"acme": status("degraded", 61), "globex": status("degraded", 70), "initech": status(age=80)}, "globex"),
        ({"acme": status("degraded", 0.0, from_snapshot=True), "globex": status("fresh", 9)}, "acme"),
        ({"acme": status("expired", 100), "globex": status("expired", 200)}, "globex"),
        ({"globex": NEVER, "acme": NEVER}, "acme"),
        ({"globex": status(), "acme": status()}, "acme"),
    ],
)
def test_the_worst_account_gives_its_name_state_and_age(statuses: dict[str, Status], account: str) -> None:
    for order in itertools.permutations(statuses.items()):
        together = combined(dict(order))
        assert (together.account, together.state, together.age) == (account, statuses[account].state, statuses[account].age)


def test_what_only_one_list_can_say_is_what_the_worst_one_says() -> None:
    bad = status(
        "degraded", 61, etag='W/"2"', last_error="the hub answered 503", from_snapshot=True, enforce=False, observed=3
    )
    together = combined({"acme": status(etag='W/"1"', last_error="it timed out"), "globex": bad})
    assert (together.etag, together.last_error, together.from_snapshot) == ('W/"2"', "the hub answered 503", True)
    assert (together.enforce, together.observed) == (False, 3)


def test_an_error_of_a_list_that_is_not_the_worst_is_not_told() -> None:
    assert combined({"acme": status(age=1, last_error="late"), "globex": status(age=2)}).last_error is None


def test_numbers_are_those_of_all_accounts() -> None:
    acme = status(keys=50, generation=3, held=1, rejected_rows=2, counters={"revocations": 2, "refresh_failed": 1})
    globex = status(keys=7, generation=1, held=4, rejected_rows=1, counters={"revocations": 5})
    together = combined({"acme": acme, "globex": globex})
    assert (together.keys, together.generation, together.held, together.rejected_rows) == (57, 4, 5, 3)
    assert together.counters == {"revocations": 7, "refresh_failed": 1}


@pytest.mark.parametrize(
    ("lags", "expected"),
    [((None, None), None), ((3.0, None), 3.0), ((None, 0.0), 0.0), ((1.0, 8.0), 8.0), ((8.0, 1.0), 8.0)],
)
def test_the_lag_of_revocations_is_the_longest(lags: tuple[float | None, float | None], expected: float | None) -> None:
    first, second = lags
    together = combined({"acme": status(revocation_lag=first), "globex": status(age=5, revocation_lag=second)})
    assert together.revocation_lag == expected


def test_the_lag_of_the_event_loop_is_the_longest() -> None:
    assert combined({"acme": status(event_loop_lag=0.5), "globex": status(age=5)}).event_loop_lag == 0.5


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ((None, None), None),
        (("gate", None), "gate"),
        (("gate", "gate"), "gate"),
        (("gate", "admin"), "admin"),
        ((None, "admin"), "admin"),
    ],
)
def test_a_token_that_may_change_keys_is_always_told(scopes: tuple[Any, Any], expected: str | None) -> None:
    for first, second in (scopes, scopes[::-1]):
        together = combined({"acme": status(token_scope=first), "globex": status(age=5, token_scope=second)})
        assert together.token_scope == expected


@pytest.mark.parametrize("field", ["is_refreshing", "is_live"])
def test_what_has_to_hold_for_each_list_holds_only_for_all(field: str) -> None:
    for values in itertools.product((True, False), repeat=2):
        fields: list[dict[str, Any]] = [{field: value} for value in values]
        together = combined({"acme": status(**fields[0]), "globex": status(**fields[1])})
        assert getattr(together, field) is all(values)


def test_ambiguous_keys_and_bad_rows_name_their_accounts() -> None:
    acme = status(ambiguous=("abcd1234",), rejected=("row 3: name",))
    globex = status("degraded", 90, ambiguous=("abcd1234", "wxyz9876"), rejected=("row 1: id",))
    together = combined({"acme": acme, "globex": globex})
    assert together.ambiguous == ("acme: abcd1234", "globex: abcd1234", "globex: wxyz9876")
    assert together.rejected == ("acme: row 3: name", "globex: row 1: id")


def test_what_is_named_is_bounded_for_thousands_of_accounts() -> None:
    bad = status(ambiguous=("abcd1234", "wxyz9876"), rejected=tuple(f"row {n}: id" for n in range(10)))
    together = combined({f"a{n}": bad for n in range(2000)})
    assert (len(together.ambiguous), len(together.rejected)) == (100, 10)
    assert together.rejected[-1] == "a0: row 9: id"


def test_no_account_at_all_is_fresh_and_has_no_keys() -> None:
    together = combined({})
    assert (together.state, together.age, together.keys, together.account) == ("fresh", None, 0, None)
    assert (together.counters, together.ambiguous, together.rejected, together.last_error) == ({}, (), (), None)
    assert (together.is_refreshing, together.is_live) == (False, False)


def test_counts_of_removed_accounts_stay() -> None:
    removed = {"revocations": 3, "refresh_failed": 1}
    together = combined({"acme": status(counters={"revocations": 2})}, removed)
    assert together.counters == {"revocations": 5, "refresh_failed": 1}
    assert combined({}, removed).counters == removed


def test_the_statuses_stay_as_they_were() -> None:
    counters = {"revocations": 1}
    combined({"acme": status(counters=counters), "globex": status(counters={"revocations": 1})})
    assert counters == {"revocations": 1}
