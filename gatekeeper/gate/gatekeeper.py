"""Gatekeeper: the public face of a gate. Decider, Memo and ListSync do the work."""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from gatekeeper.errors import ConfigError
from gatekeeper.gate.checking import Checker
from gatekeeper.gate.deciding import Deciding
from gatekeeper.gate.decisions import Conflict, Decision, Reason
from gatekeeper.gate.enforcement import Enforcement, enforce_problems
from gatekeeper.gate.granting import grant_problems, grants_of
from gatekeeper.gate.memo import Memo
from gatekeeper.gate.open_streams import OpenStream
from gatekeeper.gate.page import Page, RequestIdentity, as_bytes, identity_of
from gatekeeper.gate.resolving import prefix_problems
from gatekeeper.gate.source_list import ListParts, SourceList
from gatekeeper.gate.source_lists import OriginsOfLists, SourceLists, given_sources, problems_of, source_problems
from gatekeeper.index.enabled_origins import EnabledOrigins
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.sync.clock import Clock, Sleep, boot_clock, boot_sleep
from gatekeeper.sync.lifecycle import Lifecycle, watch_forks
from gatekeeper.sync.list_sync import SyncOptions, negative
from gatekeeper.sync.sources import Source, covers_all_accounts
from gatekeeper.sync.static_source import StaticSource
from gatekeeper.sync.status import RefreshReport, Status

__all__ = ("Gatekeeper",)


class Gatekeeper:
    """Decides which pages may use which client keys, without IO.

    guard() starts it with an app. Without it, use it as an async context manager, or leave it to its first request.

    Args:
        source: where the list of widget keys comes from; or a list of sources, one for each account. To a list, also
            of one or none, sources can be added later.
        refresh_interval: seconds between two fetches of the list, ± 20 %.
        snapshot_path: a file that keeps the list for the next start; several processes may share it. With a list of sources,
            a directory, with a file for each account, which is made if it is missing. None keeps nothing.
        https_only: allow no page over http, except on loopback names.
        account: the account that client keys have to name; by default the source's. Only with one source, of one account.
        key_prefix: the beginning of every client key.
        unknown_key_wait: seconds that a request with an unknown key waits for a fresher list; 0 for not at all.
        start_timeout: seconds from the start in which requests wait for the first list.
        soft_stale: seconds after which the list counts as degraded; it still decides.
        hard_stale: seconds after which the list has expired, and every request is refused; 0 for never.
        fetch_timeout: seconds that one fetch of the list may take in all.
        close_streams_on_revoke: close WebSockets and streaming responses whose key or page is not allowed any more.
        usage_interval: seconds between two reports to the hub on used keys and refused pages, ± 20 %; 0 for no reports.
        grant_secrets: the secrets of grants for frames, the newest first; by default derived from the token
            of the source. A list of sources has none.
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
        source: Source | Sequence[Source],
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
        sources, are_several = given_sources(source)
        if problems := (
            *source_problems(sources, account, snapshot_path, are_several=are_several),
            *prefix_problems(key_prefix),
            *sync_options.problems(),
            *negative(unknown_key_wait=unknown_key_wait, start_timeout=start_timeout),
            *grant_problems(grant_secrets, grant_lifetime),
            *enforce_problems(enforce),
        ):
            raise ConfigError(problems)
        self.https_only, self.clock, self.memo = https_only, clock, Memo()
        self._lists = lists = SourceLists(are_several=are_several)
        named = are_several or covers_all_accounts(sources[0])
        self._enforcement = Enforcement(lists.wake, enforce=enforce, clock=clock, wall_clock=wall_clock, by_account=named)
        grants = grants_of(None if are_several else sources[0], grant_secrets, grant_lifetime)
        self._deciding = Deciding(lists, key_prefix, grants, self.memo, clock=clock, wall_clock=wall_clock)
        self._parts = ListParts(
            options=sync_options,
            https_only=https_only,
            unknown_key_wait=unknown_key_wait,
            closes_streams=close_streams_on_revoke,
            are_several=are_several,
            memo=self.memo,
            enforcement=self._enforcement,
            decide_again=self._deciding.requests.decide_again,
        )
        for each in sources:
            lists.add(SourceList(each, account or each.account, self._parts))
        runs = None if lists.never_change else lambda: lists.tasks
        self._lifecycle = Lifecycle(runs, start_timeout=start_timeout)
        self._checker = Checker(lists, self._deciding, self.memo, self._lifecycle)
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

    async def add_source(self, source: Source) -> None:
        """Add the source of one more account, to a gate of several.

        Its list is fetched, and awaited as by `start`, if the gate runs in this event loop; otherwise by its first request.

        Args:
            source: the source.

        Raises:
            ConfigError: it has no account, or one that the gate has already, or the gate was made for one source alone.
        """
        self._lists.require_several()
        if problems := tuple(problems_of(source, among=self.accounts)):
            raise ConfigError(problems)
        self._lists.add(added := SourceList(source, source.account, self._parts))
        await self._lifecycle.add(added.tasks)

    async def remove_source(self, account: str) -> None:
        """Remove the source of an account.

        Its keys are unknown at once. Its streams are closed, its refreshers end, and its last reports are sent: in this
        event loop before this returns, in others as soon as they run.

        Args:
            account: its account.

        Raises:
            ConfigError: the gate has no such account, or was made for one source alone.
        """
        await self._lifecycle.remove(self._lists.remove(account).tasks)

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts of the sources, as far as they are known."""
        return self._lists.accounts

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
        return self.memo.use(self._deciding.requests.decide(identity))

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

    def check_request(self, identity: RequestIdentity) -> Awaitable[Decision]:
        """Decide as `check` does on a request whose values are put together."""
        return self._checker.check_request(identity)

    async def grant(self, client_key: bytes | Conflict | None, page: Page) -> Decision:
        """Decide as `check` does on a page that holds a frame.

        Args:
            client_key: as for `decide`.
            page: the page.

        Returns:
            The decision. If it allows the page, it has a grant.
        """
        decision = await self._checker.check_key(client_key, partial(self._deciding.decider.decide, client_key, page))
        return self._deciding.granting.give(decision, self._lists.deciding(decision.account))

    @property
    def grant_lifetime(self) -> float | None:
        """Seconds for which a grant counts; None without a secret."""
        return None if self._deciding.granting.grants is None else self._deciding.granting.grants.lifetime

    async def start(self) -> None:
        """Start the gate, and wait for the first list.

        It waits for `start_timeout` at most. Of several lists, it waits for all of them. Once one has come, it waits for the
        others as long as one comes in each second. If it runs here and has a list, it does not wait. The gate then runs
        until `stop` was called as often in this event loop. Under trio only `async with gate` starts a gate.
        """
        await self._lifecycle.start()

    async def stop(self) -> None:
        """Stop the gate in this event loop, once for each `start`.

        The last one stops it, unless it is also entered. It does nothing if the gate does not run.
        """
        await self._lifecycle.stop()

    async def refresh(self, *, trust: bool = False, account: str | None = None) -> RefreshReport:
        """Fetch the list once more, beginning after this call.

        Args:
            trust: take the list as it is, though its rows may be older than those held: after the hub was restored.
            account: the account whose list is fetched; by default all of them.

        Returns:
            The outcome; of several lists the worst one: failed, then changed, then unchanged.

        Raises:
            ConfigError: the gate has no such account.
        """
        lists = self._lists.all if account is None else (self._lists.of(account),)
        return await self._lifecycle.refresh([each.tasks for each in lists], trust=trust)

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
        return self._parts.closes_streams and not self._lists.never_change

    async def watch(self, stream: OpenStream) -> None:
        """Close a stream once its request is no longer allowed.

        Args:
            stream: a stream that has just been opened in this event loop.
        """
        if self.closes_streams:
            await self._checker.watch(stream, enforce=self.enforce)

    @property
    def status(self) -> Status:
        """The freshness of the list, or of all together; counts of events."""
        return self._lists.status(self._enforcement)

    @property
    def statuses(self) -> dict[str, Status]:
        """The status of each list that has an account, by account."""
        return self._lists.statuses(self._enforcement)

    def allowlist(self, key: WidgetKey, *, account: str | None = None) -> Allowlist | None:
        """The compiled allowlist of a key.

        Args:
            key: the key.
            account: that of the decision, in a gate of several.

        Returns:
            The allowlist; None if the key is gone.
        """
        keys = self._lists.deciding(account)
        known = None if keys is None else keys.index.get(key.last8, key.id)
        return None if known is None else known.allowlist

    def enabled_origins(self) -> EnabledOrigins | OriginsOfLists:
        """The origins that any enabled key allows, kept up to date."""
        return self._lists.enabled_origins()

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

    def _after_fork(self) -> None:
        for part in (self.memo, self._enforcement, self._lifecycle, self._lists):
            part.after_fork()
