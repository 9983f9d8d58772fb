"""Turns: their order, their bounds, and waits that end without one."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.turns import LATE_SHARE, Turns

pytestmark = pytest.mark.anyio

LONG = 60.0  # seconds; no test waits so long


class Crowd:
    """Tasks that take turns, each until it is told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def come(self, *names: str, late: bool = False) -> None:
        """Let tasks ask for a turn, one after another. The account is the name's first letter."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._take(name, late=late))
            await settle()

    async def end(self, name: str) -> None:
        """Let a task end its turn."""
        self._ends[name].set()
        await self.tasks[name]
        await settle()

    async def end_all(self) -> list[str]:
        """End turns in the order in which they were given, and return that order."""
        for position, _ in enumerate(self.tasks):
            await self.end(self.order[position])
        return self.order

    async def _take(self, name: str, *, late: bool) -> None:
        async with self.turns.taking(name[0], late=late):
            self.order.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def turns(places: int, *, each: int | None = None, patience: float | None = LONG) -> Turns:
    return Turns(places, "to write", patience=patience, each=each)


async def test_accounts_take_turns_and_each_one_keeps_its_order() -> None:
    crowd = Crowd(turns(1))
    await crowd.come("a0", "a1", "a2", "a3", "b1", "b2", "c1")
    assert await crowd.end_all() == ["a0", "a1", "b1", "c1", "a2", "b2", "a3"]


async def test_reports_come_after_all_others_whenever_those_came() -> None:
    crowd = Crowd(turns(1))
    await crowd.come("a0")
    await crowd.come("r1", "r2", late=True)
    await crowd.come("a1", "b1")
    assert await crowd.end_all() == ["a0", "a1", "b1", "r1", "r2"]


async def test_a_steady_stream_of_writes_leaves_reports_a_turn_now_and_then() -> None:
    crowd = Crowd(turns(1))
    await crowd.come("r0", late=True)  # the count starts here
    await crowd.come("r1", "r2", late=True)
    await crowd.come(*(f"a{number}" for number in range(3 * LATE_SHARE)))
    order = await crowd.end_all()
    assert [order.index(name) for name in ("r1", "r2")] == [LATE_SHARE + 1, 2 * LATE_SHARE + 2]


async def test_an_account_holds_a_bounded_number_of_turns() -> None:
    crowd = Crowd(turns(10, each=2))
    await crowd.come("a1", "a2", "a3", "b1")
    assert crowd.order == ["a1", "a2", "b1"]
    assert crowd.turns.held == 3
    await crowd.end("a2")
    assert crowd.order == ["a1", "a2", "b1", "a3"]
    for name in ("a1", "a3", "b1"):
        await crowd.end(name)
    assert crowd.turns.held == 0


async def test_what_is_of_no_account_may_take_all_places() -> None:
    bounded = turns(3, each=1)
    async with bounded.taking(""), bounded.taking(""), bounded.taking(""):
        assert bounded.held == 3


async def test_a_few_accounts_cannot_take_all_places() -> None:
    crowd = Crowd(turns(12, each=12))
    await crowd.come(*(f"a{number:02}" for number in range(12)))
    await crowd.come(*(f"b{number:02}" for number in range(12)))
    await crowd.come(*(f"c{number:02}" for number in range(12)))
    assert Counter(name[0] for name in crowd.order) == {"a": 6, "b": 3, "c": 2}
    await crowd.come("d1")
    assert crowd.order[-1] == "d1"
    assert len(await crowd.end_all()) == 37


async def test_a_wait_that_is_too_long_is_an_overload_and_leaves_the_queue() -> None:
    impatient = turns(1, patience=0.01)
    async with impatient.taking("acme"):
        for late in (False, True):
            with pytest.raises(HubOverloaded, match=r"account globex has waited 0\.01 s for its turn to write; try again"):
                async with impatient.taking("globex", late=late):
                    pytest.fail("it has a turn")
        assert impatient.held == 1
    async with impatient.taking("globex"):
        assert impatient.held == 1
    assert impatient.held == 0


async def test_an_overload_of_tokens_for_all_accounts_says_so() -> None:
    impatient = turns(1, patience=0.01)
    with pytest.raises(HubOverloaded, match="a request of the tokens for all accounts has waited"):
        async with impatient.taking("acme"), impatient.taking(ALL_ACCOUNTS):
            pytest.fail("it has a turn")


async def test_an_overload_without_an_account_names_none() -> None:
    impatient = turns(1, patience=0.01)
    with pytest.raises(HubOverloaded, match="a request has waited"):
        async with impatient.taking(""), impatient.taking(""):
            pytest.fail("it has a turn")


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancelled_wait_leaves_the_queue(late: bool) -> None:  # noqa: FBT001 - a case of the table
    crowd = Crowd(turns(1))
    await crowd.come("a1")
    await crowd.come("b1", late=late)
    crowd.tasks["b1"].cancel()
    await crowd.come("c1")
    await crowd.end("a1")
    assert crowd.order == ["a1", "c1"]
    await crowd.end("c1")
    assert crowd.turns.held == 0


async def test_a_turn_that_comes_with_the_cancellation_is_given_on() -> None:
    crowd = Crowd(turns(1))
    await crowd.come("a1", "b1", "c1")
    crowd._ends["a1"].set()
    await crowd.tasks["a1"]
    crowd.tasks["b1"].cancel()  # it has got its turn, and does not know yet
    await settle()
    assert crowd.order == ["a1", "c1"]
    await crowd.end("c1")
    assert crowd.turns.held == 0


@given(st.integers(1, 4), st.none() | st.integers(1, 3), st.lists(st.tuples(st.sampled_from("abcd"), st.booleans())))
def test_no_place_is_wasted_and_no_bound_is_exceeded(places: int, each: int | None, comers: list[tuple[str, bool]]) -> None:
    """Whatever comes, a task waits only if all places are taken or its account has its share."""
    names = [f"{account}{number}" for number, (account, _) in enumerate(comers)]

    async def run() -> None:
        crowd = Crowd(turns(places, each=each))
        for name, (_, late) in zip(names, comers, strict=True):
            await crowd.come(name, late=late)
        ended = 0
        while ended < len(names):
            holding = crowd.order[ended:]
            held, free = Counter(name[0] for name in holding), places - len(holding)
            assert free >= 0
            assert crowd.turns.held == len(holding)
            for name in set(names) - set(crowd.order):
                assert not free or (each is not None and held[name[0]] >= min(each, free))
            await crowd.end(crowd.order[ended])
            ended += 1

    asyncio.run(run())


async def test_nothing_is_left_of_many_turns() -> None:
    crowd = turns(3, each=2)
    async with AsyncExitStack() as stack:
        for account in ("acme", "globex", "initech"):
            await stack.enter_async_context(crowd.taking(account))
    assert (crowd._held_by, crowd._waiting, crowd._late) == (Counter(), {}, {})
