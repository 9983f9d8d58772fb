"""Commands to a helper's process, one in JSON a line. It imports little, because some helpers measure their memory."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ("obey",)


async def obey(answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
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
