"""Blocking calls in threads, and the end of a program that has made some."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from gatekeeper.sync.threads import in_thread
from tests.support.rows import as_json, row


@contextmanager
def slow() -> Iterator[threading.Event]:
    may_end = threading.Event()
    try:
        yield may_end
    finally:
        may_end.set()


@pytest.mark.anyio
async def test_a_function_runs_in_another_thread() -> None:
    *given, thread = await in_thread(lambda first, second: (first, second, threading.get_ident()), 1, 2)
    assert (given, thread == threading.get_ident()) == ([1, 2], False)


@pytest.mark.anyio
async def test_its_exception_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


@pytest.mark.anyio
async def test_a_cancelled_caller_waits_for_the_function() -> None:
    ended: list[bool] = []

    def end_late() -> None:
        may_end.wait(0.1)
        ended.append(True)

    with slow() as may_end, anyio.move_on_after(0.01):
        await in_thread(end_late)
    assert ended


@pytest.mark.anyio
async def test_a_cancelled_caller_may_abandon_the_function() -> None:
    with slow() as may_end, anyio.move_on_after(0.01) as scope:
        await in_thread(may_end.wait, 5, abandon_on_cancel=True)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_what_an_abandoned_function_returns_is_dropped() -> None:
    ended = threading.Event()

    def end_late() -> None:
        may_end.wait(5)
        ended.set()
        raise OSError("the disk is gone")

    with slow() as may_end, anyio.move_on_after(0.01):
        await in_thread(end_late, abandon_on_cancel=True)
    assert await anyio.to_thread.run_sync(ended.wait, 5)
    assert await in_thread(divmod, 7, 2, abandon_on_cancel=True) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0, abandon_on_cancel=True)


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_ends_while_its_file_blocks(backend: str, tmp_path: Path) -> None:
    """The file is a pipe without a writer. It stands for a network share whose server is gone."""
    pipe = tmp_path / "rows.json"
    os.mkfifo(pipe)
    program = f"""\
import anyio
from gatekeeper import FileSource, Gatekeeper

async def main():
    async with Gatekeeper(FileSource({str(pipe)!r}), start_timeout=0.1) as gate:
        print(gate.status.state)

anyio.run(main, backend={backend!r})
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "never_loaded\nended\n", "")


@pytest.mark.process
@pytest.mark.parametrize("source", ["FileSource(path)", "MemorySource(row(1)), snapshot_path=path + '.snapshot'"])
def test_a_program_ends_though_its_event_loop_was_only_stopped(source: str, tmp_path: Path) -> None:
    """Daphne runs no lifespan, and stops its event loop while tasks wait. It had to be killed."""
    path = tmp_path / "rows.json"
    path.write_bytes(as_json(row(1)))
    program = f"""\
import asyncio
from gatekeeper import FileSource, Gatekeeper
from tests.support.memory_source import MemorySource
from tests.support.rows import ORIGIN, client_key, row

path = {str(path)!r}
gate = Gatekeeper({source})
loop = asyncio.new_event_loop()

async def main():
    print((await gate.check(client_key(1), ORIGIN)).reason)
    loop.call_later(0.1, loop.stop)

task = loop.create_task(main())
loop.run_forever()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (0, "allowed\n"), done.stderr
