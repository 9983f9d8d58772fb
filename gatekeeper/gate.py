"""Gatekeeper: owns the index, the memo of decisions and the refreshers, and decides."""

import asyncio
import contextvars
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
from anyio.lowlevel import RunVar
from cachetools import FIFOCache

from gatekeeper.allowlist import Allowlist
from gatekeeper.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.errors import ConfigError, InvalidClientKey, InvalidOrigin
from gatekeeper.freshness import Clock, Freshness, RefreshReport, Status, boot_clock, boot_sleep
from gatekeeper.index import EnabledOrigins, IndexedKey, KeyIndex
from gatekeeper.keys import ClientKey, WidgetKey
from gatekeeper.origins import MAX_ORIGIN_LENGTH, Origin
from gatekeeper.refresh import Refresher
from gatekeeper.snapshot import Snapshot
from gatekeeper.sources import Source, StaticSource

__all__ = ("Gatekeeper", "Page", "read_page")

# An entry takes about 0.5 KB, and a flood of origins fills the memo: 4 MB.
MEMO_SIZE = 8192
RETRY_AFTER_NOT_READY = 2  # seconds: the refresher's own ceiling while there is no list
RETRY_AFTER_EXPIRED = 30  # seconds: its ceiling with one

# (client key, origin), or (client key, None, referer)
MemoKey = tuple[bytes | Conflict | None, bytes | Conflict | None] | tuple[bytes, None, bytes]


class Gatekeeper:
    """Decides which pages may use which client keys, without any IO while a request waits.

    Use it as an async context manager, give its `lifespan` to Starlette or FastAPI, or leave it to its first request.

    Args:
        source: where the list of widget keys comes from.
        refresh_interval: seconds between two fetches of the list, ± 20 %.
        snapshot_path: the file that keeps the list for the next start; several processes may share it. Nothing is kept
            without.
        https_only: allow no page over http, except on loopback names.
        account: the account that client keys have to name; by default the one that the source knows.
        key_prefix: what every client key begins with.
        unknown_key_wait: seconds that a request with an unknown key waits for a fresher list; 0 for not at all.
        start_timeout: seconds from the start in which requests wait for the first list.
        soft_stale: seconds after which the list counts as degraded; it still decides.
        hard_stale: seconds after which the list decides nothing any more; 0 for never.
        fetch_timeout: seconds that one fetch of the list may take in all.
        clock: gives seconds that never run backwards.
        wall_clock: gives seconds since 1970.
        sleep: waits for seconds, between two fetches.
        jitter: gives a number from 0 to 1, to spread fetches.

    Attributes:
        https_only: as given.
        memo: what was decided since keys last changed, by what the request sent.

    Raises:
        ConfigError: listing everything that is wrong with the arguments.
    """

    def __init__(
        self,
        source: Source | StaticSource,
        *,
        refresh_interval: float = 10.0,
        snapshot_path: str | Path | None = None,
        https_only: bool = False,
        account: str | None = None,
        key_prefix: str = "pk_live_",
        unknown_key_wait: float = 0.5,
        start_timeout: float = 5.0,
        soft_stale: float = 60.0,
        hard_stale: float = 86_400.0,
        fetch_timeout: float = 30.0,
        clock: Clock = boot_clock,
        wall_clock: Clock = time.time,
        sleep: Callable[[float], Awaitable[None]] = boot_sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        positive = {"refresh_interval": refresh_interval, "fetch_timeout": fetch_timeout, "soft_stale": soft_stale}
        not_negative = {
            "unknown_key_wait": unknown_key_wait,
            "start_timeout": start_timeout,
            "hard_stale": hard_stale,
        }
        if problems := tuple(_problems(source, key_prefix, positive, not_negative)):
            raise ConfigError(problems)
        self.https_only = https_only
        self.memo = _new_memo()
        self._key_prefix = key_prefix
        self._unknown_key_wait = unknown_key_wait
        self._start_timeout = start_timeout
        self._index = KeyIndex(account=account or source.account, https_only=https_only)
        self._freshness = Freshness(soft_stale=soft_stale, hard_stale=hard_stale, clock=clock)
        self._memo_lock = Lock()
        self._running_refreshers = 0
        self._forks_are_watched = False
        self._here: RunVar[_Running | None] = RunVar("gatekeeper: the refresher of this event loop", None)
        self._new_refresher: Callable[[], Refresher] | None = None
        if isinstance(source, StaticSource):
            self._load(source.rows)
            return
        live = source
        snapshot = None
        if snapshot_path is not None:
            snapshot = Snapshot(
                snapshot_path,
                account=self._index.account,
                fingerprint=lambda: live.fingerprint,
                wall_clock=wall_clock,
            )
        self._new_refresher = lambda: Refresher(
            live,
            self._index,
            self._freshness,
            self.forget,
            snapshot=snapshot,
            interval=refresh_interval,
            timeout=fetch_timeout,
            clock=clock,
            wall_clock=wall_clock,
            sleep=sleep,
            jitter=jitter,
        )

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[WidgetKey | Mapping[str, Any]],
        *,
        https_only: bool = False,
        account: str | None = None,
        key_prefix: str = "pk_live_",
    ) -> Self:
        """A gate for rows that never change: for tests and tools.

        Args:
            rows: widget keys, or mappings with the fields that the hub's JSON has.
            https_only: as for the class.
            account: as for the class.
            key_prefix: as for the class.

        Returns:
            The gate, ready to decide; it needs no starting.

        Raises:
            ConfigError: listing every row that is not a widget key, and why.
        """
        return cls(StaticSource(rows, account=account), https_only=https_only, key_prefix=key_prefix)

    def decide(
        self,
        client_key: str | bytes | Conflict | None,
        origin: str | bytes | Conflict | None,
        *,
        referer: str | bytes | Conflict | None = None,
    ) -> Decision:
        """Decide at once, from what is in memory.

        Args:
            client_key: the key that the request names; None where it names none.
            origin: the value of its Origin header; None where there is none.
            referer: the value of its Referer header, which counts only where there is no Origin.

        Returns:
            The decision, whatever was given; nothing raises.
        """
        key, origin = _bytes(client_key), _bytes(origin)
        referer = _bytes(referer) if origin is None else None
        memo = self.memo
        memo_key = _memo_key(key, origin, referer)
        if memo_key is not None:
            with suppress(KeyError):
                return memo[memo_key]
        decision = self._decide(key, read_page(origin, referer))
        # Only what some key's row decided is kept, or strangers could fill the memo; and only while somebody empties it.
        if memo_key is not None and decision.key is not None and self._is_kept_fresh:
            self._remember(memo, memo_key, decision)
        return decision

    async def check(
        self,
        client_key: str | bytes | Conflict | None,
        origin: str | bytes | Conflict | None,
        *,
        referer: str | bytes | Conflict | None = None,
    ) -> Decision:
        """Decide as `decide` does; start if need be, and let an unknown key wait for a fresher list.

        Args:
            client_key: as for `decide`.
            origin: as for `decide`.
            referer: as for `decide`.

        Returns:
            The decision, whatever was given.
        """
        refresher = await self._started()
        decision = self.decide(client_key, origin, referer=referer)
        if decision.reason is Reason.KEY_UNKNOWN and refresher is not None and self._may_become_known(client_key):
            await refresher.refresh_for_stranger(self._unknown_key_wait)
            decision = self.decide(client_key, origin, referer=referer)
        return decision

    async def refresh(self) -> RefreshReport:
        """Fetch the list once more, beginning after this call; start if need be.

        Returns:
            What it came to.
        """
        refresher = await self._started()
        return RefreshReport("unchanged") if refresher is None else await refresher.refresh()

    @property
    def status(self) -> Status:
        """How fresh the list is, and what has happened to it."""
        return self._freshness.status(len(self._index))

    def allowlist(self, key: WidgetKey) -> Allowlist | None:
        """The compiled allowlist of a key; None if the key is gone."""
        known = self._index.get(key)
        return None if known is None else known.allowlist

    def enabled_origins(self) -> EnabledOrigins:
        """What the enabled keys allow between them, now and after every later change."""
        return self._index.enabled_origins()

    def forget(self) -> None:
        """Drop the memo, because what was decided may not hold any more."""
        self.memo = _new_memo()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 - it is called with the app
        """Run for as long as an app does: `Starlette(lifespan=gate.lifespan)`, `FastAPI(lifespan=gate.lifespan)`."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        running = await self._running()
        if running is not None:
            running.users += 1
            try:
                await running.refresher.first_list(self._start_timeout)
            except BaseException:
                await self._leave(running)
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        running = self._here.get()
        if running is not None:
            await self._leave(running)

    async def _leave(self, running: "_Running") -> None:
        running.users -= 1
        if running.users <= 0:
            # Whoever enters from now on starts another one.
            self._here.set(None)
            await running.stop()

    def _may_become_known(self, client_key: str | bytes | Conflict | None) -> bool:
        if not self._unknown_key_wait or not isinstance(client_key, str | bytes):
            return False
        # No list of ours ever has another account's key, so that strangers cannot use up what minted keys need.
        return self._index.account in (None, ClientKey.parse(client_key, prefix=self._key_prefix).account)

    def _remember(self, memo: FIFOCache[MemoKey, Decision], memo_key: MemoKey, decision: Decision) -> None:
        # Tools decide in threads, and to evict is not atomic. Whoever would have to wait does without: a fork may have
        # left the lock taken for ever.
        if self._memo_lock.acquire(blocking=False):
            try:
                memo[memo_key] = decision
            finally:
                self._memo_lock.release()

    @property
    def _is_kept_fresh(self) -> bool:
        return self._new_refresher is None or self._running_refreshers > 0

    async def _started(self) -> Refresher | None:
        """The refresher of this event loop, started if need be and with its first list; None where there is none."""
        running = self._here.get()
        if running is None:
            running = await self._running(in_background=True)
            if running is None:
                return None
        if self._freshness.age is None:
            await running.refresher.first_list(self._start_timeout)
        return running.refresher

    async def _running(self, *, in_background: bool = False) -> "_Running | None":
        if self._new_refresher is None:
            return None
        running = self._here.get()
        if running is None:
            refresher = self._new_refresher()
            stop = self._in_task(refresher) or (None if in_background else await self._in_task_group(refresher))
            if stop is None:
                return None
            running = _Running(refresher, stop)
            self._here.set(running)
        return running

    def _in_task(self, refresher: Refresher) -> Callable[[], Awaitable[None]] | None:
        """Run a refresher in a task of its own, which may be stopped from any other; None where there is no asyncio."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        # In a context of its own, because it outlives the request that happened to come first.
        task = loop.create_task(self._run(refresher), context=contextvars.Context())

        async def stop() -> None:
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])

        return stop

    async def _in_task_group(self, refresher: Refresher) -> Callable[[], Awaitable[None]]:
        """Run a refresher under trio, where whoever starts a task has to stop it."""
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(self._run, refresher)

        async def stop() -> None:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)

        return stop

    async def _run(self, refresher: Refresher) -> None:
        self._watch_forks()
        self._running_refreshers += 1
        try:
            await refresher.run()
        finally:
            # First what works without an event loop: one that was closed under way ends its tasks when they are collected.
            self._running_refreshers -= 1
            self.forget()
            running = self._here.get()
            if running is not None and running.refresher is refresher:
                self._here.set(None)

    def _watch_forks(self) -> None:
        if self._forks_are_watched or not hasattr(os, "register_at_fork"):
            return
        self._forks_are_watched = True
        in_child = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := in_child()) and method())

    def _after_fork(self) -> None:
        self._running_refreshers = 0
        self._memo_lock = Lock()
        self._freshness.lock = Lock()
        self._freshness.is_applying = False
        self._index.after_fork()
        self.forget()

    def _load(self, rows: Iterable[WidgetKey]) -> None:
        self._index.load(rows)
        self._freshness.pin(self._index.ambiguous())

    def _decide(self, key: bytes | Conflict | None, page: "Page") -> Decision:
        state = self._freshness.state
        if state == "never_loaded":
            return Decision(Reason.NOT_READY, origin=page.seen, retry_after=RETRY_AFTER_NOT_READY)
        if state == "expired":
            return Decision(Reason.EXPIRED, origin=page.seen, retry_after=RETRY_AFTER_EXPIRED)
        if not key:
            return Decision(Reason.KEY_MISSING, origin=page.seen)
        if key is CONFLICT:
            return Decision(Reason.KEY_CONFLICT, origin=page.seen)
        try:
            client_key = ClientKey.parse(key, prefix=self._key_prefix)
        except InvalidClientKey as error:
            return Decision(Reason.KEY_MALFORMED, origin=page.seen, problem=str(error))
        known = self._index.resolve(client_key)
        if isinstance(known, Reason):
            return Decision(known, last8=client_key.last8, origin=page.seen)
        return _decide_page(known, client_key.last8, page)


class _Running:
    """A refresher that runs in this event loop, and those who entered the gate here; the last one to leave stops it."""

    def __init__(self, refresher: Refresher, stop: Callable[[], Awaitable[None]]) -> None:
        self.refresher = refresher
        self.stop = stop
        self.users = 0


class Page(NamedTuple):
    """What a request says about its page: an origin, or the reason why there is none."""

    origin: Origin | None
    seen: str | None
    reason: Reason = Reason.ALLOWED
    problem: str | None = None


def _decide_page(known: IndexedKey, last8: str, page: Page) -> Decision:
    key, allowlist = known.widget_key, known.allowlist
    if key.disabled:
        return Decision(Reason.KEY_DISABLED, key, last8, page.seen)
    if not allowlist:
        return Decision(Reason.ALLOWLIST_EMPTY, key, last8, page.seen, add=allowlist.lacking(page.origin))
    if page.origin is None:
        return Decision(page.reason, key, last8, page.seen, problem=page.problem)
    matched = allowlist.match(page.origin)
    if matched is None:
        return Decision(Reason.ORIGIN_NOT_ALLOWED, key, last8, page.seen, add=allowlist.lacking(page.origin))
    return Decision(Reason.ALLOWED, key, last8, page.seen, matched)


def read_page(origin: bytes | Conflict | None, referer: bytes | Conflict | None) -> Page:
    """What a request's headers say about its page.

    Args:
        origin: the value of its Origin header; None where there is none.
        referer: the value of its Referer header, which counts only where there is no Origin.

    Returns:
        The page, whatever was given.
    """
    if origin is CONFLICT or referer is CONFLICT:
        return Page(None, None, Reason.ORIGIN_CONFLICT)
    try:
        if origin is not None:
            page = Origin.parse(origin)
        elif referer is not None:
            page = Origin.from_referer(referer)
        else:
            return Page(None, None, Reason.ORIGIN_MISSING)
    except InvalidOrigin as error:
        if error.reason == "null":
            return Page(None, "null", Reason.ORIGIN_NULL)
        return Page(None, None, Reason.ORIGIN_MALFORMED, str(error))
    return Page(page, str(page))


def _bytes(value: str | bytes | Conflict | None) -> bytes | Conflict | None:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _memo_key(
    key: bytes | Conflict | None, origin: bytes | Conflict | None, referer: bytes | Conflict | None
) -> MemoKey | None:
    """What to remember a decision by; None for what is too long, or too odd, to be worth it."""
    if not isinstance(key, bytes):
        return None
    if isinstance(origin, bytes):
        return (key, origin) if len(origin) <= MAX_ORIGIN_LENGTH else None
    if isinstance(referer, bytes):
        return (key, None, referer) if len(referer) <= MAX_ORIGIN_LENGTH else None
    return None


def _new_memo() -> FIFOCache[MemoKey, Decision]:
    return FIFOCache(MEMO_SIZE)


def _problems(
    source: object, key_prefix: object, positive: Mapping[str, float], not_negative: Mapping[str, float]
) -> Iterator[str]:
    if not isinstance(source, StaticSource) and not callable(getattr(source, "connect", None)):
        yield f"source is {source!r}: expected a HubSource, a FileSource, a StaticSource or a Source of your own"
    if not isinstance(key_prefix, str) or not key_prefix.isascii():
        yield f"key_prefix is {key_prefix!r}: expected ASCII text such as 'pk_live_'"
    for name, value in positive.items():
        if not _is_number(value) or not value > 0:
            yield f"{name} is {value!r}: expected seconds, more than 0"
    for name, value in not_negative.items():
        if not _is_number(value) or not value >= 0:
            yield f"{name} is {value!r}: expected seconds, 0 or more"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
