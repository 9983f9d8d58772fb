"""Shares: what accounts leave to one another."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.hub.shares import Shares


def test_an_account_can_have_half_and_the_next_ones_find_some() -> None:
    shares = Shares(100)
    assert not shares.take("acme", 51)
    assert shares.take("acme", 50)
    assert not shares.take("acme", 1)
    assert not shares.take("globex", 26)
    assert shares.take("globex", 25)
    assert shares.take("initech", 12)


def test_what_is_given_back_can_be_taken_again() -> None:
    shares = Shares(100)
    assert shares.take("acme", 50)
    shares.give_back("acme", 50)
    assert shares.take("globex", 50)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans())))
def test_no_more_is_taken_than_is_left_to_others(steps: list[tuple[str, int, bool]]) -> None:
    shares, parts = Shares(100), list[tuple[str, int]]()
    for account, amount, takes in steps:
        taken = Counter[str]()
        for owner, part in parts:
            taken[owner] += part
        if takes:
            is_free = taken[account] + amount <= 100 - taken.total() - amount
            assert shares.take(account, amount) is is_free
            if is_free:
                parts.append((account, amount))
        elif parts:
            shares.give_back(*parts.pop())
