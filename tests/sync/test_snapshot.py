"""The snapshot on disk: its format, its owner, damage, and concurrent processes."""

import asyncio
import fcntl
import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import anyio.lowlevel
import msgspec
import pytest

from gatekeeper.errors import SnapshotError
from gatekeeper.index import list_diff as difference
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.sync.applying import SharedList
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.snapshot import CHECKSUM, FORMAT, LEFT_BEHIND, Saved, Snapshot
from gatekeeper.sync.snapshot_keeper import RETRY_AFTER, SnapshotKeeper
from tests.support.forked import Child
from tests.support.memory_source import MemorySource
from tests.support.refreshing import running
from tests.support.rows import client_key, row
from tests.support.starting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.asyncio]

NOW = 1_767_355_200.0
HOUR = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.snapshot"


def snapshot(
    path: Path, *, account: str | None = "acme", fingerprint: str = "ours", now: float = NOW, **options: Any
) -> Snapshot:
    return Snapshot(path, account=account, fingerprint=lambda: fingerprint, wall_clock=lambda: now, **options)


def index_of(*rows: dict[str, Any]) -> KeyIndex:
    index = KeyIndex(account="acme")
    difference.load(index, [RowReader().convert(number, one) for number, one in enumerate(rows)])
    return index


async def save(path: Path, *numbers: int, asked_at: float = NOW, **options: Any) -> bytes:
    await snapshot(path, **options).save(index_of(*map(row, numbers)), asked_at)
    return content(path)


async def load(path: Path, *, max_age: float = HOUR, **options: Any) -> tuple[float | None, set[str]]:
    index = KeyIndex(account="acme")
    saved = await snapshot(path, **options).load(index, max_age=max_age)
    return None if saved is None else saved.age, {key.id for key in index}


async def refused(path: Path, why: str, **options: Any) -> None:
    """Load a file that must be refused for this reason, leaving the index empty."""
    index = KeyIndex(account="acme")
    with pytest.raises(SnapshotError, match=why):
        await snapshot(path, **options).load(index, max_age=HOUR)
    assert len(index) == 0


def content(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, what: bytes) -> None:
    """Write a file with the mode of a snapshot."""
    path.unlink(missing_ok=True)
    path.write_bytes(what)
    path.chmod(0o600)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


def place(path: Path, kind: str, elsewhere: Path) -> None:
    """Put something other than a regular file at the path."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(elsewhere if kind == "symbolic link" else path.parent / "nowhere")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def open_lock(path: Path) -> BinaryIO:
    return path.with_name(f".{path.name}.lock").open("wb")


def names(path: Path) -> set[str]:
    return {other.name for other in path.parent.iterdir()} - {f".{path.name}.lock"}


# Round trips


async def test_a_saved_list_is_loaded_with_its_age(path: Path) -> None:
    odd = row(3, name="\x00 \u2028 🐢", agent_id="agent-7", disabled_at={"at": 1}, domain_allowlist=None)
    index = index_of(row(1), row(2, disabled_at="now"), odd)
    saver = snapshot(path)
    await saver.save(index, NOW - 5)
    assert saver.saved_at == NOW - 5
    loader, loaded = snapshot(path), KeyIndex(account="acme")
    assert await loader.load(loaded, max_age=HOUR) == Saved(5, None)
    assert loader.saved_at == NOW - 5
    assert sorted(loaded, key=by_id) == sorted(index, key=by_id)


def by_id(key: WidgetKey) -> str:
    return key.id


async def test_an_empty_list_can_be_saved_and_loaded(path: Path) -> None:
    await save(path)
    assert await load(path) == (0, set())


async def test_keys_with_one_suffix_can_be_told_apart_after_a_load(path: Path) -> None:
    digests = ["0" * 64, "1" * 64]
    namesakes = [row(number, last8="samesame", key_sha256=digest) for number, digest in enumerate(digests)]
    index = index_of(*namesakes, row(5))
    await snapshot(path).save(index, NOW)
    loaded = KeyIndex(account="acme")
    await snapshot(path).load(loaded, max_age=HOUR)
    assert sorted(loaded, key=by_id) == sorted(index, key=by_id)
    assert loaded.ambiguous() == index.ambiguous()
    asked = ClientKey.parse("pk_live_acme_samesame")
    assert loaded.resolve(asked) == index.resolve(asked)
    assert isinstance(loaded.resolve(ClientKey.parse(client_key(5))), IndexedKey)


@pytest.mark.slow
async def test_saving_and_loading_yield_to_the_event_loop(path: Path) -> None:
    index = index_of(*(row(number, name="n" * 1000) for number in range(3000)))
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(take_turns)
        await snapshot(path).save(index, NOW)
        written, turns = turns, 0
        assert len((await load(path))[1]) == 3000
        group.cancel_scope.cancel()
    assert min(written, turns) > 3


async def test_the_file_names_its_format_and_owner_and_has_mode_0600(path: Path) -> None:
    before = os.umask(0)
    try:
        written = await save(path, 1, 2, asked_at=NOW - 5)
    finally:
        os.umask(before)
    assert written.startswith(FORMAT)
    length = int.from_bytes(written[len(FORMAT) : len(FORMAT) + 4])
    header = msgspec.msgpack.decode(written[len(FORMAT) + 4 : len(FORMAT) + 4 + length])
    assert header == {
        "fields": list(WidgetKey.__struct_fields__),
        "account": "acme",
        "fingerprint": "ours",
        "asked_at": NOW - 5,
        "keys": 2,
    }
    assert mode_of(path) == 0o600
    assert names(path) == {path.name}


async def test_a_missing_file_is_no_error(path: Path) -> None:
    assert await load(path) == (None, set())
    assert await load(path.parent / "nowhere" / "keys.snapshot") == (None, set())


# Damaged and untrusted files


async def test_every_changed_byte_is_noticed(path: Path) -> None:
    written = await save(path, 1)
    assert len(written) < 1000
    for place in range(len(written)):
        put(path, written[:place] + bytes((written[place] ^ 0x41,)) + written[place + 1 :])
        await refused(path, "is damaged, or of another format")
        assert names(path) == {f"{path.name}.bad"}


async def test_every_other_length_is_noticed(path: Path) -> None:
    written = await save(path, 1)
    for length in range(len(written)):
        put(path, written[:length])
        await refused(path, "is damaged, or of another format")
    put(path, written + b"\0")
    await refused(path, "is damaged, or of another format")


async def test_a_bad_file_replaces_the_last_one_that_was_set_aside(path: Path) -> None:
    for damaged in (b"first", b"second"):
        put(path, damaged)
        await refused(path, r"set aside as 'keys\.snapshot\.bad'")
        assert content(path.with_name(f"{path.name}.bad")) == damaged
    await save(path, 1)
    assert await load(path) == (0, {"key-1"})


async def test_a_header_of_a_later_version_is_refused(path: Path) -> None:
    written = await save(path, 1)
    body = written[:-CHECKSUM].replace(b"asked_at", b"asked_on")

    put(path, body + hashlib.blake2b(body, digest_size=CHECKSUM).digest())
    await refused(path, "is of another format")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o601])
async def test_a_file_that_others_may_read_or_write_is_refused(path: Path, mode: int) -> None:
    await save(path, 1)
    set_mode(path, mode)
    await refused(path, f"may have been written by others \\(mode {mode:o}, expected 600\\)")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_file_of_another_owner_is_refused(path: Path) -> None:
    await save(path, 1)
    os.chown(path, 65_534, 65_534)
    await refused(path, "may have been written by others")


async def test_a_file_that_is_too_large_is_refused(path: Path) -> None:
    written = await save(path, 1)
    assert await load(path, max_size=len(written)) == (0, {"key-1"})
    await refused(path, f"has {len(written)} bytes, more than", max_size=len(written) - 1)


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "directory", "pipe"])
async def test_only_a_regular_file_is_read_and_links_are_not_followed(path: Path, kind: str) -> None:
    elsewhere = path.parent / "elsewhere"
    before = await save(elsewhere, 1)
    place(path, kind, elsewhere)
    opened = open_files()
    with anyio.fail_after(10):
        if kind != "directory":
            await save(path, 2)  # overwrites whatever is there
            assert await load(path) == (0, {"key-2"})
            place(path, kind, elsewhere)
        await refused(path, "set aside")
        await save(path, 3)
    assert await load(path) == (0, {"key-3"})
    assert content(elsewhere) == before
    assert open_files() == opened


# Other owners, other times


@pytest.mark.parametrize("other", [{"account": "globex"}, {"account": None}, {"fingerprint": "theirs"}], ids=repr)
async def test_the_list_of_another_account_or_hub_is_set_aside(path: Path, other: dict[str, Any]) -> None:
    await save(path, 1, **other)
    await refused(path, "is of another account, hub or credential")
    assert names(path) == {f"{path.name}.bad"}


async def test_a_list_that_is_too_old_is_refused_and_stays_in_place(path: Path) -> None:
    await save(path, 1, asked_at=NOW - HOUR)
    await refused(path, "is 3600 s old, more than the 3600 s")
    assert await load(path, max_age=HOUR + 1) == (HOUR, {"key-1"})
    assert await load(path, max_age=0) == (HOUR, {"key-1"})


async def test_a_list_from_the_future_is_refused_and_overwritten(path: Path) -> None:
    await save(path, 1, asked_at=NOW + 100)
    await refused(path, "is from the future by 100 s")
    await save(path, 2, asked_at=NOW)
    assert await load(path) == (0, {"key-2"})


# Concurrent processes


async def test_the_newer_list_wins_in_any_order_of_writes(path: Path) -> None:
    await save(path, 1, asked_at=NOW - 10)
    await save(path, 2, asked_at=NOW - 20)
    assert await load(path) == (10, {"key-1"})
    await save(path, 3, asked_at=NOW - 10)
    assert await load(path) == (10, {"key-3"})
    await save(path, 4, asked_at=NOW - 5)
    assert await load(path) == (5, {"key-4"})


async def test_a_newer_list_of_another_account_is_overwritten(path: Path) -> None:
    await save(path, 1, asked_at=NOW - 10, fingerprint="theirs")
    await save(path, 2, asked_at=NOW - 20)
    assert await load(path) == (20, {"key-2"})


@pytest.mark.parametrize("junk", [b"", b"junk", FORMAT, FORMAT + b"\xff\xff\xff\xff", FORMAT + b"\0\0\0\1\xc1"], ids=repr)
async def test_any_file_at_the_path_is_overwritten(path: Path, junk: bytes) -> None:
    put(path, junk)
    await save(path, 1)
    assert await load(path) == (0, {"key-1"})


async def test_a_lock_held_by_a_stopped_process_times_out(path: Path) -> None:
    before = await save(path, 1)
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(SnapshotError, match="another process"):
            await save(path, 2, patience=0.05)
        assert time.monotonic() - began < 30
        assert content(path) == before
        assert names(path) == {path.name}
    await save(path, 3)
    assert await load(path) == (0, {"key-3"})


async def test_no_thread_waits_for_the_lock_of_another_process(path: Path) -> None:
    """A thread that waited for the lock of a stopped process would stay, one for each attempt."""
    await save(path, 1)
    threads = threading.active_count()
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(5):
            with pytest.raises(SnapshotError, match="another process"):
                await save(path, 2, patience=0.05)
    # A thread of the event loop counts as busy for a moment after its result is known, so another one may have started.
    assert threading.active_count() < threads + 5


async def test_a_write_goes_on_as_soon_as_another_process_lets_go(path: Path) -> None:
    before = await save(path, 1)
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(save, path, 2, asked_at=NOW, patience=30))
            while len(names(path)) == 1:  # noqa: ASYNC110 - the temporary file appears in the middle of the call
                await anyio.sleep(0.001)
            assert content(path) == before
            fcntl.flock(lock, fcntl.LOCK_UN)
    assert await load(path) == (0, {"key-2"})


async def test_the_newest_list_is_written_when_the_lock_is_free_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another process was stopped with the lock while two lists came."""
    now = NOW

    def clock() -> float:
        return now

    index, shared, freshness = index_of(), SharedList(), Freshness(soft_stale=60, hard_stale=HOUR, clock=clock)
    log = RefreshLog(logging.getLogger("gatekeeper"), clock)
    saver = Snapshot(path, account="acme", fingerprint=lambda: "ours", wall_clock=clock, patience=0.05)
    keeper = SnapshotKeeper(saver, index, shared, freshness, log, clock, clock)

    async def lists(*rows: dict[str, Any]) -> None:
        index.clear()
        difference.load(index, [RowReader().convert(number, one) for number, one in enumerate(rows)])
        shared.generation += 1
        freshness.record_success(now)
        await keeper.save_if_due()

    await lists(row(1))
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await lists(row(1), row(2))
        now += RETRY_AFTER
        await lists(row(1), row(2), row(3))
    assert await load(path) == (0, {"key-1"})
    now += RETRY_AFTER
    await keeper.save_if_due()
    assert await load(path, now=now) == (RETRY_AFTER, {"key-1", "key-2", "key-3"})
    assert caplog.text.count("another process has held its lock") == 2


@pytest.mark.process
def test_concurrent_processes_leave_the_newest_list_whole(path: Path) -> None:
    def write(writer: int) -> None:
        for turn in range(10):
            asyncio.run(save(path, writer, 100 + turn, asked_at=NOW - 100 + 10 * turn + writer))

    writers = [Child(partial(write, writer)) for writer in range(2)]
    wait_until(path.exists)
    ages = set()
    for _ in range(50):
        age, ids = asyncio.run(load(path))
        assert age is not None
        assert len(ids) == 2
        ages.add(age)
    assert [writer.says() for writer in writers] == ["well", "well"]
    assert asyncio.run(load(path)) == (9, {"key-1", "key-109"})
    assert names(path) == {path.name}


async def test_only_stale_files_of_killed_processes_are_removed(path: Path) -> None:
    left = [
        path.with_name(name)
        for name in (f".{path.name}.123.0123abcd.new", f".{path.name}.9.ffffffff.new", f".{path.name}.new", "notes.new")
    ]
    for number, one in enumerate(left):
        put(one, b"left")
        age = LEFT_BEHIND - 1 if number == 1 else LEFT_BEHIND + 1
        os.utime(one, (NOW - age, NOW - age))
    await save(path, 1)
    assert names(path) == {path.name, *(one.name for one in left[1:])}


async def test_a_missing_directory_is_made_for_its_owner_alone(path: Path) -> None:
    inside = path.parent / "snapshots" / "keys.snapshot"
    for number in (1, 2):
        await save(inside, number)
    assert names(inside) == {inside.name}
    assert inside.parent.stat().st_mode & 0o777 == 0o700


async def test_a_file_in_place_of_the_directory_is_named(path: Path) -> None:
    put(path, b"")
    with pytest.raises(SnapshotError, match="Not a directory"):
        await save(path / "keys.snapshot", 1)


async def test_a_failed_write_raises_and_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"could not be written to .*No such file or directory"):
        await save(path.parent / "nowhere" / "at all" / "keys.snapshot", 1)
    long = path.with_name("n" * 255)
    with pytest.raises(SnapshotError, match="File name too long"):
        await save(long, 1)
    assert names(path) == set()


async def test_a_list_that_changes_while_it_is_written_is_not_written(path: Path) -> None:
    class Changing(KeyIndex):
        def walk(self) -> Iterator[list[tuple[str, bytes]]]:
            for number, step in enumerate(super().walk()):
                if not number:
                    self.restore([(f"{9999:08d}", b"\0" * 8)])
                yield step

    before = await save(path, 1)
    changing = Changing(account="acme")
    difference.load(changing, [RowReader().convert(number, row(number)) for number in range(2000)])
    saver = snapshot(path)
    with pytest.raises(SnapshotError, match=r"keys were added or removed|dictionary changed size"):
        await saver.save(changing, NOW)
    assert saver.saved_at is None
    assert content(path) == before
    assert names(path) == {path.name}


@pytest.mark.slow
async def test_a_cancelled_write_leaves_only_the_old_list(path: Path) -> None:
    before = await save(path, 1)
    index = index_of(*(row(number) for number in range(3000)))
    for turns in range(12):
        async with anyio.create_task_group() as group:
            group.start_soon(snapshot(path).save, index, NOW - 1)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert content(path) == before
        assert names(path) == {path.name}


# The refresher and its snapshot


async def test_a_failing_snapshot_does_not_stop_the_list(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Nameless(MemorySource):
        @property
        def fingerprint(self) -> str:  # a bug in a custom source
            raise ValueError("no fingerprint today")

        @fingerprint.setter
        def fingerprint(self, _: str) -> None: ...

    await save(path, 1)
    source = Nameless(row(1))
    async with running(source, snapshot_path=path) as it:
        assert it.ids == ["key-1"]
        assert it.status.last_error is None
        source.rows = [row(2)]
        await it.time.advance(10)
        assert it.ids == ["key-2"]
        assert it.status.counters["snapshot_failed"] == 2  # one read, one write; the next write comes a minute later
        await it.time.advance(60)
        assert it.status.counters["snapshot_failed"] == 3
    assert "no fingerprint today" in caplog.text
