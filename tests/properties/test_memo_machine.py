"""State machine: no remembered decision outlives what it was based on."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatekeeper import Gatekeeper
from gatekeeper.testing import FakeClock
from tests.properties import list_oracle
from tests.support.memory_source import MemorySource
from tests.support.rows import ACCOUNT, ORIGIN, client_key, row

pytestmark = pytest.mark.slow

HARD_STALE = 100
NUMBERS = (1, 2, 3)
OTHERS = [row(number, key_sha256=None) for number in range(4, 10)]
ALLOWLISTS = st.sampled_from([[], ["acme.com"], ["*.acme.com"], ["https://acme.com", "localhost:*"]])
ORIGINS = st.sampled_from([None, "null", ORIGIN, "http://acme.com", "https://a.acme.com", "http://localhost:5173"])
REFERERS = st.sampled_from([None, "https://acme.com/page", "https://a.acme.com/page"])


class Memory(RuleBasedStateMachine):
    """A gate, and a hub that changes, fails and sends bad rows."""

    numbers = st.sampled_from(NUMBERS)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.time = FakeClock()
        self.hub = {number: row(number, key_sha256=None) for number in NUMBERS}
        self.source = MemorySource(*self.hub.values(), *OTHERS)
        self.source.on_fetch = self.note_fetch
        self.known: dict[str, dict[str, Any]] = {}
        self.accepted_at = 0.0
        self.gate = Gatekeeper(
            self.source,
            clock=self.time,
            sleep=self.time.sleep,
            jitter=lambda: 1.0,  # the longest pauses after failures, during which a list may expire
            hard_stale=HARD_STALE,
        )

    @initialize()
    def start(self) -> None:
        self.runner.run(self.gate.check(None, None))
        self.runner.run(self.time.asleep())

    def note_fetch(self) -> None:
        """Read the list as the gate should. Of nine rows one may be bad; with two, the list is rejected."""
        bad = sum(not list_oracle.is_widget_key(fields) for fields in self.source.rows)
        if self.source.broken is None and bad < 2:
            self.known = list_oracle.read_list(self.known, self.source.rows)
            self.accepted_at = self.time.now

    def put(self, number: int, **fields: Any) -> None:
        self.hub[number] = self.hub.get(number, row(number, key_sha256=None)) | fields
        self.source.rows = [*self.hub.values(), *OTHERS]

    @rule(number=numbers, allowlist=ALLOWLISTS, disabled=st.booleans())
    def write(self, number: int, allowlist: list[str], *, disabled: bool) -> None:
        self.put(number, last8=f"{number:08d}", domain_allowlist=allowlist, disabled_at="now" if disabled else None)

    @rule(number=numbers)
    def break_row(self, number: int) -> None:
        self.put(number, last8="short")

    @rule(number=numbers, other=numbers)
    def collide(self, number: int, other: int) -> None:
        self.put(number, last8=f"{other:08d}")

    @rule(number=numbers)
    def drop(self, number: int) -> None:
        self.hub.pop(number, None)
        self.source.rows = [*self.hub.values(), *OTHERS]

    @rule(broken=st.sampled_from([None, None, OSError("no route to host")]))
    def fail(self, broken: Exception | None) -> None:
        self.source.broken = broken

    @rule()
    def refresh(self) -> None:
        slept = len(self.time.sleeps)
        self.runner.run(self.gate.refresh())
        self.runner.run(self.time.asleep(slept + 1))

    @rule(seconds=st.sampled_from([1, 5, 20]))
    def let_time_pass(self, seconds: float) -> None:
        self.runner.run(self.time.advance(seconds))

    @rule(seconds=st.sampled_from([HARD_STALE - 1, HARD_STALE, HARD_STALE + 1]))
    def lose_the_hub(self, seconds: float) -> None:
        self.source.broken = OSError("no route to host")
        self.runner.run(self.time.advance(seconds))

    @rule(number=numbers, origin=ORIGINS, referer=REFERERS)
    def ask(self, number: int, origin: str | None, referer: str | None) -> None:
        self.compare(number, origin, referer)

    @precondition(lambda self: self.known)
    @invariant()
    def decisions_match_a_new_gate_and_the_oracle(self) -> None:
        for number in NUMBERS:
            self.compare(number, ORIGIN, None)

    def compare(self, number: int, origin: str | None, referer: str | None) -> None:
        key, rows = client_key(number), list(self.known.values())
        decision = self.gate.decide(key, origin, referer=referer)
        if self.time.now - self.accepted_at >= HARD_STALE:
            assert decision.reason == "expired"
            return
        page = origin if origin is not None or referer is None else referer.removesuffix("/page")
        assert decision.reason == list_oracle.decide(rows, ACCOUNT, key, page)
        assert decision == Gatekeeper.from_rows(rows, account=ACCOUNT).decide(key, origin, referer=referer)

    def teardown(self) -> None:
        self.runner.close()


Memory.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_no_remembered_decision_outlives_its_reasons = Memory.TestCase
