"""Warnings, suggestions, the nearest entries and the entry to add."""

from typing import get_args

import pytest

from gatekeeper import Allowlist, Origin
from gatekeeper.matching.advice import SuggestionReason, WarningReason, entry_for


def reasons(allowlist: Allowlist) -> list[tuple[str, WarningReason]]:
    """List the entries and reasons of the warnings."""
    return [(warning.entry, warning.reason) for warning in allowlist.warnings]


# Suggestions.


@pytest.mark.parametrize(
    ("entries", "suggested", "said"),
    [
        (["www.acme.com"], "www_only", "add 'acme.com'"),
        (["https://www.acme.com"], "www_only", "'https://www.acme.com' does not allow acme.com"),
        (["acme.com"], "no_subdomains", "add 'www.acme.com', or '*.acme.com' for all"),
        (["acme.co.uk"], "no_subdomains", "'*.acme.co.uk'"),
        (["alice.github.io"], "no_subdomains", "'*.alice.github.io'"),
        (["localhost"], "default_port", "write 'localhost:*'"),
        (["abcdefghijklmnopabcdefghijklmnop"], "extension_id", "'chrome-extension://abcdefghijklmnopabcdefghijklmnop'"),
    ],
)
def test_a_forgotten_entry_is_suggested(entries: list[str], suggested: SuggestionReason, said: str) -> None:
    allowlist = Allowlist.parse(entries)
    (suggestion,) = allowlist.suggestions
    assert (suggestion.entry, suggestion.reason) == (entries[0], suggested)
    assert said in suggestion.hint
    assert allowlist.rejected == ()


@pytest.mark.parametrize(
    "entries",
    [
        [],
        ["acme.com", "*.acme.com"],
        ["acme.com", "www.acme.com"],
        ["https://www.acme.com", "https://acme.com"],
        ["shop.acme.com"],
        ["acme.com:8443"],
        ["localhost:*"],
        ["localhost:3000"],
        ["192.168.0.10", "[2001:db8::1]", "intranet", "shop.localhost", "co.uk"],
        ["capacitor://www.acme.com", "capacitor://acme.com", "capacitor://localhost"],
        ["abcdefghijklmnopabcdefghijklmnopa", "abcdefghijklmnopabcdefghijklmno", "abcdefghijklmnopabcdefghijklmnoq"],
        ["chrome-extension://abcdefghijklmnopabcdefghijklmnop"],
    ],
)
def test_complete_lists_get_no_suggestions(entries: list[str]) -> None:
    assert Allowlist.parse(entries).suggestions == ()


def test_suggestions_have_every_reason() -> None:
    suggested = Allowlist.parse(["www.acme.com", "globex.com", "localhost", "a" * 32]).suggestions
    assert [suggestion.reason for suggestion in suggested] == list(get_args(SuggestionReason))


# Warnings.


@pytest.mark.parametrize(
    ("entries", "warned"),
    [
        ([], []),
        (["acme.com", "https://acme.com:8443", "192.168.0.10"], []),
        (["*.acme.com"], [("*.acme.com", "apex_not_listed")]),
        (["*.ACME.com/"], [("*.ACME.com/", "apex_not_listed")]),
        (["*.acme.com", "acme.com"], []),
        (["acme.com", "*.acme.com"], []),
        (["https://*.acme.com", "https://acme.com"], []),
        (["https://*.acme.com", "acme.com"], []),
        (["*.acme.com", "www.acme.com"], [("*.acme.com", "apex_not_listed")]),
        (["*.acme.com", "https://acme.com"], [("*.acme.com", "apex_not_listed")]),
        (["*.acme.com:8443", "acme.com"], [("*.acme.com:8443", "apex_not_listed")]),
        (["*.eu.acme.com", "acme.com"], [("*.eu.acme.com", "apex_not_listed")]),
        (["*.zendesk.com", "zendesk.com"], [("*.zendesk.com", "shared_host")]),
        (["*.amazonaws.com", "amazonaws.com"], [("*.amazonaws.com", "shared_host")]),
        (["my-shop.zendesk.com"], []),
        (["http://acme.com"], [("http://acme.com", "http")]),
        (["http://192.168.0.10:3000"], [("http://192.168.0.10:3000", "http")]),
        (["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080", "http://shop.localhost"], []),
        (["acme.com:*"], [("acme.com:*", "any_port")]),
        (["localhost:*", "127.0.0.1:*", "[::1]:*", "shop.localhost:*"], []),
        (
            ["http://*.zendesk.com:*"],
            [("http://*.zendesk.com:*", reason) for reason in ("apex_not_listed", "shared_host", "http", "any_port")],
        ),
        (["localhost"], [("localhost", "shared_origin")]),
        (["https://localhost:443"], [("https://localhost:443", "shared_origin")]),
        (["http://localhost"], [("http://localhost", "shared_origin")]),
        (["tauri.localhost"], [("tauri.localhost", "shared_origin")]),
        (["http://tauri.localhost"], [("http://tauri.localhost", "shared_origin")]),
        (["Capacitor://Localhost/"], [("Capacitor://Localhost/", "shared_origin")]),
        (["ionic://localhost"], [("ionic://localhost", "shared_origin")]),
        (["tauri://localhost"], [("tauri://localhost", "shared_origin")]),
        (["app://localhost"], [("app://localhost", "shared_origin")]),
        (["capacitor://app.acme.com", "app://acme", "com.acme.app://localhost", "httpsionic://localhost"], []),
        (["localhost:3000", "https://localhost:8443", "shop.localhost"], []),
        (["chrome-extension://abcdefghijklmnopabcdefghijklmnop"], []),
        (["moz-extension://0a1b"], [("moz-extension://0a1b", "one_installation")]),
        (["safari-web-extension://0A1B"], [("safari-web-extension://0A1B", "one_installation")]),
        (["vscode-webview://0a1b"], [("vscode-webview://0a1b", "one_installation")]),
        (["httpss://acme.com"], [("httpss://acme.com", "misspelt_scheme")]),
        (["htps://acme.com:8443"], [("htps://acme.com:8443", "misspelt_scheme")]),
        (["chrome-extensions://abc"], [("chrome-extensions://abc", "misspelt_scheme")]),
    ],
)
def test_an_entry_that_may_surprise_its_author_gets_a_warning(
    entries: list[str], warned: list[tuple[str, WarningReason]]
) -> None:
    allowlist = Allowlist.parse(entries)
    assert reasons(allowlist) == warned
    assert len(allowlist) == len(entries)


@pytest.mark.parametrize(
    ("entries", "origin", "https_only"),
    [
        (["*.acme.com:8443", "acme.com:*"], "https://acme.com:8443", False),
        (["https://*.acme.com", "https://acme.com:*"], "https://acme.com", False),
        (["https://*.acme.com", "acme.com:*"], "https://acme.com", False),
        (["https://*.acme.com:8443", "acme.com:*"], "https://acme.com:8443", False),
        (["*.acme.com", "https://acme.com"], "https://acme.com", True),
    ],
)
def test_an_apex_that_another_entry_allows_gets_no_warning(entries: list[str], origin: str, *, https_only: bool) -> None:
    allowlist = Allowlist.parse(entries, https_only=https_only)
    assert allowlist.allows(origin)
    assert "apex_not_listed" not in {warning.reason for warning in allowlist.warnings}


@pytest.mark.parametrize(
    ("entry", "reason", "said"),
    [
        ("https://*.acme.com:8443", "apex_not_listed", ["'https://*.acme.com:8443'", "add 'https://acme.com:8443'"]),
        ("*.bücher.example", "apex_not_listed", ["'*.bücher.example'", "add 'xn--bcher-kva.example'"]),
        ("*.zendesk.com", "shared_host", ["zendesk.com", "'my-shop.zendesk.com'"]),
        ("http://acme.com", "http", ["'http://acme.com'", "use https"]),
        ("acme.com:*", "any_port", ["'acme.com:*'", "name the port"]),
        ("capacitor://localhost", "shared_origin", ["'capacitor://localhost'", "a host of its own"]),
        ("moz-extension://0A1B", "one_installation", ["'moz-extension://0A1B'", "moz-extension://."]),
        ("Htps://Acme.com:8443", "misspelt_scheme", ["'Htps://Acme.com:8443'", "write 'https://acme.com:8443'"]),
    ],
)
def test_a_warning_names_the_entry_and_says_what_to_do(entry: str, reason: WarningReason, said: list[str]) -> None:
    hints = {warning.reason: warning.hint for warning in Allowlist.parse([entry]).warnings}
    assert [part for part in said if part not in hints[reason]] == []
    assert hints[reason].endswith(".")


def test_warnings_have_every_reason() -> None:
    allowlist = Allowlist.parse(["http://*.zendesk.com:*", "app://localhost", "moz-extension://0a1b", "httpss://acme.com"])
    assert {warning.reason for warning in allowlist.warnings} == set(get_args(WarningReason))


# The nearest entries, and the entry to add.


@pytest.mark.parametrize(
    ("entries", "origin", "nearest"),
    [
        ([], "https://acme.com", ()),
        (["unlike.test"], "https://acme.com", ()),
        (["acme.com"], "https://acme.com:8443", ("acme.com",)),
        (["https://acme.com"], "http://acme.com", ("https://acme.com",)),
        (["*.Acme.com"], "https://acme.com", ("*.Acme.com",)),
        (["acme.com", "*.acme.com:8443"], "https://acme.com:81", ("acme.com", "*.acme.com:8443")),
        (["unlike.test", "acme.co", "https://acme.com:8443"], "https://acme.com", ("https://acme.com:8443", "acme.co")),
        (["x.io"], "https://a-shop-with-a-very-long-name.x.io", ("x.io",)),
        (
            ["acme.com:1", "acme.com:2", "acme.com:3", "acme.com:4"],
            "https://acme.com",
            ("acme.com:1", "acme.com:2", "acme.com:3"),
        ),
    ],
)
def test_the_nearest_entries_are_the_most_similar_ones(entries: list[str], origin: str, nearest: tuple[str, ...]) -> None:
    assert Allowlist.parse(entries).nearest(Origin.parse(origin)) == nearest


def test_nearest_returns_at_most_the_limit() -> None:
    allowlist = Allowlist.parse([f"shop-{number}.acme.com" for number in range(9)])
    assert len(allowlist.nearest(Origin.parse("https://shop-x.acme.com"), limit=5)) == 5


def test_an_entry_of_the_same_host_is_nearer_than_one_of_its_parent() -> None:
    entries = ["x.io", "https://a-shop-with-a-very-long-name.x.io:8443"]
    nearest = Allowlist.parse(entries).nearest(Origin.parse("https://a-shop-with-a-very-long-name.x.io"))
    assert nearest[0] == "https://a-shop-with-a-very-long-name.x.io:8443"


@pytest.mark.parametrize(
    ("origin", "entry"),
    [
        ("https://shop.acme.com", "shop.acme.com"),
        ("https://shop.acme.com:8443", "https://shop.acme.com:8443"),
        ("https://shop.acme.com:80", "https://shop.acme.com:80"),
        ("http://shop.acme.com", "http://shop.acme.com"),
        ("http://shop.acme.com:443", "http://shop.acme.com:443"),
        ("http://localhost:3000", "localhost:*"),
        ("https://localhost", "localhost:*"),
        ("http://shop.localhost:1", "shop.localhost:*"),
        ("http://127.0.0.1:8000", "127.0.0.1:*"),
        ("http://[::1]", "[::1]:*"),
        ("http://192.168.0.10:3000", "http://192.168.0.10:3000"),
        ("https://[2001:db8::1]", "[2001:db8::1]"),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("capacitor://app.acme.com", "capacitor://app.acme.com"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("app://localhost:3000", "app://localhost:3000"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
    ],
)
def test_the_entry_for_a_page_is_the_narrowest_that_allows_it(origin: str, entry: str) -> None:
    assert entry_for(Origin.parse(origin)) == entry
    assert Allowlist.parse([entry]).match(origin) == entry


def test_an_entry_with_a_half_similar_host_is_near() -> None:
    assert Allowlist.parse(["apex.org"]).nearest(Origin.parse("https://acme.com")) == ("apex.org",)


@pytest.mark.parametrize(
    "origin", ["ws://acme.com", "wss://acme.com", "ftp://acme.com", "file://acme.com", "null://x", "capacitor://localhost."]
)
def test_no_entry_is_suggested_for_an_origin_that_none_can_allow(origin: str) -> None:
    assert entry_for(Origin.parse(origin)) is None
    assert Allowlist.parse([origin]).rejected


def test_the_wording_of_warnings_about_apps() -> None:
    entries = ["capacitor://localhost", "moz-extension://0a1b", "htps://acme.com"]
    assert [warning.hint for warning in Allowlist.parse(entries).warnings] == [
        (
            "'capacitor://localhost' allows every app that has kept the default host of its framework: give your app a host"
            " of its own, and list that, if you can."
        ),
        "'moz-extension://0a1b' allows one installation only: each has an id of its own at moz-extension://.",
        "'htps://acme.com' allows an app with the scheme htps://: write 'https://acme.com' if you mean that.",
    ]


def test_the_wording_of_warnings() -> None:
    entry = "http://*.zendesk.com:*"
    assert [warning.hint for warning in Allowlist.parse([entry]).warnings] == [
        f"'{entry}' does not allow zendesk.com itself: add 'http://zendesk.com:*' if it should.",
        "Subdomains of zendesk.com have different owners: list your own, such as 'my-shop.zendesk.com'.",
        f"'{entry}' trusts a page that a network attacker can change: use https if you can.",
        f"'{entry}' allows pages on every port of zendesk.com: name the port if you can.",
    ]


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("localhost", "'localhost' allows ports 80 and 443 only: write 'localhost:*' for a development server."),
        ("https://localhost", "'https://localhost' allows port 443 only: write 'localhost:*' for a development server."),
        ("www.acme.com", "'www.acme.com' does not allow acme.com: add 'acme.com' if it serves your pages, too."),
        (
            "acme.com",
            "'acme.com' allows no subdomain: add 'www.acme.com', or '*.acme.com' for all, if your pages are there.",
        ),
        (
            "a" * 32,
            f"'{'a' * 32}' allows a web page: write 'chrome-extension://{'a' * 32}' if it is the id of an extension.",
        ),
    ],
)
def test_the_wording_of_suggestions(entry: str, hint: str) -> None:
    assert [suggestion.hint for suggestion in Allowlist.parse([entry]).suggestions] == [hint]
