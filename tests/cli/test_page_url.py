"""The origin that a page's URL stands for."""

import pytest

from gatekeeper.cli.page_url import origin_at
from gatekeeper.errors import InvalidOrigin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Shop.acme.com/cart?item=7#top", "https://shop.acme.com"),
        ("HTTP://localhost:80/", "http://localhost"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("capacitor://localhost/index.html?q=a@b#top", "capacitor://localhost"),
        ("capacitor://localhost#top", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop/popup.html", "chrome-extension://abcdefghijklmnop"),
        ("safari-web-extension://DCEA6524-AB56/popup.html", "safari-web-extension://dcea6524-ab56"),
        ("app://localhost:3000?x", "app://localhost:3000"),
    ],
)
def test_the_url_of_a_page_or_an_app_stands_for_its_origin(url: str, origin: str) -> None:
    """People paste what the address bar or the developer tools show."""
    assert str(origin_at(url)) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.acme.com",
        "null",
        "https://",
        "capacitor://",
        "capacitor:///index.html",
        "file:///home/me/page.html",
        "capacitor://user@localhost/",
        "capacitor://b\u00fccher.example/",
        "9app://localhost",
        "capacitor:localhost",
        "two words",
    ],
)
def test_what_is_no_such_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidOrigin):
        origin_at(url)
