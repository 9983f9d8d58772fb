"""The headers of answers to requests for the list."""

from gatekeeper.hub.list_headers import delta_headers


def test_a_delta_names_its_base_and_is_not_stored() -> None:
    assert delta_headers('W/"42-cd"', '"41-ab"', "gate", gzip=False) == {
        "ETag": 'W/"42-cd"',
        "IM": "rows",
        "Delta-Base": '"41-ab"',
        "Cache-Control": "no-store",
        "Vary": "Authorization, X-Account-ID, Accept-Encoding, A-IM, Prefer, If-None-Match",
        "Token-Scope": "gate",
    }


def test_a_compressed_delta_says_so() -> None:
    plain, compressed = [delta_headers('W/"42-cd"', '"41-ab"', "admin", gzip=gzip) for gzip in (False, True)]
    assert compressed == {**plain, "Content-Encoding": "gzip"}
