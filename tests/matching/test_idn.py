"""Internationalised hosts in A-labels, as browsers send them."""

import pytest

from gatekeeper.matching.idn import to_a_labels


@pytest.mark.parametrize(
    ("host", "a_labels"),
    [
        ("ACME.com", "acme.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("\u2603.net", "xn--n3h.net"),
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
    ],
    ids=ascii,
)
def test_a_host_is_converted_to_a_labels(host: str, a_labels: str) -> None:
    assert to_a_labels(host) == a_labels


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("xn--.example", "'xn--' is not Punycode"),
        ("xn--cafe-dma.example", "'xn--cafe-dma' decodes to a spelling"),
        ("xn---kva.example", "'xn---kva' is not Punycode"),
        ("xn--xn---epa.example", "'xn--xn---epa' is not Punycode"),
        ("xn--x-sy8h.example", "'xn--x-sy8h' decodes to a spelling that browsers map to another"),
        ("\u0301a.example", "illegal combining character"),
        ("\u0661a.example", "directionality L, R or AL"),
        ("1.\u05d0.example", "directionality L, R or AL"),
        ("\u05d0a.example", "right-to-left label"),
        ("\u0627a.example", "right-to-left label"),
        ("a\u0661.example", "left-to-right label"),
        ("ac\u200cme.com", r"'ac\\u200cme' has a joiner where none is allowed"),
    ],
    ids=ascii,
)
def test_a_host_that_browsers_cannot_visit_is_refused(host: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_a_labels(host)
