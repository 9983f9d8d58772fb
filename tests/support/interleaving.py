"""Two threads that meet, without threads: one function runs between two bytecodes of another one."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import CodeType, FrameType
from typing import Any, TypeVar

import gatekeeper

__all__ = ("at_each_step", "interrupted_at_each_step")

Value = TypeVar("Value")

TRACED = f"{gatekeeper.__path__[0]}{os.sep}"

if sys.version_info >= (3, 12):  # There, settrace misses the bytecodes of a function's first run.

    @contextmanager
    def _before_each_bytecode(act: Callable[[], object]) -> Iterator[None]:
        monitoring, tool, event = sys.monitoring, sys.monitoring.DEBUGGER_ID, sys.monitoring.events.INSTRUCTION

        def see(code: CodeType, _offset: int) -> object:
            if not code.co_filename.startswith(TRACED):
                return monitoring.DISABLE
            return act()

        monitoring.use_tool_id(tool, __name__)
        monitoring.register_callback(tool, event, see)
        monitoring.restart_events()
        monitoring.set_events(tool, event)
        try:
            yield
        finally:
            monitoring.set_events(tool, monitoring.events.NO_EVENTS)
            monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)
else:

    @contextmanager
    def _before_each_bytecode(act: Callable[[], object]) -> Iterator[None]:
        def trace(frame: FrameType, event: str, _: Any) -> Callable[[FrameType, str, Any], Any] | None:
            if not frame.f_code.co_filename.startswith(TRACED):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode":
                act()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


def at_each_step(run: Callable[[], Value], meanwhile: Callable[[], object]) -> Value:
    """Run a function, and another one before each of its bytecodes.

    Only bytecodes of gatekeeper count.

    Args:
        run: the function.
        meanwhile: what another thread does there.

    Returns:
        What the function returns.
    """
    with _before_each_bytecode(meanwhile):
        return run()


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
