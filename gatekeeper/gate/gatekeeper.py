"""Gatekeeper: owns the index, the memo of decisions and the refreshers, and decides."""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from gatekeeper.errors import ConfigError, InvalidClientKey
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.gate.memo import Memo, Remembered, Tally, memo_key
from gatekeeper.gate.open_streams import OpenStream, OpenStreams
from gatekeeper.gate.page import Asked, Page, read_page
from gatekeeper.index.enabled_origins import EnabledOrigins, IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import load
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.sync.freshness import Clock, Freshness, RefreshReport, Status, boot_clock, boot_sleep
from gatekeeper.sync.lifecycle import Lifecycle, PerLoop
from gatekeeper.sync.refresher import Refresher
from gatekeeper.sync.snapshot import Snapshot
from gatekeeper.sync.sources import Source, StaticSource
from gatekeeper.sync.usage import Report, UsageReporter

__all__ = ("Gatekeeper",)

RETRY_AFTER_NOT_READY = 2  # seconds: the refresher's own ceiling while there is no list
RETRY_AFTER_EXPIRED = 30  # seconds: its ceiling with one

_UNRESOLVED = {"unknown": Reason.KEY_UNKNOWN, "ambiguous": Reason.KEY_AMBIGUOUS}


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
        close_streams_on_revoke: close WebSockets and streaming responses whose key or page is not allowed any more.
        usage_interval: seconds between two reports to the hub on which keys were used, at least; 0 for none.
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
        close_streams_on_revoke: bool = True,
        usage_interval: float = 30.0,
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
            "usage_interval": usage_interval,
        }
        if problems := tuple(_problems(source, key_prefix, positive, not_negative)):
            raise ConfigError(problems)
        self.https_only = https_only
        self._tally = Tally()
        self.memo = Memo(self._tally)
        self._key_prefix = key_prefix
        self._unknown_key_wait = unknown_key_wait
        self._start_timeout = start_timeout
        self._index = KeyIndex(account=account or source.account, https_only=https_only)
        self._freshness = Freshness(soft_stale=soft_stale, hard_stale=hard_stale, clock=clock)
        self._lifecycle: Lifecycle | None = None
        self._streams: PerLoop[OpenStreams] | None = None
        self._reporter: UsageReporter | None = None
        if isinstance(source, StaticSource):
            self._load(source.rows)
            return
        if close_streams_on_revoke:
            freshness = self._freshness
            self._streams = PerLoop(
                "gatekeeper: the open streams of this event loop",
                lambda: OpenStreams(self._decide_again, lambda: freshness.generation, freshness.counters, sleep),
            )
        live = source
        snapshot = None
        if snapshot_path is not None:
            snapshot = Snapshot(
                snapshot_path,
                account=self._index.account,
                fingerprint=lambda: live.fingerprint,
                wall_clock=wall_clock,
            )
        self._reporter = reporter = self._usage_reporter(live, usage_interval, clock, wall_clock)

        def new_refresher() -> Refresher:
            return Refresher(
                live,
                self._index,
                self._freshness,
                self.forget,
                snapshot=snapshot,
                after_list=None if reporter is None else reporter.report_if_due,
                interval=refresh_interval,
                timeout=fetch_timeout,
                clock=clock,
                wall_clock=wall_clock,
                sleep=sleep,
                jitter=jitter,
            )

        self._lifecycle = Lifecycle(
            new_refresher,
            beside=None if self._streams is None else self._watch_streams,
            on_end=self.forget,
            on_fork=self._after_fork,
            last_words=_nothing if reporter is None else reporter.report,
            counters=self._freshness.counters,
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
        remembered = self._remembered(_bytes(client_key), _bytes(origin), _bytes(referer))
        return self._count(remembered)

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
        key, origin, referer = _bytes(client_key), _bytes(origin), _bytes(referer)
        remembered = self._remembered(key, origin, referer)
        is_unknown = remembered.decision.reason is Reason.KEY_UNKNOWN
        if (
            is_unknown
            and refresher is not None
            and self._may_become_known(client_key)
            and await refresher.refresh_for_stranger(self._unknown_key_wait)
        ):
            remembered = self._remembered(key, origin, referer)
        return self._count(remembered)

    async def start(self) -> None:
        """Begin to fetch the list, where nobody has, and wait for the first one, until `start_timeout` is over at most.

        Under trio a gate is begun by `async with` only, and this waits for nothing before.
        """
        await self._started()

    async def refresh(self) -> RefreshReport:
        """Fetch the list once more, beginning after this call; start if need be.

        Returns:
            What it came to.
        """
        refresher = await self._started()
        return RefreshReport("unchanged") if refresher is None else await refresher.refresh()

    @property
    def decisions(self) -> Counter[Reason]:
        """How many requests were decided for which reason, since the start."""
        self.memo.count()
        return Counter(self._tally.reasons)

    @property
    def closes_streams(self) -> bool:
        """Whether keys can change, and streams are closed then."""
        return self._streams is not None

    async def watch(self, stream: OpenStream) -> None:
        """Close a stream as soon as what opened it is not allowed any more; start if need be.

        Args:
            stream: what has just been opened, in this event loop.
        """
        if self._streams is not None and await self._started() is not None:
            await self._streams.here().add(stream)

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
        forgotten, self.memo = self.memo, Memo(self._tally)
        forgotten.count()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 - it is called with the app
        """Run for as long as an app does: `Starlette(lifespan=gate.lifespan)`, `FastAPI(lifespan=gate.lifespan)`."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        if self._lifecycle is not None:
            refresher = await self._lifecycle.enter()
            try:
                await refresher.first_list(self._start_timeout)
            except BaseException:
                await self._lifecycle.leave()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lifecycle is not None:
            await self._lifecycle.leave()

    def _may_become_known(self, client_key: str | bytes | Conflict | None) -> bool:
        if not self._unknown_key_wait or not isinstance(client_key, str | bytes):
            return False
        # No list of ours ever has another account's key, so that strangers cannot use up what minted keys need.
        return self._index.account in (None, ClientKey.parse(client_key, prefix=self._key_prefix).account)

    def _remembered(
        self, key: bytes | Conflict | None, origin: bytes | Conflict | None, referer: bytes | Conflict | None
    ) -> Remembered:
        referer = referer if origin is None else None
        memo = self.memo
        what = memo_key(key, origin, referer)
        if what is not None and (remembered := memo.find(what)) is not None:
            return remembered
        remembered = Remembered(self._decide(key, read_page(origin, referer)))
        # Only what some key's row decided is kept, or strangers could fill the memo; and only while somebody empties it.
        is_kept_fresh = self._lifecycle is None or self._lifecycle.is_running
        if what is not None and remembered.decision.key is not None and is_kept_fresh:
            memo.remember(what, remembered)
        return remembered

    def _count(self, remembered: Remembered) -> Decision:
        remembered.uses += 1
        if not remembered.is_kept:
            self._tally.add(remembered)
        return remembered.decision

    async def _started(self) -> Refresher | None:
        """The refresher of this event loop, started if need be and with its first list; None where there is none."""
        if self._lifecycle is None:
            return None
        refresher = self._lifecycle.latest() or await self._lifecycle.refresher(in_background=True)
        if refresher is not None and not self._freshness.has_list:
            await refresher.first_list(self._start_timeout)
        return refresher

    async def _watch_streams(self) -> None:
        if self._streams is None:
            return
        streams = self._streams.here()
        try:
            await streams.watch()
        finally:
            # Open streams wait for whoever starts next; otherwise nothing of the gate stays in the event loop.
            if not streams:
                self._streams.forget()

    def _decide_again(self, asked: Asked) -> Decision:
        """Decide without the memo, which another event loop may be just about to empty."""
        key, origin, *referer = asked
        return self._decide(key, read_page(origin, *(referer or (None,))))

    def _usage_reporter(self, source: Source, interval: float, clock: Clock, wall_clock: Clock) -> UsageReporter | None:
        report: Report | None = getattr(source, "report_usage", None)
        if report is None or not interval:
            return None
        return UsageReporter(
            report,
            self._take_used_keys,
            interval=interval,
            clock=clock,
            wall_clock=wall_clock,
            counters=self._freshness.counters,
        )

    def _take_used_keys(self) -> Counter[str]:
        self.memo.count()
        return self._tally.take_keys()

    def _after_fork(self) -> None:
        self._freshness.lock = Lock()
        self._freshness.is_applying = False
        self._index.after_fork()
        # What the parent counted is the parent's to report.
        if self._reporter is not None:
            self._reporter.forget()
        self._tally = Tally()
        self.memo = Memo(self._tally)

    def _load(self, rows: Iterable[WidgetKey]) -> None:
        load(self._index, rows)
        self._freshness.pin(self._index.ambiguous())

    def _decide(self, key: bytes | Conflict | None, page: Page) -> Decision:
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
        if isinstance(known, str):
            return Decision(_UNRESOLVED[known], last8=client_key.last8, origin=page.seen)
        return _decide_page(known, page)


def _decide_page(known: IndexedKey, page: Page) -> Decision:
    key, allowlist = known.widget_key, known.allowlist
    last8 = key.last8
    if key.disabled:
        return Decision(Reason.KEY_DISABLED, key, last8, page.seen)
    if not allowlist:
        return Decision(Reason.ALLOWLIST_EMPTY, key, last8, page.seen, add=allowlist.entry_that_would_allow(page.origin))
    if page.origin is None:
        return Decision(page.reason, key, last8, page.seen, problem=page.problem)
    matched = allowlist.match(page.origin)
    if matched is None:
        return Decision(Reason.ORIGIN_NOT_ALLOWED, key, last8, page.seen, add=allowlist.entry_that_would_allow(page.origin))
    return Decision(Reason.ALLOWED, key, last8, page.seen, matched)


def _bytes(value: str | bytes | Conflict | None) -> bytes | Conflict | None:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


async def _nothing() -> None:
    pass


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
