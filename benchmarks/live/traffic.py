"""A steady rate of requests to a guarded app, in a process of its own.

`python -m benchmarks.live.traffic` obeys `start` and `stop`.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from benchmarks import script, wire
from benchmarks.live.companions import companion
from benchmarks.live.gates import request
from benchmarks.obeying import obey
from benchmarks.script import Figures

__all__ = ("traffic",)

CONNECTIONS = 16


@contextmanager
def traffic(port: int, numbers: list[int], rate: float) -> Iterator[Figures]:
    """Send requests until the end of the block.

    Args:
        port: the port of the app.
        numbers: the keys that are used, all of them allowed.
        rate: requests a second.

    Yields:
        A dictionary, which has the figures after the block.
    """
    figures: Figures = {}
    with companion("live.traffic") as sender:
        sender.say(start={"port": port, "numbers": numbers, "rate": rate})
        yield figures
        figures |= sender.say(stop=True)


class _Sender:
    def __init__(self) -> None:
        self.waits: list[float] = []
        self.refused = 0
        self.begun = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def answer(self, command: Figures) -> Figures:
        if start := command.get("start"):
            self.begun = time.monotonic()
            requests = [request(number) for number in start["numbers"]]
            pause = CONNECTIONS / start["rate"]
            sending = (self._send(start["port"], requests, each, pause) for each in range(CONNECTIONS))
            self._tasks = [asyncio.create_task(each) for each in sending]
            return {}
        seconds = time.monotonic() - self.begun
        for task in self._tasks:
            if task.done():
                task.result()
            task.cancel()
        return {
            "requests a second": len(self.waits) / seconds,
            "wrong decisions": self.refused,
            "requests p99 (ms)": script.percentiles(self.waits)["p99"] * 1000,
        }

    async def _send(self, port: int, requests: list[bytes], number: int, pause: float) -> None:
        dice = random.Random(number)
        due = time.monotonic() + dice.random() * pause
        async with wire.Connection(port) as connection:
            while True:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                status = (await connection.ask(dice.choice(requests))).status
                self.waits.append(time.monotonic() - due)
                self.refused += status != HTTPStatus.OK
                due += pause


if __name__ == "__main__":
    asyncio.run(obey(_Sender().answer))
