"""RowReader and DeltaReader: the accounts of rows, needed or ignored."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import InvalidRow, WidgetKey
from gatekeeper.keys.delta import DeltaReader, Removal
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import read_list
from tests.keys import rows as usual
from tests.keys.rows import body

ROW: dict[str, Any] = {**usual.ROW}
ACCOUNT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
NAMES = ["a", "0", "acme", "acme_shop", "acme-shop_", "a" * 63]
NO_NAMES = ["", "_acme", "-acme", "Acme", "acme shop", "acme,globex", "acme\n", "äcme", "a" * 64, "\x00", "*"]
NO_TEXTS = [None, 17, 1.5, True, [], ["acme"], {}, {"id": 1, "name": "Acme"}]
EXPECTED = "row 0 (id 'wk_1'): Expected an account, 63 characters at most of a-z, 0-9, '_' and '-',"
TEXTS = st.sampled_from([*NAMES, *NO_NAMES]) | st.text(max_size=65)


def read(reader: RowReader, *rows: Mapping[str, Any]) -> list[Any]:
    """Read a list at once, and each of its rows alone; both must agree."""
    keys, rejected = read_list(reader, body(*rows))
    alone: list[Any] = []
    for index, row in enumerate(rows):
        try:
            alone.append(reader.read(index, json.dumps(row).encode()))
        except InvalidRow as error:
            alone.append(error)
    assert [each for each in alone if not isinstance(each, InvalidRow)] == keys
    assert [str(each) for each in alone if isinstance(each, InvalidRow)] == list(map(str, rejected))
    for index, row in enumerate(rows):
        if isinstance(alone[index], InvalidRow):
            with pytest.raises(InvalidRow) as refused:
                reader.convert(index, row)
            assert str(refused.value) == str(alone[index])
        else:
            assert reader.convert(index, row) == alone[index]
    return alone


# Lists of one account, or of none that is known.


@pytest.mark.parametrize("account", [*NAMES, *NO_NAMES, *NO_TEXTS], ids=repr)
def test_an_account_makes_no_bad_row_where_none_is_needed(account: object) -> None:
    (key,) = read(RowReader(), ROW | {"account": account})
    assert key.account == (account if isinstance(account, str) else None)


def test_accounts_of_any_type_are_read_in_one_step() -> None:
    """A hub may have an object there in each row. Reading its rows one by one takes four times as long."""
    rows = RowReader().tidy(body(*(ROW | {"account": account} for account in [*NO_TEXTS, "acme"])))
    assert rows is not None
    assert [row.account for row in rows] == [*[None] * len(NO_TEXTS), "acme"]


def test_a_bad_row_beside_accounts_of_any_type_is_the_only_one_set_aside() -> None:
    good = ROW | {"account": {"id": 1}}
    keys, (rejected,) = read_list(RowReader(), body(good, ROW | {"id": ""}, good))
    assert ([key.account for key in keys], rejected.index, rejected.reason) == ([None, None], 1, "id")


# Lists of all accounts.


def all_accounts() -> RowReader:
    return RowReader(needs_account=True)


@pytest.mark.parametrize("account", NAMES)
def test_a_row_of_all_accounts_names_its_own(account: str) -> None:
    (key,) = read(all_accounts(), ROW | {"account": account})
    assert key.account == account
    rows = all_accounts().tidy(body(ROW | {"account": account}, ROW | {"account": "acme"}))
    assert rows is not None
    assert [row.account for row in rows] == [account, "acme"]


@pytest.mark.parametrize("account", [*NO_NAMES, *NO_TEXTS], ids=repr)
def test_a_row_of_all_accounts_without_a_name_is_set_aside(account: object) -> None:
    good = ROW | {"account": "acme"}
    first, rejected, last = read(all_accounts(), good, ROW | {"account": account, "disabled_at": "2026"}, good)
    assert first == last
    assert isinstance(rejected, InvalidRow)
    assert (rejected.reason, rejected.row_id, rejected.last8, rejected.disabled_at) == (
        "account",
        "wk_1",
        "UVwXyZ-_",
        "2026",
    )
    assert "'account'" in str(rejected)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            ROW,
            f"{EXPECTED} in 'account', as in each row of all accounts; got no such field",
        ),
        (
            ROW | {"account": "sk_live_ACME_secret"},
            f"{EXPECTED} in 'account', got text of 19 characters",
        ),
        (ROW | {"account": None}, "row 0 (id 'wk_1'): Expected `str`, got `null` in 'account'"),
        ({"last8": "UVwXyZ-_"}, "row 0: Object missing required field `id`"),
    ],
)
def test_the_wording_for_a_row_without_an_account(row: Mapping[str, Any], sentence: str) -> None:
    (rejected,) = read(all_accounts(), row)
    assert str(rejected) == sentence


def test_a_row_that_lacks_more_than_its_account_says_so_first() -> None:
    (suffix,) = read(all_accounts(), {"id": "wk_1"})
    (no_id,) = read(all_accounts(), {"last8": "UVwXyZ-_"})
    assert (suffix.reason, no_id.reason) == ("suffix", "id")


@given(st.lists(st.none() | TEXTS, max_size=6))
def test_a_list_is_tidy_if_each_row_has_the_name_of_an_account(accounts: list[str | None]) -> None:
    found = read(all_accounts(), *(ROW | {"account": account} for account in accounts))
    good = [not isinstance(each, InvalidRow) for each in found]
    assert good == [bool(account and ACCOUNT.fullmatch(account)) for account in accounts]
    tidy = all_accounts().tidy(body(*(ROW | {"account": account} for account in accounts)))
    assert (tidy is not None) is all(good)


def test_readers_of_one_account_and_of_all_do_not_mix() -> None:
    for _ in range(2):
        assert not isinstance(read(RowReader(), ROW)[0], InvalidRow)
        assert isinstance(read(all_accounts(), ROW)[0], InvalidRow)
        tail = {"id": "wk_1", "tail": "UVwXyZ-_", "account": "acme"}
        assert not isinstance(read(RowReader("tail", needs_account=True), tail)[0], InvalidRow)


# Deltas.


def test_a_delta_of_all_accounts_has_rows_and_removals_with_accounts() -> None:
    reader = DeltaReader(all_accounts())
    removal = {"id": "wk_1", "last8": "UVwXyZ-_", "account": "acme", "removed": True}
    assert reader.tidy(body(removal)) is None
    assert reader.read(0, msgspec.json.encode(removal)) == Removal("wk_1", "UVwXyZ-_")
    key = reader.read(0, msgspec.json.encode(ROW | {"account": "acme"}))
    assert isinstance(key, WidgetKey)
    assert key.account == "acme"
    with pytest.raises(InvalidRow) as refused:
        reader.read(0, msgspec.json.encode(ROW))
    assert refused.value.reason == "account"


@pytest.mark.parametrize("account", [*NO_NAMES, *NO_TEXTS], ids=repr)
def test_a_removal_counts_whatever_account_it_names(account: object) -> None:
    """The id and the last 8 characters name the key."""
    removal = {"id": "wk_1", "last8": "UVwXyZ-_", "account": account, "removed": True}
    assert DeltaReader(all_accounts()).read(0, json.dumps(removal).encode()) == Removal("wk_1", "UVwXyZ-_")
