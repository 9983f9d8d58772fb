"""Enforcement: whether refused requests are turned away, and a record of them."""

import logging
from collections.abc import Callable
from functools import partial

import msgspec

from gatekeeper.errors import ConfigError
from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.refusal_log import RefusalLog
from gatekeeper.gate.refusals import Refusals
from gatekeeper.keys.refused_page import RefusedPage

__all__ = ("Enforcement", "enforce_problems")

logger = logging.getLogger("gatekeeper")


class Enforcement:
    """Enforces decisions, or only observes them.

    Args:
        on_change: called after `enforce` has changed.
        enforce: whether refused requests are turned away; otherwise they are let through.
        clock: gives seconds that never run backwards.
        wall_clock: gives seconds since 1970.
        by_account: whether the log names the accounts of keys.

    Attributes:
        observed: the requests that were let through, though their decision refuses them.
        refusals: the pages that were refused most often.

    Raises:
        ConfigError: `enforce` is not a bool.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        enforce: bool,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        by_account: bool = False,
    ) -> None:
        self.observed = 0
        self.refusals = Refusals()
        self._new_log = partial(RefusalLog, clock, by_account=by_account)
        self._log = self._new_log()
        self._on_change = on_change
        self._wall_clock = wall_clock
        self._enforce = True
        self.enforce = enforce

    @property
    def enforce(self) -> bool:
        """Whether refused requests are turned away. Each change is logged."""
        return self._enforce

    @enforce.setter
    def enforce(self, enforce: bool) -> None:
        if problems := enforce_problems(enforce):
            raise ConfigError(problems)
        before, self._enforce = self._enforce, enforce
        if before != enforce:
            # A warning, because uvicorn's default logging shows nothing below it.
            text = "enforces from now on" if enforce else "only observes: it lets every request through (enforce=False)"
            logger.warning("gatekeeper: the gate %s", text)
            self._on_change()

    def take_refused(self, *accounts: str | None) -> list[RefusedPage]:
        """The refused pages with their requests since the last call.

        Args:
            accounts: those of their keys; by default all.
        """
        return self.refusals.take_new(*accounts)

    def admits(self, decision: Decision, *, from_own_frame: bool) -> bool:
        """Whether a request may go on. A refused one is recorded.

        Args:
            decision: the decision on it.
            from_own_frame: whether its page is one of the service itself, whose entry must not be advised.
        """
        if decision.allowed:
            return True
        if from_own_frame:
            decision = msgspec.structs.replace(decision, add=None)
        if self.refusals.note(decision, self._wall_clock()):
            self._log.first(decision, enforce=self._enforce)
        if self._enforce:
            return False
        self.observed += 1
        return True

    def after_fork(self) -> None:
        """Start afresh: the parent reports its own, and may hold a lock."""
        self.observed = 0
        self.refusals = Refusals()
        self._log = self._new_log()


def enforce_problems(enforce: object) -> tuple[str, ...]:
    """Say what is wrong with the option `enforce`."""
    return () if isinstance(enforce, bool) else (f"enforce is {enforce!r}: expected True or False",)
