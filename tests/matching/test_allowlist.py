"""Pattern, Allowlist: every form that an entry may have, and every one that it may not."""

from collections import Counter
from collections.abc import Collection
from itertools import permutations
from typing import Any, get_args

import pytest

from gatekeeper import Allowlist, InvalidEntry, Origin, RejectedEntry
from gatekeeper.errors import EntryReason
from gatekeeper.matching.advice import SuggestionReason, WarningReason, entry_for
from gatekeeper.matching.allowlist import find_entry
from gatekeeper.matching.pattern import Pattern

LABEL_63 = "a" * 63
NAME_253 = ".".join([LABEL_63, LABEL_63, LABEL_63, "b" * 61])
BASE_251 = NAME_253[2:]
NEIGHBOURS = ("first.test", "last.test")


def rejected_alone(entry: str, *, https_only: bool = False) -> RejectedEntry:
    """Reject an entry that stands between two good ones, which live."""
    allowlist = Allowlist.parse([NEIGHBOURS[0], entry, NEIGHBOURS[1]], https_only=https_only)
    assert allowlist.patterns == NEIGHBOURS
    assert all(allowlist.match(f"https://{neighbour}") == neighbour for neighbour in NEIGHBOURS)
    (rejected,) = allowlist.rejected
    assert rejected.entry == entry
    return rejected


def reasons(allowlist: Allowlist) -> list[tuple[str, WarningReason]]:
    """List what an allowlist warns of."""
    return [(warning.entry, warning.reason) for warning in allowlist.warnings]


# What an entry means: the table of the design.

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
]


@pytest.mark.parametrize(("entry", "allowed", "refused"), MEANINGS, ids=[entry for entry, _, _ in MEANINGS])
def test_an_entry_allows_what_the_design_says_and_nothing_else(entry: str, allowed: list[str], refused: list[str]) -> None:
    allowlist = Allowlist.parse([entry])
    assert allowlist.patterns == (entry,)
    assert [origin for origin in allowed if not allowlist.allows(origin)] == []
    assert [origin for origin in refused if allowlist.allows(origin)] == []
    assert {allowlist.match(origin) for origin in allowed} == {entry}


@pytest.mark.parametrize(
    ("entry", "meaning"),
    [
        ("acme.com", "acme.com, https and http, the default port"),
        ("https://acme.com", "acme.com, https only, the default port"),
        ("http://acme.com:8080", "acme.com, http only, port 8080"),
        ("localhost:*", "localhost, https and http, any port"),
        ("*.acme.com", "every subdomain of acme.com (not acme.com itself), https and http, the default port"),
        ("https://*.acme.com:*", "every subdomain of acme.com (not acme.com itself), https only, any port"),
    ],
)
def test_a_pattern_says_in_words_what_it_allows(entry: str, meaning: str) -> None:
    assert Pattern.parse(entry).meaning == meaning


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
def test_text_that_is_no_serialised_origin_is_not_allowed(text: str) -> None:
    allowlist = Allowlist.parse(["acme.com", "*.com.acme.com", "acme.com:*"])
    assert allowlist.allows("https://acme.com")
    assert not allowlist.allows(text)
    assert allowlist.match(text) is None


def test_an_origin_and_its_text_are_asked_alike() -> None:
    allowlist = Allowlist.parse(["acme.com"])
    assert allowlist.allows(Origin.parse("https://acme.com"))
    assert not allowlist.allows(Origin.parse("https://acme.com:8443"))


@pytest.mark.parametrize("entries", [[], ["", "*", "null"]])
def test_a_list_without_a_good_entry_is_empty_and_allows_nothing(entries: list[str]) -> None:
    allowlist = Allowlist.parse(entries)
    assert len(allowlist) == 0
    assert not allowlist
    assert allowlist.patterns == ()
    assert not allowlist.allows("https://acme.com")
    assert len(allowlist.rejected) == len(entries)


# What is normalised.

NORMALISED = [
    ("  acme.com", "acme.com"),
    ("acme.com \t", "acme.com"),
    ("\tacme.com", "acme.com"),
    ("ACME.com", "acme.com"),
    ("HTTPS://Acme.Com", "https://acme.com"),
    ("*.ACME.COM:8443", "*.acme.com:8443"),
    ("LocalHost:*", "localhost:*"),
    ("acme.com/", "acme.com"),
    ("https://acme.com/", "https://acme.com"),
    ("https://acme.com:8443/", "https://acme.com:8443"),
    ("localhost:*/", "localhost:*"),
    (" HTTPS://ACME.COM/ ", "https://acme.com"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("bu\u0308cher.example", "xn--bcher-kva.example"),
    ("*.bücher.example", "*.xn--bcher-kva.example"),
    ("https://bücher.example:8443/", "https://xn--bcher-kva.example:8443"),
    ("faß.example", "xn--fa-hia.example"),
    ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ("\u2603.net", "xn--n3h.net"),
    ("*.i\u2764.ws", "*.xn--i-7iq.ws"),
    ("_bücher.example", "xn--_bcher-4ya.example"),
    ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", "xn--mgba3gch31f060k.com"),
    ("shop.\u05d0\u05d1.example", "shop.xn--4dbc.example"),
    ("bücher_x.example", "xn--bcher_x-n2a.example"),
    ("xn--bcher_x-n2a.example", "xn--bcher_x-n2a.example"),
    ("XN--N3H.net", "xn--n3h.net"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("XN--Bcher-KVA.example", "xn--bcher-kva.example"),
    ("\uff41cme.com", "acme.com"),
    ("acme\u3002com", "acme.com"),
    ("\uff11\uff19\uff12.168.0.10", "192.168.0.10"),
    ("https://acme.com:443", "https://acme.com"),
    ("http://acme.com:80", "http://acme.com"),
    ("https://*.acme.com:443", "https://*.acme.com"),
    ("https://acme.com:80", "https://acme.com:80"),
    ("http://acme.com:443", "http://acme.com:443"),
    ("acme.com:443", "acme.com:443"),
    ("acme.com:80", "acme.com:80"),
    ("[0:0:0:0:0:0:0:1]", "[::1]"),
    ("[2001:0DB8:0000::0001]:8443", "[2001:db8::1]:8443"),
    ("[1:0:0:2:0:0:0:3]", "[1:0:0:2::3]"),
    ("[::1.2.3.4]", "[::102:304]"),
    (" " * 1016 + "acme.com", "acme.com"),
]


@pytest.mark.parametrize(
    ("written", "normal"), NORMALISED, ids=[ascii(written.strip(" ")) + normal for written, normal in NORMALISED]
)
def test_an_entry_is_normalised_and_matched_entries_are_given_as_written(written: str, normal: str) -> None:
    allowlist = Allowlist.parse([written])
    assert allowlist.patterns == (normal,)
    assert allowlist.rejected == ()
    page = normal.replace("*.", "shop.").replace(":*", ":3000")
    assert allowlist.match(page if "://" in page else f"https://{page}".removesuffix(":443")) == written


@pytest.mark.parametrize("entry", ["null/", "Null/ ", "\uff4eull"])
def test_an_entry_that_is_null_once_normalised_is_rejected_too(entry: str) -> None:
    allowlist = Allowlist.parse([entry, "acme.com"])
    assert allowlist.warnings == ()
    assert [(rejected.entry, rejected.reason) for rejected in allowlist.rejected] == [(entry, "null")]


# What is rejected: the reason, and what the hint has to contain.

REJECTED: list[tuple[str, EntryReason, list[str]]] = [
    ("", "empty", ["such as 'acme.com'", "delete it"]),
    (" ", "empty", ["such as 'acme.com'"]),
    (" \t ", "empty", ["such as 'acme.com'"]),
    ("null", "null", ["'null'", "write the page's domain"]),
    ("NULL", "null", ["'null'", "write the page's domain"]),
    (" Null\t", "null", ["'null'", "write the page's domain"]),
    ("*", "any_origin", ["'*'", "'*.acme.com'"]),
    ("*/", "any_origin", ["'*'", "'*.acme.com'"]),
    ("*:*", "any_origin", ["'*'", "'*.acme.com'"]),
    ("*:443", "any_origin", ["'*'", "'*.acme.com'"]),
    ("https://*", "any_origin", ["'*'", "'*.acme.com'"]),
    ("file:///home/me/page.html", "scheme", ["'file:///home/me/page.html'", "'file://'", "https:// or http://"]),
    ("ws://acme.com", "scheme", ["'ws://'", "https:// or http://"]),
    ("wss://acme.com", "scheme", ["'wss://'", "https:// or http://"]),
    ("ftp://acme.com", "scheme", ["'ftp://'", "https:// or http://"]),
    ("chrome-extension://abcdefgh", "scheme", ["'chrome-extension://'"]),
    ("*://acme.com", "scheme", ["'*://'"]),
    ("http*://acme.com", "scheme", ["'http*://'"]),
    ("://acme.com", "scheme", ["'://acme.com'"]),
    ("acme.com/shop", "path", ["'acme.com/shop'", "write 'acme.com'"]),
    ("https://acme.com/shop/", "path", ["'acme.com/shop'", "write 'acme.com'"]),
    ("https://acme.com:8443/shop", "path", ["write 'acme.com:8443'"]),
    ("*.acme.com/shop", "path", ["write '*.acme.com'"]),
    ("localhost:*/shop", "path", ["write 'localhost:*'"]),
    ("acme.com/*", "path", ["'acme.com/*'", "write 'acme.com'"]),
    ("acme.com//", "path", ["'acme.com/'", "write 'acme.com'"]),
    ("acme.com/#top", "path", ["write 'acme.com'"]),
    ("//acme.com", "path", ["'//acme.com'", "write 'acme.com'"]),
    ("https://https://acme.com", "path", ["'https://acme.com'", "write 'acme.com'"]),
    ("acme.com?shop=1", "query", ["'acme.com?shop=1'", "write 'acme.com'"]),
    ("acme.com?shop#top", "query", ["write 'acme.com'"]),
    ("https://*.acme.com?", "query", ["write '*.acme.com'"]),
    ("acme.com#top", "fragment", ["'acme.com#top'", "write 'acme.com'"]),
    ("acme.com#top/x?y", "fragment", ["write 'acme.com'"]),
    ("user@acme.com", "userinfo", ["'user@acme.com'", "write 'acme.com'"]),
    ("https://user:password@acme.com", "userinfo", ["write 'acme.com'"]),
    ("acme.com@evil.test", "userinfo", ["'acme.com@evil.test'", "write 'evil.test'"]),
    ("a@b@acme.com", "userinfo", ["write 'acme.com'"]),
    ("acme.com\\", "backslash", ["has a backslash", "such as 'acme.com'"]),
    ("https:\\\\acme.com", "backslash", ["has a backslash"]),
    ("evil.test\\@acme.com", "backslash", ["has a backslash"]),
    ("acme.com,shop.test", "comma", ["'acme.com,shop.test'", "one entry for every domain"]),
    ("acme.com, shop.test", "comma", ["one entry for every domain"]),
    ("acme.com,", "comma", ["'acme.com,'", "one entry for every domain"]),
    ("acme .com", "space", ["'acme .com'", "delete it"]),
    ("acme.com shop.test", "space", ["'acme.com shop.test'", "delete it"]),
    ("https:// acme.com", "space", ["delete it"]),
    ("acme.com\n", "space", ["'acme.com\\n'", "delete it"]),
    ("ac\tme.com", "space", ["'ac\\tme.com'", "delete it"]),
    ("acme.com\x00", "space", ["'acme.com\\x00'", "delete it"]),
    ("\u00a0acme.com", "space", ["\\xa0", "delete it"]),
    ("ac\u200bme.com", "space", ["\\u200b", "delete it"]),
    ("ac\u00admme.com", "space", ["\\xad", "delete it"]),
    ("\ufeffacme.com", "space", ["\\ufeff", "delete it"]),
    ("\u202emoc.emca", "space", ["\\u202e", "delete it"]),
    ("\ud800.com", "space", ["\\ud800", "delete it"]),
    ("**", "wildcard", ["'**'", "'*.acme.com'"]),
    ("*acme.com", "wildcard", ["'*acme.com'", "'*.acme.com'"]),
    ("*shop.acme.com", "wildcard", ["'*shop.acme.com'"]),
    ("sho*.acme.com", "wildcard", ["'sho*.acme.com'"]),
    ("**.acme.com", "wildcard", ["'**.acme.com'"]),
    ("*.*.acme.com", "wildcard", ["'*.*.acme.com'"]),
    ("shop.*.com", "wildcard", ["'shop.*.com'"]),
    ("acme.*", "wildcard", ["'acme.*'"]),
    ("acme.com*", "wildcard", ["'acme.com*'"]),
    (".*.acme.com", "wildcard", ["'.*.acme.com'"]),
    ("*.127.0.0.1", "wildcard_ip", ["no subdomains", "write '127.0.0.1'"]),
    ("https://*.192.168.0.10:8443", "wildcard_ip", ["write '192.168.0.10'"]),
    ("*.co.uk", "wildcard_public_suffix", ["co.uk", "'my-shop.co.uk'"]),
    ("*.github.io", "wildcard_public_suffix", ["github.io", "'my-shop.github.io'"]),
    ("*.vercel.app", "wildcard_public_suffix", ["'my-shop.vercel.app'"]),
    ("https://*.vercel.app:8443", "wildcard_public_suffix", ["'my-shop.vercel.app'"]),
    ("*.kobe.jp", "wildcard_public_suffix", ["'my-shop.kobe.jp'"]),
    ("*.shop.kobe.jp", "wildcard_public_suffix", ["'my-shop.shop.kobe.jp'"]),
    ("*.公司.cn", "wildcard_public_suffix", ["'my-shop.xn--55qx5d.cn'"]),
    ("*.com", "wildcard_single_label", ["'*.com'", "'*.acme.com'"]),
    ("*.intranet", "wildcard_single_label", ["'*.intranet'", "'*.acme.intranet'"]),
    ("*.null", "wildcard_single_label", ["'*.null'", "'*.acme.null'"]),
    ("*.рф", "wildcard_single_label", ["'*.xn--p1ai'", "'*.acme.xn--p1ai'"]),
    ("https://", "host", ["no host", "such as 'acme.com'"]),
    ("/", "host", ["no host", "such as 'acme.com'"]),
    (":8443", "host", ["no host", "such as 'acme.com'"]),
    ("*.", "host", ["no host", "such as 'acme.com'"]),
    (".acme.com", "host", ["'.acme.com'", "single dots"]),
    ("shop..acme.com", "host", ["'shop..acme.com'", "single dots"]),
    ("*..acme.com", "host", ["'.acme.com'", "single dots"]),
    ("-acme.com", "host", ["'-acme.com'", "not beginning or ending with '-'"]),
    ("acme-.com", "host", ["'acme-.com'", "not beginning or ending with '-'"]),
    ("shop.-acme.com", "host", ["'shop.-acme.com'"]),
    ("acme!.com", "host", ["'acme!.com'", "letters, digits, '-' or '_'"]),
    ("acme%2ecom", "host", ["'acme%2ecom'"]),
    ("acme.com;", "host", ["'acme.com;'"]),
    ("(acme|shop).com", "host", ["'(acme|shop).com'"]),
    ("'acme.com'", "host", ["\"'acme.com'\""]),
    ("\uff0a.acme.com", "host", ["'*.acme.com'"]),
    ("\u2100.com", "host", ["'a/c.com'"]),
    (f"a{LABEL_63}.com", "host", ["labels of 1 to 63"]),
    (f"c{NAME_253}", "host", ["at most 253 characters", "254"]),
    (f"*.a{BASE_251}", "host", ["at most 251 characters"]),
    ("é" * 254, "host", ["at most 253 characters", "254"]),
    ("xn--a.example", "idna", ["'xn--a.example'", "check its spelling"]),
    ("xn--.example", "idna", ["'xn--.example'", "check its spelling"]),
    ("xn--acme-.com", "idna", ["'xn--acme-.com'", "check its spelling"]),
    ("*.xn--a.example", "idna", ["'xn--a.example'", "check its spelling"]),
    ("xn--cafe-dma.example", "idna", ["'xn--cafe-dma.example'", "check its spelling"]),
    ("xn--bücher.example", "idna", ["'xn--bücher.example'", "check its spelling"]),
    ("\u0301a.example", "idna", ["check its spelling"]),
    ("\u0661a.example", "idna", ["check its spelling"]),
    ("1.\u05d0.example", "idna", ["check its spelling"]),
    ("\u05d0a.example", "idna", ["right-to-left label"]),
    ("\u0627a.example", "idna", ["right-to-left label"]),
    ("a\u0661.example", "idna", ["left-to-right label"]),
    ("xn---kva.example", "idna", ["'xn---kva' is not Punycode"]),
    ("xn--xn---epa.example", "idna", ["'xn--xn---epa' is not Punycode"]),
    ("xn--x-sy8h.example", "idna", ["'xn--x-sy8h' stands for a spelling that browsers map to another"]),
    ("b\u00fc\u200dcher.example", "idna", ["'b\\xfc\\u200dcher.example'"]),
    ("ac\u200dme.com", "idna", ["\\u200d", "check its spelling"]),
    ("ac\u200cme.com", "idna", ["\\u200c", "check its spelling"]),
    ("é" * 64 + ".example", "host", ["labels of 1 to 63"]),
    ("127.1", "ipv4", ["'127.1'", "such as '192.168.0.10'"]),
    ("0x7f.1", "ipv4", ["'0x7f.1'", "such as '192.168.0.10'"]),
    ("2130706433", "ipv4", ["'2130706433'", "such as '192.168.0.10'"]),
    ("127.0.0.01", "ipv4", ["'127.0.0.01'"]),
    ("192.168.0.256", "ipv4", ["'192.168.0.256'"]),
    ("192.168.0.10.5", "ipv4", ["'192.168.0.10.5'"]),
    ("acme.1", "ipv4", ["'acme.1'"]),
    ("*.127.1", "ipv4", ["'127.1'"]),
    ("[fe80::1%eth0]", "ipv6", ["'[fe80::1%eth0]'", "'[2001:db8::1]'"]),
    ("[fe80::1%25eth0]:8080", "ipv6", ["'[fe80::1%25eth0]'", "'[2001:db8::1]'"]),
    ("[::ffff:1.2.3.4]", "ipv6", ["'[::ffff:1.2.3.4]'", "'[2001:db8::1]'"]),
    ("[::ffff:102:304]", "ipv6", ["'[::ffff:102:304]'", "'[2001:db8::1]'"]),
    ("[0:0:0:0:0:FFFF:102:304]", "ipv6", ["'[0:0:0:0:0:FFFF:102:304]'"]),
    ("[::1", "ipv6", ["'[::1'", "'[2001:db8::1]'"]),
    ("[]", "ipv6", ["'[]'", "'[2001:db8::1]'"]),
    ("[acme.com]", "ipv6", ["'[acme.com]'", "'[2001:db8::1]'"]),
    ("[1::2::3]", "ipv6", ["'[1::2::3]'"]),
    ("::1", "ipv6", ["'::1'", "in brackets", "'[::1]:8080'"]),
    ("2001:db8::1", "ipv6", ["'2001:db8::1'", "in brackets"]),
    ("*.[::1]", "wildcard_ip", ["no subdomains", "write '[::1]'"]),
    ("acme.com.", "trailing_dot", ["'acme.com.'", "write 'acme.com'"]),
    ("https://acme.com.:8443", "trailing_dot", ["'acme.com.'", "write 'acme.com'"]),
    ("*.acme.com.", "trailing_dot", ["'*.acme.com.'", "write '*.acme.com'"]),
    ("192.168.0.10.", "trailing_dot", ["write '192.168.0.10'"]),
    ("acme.com:0", "port", ["':0'", "1 to 65535", "':*'"]),
    ("acme.com:65536", "port", ["':65536'", "1 to 65535"]),
    ("acme.com:99999999999999999999", "port", ["1 to 65535"]),
    ("acme.com:08443", "port", ["':08443'", "1 to 65535"]),
    ("acme.com:", "port", ["':'", "1 to 65535"]),
    ("acme.com:http", "port", ["':http'", "1 to 65535"]),
    ("acme.com:-1", "port", ["':-1'"]),
    ("acme.com:**", "port", ["':**'"]),
    ("acme.com:8*", "port", ["':8*'"]),
    ("acme.com:*.evil.test", "port", ["':*.evil.test'"]),
    ("acme.com:٣", "port", ["1 to 65535"]),
    ("https:acme.com", "port", ["':acme.com'"]),
    ("javascript:alert(1)", "port", ["':alert(1)'"]),
    ("[::1]:", "port", ["':'", "1 to 65535"]),
    ("[::1]8443", "port", ["'8443'", "1 to 65535"]),
    ("[::1]:0", "port", ["':0'", "1 to 65535"]),
    (" " * 1025, "too_long", ["at most 1024 characters", "1025"]),
    ("a" * 1025, "too_long", ["at most 1024 characters", "1025"]),
    ("a" * 100_000, "too_long", ["at most 1024 characters", "100000"]),
]


REJECTED_IDS = [f"{reason}-{entry.strip(' ')[:40]!a}-{len(entry)}" for entry, reason, _ in REJECTED]


@pytest.mark.parametrize(("entry", "reason", "said"), REJECTED, ids=REJECTED_IDS)
def test_a_bad_entry_is_rejected_with_a_reason_and_a_hint_and_its_neighbours_live(
    entry: str, reason: EntryReason, said: list[str]
) -> None:
    rejected = rejected_alone(entry)
    assert rejected.reason == reason
    assert [part for part in said if part not in rejected.hint] == []
    with pytest.raises(InvalidEntry) as refused:
        Pattern.parse(entry)
    assert (refused.value.reason, refused.value.hint) == (rejected.reason, rejected.hint)


@pytest.mark.parametrize("entry", [entry for entry, _, _ in REJECTED], ids=REJECTED_IDS)
def test_a_hint_is_a_short_sentence_that_people_can_read(entry: str) -> None:
    hint = rejected_alone(entry).hint
    assert hint.isprintable()
    assert hint.endswith(".")
    assert len(hint) < 300
    assert "write ''" not in hint


@pytest.mark.parametrize(
    ("entry", "shown"),
    [("a" * 79 + ",", "a" * 79 + ","), ("a" * 80 + ",", "a" * 80 + "…"), ("a" * 1000 + ",", "a" * 80 + "…")],
    ids=["80 characters", "81 characters", "1001 characters"],
)
def test_a_hint_shows_the_first_80_characters_of_a_long_entry(entry: str, shown: str) -> None:
    assert rejected_alone(entry).hint.startswith(f"'{shown}' has a comma")


@pytest.mark.parametrize("entry", [".", "..", "*..", "https://."])
def test_the_hint_for_a_host_of_dots_does_not_tell_to_write_nothing(entry: str) -> None:
    assert "write ''" not in rejected_alone(entry).hint


@pytest.mark.parametrize(
    ("entry", "name"), [(None, "NoneType"), (7, "int"), (b"acme.com", "bytes"), (["acme.com"], "list"), ({}, "dict")]
)
def test_an_entry_that_is_no_text_is_rejected(entry: object, name: str) -> None:
    allowlist = Allowlist.parse(["first.test", entry, "last.test"])  # type: ignore[list-item]  # no text, as JSON may have it
    (rejected,) = allowlist.rejected
    assert (rejected.entry, rejected.reason) == (entry, "not_text")
    assert name in rejected.hint
    assert "such as 'acme.com'" in rejected.hint
    assert allowlist.patterns == NEIGHBOURS


def test_the_tables_show_every_reason() -> None:
    elsewhere: set[EntryReason] = {"not_text", "http_refused", "too_many"}
    assert {reason for _, reason, _ in REJECTED} | elsewhere == set(get_args(EntryReason))


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("[::ffff:1]", id="an IPv4-compatible address"),
        pytest.param("[::ffff:0:1:2]", id="an IPv4-translated address"),
        pytest.param("[::ffff:0:0:1]", id="an IPv4-translated address with zeros"),
    ],
)
def test_an_address_that_only_looks_ipv4_mapped_is_accepted(address: str) -> None:
    allowlist = Allowlist.parse([address])
    assert allowlist.patterns == (address,)
    assert allowlist.allows(f"http://{address}")


@pytest.mark.parametrize("label", ["xn--a.", "\u0301a."])
def test_the_length_of_a_host_is_checked_before_idna_sees_it(label: str) -> None:
    assert rejected_alone(label + "example").reason == "idna"
    assert rejected_alone(label * 100 + "example").reason == "host"
    assert rejected_alone(label * 400 + "example").reason == "too_long"


def test_an_entry_of_1024_characters_is_not_too_long() -> None:
    assert Allowlist.parse([" " * 1016 + "acme.com"]).allows("https://acme.com")
    assert rejected_alone("a" * 1024).reason == "host"


# Lengths of hosts.


def test_a_host_of_253_characters_is_allowed_as_itself_and_below_a_wildcard() -> None:
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
def test_two_entries_allow_no_host_that_is_glued_from_them(entries: tuple[str, str]) -> None:
    """GHSA-vhxv-fg4m-p2w8: a tree of suffixes let barfoo.com in."""
    allowlist = Allowlist.parse(entries)
    assert allowlist.allows("https://bar.com")
    for host in ("barfoo.com", "foobar.com", "bar.comfoo.com", "oo.com", "ar.com", "com", "x.barfoo.com", "bar.com.foo"):
        assert not allowlist.allows(f"https://{host}"), host


def test_every_one_of_a_hundred_entries_counts_and_no_other_host_does() -> None:
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


def test_entries_beyond_the_hundredth_are_rejected_by_number() -> None:
    allowlist = Allowlist.parse([f"shop-{number}.test" for number in range(1, 103)])
    assert allowlist.patterns == tuple(f"shop-{number}.test" for number in range(1, 101))
    assert [(rejected.entry, rejected.reason) for rejected in allowlist.rejected] == [
        ("shop-101.test", "too_many"),
        ("shop-102.test", "too_many"),
    ]
    assert "at most 100 entries" in allowlist.rejected[0].hint
    assert "entry 101" in allowlist.rejected[0].hint
    assert "entry 102" in allowlist.rejected[1].hint


def test_bad_and_repeated_entries_count_among_the_hundred() -> None:
    allowlist = Allowlist.parse([""] * 50 + ["acme.com"] * 49 + ["hundredth.test", "beyond.test"])
    assert allowlist.patterns == ("acme.com", "hundredth.test")
    assert Counter(rejected.reason for rejected in allowlist.rejected) == {"empty": 50, "too_many": 1}


@pytest.mark.parametrize(
    "alike",
    [
        ("acme.com", "ACME.com/"),
        (" acme.com", "acme.com"),
        ("https://acme.com:443", "https://acme.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("[::1]:*", "[0:0::1]:*"),
    ],
)
def test_of_two_entries_with_one_meaning_the_first_stands_for_both(alike: tuple[str, str]) -> None:
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


def test_any_iterable_of_entries_is_taken() -> None:
    assert Allowlist.parse(f"{name}.test" for name in "ab").patterns == ("a.test", "b.test")
    assert Allowlist.parse({"a.test": 1}).patterns == ("a.test",)


def test_one_string_in_place_of_several_is_a_type_error_that_shows_the_list() -> None:
    with pytest.raises(TypeError, match=r"write \['acme\.com'\]"):
        Allowlist.parse("acme.com")


def test_bases_are_the_hosts_of_the_wildcards() -> None:
    allowlist = Allowlist.parse(["acme.com", "*.acme.com", "https://*.acme.com:8443", "*.shop.test:*", "*.co.uk"])
    assert sorted(allowlist.bases) == ["acme.com", "shop.test"]


# Which of several fitting entries is named.

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
def test_the_entry_that_fits_best_is_named_whatever_the_order(entries: list[str], origin: str, matched: str) -> None:
    for order in permutations(entries):
        assert Allowlist.parse(order).match(origin) == matched


def test_find_entry_gives_whatever_stands_for_the_entry() -> None:
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
    ],
)
def test_with_https_only_no_page_over_http_is_allowed_but_on_loopback_names(
    entry: str, allowed: list[str], refused: list[str]
) -> None:
    allowlist = Allowlist.parse([entry], https_only=True)
    assert allowlist.rejected == ()
    assert allowlist.https_only is True
    assert [origin for origin in allowed if not allowlist.allows(origin)] == []
    assert [origin for origin in refused if allowlist.allows(origin)] == []


@pytest.mark.parametrize(
    ("entry", "mended"),
    [
        ("http://acme.com", "https://acme.com"),
        ("HTTP://acme.com/", "https://acme.com"),
        ("http://*.acme.com", "https://*.acme.com"),
        ("http://acme.com:*", "https://acme.com:*"),
        ("http://192.168.0.10:8080", "https://192.168.0.10:8080"),
        ("http://localhost.acme.com", "https://localhost.acme.com"),
        ("http://acme.com:80", "https://acme.com"),
    ],
)
def test_with_https_only_an_entry_for_http_is_refused_and_the_one_for_https_named(entry: str, mended: str) -> None:
    rejected = rejected_alone(entry, https_only=True)
    assert rejected.reason == "http_refused"
    assert f"'{mended}'" in rejected.hint
    assert Allowlist.parse([mended], https_only=True).rejected == ()
    assert Allowlist.parse([entry]).rejected == ()


def test_https_only_is_off_unless_asked_for() -> None:
    assert Allowlist.parse(["acme.com"]).https_only is False


def test_patterns_rejected_entries_and_warnings_are_values() -> None:
    first, second = (Allowlist.parse(["*.acme.com", ""]) for _ in range(2))
    assert len({Pattern.parse("acme.com"), Pattern.parse("ACME.com")}) == 1
    assert len({*first.rejected, *second.rejected}) == 1
    assert len({*first.warnings, *second.warnings}) == 1


# What people forget.


@pytest.mark.parametrize(
    ("entries", "suggested", "said"),
    [
        (["www.acme.com"], "www_only", "add 'acme.com'"),
        (["https://www.acme.com"], "www_only", "'https://www.acme.com' does not allow acme.com"),
        (["acme.com"], "no_subdomains", "add 'www.acme.com', or '*.acme.com' for all"),
        (["acme.co.uk"], "no_subdomains", "'*.acme.co.uk'"),
        (["alice.github.io"], "no_subdomains", "'*.alice.github.io'"),
        (["localhost"], "default_port", "write 'localhost:*'"),
    ],
)
def test_what_people_forget_is_suggested_with_the_entry_to_add(
    entries: list[str], suggested: SuggestionReason, said: str
) -> None:
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
    ],
)
def test_nothing_is_suggested_where_nothing_seems_forgotten(entries: list[str]) -> None:
    assert Allowlist.parse(entries).suggestions == ()


def test_the_suggestions_have_every_reason_that_there_is() -> None:
    suggested = Allowlist.parse(["www.acme.com", "globex.com", "localhost"]).suggestions
    assert [suggestion.reason for suggestion in suggested] == list(get_args(SuggestionReason))


# What is warned of.


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
    ],
)
def test_entries_that_may_not_do_what_their_writer_expects_are_warned_of(
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
def test_an_apex_that_another_entry_allows_is_not_missed(entries: list[str], origin: str, *, https_only: bool) -> None:
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
    ],
)
def test_a_warning_names_the_entry_and_says_what_to_do(entry: str, reason: WarningReason, said: list[str]) -> None:
    hints = {warning.reason: warning.hint for warning in Allowlist.parse([entry]).warnings}
    assert [part for part in said if part not in hints[reason]] == []
    assert hints[reason].endswith(".")


def test_the_table_of_warnings_shows_every_reason() -> None:
    allowlist = Allowlist.parse(["http://*.zendesk.com:*"])
    assert {warning.reason for warning in allowlist.warnings} == set(get_args(WarningReason))


# What a refusal can say.


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
def test_the_entries_that_look_most_like_a_refused_origin_are_found(
    entries: list[str], origin: str, nearest: tuple[str, ...]
) -> None:
    assert Allowlist.parse(entries).nearest(Origin.parse(origin)) == nearest


def test_at_most_as_many_entries_as_asked_for_are_near() -> None:
    allowlist = Allowlist.parse([f"shop-{number}.acme.com" for number in range(9)])
    assert len(allowlist.nearest(Origin.parse("https://shop-x.acme.com"), limit=5)) == 5


def test_an_entry_of_the_very_host_is_nearer_than_one_of_its_parent() -> None:
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
    ],
)
def test_the_entry_to_write_for_a_page_is_the_narrowest_that_allows_it(origin: str, entry: str) -> None:
    assert entry_for(Origin.parse(origin)) == entry
    assert Allowlist.parse([entry]).match(origin) == entry


# Every sentence, as people read it.


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("", "The entry is empty: write a domain such as 'acme.com', or delete it."),
        (
            "null",
            "'null' is what every sandboxed iframe and local file sends: it cannot be allowed; write the page's domain.",
        ),
        ("*", "'*' would allow every page there is: write the domains that may use the key, such as '*.acme.com'."),
        ("ftp://acme.com", "'ftp://acme.com' begins with 'ftp://': pages are at https:// or http:// only."),
        ("acme.com/shop", "'acme.com/shop' has a path, and a page's origin has none: write 'acme.com'."),
        ("/shop", "'/shop' has a path, and a page's origin has none: write 'acme.com'."),
        ("acme.com?shop=1", "'acme.com?shop=1' has a query, and a page's origin has none: write 'acme.com'."),
        ("acme.com#top", "'acme.com#top' has a fragment, and a page's origin has none: write 'acme.com'."),
        ("user@shop.test", "'user@shop.test' has a user name: write 'shop.test'."),
        ("user@", "'user@' has a user name: write 'acme.com'."),
        ("shop.test\\", "'shop.test\\\\' has a backslash: write a domain such as 'acme.com'."),
        ("acme.com,shop.test", "'acme.com,shop.test' has a comma: write one entry for every domain."),
        ("acme .com", "'acme .com' has a space or an invisible character in it: delete it."),
        (
            "acme.*",
            "'acme.*' has a '*' that is not a whole label at its beginning: write it as in '*.acme.com'.",
        ),
        ("*.127.0.0.1", "An IP address has no subdomains: write '127.0.0.1'."),
        ("*.co.uk", "Anybody can get a subdomain of co.uk: write your own, such as 'my-shop.co.uk'."),
        (
            "*.com",
            "'*.com' would allow everybody's domains under .com: write your own, such as '*.acme.com'.",
        ),
        ("https://", "The entry has no host: write a domain such as 'acme.com'."),
        (
            "-acme.com",
            (
                "'-acme.com' is not a domain: labels of 1 to 63 letters, digits, '-' or '_', not beginning or ending with"
                " '-', with single dots between them, 253 characters at most."
            ),
        ),
        ("c" * 254, "A domain has at most 253 characters; this one has 254."),
        (f"*.a{BASE_251}", "No subdomain fits: after '*.' a domain has at most 251 characters."),
        ("127.1", "'127.1' is not an IPv4 address: write four numbers from 0 to 255, such as '192.168.0.10'."),
        (
            "[::1",
            "'[::1' is not an IPv6 address, without a zone and not IPv4-mapped: write it as in '[2001:db8::1]'.",
        ),
        ("::1", "'::1' has several colons: write an IPv6 address in brackets, such as '[::1]:8080'."),
        ("shop.test.", "'shop.test.' ends with a dot, which browsers take for another site: write 'shop.test'."),
        ("ACMEX.", "'ACMEX.' ends with a dot, which browsers take for another site: write 'ACMEX'."),
        ("X.", "'X.' ends with a dot, which browsers take for another site: write 'X'."),
        ("*.X..", "'*.X..' ends with a dot, which browsers take for another site: write '*.X'."),
        ("*...", "'*...' ends with a dot, which browsers take for another site: write 'acme.com'."),
        ("acme.com:0", "':0' is not a port: write ':' and a number from 1 to 65535, or ':*' for any port."),
        ("a" * 1025, "An entry has at most 1024 characters; this one has 1025."),
        (
            "ac\u200dme.com",
            (
                "'ac\\u200dme.com' is not an internationalised domain that browsers can visit (a joiner stands where"
                " none may, in 'ac\\u200dme'): check its spelling."
            ),
        ),
        (
            "xn--acme-.com",
            (
                "'xn--acme-.com' is not an internationalised domain that browsers can visit ('xn--acme-' is not Punycode):"
                " check its spelling."
            ),
        ),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_a_rejected_entry_is_explained_in_these_words(entry: str, hint: str) -> None:
    assert rejected_alone(entry).hint == hint


def test_an_entry_that_is_no_text_or_too_many_or_not_https_is_explained_in_these_words() -> None:
    not_text: list[Any] = [7]
    (rejected,) = Allowlist.parse(not_text).rejected
    assert rejected.hint == "An entry is text such as 'acme.com', not int."
    (rejected,) = Allowlist.parse([f"a{number}.test" for number in range(101)]).rejected
    assert rejected.hint == "A key has at most 100 entries; this is entry 101."
    (rejected,) = Allowlist.parse(["http://acme.com"], https_only=True).rejected
    assert rejected.hint == "Only https pages are allowed here, not 'http://acme.com': write 'https://acme.com'."
    with pytest.raises(TypeError) as refused:
        Allowlist.parse("acme.com")
    assert str(refused.value) == "Allowlist.parse takes several entries, not one string: write ['acme.com']"


def test_warnings_are_in_these_words() -> None:
    entry = "http://*.zendesk.com:*"
    assert [warning.hint for warning in Allowlist.parse([entry]).warnings] == [
        f"'{entry}' does not allow zendesk.com itself: add 'http://zendesk.com:*' if it should.",
        "Strangers can have subdomains of zendesk.com: list your own, such as 'my-shop.zendesk.com'.",
        f"'{entry}' trusts a page that anybody on its network path can change: use https if you can.",
        f"'{entry}' allows whatever runs on any port of zendesk.com: name the port if you can.",
    ]


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("localhost", "'localhost' allows the ports 80 and 443 only: write 'localhost:*' for a development server."),
        ("www.acme.com", "'www.acme.com' does not allow acme.com: add 'acme.com' if visitors come there, too."),
        (
            "acme.com",
            "'acme.com' allows no subdomain: add 'www.acme.com', or '*.acme.com' for all, if your pages are there.",
        ),
    ],
)
def test_suggestions_are_in_these_words(entry: str, hint: str) -> None:
    assert [suggestion.hint for suggestion in Allowlist.parse([entry]).suggestions] == [hint]


def test_up_to_four_bases_take_the_little_room_of_a_tuple_and_more_are_looked_up_in_a_set() -> None:
    entries = [f"*.shop-{number}.test" for number in range(5)]
    assert isinstance(Allowlist.parse(entries[:4]).bases, tuple)
    assert isinstance(Allowlist.parse(entries).bases, frozenset)


def test_what_is_said_of_an_entry_cannot_be_changed() -> None:
    allowlist = Allowlist.parse(["acme.com", "*.shop.test", "*"])
    said = (*allowlist.suggestions, *allowlist.warnings, *allowlist.rejected, Pattern.parse("acme.com"))
    assert len(said) == 4
    for each in said:
        for field in each.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(each, field, "evil.test")


def test_an_entry_that_is_normal_already_is_not_kept_twice() -> None:
    entry = "https://acme.com"
    (pattern,) = Allowlist.parse([entry]).patterns
    assert pattern is entry


def test_an_entry_that_is_half_alike_is_near() -> None:
    assert Allowlist.parse(["apex.org"]).nearest(Origin.parse("https://acme.com")) == ("apex.org",)
