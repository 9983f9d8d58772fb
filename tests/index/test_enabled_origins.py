"""EnabledOrigins: the origins that any enabled key allows."""

from collections.abc import Callable
from typing import Any

import pytest

from gatekeeper import Origin
from gatekeeper.index.enabled_origins import EnabledOrigins
from tests.support.indexes import FIRST, OTHER, SECOND, THIRD, apply, compiled, index_of, known_as, row
from tests.support.interleaving import at_each_step, interrupted_at_each_step


def test_an_origin_is_allowed_if_any_enabled_key_allows_it() -> None:
    origins = index_of(
        row("a", FIRST, "acme.com", "*"),
        row("b", SECOND, "*.shop.test"),
        row("c", OTHER, "revoked.test", disabled_at=False),
        row("d", THIRD, ""),
    ).enabled_origins()
    allowed = ["https://acme.com", "http://acme.com", "https://a.shop.test"]
    refused = ["https://shop.test", "https://a.acme.com", "https://revoked.test", "https://unlike.test"]
    assert [origin for origin in allowed if not origins.allows(Origin.parse(origin))] == []
    assert [origin for origin in refused if origins.allows(Origin.parse(origin))] == []


@pytest.mark.parametrize("https_only", [False, True])
def test_an_app_is_allowed_while_an_enabled_key_lists_it(*, https_only: bool) -> None:
    index = index_of(row("a", FIRST, "App://My.App/", "localhost:*"), row("b", SECOND), https_only=https_only)
    origins = index.enabled_origins()
    app = Origin.parse("app://my.app")
    assert origins.allows(app)
    assert not any(origins.allows(Origin.parse(other)) for other in ("app://my.app:1", "apps://my.app", "app://localhost"))
    apply(index, [row("a", FIRST, "App://My.App/", disabled_at="2026"), row("b", SECOND)])
    assert not origins.allows(app)
    apply(index, [row("b", SECOND, "app://my.app")])
    assert origins.allows(app)


def test_an_origin_is_allowed_until_the_last_key_for_it_is_removed() -> None:
    index = index_of(row("a", FIRST, "acme.com", "*.acme.com"), row("b", OTHER, "ACME.com", "*.acme.com:443"))
    origins = index.enabled_origins()
    apex, below = Origin.parse("https://acme.com"), Origin.parse("https://a.acme.com")
    assert (origins.allows(apex), origins.allows(below)) == (True, True)
    apply(index, [row("b", OTHER, "ACME.com", "*.acme.com:443")])
    assert (origins.allows(apex), origins.allows(below)) == (True, True)
    apply(index, [row("b", OTHER, "*.acme.com:443", "*.other.test")])
    assert (origins.allows(apex), origins.allows(below)) == (False, True)
    apply(index, [row("b", OTHER, "*.acme.com:443", disabled_at="2026")])
    assert (origins.allows(apex), origins.allows(below)) == (False, False)
    apply(index, [row("b", OTHER, "acme.com")])
    assert (origins.allows(apex), origins.allows(below)) == (True, False)
    assert index.enabled_origins() is origins


def test_https_only_refuses_pages_over_http() -> None:
    index = index_of(row("a", FIRST, "acme.com", "localhost:*"), https_only=True)
    origins = index.enabled_origins()
    assert origins.allows(Origin.parse("https://acme.com"))
    assert not origins.allows(Origin.parse("http://acme.com"))
    assert origins.allows(Origin.parse("http://localhost:3000"))


def test_an_origin_is_allowed_until_each_key_added_for_it_is_removed() -> None:
    origins = EnabledOrigins(https_only=False)
    key = compiled(row("a", FIRST, "*.acme.com", "*.shop.test"))
    page = Origin.parse("https://a.shop.test")
    allowed = []
    for change in (origins.add, origins.add, origins.remove, origins.remove, origins.add):
        change(key)
        allowed.append(origins.allows(page))
    assert allowed == [True, True, True, False, True]


def test_a_disabled_key_adds_and_removes_nothing() -> None:
    origins = EnabledOrigins(https_only=False)
    enabled, disabled = (compiled(row("a", FIRST, "acme.com", disabled_at=value)) for value in (None, ""))
    page = Origin.parse("https://acme.com")
    origins.add(disabled)
    assert not origins.allows(page)
    origins.add(enabled)
    origins.remove(disabled)
    assert origins.allows(page)


def test_an_indexed_key_cannot_be_changed() -> None:
    known: Any = known_as(index_of(row("a")), "a")
    assert known is not None
    with pytest.raises(AttributeError):
        known.widget_key = row("b")


def test_an_origin_stays_allowed_while_another_thread_replaces_its_key() -> None:
    """Strict preflights in another event loop ask while a list is applied, also for hosts of lengths that come and go."""
    kept = ("acme.com", "*.acme.com")
    pages = [Origin.parse(page) for page in ("https://acme.com", "https://a.acme.com")]
    lists = [
        [row("a", FIRST, *kept, "*.a.test"), row("b", OTHER, "*.long.b.test")],
        [row("a", FIRST, *kept, "*.short.a.test")],
    ]

    def prepare() -> tuple[Callable[[], bool], Callable[[], object]]:
        index = index_of(*lists[0])
        origins = index.enabled_origins()
        return lambda: all(map(origins.allows, pages)), lambda: apply(index, lists[1])

    assert set(interrupted_at_each_step(prepare)) == {True}
    index = index_of(*lists[0])
    origins, outcomes = index.enabled_origins(), set[bool]()
    at_each_step(lambda: apply(index, lists[1]), lambda: outcomes.update(map(origins.allows, pages)))
    assert outcomes == {True}
