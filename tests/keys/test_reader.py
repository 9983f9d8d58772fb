"""RowReader: good and bad rows, as JSON and as Python objects."""

import hashlib
import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import ConfigError, InvalidRow, WidgetKey
from gatekeeper.errors import RowReason
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import read_list
from tests.keys.rows import ROW, body, read_one, reject_one

MANY = settings(max_examples=200, deadline=None)
DIGEST = hashlib.sha256(b"").hexdigest()
FIELD_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=9), st.just([]), st.just(["acme.com"]), st.just({})
)


# Rows that are widget keys.


def test_a_full_row_is_read_field_by_field() -> None:
    row = {
        "id": "wk_1",
        "name": "Shop",
        "last8": "UVwXyZ-_",
        "domain_allowlist": ["acme.com", " *.ACME.com "],
        "agent_id": "agent-7",
        "disabled_at": None,
        "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-02T00:00:00Z",
        "last_used_at": "2026-11-03T00:00:00Z",
        "key_sha256": DIGEST,
        "account": "acme",
    }
    key = read_one(row)
    assert msgspec.structs.asdict(key) == row | {"domain_allowlist": ("acme.com", " *.ACME.com ")}
    assert not key.disabled


def test_a_row_needs_only_an_id_and_a_suffix() -> None:
    key = read_one(ROW)
    assert key == WidgetKey("wk_1", None, "UVwXyZ-_", ())
    assert not key.disabled


@pytest.mark.parametrize("extra", [{}, {"disabled_at": None}], ids=["absent", "null"])
def test_a_row_whose_disabled_at_is_absent_or_null_is_enabled(extra: dict[str, object]) -> None:
    assert not read_one(ROW | extra).disabled
    assert not RowReader().convert(0, ROW | extra).disabled


@pytest.mark.parametrize(
    "disabled_at",
    [
        "2026-11-01T00:00:00Z",
        "0001-01-01",
        "2999-01-01T00:00:00Z",
        "not a date",
        "null",
        "",
        False,
        True,
        0,
        -1,
        1.5,
        10**30,
        [],
        {},
        {"at": None},
    ],
    ids=repr,
)
def test_a_row_with_any_other_disabled_at_is_disabled(disabled_at: object) -> None:
    assert read_one(ROW | {"disabled_at": disabled_at}).disabled
    assert RowReader().convert(0, ROW | {"disabled_at": disabled_at}).disabled
    assert WidgetKey("wk_1", None, "UVwXyZ-_", (), disabled_at=disabled_at).disabled


@pytest.mark.parametrize("field", ["name", "created_at", "updated_at", "last_used_at"])
@pytest.mark.parametrize("value", [None, 7, 1.5, True, [], {}, ["x"], {"en": "Shop"}], ids=repr)
def test_an_informative_field_is_none_unless_it_is_text(field: str, value: object) -> None:
    assert getattr(read_one(ROW | {field: value}), field) is None
    assert getattr(read_one(ROW | {field: "as written ü\n"}), field) == "as written ü\n"


@pytest.mark.parametrize(
    "extra", [{}, {"domain_allowlist": None}, {"domain_allowlist": []}], ids=["absent", "null", "empty"]
)
def test_an_allowlist_that_is_absent_null_or_empty_has_no_entries(extra: dict[str, object]) -> None:
    assert read_one(ROW | extra).domain_allowlist == ()


def test_the_entries_of_a_row_are_kept_as_written() -> None:
    entries = ["", "*", " acme.com ", "ACME.com", "acme.com", "http://[", "é" * 2000]
    assert read_one(ROW | {"domain_allowlist": entries}).domain_allowlist == tuple(entries)


@pytest.mark.parametrize("last8", ["abcdefgh", "ABCDEFGH", "01234567", "________", "--------", "aB3_-xYz"])
def test_8_letters_digits_underscores_and_hyphens_are_a_suffix(last8: str) -> None:
    assert read_one(ROW | {"last8": last8}).last8 == last8


def test_unknown_fields_are_ignored() -> None:
    row = ROW | {"": 1, "suffix": 7, "Last8": "x", "nested": {"id": [[[{"last8": None}]]]}, "long": "x" * 1_000_000}
    assert read_one(row) == read_one(ROW)


# Rows that are not widget keys.


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"id": 7}, "id"),
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": ["wk_1"]}, "id"),
        ({"last8": None}, "last8"),
        ({"last8": 12345678}, "last8"),
        ({"last8": ""}, "last8"),
        ({"last8": "abcdefg"}, "last8"),
        ({"last8": "abcdefghi"}, "last8"),
        ({"last8": "abcdefg\n"}, "last8"),
        ({"last8": "abcdefgh\n"}, "last8"),
        ({"last8": " abcdefg"}, "last8"),
        ({"last8": "abcdefg\x00"}, "last8"),
        ({"last8": "abcdefg."}, "last8"),
        ({"last8": "abcdefgé"}, "last8"),
        ({"last8": "abcdefg\u0661"}, "last8"),
        ({"last8": "\uff41bcdefgh"}, "last8"),
        ({"last8": "…abcdefg"}, "last8"),
        ({"domain_allowlist": "acme.com"}, "domain_allowlist"),
        ({"domain_allowlist": {"acme.com": True}}, "domain_allowlist"),
        ({"domain_allowlist": 7}, "domain_allowlist"),
        ({"domain_allowlist": False}, "domain_allowlist"),
        ({"domain_allowlist": ["acme.com", 7]}, "domain_allowlist"),
        ({"domain_allowlist": ["acme.com", None]}, "domain_allowlist"),
        ({"domain_allowlist": [["acme.com"]]}, "domain_allowlist"),
        ({"agent_id": 7}, "agent_id"),
        ({"agent_id": False}, "agent_id"),
        ({"agent_id": ["agent-7"]}, "agent_id"),
        ({"agent_id": {}}, "agent_id"),
        ({"key_sha256": 7}, "key_sha256"),
        ({"key_sha256": ""}, "key_sha256"),
        ({"key_sha256": DIGEST[1:]}, "key_sha256"),
        ({"key_sha256": DIGEST + "0"}, "key_sha256"),
        ({"key_sha256": DIGEST.upper()}, "key_sha256"),
        ({"key_sha256": "g" + DIGEST[1:]}, "key_sha256"),
        ({"key_sha256": DIGEST + "\n"}, "key_sha256"),
        ({"key_sha256": "sha256:" + DIGEST}, "key_sha256"),
        ({"key_sha256": False}, "key_sha256"),
    ],
    ids=repr,
)
def test_a_row_with_a_bad_deciding_field_is_rejected_alone(extra: dict[str, object], field: str) -> None:
    rejected = reject_one(ROW | extra)
    assert f"'{field}'" in rejected.problem
    assert field == "id" or str(rejected).startswith("row 1 (id 'wk_1'): ")
    assert set(rejected.fields) == set(ROW) | set(extra)
    with pytest.raises(InvalidRow) as refused:
        RowReader().convert(1, ROW | extra)
    assert refused.value.row_id == rejected.row_id


@pytest.mark.parametrize(
    ("row", "row_id", "said"),
    [
        ({}, None, "characters in 'last8', got no fields"),
        ({"last8": "abcdefgh"}, None, "`id`"),
        (None, None, "got `null`"),
        (7, None, "got `int`"),
        ("wk_1", None, "got `str`"),
        ([], None, "got `array`"),
        ([ROW], None, "got `array`"),
        ({"id": 7, "last8": "abcdefgh"}, None, "'id'"),
        ({"id": "wk_1", "last8": 7}, "wk_1", "'last8'"),
    ],
)
def test_a_rejected_row_is_named_by_its_index_and_id(row: object, row_id: str | None, said: str) -> None:
    rejected = reject_one(row)
    assert said in rejected.problem
    assert rejected.row_id == row_id
    assert str(rejected).startswith("row 1: " if row_id is None else f"row 1 (id '{row_id}'): ")


@pytest.mark.parametrize("field", ["last8", "key_sha256", "domain_allowlist"])
def test_a_value_that_may_be_a_secret_is_not_shown(field: str) -> None:
    rejected = reject_one(ROW | {field: "sk_live_acme_0123456789"})
    assert "0123" not in str(rejected)
    assert f"'{field}'" in rejected.problem


def test_the_expected_suffix_and_digest_are_described_in_words() -> None:
    assert (
        "8 characters of a-z, A-Z, 0-9, '_' and '-' in 'last8', got text of 5"
        in reject_one(ROW | {"last8": "short"}).problem
    )
    assert "64 hexadecimal digits" in reject_one(ROW | {"key_sha256": "x"}).problem
    for extra in ({"id": 7}, {"domain_allowlist": "acme.com"}, {"agent_id": 7}):
        assert not {"Expected 8", "Expected 6"} & {reject_one(ROW | extra).problem[:10]}


def test_a_row_that_is_not_json_is_rejected() -> None:
    for raw in (b"", b"{", b"NaN", b'{"id": "wk_1", "last8"'):
        with pytest.raises(InvalidRow, match=r"^row 3( \(id 'wk_1'\))?: "):
            RowReader().read(3, raw)


# Another name for the suffix field.


def test_the_suffix_field_may_have_another_name() -> None:
    reader = RowReader("key_suffix")
    row = {"id": "wk_1", "key_suffix": "UVwXyZ-_", "last8": "ignored!"}
    (key,), rejected = read_list(reader, body(row))
    assert rejected == []
    assert key.last8 == "UVwXyZ-_"
    assert reader.convert(0, row) == key


def test_a_lone_surrogate_in_a_renamed_suffix_field_is_refused() -> None:
    with pytest.raises(InvalidRow, match="a lone surrogate"):
        RowReader("ending").convert(0, {"id": "wk_1", "ending": "abcdefg\ud800"})


def test_a_row_without_a_suffix_is_rejected_with_its_field_names() -> None:
    row = {"id": "wk_1", "name": "Shop", "suffix": "UVwXyZ-_"}
    rejected = reject_one(row)
    assert rejected.problem == (
        "expected the key's last 8 characters in 'last8', got only the fields 'id', 'name', 'suffix'; "
        "if another field has them, pass its name as suffix_field="
    )
    assert rejected.fields == ("id", "name", "suffix")
    with pytest.raises(InvalidRow, match="last 8 characters in 'key_suffix', got only the fields 'id', 'name', 'suffix'"):
        RowReader("key_suffix").convert(0, row)


def test_a_row_with_a_suffix_gets_no_hint_about_suffix_field() -> None:
    assert "suffix_field" not in reject_one(ROW | {"id": 7}).problem
    assert "suffix_field" not in reject_one(ROW | {"last8": "short"}).problem


# Rows that are Python objects already.


def test_a_valid_widget_key_is_returned_as_is() -> None:
    key = WidgetKey("wk_1", "Shop", "UVwXyZ-_", ("acme.com",))
    assert RowReader().convert(0, key) is key


@pytest.mark.parametrize("make", [dict, MappingProxyType])
def test_a_mapping_is_read_like_the_same_row_in_json(make: Callable[[dict[str, object]], Any]) -> None:
    row: dict[str, object] = ROW | {"domain_allowlist": ["acme.com"], "disabled_at": False, "name": 7, "more": object()}
    assert RowReader().convert(0, make(row)) == read_one({name: value for name, value in row.items() if name != "more"})


@pytest.mark.parametrize("entries", [("acme.com",), ["acme.com"], {"acme.com"}, frozenset({"acme.com"})])
def test_entries_in_python_may_be_any_collection_but_a_string(entries: object) -> None:
    assert RowReader().convert(0, ROW | {"domain_allowlist": entries}).domain_allowlist == ("acme.com",)


NO_ROWS: list[object] = [None, 7, "wk_1", [], [ROW], b"{}", object(), {}, {1: 2}]


@pytest.mark.parametrize("row", NO_ROWS, ids=lambda row: type(row).__name__)
def test_an_object_that_is_not_a_row_is_rejected(row: Any) -> None:
    with pytest.raises(InvalidRow) as refused:
        RowReader().convert(5, row)
    assert refused.value.index == 5


def test_names_and_ids_of_a_rejected_row_are_escaped_cut_and_masked() -> None:
    secret = "sk_live_acme_4fJq8ZtR"
    fields = {f"name\n{number}{'x' * 5000}": 1 for number in range(500)}
    for row in ({**fields, "id": "wk\u202e" + "x" * 5000}, {secret: 1, "id": secret}, {"id": secret, "last8": 7}):
        with pytest.raises(InvalidRow) as caught:
            RowReader().convert(0, row)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 2000
        assert secret not in str(caught.value)
        assert (caught.value.row_id, set(caught.value.fields)) == (row["id"], set(row))


@pytest.mark.parametrize(
    "fields", [{"id": 7}, {"id": ""}, {"last8": "short"}, {"domain_allowlist": "acme.com"}, {"key_sha256": "0"}], ids=repr
)
def test_a_widget_key_with_a_bad_field_is_rejected(fields: dict[str, Any]) -> None:
    key = msgspec.structs.replace(WidgetKey("wk_1", None, "UVwXyZ-_", ("acme.com",)), **fields)
    with pytest.raises(InvalidRow, match=f"'{next(iter(fields))}'"):
        RowReader().convert(0, key)


@MANY
@given(
    st.lists(st.one_of(FIELD_VALUES, st.dictionaries(st.sampled_from([*WidgetKey.__struct_fields__, "x"]), FIELD_VALUES)))
)
def test_every_row_of_any_shape_is_read_or_rejected(rows: list[Any]) -> None:
    reader = RowReader()
    keys, rejected = read_list(reader, body(*rows))
    assert len(keys) + len(rejected) == len(rows)
    bad = {error.index for error in rejected}
    assert [rows[number]["id"] for number in range(len(rows)) if number not in bad] == [key.id for key in keys]
    for number, row in enumerate(rows):
        try:
            reader.convert(number, row)
        except InvalidRow:
            assert number in bad
        else:
            assert number not in bad


# Wording.


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (7, "row 1: expected an object with the fields of a widget key: Expected `object`, got `int`"),
        (
            {},
            (
                "row 1: expected the key's last 8 characters in 'last8', got no fields; "
                "if another field has them, pass its name as suffix_field="
            ),
        ),
        ({"last8": "UVwXyZ-_"}, "row 1: Object missing required field `id`"),
        ({"id": 7, "last8": "UVwXyZ-_"}, "row 1: Expected `str`, got `int` in 'id'"),
        ({"id": "", "last8": "UVwXyZ-_"}, "row 1 (id ''): Expected at least 1 character in 'id', got text of 0 characters"),
        ({"id": "wk_1", "last8": 7}, "row 1 (id 'wk_1'): Expected `str`, got `int` in 'last8'"),
        (
            {"id": "wk_1", "last8": "short"},
            "row 1 (id 'wk_1'): Expected 8 characters of a-z, A-Z, 0-9, '_' and '-' in 'last8', got text of 5 characters",
        ),
        (
            {"id": "wk_1", "last8": "UVwXyZ-_", "key_sha256": "x"},
            "row 1 (id 'wk_1'): Expected 64 hexadecimal digits in lower case in 'key_sha256', got text of 1 characters",
        ),
        (
            {"id": "wk_1", "last8": "UVwXyZ-_", "domain_allowlist": [7]},
            "row 1 (id 'wk_1'): Expected `str`, got `int` in 'domain_allowlist'",
        ),
    ],
)
def test_the_wording_for_a_rejected_row(row: object, sentence: str) -> None:
    assert str(reject_one(row)) == sentence


def test_the_wording_for_a_suffix_field_that_is_taken() -> None:
    with pytest.raises(ConfigError) as refused:
        RowReader("id")
    assert refused.value.problems == (
        (
            "suffix_field is 'id': expected a name, and none of 'name', 'domain_allowlist', 'agent_id', "
            "'disabled_at', 'created_at', 'updated_at', 'last_used_at', 'key_sha256', 'account'"
        ),
    )


def test_the_wording_for_a_rejected_python_object() -> None:
    with pytest.raises(InvalidRow) as refused:
        RowReader().convert(3, {"id": "wk_1", "last8": 7})
    assert str(refused.value) == "row 3 (id 'wk_1'): Expected `str`, got `int` in 'last8'"


def test_the_whole_name_of_a_suffix_field_is_shown() -> None:
    with pytest.raises(InvalidRow, match=r"characters of .* in 'suffixX', got text of 5 characters"):
        RowReader("suffixX").read(0, json.dumps({"id": "wk_1", "suffixX": "short"}).encode())


def test_an_id_may_have_one_character() -> None:
    assert read_one(ROW | {"id": "7"}).id == "7"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": 7, "last8": "abcd1234"}, "id"),
        ({"last8": "abcd1234"}, "id"),
        ({"id": "1"}, "suffix"),
        ({"id": "1", "last8": "abcd123"}, "suffix"),
        ({"id": "1", "last8": "abcd1234", "domain_allowlist": "acme.com"}, "allowlist"),
        ({"id": "1", "last8": "abcd1234", "domain_allowlist": ["acme.com", 7]}, "allowlist"),
        ({"id": "1", "last8": "abcd1234", "agent_id": 7}, "agent"),
        ({"id": "1", "last8": "abcd1234", "key_sha256": "7"}, "digest"),
        ({"id": "1", "last8": "abcd1234", "domain_allowlist": ["\ud800"]}, "other"),
        (["id", "last8"], "not_an_object"),
        (None, "not_an_object"),
    ],
)
@pytest.mark.parametrize("suffix_field", ["last8", "ends_with"])
def test_a_rejected_row_has_a_reason_from_a_closed_set(row: Any, reason: str, suffix_field: str) -> None:
    if isinstance(row, dict):
        row = {suffix_field if name == "last8" else name: value for name, value in row.items()}
    with pytest.raises(InvalidRow) as caught:
        RowReader(suffix_field).read(0, json.dumps(row).encode())
    assert caught.value.reason == reason
    assert reason in get_args(RowReason)
