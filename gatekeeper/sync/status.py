"""State, Status, RefreshReport: what a refresher tells about the list."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Literal

import msgspec

from gatekeeper.client import TokenScope

__all__ = ("RefreshReport", "State", "Status", "combined")

State = Literal["never_loaded", "fresh", "degraded", "expired"]

_BADNESS: dict[State, int] = {"fresh": 0, "degraded": 1, "expired": 2, "never_loaded": 3}
_MAX_AMBIGUOUS = 100  # of all accounts together: a status is read by people, and travels in their tools
_MAX_REJECTED = 10  # as for one list


class RefreshReport(msgspec.Struct, frozen=True):
    """The outcome of one fetch of the list.

    Attributes:
        outcome: "changed", "unchanged" or "failed".
        added, changed, removed: how many keys the list brought, altered and dropped.
        held: how many missing keys stay for now, because so many removals at once may be a mistake.
        rejected: how many of its rows could not be read.
        duration: seconds that it took.
        error: why it failed, as a sentence without secrets.
        retry_after: seconds after which the source asks to be asked again, if it said so.
        lasting: whether only a person can mend the failure.
    """

    outcome: Literal["changed", "unchanged", "failed"]
    added: int = 0
    changed: int = 0
    removed: int = 0
    held: int = 0
    rejected: int = 0
    duration: float = 0.0
    error: str | None = None
    retry_after: float | None = None
    lasting: bool = False


class Status(msgspec.Struct, frozen=True):
    """How fresh the gate's list is. A report: it has a field for everything that operators ask.

    Of a gate of several accounts, `combined` says what each field means.

    Attributes:
        state: never_loaded, fresh, degraded or expired.
        age: seconds since the last accepted list was asked for; None before the first.
        keys: how many keys there are.
        generation: how many lists have changed something.
        etag: the source's name for the list, if it has one.
        last_error: why the last fetch failed, as a sentence; None if it did not.
        ambiguous: the last 8 characters of keys that cannot be told apart and are refused.
        rejected: what is wrong with the rows of the last list that could not be read, at most 10 of them.
        counters: how often each event has happened since the start, by name.
        held: how many keys the last list lacks that are not dropped yet.
        from_snapshot: whether the list comes from the disk, and none from the source has been accepted yet.
        revocation_lag: seconds from the hub's revoking a key to its being refused here, for the slowest one of the last
            list that brought any; None before the first.
        rejected_rows: how many rows of the last list could not be read.
        event_loop_lag: seconds that the refresher's waits ended too late in the last minute or two, the worst of them.
        is_refreshing: whether a refresher runs in this process and keeps to its schedule.
        is_live: whether the hub tells of each change at once; otherwise its list is polled.
        token_scope: the scope of the hub's token, "gate" or "admin", from the last answer; None if it did not say it.
        enforce: whether the gate turns refused requests away; otherwise it only observes.
        observed: how many requests it has let through that it would have refused.
        account: the account of the list; None where the list has none.
    """

    state: State
    age: float | None
    keys: int
    generation: int
    etag: str | None
    last_error: str | None
    ambiguous: tuple[str, ...]
    rejected: tuple[str, ...]
    counters: dict[str, int]
    held: int = 0
    from_snapshot: bool = False
    revocation_lag: float | None = None
    rejected_rows: int = 0
    event_loop_lag: float = 0.0
    is_refreshing: bool = False
    is_live: bool = False
    token_scope: TokenScope | None = None
    enforce: bool = True
    observed: int = 0
    account: str | None = None


def combined(statuses: Mapping[str, Status], removed: Mapping[str, int] | None = None) -> Status:
    """Put the statuses of several accounts together.

    Args:
        statuses: the status of each account's list, by the name of the account.
        removed: counts of accounts that were removed; they stay in `counters`, which never decrease.

    Returns:
        The status of all of them. `account` names the worst account: one that was never loaded, else an expired one, a
        degraded one, a fresh one; of several alike, the oldest. `state`, `age`, `last_error`, `from_snapshot`, `etag`,
        `enforce` and `observed` are its own. `keys`, `generation`, `held`, `rejected_rows` and `counters` are sums.
        `revocation_lag` and `event_loop_lag` are the longest ones, and `token_scope` is "admin" if that of any account is.
        `is_refreshing` and `is_live` are true only if they are for every account. `ambiguous` (100 at most) and `rejected`
        (10 at most) name the account of each. Without any account it is fresh, has no age and no key, and nothing runs.
    """
    counters = Counter(removed or {})
    if not statuses:
        return Status("fresh", None, 0, 0, None, None, (), (), dict(counters))
    worst = max(sorted(statuses), key=lambda account: _badness(statuses[account]))
    each = statuses.values()
    for status in each:
        counters.update(status.counters)
    return msgspec.structs.replace(
        statuses[worst],
        account=worst,
        keys=sum(status.keys for status in each),
        generation=sum(status.generation for status in each),
        held=sum(status.held for status in each),
        rejected_rows=sum(status.rejected_rows for status in each),
        counters=dict(counters),
        revocation_lag=max((status.revocation_lag for status in each if status.revocation_lag is not None), default=None),
        event_loop_lag=max(status.event_loop_lag for status in each),
        token_scope=_widest({status.token_scope for status in each}),
        is_refreshing=all(status.is_refreshing for status in each),
        is_live=all(status.is_live for status in each),
        ambiguous=_joined(statuses, lambda status: status.ambiguous, _MAX_AMBIGUOUS),
        rejected=_joined(statuses, lambda status: status.rejected, _MAX_REJECTED),
    )


def _badness(status: Status) -> tuple[int, float]:
    return _BADNESS[status.state], math.inf if status.age is None else status.age


def _widest(scopes: set[TokenScope | None]) -> TokenScope | None:
    return "admin" if "admin" in scopes else "gate" if "gate" in scopes else None


def _joined(statuses: Mapping[str, Status], texts: Callable[[Status], tuple[str, ...]], most: int) -> tuple[str, ...]:
    named = (f"{account}: {text}" for account, status in statuses.items() for text in texts(status))
    return tuple(islice(named, most))
