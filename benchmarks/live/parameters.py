"""The parameters of `python -m benchmarks.live`."""

from dataclasses import dataclass

from benchmarks.live.database import Kind
from benchmarks.script import parameter

__all__ = ("Parameters",)

SCENARIOS = ("revocation", "quiet", "waiting", "delta", "imported", "outages", "fairness")


@dataclass(frozen=True)
class Parameters:
    """What is measured, and how much of it."""

    only: tuple[str, ...] = parameter(SCENARIOS, SCENARIOS, "scenarios")
    database: tuple[Kind, ...] = parameter(("sqlite", "postgres"), ("sqlite",), "databases of the hub")
    gates: int = parameter(4, 2, "gates, each a worker of uvicorn")
    interval: float = parameter(10.0, 1.0, "seconds between two fetches of a list that is not live")
    keys: int = parameter(10_000, 200, "keys of the account, where nothing else is said")
    trials: int = parameter(1_000, 2, "revocations, and as many new keys and added domains")
    traffic: float = parameter(500.0, 50.0, "requests a second meanwhile")
    quiet_keys: int = parameter(50_000, 200, "keys of the quiet hub")
    quiet_seconds: float = parameter(180.0, 1.0, "seconds on the quiet hub, with a change a minute and traffic on 20 keys")
    new_within: float = parameter(5.0, 0.5, "seconds in which 20 new keys are made on it")
    waiters: tuple[int, ...] = parameter((1_000, 5_000), (20,), "gates that wait for a change, as light clients")
    rounds: int = parameter(20, 2, "changes that all of them are told")
    many_keys: int = parameter(1_000_000, 500, "keys of the account of whose cost a delta is measured")
    deltas: int = parameter(500, 5, "deltas of one row, whose processor time is measured")
    imported: int = parameter(10_000, 30, "keys that are imported while the fewest of `waiters` wait")
    outages: int = parameter(3, 1, "outages of each kind")
    outage: float = parameter(12.0, 0.3, "seconds of an outage")
    idle_limit: float = parameter(5.0, 0.5, "seconds after which a proxy closes a connection without bytes")
    changes: int = parameter(10_000, 50, "random changes with outages in between")
    fair_keys: int = parameter(300_000, 500, "keys of the account that is read and reported on")
    readers: int = parameter(50, 3, "readers of its list at once")
    reports: int = parameter(50, 3, "usage reports at once")
    slow: int = parameter(5, 2, "slow readers of another account's list")
    fair_seconds: float = parameter(60.0, 2.0, "seconds of that load")
