"""Snapshots of released versions are served, or refused before the first request.

A snapshot of the format at hand is written by `python -m tests.sync.test_golden_snapshots FILE`.
"""

import hashlib
import shutil
import sys
from pathlib import Path

import anyio
import msgspec
import pytest

from gatekeeper import Gatekeeper, Reason, SnapshotError, WidgetKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import load
from gatekeeper.sync.snapshot import CHECKSUM, FIELDS, FIRST_FIELDS, FORMAT, Saved, Snapshot
from tests.support.memory_source import MemorySource
from tests.support.rows import ORIGIN, client_key, row

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_800_000_000.0
AGE = 10.0
ROWS = [
    WidgetKey(
        "key-1",
        "Shop",
        "00000001",
        ("acme.com", "*.acme.com"),
        "agent_7",
        created_at="2026-01-02T03:04:05Z",
        updated_at="2026-01-02T03:04:05Z",
        last_used_at="2026-01-03T00:00:00Z",
        key_sha256="a" * 64,
    ),
    WidgetKey("key-2", None, "00000002", (), disabled_at="2026-01-04T00:00:00Z"),
    WidgetKey("key-3", "Bücher", "00000003", ("bücher.example",), disabled_at={"odd": [1, True]}),
]
# Files of this version. Earlier ones have fewer fields, so that their keys may differ from the list of their validator.
VALIDATORS = {"2-account.snapshot": 'W/"41-ab"'}
ACCOUNTS = {"2-account.snapshot": [msgspec.structs.replace(key, account="acme") for key in ROWS[:2]] + ROWS[2:]}
# Files with other formats or fields.
REFUSED = {"1.snapshot": "of another format"}

pytestmark = pytest.mark.anyio


def snapshot(path: Path) -> Snapshot:
    return Snapshot(path, account="acme", fingerprint=lambda: "golden", wall_clock=lambda: NOW)


def copied(name: str, folder: Path) -> Path:
    path = folder / name
    shutil.copyfile(GOLDEN / name, path)
    path.chmod(0o600)
    return path


def with_fields(content: bytes, fields: list[str]) -> bytes:
    """The same snapshot with other fields in its header."""
    start = len(FORMAT) + 4
    end = start + int.from_bytes(content[len(FORMAT) : start])
    header = msgspec.msgpack.encode({**msgspec.msgpack.decode(content[start:end]), "fields": fields})
    changed = FORMAT + len(header).to_bytes(4) + header + content[end:-CHECKSUM]
    return changed + hashlib.blake2b(changed, digest_size=CHECKSUM).digest()


async def test_snapshots_of_this_and_of_earlier_versions_are_served(tmp_path: Path) -> None:
    served = [path.name for path in sorted(GOLDEN.iterdir()) if path.name not in REFUSED]
    assert served
    for name in served:
        index = KeyIndex(account="acme")
        assert await snapshot(copied(name, tmp_path)).load(index, max_age=3600) == Saved(AGE, VALIDATORS.get(name))
        assert sorted(index, key=lambda key: key.id) == ACCOUNTS.get(name, ROWS)
        load(index, ACCOUNTS.get(name, ROWS))
        assert index.slots == len(ROWS)


@pytest.mark.parametrize(("name", "why"), REFUSED.items())
async def test_a_snapshot_of_another_format_is_refused_and_set_aside(name: str, why: str, tmp_path: Path) -> None:
    path, index = copied(name, tmp_path), KeyIndex(account="acme")
    with pytest.raises(SnapshotError, match=why):
        await snapshot(path).load(index, max_age=3600)
    assert len(index) == 0
    assert not path.exists()
    assert path.with_name(f"{name}.bad").exists()


@pytest.mark.parametrize(
    "fields",
    [[*FIELDS, "expires_at"], list(FIRST_FIELDS[:-1]), [FIELDS[1], FIELDS[0], *FIELDS[2:]], []],
    ids=["one more", "one less", "another order", "none"],
)
async def test_rows_with_other_fields_are_refused_at_the_start(fields: list[str], tmp_path: Path) -> None:
    """Another version of gatekeeper wrote the file, and the source is down."""
    path, source = tmp_path / "keys.snapshot", MemorySource()
    async with Gatekeeper(MemorySource(row(1)), snapshot_path=path):
        with anyio.fail_after(15):
            while not path.exists():  # noqa: ASYNC110 - the refresher writes it after its first list
                await anyio.sleep(0.01)
    path.write_bytes(with_fields(path.read_bytes(), fields))
    source.unopenable = "gone"
    async with Gatekeeper(source, snapshot_path=path, start_timeout=0.1) as gate:
        assert gate.status.state == "never_loaded"
        assert gate.status.counters["snapshot_failed"] == 1
        assert gate.decide(client_key(1), ORIGIN).reason is Reason.NOT_READY
        assert not path.exists()
        assert path.with_name(f"{path.name}.bad").exists()


if __name__ == "__main__":
    every_row = KeyIndex(account="acme")
    path = Path(sys.argv[1])
    load(every_row, ACCOUNTS.get(path.name, ROWS))
    anyio.run(snapshot(path).save, every_row, NOW - AGE, VALIDATORS.get(path.name))
