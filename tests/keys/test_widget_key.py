"""WidgetKey: a row of the hub's list."""

import pytest

from gatekeeper import WidgetKey


def test_widget_keys_are_hashable() -> None:
    assert len({WidgetKey("wk_1", None, "UVwXyZ-_", ()), WidgetKey("wk_1", None, "UVwXyZ-_", ())}) == 1


@pytest.mark.parametrize("disabled_at", ["2026-11-01T00:00:00Z", "", False, 0, [], {}], ids=repr)
def test_any_value_of_disabled_at_disables_a_key(disabled_at: object) -> None:
    assert WidgetKey("wk_1", None, "UVwXyZ-_", (), disabled_at=disabled_at).disabled
    assert not WidgetKey("wk_1", None, "UVwXyZ-_", ()).disabled
