"""SourceList: the list of one source in a gate."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.enforcement import Enforcement
from gatekeeper.gate.lease import Leases
from gatekeeper.gate.memo import Memo
from gatekeeper.gate.new_keys import NewKeys
from gatekeeper.gate.open_streams import OpenStreams
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.sync.account_log import AccountLogger
from gatekeeper.sync.clock import boot_sleep
from gatekeeper.sync.list_sync import ListSync, SyncOptions, logger
from gatekeeper.sync.per_loop import PerLoop
from gatekeeper.sync.running import ListTasks
from gatekeeper.sync.shared_sleep import SharedSleep
from gatekeeper.sync.shared_tls import SharedTls
from gatekeeper.sync.snapshot_file import snapshot_file
from gatekeeper.sync.sources import Source
from gatekeeper.sync.status import State, Status
from gatekeeper.sync.waking import Wakers

__all__ = ("ListParts", "SourceList")


@dataclass(frozen=True)
class ListParts:
    """What the lists of a gate share.

    Attributes:
        options: how they are kept fresh.
        https_only, unknown_key_wait, closes_streams: options of Gatekeeper; the last one as `close_streams_on_revoke`.
        are_several: whether the gate may have several lists.
        memo: where decisions are remembered.
        enforcement: records refused pages.
        decide_again: decides about an open stream.
        sleep: sleeps for several lists.
        tls: shares a TLS context among them.
    """

    options: SyncOptions
    https_only: bool
    unknown_key_wait: float
    closes_streams: bool
    are_several: bool
    memo: Memo
    enforcement: Enforcement
    decide_again: Callable[[RequestIdentity], Decision]
    tls: SharedTls = field(default_factory=SharedTls)
    sleep: SharedSleep = field(default_factory=SharedSleep)


class SourceList:
    """The list of one source in a gate.

    Args:
        source: where it comes from.
        account: the account that client keys have to name; None for any.
        parts: what the lists of the gate share.

    Attributes:
        index: the keys.
        leases: how long decisions by them are remembered.
        wakers: end the sleeps of requests and streams that wait for them.
        sync: keeps them fresh.
        new_keys: waits for those that are unknown.
        streams: the open streams that they allowed; None if those are not closed.
        tasks: what runs in each event loop.
    """

    def __init__(self, source: Source, account: str | None, parts: ListParts) -> None:
        options = parts.options
        if parts.are_several:
            parts.tls.share_with(source)
            if options.sleep is boot_sleep:
                options = msgspec.structs.replace(options, sleep=parts.sleep)
            if options.snapshot_path is not None and account is not None:
                options = msgspec.structs.replace(options, snapshot_path=snapshot_file(options.snapshot_path, account))
        self.index = KeyIndex(account=account, https_only=parts.https_only)
        self.leases = leases = Leases()
        self.wakers = wakers = Wakers(options.sleep)
        # With one source, all refused pages are its own, whatever account a row names.
        whose = (account,) if parts.are_several else ()
        self.sync = sync = ListSync(
            source,
            self.index,
            options,
            on_change=wakers.woken_after(leases.end),
            on_deadline=wakers.woken_after(leases.renew),
            take_used_keys=partial(parts.memo.take_used_keys, leases.used),
            take_refused=partial(parts.enforcement.take_refused, *whose),
            log_to=AccountLogger(logger, account) if parts.are_several and account is not None else logger,
        )
        self.new_keys = NewKeys(parts.unknown_key_wait, is_live=lambda: sync.is_live, wakers=wakers, clock=options.clock)
        self.streams: PerLoop[OpenStreams] | None = None
        if parts.closes_streams and (parts.are_several or not sync.is_static):
            new_streams = partial(
                OpenStreams,
                parts.decide_again,
                enforces=lambda: parts.enforcement.enforce,
                generation=lambda: sync.generation,
                deadline=lambda: sync.deadline,
                wakers=wakers,
                log=sync.log,
                clock=options.clock,
            )
            self.streams = PerLoop("gatekeeper: the open streams of this event loop", new_streams)
        nap = parts.sleep if parts.are_several else boot_sleep
        self.tasks = ListTasks(sync, nap=nap)
        if self.streams is not None:
            self.tasks = ListTasks(sync, self._watch_streams, self._close_streams, nap=nap)

    @property
    def account(self) -> str | None:
        """The account that client keys have to name; None for any."""
        return self.index.account

    @property
    def state(self) -> State:
        """How fresh the keys are."""
        return self.sync.freshness.state

    def status(self, enforcement: Enforcement) -> Status:
        """The status of the list in its gate."""
        enforce, observed = enforcement.enforce, enforcement.observed
        return msgspec.structs.replace(self.sync.status, enforce=enforce, observed=observed, account=self.account)

    def after_fork(self) -> None:
        """Forget what belongs to the parent process."""
        self.wakers.after_fork()  # before the sync wakes what it knows of
        self.new_keys.after_fork()
        self.index.after_fork()
        self.leases.after_fork()
        self.sync.after_fork()  # renews the lease

    async def _watch_streams(self) -> None:
        if self.streams is None:
            return
        streams = self.streams.here()
        try:
            await streams.watch()
        finally:
            # Open streams wait for the next refresher; otherwise nothing of the gate stays in the event loop.
            if not streams:
                self.streams.forget()

    async def _close_streams(self) -> None:
        if self.streams is not None:
            await self.streams.here().close_all()
            self.streams.forget()
