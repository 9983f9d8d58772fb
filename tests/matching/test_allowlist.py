"""Allowlist: what entries allow, and which of them matches."""

from collections import Counter
from collections.abc import Collection
from itertools import permutations
from typing import Any, get_args

import pytest

from gatekeeper import Allowlist, InvalidEntry, Origin, RejectedEntry
from gatekeeper.errors import EntryReason
from gatekeeper.matching.allowlist import find_entry
from gatekeeper.matching.pattern import Pattern
from tests.matching.hosts import BASE_251, NAME_253

NEIGHBOURS = ("first.test", "last.test")


def rejected_alone(entry: Any, *, https_only: bool = False) -> RejectedEntry:
    """Reject an entry between two good ones, which must stay."""
    allowlist = Allowlist.parse([NEIGHBOURS[0], entry, NEIGHBOURS[1]], https_only=https_only)
    assert allowlist.patterns == NEIGHBOURS
    assert all(allowlist.match(f"https://{neighbour}") == neighbour for neighbour in NEIGHBOURS)
    (rejected,) = allowlist.rejected
    assert rejected.entry == entry
    return rejected


# What an entry allows.

MEANINGS = [
    (
        "acme.com",
        ["https://acme.com", "http://acme.com"],
        [
            "https://acme.com:8443",
            "http://acme.com:443",
            "https://acme.com:80",
            "https://www.acme.com",
            "https://evilacme.com",
            "https://acme.com.evil.test",
            "https://acme.co",
            "https://cme.com",
        ],
    ),
    (
        "*.acme.com",
        ["https://shop.acme.com", "http://shop.acme.com", "https://a.b.c.acme.com", "https://_x.acme.com"],
        [
            "https://acme.com",
            "http://acme.com",
            "https://shop.acme.com:8443",
            "https://evilacme.com",
            "https://shop.evilacme.com",
            "https://acme.com.evil.test",
            "https://shop.acme.com.evil.test",
            "https://shop.acme.co",
        ],
    ),
    (
        "https://acme.com",
        ["https://acme.com"],
        ["http://acme.com", "https://acme.com:8443", "https://acme.com:80", "http://acme.com:443", "https://a.acme.com"],
    ),
    ("http://acme.com", ["http://acme.com"], ["https://acme.com", "http://acme.com:443", "http://acme.com:8080"]),
    (
        "https://acme.com:8443",
        ["https://acme.com:8443"],
        ["https://acme.com", "http://acme.com:8443", "https://acme.com:8444", "https://shop.acme.com:8443"],
    ),
    (
        "acme.com:8443",
        ["https://acme.com:8443", "http://acme.com:8443"],
        ["https://acme.com", "http://acme.com", "https://acme.com:84431", "https://acme.com:844"],
    ),
    ("acme.com:443", ["https://acme.com", "http://acme.com:443"], ["http://acme.com", "https://acme.com:80"]),
    ("acme.com:80", ["http://acme.com", "https://acme.com:80"], ["https://acme.com", "http://acme.com:443"]),
    (
        "https://*.acme.com:8443",
        ["https://shop.acme.com:8443", "https://a.b.acme.com:8443"],
        ["https://acme.com:8443", "http://shop.acme.com:8443", "https://shop.acme.com"],
    ),
    (
        "localhost:*",
        [
            "http://localhost",
            "https://localhost",
            "http://localhost:3000",
            "https://localhost:1",
            "http://localhost:65535",
        ],
        [
            "http://localhost:3000.evil.test",
            "http://localhost:",
            "http://localhost:*",
            "http://localhost:03000",
            "http://localhost:65536",
            "http://shop.localhost:3000",
            "http://localhost.evil.test:3000",
            "http://127.0.0.1:3000",
        ],
    ),
    ("*.acme.com:*", ["https://shop.acme.com", "http://a.b.acme.com:8080"], ["https://acme.com", "https://acme.com:8080"]),
    ("https://acme.com:*", ["https://acme.com", "https://acme.com:80"], ["http://acme.com", "http://acme.com:443"]),
    ("*.localhost", ["http://shop.localhost", "https://a.b.localhost"], ["http://localhost", "http://shop.localhost:3000"]),
    ("intranet", ["http://intranet", "https://intranet"], ["http://intranet.evil.test", "http://x.intranet"]),
    ("com", ["https://com"], ["https://acme.com"]),
    ("co.uk", ["https://co.uk"], ["https://acme.co.uk"]),
    ("*.alice.github.io", ["https://x.alice.github.io"], ["https://alice.github.io", "https://bob.github.io"]),
    (
        "192.168.0.10:3000",
        ["http://192.168.0.10:3000", "https://192.168.0.10:3000"],
        ["http://192.168.0.10", "http://192.168.0.100:3000", "http://192.168.0.1:3000", "http://x.192.168.0.10:3000"],
    ),
    (
        "[::1]:*",
        ["http://[::1]", "https://[::1]:8443"],
        ["http://[::2]", "http://[::ffff:0:1]", "http://[0:0:0:0:0:0:0:1]", "http://localhost"],
    ),
    ("[2001:db8::1]", ["https://[2001:db8::1]"], ["https://[2001:db8::1]:8443", "https://[2001:db8::10]"]),
    (
        "capacitor://app.acme.com",
        ["capacitor://app.acme.com"],
        [
            "https://app.acme.com",
            "http://app.acme.com",
            "ionic://app.acme.com",
            "capacitor+x://app.acme.com",
            "capacitor://acme.com",
            "capacitor://x.app.acme.com",
            "capacitor://app.acme.com.evil.test",
            "capacitor://app.acme.com.",
            "capacitor://app.acme.com:443",
            "capacitor://app.acme.com:8443",
            "capacitor://App.acme.com",
            "Capacitor://app.acme.com",
            "capacitor://app.acme.com/",
            "capacitor://user@app.acme.com",
            "capacitor:app.acme.com",
            "null",
        ],
    ),
    (
        "app://localhost:3000",
        ["app://localhost:3000"],
        [
            "app://localhost",
            "app://localhost:3001",
            "app://localhost:30000",
            "http://localhost:3000",
            "apps://localhost:3000",
        ],
    ),
    (
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        ["chrome-extension://abcdefghijklmnopabcdefghijklmnop"],
        [
            "chrome-extension://ponmlkjihgfedcbaponmlkjihgfedcba",
            "chrome-extension://abcdefghijklmnopabcdefghijklmno",
            "chrome-extension://ABCDEFGHIJKLMNOPABCDEFGHIJKLMNOP",
            "moz-extension://abcdefghijklmnopabcdefghijklmnop",
            "https://abcdefghijklmnopabcdefghijklmnop",
        ],
    ),
]


@pytest.mark.parametrize(("entry", "allowed", "refused"), MEANINGS, ids=[entry for entry, _, _ in MEANINGS])
def test_an_entry_allows_these_origins_and_no_others(entry: str, allowed: list[str], refused: list[str]) -> None:
    allowlist = Allowlist.parse([entry])
    assert allowlist.patterns == (entry,)
    assert [origin for origin in allowed if not allowlist.allows(origin)] == []
    assert [origin for origin in refused if allowlist.allows(origin)] == []
    assert {allowlist.match(origin) for origin in allowed} == {entry}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "acme.com",
        "https://acme.com/",
        "https://acme.com:443",
        "HTTPS://acme.com",
        "https://ACME.com",
        "https://acme.com.",
        "https://user@acme.com",
        " https://acme.com",
        "https://acme.com\n",
        "ws://acme.com",
        "https://\u0430cme.com",
        "https://acme.com\ud800",
    ],
)
def test_text_that_is_not_a_serialised_origin_is_refused(text: str) -> None:
    allowlist = Allowlist.parse(["acme.com", "*.com.acme.com", "acme.com:*"])
    assert allowlist.allows("https://acme.com")
    assert not allowlist.allows(text)
    assert allowlist.match(text) is None


def test_an_origin_may_be_given_parsed() -> None:
    allowlist = Allowlist.parse(["acme.com"])
    assert allowlist.allows(Origin.parse("https://acme.com"))
    assert not allowlist.allows(Origin.parse("https://acme.com:8443"))


@pytest.mark.parametrize("entries", [[], ["", "*", "null"]])
def test_a_list_without_valid_entries_is_empty_and_allows_nothing(entries: list[str]) -> None:
    allowlist = Allowlist.parse(entries)
    assert len(allowlist) == 0
    assert not allowlist
    assert allowlist.patterns == ()
    assert not allowlist.allows("https://acme.com")
    assert len(allowlist.rejected) == len(entries)


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        (" acme.com\t", "https://acme.com"),
        ("HTTPS://Acme.Com:443/", "https://acme.com"),
        ("*.bücher.example", "https://shop.xn--bcher-kva.example"),
        ("\uff11\uff19\uff12.168.0.10", "http://192.168.0.10"),
        ("[0:0::1]:*", "http://[::1]:3000"),
    ],
    ids=ascii,
)
def test_a_matched_entry_is_given_as_written(written: str, origin: str) -> None:
    assert Allowlist.parse([written]).match(origin) == written


# Bad entries, one for each reason.

REJECTED: dict[EntryReason, Any] = {
    "not_text": 7,
    "empty": "",
    "null": "null",
    "any_origin": "*",
    "scheme": "ftp://acme.com",
    "path": "acme.com/shop",
    "query": "acme.com?shop=1",
    "fragment": "acme.com#top",
    "userinfo": "user@acme.com",
    "backslash": "acme.com\\",
    "comma": "acme.com,shop.test",
    "space": "acme .com",
    "wildcard": "acme.*",
    "wildcard_ip": "*.127.0.0.1",
    "wildcard_public_suffix": "*.co.uk",
    "wildcard_single_label": "*.com",
    "host": "shop..acme.com",
    "idna": "xn--a.example",
    "ipv4": "127.1",
    "ipv6": "[::1",
    "trailing_dot": "acme.com.",
    "port": "acme.com:0",
    "too_long": "a" * 1025,
}


@pytest.mark.parametrize(("reason", "entry"), REJECTED.items(), ids=REJECTED)
def test_a_bad_entry_is_rejected_and_the_others_stay(reason: EntryReason, entry: Any) -> None:
    rejected = rejected_alone(entry)
    with pytest.raises(InvalidEntry) as refused:
        Pattern.parse(entry)
    assert rejected.reason == refused.value.reason == reason
    assert rejected.hint == refused.value.hint


def test_the_table_has_every_reason_that_one_entry_can_have() -> None:
    assert set(REJECTED) | {"http_refused", "too_many"} == set(get_args(EntryReason))


def test_https_only_rejects_an_http_entry_and_the_others_stay() -> None:
    assert rejected_alone("http://acme.com", https_only=True).reason == "http_refused"


# Lengths of hosts.


def test_a_host_of_253_characters_matches_exactly_and_by_wildcard() -> None:
    assert Allowlist.parse([NAME_253, f"x{NAME_253}"]).patterns == (NAME_253,)
    assert Allowlist.parse([NAME_253]).allows(f"https://{NAME_253}")
    assert Allowlist.parse([f"https://{NAME_253}:65535"]).allows(f"https://{NAME_253}:65535")
    below = Allowlist.parse([f"*.{BASE_251}"])
    assert len(f"a.{BASE_251}") == 253
    assert below.allows(f"https://a.{BASE_251}")
    assert not below.allows(f"https://{BASE_251}")


def test_the_deepest_subdomain_is_allowed_by_a_short_wildcard() -> None:
    host = "a." * 122 + "acme.com"
    assert len(host) == 252
    assert Allowlist.parse(["*.acme.com"]).match(f"https://{host}") == "*.acme.com"
    assert not Allowlist.parse(["*.acme.org", "*.cme.com"]).allows(f"https://{host}")


# Lists of several entries.


@pytest.mark.parametrize(
    "entries", list(permutations(["foo.com", "bar.com"])) + list(permutations(["*.foo.com", "bar.com"]))
)
def test_two_entries_do_not_allow_a_concatenation_of_them(entries: tuple[str, str]) -> None:
    """GHSA-vhxv-fg4m-p2w8: a tree of suffixes let barfoo.com in."""
    allowlist = Allowlist.parse(entries)
    assert allowlist.allows("https://bar.com")
    for host in ("barfoo.com", "foobar.com", "bar.comfoo.com", "oo.com", "ar.com", "com", "x.barfoo.com", "bar.com.foo"):
        assert not allowlist.allows(f"https://{host}"), host


def test_each_of_a_hundred_entries_allows_its_own_hosts_only() -> None:
    entries = [f"shop-{number}.test" for number in range(50)] + [f"*.brand-{number}.test" for number in range(50)]
    for order in (entries, entries[::-1]):
        allowlist = Allowlist.parse(order)
        assert len(allowlist) == 100
        assert allowlist.rejected == ()
        for number in range(50):
            assert allowlist.match(f"https://shop-{number}.test") == f"shop-{number}.test"
            assert allowlist.match(f"https://a.brand-{number}.test") == f"*.brand-{number}.test"
            assert allowlist.match(f"https://brand-{number}.test") is None
            assert allowlist.match(f"https://a.shop-{number}.test") is None
        assert allowlist.match("https://shop-50.test") is None


def test_entries_beyond_the_hundredth_are_rejected_with_their_number() -> None:
    allowlist = Allowlist.parse([f"shop-{number}.test" for number in range(1, 103)])
    assert allowlist.patterns == tuple(f"shop-{number}.test" for number in range(1, 101))
    assert [(rejected.entry, rejected.reason) for rejected in allowlist.rejected] == [
        ("shop-101.test", "too_many"),
        ("shop-102.test", "too_many"),
    ]
    assert "at most 100 entries" in allowlist.rejected[0].hint
    assert "entry 101" in allowlist.rejected[0].hint
    assert "entry 102" in allowlist.rejected[1].hint


def test_bad_and_duplicate_entries_count_towards_the_hundred() -> None:
    allowlist = Allowlist.parse([""] * 50 + ["acme.com"] * 49 + ["hundredth.test", "beyond.test"])
    assert allowlist.patterns == ("acme.com", "hundredth.test")
    assert Counter(rejected.reason for rejected in allowlist.rejected) == {"empty": 50, "too_many": 1}


@pytest.mark.parametrize(
    "entry", ["localhost:*", "*.localhost:*", "localhost", "acme.com", "*.acme.com:*", "app.acme.com:80"]
)
def test_an_entry_for_web_pages_allows_no_app_or_extension(entry: str) -> None:
    allowlist = Allowlist.parse([entry])
    for scheme in ("capacitor", "ionic", "tauri", "app", "chrome-extension", "ws", "wss", "ftp", "https+x"):
        for host in ("localhost", "app.localhost", "acme.com", "app.acme.com"):
            for port in ("", ":80", ":443"):
                assert not allowlist.allows(f"{scheme}://{host}{port}")


def test_an_app_is_found_among_a_hundred_entries_in_any_case() -> None:
    """Safari shows the id of an extension in upper case, and sends it in lower case."""
    shown = "safari-web-extension://DCEA6524-AB56-4469-895F-D4F4E84F139E"
    allowlist = Allowlist.parse([*(f"capacitor://app-{number}.test" for number in range(99)), shown])
    assert (len(allowlist), allowlist.rejected, allowlist.bases) == (100, (), ())
    assert allowlist.match(shown.lower()) == shown
    assert allowlist.match("capacitor://app-98.test") == "capacitor://app-98.test"
    assert allowlist.match("capacitor://app-99.test") is None


@pytest.mark.parametrize(
    "alike",
    [
        ("acme.com", "ACME.com/"),
        (" acme.com", "acme.com"),
        ("https://acme.com:443", "https://acme.com"),
        ("capacitor://App.acme.com/", "CAPACITOR://app.acme.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("[::1]:*", "[0:0::1]:*"),
    ],
)
def test_the_first_of_two_equivalent_entries_is_kept(alike: tuple[str, str]) -> None:
    for first, second in (alike, alike[::-1]):
        allowlist = Allowlist.parse([first, second])
        assert len(allowlist) == 1
        assert allowlist.rejected == ()
        page = allowlist.patterns[0].replace("*.", "shop.").replace(":*", ":3000")
        assert allowlist.match(page if "://" in page else f"https://{page}") == first


def test_patterns_keep_the_order_of_the_entries() -> None:
    assert Allowlist.parse(["z.test", "", "*.a.test", "https://m.test/"]).patterns == (
        "z.test",
        "*.a.test",
        "https://m.test",
    )


def test_entries_may_be_any_iterable() -> None:
    assert Allowlist.parse(f"{name}.test" for name in "ab").patterns == ("a.test", "b.test")
    assert Allowlist.parse({"a.test": 1}).patterns == ("a.test",)


def test_a_single_string_is_a_type_error_that_shows_the_list_to_write() -> None:
    with pytest.raises(TypeError, match=r"write \['acme\.com'\]"):
        Allowlist.parse("acme.com")


def test_bases_are_the_hosts_of_the_wildcards() -> None:
    allowlist = Allowlist.parse(["acme.com", "*.acme.com", "https://*.acme.com:8443", "*.shop.test:*", "*.co.uk"])
    assert sorted(allowlist.bases) == ["acme.com", "shop.test"]


# Which of several matching entries is returned.

PRECEDENCE = [
    pytest.param(["*.acme.com", "shop.acme.com"], "https://shop.acme.com", "shop.acme.com", id="exact before wildcard"),
    pytest.param(["*.acme.com", "shop.acme.com:*"], "https://shop.acme.com", "shop.acme.com:*", id="exact, any port, too"),
    pytest.param(["*.acme.com", "*.eu.acme.com"], "https://a.eu.acme.com", "*.eu.acme.com", id="the narrowest wildcard"),
    pytest.param(["acme.com:*", "acme.com:8443"], "https://acme.com:8443", "acme.com:8443", id="a port before any port"),
    pytest.param(["acme.com:*", "acme.com"], "https://acme.com", "acme.com", id="the default port before any port"),
    pytest.param(["acme.com:443", "acme.com"], "https://acme.com", "acme.com", id="the default port before its number"),
    pytest.param(["*.acme.com:*", "*.acme.com:81"], "http://a.acme.com:81", "*.acme.com:81", id="below wildcards too"),
    pytest.param(
        ["*.acme.com", "https://*.eu.acme.com"], "http://a.eu.acme.com", "*.acme.com", id="a narrower one that does not fit"
    ),
    pytest.param(
        ["*.acme.com:*", "*.eu.acme.com:1"], "http://a.eu.acme.com", "*.acme.com:*", id="a narrower one of another port"
    ),
    pytest.param(["shop.acme.com:1", "*.acme.com"], "https://shop.acme.com", "*.acme.com", id="an exact one that does not"),
]


@pytest.mark.parametrize(("entries", "origin", "matched"), PRECEDENCE)
def test_the_most_specific_entry_matches_in_any_order(entries: list[str], origin: str, matched: str) -> None:
    for order in permutations(entries):
        assert Allowlist.parse(order).match(origin) == matched


def test_find_entry_returns_the_value_of_the_entry() -> None:
    entries = {"acme.com": 1, "https://acme.com": 2, "*.acme.com": 3, "*.eu.acme.com:*": 4}

    def found(origin: str, bases: Collection[str] = ("acme.com", "eu.acme.com")) -> int | None:
        return find_entry(Origin.parse(origin), entries, bases, (11, 8))

    assert found("https://acme.com") == 1
    assert found("https://shop.acme.com") == 3
    assert found("https://a.eu.acme.com") == 4
    assert found("https://eu.acme.com") == 3
    assert found("https://eu.acme.com:8443") is None
    assert found("https://shop.acme.com", bases=()) is None
    assert found("https://acme.org") is None


# Only https.


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("acme.com", ["https://acme.com"], ["http://acme.com"]),
        ("*.acme.com", ["https://shop.acme.com"], ["http://shop.acme.com"]),
        ("acme.com:*", ["https://acme.com:8443", "https://acme.com:80"], ["http://acme.com", "http://acme.com:8443"]),
        ("192.168.0.10:*", ["https://192.168.0.10"], ["http://192.168.0.10"]),
        ("localhost:*", ["http://localhost:3000", "https://localhost"], []),
        ("*.localhost", ["http://shop.localhost"], ["http://localhost"]),
        ("127.0.0.1", ["http://127.0.0.1", "https://127.0.0.1"], []),
        ("[::1]:3000", ["http://[::1]:3000"], []),
        ("http://localhost", ["http://localhost"], ["https://localhost"]),
        ("http://127.0.0.1:8000", ["http://127.0.0.1:8000"], []),
        ("http://*.localhost:*", ["http://a.b.localhost:1"], []),
        ("capacitor://app.acme.com", ["capacitor://app.acme.com"], ["http://app.acme.com", "https://app.acme.com"]),
        ("chrome-extension://abcdefghijklmnop", ["chrome-extension://abcdefghijklmnop"], []),
    ],
)
def test_https_only_refuses_http_pages_except_on_loopback_names(entry: str, allowed: list[str], refused: list[str]) -> None:
    allowlist = Allowlist.parse([entry], https_only=True)
    assert allowlist.rejected == ()
    assert allowlist.https_only is True
    assert [origin for origin in allowed if not allowlist.allows(origin)] == []
    assert [origin for origin in refused if allowlist.allows(origin)] == []


def test_https_only_is_off_by_default() -> None:
    assert Allowlist.parse(["acme.com"]).https_only is False


def test_patterns_rejected_entries_and_warnings_are_hashable() -> None:
    first, second = (Allowlist.parse(["*.acme.com", ""]) for _ in range(2))
    assert len({Pattern.parse("acme.com"), Pattern.parse("ACME.com")}) == 1
    assert len({*first.rejected, *second.rejected}) == 1
    assert len({*first.warnings, *second.warnings}) == 1


def test_the_wording_for_too_many_entries_and_for_a_single_string() -> None:
    (rejected,) = Allowlist.parse([f"a{number}.test" for number in range(101)]).rejected
    assert rejected.hint == "A key has at most 100 entries; this is entry 101."
    with pytest.raises(TypeError) as refused:
        Allowlist.parse("acme.com")
    assert str(refused.value) == "Allowlist.parse takes several entries, not one string: write ['acme.com']"


def test_up_to_four_bases_are_a_tuple_and_more_are_a_set() -> None:
    entries = [f"*.shop-{number}.test" for number in range(5)]
    assert isinstance(Allowlist.parse(entries[:4]).bases, tuple)
    assert isinstance(Allowlist.parse(entries).bases, frozenset)


def test_patterns_and_advice_are_immutable() -> None:
    allowlist = Allowlist.parse(["acme.com", "*.shop.test", "*"])
    said = (*allowlist.suggestions, *allowlist.warnings, *allowlist.rejected, Pattern.parse("acme.com"))
    assert len(said) == 4
    for each in said:
        for field in each.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(each, field, "evil.test")


def test_an_entry_in_normal_form_is_kept_once() -> None:
    entry = "https://acme.com"
    (pattern,) = Allowlist.parse([entry]).patterns
    assert pattern is entry
