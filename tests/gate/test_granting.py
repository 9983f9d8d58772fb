"""Decisions by grants, through a gate: order of reasons, memo, renewal, counts, revocation."""

from typing import Any

import pytest

from gatekeeper import ConfigError, Decision, FileSource, Gatekeeper, HubSource, Reason, StaticSource
from gatekeeper.gate.decisions import CONFLICT
from gatekeeper.gate.page import BEHIND_FRAME, NOT_FRAMED, Page, read_page
from gatekeeper.testing import FakeHub
from tests.support.guarded import guarded
from tests.support.memory_source import MemorySource
from tests.support.remembered import leases_of
from tests.support.rows import ORIGIN, TOKEN, client_key, row

pytestmark = [pytest.mark.anyio, pytest.mark.asyncio]

SECRET = "a secret of sixteen characters or more"
KEY = client_key(1)
OWN = "https://widget.test"
ON_PAGE = read_page(ORIGIN.encode(), None)


class Clocks:
    """A gate's two clocks, which tests move together."""

    def __init__(self) -> None:
        self.passed = 0.0

    def clock(self) -> float:
        """Seconds since the boot."""
        return 1_000.0 + self.passed

    def wall_clock(self) -> float:
        """Seconds since 1970."""
        return 1_800_000_000.0 + self.passed


def gate_of(*rows: dict[str, Any], clocks: Clocks | None = None, **options: Any) -> Gatekeeper:
    """A gate for rows that never change, which can sign grants."""
    clocks = clocks or Clocks()
    return Gatekeeper(
        StaticSource(rows or (row(1), row(2)), account="acme"),
        **{"grant_secrets": [SECRET], "clock": clocks.clock, "wall_clock": clocks.wall_clock, **options},
    )


async def granted(gate: Gatekeeper, page: Page = ON_PAGE, key: str = KEY) -> str:
    """The grant that a page gets."""
    decision = await gate.grant(key.encode(), page)
    assert decision.allowed, decision
    assert decision.grant is not None
    return decision.grant


async def test_a_page_gets_a_grant_that_its_frame_can_use() -> None:
    gate = gate_of()
    decision = gate.decide(None, None, grant=await granted(gate))
    assert (decision.reason, decision.origin, decision.via) == (Reason.ALLOWED, ORIGIN, "grant")
    assert decision.key is not None
    assert decision.key.id == "key-1"


async def test_a_frame_without_a_known_page_gets_a_grant_for_the_allowlist() -> None:
    gate = gate_of()
    decision = gate.decide(None, None, grant=await granted(gate, BEHIND_FRAME))
    assert (decision.reason, decision.origin, decision.via) == (Reason.ALLOWED, None, "grant")


@pytest.mark.parametrize(
    ("rows", "page", "reason"),
    [
        ([row(1)], read_page(b"https://evil.test", None), Reason.ORIGIN_NOT_ALLOWED),
        ([row(1)], read_page(None, None), Reason.ORIGIN_MISSING),
        ([row(1)], NOT_FRAMED, Reason.NOT_FRAMED),
        ([row(1, disabled_at="2026-01-01T00:00:00Z")], BEHIND_FRAME, Reason.KEY_DISABLED),
        ([row(1, domain_allowlist=[])], BEHIND_FRAME, Reason.ALLOWLIST_EMPTY),
        ([row(2)], BEHIND_FRAME, Reason.KEY_UNKNOWN),
    ],
)
async def test_a_refused_page_gets_no_grant(rows: list[dict[str, Any]], page: Page, reason: Reason) -> None:
    decision = await gate_of(*rows).grant(KEY.encode(), page)
    assert (decision.reason, decision.grant) == (reason, None)


@pytest.mark.parametrize("key", [None, b"", b"nonsense", CONFLICT])
async def test_outside_of_a_frame_no_key_is_looked_at(key: Any) -> None:
    assert (await gate_of().grant(key, NOT_FRAMED)).reason is Reason.NOT_FRAMED


@pytest.mark.parametrize(
    ("key", "origin", "grant", "reason"),
    [
        ("nonsense", "https://evil.test", "edited", Reason.KEY_MALFORMED),
        (CONFLICT, "https://evil.test", "edited", Reason.KEY_CONFLICT),
        (None, "https://evil.test", "edited", Reason.GRANT_FOREIGN),
        (None, "https://evil.test", None, Reason.GRANT_FOREIGN),
        (None, ORIGIN, None, Reason.GRANT_FOREIGN),
        (KEY, ORIGIN, None, Reason.GRANT_FOREIGN),
        (None, "null", None, Reason.GRANT_FOREIGN),
        (None, "", None, Reason.GRANT_FOREIGN),
        (None, CONFLICT, None, Reason.GRANT_FOREIGN),
        (None, None, "edited", Reason.GRANT_INVALID),
        (None, None, CONFLICT, Reason.GRANT_INVALID),
        (None, None, "", Reason.GRANT_INVALID),
        (client_key(2), None, None, Reason.KEY_CONFLICT),
        (client_key(9), None, None, Reason.KEY_CONFLICT),
        (KEY, None, None, Reason.ALLOWED),
        ("", None, None, Reason.ALLOWED),
    ],
)
async def test_the_first_reason_that_applies_decides_on_a_grant(key: Any, origin: Any, grant: Any, reason: Reason) -> None:
    gate = gate_of()
    valid = await granted(gate)
    grant = valid if grant is None else grant
    for _ in range(2):
        assert gate.decide(key, origin, grant=grant).reason is reason


async def test_a_grant_ends_even_where_it_is_remembered() -> None:
    clocks = Clocks()
    gate = gate_of(clocks=clocks)
    grant = await granted(gate)
    for passed, reason in ((0.0, "allowed"), (449.0, "allowed"), (899.9, "allowed"), (900.0, "grant_expired")):
        clocks.passed = passed
        assert gate.decide(None, None, grant=grant).reason == reason, passed
        assert gate.decide(None, None, grant=grant).reason == reason, passed


async def test_a_grant_past_half_its_life_comes_with_a_new_one() -> None:
    clocks = Clocks()
    gate = gate_of(clocks=clocks)
    grant = await granted(gate)
    assert gate.decide(None, None, grant=grant).grant is None
    clocks.passed = 450.0
    new = gate.decide(None, None, grant=grant).grant
    assert new not in (None, grant)
    assert gate.decide(None, None, grant=grant).grant == new, "remembered"
    clocks.passed = 1000.0
    assert gate.decide(None, None, grant=grant).reason is Reason.GRANT_EXPIRED
    assert gate.decide(None, None, grant=new).allowed


async def test_a_frame_can_work_for_12_hours_but_no_longer() -> None:
    clocks = Clocks()
    gate = gate_of(clocks=clocks)
    grant = await granted(gate)
    while (decision := gate.decide(None, None, grant=grant)).allowed:
        grant = decision.grant or grant
        clocks.passed += 60.0
        assert clocks.passed <= 43_260.0
    assert decision.reason is Reason.GRANT_EXPIRED
    assert clocks.passed == 43_200.0


async def test_requests_with_a_grant_count_as_uses_of_its_key() -> None:
    gate = gate_of()
    grant = await granted(gate)
    for _ in range(3):
        assert (await gate.check(None, None, grant=grant)).allowed
    assert gate.memo.take_used_keys(leases_of(gate).used) == {"key-1": 4}
    assert gate.decisions[Reason.ALLOWED] == 4
    assert len(gate.memo.allowed) == 1


async def test_a_flood_of_wrong_grants_is_not_remembered() -> None:
    gate = gate_of()
    grant = await granted(gate)
    for number in range(5_000):
        assert gate.decide(None, None, grant=f"{number}.{grant}").reason is Reason.GRANT_INVALID
        assert gate.decide(None, f"https://{number}.test", grant=grant).reason is Reason.GRANT_FOREIGN
    assert not gate.memo


@pytest.mark.parametrize(
    ("changed", "page", "reason"),
    [
        ({"disabled_at": "2026-02-01T00:00:00Z"}, ON_PAGE, Reason.KEY_DISABLED),
        ({"disabled_at": "2026-02-01T00:00:00Z"}, BEHIND_FRAME, Reason.KEY_DISABLED),
        ({"domain_allowlist": ["blog.acme.com"]}, ON_PAGE, Reason.ORIGIN_NOT_ALLOWED),
        ({"domain_allowlist": ["blog.acme.com"]}, BEHIND_FRAME, Reason.GRANT_EXPIRED),
        ({"domain_allowlist": ["acme.com", "blog.acme.com"]}, ON_PAGE, Reason.ALLOWED),
        ({"domain_allowlist": ["acme.com", "blog.acme.com"]}, BEHIND_FRAME, Reason.GRANT_EXPIRED),
        ({"domain_allowlist": []}, BEHIND_FRAME, Reason.ALLOWLIST_EMPTY),
        ({"name": "another"}, BEHIND_FRAME, Reason.ALLOWED),
        (None, ON_PAGE, Reason.KEY_UNKNOWN),
    ],
)
async def test_a_grant_is_revoked_with_its_key_or_its_page(changed: Any, page: Page, reason: Reason) -> None:
    source = MemorySource(row(1), row(2))
    async with guarded(source, grant_secrets=[SECRET], unknown_key_wait=0.0) as it:
        grant = await granted(it.gate, page)
        assert it.gate.decide(None, None, grant=grant).allowed
        source.rows = [row(2)] if changed is None else [row(1, **changed), row(2)]
        await it.refresh()
        assert it.gate.decide(None, None, grant=grant).reason is reason


async def test_a_refusal_of_a_granted_page_names_it_and_the_entry_to_add() -> None:
    decision = gate_of(row(1, domain_allowlist=["blog.acme.com"])).decide(None, None, grant=await granted(gate_of()))
    assert (decision.origin, decision.add) == (ORIGIN, "acme.com")


async def test_a_grant_is_not_of_a_key_that_has_taken_its_place() -> None:
    """The key was removed and created again. Its last 8 characters are the same, but not its id."""
    grant = await granted(gate_of())
    assert gate_of(row(1, id="another")).decide(None, None, grant=grant).reason is Reason.KEY_UNKNOWN
    twins = gate_of(row(1), row(1, id="another", domain_allowlist=["evil.test"]))
    decision = twins.decide(None, None, grant=grant)
    assert decision.key is not None
    assert (decision.reason, decision.key.id) == (Reason.ALLOWED, "key-1")


async def test_a_grant_of_another_account_is_invalid() -> None:
    other = Gatekeeper(StaticSource([row(1)], account="globex"), grant_secrets=[SECRET])
    assert other.decide(None, None, grant=await granted(gate_of())).reason is Reason.GRANT_INVALID


async def test_a_grant_ends_with_its_secret() -> None:
    clocks, new = Clocks(), "another secret of sixteen characters or more"
    grant = await granted(gate_of(clocks=clocks))
    for secrets, reason in (([new, SECRET], Reason.ALLOWED), ([new], Reason.GRANT_INVALID)):
        assert gate_of(clocks=clocks, grant_secrets=secrets).decide(None, None, grant=grant).reason is reason


async def test_a_remembered_grant_is_nothing_else() -> None:
    gate = gate_of()
    grant = await granted(gate)
    for _ in range(2):
        assert gate.decide(None, None, grant=grant).allowed
    for request in ((None, grant), (grant, None), (grant, grant), ("", grant)):
        assert not gate.decide(*request).allowed
        assert not gate.decide(request[0], None, referer=request[1]).allowed


async def test_a_wall_clock_that_jumps_back_by_days_gives_no_grant_more_time() -> None:
    """As long as it is remembered, its time is measured by the gate's clock."""
    clocks = Clocks()
    wall = [1_800_000_000.0]
    gate = gate_of(clocks=clocks, wall_clock=lambda: wall[-1])
    grant = await granted(gate)
    assert gate.decide(None, None, grant=grant).allowed
    wall.append(wall[0] - 1_000_000.0)
    clocks.passed = 449.0
    assert gate.decide(None, None, grant=grant).allowed
    clocks.passed = 900.0
    assert gate.decide(None, None, grant=grant).reason is Reason.GRANT_EXPIRED


async def test_a_grant_without_a_page_counts_for_its_own_list_only() -> None:
    source = MemorySource(row(1), row(2))
    async with guarded(source, grant_secrets=[SECRET]) as it:
        grant = await granted(it.gate, BEHIND_FRAME)
        for entries, reason in ((["acme.com", "evil.test"], "grant_expired"), (row(1)["domain_allowlist"], "allowed")):
            source.rows = [row(1, domain_allowlist=entries), row(2)]
            await it.refresh()
            assert it.gate.decide(None, None, grant=grant).reason == reason


async def test_a_key_that_another_thread_removes_meanwhile_gets_no_grant() -> None:
    """The document was served with the grant None, and its frame could do nothing."""
    gate = gate_of()
    allowed = gate.decide(KEY, ORIGIN)
    (keys,) = gate._lists.all
    keys.index.clear()
    decision = gate._deciding.granting.give(allowed, keys)
    assert (decision.reason, decision.key, decision.grant) == (Reason.KEY_UNKNOWN, None, None)


async def test_without_a_list_a_grant_is_not_looked_at() -> None:
    gate = Gatekeeper(MemorySource(row(1)), grant_secrets=[SECRET])
    assert gate.decide(None, "https://evil.test", grant="edited").reason is Reason.NOT_READY


async def test_a_gate_from_rows_can_give_grants() -> None:
    gate = Gatekeeper.from_rows([row(1)], grant_secrets=[SECRET])
    assert gate.decide(None, None, grant=await granted(gate)).allowed


async def test_a_gate_without_secrets_gives_no_grant_and_takes_none() -> None:
    gate = gate_of(grant_secrets=None)
    assert gate.grant_lifetime is None
    decision = await gate.grant(KEY.encode(), ON_PAGE)
    assert (decision.allowed, decision.grant) == (True, None)
    assert gate.decide(None, None, grant=await granted(gate_of())).reason is Reason.GRANT_INVALID


async def test_gates_with_the_same_hub_token_accept_each_others_grants(hub: FakeHub) -> None:
    async with guarded(hub) as one, guarded(hub) as other:
        assert other.gate.decide(None, None, grant=await granted(one.gate)).allowed


async def test_the_grants_of_a_replaced_hub_token_count_on(hub: FakeHub) -> None:
    tokens = [TOKEN]
    async with guarded(HubSource(hub.url, lambda: tokens[-1])) as it:
        grant = await granted(it.gate)
        tokens.append("sk_live_acme_another")
        await it.refresh()
        assert hub.requests[-1].headers["authorization"].endswith("another")
        assert it.gate.decide(None, None, grant=grant).allowed
        assert await granted(it.gate) != grant


def test_a_file_has_no_token_to_derive_secrets_from() -> None:
    assert Gatekeeper(FileSource("rows.json")).grant_lifetime is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grant_secrets": SECRET}, "grant_secrets is not a list of secrets"),
        ({"grant_secrets": []}, "grant_secrets is not a list of secrets"),
        ({"grant_secrets": ["short"]}, "grant_secrets has a secret that is no text of 16 characters or more"),
        ({"grant_secrets": ["…the same on both hosts"]}, "grant_secrets has a secret that is no text of 16"),
        ({"grant_secrets": [b"bytes of sixteen or more"]}, "grant_secrets has a secret that is no text"),
        ({"grant_lifetime": 0}, "grant_lifetime is 0: expected seconds"),
        ({"grant_lifetime": 43_201}, "grant_lifetime is 43201"),
        ({"grant_lifetime": "15 min"}, "grant_lifetime is '15 min'"),
    ],
)
def test_a_wrong_option_about_grants_is_a_config_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        gate_of(**options)
    (problem,) = error.value.problems
    assert problem.startswith(said)
    assert "short" not in problem


async def test_no_repr_shows_a_grant() -> None:
    decision = await gate_of().grant(KEY.encode(), ON_PAGE)
    shown = repr(decision)
    assert decision.grant is not None
    assert decision.grant not in shown
    assert "grant='…'" in shown
    assert "reason=" in shown
    assert dict(decision.__rich_repr__())["grant"] == "…"
    assert dict(Decision(Reason.ALLOWED).__rich_repr__())["grant"] is None
