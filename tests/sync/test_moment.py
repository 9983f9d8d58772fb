"""Moments: events that take little memory until they are awaited."""

from typing import Any

import anyio
import pytest

from gatekeeper.sync.moment import Moment

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: Any) -> Any:
    return request.param


async def test_all_who_wait_go_on_when_it_comes() -> None:
    moment, gone = Moment(), []

    async def wait(name: str) -> None:
        await moment.wait()
        gone.append(name)

    async with anyio.create_task_group() as group:
        for name in ("first", "second"):
            group.start_soon(wait, name)
        await anyio.wait_all_tasks_blocked()
        assert (moment.has_come, gone) == (False, [])
        moment.come()
    assert moment.has_come
    assert sorted(gone) == ["first", "second"]


async def test_after_it_has_come_waiting_is_a_checkpoint() -> None:
    moment = Moment()
    moment.come()
    moment.come()
    await moment.wait()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await moment.wait()
    assert scope.cancelled_caught


async def test_a_wait_that_is_cancelled_leaves_the_others() -> None:
    moment, gone = Moment(), []

    async def wait() -> None:
        await moment.wait()
        gone.append("went on")

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        with anyio.move_on_after(0):
            await moment.wait()
        moment.come()
    assert gone == ["went on"]
