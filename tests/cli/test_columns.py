"""Columns of text: alignment, and what is folded."""

from rich.cells import cell_len

from gatekeeper.cli.columns import align

ROWS = [("KEY", "NAME", "DOMAINS", "STATE"), ("…1", "Shop", "acme.com\n*.acme.com", "enabled"), ("…2", "", "", "disabled")]
FOLDABLE = {1: 4, 2: 10}


def test_columns_are_as_wide_as_their_widest_line() -> None:
    assert list(align(ROWS)) == [
        "KEY  NAME  DOMAINS     STATE",
        "…1   Shop  acme.com    enabled",
        "           *.acme.com",
        "…2                     disabled",
    ]


def test_nothing_is_folded_that_fits() -> None:
    assert list(align(ROWS, width=31, foldable=FOLDABLE)) == list(align(ROWS))


def test_columns_are_folded_in_their_order_down_to_their_least_widths() -> None:
    """The first one gives up all that it can before the second one is touched."""
    rows = [("NAME", "DOMAINS"), ("a very long name", "shop.acme.example")]
    lines = list(align(rows, width=27, foldable={0: 6, 1: 8}))
    assert lines == ["NAME      DOMAINS", "a very    shop.acme.example", "long", "name"]
    assert list(align(rows, width=16, foldable={0: 6, 1: 8})) == [
        "NAME    DOMAINS",
        "a very  shop.acm",
        "long    e.exampl",
        "name    e",
    ]


def test_no_character_is_lost_where_even_the_least_widths_are_too_wide() -> None:
    rows = [("NAME", "STATE"), ("x" * 20, "enabled")]
    lines = list(align(rows, width=5, foldable={0: 4}))
    assert "".join(line[:4].strip() for line in lines[1:]) == "x" * 20


def test_wide_characters_count_as_two_cells() -> None:
    """A terminal shows CJK characters in two cells."""
    rows = [("NAME", "STATE"), ("日本語の店", "enabled"), ("Shop", "enabled")]
    lines = list(align(rows, width=14, foldable={0: 5}))
    assert all(cell_len(line) <= 14 for line in lines)
    assert [line.split("enabled")[0].rstrip() for line in lines[1:]] == ["日本", "語の", "店", "Shop"]
    assert cell_len(lines[1].partition("enabled")[0]) == cell_len(lines[4].partition("enabled")[0])
