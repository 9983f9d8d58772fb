"""The parameters of `python -m benchmarks.accounts`."""

from dataclasses import dataclass

from benchmarks.live.database import Kind
from benchmarks.script import parameter

__all__ = ("Parameters",)

SCENARIOS = ("together", "hanging", "listed")


@dataclass(frozen=True)
class Parameters:
    """What is measured, and how much of it."""

    only: tuple[str, ...] = parameter(SCENARIOS, SCENARIOS, "scenarios")
    database: tuple[Kind, ...] = parameter(("sqlite", "postgres"), ("sqlite",), "databases of the hub")
    rounds: int = parameter(3, 1, "processes of each kind")
    interval: float = parameter(10.0, 1.0, "seconds of a wait for changes, and between fetches of a list that is not live")
    accounts: int = parameter(200, 3, "accounts, each with a list of its own")
    keys: int = parameter(50, 10, "keys of each")
    idle: float = parameter(60.0, 1.0, "seconds without a request or a change")
    others: int = parameter(20, 2, "accounts beside the one whose hub hangs")
    rate: float = parameter(500.0, 50.0, "requests a second to these")
    trials: int = parameter(200, 2, "revocations, in these and in the list of all accounts")
    listed_accounts: int = parameter(10_000, 20, "accounts of the list of all accounts")
    listed_keys: int = parameter(10, 5, "keys of each of them")
    sights: int = parameter(2_000, 20, "keys whose first request is measured")
    requests: int = parameter(20_000, 100, "requests that are repeated, in each round")
    quiet: float = parameter(180.0, 2.0, "seconds in which a key a minute changes")
