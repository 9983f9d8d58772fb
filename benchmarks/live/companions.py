"""Helpers in processes of their own, which obey one JSON command a line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import script
from benchmarks.script import Figures

__all__ = ("Companion", "companion")


# For the import system, None stands for a module that there is not. The package itself requires some of them.
HIDING = (
    "import benchmarks, runpy, sys; sys.modules.update(dict.fromkeys({!r})); runpy.run_module({!r}, run_name='__main__')"
)


class Companion:
    """The other end of a helper.

    Args:
        process: its process.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def say(self, **command: Any) -> Figures:
        """Send a command, and read its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the helper {self._process.args!r} has ended")
        answer: Figures = json.loads(line)
        return answer


@contextmanager
def companion(module: str, processor: int | None = None, without: Sequence[str] = ()) -> Iterator[Companion]:
    """Run a helper until the end of the block.

    Args:
        module: its module in `benchmarks`.
        processor: the processor to which it is pinned; None for any.
        without: packages that it does not find, though they are installed.
    """
    command = [sys.executable, "-c", HIDING.format(tuple(without), f"benchmarks.{module}")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=script.ROOT) as process:
        try:
            if processor is not None:
                os.sched_setaffinity(process.pid, {processor})
            yield Companion(process)
        finally:
            process.kill()
