"""Faults of rows: missing fields, wrong types, duplicates, removals."""

from typing import Any

import pytest

from gatekeeper import Reason
from gatekeeper.testing import FakeHub, HubAnswer, json_answer
from tests.support.guarded import Guarded, guarded
from tests.support.rows import as_json, client_key, row

pytestmark = pytest.mark.anyio

NEIGHBOURS = [row(number) for number in range(10, 30)]


def without(field: str, number: int = 1) -> dict[str, Any]:
    """Write a row that lacks a field."""
    return {name: value for name, value in row(number).items() if name != field}


def neighbours_are_allowed(it: Guarded) -> bool:
    return it.allows(*range(10, 30))


# Missing fields, wrong types


@pytest.mark.fault("missing fields")
@pytest.mark.parametrize("field", ["name", "agent_id", "created_at", "updated_at", "last_used_at", "disabled_at"])
async def test_optional_fields_may_be_missing(hub: FakeHub, field: str) -> None:
    hub.always(json_answer([without(field)]))
    async with guarded(hub) as it:
        assert it.allows(1)
        assert it.status.counters["rows_rejected"] == 0


@pytest.mark.fault("missing fields")
@pytest.mark.parametrize("field", ["id", "last8"])
async def test_a_new_row_without_id_or_suffix_is_skipped_and_counted(hub: FakeHub, field: str) -> None:
    hub.always(json_answer([*NEIGHBOURS, without(field)]))
    async with guarded(hub) as it:
        assert it.reason(1) is Reason.KEY_UNKNOWN
        assert neighbours_are_allowed(it)
        assert it.status.counters["rows_rejected"] == 1
        assert f"{field!r}" in it.status.rejected[0] or f"`{field}`" in it.status.rejected[0]


@pytest.mark.fault("missing fields")
async def test_a_known_row_that_loses_its_suffix_stays_as_it_was(hub: FakeHub) -> None:
    hub.always(json_answer([*NEIGHBOURS, row(1)]))
    async with guarded(hub) as it:
        hub.always(json_answer([*NEIGHBOURS, without("last8")]))
        await it.refresh()
        assert it.allows(1)
        assert neighbours_are_allowed(it)


@pytest.mark.fault("missing fields")
async def test_a_known_row_that_stays_bad_expires_as_a_list_does(hub: FakeHub) -> None:
    hub.always(json_answer([*NEIGHBOURS, row(1)]))
    async with guarded(hub, hard_stale=1000) as it:
        hub.always(json_answer([*NEIGHBOURS, without("last8")]))
        await it.time.advance(900)
        assert it.allows(1)
        await it.time.advance(200)
        assert not it.allows(1)
        assert neighbours_are_allowed(it)


@pytest.mark.fault("wrong types")
@pytest.mark.parametrize(
    "fields",
    [
        {"id": 1},
        {"id": None},
        {"id": ""},
        {"id": ["1"]},
        {"last8": 12345678},
        {"last8": None},
        {"domain_allowlist": "acme.com"},
        {"domain_allowlist": {"acme.com": True}},
        {"domain_allowlist": [1]},
        {"domain_allowlist": ["acme.com", None]},
        {"domain_allowlist": True},
    ],
    ids=str,
)
async def test_a_new_row_of_a_wrong_type_is_skipped(hub: FakeHub, fields: dict[str, Any]) -> None:
    hub.always(json_answer([*NEIGHBOURS, row(1, **fields)]))
    async with guarded(hub) as it:
        assert it.reason(1) is Reason.KEY_UNKNOWN
        assert neighbours_are_allowed(it)
        assert it.status.counters["rows_rejected"] == 1


@pytest.mark.fault("wrong types")
@pytest.mark.parametrize("value", [False, 0, "", {}, [], "never", "2999-01-01T00:00:00Z", 1.5, True], ids=repr)
async def test_any_disabled_at_but_null_disables_the_key(hub: FakeHub, value: object) -> None:
    async with guarded(hub) as it:
        assert it.allows(1)
        hub.lists(row(1, disabled_at=value))
        await it.refresh()
        assert it.reason(1) is Reason.KEY_DISABLED


@pytest.mark.fault("wrong types")
@pytest.mark.parametrize("field", ["name", "created_at", "updated_at", "last_used_at"])
@pytest.mark.parametrize("value", [7, {}, ["x"], False], ids=repr)
async def test_optional_fields_may_have_any_type(hub: FakeHub, field: str, value: object) -> None:
    hub.lists(row(1, **{field: value}))
    async with guarded(hub) as it:
        assert it.allows(1)


@pytest.mark.fault("wrong types")
@pytest.mark.parametrize("other", [None, 7, "row", [], [row(1)], True], ids=repr)
async def test_a_row_that_is_no_object_is_skipped(hub: FakeHub, other: object) -> None:
    hub.always(json_answer([*NEIGHBOURS, other]))
    async with guarded(hub) as it:
        assert neighbours_are_allowed(it)
        assert it.status.counters["rows_rejected"] == 1


# Huge and deep rows


@pytest.mark.fault("unknown or huge fields")
async def test_unknown_fields_are_ignored(hub: FakeHub) -> None:
    hub.lists(row(1, secret_sauce={"a": [1, {"b": None}]}, **{"": 1, "ключ": "x"}))
    async with guarded(hub) as it:
        assert it.allows(1)
        assert it.status.counters["rows_rejected"] == 0


@pytest.mark.fault("unknown or huge fields")
async def test_a_row_of_a_megabyte_is_skipped(hub: FakeHub) -> None:
    hub.always(json_answer([*NEIGHBOURS, row(1, name="n" * 1_000_000), row(2)]))
    async with guarded(hub) as it:
        assert it.allows(2)
        assert neighbours_are_allowed(it)
        assert it.reason(1) is Reason.KEY_UNKNOWN
        assert it.status.counters["rows_rejected"] == 1


@pytest.mark.fault("unknown or huge fields")
async def test_a_known_row_that_grows_to_a_megabyte_stays_as_it_was(hub: FakeHub) -> None:
    hub.always(json_answer([*NEIGHBOURS, row(1)]))
    async with guarded(hub) as it:
        hub.always(json_answer([*NEIGHBOURS, row(1, name="n" * 1_000_000, domain_allowlist=["evil.example"])]))
        await it.refresh()
        assert it.allows(1)
        assert neighbours_are_allowed(it)


@pytest.mark.fault("unknown or huge fields")
@pytest.mark.parametrize(
    "value", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 20_000 + b"1" + b"}" * 20_000], ids=["arrays", "objects"]
)
async def test_a_deeply_nested_row_raises_nothing(hub: FakeHub, value: bytes) -> None:
    deep = as_json(row(1, extra=0))[1:-1].replace(b'"extra": 0', b'"extra": ' + value)
    body = as_json(*NEIGHBOURS)[:-1] + b", " + deep + b"]"
    async with guarded(hub) as it:
        hub.always(HubAnswer(200, body))
        await it.refresh()
        # The row is skipped, or its unknown field is not parsed: no error escapes, and no key is lost.
        assert it.allows(1)
        assert "Recursion" not in (it.status.last_error or "")


# Duplicates


@pytest.mark.fault("duplicate id")
@pytest.mark.parametrize("order", [1, -1], ids=["disabled last", "disabled first"])
async def test_of_two_rows_with_one_id_the_disabled_one_wins(hub: FakeHub, order: int) -> None:
    hub.lists(*[row(1), row(1, disabled_at="now")][::order], row(2))
    async with guarded(hub) as it:
        assert it.reason(1) is Reason.KEY_DISABLED
        assert it.allows(2)
        assert it.status.counters["duplicate_ids"] == 1


@pytest.mark.fault("duplicate id")
async def test_of_two_enabled_rows_with_one_id_the_first_wins(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.lists(row(1), row(1, domain_allowlist=["evil.example"]))
    async with guarded(hub) as it:
        assert it.allows(1)
        assert it.reason(1, "https://evil.example") is Reason.ORIGIN_NOT_ALLOWED
        assert "'key-1' more than once" in caplog.text


@pytest.mark.fault("same suffix twice")
@pytest.mark.parametrize("disabled_at", [None, "now"], ids=["both enabled", "one disabled"])
async def test_keys_with_the_same_suffix_are_refused_as_ambiguous(
    hub: FakeHub, disabled_at: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    hub.lists(row(1), row(2, last8="00000001", disabled_at=disabled_at), row(3))
    async with guarded(hub) as it:
        assert it.reason(1) is Reason.KEY_AMBIGUOUS
        assert it.allows(3)
        assert it.status.ambiguous == ("00000001",)
        assert "several widget keys end with" in caplog.text
        assert client_key(1) not in caplog.text
        hub.lists(row(1), row(3))
        await it.refresh()
        assert it.allows(1)
        assert it.gate.status.ambiguous == ()


# Allowlists


@pytest.mark.fault("invalid allowlist entry")
@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "*.",
        "http://",
        "acme .com",
        "acme.com:99999",
        "xn--a.com",
        r"^https?://.*\.com$",
        "*.com",
        "*.github.io",
        "null",
        "",
        "javascript:alert(1)",
        "x" * 2000,
    ],
    ids=lambda entry: entry[:20],
)
async def test_an_invalid_entry_is_dropped_and_the_others_stay(hub: FakeHub, entry: str) -> None:
    hub.lists(row(1, domain_allowlist=[entry, "acme.com"]), row(2, domain_allowlist=[entry]))
    async with guarded(hub) as it:
        assert it.allows(1)
        for origin in ("https://evil.example", "https://x.github.io", "https://evil.com"):
            assert it.reason(1, origin) is Reason.ORIGIN_NOT_ALLOWED
        assert it.reason(2) is Reason.ALLOWLIST_EMPTY
        key = it.gate.decide(client_key(1), "https://acme.com").key
        assert key is not None
        allowlist = it.gate.allowlist(key)
        assert allowlist is not None
        assert len(allowlist.rejected) == 1


@pytest.mark.fault("empty allowlist")
@pytest.mark.parametrize("allowlist", [None, []], ids=repr)
async def test_a_key_without_entries_is_blocked_with_its_own_reason(hub: FakeHub, allowlist: list[str] | None) -> None:
    hub.lists(row(1, domain_allowlist=allowlist), without("domain_allowlist", 2))
    async with guarded(hub) as it:
        assert it.reason(1) is Reason.ALLOWLIST_EMPTY
        assert it.reason(2) is Reason.ALLOWLIST_EMPTY
        assert it.reason(3) is Reason.KEY_UNKNOWN


# Suffixes


@pytest.mark.fault("invalid suffix")
@pytest.mark.parametrize(
    "suffix",
    [
        b'"1234567"',
        b'"123456789"',
        b'"1234567\xc3\xa9"',
        b'"1234567\\u0000"',
        b'"1234567\\ud800"',
        b'"1234567\\n"',
        b'" 1234567"',
    ],
    ids=["7", "9", "not ASCII", "NUL", "half a pair", "line feed", "space"],
)
async def test_an_invalid_suffix_rejects_its_row(hub: FakeHub, suffix: bytes) -> None:
    odd = as_json(row(1))[1:-1].replace(b'"00000001"', suffix)
    hub.always(HubAnswer(200, as_json(*NEIGHBOURS)[:-1] + b", " + odd + b"]"))
    async with guarded(hub) as it:
        assert neighbours_are_allowed(it)
        assert it.status.keys == len(NEIGHBOURS)
        assert it.status.counters["rows_rejected"] == 1


# Rows that come and go


@pytest.mark.fault("first list is empty")
async def test_the_first_list_may_be_empty(hub: FakeHub) -> None:
    hub.lists()
    async with guarded(hub, unknown_key_wait=0) as it:
        assert (it.status.state, it.status.keys) == ("fresh", 0)
        assert it.reason(1) is Reason.KEY_UNKNOWN
        hub.lists(row(1))
        await it.refresh()
        assert it.allows(1)


MANY = [row(number) for number in range(100)]


@pytest.mark.fault("most keys are missing")
@pytest.mark.promise("mass removals are held")
@pytest.mark.parametrize("left", [0, 40], ids=["empty", "60 % smaller"])
async def test_a_list_without_most_keys_is_held_until_two_more_agree(hub: FakeHub, left: int) -> None:
    hub.lists(*MANY)
    async with guarded(hub) as it:
        hub.lists(*MANY[:left])
        await it.refresh()
        assert it.allows(*range(100))
        await it.refresh()
        assert it.allows(*range(100))
        await it.refresh()
        assert it.status.keys == left
        assert it.reason(99) is Reason.KEY_UNKNOWN
        assert it.allows(*range(left))


@pytest.mark.fault("one key is missing")
async def test_a_row_that_is_removed_is_refused_with_that_list(hub: FakeHub) -> None:
    hub.lists(*MANY)
    async with guarded(hub) as it:
        assert it.allows(7)
        hub.lists(*MANY[:7], *MANY[8:])
        await it.refresh()
        assert it.reason(7) is Reason.KEY_UNKNOWN
        assert it.status.keys == 99


@pytest.mark.fault("key enabled again")
async def test_a_row_that_is_enabled_again_is_allowed_with_the_next_list(hub: FakeHub) -> None:
    hub.lists(row(1, disabled_at="now"))
    async with guarded(hub) as it:
        assert it.reason(1) is Reason.KEY_DISABLED
        hub.lists(row(1))
        await it.time.advance(12)
        assert it.allows(1)


# One bad row, and lists without most keys


@pytest.mark.promise("a bad row affects only its key")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", [0, 4321, 9999])
async def test_a_bad_row_affects_none_of_ten_thousand_other_keys(hub: FakeHub, place: int) -> None:
    rows = [row(number) for number in range(10_000)]
    hub.lists(*rows)
    async with guarded(hub) as it:
        rows[place] = {"id": ["?"], "last8": {"a": '},{"id":"key-1","last8":"00000001","disabled_at":"x"'}}
        hub.lists(*rows)
        await it.refresh()
        others = [number for number in range(10_000) if number != place]
        assert it.allows(*others)
        assert it.reason(place) is Reason.KEY_UNKNOWN
        assert it.status.keys == 9_999


@pytest.mark.promise("mass removals are held")
@pytest.mark.parametrize("agreeing", [0, 1], ids=["at once", "after one more"])
async def test_a_hold_ends_when_the_keys_are_back(hub: FakeHub, agreeing: int) -> None:
    hub.lists(*MANY)
    async with guarded(hub) as it:
        hub.lists()
        for _ in range(1 + agreeing):
            await it.refresh()
        hub.lists(*MANY)
        await it.refresh()
        assert it.allows(*range(100))
        # The next such list starts the count again.
        hub.lists()
        await it.refresh()
        await it.refresh()
        assert it.allows(*range(100))
        await it.refresh()
        assert it.status.keys == 0


@pytest.mark.promise("mass removals are held")
async def test_other_changes_of_a_held_list_apply_immediately(hub: FakeHub) -> None:
    hub.lists(*MANY)
    async with guarded(hub) as it:
        hub.lists(row(0, disabled_at="now"), row(1, domain_allowlist=["blog.acme.com"]), row(200))
        await it.refresh()
        assert it.reason(0) is Reason.KEY_DISABLED
        assert it.reason(1) is Reason.ORIGIN_NOT_ALLOWED
        assert it.allows(2, 99, 200)


@pytest.mark.promise("mass removals are held")
async def test_removals_are_held_for_at_most_60_seconds(hub: FakeHub) -> None:
    hub.lists(*MANY)
    async with guarded(hub, refresh_interval=40.0) as it:
        await it.time.advance(1)
        hub.lists()
        await it.refresh()
        assert it.allows(*range(100))
        await it.time.advance(59)
        assert it.allows(*range(100))
        await it.time.advance(25)
        assert it.status.keys == 0


@pytest.mark.promise("mass removals are held")
@pytest.mark.parametrize(("before", "left"), [(100, 50), (100, 51), (9, 0), (9, 1)])
async def test_a_list_without_half_or_of_few_keys_is_not_held(hub: FakeHub, before: int, left: int) -> None:
    hub.lists(*MANY[:before])
    async with guarded(hub) as it:
        hub.lists(*MANY[:left])
        await it.refresh()
        assert it.status.keys == left


@pytest.mark.promise("mass removals are held")
@pytest.mark.parametrize(("before", "left"), [(100, 49), (10, 4), (10, 0)])
async def test_a_list_without_most_of_ten_keys_is_held_and_logged(
    hub: FakeHub, before: int, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub.lists(*MANY[:before])
    async with guarded(hub) as it:
        hub.lists(*MANY[:left])
        await it.refresh()
        assert it.status.keys == before
        assert it.allows(*range(before))
        assert it.status.held == before - left
        assert f"lacks {before - left} of {before} widget keys" in caplog.text
