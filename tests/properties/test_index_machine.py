"""State machine: a gate decides by the last list alone."""

import asyncio
import hashlib
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gatekeeper import Gatekeeper, Origin
from gatekeeper.testing import FakeClock
from tests.properties import list_oracle
from tests.support.memory_source import MemorySource
from tests.support.rows import ACCOUNT, ORIGIN, client_key, row

pytestmark = pytest.mark.slow

MOST_KEYS = 9  # with ten or more, a list that lacks more than half of them is held back
CLIENT_KEYS = [
    *(client_key(number) for number in (1, 2, 3)),
    *(f"pk_live_acme_another{number:08d}" for number in (1, 2, 3)),
    client_key(MOST_KEYS),
    client_key(1, "globex"),
]
DIGESTS = [hashlib.sha256(key.encode()).hexdigest() for key in CLIENT_KEYS]
PAGES = [ORIGIN, "http://acme.com", "https://a.b.acme.com", "http://localhost:5173", "https://acme.com:8443"]
ORIGIN_HEADERS = [*PAGES, None, "null", "https://acme.com/"]

PLACES = st.integers(0, 20)
NUMBERS = st.integers(1, MOST_KEYS)
DISABLED_AT = st.sampled_from(["2026-11-01T00:00:00Z", "", 0, False, {"by": "the owner"}])
FIELDS = st.one_of(
    st.fixed_dictionaries({"last8": st.sampled_from(["00000001", "00000001", "00000002", "00000003"])}),
    st.fixed_dictionaries({"key_sha256": st.none() | st.sampled_from(DIGESTS)}),
    st.fixed_dictionaries(
        {
            "domain_allowlist": st.sampled_from(
                [
                    None,
                    [],
                    ["acme.com"],
                    ["*.acme.com"],
                    ["http://acme.com", "*.acme.com:*"],
                    ["https://acme.com:8443", "localhost:*", "not an entry"],
                    ["*"],
                ]
            )
        }
    ),
    st.fixed_dictionaries({"agent_id": st.sampled_from([None, "agent-7"]), "name": st.sampled_from([None, "shop", 7])}),
)
BAD_FIELDS = st.sampled_from(
    [
        {"last8": "short"},
        {"last8": None},
        {"domain_allowlist": "acme.com"},
        {"domain_allowlist": ["acme.com", None]},
        {"key_sha256": "not a digest"},
        {"agent_id": 7},
        {"id": 7},
        {"id": ""},
    ]
)


class Lists(RuleBasedStateMachine):
    """A hub, a gate that applies its lists, and the expected rows."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.source = MemorySource()
        self.rows: list[Any] = []
        self.known: dict[str, dict[str, Any]] = {}
        time = FakeClock()
        self.gate = Gatekeeper(self.source, clock=time, sleep=time.sleep, jitter=lambda: 0.5)
        self.enabled_origins = self.gate.enabled_origins()

    @initialize(numbers=st.sets(NUMBERS, min_size=5))
    def begin(self, numbers: set[int]) -> None:
        self.send([row(number, key_sha256=None) for number in sorted(numbers)])

    @rule(number=NUMBERS, place=PLACES, fields=FIELDS)
    def add_or_repeat(self, number: int, place: int, fields: dict[str, Any]) -> None:
        place %= len(self.rows) + 1
        self.send([*self.rows[:place], row(number, **{"key_sha256": None} | fields), *self.rows[place:]])

    @rule(place=PLACES, fields=FIELDS)
    def change(self, place: int, fields: dict[str, Any]) -> None:
        self.rewrite(place, fields)

    @rule(place=PLACES, disabled_at=DISABLED_AT)
    def disable(self, place: int, disabled_at: object) -> None:
        self.rewrite(place, {"disabled_at": disabled_at})

    @rule(place=PLACES)
    def enable(self, place: int) -> None:
        self.rewrite(place, {"disabled_at": None})

    @rule(place=PLACES, fields=BAD_FIELDS, revoked=st.just({}) | st.fixed_dictionaries({"disabled_at": DISABLED_AT}))
    def break_row(self, place: int, fields: dict[str, Any], revoked: dict[str, object]) -> None:
        self.rewrite(place, fields | revoked)

    @rule(place=PLACES, row=st.sampled_from([None, 7, "key-1", ["key-1"]]))
    def replace_by_nonsense(self, place: int, row: object) -> None:
        if self.rows:
            place %= len(self.rows)
            self.send([*self.rows[:place], row, *self.rows[place + 1 :]])

    @rule(place=PLACES)
    def remove(self, place: int) -> None:
        if self.rows:
            place %= len(self.rows)
            self.send(self.rows[:place] + self.rows[place + 1 :])

    @rule()
    def remove_bad_rows(self) -> None:
        self.send([row for row in self.rows if list_oracle.is_widget_key(row)])

    @rule()
    def reverse(self) -> None:
        self.send(self.rows[::-1])

    @rule(numbers=st.sets(NUMBERS))
    def start_over(self, numbers: set[int]) -> None:
        self.send([row(number, key_sha256=None) for number in sorted(numbers)])

    def rewrite(self, place: int, fields: dict[str, Any]) -> None:
        if not self.rows:
            return
        place %= len(self.rows)
        before = self.rows[place]
        if isinstance(before, dict):
            self.send([*self.rows[:place], before | fields, *self.rows[place + 1 :]])

    def send(self, rows: list[Any]) -> None:
        self.rows = self.source.rows = rows
        self.known = list_oracle.read_list(self.known, rows)
        self.runner.run(self.gate.refresh())

    @invariant()
    def decisions_match_a_new_gate_and_the_oracle(self) -> None:
        rows = list(self.known.values())
        fresh = Gatekeeper.from_rows(rows, account=ACCOUNT)
        for key in CLIENT_KEYS:
            for page in ORIGIN_HEADERS:
                decision = self.gate.decide(key, page)
                assert decision == fresh.decide(key, page)
                assert decision.reason == list_oracle.decide(rows, ACCOUNT, key, page)

    @invariant()
    def status_and_enabled_origins_match_the_last_list(self) -> None:
        rows = list(self.known.values())
        status = self.gate.status
        assert status.keys == len(rows)
        assert set(status.ambiguous) == set(Gatekeeper.from_rows(rows).status.ambiguous)
        for page in PAGES:
            assert self.enabled_origins.allows(Origin.parse(page)) is list_oracle.is_allowed_by_some_key(rows, page)

    def teardown(self) -> None:
        self.runner.close()


Lists.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_only_the_last_list_matters = Lists.TestCase
