"""in_thread: calls a blocking function in a thread."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar, TypeVarTuple

import anyio

__all__ = ("in_thread",)

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


async def in_thread(
    function: Callable[[*Arguments], Result], *arguments: *Arguments, abandon_on_cancel: bool = False
) -> Result:
    """Call a blocking function in a thread.

    Under asyncio it uses the threads of the event loop, which end with the program. Those of anyio wait for the end of the
    task that started them: where a server only stops its event loop, as daphne does, the program would not exit.

    A function that may be abandoned has a thread of its own. Neither `asyncio.run` nor the end of the program waits for it:
    reading from a disk that hangs may never end.

    Args:
        function: the function.
        arguments: its arguments.
        abandon_on_cancel: whether a cancelled caller returns before the function does.

    Returns:
        What the function returns.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # trio
        return await anyio.to_thread.run_sync(function, *arguments, abandon_on_cancel=abandon_on_cancel)
    if abandon_on_cancel:
        return await asyncio.wrap_future(_in_own_thread(partial(function, *arguments)))
    with anyio.CancelScope(shield=True):
        result = await loop.run_in_executor(None, function, *arguments)
    return result  # noqa: RET504 - to mypy, a scope may swallow exceptions


def _in_own_thread(function: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled, so the thread may always set it

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="gatekeeper.in_thread", daemon=True).start()
    return future
