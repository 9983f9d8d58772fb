"""What a widget sends."""

from gatekeeper.testing import client_key, frame_headers, headers, query


def test_a_request_names_its_key_and_its_page() -> None:
    sent = {"data-client-key": client_key("shop"), "origin": "https://shop.acme.com"}
    assert headers("https://shop.acme.com", key="shop") == sent


def test_a_request_may_come_without_an_origin() -> None:
    assert headers(None) == {"data-client-key": client_key("widget")}


def test_a_key_can_stand_in_the_query() -> None:
    assert query("shop") == {"client_key": client_key("shop")}
    assert query() == {"client_key": client_key("widget")}


def test_the_request_for_a_frame_names_its_page_as_the_referrer() -> None:
    assert frame_headers("https://shop.acme.com") == {"referer": "https://shop.acme.com/", "sec-fetch-dest": "iframe"}


def test_each_call_makes_headers_of_its_own() -> None:
    """Starlette's TestClient adds to the headers of a WebSocket."""
    headers("https://shop.acme.com")["connection"] = "upgrade"
    assert "connection" not in headers("https://shop.acme.com")
