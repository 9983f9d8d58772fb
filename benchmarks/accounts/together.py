"""One gate for many accounts, beside a gate for each of them in one process."""

from typing import Any

from benchmarks import script
from benchmarks.accounts.parameters import Parameters
from benchmarks.live.companions import companion
from benchmarks.live.database import Kind, database
from benchmarks.live.hubs import running_hub
from benchmarks.script import Figures

__all__ = ("measure",)

KINDS = {"one gate": True, "a gate each": False}
EXTRAS = ("click", "h2", "rich", "trio")  # httpx and httpcore import them where they are; gatekeeper needs none of them
MB = 1e6


def measure(parameters: Parameters, kind: Kind) -> Figures:
    """Start them, and let them be idle."""
    kept_on, rest_on = script.processors()
    with database(kind) as kept:
        accounts = kept.fill_evenly(parameters.accounts, parameters.keys)
        with running_hub(kept, rest_on) as hub:
            sources = [{"base_url": hub.url, "token": account.gate} for account in accounts]
            said: dict[str, list[Figures]] = {name: [] for name in KINDS}
            for name in script.interleaved(KINDS, parameters.rounds):
                said[name].append(_one(parameters, sources, kept_on, together=KINDS[name]))
    return {f"{name}: {figure}": value["median"] for name in KINDS for figure, value in script.spreads(said[name]).items()}


def _one(parameters: Parameters, sources: list[Any], processor: int, *, together: bool) -> Figures:
    with companion("gates", processor, EXTRAS) as gates:
        started = gates.say(start={"sources": sources, "together": together, "interval": parameters.interval})
        idle = gates.say(idle={"seconds": parameters.idle})
    expected = parameters.accounts * parameters.keys
    if started["keys"] != expected:
        raise SystemExit(f"the gates have {started['keys']} keys: expected {expected}")
    return {
        "all lists are there after (s)": started["seconds"],
        "memory of the process (MB)": started["memory"] / MB,
        "the same, idle (MB)": idle["memory"] / MB,
        "of it the interpreter and imports (MB)": started["imported"] / MB,
        "processor time while idle (% of a core)": 100 * idle["used"] / parameters.idle,
        "fetches while idle, a second": sum(idle["fetches"]) / parameters.idle,
    }
