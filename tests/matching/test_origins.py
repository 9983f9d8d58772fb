"""Origin: the Origin and the Referer header."""

from typing import Any, get_args

import pytest

from gatekeeper import InvalidOrigin, Origin
from gatekeeper.errors import OriginReason
from tests.matching.hosts import LABEL_63, NAME_253

LONGEST_ORIGIN = f"https://{NAME_253}:65535"

ACCEPTED = [
    ("https://acme.com", "https", "acme.com", 443),
    ("http://acme.com", "http", "acme.com", 80),
    ("https://shop.acme.com:8443", "https", "shop.acme.com", 8443),
    ("https://acme.com:80", "https", "acme.com", 80),
    ("http://acme.com:443", "http", "acme.com", 443),
    ("http://acme.com:1", "http", "acme.com", 1),
    ("http://acme.com:65535", "http", "acme.com", 65535),
    ("http://localhost:3000", "http", "localhost", 3000),
    ("http://intranet", "http", "intranet", 80),
    ("https://null", "https", "null", 443),
    ("https://my_shop.acme.com", "https", "my_shop.acme.com", 443),
    ("https://_dmarc.acme.com", "https", "_dmarc.acme.com", 443),
    ("https://ab--cd.acme.com", "https", "ab--cd.acme.com", 443),
    ("https://xn--bcher-kva.example", "https", "xn--bcher-kva.example", 443),
    ("https://xn--a.example", "https", "xn--a.example", 443),
    ("http://foo-.acme.test", "http", "foo-.acme.test", 80),
    ("https://-acme.com", "https", "-acme.com", 443),
    ("https://shop.-acme-.com", "https", "shop.-acme-.com", 443),
    ("https://acme.com.", "https", "acme.com.", 443),
    ("https://acme.com.:8443", "https", "acme.com.", 8443),
    ("http://localhost.:3000", "http", "localhost.", 3000),
    (f"https://{NAME_253}.", "https", f"{NAME_253}.", 443),
    (f"http://{NAME_253}.:65535", "http", f"{NAME_253}.", 65535),
    ("capacitor://localhost", "capacitor", "localhost", None),
    ("tauri://localhost:1420", "tauri", "localhost", 1420),
    ("chrome-extension://abcdefghijklmnop", "chrome-extension", "abcdefghijklmnop", None),
    ("capacitor://app.acme.com", "capacitor", "app.acme.com", None),
    (
        "moz-extension://77250cbb-8310-4fb3-826e-1a9e44c66dbc",
        "moz-extension",
        "77250cbb-8310-4fb3-826e-1a9e44c66dbc",
        None,
    ),
    (
        "safari-web-extension://dcea6524-ab56-4469-895f-d4f4e84f139e",
        "safari-web-extension",
        "dcea6524-ab56-4469-895f-d4f4e84f139e",
        None,
    ),
    (
        "vscode-webview://10kbrrqvl8foiqadlf2vq1l9snpjtar16g1350ud9j16se4j4bj9",
        "vscode-webview",
        "10kbrrqvl8foiqadlf2vq1l9snpjtar16g1350ud9j16se4j4bj9",
        None,
    ),
    ("android-app://com.acme", "android-app", "com.acme", None),
    ("ws://acme.com", "ws", "acme.com", None),
    ("wss://acme.com:443", "wss", "acme.com", 443),
    ("x+y-z.9://a.b.", "x+y-z.9", "a.b.", None),
    ("https://127.acme.com", "https", "127.acme.com", 443),
    ("https://0x7f.acme.com", "https", "0x7f.acme.com", 443),
    ("https://acme.0x7g", "https", "acme.0x7g", 443),
    ("http://127.0.0.1:8000", "http", "127.0.0.1", 8000),
    ("http://0.0.0.0", "http", "0.0.0.0", 80),
    ("https://255.255.255.255", "https", "255.255.255.255", 443),
    ("http://[::1]:3000", "http", "[::1]", 3000),
    ("http://[::]", "http", "[::]", 80),
    ("https://[2001:db8::1]", "https", "[2001:db8::1]", 443),
    ("https://[1:0:2:3:4:5:6:7]", "https", "[1:0:2:3:4:5:6:7]", 443),
    ("https://[1::2:0:0:3:4]", "https", "[1::2:0:0:3:4]", 443),
    ("https://[::102:304]", "https", "[::102:304]", 443),
    ("https://[::ffff:102:304]", "https", "[::ffff:102:304]", 443),
    (f"https://{LABEL_63}.com", "https", f"{LABEL_63}.com", 443),
    (LONGEST_ORIGIN, "https", NAME_253, 65535),
]

REFUSED: list[tuple[str, OriginReason]] = [
    ("null", "null"),
    ("", "scheme"),
    (" ", "scheme"),
    ("NULL", "scheme"),
    ("Null", "scheme"),
    ("null ", "scheme"),
    ("null, null", "scheme"),
    ("acme.com", "scheme"),
    ("https", "scheme"),
    ("https:", "scheme"),
    ("https:/acme.com", "scheme"),
    ("https:acme.com", "scheme"),
    ("//acme.com", "scheme"),
    ("://acme.com", "scheme"),
    ("HTTPS://acme.com", "scheme"),
    ("Http://acme.com", "scheme"),
    (" https://acme.com", "scheme"),
    ("\ufeffhttps://acme.com", "scheme"),
    ("https ://acme.com", "scheme"),
    ("9p://acme.com", "scheme"),
    ("-x://acme.com", "scheme"),
    ("cap_acitor://localhost", "scheme"),
    ("Capacitor://localhost", "scheme"),
    ("\u0430pp://localhost", "scheme"),
    ("\xaa://localhost", "scheme"),
    ("capacitor://localhost/", "host"),
    ("capacitor://Localhost", "host"),
    ("safari-web-extension://DCEA6524-AB56-4469-895F-D4F4E84F139E", "host"),
    ("capacitor://b\u00fccher.example", "host"),
    ("capacitor://b%C3%BCcher.example", "host"),
    ("capacitor://user@localhost", "host"),
    (f"safari-web-extension://{NAME_253}", "too_long"),
    ("capacitor://localhost:0", "port"),
    ("capacitor://localhost:", "port"),
    ("capacitor://127.1", "host"),
    ("file://", "host"),
    ("file:///index.html", "host"),
    ("data:text/html,x", "scheme"),
    ("blob:https://acme.com/x", "scheme"),
    ("*", "scheme"),
    ("https://", "host"),
    ("https:///", "host"),
    ("https://:8443", "host"),
    ("https://.", "host"),
    ("https://acme.com..", "host"),
    ("https://acme.com..:8443", "host"),
    ("https://..", "host"),
    ("https://.acme.com", "host"),
    ("https://shop..acme.com", "host"),
    ("https://ACME.com", "host"),
    ("https://Acme.com", "host"),
    ("https://*.acme.com", "host"),
    ("https://acme.com/", "host"),
    ("https://acme.com/page", "host"),
    ("https://acme.com?q", "host"),
    ("https://acme.com#f", "host"),
    ("https://acme.com\\", "host"),
    ("https://evil.test/.acme.com", "host"),
    ("https://evil.test?.acme.com", "host"),
    ("https://evil.test#.acme.com", "host"),
    ("https://evil.test\\@acme.com", "host"),
    ("https://user@acme.com", "host"),
    ("https://user:pw@acme.com", "port"),
    ("https://acme.com@evil.test", "host"),
    ("https://acme%2ecom", "host"),
    ("https://acme.com ", "host"),
    ("https://acme.com\t", "host"),
    ("https://acme.com\n", "host"),
    ("https://acme.com\r\nX-Evil: 1", "port"),
    ("https://ac\x00me.com", "host"),
    ("https://acme.com\x7f", "host"),
    ("https://acme.com, https://evil.test", "port"),
    ("https://acme.com https://evil.test", "port"),
    ("https://https://acme.com", "port"),
    ("https://bücher.example", "host"),
    ("https://\u0430cme.com", "host"),
    ("https://acme.com\u200b", "host"),
    ("https://acme\u3002com", "host"),
    ("https://\ud800.com", "host"),
    ("https://acme.com\udcff", "host"),
    (f"https://a{LABEL_63}.com", "host"),
    (f"http://{'a.' * 126}ab", "host"),
    ("https://acme.com:", "port"),
    ("https://acme.com:443", "port"),
    ("http://acme.com:80", "port"),
    ("https://[::1]:443", "port"),
    ("https://acme.com:0", "port"),
    ("https://acme.com:00", "port"),
    ("https://acme.com:08443", "port"),
    ("https://acme.com:65536", "port"),
    ("https://acme.com:99999", "port"),
    ("https://acme.com:100000", "port"),
    ("https://acme.com:-1", "port"),
    ("https://acme.com:+8443", "port"),
    ("https://acme.com: 8443", "port"),
    ("https://acme.com:8443 ", "port"),
    ("https://acme.com:8443/", "port"),
    ("https://acme.com:8443.evil.test", "port"),
    ("https://acme.com:8443:8443", "port"),
    ("https://acme.com:*", "port"),
    ("https://acme.com:0x50", "port"),
    ("https://acme.com:1_0", "port"),
    ("https://acme.com:\u0663\u0660", "port"),
    ("https://acme.com:\uff18\uff10", "port"),
    ("https://acme.com:¹", "port"),
    ("http://127.1", "host"),
    ("http://2130706433", "host"),
    ("http://0x7f.1", "host"),
    ("http://0x7f000001", "host"),
    ("http://127.0.0.01", "host"),
    ("http://0177.0.0.1", "host"),
    ("http://127.0.0.256", "host"),
    ("http://127.0.0.1.5", "host"),
    ("http://127.0.0.1.", "host"),
    ("http://[::1].", "port"),
    ("http://acme.0x7f.", "host"),
    ("http://127.0.0.0x", "host"),
    ("http://acme.1", "host"),
    ("http://acme.0x7f", "host"),
    ("http://[]", "host"),
    ("http://[", "host"),
    ("http://[::1", "host"),
    ("http://::1", "port"),
    ("http://::1]", "port"),
    ("http://[::1]x", "port"),
    ("http://[::1]8443", "port"),
    ("http://[::1]:", "port"),
    ("http://[::1].acme.com", "port"),
    ("http://[0:0:0:0:0:0:0:1]", "host"),
    ("http://[::0:1]", "host"),
    ("http://[2001:DB8::1]", "host"),
    ("http://[2001:0db8::1]", "host"),
    ("http://[1::2:3:4:5:6:7]", "host"),
    ("http://[1:0:0:2::3:4]", "host"),
    ("http://[::1.2.3.4]", "host"),
    ("http://[::ffff:1.2.3.4]", "host"),
    ("http://[fe80::1%eth0]", "host"),
    ("http://[fe80::1%25eth0]", "host"),
    ("http://[1::2::3]", "host"),
    ("http://[1:2:3:4:5:6:7]", "host"),
    ("http://[127.0.0.1]", "host"),
    ("http://[acme.com]", "host"),
    (f"https://a{NAME_253}:65535", "too_long"),
    (LONGEST_ORIGIN + "0", "too_long"),
    (f"https://{NAME_253}.:65535", "too_long"),
    ("a" * 268, "too_long"),
]


@pytest.mark.parametrize(("text", "scheme", "host", "port"), ACCEPTED)
def test_a_serialised_origin_is_parsed_and_serialised_back(text: str, scheme: str, host: str, port: int | None) -> None:
    origin = Origin.parse(text)
    assert (origin.scheme, origin.host, origin.port) == (scheme, host, port)
    assert str(origin) == text
    assert Origin.parse(text.encode("ascii")) == origin == Origin(scheme, host, port)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_text_that_no_browser_serialises_is_refused_with_a_reason(text: str, reason: OriginReason) -> None:
    with pytest.raises(InvalidOrigin) as refused:
        Origin.parse(text)
    assert refused.value.reason == reason
    assert str(refused.value)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_the_bytes_of_a_refused_text_are_refused(text: str, reason: OriginReason) -> None:
    with pytest.raises(InvalidOrigin) as refused:
        Origin.parse(text.encode("utf-8", "surrogatepass"))
    assert refused.value.reason == reason


@pytest.mark.parametrize("value", [b"https://\xff.com", b"https://acme.com\x80", b"https://b\xfccher.example", b"\xff\xfe"])
def test_bytes_that_are_not_utf_8_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidOrigin):
        Origin.parse(value)
    with pytest.raises(InvalidOrigin):
        Origin.from_referer(value)


def test_the_longest_origin_has_267_bytes() -> None:
    assert len(LONGEST_ORIGIN) == 267
    assert str(Origin.parse(LONGEST_ORIGIN)) == LONGEST_ORIGIN


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("https://" + "a" * 1_000_000, id="a label"),
        pytest.param("https://" + "a." * 500_000 + "com", id="many labels"),
        pytest.param("https://acme.com:" + "1" * 1_000_000, id="a port"),
        pytest.param("http://[" + ":" * 1_000_000 + "]", id="an IPv6 address"),
        pytest.param(b"https://acme.com" + b"\x00" * 1_000_000, id="NUL bytes"),
    ],
)
def test_a_huge_header_is_refused_for_its_length(value: str | bytes) -> None:
    with pytest.raises(InvalidOrigin) as refused:
        Origin.parse(value)
    assert refused.value.reason == "too_long"
    with pytest.raises(InvalidOrigin):
        Origin.from_referer(value)


def test_the_message_of_a_refusal_does_not_repeat_the_header() -> None:
    for text, _ in REFUSED:
        with pytest.raises(InvalidOrigin) as refused:
            Origin.parse(text)
        assert not any(word in str(refused.value) for word in ("acme", "evil", "user", "127.1", "\n", "\x00"))


def test_origins_are_hashable_and_immutable() -> None:
    assert len({Origin.parse("https://acme.com"), Origin("https", "acme.com", 443)}) == 1
    assert Origin.parse("https://acme.com") != Origin.parse("http://acme.com")
    frozen: Any = Origin.parse("https://acme.com")
    with pytest.raises(AttributeError):
        frozen.host = "evil.test"


@pytest.mark.parametrize(
    ("referer", "origin"),
    [
        ("https://acme.com", "https://acme.com"),
        ("https://acme.com/", "https://acme.com"),
        ("https://acme.com/shop/page.html?q=1#top", "https://acme.com"),
        ("https://acme.com?q=1", "https://acme.com"),
        ("https://acme.com#top", "https://acme.com"),
        ("https://acme.com\\evil", "https://acme.com"),
        ("https://acme.com:8443/shop", "https://acme.com:8443"),
        ("https://acme.com:443/shop", "https://acme.com"),
        ("http://acme.com:80/shop", "http://acme.com"),
        ("http://acme.com:443/shop", "http://acme.com:443"),
        ("https://acme.com:80/shop", "https://acme.com:80"),
        ("HTTPS://ACME.com:443/Shop", "https://acme.com"),
        ("Http://Localhost:3000/", "http://localhost:3000"),
        ("https://acme.com/a@b", "https://acme.com"),
        ("https://acme.com/?next=https://user@evil.test/", "https://acme.com"),
        ("https://evil.test/https://acme.com", "https://evil.test"),
        ("https://evil.test?.acme.com", "https://evil.test"),
        ("https://evil.test#.acme.com", "https://evil.test"),
        ("https://evil.test\\.acme.com", "https://evil.test"),
        ("https://evil.test\\@acme.com", "https://evil.test"),
        ("https://acme.com/%C3%BC", "https://acme.com"),
        ("https://acme.com//", "https://acme.com"),
        ("https://Acme.com./", "https://acme.com."),
        ("http://foo-.acme.test/page", "http://foo-.acme.test"),
        (f"http://{NAME_253}.:65535/", f"http://{NAME_253}.:65535"),
        ("http://[::1]:3000/", "http://[::1]:3000"),
        ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]"),
        ("http://[::FFFF:102:304]/", "http://[::ffff:102:304]"),
        ("http://127.0.0.1:8000/x", "http://127.0.0.1:8000"),
        pytest.param("https://acme.com/" + "a" * 1_000_000, "https://acme.com", id="a huge path"),
    ],
)
def test_a_referer_gives_the_origin_of_its_page(referer: str, origin: str) -> None:
    assert str(Origin.from_referer(referer)) == origin
    assert Origin.from_referer(referer.encode("ascii")) == Origin.parse(origin)


REFUSED_REFERERS: list[tuple[str, OriginReason]] = [
    ("", "scheme"),
    ("null", "scheme"),
    ("NULL", "scheme"),
    ("acme.com/page", "scheme"),
    ("/page", "scheme"),
    ("//acme.com/page", "scheme"),
    ("about:blank", "scheme"),
    ("about:srcdoc", "scheme"),
    ("data:text/html,x", "scheme"),
    ("file:///home/me/page.html", "scheme"),
    ("ftp://acme.com/", "scheme"),
    ("ftp://acme.com:None/", "scheme"),
    ("android-app://com.acme/", "scheme"),
    (" https://acme.com/", "scheme"),
    ("https:\\\\acme.com/", "scheme"),
    ("https://", "host"),
    ("https:///", "host"),
    ("https:///acme.com/", "host"),
    ("https://\\acme.com/", "host"),
    ("https://?acme.com", "host"),
    ("https://acme.com../", "host"),
    ("capacitor://localhost/", "scheme"),
    ("https://shop..acme.com/", "host"),
    ("https://acme%2ecom/", "host"),
    ("https://acme.com evil.test/", "host"),
    ("http://127.1/", "host"),
    ("http://[::1/", "host"),
    ("http://[::ffff:1.2.3.4]/", "host"),
    ("https://acme.com:/", "port"),
    ("https://acme.com:0443/", "port"),
    ("https://acme.com:443:443/", "port"),
    ("https://acme.com:0/", "port"),
    ("https://acme.com:65536/", "port"),
    ("https://acme.com:8443.evil.test/", "port"),
    ("https://user@acme.com/", "userinfo"),
    ("https://user:pw@acme.com/", "userinfo"),
    ("https://acme.com@evil.test/", "userinfo"),
    ("https://acme.com:8443@evil.test/", "userinfo"),
    ("https://@acme.com/", "userinfo"),
    ("https://bücher.example/", "characters"),
    ("https://acme.com/bücher", "characters"),
    ("https://acme.com/\u200b", "characters"),
    ("https://acme.com\u2100/", "characters"),
    ("https://acme.com/\n", "characters"),
    ("https://ac\tme.com/", "characters"),
    ("https://acme.com/\x00", "characters"),
    ("https://acme.com/\x7f", "characters"),
    ("\x01https://acme.com/", "characters"),
    ("https://\ud800/", "characters"),
    ("https://acme.com/\udcff", "characters"),
    (f"https://a{NAME_253}:65535/", "too_long"),
]


@pytest.mark.parametrize(("referer", "reason"), REFUSED_REFERERS)
def test_a_referer_that_is_not_a_web_page_is_refused_with_a_reason(referer: str, reason: OriginReason) -> None:
    with pytest.raises(InvalidOrigin) as refused:
        Origin.from_referer(referer)
    assert refused.value.reason == reason
    with pytest.raises(InvalidOrigin) as refused:
        Origin.from_referer(referer.encode("utf-8", "surrogatepass"))
    assert refused.value.reason == reason


def test_the_tables_have_every_reason() -> None:
    assert {reason for _, reason in REFUSED + REFUSED_REFERERS} == set(get_args(OriginReason))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("null", "the page has an opaque origin (a sandboxed iframe, a file or a data: URL)"),
        ("acme.com", "an origin begins with a scheme such as https://"),
        (f"https://{'a' * 300}", "an origin has at most 267 bytes"),
        ("https://acme.com:0", "a port is a number from 1 to 65535 without leading zeros"),
        ("https://acme.com:443", "browsers leave out the scheme's default port"),
        ("https://[::1", "an IPv6 host is in brackets, compressed and in lower case"),
        ("https://127.1", "a host that ends in a number is four decimal numbers from 0 to 255"),
        ("https://acme.0xX", "a host is labels of a-z, 0-9, - and _ with dots between them"),
        ("https://acme..com", "a host is labels of a-z, 0-9, - and _ with dots between them"),
    ],
)
def test_the_wording_for_a_refused_origin(value: str, sentence: str) -> None:
    with pytest.raises(InvalidOrigin) as refused:
        Origin.parse(value)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("https://b\xfccher.example/", "a Referer holds printable ASCII characters only"),
        ("https://user@acme.com/", "browsers strip user names and passwords from a Referer"),
        ("acme.com/", "a Referer begins with https:// or http://"),
    ],
)
def test_the_wording_for_a_refused_referer(value: str, sentence: str) -> None:
    with pytest.raises(InvalidOrigin) as refused:
        Origin.from_referer(value)
    assert str(refused.value) == sentence
