"""SourceLists: the lists of the sources of a gate, by account."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import cast

import msgspec

from gatekeeper.errors import ConfigError
from gatekeeper.gate.enforcement import Enforcement
from gatekeeper.gate.resolving import Candidate
from gatekeeper.gate.source_list import SourceList
from gatekeeper.index.enabled_origins import EnabledOrigins
from gatekeeper.keys.client_key import ClientKey, share_keys
from gatekeeper.matching.origins import Origin
from gatekeeper.sync.running import ListTasks
from gatekeeper.sync.sources import Source, covers_all_accounts
from gatekeeper.sync.status import Status, combined

__all__ = ("OriginsOfLists", "SourceLists", "given_sources", "problems_of", "source_problems")


class SourceLists:
    """The lists of a gate.

    Requests of all threads read them while others are added and removed. So what they read is replaced, never changed.

    Args:
        are_several: whether there may be several; otherwise the only one decides about all keys.

    Attributes:
        are_several: as given.
        all: the lists.
        tasks: what runs for them.
    """

    def __init__(self, *, are_several: bool) -> None:
        self.are_several = are_several
        self.all: tuple[SourceList, ...] = ()
        self.tasks: tuple[ListTasks, ...] = ()
        self._by_account: dict[str | None, SourceList] = {}
        self._removed: Counter[str] = Counter()  # what has happened to lists that were removed
        self._lock = Lock()

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts, in the order in which they were added."""
        return tuple(account for account in self._by_account if account is not None)

    def add(self, added: SourceList) -> None:
        """Add a list.

        Raises:
            ConfigError: its account has one already.
        """
        with self._lock:
            if added.account in self._by_account:
                raise ConfigError([_taken(added.account)])
            self._replace({**self._by_account, added.account: added})
        # Keys of these accounts may be its own from now on. A decision that began before ends with the lease.
        for other in self.all:
            if other is not added and share_keys(added.account, other.account):
                other.leases.end()
                other.wakers.wake()

    def remove(self, account: str) -> SourceList:
        """Remove a list.

        Returns:
            It. Its keys are unknown from now on.

        Raises:
            ConfigError: there is none of this account, or there may be one list alone.
        """
        self.require_several()
        with self._lock:
            removed = self.of(account)
            self._removed.update(removed.sync.log.counters)
            self._replace({name: each for name, each in self._by_account.items() if each is not removed})
        removed.leases.close()
        removed.wakers.wake()
        return removed

    def require_several(self) -> None:
        """Raise ConfigError where there may be one list alone."""
        if not self.are_several:
            raise ConfigError(["the gate was made for one source: make it with a list of sources, Gatekeeper([source])"])

    def of(self, account: str | None) -> SourceList:
        """The list of an account.

        Raises:
            ConfigError: there is none.
        """
        found = self.get(account)
        if found is None:
            raise ConfigError([f"account is {account!r}: expected one of the gate's, {', '.join(self.accounts) or 'none'}"])
        return found

    def get(self, account: str | None) -> SourceList | None:
        """The list of an account, if there is one."""
        return self._by_account.get(account)

    def deciding(self, account: str | None) -> SourceList | None:
        """The list that has made a decision with this account."""
        return self._by_account.get(account) if self.are_several else self.all[0]

    def candidates(self, client_key: ClientKey) -> Sequence[Candidate]:
        """The lists that may have a client key, the longest account first."""
        if not self.are_several:
            (only,) = self.all
            return (Candidate(only, only.leases.current),)
        while True:
            by_account = self._by_account
            found = [Candidate(each, each.leases.current) for each in _prefixes(client_key, by_account)]
            if by_account is self._by_account:  # otherwise these leases may not end with what has changed
                found.reverse()
                return found

    def of_grant(self, account: str | None) -> Candidate | None:
        """The list that grants of an account belong to, if any."""
        found = self._by_account.get(account)
        return None if found is None else Candidate(found, found.leases.current)

    @property
    def never_change(self) -> bool:
        """Whether there is one list that never changes, so that nothing runs."""
        return not self.are_several and self.all[0].sync.is_static

    def status(self, enforcement: Enforcement) -> Status:
        """The status of the only list, or of all of them together."""
        if not self.are_several:
            return self.all[0].status(enforcement)
        enforce, observed = enforcement.enforce, enforcement.observed
        with self._lock:  # a list that is removed meanwhile counts once
            together = combined(self.statuses(enforcement), self._removed)
        return msgspec.structs.replace(together, enforce=enforce, observed=observed)

    def statuses(self, enforcement: Enforcement) -> dict[str, Status]:
        """The status of each list, by its account."""
        return {each.account: each.status(enforcement) for each in self.all if each.account is not None}

    def enabled_origins(self) -> "EnabledOrigins | OriginsOfLists":
        """The origins that any enabled key allows."""
        return OriginsOfLists(self) if self.are_several else self.all[0].index.enabled_origins()

    def wake(self) -> None:
        """End the sleeps of what waits for any of the lists."""
        for each in self.all:
            each.wakers.wake()

    def after_fork(self) -> None:
        """Start afresh: a thread of the parent may hold the lock."""
        self._lock = Lock()
        for each in self.all:
            each.after_fork()

    def _replace(self, by_account: dict[str | None, SourceList]) -> None:
        self._by_account = by_account
        self.all = tuple(by_account.values())
        # A list of one source that never changes needs nothing to run.
        self.tasks = tuple(each.tasks for each in self.all if self.are_several or not each.sync.is_static)


class OriginsOfLists:
    """The origins that any enabled key of any list allows.

    Args:
        lists: the lists.
    """

    def __init__(self, lists: SourceLists) -> None:
        self._lists = lists

    def allows(self, origin: Origin) -> bool:
        """Whether any enabled key allows this origin."""
        return any(each.index.enabled_origins().allows(origin) for each in self._lists.all)


def given_sources(source: object) -> tuple[Sequence[Source], bool]:
    """The given sources, and whether there may be several."""
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return source, True
    return (cast("Source", source),), False


def source_problems(
    sources: Sequence[Source], account: object, snapshot_path: str | Path | None, *, are_several: bool
) -> Iterator[str]:
    """Say what is wrong with sources, a sentence each.

    Args:
        sources: the sources.
        account: the account that the gate was given.
        snapshot_path: where it keeps lists.
        are_several: whether it may have several sources.
    """
    if not are_several:
        yield from problems_of(sources[0])
        if account is not None and covers_all_accounts(sources[0]):
            yield f"account is {account!r}, and the source is for all accounts: pass one or the other"
        return
    if account is not None:
        yield f"account is {account!r}: with a list of sources, each of them has its own"
    if snapshot_path is not None and Path(snapshot_path).is_file():
        yield f"snapshot_path is {str(snapshot_path)!r}, a file: with a list of sources, expected a directory"
    accounts: list[str] = []
    for source in sources:
        yield from problems_of(source, among=accounts)
        accounts += filter(None, [getattr(source, "account", None)])


def problems_of(source: object, *, among: Iterable[str] | None = None) -> Iterator[str]:
    """Say what is wrong with a source, a sentence each.

    Args:
        source: the source.
        among: the accounts of the gate's other sources; None if it is to be the only one.
    """
    if not callable(getattr(source, "connect", None)):
        more = ", or a list of them" if among is None else ""
        yield f"source is {source!r}: expected a HubSource, a FileSource, a StaticSource or a Source of your own{more}"
    elif among is not None:
        account = getattr(source, "account", None)
        if account is None:
            if covers_all_accounts(cast("Source", source)):
                covers, instead = "is for all accounts", "replace it by sources of one account each"
            else:
                covers, instead = "knows no account", "give it an account"
            yield f"the source {type(source).__name__} {covers}: pass it alone, Gatekeeper(source), or {instead}"
        elif not isinstance(account, str) or not account:
            yield f"the source {type(source).__name__} has the account {account!r}: expected a name such as 'acme'"
        elif account in among:
            yield _taken(account)


def _taken(account: str | None) -> str:
    return f"account {account!r} has a source already: expected one for each account"


def _prefixes(client_key: ClientKey, by_account: dict[str | None, SourceList]) -> Iterator[SourceList]:
    """The lists whose account the key begins with, the shortest first."""
    value, begin = client_key.value, len(client_key.prefix)
    end = value.find("_", begin + 1, -1)  # the random part has a character at least
    while end >= 0:
        found = by_account.get(value[begin:end])
        if found is not None:
            yield found
        end = value.find("_", end + 1, -1)
