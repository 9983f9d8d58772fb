"""Faults of the snapshot: cold starts, disks, damage, other owners, kills."""

# ruff: noqa: ASYNC240 - small files, and no other task waits

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from gatekeeper import Gatekeeper, Reason
from gatekeeper.testing import FakeHub, HubAnswer
from tests.support.fault_proxy import FaultProxy
from tests.support.forked import Child, forked
from tests.support.guarded import Guarded, guarded, hub_source
from tests.support.namespaces import in_namespaces
from tests.support.rows import ORIGIN, TOKEN, as_json, client_key, row

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600.0, 86_400.0
PATIENCE = 15.0
MANY = [row(number) for number in range(200)]
REVOKED = [row(0, disabled_at="now"), *MANY[1:]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the snapshot."""
    return tmp_path / "keys.snapshot"


async def written(path: Path, since: bytes | None = None) -> bytes:
    """Wait until there is a snapshot that differs from `since`."""
    with anyio.fail_after(PATIENCE):
        while not path.exists() or path.read_bytes() == since:  # noqa: ASYNC110 - nothing signals it
            await anyio.sleep(0.01)
    return path.read_bytes()


async def make(hub: FakeHub, path: Path, *rows: dict[str, Any]) -> bytes:
    """Run a gate until it has written a snapshot of these rows."""
    before = path.read_bytes() if path.exists() else None
    hub.lists(*(rows or MANY))
    gate = Gatekeeper(hub_source(hub.url), snapshot_path=path)
    async with gate:
        return await written(path, before)


@contextlib.asynccontextmanager
async def started_without_a_hub(proxy: FaultProxy, path: Path, **options: Any) -> AsyncIterator[Guarded]:
    """Start a gate whose hub is down."""
    proxy.refuse()
    async with guarded(proxy.url, snapshot_path=path, **options) as it:
        yield it


def set_aside(path: Path) -> list[Path]:
    return [other for other in path.parent.iterdir() if other.name.startswith(path.name) and ".bad" in other.name]


# Cold start


@pytest.mark.fault("hub down at start, with a snapshot")
async def test_a_gate_starts_from_its_snapshot_when_the_hub_is_down(hub: FakeHub, proxy: FaultProxy, path: Path) -> None:
    hub.lists(*REVOKED)
    async with guarded(proxy.url, snapshot_path=path) as it:
        await written(path)
    proxy.refuse()
    async with guarded(proxy.url, snapshot_path=path, jitter=1.0) as it:
        assert it.allows(*range(1, 200))
        assert it.reason(0) is Reason.KEY_DISABLED
        assert it.status.last_error is not None
        assert it.status.state in {"fresh", "degraded"}
        failed = it.status.counters["refresh_failed"]
        await it.time.advance(120)
        assert it.status.state == "degraded"
        assert it.status.counters["refresh_failed"] > failed + 3  # it keeps retrying
        assert it.allows(*range(1, 200))
        proxy.heal()
        hub.lists(*MANY)
        await it.time.advance(30)
        assert it.gate.status.state == "fresh"
        assert it.allows(*range(200))


@pytest.mark.fault("hub down at start, with a snapshot")
async def test_with_a_snapshot_the_first_request_does_not_wait_for_the_hub(hub: FakeHub, path: Path) -> None:
    with FaultProxy(hub.url) as proxy:
        hub.lists(*MANY)
        gate = Gatekeeper(hub_source(proxy.url), snapshot_path=path)
        async with gate:
            await written(path)
        proxy.be_silent()
        gate = Gatekeeper(hub_source(proxy.url), snapshot_path=path, start_timeout=60.0)
        with anyio.fail_after(PATIENCE):
            async with gate:
                assert (await gate.check(client_key(1), ORIGIN)).allowed


@pytest.mark.promise("cold start without the hub")
@pytest.mark.timeout(60)
async def test_ten_thousand_keys_are_served_from_a_snapshot(hub: FakeHub, path: Path) -> None:
    rows = [row(number) for number in range(10_000)]
    with FaultProxy(hub.url) as proxy:
        hub.lists(*rows)
        async with Gatekeeper(hub_source(proxy.url), snapshot_path=path):
            await written(path)
        proxy.refuse()
        gate = Gatekeeper(hub_source(proxy.url), snapshot_path=path)
        async with gate:
            assert (await gate.check(client_key(9_999), ORIGIN)).allowed
            assert gate.status.keys == 10_000
            assert gate.status.from_snapshot


@pytest.mark.promise("cold start without the hub")
async def test_without_a_snapshot_the_gate_serves_soon_after_the_hubs_return(hub: FakeHub, path: Path) -> None:
    with FaultProxy(hub.url) as proxy:
        proxy.refuse()
        async with guarded(proxy.url, snapshot_path=path, jitter=1.0) as it:
            await it.time.advance(100)
            assert it.reason() is Reason.NOT_READY
            proxy.heal()
            await it.time.advance(2.5)
            assert it.allows(1)


# Disks


@pytest.mark.fault("snapshot cannot be written")
async def test_a_missing_directory_is_logged_and_changes_nothing(
    hub: FakeHub, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = path.parent / "gone" / "snapshots"  # a directory that only itself is missing is made
    home.mkdir(parents=True)
    async with guarded(hub, snapshot_path=home / "keys.snapshot") as it:
        await written(home / "keys.snapshot")
        shutil.rmtree(home.parent)
        hub.lists(row(1), row(2))
        await it.refresh()
        await it.time.advance(10)
        assert it.allows(1, 2)
        assert it.status.state == "fresh"
        await said(caplog, "snapshot")


async def said(caplog: pytest.LogCaptureFixture, word: str) -> None:
    """Wait until the log contains a word."""
    with anyio.fail_after(PATIENCE):
        while word not in caplog.text:  # noqa: ASYNC110 - nothing signals it
            await anyio.sleep(0.01)


@pytest.mark.process
@pytest.mark.fault("snapshot cannot be written")
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_full_or_read_only_disk_keeps_the_old_snapshot(tmp_path: Path, fault: str) -> None:
    assert in_namespaces("tests.faults.disks", fault, str(tmp_path)) == "well"


# Damaged and untrusted files


CORRUPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "a byte": lambda snapshot: snapshot[:1],
    "half": lambda snapshot: snapshot[: len(snapshot) // 2],
    "all but a byte": lambda snapshot: snapshot[:-1],
    "a byte more": lambda snapshot: snapshot + b"\0",
    "zeros": lambda snapshot: bytes(len(snapshot)),
    "twice": lambda snapshot: snapshot * 2,
    "another file": lambda _: b"%PDF-1.7",
    "a pickle": lambda _: b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
    "JSON": lambda _: b'[{"id": "1"}]',
    "first bit": lambda snapshot: bytes((snapshot[0] ^ 1,)) + snapshot[1:],
    "last bit": lambda snapshot: snapshot[:-1] + bytes((snapshot[-1] ^ 1,)),
}


@pytest.mark.fault("snapshot is damaged")
@pytest.mark.parametrize("corruption", CORRUPTIONS)
async def test_a_corrupt_snapshot_is_set_aside_and_never_fatal(
    hub: FakeHub, proxy: FaultProxy, path: Path, corruption: str, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = await make(hub, path)
    path.write_bytes(CORRUPTIONS[corruption](snapshot))
    async with started_without_a_hub(proxy, path) as it:
        assert it.reason(1) is Reason.NOT_READY
        assert it.status.keys == 0
        assert len(set_aside(path)) == 1
        assert not path.exists()
        assert "snapshot" in caplog.text
        proxy.heal()
        await it.refresh()
        assert it.allows(1)
        await written(path)


@pytest.mark.fault("snapshot is damaged")
async def test_any_flipped_bit_is_noticed(hub: FakeHub, proxy: FaultProxy, path: Path) -> None:
    snapshot = await make(hub, path, *MANY[:3])
    dice = random.Random(51)
    proxy.refuse()
    for _ in range(40):
        flipped = bytearray(snapshot)
        flipped[dice.randrange(len(snapshot))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        path.chmod(0o600)
        async with guarded(proxy.url, snapshot_path=path) as it:
            # The file is no snapshot any more, or it belongs to another hub.
            assert it.reason(1) is Reason.NOT_READY


@pytest.mark.fault("snapshot is damaged")
@pytest.mark.parametrize("kind", ["symbolic link", "directory", "pipe"])
async def test_only_a_regular_file_is_read(hub: FakeHub, proxy: FaultProxy, path: Path, kind: str) -> None:
    elsewhere = path.with_name("elsewhere")
    await make(hub, elsewhere)
    before = elsewhere.read_bytes()
    if kind == "symbolic link":
        path.symlink_to(elsewhere)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with anyio.fail_after(PATIENCE):
        async with started_without_a_hub(proxy, path) as it:
            assert it.reason(1) is Reason.NOT_READY
            proxy.heal()
            hub.lists(*REVOKED)
            await it.refresh()
            assert it.allows(1)
    assert elsewhere.read_bytes() == before  # no write follows a link


@pytest.mark.fault("snapshot is damaged")
async def test_a_snapshot_is_readable_by_its_owner_alone(hub: FakeHub, path: Path) -> None:
    before = os.umask(0)
    try:
        await make(hub, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [other for other in path.parent.iterdir() if stat.S_IMODE(other.stat().st_mode) & 0o077] == []


@pytest.mark.fault("snapshot is damaged")
async def test_a_snapshot_writable_by_others_is_not_trusted(hub: FakeHub, proxy: FaultProxy, path: Path) -> None:
    await make(hub, path)
    path.chmod(0o666)
    async with started_without_a_hub(proxy, path) as it:
        assert it.reason(1) is Reason.NOT_READY


@pytest.mark.fault("snapshot is damaged")
async def test_a_huge_file_is_not_read_into_memory(hub: FakeHub, proxy: FaultProxy, path: Path) -> None:
    await make(hub, path)
    with path.open("r+b") as file:
        file.truncate(20 * 2**30)  # sparse: it takes no disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with started_without_a_hub(proxy, path) as it:
        assert it.reason(1) is Reason.NOT_READY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB; the cap on a list is 512 MiB


@pytest.mark.fault("snapshot is damaged")
async def test_a_snapshot_contains_no_secret(hub: FakeHub, path: Path) -> None:
    snapshot = await make(hub, path)
    assert TOKEN.encode() not in snapshot
    assert TOKEN.rpartition("_")[2].encode() not in snapshot
    assert client_key(1).encode() not in snapshot


# Other owners, other times


@pytest.mark.fault("snapshot is not ours")
@pytest.mark.parametrize("other", ["account", "hub", "token"])
async def test_a_snapshot_of_another_account_hub_or_token_is_not_used(
    hub: FakeHub, proxy: FaultProxy, path: Path, other: str
) -> None:
    hub.lists(*MANY)
    async with Gatekeeper(hub_source(proxy.url), snapshot_path=path):
        await written(path)
    proxy.refuse()
    sources = {
        "account": hub_source(proxy.url, "sk_live_other_5Ea9f0c2b7d1"),
        "hub": hub_source(proxy.url.replace("127.0.0.1", "localhost")),
        "token": hub_source(proxy.url, "sk_live_acme_another"),
    }
    async with guarded(sources[other], snapshot_path=path) as it:
        assert it.reason(1) is Reason.NOT_READY
    async with guarded(proxy.url, snapshot_path=path) as it:
        # The file was left in place, or set aside.
        assert it.reason(1) in {Reason.ALLOWED, Reason.NOT_READY}


@pytest.mark.fault("snapshot is not ours")
@pytest.mark.parametrize(
    ("passed", "usable"), [(DAY - HOUR, True), (DAY + HOUR, False), (-HOUR, False), (-10 * 365 * DAY, False)]
)
async def test_a_snapshot_that_is_too_old_or_from_the_future_is_not_used(
    hub: FakeHub,
    proxy: FaultProxy,
    path: Path,
    passed: float,
    usable: bool,  # noqa: FBT001
) -> None:
    hub.lists(*MANY)
    async with Gatekeeper(hub_source(proxy.url), snapshot_path=path):
        await written(path)
    proxy.refuse()
    async with guarded(proxy.url, snapshot_path=path, wall_clock=lambda: time.time() + passed, jitter=1.0) as it:
        assert it.allows(1) is usable
        assert it.reason(1) in {Reason.ALLOWED, Reason.NOT_READY, Reason.EXPIRED}
        if usable:
            assert it.status.state == "degraded"
            age = it.status.age
            assert age is not None
            assert age == pytest.approx(passed, abs=60)
            await it.time.advance(HOUR + 60)
            assert it.reason(1) is Reason.EXPIRED


# Several processes


@pytest.mark.process
@pytest.mark.fault("snapshot is shared")
def test_processes_that_share_a_path_never_tear_a_snapshot(hub: FakeHub, proxy: FaultProxy, path: Path) -> None:
    hub.always(lambda _: HubAnswer(200, as_json(*(row(number, name=f"list {len(hub.requests)}") for number in range(200)))))

    async def write() -> None:
        async with Gatekeeper(hub_source(proxy.url), snapshot_path=path) as gate:
            for _ in range(15):
                await gate.refresh()

    writers = [Child(lambda: asyncio.run(write())) for _ in range(4)]
    assert [writer.says() for writer in writers] == ["well"] * 4
    assert set_aside(path) == []
    proxy.refuse()

    async def read() -> None:
        async with guarded(proxy.url, snapshot_path=path) as it:
            assert it.allows(*range(200))

    asyncio.run(read())
    left = {other.name for other in path.parent.iterdir() if other.suffix != ".lock"}
    assert left == {path.name}


# Kills


@pytest.mark.process
@pytest.mark.fault("restart after a revocation")
async def test_an_applied_revocation_outlives_a_restart_without_the_hub(hub: FakeHub, path: Path) -> None:
    with FaultProxy(hub.url) as proxy:
        hub.lists(*MANY)

        def live_and_die() -> None:
            async def live() -> None:
                gate = Gatekeeper(hub_source(proxy.url), snapshot_path=path)
                async with gate:
                    assert gate.decide(client_key(0), ORIGIN).allowed
                    hub_is_told.write(b"1")
                    await anyio.to_thread.run_sync(may_refresh.read, 1)
                    await gate.refresh()
                    assert gate.decide(client_key(0), ORIGIN).reason is Reason.KEY_DISABLED
                    await anyio.sleep(1.0 + 0.5)
                    os.kill(os.getpid(), signal.SIGKILL)

            asyncio.run(live())

        told_read, told_write = os.pipe()
        may_read, may_write = os.pipe()
        hub_is_told = os.fdopen(told_write, "wb", buffering=0)
        may_refresh = os.fdopen(may_read, "rb", buffering=0)
        child = Child(live_and_die)
        assert await anyio.to_thread.run_sync(os.read, told_read, 1) == b"1"
        hub.lists(*REVOKED)
        os.write(may_write, b"1")
        assert await anyio.to_thread.run_sync(child.says) == ""
        for end in (hub_is_told, may_refresh):
            end.close()
        for number in (told_read, may_write):
            os.close(number)
        proxy.refuse()
        async with guarded(proxy.url, snapshot_path=path) as it:
            assert it.reason(0) is Reason.KEY_DISABLED
            assert it.allows(*range(1, 200))


@pytest.mark.process
@pytest.mark.promise("snapshots survive a kill")
@pytest.mark.timeout(110)
def test_a_killed_process_leaves_the_old_list_or_the_new_one(hub: FakeHub, proxy: FaultProxy, path: Path) -> None:
    dice = random.Random(16)
    numbers = range(3000)
    lists = [as_json(*(row(number) for number in numbers)), as_json(*(row(number, disabled_at="now") for number in numbers))]
    hub.always(lambda _: HubAnswer(200, lists[len(hub.requests) % 2]))

    def write_until_killed(after: float) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # it ends the process as SIGKILL does, whatever happens then
        signal.setitimer(signal.ITIMER_REAL, after)
        asyncio.run(write_all_the_time())

    async def write_all_the_time() -> None:
        async with Gatekeeper(hub_source(proxy.url), snapshot_path=path, refresh_interval=0.01):
            await anyio.sleep(PATIENCE)

    async def read() -> None:
        async with guarded(proxy.url, snapshot_path=path) as it:
            assert {it.reason(number) for number in numbers} in ({Reason.ALLOWED}, {Reason.KEY_DISABLED})

    read_back = 0
    for _ in range(30):
        assert forked(partial(write_until_killed, dice.uniform(0.05, 0.6))) == ""
        if path.exists():
            proxy.refuse()
            assert forked(lambda: asyncio.run(read())) == "well"
            proxy.heal()
            read_back += 1
    assert read_back > 10
    assert set_aside(path) == []
