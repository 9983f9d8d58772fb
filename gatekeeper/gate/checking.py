"""Checker: decides on requests, after the waits that help."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import cast

import anyio

from gatekeeper.gate.deciding import Deciding
from gatekeeper.gate.decisions import Conflict, Decision, Reason
from gatekeeper.gate.memo import Memo, Remembered
from gatekeeper.gate.open_streams import OpenStream
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.gate.remembering import has_grant
from gatekeeper.gate.source_list import SourceList
from gatekeeper.gate.source_lists import SourceLists
from gatekeeper.sync.lifecycle import Lifecycle
from gatekeeper.sync.refresher import Refresher
from gatekeeper.sync.running import RunningLists

__all__ = ("Checker",)

Running = Sequence[tuple[SourceList, Refresher | None]]

_HELPED_BY_LISTS = frozenset({Reason.NOT_READY, Reason.KEY_UNKNOWN})


class Checker:
    """Decides on requests, and waits where that helps.

    A request waits for the lists alone that may have its key: for the first one of each, where its refresher is overdue,
    and with an unknown key. If another list decides meanwhile, it does not wait any longer.

    Args:
        lists: the lists of the gate.
        deciding: decides.
        memo: counts the decisions.
        lifecycle: runs the refreshers.
    """

    def __init__(
        self,
        lists: SourceLists,
        deciding: Deciding,
        memo: Memo,
        lifecycle: Lifecycle,
    ) -> None:
        self._lists = lists
        self._deciding = deciding
        self._memo = memo
        self._lifecycle = lifecycle

    # Not a coroutine function, as others that only pass a call on: each would cost a request one more coroutine.
    def check_request(self, identity: RequestIdentity) -> Awaitable[Decision]:
        """Decide on a request.

        Args:
            identity: what it sends.
        """
        return self._check(self._lists_of(identity), identity[0], partial(self._deciding.requests.decide, identity))

    def check_key(self, key: bytes | Conflict | None, decide: Callable[[], Remembered]) -> Awaitable[Decision]:
        """Decide on a client key.

        Args:
            key: the key.
            decide: decides by the lists as they are.
        """
        return self._check(self._lists_of((key, None)), key, decide)

    async def watch(self, stream: OpenStream, *, enforce: bool) -> None:
        """Close a stream once its request is no longer allowed.

        Args:
            stream: a stream that has just been opened in this event loop.
            enforce: whether refused streams are closed now.
        """
        while (by := self._watching(stream.identity, enforce=enforce)) is not None and by.streams is not None:
            refresher = await self._lifecycle.started(by.tasks)
            if not by.tasks.is_removed:
                if refresher is not None:
                    await by.streams.here().add(stream)
                return
        if by is None and enforce:
            await stream.close(self._deciding.requests.decide_again(stream.identity))

    def _watching(self, identity: RequestIdentity, *, enforce: bool) -> SourceList | None:
        """The list whose changes concern a stream, if there is one."""
        if not self._lists.are_several:
            return self._lists.all[0]
        decision = self._deciding.requests.decide_again(identity)
        by = self._lists.get(decision.account) or next(iter(self._lists_of(identity)), None)
        if by is not None or enforce:
            return by
        # A gate that observes has streams of no list, too. It may enforce later. Those that have come need no wait.
        return min(self._lists.all, key=lambda each: not each.sync.freshness.has_list, default=None)

    async def _check(
        self, lists: Sequence[SourceList], key: bytes | Conflict | None, decide: Callable[[], Remembered]
    ) -> Decision:
        here = self._lifecycle.running()
        if here is not None and (overdue := [each for each in lists if each.sync.is_overdue]):
            await self._catch_up(await _refreshers(here, overdue))
        remembered = decide()
        if here is not None and remembered.decision.reason in _HELPED_BY_LISTS:
            has_crashed = any(here.has_crashed(each.tasks) for each in lists)
            running = await _refreshers(here, lists)
            if has_crashed:  # lists may have come while it was brought back
                remembered = decide()
            if remembered.decision.reason is Reason.NOT_READY and await self._first_lists(running, decide):
                remembered = decide()
            if remembered.decision.reason is Reason.KEY_UNKNOWN and await self._new_keys(key, running, decide):
                remembered = decide()
        return self._memo.use(remembered)

    async def _catch_up(self, overdue: Running) -> None:
        """Wait for lists that are overdue, because the process was frozen."""
        async with anyio.create_task_group() as group:
            for each, refresher in overdue:
                if refresher is not None:
                    group.start_soon(refresher.schedule.catch_up, each.new_keys.wait)

    async def _first_lists(self, running: Running, decide: Callable[[], Remembered]) -> bool:
        """Wait for first lists; whether it is worth deciding again."""
        timeout = self._lifecycle.start_timeout
        late = [refresher for each, refresher in running if refresher is not None and not each.sync.freshness.has_list]
        waits = [partial(refresher.schedule.first_list, timeout) for refresher in late]
        # Another event loop may have fetched a list meanwhile.
        return not late or await _any_of(waits, lambda: decide().decision.reason is not Reason.NOT_READY)

    async def _new_keys(self, key: bytes | Conflict | None, running: Running, decide: Callable[[], Remembered]) -> bool:
        """Wait for lists that have an unknown key; whether it is worth deciding again."""
        to_come = self._deciding.keys.lists_to_come(key)
        waits = [partial(each.new_keys.may_have_come, decide, refresher) for each, refresher in running if each in to_come]
        return await _any_of(waits, lambda: decide().decision.reason is not Reason.KEY_UNKNOWN)

    def _lists_of(self, identity: RequestIdentity) -> Sequence[SourceList]:
        """The lists that decide on a request."""
        if not self._lists.are_several:
            return self._lists.all
        granting, keys = self._deciding.granting, self._deciding.keys
        found = granting.lists_of(identity) if has_grant(identity) else keys.lists_of(identity[0])
        return cast("Sequence[SourceList]", found)  # they are those of `lists`


async def _refreshers(here: RunningLists, lists: Sequence[SourceList]) -> Running:
    return [(each, await here.refresher(each.tasks)) for each in lists]


async def _any_of(waits: Sequence[Callable[[], Awaitable[bool]]], is_enough: Callable[[], bool]) -> bool:
    """Wait at once for all of these, or until it is enough; whether it is worth deciding again."""
    if len(waits) <= 1:
        return bool(waits) and await waits[0]()
    async with anyio.create_task_group() as group:

        async def wait_for(wait: Callable[[], Awaitable[bool]]) -> None:
            if await wait() and is_enough():
                group.cancel_scope.cancel()

        for wait in waits:
            group.start_soon(wait_for, wait)
    return True  # the group has yielded to the event loop, so a list may have come
