"""Pattern: valid and invalid entries."""

from typing import Any, get_args

import pytest

from gatekeeper import InvalidEntry
from gatekeeper.errors import EntryReason
from gatekeeper.matching.pattern import Pattern, compile_entry
from tests.matching.hosts import BASE_251, LABEL_63, NAME_253


def refused(entry: str, *, https_only: bool = False) -> InvalidEntry:
    """Return the error that refuses an entry."""
    with pytest.raises(InvalidEntry) as refusal:
        Pattern.parse(entry, https_only=https_only)
    return refusal.value


@pytest.mark.parametrize(
    ("entry", "meaning"),
    [
        ("acme.com", "acme.com, https and http, the default port"),
        ("https://acme.com", "acme.com, https only, the default port"),
        ("http://acme.com:8080", "acme.com, http only, port 8080"),
        ("localhost:*", "localhost, https and http, any port"),
        ("*.acme.com", "every subdomain of acme.com (not acme.com itself), https and http, the default port"),
        ("https://*.acme.com:*", "every subdomain of acme.com (not acme.com itself), https only, any port"),
        ("capacitor://app.acme.com", "the app or extension at capacitor://app.acme.com, exactly"),
        ("App://Localhost:3000/", "the app or extension at app://localhost:3000, exactly"),
    ],
)
def test_the_meaning_of_a_pattern_in_words(entry: str, meaning: str) -> None:
    assert Pattern.parse(entry).meaning == meaning


# Normal forms.


@pytest.mark.parametrize(
    ("entry", "normal", "base"),
    [
        ("acme.com", "acme.com", None),
        ("localhost:*", "localhost:*", None),
        ("*.acme.com", "*.acme.com", "acme.com"),
        ("*.acme.com:*", "*.acme.com:*", "acme.com"),
        ("https://*.ACME.com:443/", "https://*.acme.com", "acme.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("127.0.0.1:3000", "127.0.0.1:3000", None),
        ("capacitor://app.acme.com", "capacitor://app.acme.com", None),
    ],
)
def test_an_entry_is_compiled_to_its_normal_form(entry: str, normal: str, base: str | None) -> None:
    assert compile_entry(entry) == (normal, base)
    assert str(Pattern.parse(entry)) == normal


@pytest.mark.parametrize("entry", ["*.com", "*.co.uk", "*.github.io:*", "*", "acme.com/path", "http://acme.com"])
def test_an_entry_that_is_no_pattern_is_not_compiled(entry: str) -> None:
    refusal = refused(entry, https_only=True)
    with pytest.raises(InvalidEntry) as refused_too:
        compile_entry(entry, https_only=True)
    assert str(refused_too.value) == str(refusal)


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
    ("*.bücher.example", "*.xn--bcher-kva.example"),
    ("https://bücher.example:8443/", "https://xn--bcher-kva.example:8443"),
    ("*.i\u2764.ws", "*.xn--i-7iq.ws"),
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
    ("Capacitor://App.Acme.com/", "capacitor://app.acme.com"),
    (" ionic://localhost\t", "ionic://localhost"),
    ("chrome-extension://ABCDEFGHIJKLMNOPabcdefghijklmnop", "chrome-extension://abcdefghijklmnopabcdefghijklmnop"),
    (
        "safari-web-extension://140BB581-A2C0-422A-9DD3-6982A5ABEE5E/",
        "safari-web-extension://140bb581-a2c0-422a-9dd3-6982a5abee5e",
    ),
    ("capacitor://[0:0::1]:80", "capacitor://[::1]:80"),
]


@pytest.mark.parametrize(
    ("written", "normal"), NORMALISED, ids=[ascii(written.strip(" ")) + normal for written, normal in NORMALISED]
)
def test_an_entry_is_normalised(written: str, normal: str) -> None:
    assert str(Pattern.parse(written)) == normal


@pytest.mark.parametrize("entry", ["null/", "Null/ ", "\uff4eull"])
def test_an_entry_that_is_normalised_to_null_is_refused(entry: str) -> None:
    assert refused(entry).reason == "null"


# Refused entries: the reason, and parts of the hint.

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
    ("file:///home/me/page.html", "scheme", ["'file:'", "'null'", "such as 'acme.com'"]),
    ("file://", "scheme", ["'file:'"]),
    ("FILE://localhost/page.html", "scheme", ["'file:'"]),
    ("data:text/html,x", "scheme", ["'data:'"]),
    ("blob:https://acme.com/0a1b", "scheme", ["'blob:'"]),
    ("about:blank", "scheme", ["'about:'"]),
    ("about://blank", "scheme", ["'about:'"]),
    ("javascript:alert(1)", "scheme", ["'javascript:'", "such as 'acme.com'"]),
    ("null://x", "scheme", ["'null:'"]),
    ("ws://acme.com", "scheme", ["'ws://acme.com'", "write 'http://acme.com'"]),
    ("WSS://Acme.com:8443/chat", "scheme", ["write 'https://Acme.com:8443'"]),
    ("wss://", "scheme", ["write 'https://acme.com'"]),
    ("ftp://acme.com/", "scheme", ["'ftp://acme.com/'", "write 'https://acme.com'"]),
    ("*://acme.com", "scheme", ["'*://'", "such as 'capacitor://'"]),
    ("http*://acme.com", "scheme", ["'http*://'"]),
    ("://acme.com", "scheme", ["'://acme.com'"]),
    ("cap_acitor://localhost", "scheme", ["'cap_acitor://'"]),
    ("9app://localhost", "scheme", ["'9app://'"]),
    ("\u0430pp://localhost", "scheme", ["'\u0430pp://'"]),
    ("acme.com/?to=app://localhost", "scheme", ["'acme.com/?to=app://'"]),
    ("capacitor://", "host", ["no host"]),
    ("capacitor:///", "host", ["no host"]),
    ("http+unix://", "host", ["no host"]),
    ("capacitor://app..acme.com", "host", ["'app..acme.com'"]),
    ("capacitor://app!acme", "host", ["'app!acme'"]),
    ("capacitor://b\u00fccher.example", "host", ["'capacitor://b\u00fccher.example'", "not ASCII", "write the Origin"]),
    ("capacitor://*", "wildcard", ["'capacitor://*'", "exactly"]),
    ("chrome-extension://*", "wildcard", ["'chrome-extension://*'", "exactly"]),
    ("capacitor://*.acme.com", "wildcard", ["'capacitor://*.acme.com'", "exactly"]),
    ("capacitor://localhost:*", "wildcard", ["'capacitor://localhost:*'", "exactly"]),
    ("capacitor://localhost/*", "wildcard", ["exactly"]),
    ("capacitor://localhost/index.html", "path", ["write 'capacitor://localhost'"]),
    ("capacitor:///index.html", "path", ["write 'capacitor://acme.com'"]),
    ("capacitor://https://acme.com", "path", ["write 'capacitor://acme.com'"]),
    ("capacitor://localhost?q", "query", ["write 'capacitor://localhost'"]),
    ("capacitor://localhost#top", "fragment", ["write 'capacitor://localhost'"]),
    ("capacitor://user@localhost", "userinfo", ["write 'capacitor://localhost'"]),
    ("capacitor://localhost.", "trailing_dot", ["'capacitor://localhost.'", "write 'capacitor://localhost'"]),
    ("capacitor://localhost:0", "port", ["':0'", "1 to 65535."]),
    ("capacitor://localhost:", "port", ["':'", "1 to 65535."]),
    ("capacitor://127.1", "ipv4", ["'127.1'"]),
    ("capacitor://[::ffff:1.2.3.4]", "ipv6", ["'[::ffff:1.2.3.4]'"]),
    ("capacitor://xn--a.example", "idna", ["'xn--a.example'"]),
    (f"safari-web-extension://{NAME_253}", "too_long", ["at most 267 characters", "276"]),
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
    ("acme.com,shop.test", "comma", ["'acme.com,shop.test'", "one entry for each domain"]),
    ("acme.com, shop.test", "comma", ["one entry for each domain"]),
    ("acme.com,", "comma", ["'acme.com,'", "one entry for each domain"]),
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
    ("xn--acme-.com", "idna", ["'xn--acme-.com'", "check its spelling"]),
    ("*.xn--a.example", "idna", ["'xn--a.example'", "check its spelling"]),
    ("xn--bücher.example", "idna", ["'xn--bücher.example'", "check its spelling"]),
    ("b\u00fc\u200dcher.example", "idna", ["'b\\xfc\\u200dcher.example'"]),
    ("ac\u200dme.com", "idna", ["\\u200d", "check its spelling"]),
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
    ("[::1]:", "port", ["':'", "1 to 65535"]),
    ("[::1]8443", "port", ["'8443'", "1 to 65535"]),
    ("[::1]:0", "port", ["':0'", "1 to 65535"]),
    (" " * 1025, "too_long", ["at most 1024 characters", "1025"]),
    ("a" * 1025, "too_long", ["at most 1024 characters", "1025"]),
    ("a" * 100_000, "too_long", ["at most 1024 characters", "100000"]),
]


REJECTED_IDS = [f"{reason}-{entry.strip(' ')[:40]!a}-{len(entry)}" for entry, reason, _ in REJECTED]


@pytest.mark.parametrize(("entry", "reason", "said"), REJECTED, ids=REJECTED_IDS)
def test_a_bad_entry_is_refused_with_a_reason_and_a_hint(entry: str, reason: EntryReason, said: list[str]) -> None:
    refusal = refused(entry)
    assert refusal.reason == reason
    assert [part for part in said if part not in refusal.hint] == []


@pytest.mark.parametrize("entry", [entry for entry, _, _ in REJECTED], ids=REJECTED_IDS)
def test_a_hint_is_a_short_printable_sentence(entry: str) -> None:
    hint = refused(entry).hint
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
    assert refused(entry).hint.startswith(f"'{shown}' has a comma")


@pytest.mark.parametrize("entry", [".", "..", "*..", "https://."])
def test_the_hint_for_a_host_of_dots_suggests_no_empty_entry(entry: str) -> None:
    assert "write ''" not in refused(entry).hint


@pytest.mark.parametrize(
    ("entry", "name"), [(None, "NoneType"), (7, "int"), (b"acme.com", "bytes"), (["acme.com"], "list"), ({}, "dict")]
)
def test_an_entry_that_is_not_text_is_refused(entry: Any, name: str) -> None:
    refusal = refused(entry)
    assert refusal.reason == "not_text"
    assert name in refusal.hint
    assert "such as 'acme.com'" in refusal.hint


def test_the_tables_have_every_reason() -> None:
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
    assert Pattern.parse(address) == Pattern(None, address, wildcard=False, port=None)


@pytest.mark.parametrize("label", ["xn--a.", "\u0301a."])
def test_the_length_of_a_host_is_checked_before_idna(label: str) -> None:
    assert refused(label + "example").reason == "idna"
    assert refused(label * 100 + "example").reason == "host"
    assert refused(label * 400 + "example").reason == "too_long"


def test_an_entry_of_1024_characters_is_not_too_long() -> None:
    assert str(Pattern.parse(" " * 1016 + "acme.com")) == "acme.com"
    assert refused("a" * 1024).reason == "host"


@pytest.mark.parametrize("entry", ["null:8080", "data:*", "ws:8080/", "about:1", "file", "wss"])
def test_a_host_may_be_named_like_a_scheme_that_is_refused(entry: str) -> None:
    assert str(Pattern.parse(entry)) == entry.removesuffix("/")


@pytest.mark.parametrize("entry", ["capacitor://app.acme.com", "chrome-extension://abcdefghijklmnop", "app://10.0.0.1:81"])
def test_https_only_accepts_an_app_and_an_extension(entry: str) -> None:
    """Their pages come from the device, so no attacker on the network can change them."""
    assert Pattern.parse(entry, https_only=True) == Pattern.parse(entry)


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
def test_https_only_refuses_an_http_entry_and_suggests_https(entry: str, mended: str) -> None:
    refusal = refused(entry, https_only=True)
    assert refusal.reason == "http_refused"
    assert f"'{mended}'" in refusal.hint
    assert str(Pattern.parse(mended, https_only=True)) == mended
    assert str(Pattern.parse(entry)).startswith("http://")


# Wording.


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("", "The entry is empty: write a domain such as 'acme.com', or delete it."),
        (
            "null",
            "'null' cannot be allowed, because every sandboxed iframe and local file sends it: write the page's domain.",
        ),
        ("*", "'*' would allow every page on the web: write the domains that may use the key, such as '*.acme.com'."),
        (
            "file:///page.html",
            (
                "Pages at 'file:' have no origin of their own, and 'null' cannot be allowed: write the domain of a web page,"
                " such as 'acme.com'."
            ),
        ),
        ("wss://acme.com", "'wss://acme.com' is not the address of a page: write 'https://acme.com'."),
        (
            "*://acme.com",
            (
                "'*://acme.com' begins with '*://', which is no scheme: write 'https://', 'http://', or that of an app, such"
                " as 'capacitor://'."
            ),
        ),
        (
            "capacitor://*",
            "'capacitor://*' has a '*', but an app or an extension is allowed exactly: write its Origin.",
        ),
        (
            "capacitor://\u00e9",
            "'capacitor://\u00e9' has a letter that is not ASCII: write the Origin of the app or the extension.",
        ),
        (f"safari-web-extension://{NAME_253}", "An Origin has at most 267 characters; this one has 276."),
        ("capacitor://localhost:0", "':0' is not a port: write ':' and a number from 1 to 65535."),
        ("acme.com/shop", "'acme.com/shop' has a path, which is not part of a page's origin: write 'acme.com'."),
        ("/shop", "'/shop' has a path, which is not part of a page's origin: write 'acme.com'."),
        ("acme.com?shop=1", "'acme.com?shop=1' has a query, which is not part of a page's origin: write 'acme.com'."),
        ("acme.com#top", "'acme.com#top' has a fragment, which is not part of a page's origin: write 'acme.com'."),
        ("user@shop.test", "'user@shop.test' has a user name: write 'shop.test'."),
        ("user@", "'user@' has a user name: write 'acme.com'."),
        ("shop.test\\", "'shop.test\\\\' has a backslash: write a domain such as 'acme.com'."),
        ("acme.com,shop.test", "'acme.com,shop.test' has a comma: write one entry for each domain."),
        ("acme .com", "'acme .com' has a space or an invisible character in it: delete it."),
        (
            "acme.*",
            "'acme.*' has a '*' that is not the whole first label: write it as in '*.acme.com'.",
        ),
        ("*.127.0.0.1", "An IP address has no subdomains: write '127.0.0.1'."),
        (
            "*.co.uk",
            "Subdomains of co.uk have different owners: write your own, such as 'my-shop.co.uk'.",
        ),
        (
            "*.com",
            "'*.com' would allow every domain under .com: write your own, such as '*.acme.com'.",
        ),
        ("https://", "The entry has no host: write a domain such as 'acme.com'."),
        (
            "acme..com",
            (
                "'acme..com' is not a domain: write labels of 1 to 63 letters, digits, '-' or '_', with single dots between"
                " them, at most 253 characters in all."
            ),
        ),
        ("c" * 254, "A domain has at most 253 characters; this one has 254."),
        (f"*.a{BASE_251}", "No subdomain would fit: a domain after '*.' has at most 251 characters."),
        ("127.1", "'127.1' is not an IPv4 address: write four numbers from 0 to 255, such as '192.168.0.10'."),
        (
            "[::1",
            "'[::1' is not an IPv6 address, or has a zone, or is IPv4-mapped: write it as in '[2001:db8::1]'.",
        ),
        ("::1", "'::1' has several colons: write an IPv6 address in brackets, such as '[::1]:8080'."),
        ("shop.test.", "'shop.test.' ends with a dot, which makes it another site for browsers: write 'shop.test'."),
        ("ACMEX.", "'ACMEX.' ends with a dot, which makes it another site for browsers: write 'ACMEX'."),
        ("X.", "'X.' ends with a dot, which makes it another site for browsers: write 'X'."),
        ("*.X..", "'*.X..' ends with a dot, which makes it another site for browsers: write '*.X'."),
        ("*...", "'*...' ends with a dot, which makes it another site for browsers: write 'acme.com'."),
        ("acme.com:0", "':0' is not a port: write ':' and a number from 1 to 65535, or ':*' for any port."),
        ("a" * 1025, "An entry has at most 1024 characters; this one has 1025."),
        (
            "ac\u200dme.com",
            (
                "'ac\\u200dme.com' is not an internationalised domain that browsers can visit ('ac\\u200dme' has"
                " a joiner where none is allowed): check its spelling."
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
def test_the_wording_for_a_refused_entry(entry: str, hint: str) -> None:
    assert refused(entry).hint == hint


def test_the_wording_for_an_entry_that_is_not_text_or_not_https() -> None:
    not_text: Any = 7
    assert refused(not_text).hint == "An entry is text such as 'acme.com', not int."
    hint = "Only https pages are allowed here, not 'http://acme.com': write 'https://acme.com'."
    assert refused("http://acme.com", https_only=True).hint == hint
