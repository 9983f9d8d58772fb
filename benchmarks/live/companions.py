"""Helpers in processes of their own, which obey one JSON command a line."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import script
from benchmarks.script import Figures

__all__ = ("Companion", "companion", "obey")


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
def companion(module: str) -> Iterator[Companion]:
    """Run a helper until the end of the block.

    Args:
        module: its module in this package.
    """
    command = [sys.executable, "-m", f"benchmarks.live.{module}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=script.ROOT) as process:
        try:
            yield Companion(process)
        finally:
            process.kill()


async def obey(answer: Callable[[Figures], Awaitable[Figures]]) -> None:
    """Answer the commands on the standard input until it is closed.

    Args:
        answer: turns a command into its answer.
    """
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        said = json.dumps(await answer(json.loads(line)))
        print(said, flush=True)
