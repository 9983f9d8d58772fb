"""Gatekeeper: the public face of a gate. Decider, Memo and ListSync do the work."""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec

from gatekeeper.errors import ConfigError
from gatekeeper.gate.decider import Decider
from gatekeeper.gate.decisions import Conflict, Decision, Reason
from gatekeeper.gate.enforcement import Enforcement, enforce_problems
from gatekeeper.gate.granting import Granting, grant_problems, grants_of
from gatekeeper.gate.lease import Leases
from gatekeeper.gate.memo import Memo, Remembered
from gatekeeper.gate.new_keys import NewKeys
from gatekeeper.gate.open_streams import OpenStream, OpenStreams
from gatekeeper.gate.page import Page, RequestIdentity, as_bytes, identity_of
from gatekeeper.gate.remembering import RememberingDecider
from gatekeeper.index.enabled_origins import EnabledOrigins
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.sync.clock import Clock, Sleep, boot_clock, boot_sleep
from gatekeeper.sync.lifecycle import Lifecycle, NoLifecycle, PerLoop, watch_forks
from gatekeeper.sync.list_sync import ListSync, SyncOptions, negative
from gatekeeper.sync.refresher import Refresher
from gatekeeper.sync.sources import Source
from gatekeeper.sync.static_source import StaticSource
from gatekeeper.sync.status import RefreshReport, Status
from gatekeeper.sync.waking import Wakers

__all__ = ("Gatekeeper",)


class Gatekeeper:
    """Decides which pages may use which client keys, without IO.

    guard() starts it with an app. Without it, use it as an async context manager, or leave it to its first request.

    Args:
        source: where the list of widget keys comes from.
        refresh_interval: seconds between two fetches of the list, ± 20 %.
        snapshot_path: a file that keeps the list for the next start; several processes may share it. None keeps nothing.
        https_only: allow no page over http, except on loopback names.
        account: the account that client keys have to name; by default the source's.
        key_prefix: the beginning of every client key.
        unknown_key_wait: seconds that a request with an unknown key waits for a fresher list; 0 for not at all.
        start_timeout: seconds from the start in which requests wait for the first list.
        soft_stale: seconds after which the list counts as degraded; it still decides.
        hard_stale: seconds after which the list has expired, and every request is refused; 0 for never.
        fetch_timeout: seconds that one fetch of the list may take in all.
        close_streams_on_revoke: close WebSockets and streaming responses whose key or page is not allowed any more.
        usage_interval: seconds between two reports to the hub on used keys and refused pages, ± 20 %; 0 for no reports.
        grant_secrets: the secrets of grants for frames, the newest first; by default derived from the token of the source.
        grant_lifetime: seconds for which a grant counts, at most 12 hours.
        enforce: turn refused requests away. False lets every request through, and only counts and reports.
        clock: gives seconds that never run backwards.
        wall_clock: gives seconds since 1970.
        sleep: waits for seconds, between two fetches or reports.
        jitter: gives a number from 0 to 1, to spread fetches and reports.

    Attributes:
        https_only, clock: as given.
        memo: the decisions that were made last.

    Raises:
        ConfigError: with one sentence for each wrong argument.
    """

    def __init__(
        self,
        source: Source,
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
        grant_secrets: Sequence[str] | None = None,
        grant_lifetime: float = 900.0,
        enforce: bool = True,
        clock: Clock = boot_clock,
        wall_clock: Clock = time.time,
        sleep: Sleep = boot_sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        sync_options = SyncOptions(
            refresh_interval=refresh_interval,
            snapshot_path=snapshot_path,
            soft_stale=soft_stale,
            hard_stale=hard_stale,
            fetch_timeout=fetch_timeout,
            usage_interval=usage_interval,
            clock=clock,
            wall_clock=wall_clock,
            sleep=sleep,
            jitter=jitter,
        )
        if problems := (
            *_problems(source, key_prefix),
            *sync_options.problems(),
            *negative(unknown_key_wait=unknown_key_wait, start_timeout=start_timeout),
            *grant_problems(grant_secrets, grant_lifetime),
            *enforce_problems(enforce),
        ):
            raise ConfigError(problems)
        self.https_only = https_only
        self.clock = clock
        wakers = Wakers(sleep)
        self._enforcement = enforcement = Enforcement(wakers.wake, enforce=enforce, clock=clock, wall_clock=wall_clock)
        self.memo, leases = Memo(), Leases()
        self._index = KeyIndex(account=account or source.account, https_only=https_only)
        self._sync = sync = ListSync(
            source,
            self._index,
            sync_options,
            on_change=wakers.woken_after(leases.end),
            on_deadline=wakers.woken_after(leases.renew),
            take_used_keys=partial(self.memo.take_used_keys, leases.used),
            take_refused=enforcement.take_refused,
        )
        self._decider = decider = Decider(self._index, lambda: sync.freshness.state, key_prefix)
        self._new_keys = NewKeys(
            unknown_key_wait, decider.may_become_known, is_live=lambda: sync.is_live, wakers=wakers, clock=clock
        )
        grants = grants_of(source, grant_secrets, self._index.account, grant_lifetime)
        self._granting = Granting(grants, decider, self._index, clock=clock, wall_clock=wall_clock)
        self._requests = requests = RememberingDecider(decider, self._granting, self.memo, leases, clock)
        self._streams: PerLoop[OpenStreams] | None = None
        if close_streams_on_revoke and not sync.is_static:
            new_streams = partial(
                OpenStreams,
                requests.decide_again,
                enforces=lambda: enforcement.enforce,
                generation=lambda: sync.generation,
                deadline=lambda: sync.deadline,
                wakers=wakers,
                counters=sync.log.counters,
                clock=clock,
            )
            self._streams = PerLoop("gatekeeper: the open streams of this event loop", new_streams)
        self._lifecycle: Lifecycle | NoLifecycle = NoLifecycle()
        if not sync.is_static:
            companion = None if self._streams is None else self._watch_streams
            self._lifecycle = Lifecycle(sync, companion, start_timeout=start_timeout)
        watch_forks(wakers.after_fork)  # before the sync wakes what it knows of
        watch_forks(self._after_fork)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[WidgetKey | Mapping[str, Any]],
        *,
        https_only: bool = False,
        account: str | None = None,
        key_prefix: str = "pk_live_",
        grant_secrets: Sequence[str] | None = None,
        enforce: bool = True,
    ) -> Self:
        """Make a gate for rows that never change, for tests and tools.

        Args:
            rows: widget keys, or mappings with the fields that the hub's JSON has.
            https_only: as for the class.
            account: as for the class.
            key_prefix: as for the class.
            grant_secrets: as for the class.
            enforce: as for the class.

        Returns:
            The gate, which needs no start.

        Raises:
            ConfigError: with one sentence for each row that is not a widget key.
        """
        source = StaticSource(rows, account=account)
        return cls(source, https_only=https_only, key_prefix=key_prefix, grant_secrets=grant_secrets, enforce=enforce)

    def decide(
        self,
        client_key: str | bytes | Conflict | None,
        origin: str | bytes | Conflict | None,
        *,
        referer: str | bytes | Conflict | None = None,
        grant: str | bytes | Conflict | None = None,
    ) -> Decision:
        """Decide from what is in memory, without waiting.

        Args:
            client_key: the key that the request names; None where it names none.
            origin: the value of its Origin header; None where there is none. Beside a grant, None says that the request is
                known to come from the widget's own frame; with any other value the grant is foreign.
            referer: the value of its Referer header, which counts only where there is no Origin.
            grant: the grant that the request sends in place of a key and a page.

        Returns:
            The decision. Nothing is raised, whatever the arguments are.
        """
        identity = identity_of(as_bytes(client_key), as_bytes(origin), as_bytes(referer), as_bytes(grant))
        return self.memo.use(self._requests.decide(identity))

    async def check(
        self,
        client_key: str | bytes | Conflict | None,
        origin: str | bytes | Conflict | None,
        *,
        referer: str | bytes | Conflict | None = None,
        grant: str | bytes | Conflict | None = None,
    ) -> Decision:
        """Decide as `decide` does, after waiting for a fresher list if needed.

        A request starts the gate if it does not run. It waits for the first list, with an unknown key, and where the
        refresher is overdue because the process or its event loop was frozen.

        Args:
            client_key: as for `decide`.
            origin: as for `decide`.
            referer: as for `decide`.
            grant: as for `decide`.

        Returns:
            The decision.
        """
        identity = identity_of(as_bytes(client_key), as_bytes(origin), as_bytes(referer), as_bytes(grant))
        return await self.check_request(identity)

    async def check_request(self, identity: RequestIdentity) -> Decision:
        """Decide as `check` does on a request whose values are put together."""
        return await self._check(identity[0], partial(self._requests.decide, identity))

    async def grant(self, client_key: bytes | Conflict | None, page: Page) -> Decision:
        """Decide as `check` does on a page that holds a frame.

        Args:
            client_key: as for `decide`.
            page: the page.

        Returns:
            The decision. If it allows the page, it has a grant.
        """
        decide, lease = partial(self._decider.decide, client_key, page), self._requests.leases.ended
        return self._granting.give(await self._check(client_key, lambda: Remembered(decide(), lease)))

    @property
    def grant_lifetime(self) -> float | None:
        """Seconds for which a grant counts; None without a secret."""
        return None if self._granting.grants is None else self._granting.grants.lifetime

    async def start(self) -> None:
        """Start the gate, and wait for the first list.

        It waits for `start_timeout` at most. The gate then runs until `stop` was called as often in this event loop. Under
        trio only `async with gate` starts a gate.
        """
        await self._lifecycle.start(wait=not self._sync.freshness.has_list)

    async def stop(self) -> None:
        """Stop the gate in this event loop, once for each `start`.

        The last one stops it, unless it is also entered. It does nothing if the gate does not run.
        """
        await self._lifecycle.stop()

    async def refresh(self, *, trust: bool = False) -> RefreshReport:
        """Fetch the list once more, beginning after this call.

        Args:
            trust: take the list as it is, though its rows may be older than those held: after the hub was restored.

        Returns:
            The outcome.
        """
        refresher = await self._started()
        return RefreshReport("unchanged") if refresher is None else await refresher.refresh(trust=trust)

    @property
    def decisions(self) -> Counter[Reason]:
        """Requests by the reason of their decision, since the start."""
        return self.memo.reasons

    @property
    def refusals(self) -> tuple[RefusedPage, ...]:
        """The pages that were refused most often, 500 at most."""
        return self._enforcement.refusals.pages()

    @property
    def enforce(self) -> bool:
        """Whether refused requests are turned away. It can be set while the gate runs."""
        return self._enforcement.enforce

    @enforce.setter
    def enforce(self, enforce: bool) -> None:
        self._enforcement.enforce = enforce

    def admits(self, decision: Decision, *, from_own_frame: bool = False) -> bool:
        """Whether a request may go on. An observing gate admits all.

        Ask once for each request: a refused page is recorded in `refusals`, in the log, and for the hub.

        Args:
            decision: the decision on the request.
            from_own_frame: whether its page is one of the service itself, whose entry must not be advised.
        """
        return self._enforcement.admits(decision, from_own_frame=from_own_frame)

    @property
    def closes_streams(self) -> bool:
        """Whether streams are closed when keys change."""
        return self._streams is not None

    async def watch(self, stream: OpenStream) -> None:
        """Close a stream once its request is no longer allowed.

        Args:
            stream: a stream that has just been opened in this event loop.
        """
        if self._streams is not None and await self._started() is not None:
            await self._streams.here().add(stream)

    @property
    def status(self) -> Status:
        """The freshness of the list, and counts of events."""
        enforcement = self._enforcement
        return msgspec.structs.replace(self._sync.status, enforce=enforcement.enforce, observed=enforcement.observed)

    def allowlist(self, key: WidgetKey) -> Allowlist | None:
        """The compiled allowlist of a key; None if the key is gone."""
        known = self._index.get(key.last8, key.id)
        return None if known is None else known.allowlist

    def enabled_origins(self) -> EnabledOrigins:
        """The origins that any enabled key allows, kept up to date."""
        return self._index.enabled_origins()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 - it is called with the app
        """Run as long as an app does: `FastAPI(lifespan=gate.lifespan)`, `Starlette(lifespan=gate.lifespan)`."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        await self._lifecycle.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lifecycle.leave()

    async def _started(self) -> Refresher | None:
        """The refresher of this event loop, started if it does not run."""
        return await self._lifecycle.started(wait=not self._sync.freshness.has_list)

    async def _check(self, key: bytes | Conflict | None, decide: Callable[[], Remembered]) -> Decision:
        """Decide after the waits that help, and count the request."""
        refresher = await self._started()
        if refresher is not None and self._sync.is_overdue:
            await refresher.schedule.catch_up(self._new_keys.wait)
        remembered = decide()
        is_unknown = remembered.decision.reason is Reason.KEY_UNKNOWN
        if is_unknown and await self._new_keys.may_have_come(key, decide, refresher):
            remembered = decide()
        return self.memo.use(remembered)

    async def _watch_streams(self) -> None:
        if self._streams is None:
            return
        streams = self._streams.here()
        try:
            await streams.watch()
        finally:
            # Open streams wait for the next refresher; otherwise nothing of the gate stays in the event loop.
            if not streams:
                self._streams.forget()

    def _after_fork(self) -> None:
        leases, sync = self._requests.leases, self._sync
        for part in (self._index, self.memo, leases, self._enforcement, sync):  # the sync renews the lease
            part.after_fork()


def _problems(source: object, key_prefix: object) -> Iterator[str]:
    if not callable(getattr(source, "connect", None)):
        yield f"source is {source!r}: expected a HubSource, a FileSource, a StaticSource or a Source of your own"
    if not isinstance(key_prefix, str) or not key_prefix.isascii():
        yield f"key_prefix is {key_prefix!r}: expected ASCII text such as 'pk_live_'"
