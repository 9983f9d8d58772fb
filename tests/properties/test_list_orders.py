"""Two event loops, one index: whole lists, changes and held answers in any order, judged by the hub's own history.

A key's state is the number of the list that made it. No order of answers may show a key in a state older than one that was
shown before, and after one more answer the index has the hub's list.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import Basis, Delta, FullList, Listing, RefreshReport, Unchanged, Updates
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.sync.list_sync import ListSync, SyncOptions
from gatekeeper.sync.updating import Fetch, ListUpdater
from gatekeeper.testing import FakeClock
from tests.support.rows import as_json, row

KEYS = range(5)  # fewer than those of which a list may lack most
LOOPS = range(2)

State = Mapping[int, int]  # by key, the number of the list that made its row


class History:
    """The hub's lists, by number."""

    def __init__(self) -> None:
        self.lists: list[State] = [dict.fromkeys(KEYS, 0)]

    def change(self, key: int) -> None:
        """Change or add the row of a key."""
        self.lists.append({**self.lists[-1], key: len(self.lists)})

    def remove(self, key: int) -> None:
        """Remove the row of a key."""
        self.lists.append({each: made for each, made in self.lists[-1].items() if each != key})

    def answer(self, basis: Basis, number: int, *, as_changes: bool) -> FullList | Unchanged | Delta:
        """What the hub answers that has read a list."""
        listed, etag = self.lists[number], str(number)
        granted = None if basis.wait is None else float(basis.wait)
        if basis.validator == etag:
            return Unchanged(granted)
        if basis.validator is None or not as_changes:
            return FullList(Listing.whole(as_json(*map(made_row, listed.items())), etag), granted)
        before = self.lists[int(basis.validator)]
        changed = [made_row(item) for item in listed.items() if before.get(item[0]) != item[1]]
        gone = [{"id": f"key-{key}", "last8": f"{key:08d}", "removed": True} for key in before.keys() - listed.keys()]
        return Delta(Listing.whole(as_json(*changed, *gone), etag), basis.validator, granted)


def made_row(item: tuple[int, int]) -> dict[str, Any]:
    """The row of a key in a state. No time in it tells which of two rows is older."""
    key, made = item
    return row(key, name=str(made), updated_at=None)


class Source:
    """Answers a question of an event loop when the test says so."""

    account, suffix_field, fingerprint = "acme", "last8", "history"

    def __init__(self, history: History) -> None:
        self.history = history
        self.basis: Basis | None = None
        self.asked_of = 0  # the list of the hub at the question
        self._answer: asyncio.Future[FullList | Unchanged | Delta] = asyncio.Future()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Connect."""
        yield self.updates

    @asynccontextmanager
    async def updates(self, basis: Basis) -> AsyncIterator[FullList | Unchanged | Delta]:
        """Wait for the test's answer."""
        self.basis, self.asked_of, self._answer = basis, len(self.history.lists) - 1, asyncio.Future()
        answer = await self._answer
        yield answer

    def answer(self, share: float, *, as_changes: bool) -> None:
        """Answer with one of the lists that there were since the question."""
        basis, self.basis = self.basis, None
        if basis is not None:
            since = len(self.history.lists) - self.asked_of
            number = self.asked_of + min(since - 1, int(share * since))
            self._answer.set_result(self.history.answer(basis, number, as_changes=as_changes))


class World:
    """A hub, an index, and two event loops that fetch."""

    def __init__(self) -> None:
        self.history, self.time, self.index = History(), FakeClock(), KeyIndex(account="acme")
        self.sources = [Source(self.history) for _ in LOOPS]
        self.sync = ListSync(
            self.sources[0],
            self.index,
            SyncOptions(clock=self.time, sleep=self.time.sleep, jitter=lambda: 0.5),
            on_change=lambda: None,
            on_deadline=lambda _: None,
            take_used_keys=Counter,
            take_refused=list,
        )
        self.updaters: list[ListUpdater] = [self.sync.new_refresher().updater for _ in LOOPS]
        self.fetches: list[asyncio.Task[RefreshReport] | None] = [None for _ in LOOPS]
        self.oldest: dict[int, int] = {}  # by key, the oldest state that may be shown

    async def ask(self, loop: int, *, wait: bool) -> None:
        """Begin a fetch in one of the event loops, unless one runs."""
        task = self.fetches[loop]
        if task is None or task.done():
            fetch = Fetch(wait=9 if wait else None)
            self.fetches[loop] = asyncio.create_task(self.updaters[loop].update(self.sources[loop].updates, fetch))
        await self.settle()

    async def settle(self) -> None:
        """Let each fetch go on until it waits for its answer, or has ended."""
        for task, source in zip(self.fetches, self.sources, strict=True):
            while task is not None and not task.done() and source.basis is None:  # noqa: ASYNC110 - its turn is no event
                await asyncio.sleep(0)

    @property
    def shown(self) -> dict[int, int]:
        """The states in the index."""
        return {int(key.last8): int(key.name or "") for key in self.index}

    def check(self) -> None:
        """No key is shown in an older state than before."""
        shown, lists = self.shown, self.history.lists
        for key, made in shown.items():
            assert made >= self.oldest.get(key, 0), (key, made, self.oldest)
            self.oldest[key] = made
        for key in self.oldest.keys() - shown.keys():
            made = self.oldest[key]
            gone = next(number for number in range(made, len(lists)) if key not in lists[number])
            self.oldest[key] = max(made, gone)


STEPS = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(KEYS)),
    st.tuples(st.just("remove"), st.sampled_from(KEYS)),
    st.tuples(st.just("ask"), st.sampled_from(LOOPS), st.booleans()),
    st.tuples(st.just("answer"), st.sampled_from(LOOPS), st.floats(0, 1), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0, 20)),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(STEPS, min_size=10, max_size=60))
def test_no_order_of_answers_undoes_a_change(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        world = World()
        for step in steps:
            match step:
                case "change", key:
                    world.history.change(key)
                case "remove", key:
                    world.history.remove(key)
                case "ask", loop, wait:
                    await world.ask(loop, wait=wait)
                case "answer", loop, share, as_changes:
                    world.sources[loop].answer(share, as_changes=as_changes)
                case "wait", seconds:
                    world.time.now += seconds
            world.time.now += 0.001
            await world.settle()
            world.check()
        while any(task is not None and not task.done() for task in world.fetches):
            for source in world.sources:
                source.answer(1.0, as_changes=True)
            await world.settle()
            world.check()
        await world.ask(0, wait=False)
        world.sources[0].answer(1.0, as_changes=True)
        await world.settle()
        world.check()
        assert world.shown == world.history.lists[-1]
        assert all(task is None or task.result().outcome != "failed" for task in world.fetches)

    asyncio.run(run())
