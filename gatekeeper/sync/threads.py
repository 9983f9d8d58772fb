"""in_thread: calls a blocking function in a thread."""

import asyncio
from collections.abc import Callable
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
    with anyio.CancelScope(shield=not abandon_on_cancel):
        result = await loop.run_in_executor(None, function, *arguments)
    return result  # noqa: RET504 - to mypy, a scope may swallow exceptions
