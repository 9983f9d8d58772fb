"""A revocation is never undone, in any order of polls, failures, forced refreshes and restarts."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gatekeeper import Gatekeeper, Reason
from gatekeeper.testing import HANG_UP, FakeClock, FakeHub, Hold, HubAnswer, HubRequest, json_answer
from tests.support.guarded import hub_source
from tests.support.rows import ORIGIN, as_json, client_key, row

pytestmark = [pytest.mark.promise("revocations are never undone"), pytest.mark.slow]

NUMBERS = range(1, 5)
FILLERS = [row(number) for number in range(100, 112)]
FAILURES: dict[str, HubAnswer | None] = {
    "none": None,
    "hangs up": HANG_UP,
    "500": HubAnswer(500),
    "401": json_answer("no", 401),
    "HTML": HubAnswer(200, b"<html>"),
    "not modified": HubAnswer(304, headers={"etag": '"other"'}),
}


class Revocations(RuleBasedStateMachine):
    """A hub with four keys, a gate that restarts, and a record of every refusal."""

    numbers = st.sampled_from(NUMBERS)

    @initialize(has_snapshot=st.booleans(), has_etags=st.booleans())
    def begin(self, *, has_snapshot: bool, has_etags: bool) -> None:
        """Start a hub and a gate."""
        self.directory = tempfile.TemporaryDirectory()
        self.snapshot = Path(self.directory.name) / "snapshot" if has_snapshot else None
        self.has_etags = has_etags
        self.hub = FakeHub()
        self.hub.__enter__()
        self.rows: dict[int, dict[str, Any]] = {number: row(number) for number in NUMBERS}
        self.failure: HubAnswer | None = None
        # For each list: the number of requests when it was asked for, and the keys that it allows.
        self.lists: list[tuple[int, frozenset[int]]] = []
        self.refused_after: dict[int, int] = {}
        self.late: Hold | None = None
        self.hub.always(self.answer)
        self.time = FakeClock()
        self.runner = asyncio.Runner()
        self.start()

    def answer(self, request: HubRequest) -> HubAnswer:
        """HubAnswer as the hub."""
        if self.failure is not None:
            return self.failure
        self.lists.append(
            (len(self.hub.requests), frozenset(n for n, fields in self.rows.items() if not fields["disabled_at"]))
        )
        body = as_json(*self.rows.values(), *FILLERS)
        etag = f'"{hash(body)}"'
        if not self.has_etags:
            return HubAnswer(200, body)
        return HubAnswer(304 if request.headers.get("if-none-match") == etag else 200, body, {"etag": etag})

    def start(self) -> None:
        """Start a gate, as a new process would."""
        self.gate = Gatekeeper(
            hub_source(self.hub.url),
            clock=self.time,
            sleep=self.time.sleep,
            jitter=lambda: 0.5,
            start_timeout=0.0,
            usage_interval=0.0,
            hard_stale=5000.0,
            snapshot_path=self.snapshot,
        )
        self.runner.run(self.gate.__aenter__())
        self.runner.run(self.time.asleep())

    def stop(self) -> None:
        """Stop it."""
        self.runner.run(self.gate.__aexit__(None, None, None))

    @rule(number=numbers)
    def revoke(self, number: int) -> None:
        """Disable a key."""
        self.rows[number] = row(number, disabled_at="2026-01-01T00:00:00Z")

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        """Remove a key."""
        self.rows.pop(number, None)

    @rule(number=numbers)
    def enable(self, number: int) -> None:
        """Enable a key again."""
        self.rows[number] = row(number)

    @rule(failure=st.sampled_from(sorted(FAILURES)))
    def fail(self, failure: str) -> None:
        """Fail from now on, or stop failing."""
        self.failure = FAILURES[failure]

    @rule(seconds=st.sampled_from([1.0, 5.0, 12.0, 60.0, 700.0]))
    def poll(self, seconds: float) -> None:
        """Let time pass."""
        self.runner.run(self.time.advance(seconds))

    @rule()
    def refresh(self) -> None:
        """Force a refresh."""
        slept = len(self.time.sleeps)
        self.runner.run(self.gate.refresh())
        self.runner.run(self.time.asleep(slept + 1))

    @rule(number=numbers)
    def ask(self, number: int) -> None:
        """Check a key as a request does: an unknown key causes a fetch."""
        slept = len(self.time.sleeps)
        fetched = len(self.hub.requests)
        self.runner.run(self.gate.check(client_key(number), ORIGIN))
        if len(self.hub.requests) > fetched:
            self.runner.run(self.time.asleep(slept + 1))

    @rule(number=numbers)
    def revoke_during_a_fetch(self, number: int) -> None:
        """Revoke a key between the request for a list and its answer."""
        self.runner.run(self.late_list(number))

    async def late_list(self, number: int) -> None:
        slept, asked = len(self.time.sleeps), len(self.hub.requests)
        with self.hub.held() as hold:
            refreshing = asyncio.create_task(self.gate.refresh())
            await self.hub.asked(asked + 1)
            self.revoke(number)
            hold.release()
        await refreshing
        await self.time.asleep(slept + 1)

    @rule(while_down=st.booleans())
    def restart(self, *, while_down: bool) -> None:
        """Restart the process, with the hub up or down."""
        self.stop()
        failure, self.failure = self.failure, FAILURES["hangs up"] if while_down else self.failure
        self.start()
        self.failure = failure

    @invariant()
    def a_refused_key_is_allowed_only_by_a_later_list(self) -> None:
        """Check every decision against the record."""
        if not hasattr(self, "gate"):
            return
        for number in NUMBERS:
            decision = self.gate.decide(client_key(number), ORIGIN)
            if decision.reason in (Reason.KEY_DISABLED, Reason.KEY_UNKNOWN):
                self.refused_after[number] = len(self.hub.requests)
            elif decision.allowed:
                after = self.refused_after.pop(number, 0)
                assert any(number in allowed for asked, allowed in self.lists if asked >= after), (number, after, self.lists)

    def teardown(self) -> None:
        """Close everything."""
        if hasattr(self, "gate"):
            self.stop()
            self.runner.close()
            self.hub.__exit__(None, None, None)
            self.directory.cleanup()


Revocations.TestCase.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)
test_a_revocation_is_never_undone = Revocations.TestCase
