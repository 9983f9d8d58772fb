"""Decider: the decision for one key and one page, without memory."""

import pytest

from gatekeeper import Reason
from gatekeeper.gate.decider import Decider
from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.gate.page import read_page
from tests.support.indexes import index_of, row

PAGE = read_page(b"https://acme.com", None)


def decider(account: str | None) -> Decider:
    return Decider(index_of(row("a"), account=account), lambda: "fresh", "pk_live_")


@pytest.mark.parametrize("account", ["acme", "acme_shop", None])
def test_a_new_key_with_underscores_in_its_random_part_may_become_known(account: str | None) -> None:
    """A key created a second ago is not in the list yet, so its request may wait for a fresher one."""
    key = b"pk_live_acme_shop_x_9-_yz01_4567"
    assert decider(account).decide(key, PAGE).reason is Reason.KEY_UNKNOWN
    assert decider(account).may_become_known(key)


@pytest.mark.parametrize(
    "key", [b"pk_live_globex_0123456789", b"pk_live_acm_e_0123456789", b"pk_live_acmeshop_01234567", CONFLICT]
)
def test_a_key_of_no_known_account_never_becomes_known(key: bytes | Conflict) -> None:
    assert not decider("acme").may_become_known(key)
