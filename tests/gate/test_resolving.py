"""Whose key a client key is, where several accounts may have it."""

import hashlib
from collections.abc import Iterator
from itertools import product
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import Gatekeeper, Reason, StaticSource
from gatekeeper.gate.page import NOT_FRAMED
from tests.support.accounts import AccountSource, proven_row
from tests.support.rows import ORIGIN, client_key, row

SHOP = client_key(1, "acme_shop")  # may be a key of acme, too, whose random part begins with "shop_"
PLAIN, NONE, OTHER = row(1), None, proven_row(1, "elsewhere")
OF_SHOP, OF_ACME = proven_row(1, "acme_shop"), proven_row(1, "acme_shop", id="of acme")


def rows_of(*rows: Any) -> list[Any]:
    return [each for each in rows if each is not None]


def gate_of(**accounts: list[Any]) -> Gatekeeper:
    return Gatekeeper([StaticSource(rows, account=account) for account, rows in accounts.items()])


@pytest.mark.parametrize(
    ("acme", "shop", "reason", "account"),
    [
        (NONE, NONE, "key_unknown", None),
        (PLAIN, NONE, "allowed", "acme"),
        (NONE, PLAIN, "allowed", "acme_shop"),
        (PLAIN, PLAIN, "key_ambiguous", None),
        (NONE, OF_SHOP, "allowed", "acme_shop"),
        (PLAIN, OF_SHOP, "allowed", "acme_shop"),
        (OF_ACME, NONE, "allowed", "acme"),
        (OF_ACME, PLAIN, "allowed", "acme"),
        (OTHER, NONE, "key_unknown", None),
        (OTHER, PLAIN, "allowed", "acme_shop"),
        (PLAIN, OTHER, "allowed", "acme"),
        (OTHER, OTHER, "key_unknown", None),
        (OF_ACME, OF_SHOP, "allowed", "acme_shop"),
    ],
)
def test_a_digest_decides_else_the_only_row(acme: Any, shop: Any, reason: str, account: str | None) -> None:
    gate = gate_of(acme=rows_of(acme), acme_shop=rows_of(shop))
    for _ in range(2):
        decision = gate.decide(SHOP, ORIGIN)
        assert (decision.reason, decision.account) == (reason, account)


def test_two_rows_of_one_account_that_look_alike_stay_ambiguous() -> None:
    gate = gate_of(acme=[row(1), row(1, id="another")], acme_shop=[])
    assert gate.decide(SHOP, ORIGIN).reason is Reason.KEY_AMBIGUOUS
    gate = gate_of(acme=[row(1), row(1, id="another")], acme_shop=[OF_SHOP])
    assert gate.decide(SHOP, ORIGIN).allowed


@pytest.mark.parametrize("account", ["globex", "acm", "acme-shop", "acmeshop", "ACME", "acme_"])
def test_a_key_of_no_account_of_the_gate_is_unknown(account: str) -> None:
    gate = gate_of(globe=[row(1)], acme=[row(1)])
    expected = "allowed" if account == "acme_" else "key_unknown"  # "_" may begin the random part
    assert gate.decide(client_key(1, account), ORIGIN).reason == expected


# Lists that are not there. Those of memory sources that were not started have never been loaded.


def half_loaded(acme: list[Any] | None, shop: list[Any] | None) -> Gatekeeper:
    """A gate with the lists of two accounts, one of which may not have come yet."""

    def sources() -> Iterator[Any]:
        for account, rows in (("acme", acme), ("acme_shop", shop)):
            yield AccountSource(account) if rows is None else StaticSource(rows, account=account)

    return Gatekeeper(list(sources()))


@pytest.mark.parametrize(
    ("acme", "shop", "reason"),
    [
        (None, None, "not_ready"),
        (None, [], "not_ready"),
        (None, [PLAIN], "not_ready"),
        (None, [OF_SHOP], "allowed"),
        ([OF_ACME], None, "allowed"),
        ([PLAIN], None, "not_ready"),
        ([], None, "not_ready"),
    ],
)
def test_only_a_digest_decides_without_all_lists(acme: Any, shop: Any, reason: str) -> None:
    gate = half_loaded(acme, shop)
    for _ in range(2):
        assert gate.decide(SHOP, ORIGIN).reason == reason


def test_the_list_of_another_account_is_not_waited_for() -> None:
    gate = half_loaded([PLAIN], None)
    assert gate.decide(client_key(1, "acme"), ORIGIN).allowed
    gate = half_loaded(None, [PLAIN])
    assert gate.decide(client_key(1, "acme"), ORIGIN).reason is Reason.NOT_READY
    assert gate.decide(client_key(1, "globex"), ORIGIN).reason is Reason.KEY_UNKNOWN


@pytest.mark.parametrize("key", [None, "nonsense", "pk_live_acme", "pk_live_"])
def test_without_a_key_a_gate_is_not_ready_if_no_list_is(key: str | None) -> None:
    assert half_loaded(None, None).decide(key, ORIGIN).reason is Reason.NOT_READY
    expected = Reason.KEY_MISSING if key is None else Reason.KEY_MALFORMED
    assert half_loaded(None, []).decide(key, ORIGIN).reason is expected
    assert Gatekeeper([]).decide(key, ORIGIN).reason is expected


def test_a_gate_without_sources_knows_no_key() -> None:
    gate = Gatekeeper([])
    assert gate.decide(SHOP, ORIGIN).reason is Reason.KEY_UNKNOWN
    assert (gate.accounts, gate.statuses, gate.status.state) == ((), {}, "fresh")


def test_the_order_of_reasons_is_that_of_one_source() -> None:
    decide = half_loaded(None, [PLAIN])._deciding.decider.decide
    assert decide(SHOP.encode(), NOT_FRAMED).decision.reason is Reason.NOT_FRAMED
    assert decide(client_key(1, "acme").encode(), NOT_FRAMED).decision.reason is Reason.NOT_READY
    assert decide(client_key(1, "globex").encode(), NOT_FRAMED).decision.reason is Reason.NOT_FRAMED
    assert decide(None, NOT_FRAMED).decision.reason is Reason.NOT_FRAMED


# What is remembered


def test_a_decision_that_depends_on_two_lists_is_not_remembered() -> None:
    gate = gate_of(acme=[PLAIN], acme_shop=[])
    first = gate.decide(SHOP, ORIGIN)
    assert gate.decide(SHOP, ORIGIN) is not first
    assert gate.decide(SHOP, ORIGIN) == first
    assert gate.decide(client_key(1, "acme"), ORIGIN) is gate.decide(client_key(1, "acme"), ORIGIN)
    assert gate._lists.all[0].leases.used.counts == {"key-1": 3}, "each use is counted all the same"


def test_a_decision_by_a_digest_is_remembered() -> None:
    gate = gate_of(acme=[PLAIN], acme_shop=[OF_SHOP])
    assert gate.decide(SHOP, ORIGIN) is gate.decide(SHOP, ORIGIN)


def test_a_key_in_two_lists_is_that_of_the_longer_account_at_once() -> None:
    gate = Gatekeeper([acme := AccountSource("acme", OF_ACME), shop := AccountSource("acme_shop")], unknown_key_wait=0.0)

    async def move() -> None:
        async with gate:
            assert gate.decide(SHOP, ORIGIN).account == "acme"
            shop.rows = [proven_row(1, "acme_shop", disabled_at="now")]  # before its row leaves the other list
            await gate.refresh(account="acme_shop")
            assert gate.decide(SHOP, ORIGIN).reason is Reason.KEY_DISABLED
            acme.rows = []
            await gate.refresh(account="acme")
            assert gate.decide(SHOP, ORIGIN).reason is Reason.KEY_DISABLED

    anyio.run(move)


# Against a naive oracle

ACCOUNTS = ("a", "a_b", "a_b_c", "b", "a_", "c-d")
KEYS = tuple(
    f"pk_live_{account}_{rest}" for account, rest in product((*ACCOUNTS, "d"), ("xxxxxxx0", "b_xxxxxx0", "c_xxxxxx0"))
)
SUFFIXES = sorted({key[-8:] for key in KEYS})


@st.composite
def lists(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for account in draw(st.lists(st.sampled_from(ACCOUNTS), unique=True)):
        rows = []
        for number in range(draw(st.integers(0, 3))):
            digest_of = draw(st.none() | st.sampled_from(KEYS))
            suffix = draw(st.sampled_from(SUFFIXES)) if digest_of is None else digest_of[-8:]
            digest = None if digest_of is None else hashlib.sha256(digest_of.encode()).hexdigest()
            rows.append(row(1, id=f"{account}-{number}", last8=suffix, key_sha256=digest))
        found[account] = rows
    return found


def oracle(accounts: dict[str, list[dict[str, Any]]], key: str) -> tuple[str, str | None]:
    """The reason, and the id of the row."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    hits: list[str] = []
    proven: list[list[str]] = []
    for account in sorted(accounts, key=len, reverse=True):
        if not key.startswith(f"pk_live_{account}_") or len(key) == len(f"pk_live_{account}_"):
            continue
        mine = [each for each in accounts[account] if each["last8"] == key[-8:]]
        by_digest = [each["id"] for each in mine if each["key_sha256"] == digest]
        if len(by_digest) == 1:
            proven.append(by_digest)
        hits += by_digest * 2 if len(by_digest) > 1 else [each["id"] for each in mine if each["key_sha256"] is None]
    if proven:
        return "allowed", proven[0][0]
    if len(hits) == 1:
        return "allowed", hits[0]
    return "key_ambiguous" if hits else "key_unknown", None


@settings(max_examples=300, deadline=None)
@given(lists(), st.sampled_from(KEYS))
def test_decisions_are_those_of_a_naive_search(accounts: dict[str, list[dict[str, Any]]], key: str) -> None:
    gate = gate_of(**accounts)
    for _ in range(2):
        decision = gate.decide(key, ORIGIN)
        assert (decision.reason.value, decision.key and decision.key.id) == oracle(accounts, key)
        if decision.key is not None:
            assert decision.account == decision.key.id.rpartition("-")[0]
