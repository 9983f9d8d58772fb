"""Sources: the hub, a file, static rows, custom ones."""

import hashlib
import os
import re
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest

from gatekeeper import (
    Basis,
    ConfigError,
    FileSource,
    Gatekeeper,
    HubSource,
    Reason,
    Source,
    SourceError,
    StaticSource,
    WidgetKey,
)
from tests.support.guarded import guarded
from tests.support.memory_source import MemorySource
from tests.support.rows import ORIGIN, TOKEN, as_json, bad_row, client_key, row
from tests.support.updates import read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_bytes(as_json(row(1)))
    return path


# Each source


def test_every_source_has_a_suffix_field(file: Path) -> None:
    sources: list[Source] = [
        HubSource("https://hub.example", TOKEN, suffix_field="tail"),
        FileSource(file, suffix_field="tail"),
    ]
    assert [source.suffix_field for source in sources] == ["tail", "tail"]
    assert [source.suffix_field for source in (HubSource("https://hub.example", TOKEN), FileSource(file))] == ["last8"] * 2


# FileSource


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_file_is_read_through_its_connection(file: Path) -> None:
    async with FileSource(file).connect() as fetch:
        listing = await read(fetch, None)
        assert listing is not None
        assert listing[0] == as_json(row(1))
        assert await read(fetch, listing[1]) is None


@pytest.mark.parametrize("form", [str, Path])
def test_a_file_that_has_not_changed_is_not_read_again(file: Path, form: type[str] | type[Path]) -> None:
    source = FileSource(form(file))
    listing = source.read()
    assert listing is not None
    assert source.read(listing[1]) is None
    assert source.read() == listing
    assert source.read("another") == listing


def test_a_replaced_file_of_the_same_size_and_time_is_read_again(file: Path) -> None:
    source = FileSource(file)
    before = source.read()
    assert before is not None
    stat = file.stat()
    swap = file.with_suffix(".new")
    swap.write_bytes(as_json(row(2)))
    os.utime(swap, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    swap.replace(file)
    after = source.read(before[1])
    assert after is not None
    assert after[0] == as_json(row(2))
    assert len(after[0]) == len(before[0])


def test_a_file_that_was_rewritten_in_place_is_read_again(file: Path) -> None:
    source = FileSource(file)
    before = source.read()
    assert before is not None
    file.write_bytes(as_json(row(2)))
    os.utime(file, ns=(0, 0))  # a different time, even where the file system's clock is coarse
    after = source.read(before[1])
    assert after is not None
    assert after[0] == as_json(row(2))
    assert source.read(after[1]) is None


def test_a_file_that_grew_within_one_clock_tick_is_read_again(file: Path) -> None:
    source = FileSource(file)
    before = source.read()
    assert before is not None
    stat = file.stat()
    file.write_bytes(as_json(row(1), row(2)))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert source.read(before[1]) is not None


def test_a_missing_file_is_a_source_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read the rows in '.*rows\.json': No such file or directory") as caught:
        FileSource(tmp_path / "rows.json").read()
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert (caught.value.retry_after, caught.value.lasting) == (None, False)


def test_a_directory_is_a_source_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="directory"):
        FileSource(tmp_path).read()


def test_a_file_may_come_and_go(file: Path) -> None:
    source = FileSource(file)
    listing = source.read()
    assert listing is not None
    moved = file.rename(file.with_suffix(".moved"))
    with pytest.raises(SourceError):
        source.read(listing[1])
    moved.rename(file)
    assert source.read(listing[1]) is None


@pytest.mark.anyio
@pytest.mark.asyncio
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
async def test_a_file_that_blocks_is_cut_at_the_deadline(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it blocks, as on a network share whose server is gone
    is_over = threading.Event()

    def unblock() -> None:
        is_over.wait(60)
        os.close(os.open(pipe, os.O_WRONLY))

    unblocking = threading.Thread(target=unblock)
    unblocking.start()
    began = time.monotonic()
    async with FileSource(pipe).connect() as fetch:
        with anyio.move_on_after(0.05):
            await read(fetch, None)
        seconds = time.monotonic() - began
        threads = threading.active_count()
        for _ in range(3):  # no further thread waits beside the first
            with pytest.raises(SourceError, match="an earlier reading has not ended"):
                await read(fetch, None)
        with anyio.fail_after(10):
            while threading.active_count() > threads:  # noqa: ASYNC110 - a thread ends a moment after its result is known
                await anyio.sleep(0.001)
    is_over.set()
    await anyio.to_thread.run_sync(unblocking.join)
    assert seconds < 30


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_the_rows_of_a_file_may_name_their_accounts(file: Path) -> None:
    """Where the file has an account, those of its rows are ignored."""
    rows = as_json(row(1, account="acme"), row(2, account="globex"), row(3), row(4, account={"id": 1}))
    await anyio.Path(file).write_bytes(rows)
    decided = {}
    for account in (None, "acme"):
        async with Gatekeeper(FileSource(file, account=account)) as gate:
            decided[account] = [gate.decide(client_key(number), ORIGIN).allowed for number in (1, 2, 3, 4)]
    assert decided == {None: [True, False, True, True], "acme": [True, True, True, True]}


def test_a_file_has_no_account_unless_one_is_given(file: Path) -> None:
    assert FileSource(file).account is None
    assert FileSource(file, account="acme").account == "acme"


# StaticSource


@pytest.mark.parametrize("form", [dict, MappingProxyType, lambda fields: WidgetKey(**{**fields, "domain_allowlist": ()})])
def test_rows_may_be_mappings_or_widget_keys(form: Any) -> None:
    (key,) = StaticSource([form(row(1))]).rows
    assert (key.id, key.last8) == ("key-1", "00000001")


def test_rows_may_come_from_an_iterator() -> None:
    assert [key.id for key in StaticSource(iter([row(1), row(2)])).rows] == ["key-1", "key-2"]


def test_all_bad_rows_are_named_together() -> None:
    rows: list[Any] = [row(1), bad_row(2), {"id": "key-3"}, 4, row(5)]
    with pytest.raises(ConfigError) as caught:
        StaticSource(rows)
    two, three, four = caught.value.problems
    assert two.startswith("row 1 (id 'key-2'): ")
    assert "last8" in two
    assert three.startswith("row 2 (id 'key-3'): ")
    assert "last8" in three
    assert four.startswith("row 3: ")


def test_static_rows_have_no_account_unless_one_is_given() -> None:
    of_any, acmes = Gatekeeper(StaticSource([row(1)])), Gatekeeper(StaticSource([row(1)], account="acme"))
    stranger = client_key(1, "globex")
    assert of_any.decide(stranger, "https://acme.com").allowed
    assert acmes.decide(stranger, "https://acme.com").reason == "key_unknown"
    assert acmes.decide(client_key(1), "https://acme.com").allowed


# Custom sources


class Bucket:
    """The bucket of the example in the README."""

    def __init__(self) -> None:
        self.rows = [row(1)]
        self.error: OSError | None = None

    async def read(self, name: str) -> tuple[bytes, str]:
        assert name == "keys.json"
        if self.error is not None:
            raise self.error
        body = as_json(*self.rows)
        return body, hashlib.sha256(body).hexdigest()


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_custom_source_keeps_a_gate_fresh() -> None:
    readme = (Path(__file__).parents[2] / "gatekeeper/sync/README.md").read_text(encoding="utf-8")
    (example,) = (each for each in re.findall(r"```python\n(.+?)```", readme, flags=re.DOTALL) if "BucketSource" in each)
    names: dict[str, Any] = {}
    exec(example, names)
    bucket = Bucket()
    source: Source = names["BucketSource"](bucket)
    async with guarded(source) as it:
        assert it.allows(1)
        assert (await it.refresh()).outcome == "unchanged"
        bucket.error = OSError("no route")
        assert await it.fail() == "the bucket does not answer: no route"
        bucket.error, bucket.rows = None, [row(1, disabled_at="2026-01-01"), row(2)]
        assert (await it.refresh()).outcome == "changed"
        assert (it.reason(1), it.reason(2)) == (Reason.KEY_DISABLED, Reason.ALLOWED)


class OddSource(MemorySource):
    """A source that gives neither a list nor Unchanged."""

    @asynccontextmanager
    async def updates(self, basis: Basis) -> AsyncIterator[Any]:
        self.validators.append(basis.validator)
        yield b"[]"


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_source_with_another_answer_fails_with_what_was_expected() -> None:
    async with guarded(OddSource()) as it:
        assert it.last_error == "the source gave bytes: expected FullList, Unchanged or Delta"
        assert it.status.state == "never_loaded"
