"""Leases: how long the remembered decisions of one list hold."""

import math
import threading

import pytest

from gatekeeper import Gatekeeper, Reason
from gatekeeper.gate.lease import Leases
from tests.support.loops import threads_switching_often
from tests.support.memory_source import MemorySource
from tests.support.remembered import leases_of, remembered_by
from tests.support.rows import ORIGIN, client_key, row


def test_a_lease_that_has_ended_is_never_renewed() -> None:
    leases = Leases()
    leases.renew(5.0)
    before = leases.current
    leases.end()
    leases.renew(7.0)
    assert (before.ends_at, leases.current.ends_at) == (-math.inf, 7.0)
    assert leases.current is not before


def test_after_a_change_decisions_hold_as_long_as_before() -> None:
    leases = Leases()
    leases.renew(5.0)
    leases.end()
    assert leases.current.ends_at == 5.0


def test_without_a_refresher_the_lease_ends() -> None:
    leases = Leases()
    leases.renew(5.0)
    before = leases.current
    leases.renew(-math.inf)
    assert leases.current.ends_at == -math.inf
    leases.renew(9.0)
    assert (before.ends_at, leases.current.ends_at) == (-math.inf, 9.0)


def test_a_closed_list_has_no_lease_any_more() -> None:
    leases = Leases()
    leases.renew(5.0)
    leases.close()
    leases.renew(9.0)
    leases.end()
    assert (leases.current.ends_at, leases.ended.ends_at) == (-math.inf, -math.inf)


def test_a_renewal_in_another_thread_revives_no_lease() -> None:
    """One event loop keeps to its schedule while another one applies a list."""
    leases, is_over = Leases(), threading.Event()
    leases.renew(0.0)

    def renew() -> None:
        while not is_over.is_set():
            leases.renew(1.0)

    with threads_switching_often():
        threads = [threading.Thread(target=renew) for _ in range(2)]
        for thread in threads:
            thread.start()
        ended = []
        for _ in range(2_000):
            ended.append(leases.current)
            leases.end()
        is_over.set()
        for thread in threads:
            thread.join()
    assert {each.ends_at for each in ended} == {-math.inf}


@pytest.mark.anyio
async def test_a_decision_that_races_with_a_change_is_not_remembered() -> None:
    source = MemorySource(row(1))
    async with Gatekeeper(source) as gate:
        lease = leases_of(gate).current
        decided = gate._deciding.requests.decide((client_key(1).encode(), ORIGIN.encode()))
        assert (decided.lease, remembered_by(gate)) == (lease, [decided])
        source.rows = [row(1, disabled_at="now")]
        await gate.refresh()
        gate.memo.remember((client_key(1).encode(), ORIGIN.encode()), decided)  # the change came before it was remembered
        assert remembered_by(gate) == []
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.KEY_DISABLED
