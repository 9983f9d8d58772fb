"""The grammar of hosts and ports."""

import pytest

from gatekeeper.matching.hosts import compress_ipv6, ends_in_number, is_host_name, is_ipv4, is_loopback, is_port
from tests.matching.hosts import LABEL_63, NAME_253


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "shop.localhost",
        "a.b.localhost",
        "127.0.0.1",
        "127.0.0.0",
        "127.255.255.255",
        "[::1]",
    ],
)
def test_names_of_this_machine_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "acme.com",
        "localhost.acme.com",
        "evillocalhost",
        "localhost.localdomain",
        "128.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.0.10",
        "12.7.0.1",
        "1270.0.0.1",
        "127.acme.com",
        "127.0.0.1.acme.com",
        "[::]",
        "[::2]",
        "[::ffff:7f00:1]",
        "[2001:db8::1]",
    ],
)
def test_other_machines_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("text", ["1", "9", "80", "443", "8443", "65535"])
def test_a_number_from_1_to_65535_is_a_port(text: str) -> None:
    assert is_port(text)


@pytest.mark.parametrize(
    "text", ["", "0", "00", "01", "65536", "100000", "-1", "+1", " 1", "1 ", "1.0", "1e3", "x", "٣", "¹"]
)
def test_any_other_text_is_not_a_port(text: str) -> None:
    assert not is_port(text)


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "_",
        "-",
        "a-b",
        "a-",
        "-a",
        "a-.b",
        "a.-b",
        "a_",
        "_a",
        "a.b",
        "a--b",
        "0",
        "1.2",
        "a.1",
        LABEL_63,
        f"{LABEL_63}.a",
        NAME_253,
    ],
)
def test_labels_with_single_dots_between_them_are_a_host_name(host: str) -> None:
    assert is_host_name(host)


@pytest.mark.parametrize(
    "host",
    ["", ".", "a.", ".a", "a..b", "A", "ä", "a b", "a:b", "*", f"a{LABEL_63}", f"{NAME_253}c"],
)
def test_any_other_text_is_not_a_host_name(host: str) -> None:
    assert not is_host_name(host)


@pytest.mark.parametrize("host", ["1", "a.1", "127.0.0.1", "0x", "0x7f", "a.0xff", "a.00", "1.2.3.4.5"])
def test_a_host_whose_last_label_is_a_number_ends_in_a_number(host: str) -> None:
    assert ends_in_number(host)


@pytest.mark.parametrize("host", ["", "a", "1.a", "a1", "1a", "0x7g", "a.0xg", "x0", "1.", "a.٣", "a.-1"])
def test_a_host_whose_last_label_is_not_a_number_does_not(host: str) -> None:
    assert not ends_in_number(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", True),
        ("192.168.0.10", True),
        ("192.168.0", False),
        ("192.168.0.010", False),
        ("192.168.0.256", False),
        ("192.168.0.-1", False),
        (" 192.168.0.1", False),
        ("192.168.0.1\n", False),
        ("192.168.0.\u0661", False),
        ("", False),
    ],
)
def test_an_ipv4_address_is_four_decimal_numbers(host: str, *, expected: bool) -> None:
    assert is_ipv4(host) is expected


@pytest.mark.parametrize(
    ("host", "compressed"),
    [
        ("[::1]", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("[2001:0DB8::0001]", "[2001:db8::1]"),
        ("[1:0:0:2:0:0:0:3]", "[1:0:0:2::3]"),
        ("[1:0:2:3:4:5:6:7]", "[1:0:2:3:4:5:6:7]"),
        ("[::1.2.3.4]", "[::102:304]"),
        ("[::ffff:1.2.3.4]", "[::ffff:102:304]"),
        ("[::ffff:0.0.0.0]", "[::ffff:0:0]"),
        ("[::1", None),
        ("[]", None),
        ("[::1%eth0]", None),
        ("[1::2::3]", None),
        ("[::1]]", None),
        ("[1.2.3.4]", None),
        ("[acme.com]", None),
    ],
)
def test_an_ipv6_host_is_compressed_as_in_browsers(host: str, compressed: str | None) -> None:
    assert compress_ipv6(host) == compressed
