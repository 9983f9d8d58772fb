"""The signal that stops a server, before the server ends the app."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ("on_stop_signal",)


@contextmanager
def on_stop_signal(act: Callable[[], None]) -> Iterator[None]:
    """Act when SIGTERM or SIGINT arrives, beside what the server does then.

    A server ends the lifespan of its app only after the requests that it has begun, and these may wait for a minute. So it
    is the signal that tells of the end. Outside of the main thread, where no signal arrives, nothing is done. A signal that
    the server does not handle is left alone.

    Args:
        act: is called in the event loop that runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    handlers = {ending: signal.getsignal(ending) for ending in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(act)
        former = handlers[signal.Signals(number)]
        if callable(former):
            former(number, frame)

    handled = [ending for ending, former in handlers.items() if callable(former)]
    for ending in handled:
        signal.signal(ending, handle)
    try:
        yield
    finally:
        for ending in handled:
            if signal.getsignal(ending) is handle:
                signal.signal(ending, handlers[ending])
