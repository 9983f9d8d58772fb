"""Rows that are garbled or not JSON."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gatekeeper import InvalidRow, WidgetKey
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.salvage import outline
from gatekeeper.keys.slices import read_list
from tests.keys.rows import ROW, read_one


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"id": "wk_1", "disabled_at": "2026', {"row_id": "wk_1"}),
        (b'{"id": "wk_1", "disabled_at": "2026"', {"row_id": "wk_1", "disabled_at": True}),
        (b'{"disabled_at" :7, "id"\n: "wk_1" "last8"}', {"row_id": "wk_1", "disabled_at": True}),
        (b'{"id": "wk_1", "disabled_at": null', {"row_id": "wk_1"}),
        (b'{"id": "wk_1", "disabled_at": {', {"row_id": "wk_1", "disabled_at": True}),
        (b'{"more": {"id": "other", "disabled_at": 1}, "id": "wk_1"', {"row_id": "wk_1"}),
        (b'{"name": "\\"id\\": 7", "id": 7', {}),
        (b"", {}),
    ],
)
def test_the_id_and_disabled_at_of_invalid_json_are_found(raw: bytes, told: dict[str, object]) -> None:
    assert outline(raw) == told


def test_the_suffix_of_invalid_json_is_found_by_its_name() -> None:
    raw = b'{"last8": "UVwXyZ-_", "suffix": "0123abcd"'
    assert (outline(raw), outline(raw, "suffix")) == ({"last8": "UVwXyZ-_"}, {"last8": "0123abcd"})


@pytest.mark.parametrize("field", ["id", "last8", "name", "disabled_at", "unknown"])
@pytest.mark.parametrize("text", ["\\ud83d", "caf\\u00e9 \\udc4dx"])
def test_a_lone_surrogate_in_a_row_does_not_affect_other_rows(field: str, text: str) -> None:
    """JavaScript can cut a surrogate pair, and JSON.stringify escapes the half."""
    good = json.dumps(ROW | {"id": "good"})
    bad = json.dumps(ROW | {"id": "bad", field: "HERE"}).replace("HERE", text)
    keys, rejected = read_list(RowReader(), f"[{good},{bad},{good}]".encode())
    assert [key.id for key in (keys[0], keys[-1])] == ["good", "good"]
    assert len(keys) + len(rejected) == 3
    assert len(rejected) == 1 or field != "last8"
    assert all(key.disabled for key in keys[1:-1]) or field != "disabled_at"


@pytest.mark.parametrize("field", ["id", "last8", "name", "agent_id", "disabled_at", "domain_allowlist"])
def test_bytes_that_are_not_utf_8_affect_their_own_row_only(field: str) -> None:
    good = json.dumps({**ROW, "id": "good"}).encode()
    value: object = ["HERE"] if field == "domain_allowlist" else "HERE"
    bad = json.dumps({**ROW, "id": "bad", field: value}).encode().replace(b"HERE", b"\xff\xfe")
    keys, rejected = read_list(RowReader(), b"[" + good + b"," + bad + b"," + good + b"]")
    assert [key.id for key in (keys[0], keys[-1])] == ["good", "good"]
    assert len(keys) + len(rejected) == 3
    assert len(rejected) == 1 or field in ("name", "disabled_at")
    assert all(key.disabled for key in keys[1:-1]) or field != "disabled_at"


@pytest.mark.parametrize("field", ["unknown", "disabled_at", "name", "domain_allowlist"])
def test_a_row_nested_too_deep_is_rejected_without_a_recursion_error(field: str) -> None:
    row = json.dumps(ROW)[:-1].encode() + f', "{field}": '.encode() + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidRow, match=r"^row 0( \(id 'wk_1'\))?: "):
        RowReader().read(0, row)
    keys, rejected = read_list(RowReader(), b"[" + row + b"," + json.dumps(ROW).encode() + b"]")
    assert [key.id for key in keys] == [ROW["id"]]
    assert [error.index for error in rejected] == [0]


@pytest.mark.parametrize("make", [dict, lambda fields: WidgetKey(**fields)], ids=["a mapping", "a widget key"])
def test_lone_surrogates_are_replaced_unless_a_decision_needs_the_field(
    make: Callable[[dict[str, Any]], Any],
) -> None:
    fields: dict[str, Any] = ROW | {"name": "Shop", "domain_allowlist": ("acme.com",)}
    key = RowReader().convert(0, make(fields | {"name": "caf\ud800", "created_at": "\udfff"}))
    assert (key.name, key.created_at) == ("caf?", "?")
    garbled: dict[str, Any] = {
        "id": "\ud800",
        "last8": "abcdefg\ud800",
        "domain_allowlist": ("acme.com", "\ud800"),
        "agent_id": "\ud800",
        "key_sha256": "\ud800" * 64,
    }
    for field, value in garbled.items():
        with pytest.raises(InvalidRow, match="a lone surrogate"):
            RowReader().convert(0, make(fields | {field: value}))


def test_a_lone_surrogate_or_a_bad_byte_in_a_name_is_replaced() -> None:
    for raw in (json.dumps(ROW | {"name": "caf\ud83d!"}).encode(), json.dumps(ROW | {"name": "caf?!"}).encode("latin-1")):
        key = RowReader().read(0, raw.replace(b"caf?", b"caf\xff"))
        assert key == msgspec.structs.replace(read_one(ROW), name="caf?!")


def test_other_fields_stay_unchanged_when_a_name_is_replaced() -> None:
    row = ROW | {"domain_allowlist": ["acme.com"], "disabled_at": None, "agent_id": None}
    key = RowReader().read(0, json.dumps(row | {"name": "caf\ud83d!"}).encode())
    assert key == msgspec.structs.replace(read_one(row), name="caf?!")


@pytest.mark.parametrize("disabled_at", ["2026\ud83d", ["\ud83d"], {"by": "\ud83d"}], ids=ascii)
def test_a_garbled_disabled_at_disables_the_key(disabled_at: object) -> None:
    assert RowReader().read(0, json.dumps(ROW | {"disabled_at": disabled_at}).encode()).disabled


@pytest.mark.parametrize("disabled_at", [None, "2026-11-22", "", 0, False, {"by": "the owner"}])
@pytest.mark.parametrize("spoiled", [{"last8": "short"}, {"agent_id": 7}, {"last8": "\ud83d"}], ids=ascii)
def test_a_rejected_row_keeps_its_id_and_disabled_at(spoiled: dict[str, object], disabled_at: object) -> None:
    row = ROW | spoiled | {"disabled_at": disabled_at}
    with pytest.raises(InvalidRow) as refused:
        RowReader().read(0, json.dumps(row).encode())
    assert (refused.value.row_id, refused.value.disabled_at) == (ROW["id"], disabled_at)


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"last8": "\ud83d"}, "(JSON is malformed|Input data was truncated)"),
        ({"agent_id": 7, "name": "\ud83d"}, r"Expected `str \| null`, got `int` in 'agent_id'$"),
        ({"name": "\ud83d", "last8": "short"}, r"Expected 8 characters of .* in 'last8', got text of 5 characters$"),
    ],
)
def test_a_rejected_row_with_a_lone_surrogate_is_explained(extra: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidRow, match=rf"^row 3 \(id 'wk_1'\): {problem}"):
        RowReader().read(3, json.dumps(extra | ROW | extra).encode())
