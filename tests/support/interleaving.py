"""Two threads that meet, without threads: one function runs between two bytecodes of another one."""

import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any, TypeVar

__all__ = ("at_each_step", "interrupted_at_each_step")

Value = TypeVar("Value")

TRACED = ("gatekeeper", "cachetools")


def at_each_step(run: Callable[[], Value], meanwhile: Callable[[], object]) -> Value:
    """Run a function, and another one before each of its bytecodes.

    Only bytecodes of gatekeeper and cachetools count.

    Args:
        run: the function.
        meanwhile: what another thread does there.

    Returns:
        What the function returns.
    """

    def trace(frame: FrameType, event: str, _: Any) -> Callable[[FrameType, str, Any], Any] | None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in TRACED:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            meanwhile()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return run()
    finally:
        sys.settrace(before)


def interrupted_at_each_step(
    prepare: Callable[[], tuple[Callable[[], Value], Callable[[], object]]],
) -> Iterator[Value]:
    """Run a function once for each of its bytecodes, and another one there.

    Args:
        prepare: makes both functions anew for each run.

    Yields:
        What the function returns, run by run.
    """
    for chosen in count():
        run, meanwhile = prepare()
        steps = count()
        reached = False

        def step() -> None:
            nonlocal reached
            if next(steps) == chosen:  # noqa: B023 - it is called in this run only
                reached = True
                meanwhile()  # noqa: B023 - as above

        value = at_each_step(run, step)
        if not reached:
            return
        yield value
