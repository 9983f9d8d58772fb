"""web-platform-tests, fetch/origin and cors/origin: when browsers send Origin, and which answers they take."""

import itertools
from typing import Any

import pytest

from gatekeeper import CorsPolicy
from tests.conformance.asgi import App, Header, Response, ask, guard
from tests.conformance.corpora import Count, Difference, Outcome, judge, read_corpus

PAGES = ("http://shop.acme.test", "http://shop.acme.test:8000", "https://shop.acme.test:8443")
OTHER_PAGE = "https://other.test"
ACAO = "access-control-allow-origin"
ASKS = (b"access-control-request-method", b"POST")
POLICIES = (CorsPolicy(), CorsPolicy(preflight="strict"))


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = read_corpus("fetch_origin_header")
    return found


def written(shape: str, page: str) -> str:
    """Fill in the shape of a header's value for one page."""
    scheme, _, host = page.partition("//")
    parts = {
        "ORIGIN": page,
        "ORIGIN_UPPER": page.upper(),
        "SCHEME": scheme,
        "SCHEME_UPPER": scheme.upper(),
        "HOST": host,
        "PARENT_DOMAIN": host.partition(".")[2],
        "PAGE_URL": f"{page}/a/page.html",
        "PAGE_DIR": f"{page}/a/",
        "CROSSDOMAIN": f"{scheme}//www1.{host}",
    }
    return shape.format(**parts)


def origin_header(value: str) -> Header:
    return b"origin", value.encode()


def responses_to(page: str, *, entries: tuple[str, ...], app_says: tuple[str, ...] = ()) -> list[Response]:
    """Every answer that we give to a page: with a key, without one, to preflights, by either policy.

    Args:
        page: its origin.
        entries: the allowlist of the key.
        app_says: what the app itself has for Access-Control-Allow-Origin.
    """
    origin = origin_header(page)
    responses = []
    for cors in POLICIES:
        guarded = guard(App([(ACAO.encode(), value.encode()) for value in app_says]), *entries, cors=cors)
        responses += [
            ask(guarded, origin),
            ask(guarded, origin, method="POST"),
            ask(guarded, origin, keyed=False),
            ask(guarded, origin, ASKS, method="OPTIONS", keyed=False),
        ]
    return responses


def test_a_request_is_decided_by_the_origin_that_browsers_send_with_it(
    corpus: dict[str, list[Any]], counts: list[Count]
) -> None:
    outcomes = []
    for row in corpus["origin_header"]:
        wanted, got = [], []
        for page in PAGES:
            sent = page if row["expected_origin"] == "SELF" else row["expected_origin"]
            referer = (b"referer", f"{page}/".encode())
            headers = (referer,) if sent is None else (origin_header(sent), referer)
            response = ask(guard(App(), page), *headers, method=row["kind"].partition(" ")[0])
            wanted.append(
                ("origin_null", [b"*"]) if sent == "null" else ("allowed", [] if sent is None else [sent.encode()])
            )
            got.append((response.reason, response.values(ACAO)))
        outcomes.append(Outcome(", ".join(str(value) for value in row.values()), wanted, got))
    judge(counts, "fetch_origin_header: origin_header", outcomes)


def test_an_allowed_origin_is_echoed_so_that_browsers_accept_it(corpus: dict[str, list[Any]], counts: list[Count]) -> None:
    answered: set[str] = set()
    for page in PAGES:
        produced = {value.decode() for response in responses_to(page, entries=(page,)) for value in response.values(ACAO)}
        assert produced == {page, "*"}  # "*" where nothing was decided, or the request was refused
        answered.update(shape for shape in corpus["acao_accepted"] if written(shape, page) in produced)
    differences = [
        Difference("refused", "`*` without spaces", where=lambda outcome: "*" in outcome.name and outcome.name != "*"),
        Difference("refused", "the request's bytes, and no space", where=lambda outcome: " " in outcome.name),
        Difference("refused", "the request's bytes, and no tab", where=lambda outcome: "\t" in outcome.name),
    ]
    outcomes = [Outcome(shape, shape, shape if shape in answered else None) for shape in corpus["acao_accepted"]]
    judge(counts, "fetch_origin_header: acao_accepted, what of it we answer", outcomes, differences)


@pytest.mark.slow
def test_headers_that_browsers_refuse_are_never_sent(corpus: dict[str, list[Any]], counts: list[Count]) -> None:
    outcomes = []
    for shape in corpus["acao_refused"]:
        answers = []
        for page, entry in itertools.product(PAGES, (*PAGES, OTHER_PAGE)):
            value = written(shape, page)
            responses = responses_to(page, entries=(entry,), app_says=(value,))
            assert any(response.values(ACAO) == [page.encode()] for response in responses) is (page == entry)
            assert all(response.values(ACAO) in ([], [b"*"], [page.encode()]) for response in responses)
            answers += [value for response in responses if value.encode() in response.values(ACAO)]
        outcomes.append(Outcome(shape, [], answers))
    judge(counts, "fetch_origin_header: acao_refused", outcomes)


def test_the_header_is_never_sent_twice(corpus: dict[str, list[Any]], counts: list[Count]) -> None:
    outcomes = []
    for shapes in corpus["acao_multiple_headers_refused"]:
        several = []
        for page in PAGES:
            values = tuple(written(shape, page) for shape in shapes)
            answers = [response.values(ACAO) for response in responses_to(page, entries=(page,), app_says=values)]
            assert [page.encode()] in answers
            several += [answer for answer in answers if len(answer) > 1]
        outcomes.append(Outcome(str(shapes), [], several))
    judge(counts, "fetch_origin_header: acao_multiple_headers_refused", outcomes)


@pytest.mark.parametrize("page", PAGES)
def test_a_malformed_origin_is_neither_echoed_nor_allowed(corpus: dict[str, list[Any]], page: str) -> None:
    for value in [written(shape, page) for shape in corpus["acao_refused"]]:
        responses = responses_to(value, entries=(page,))
        assert all(App.BODY not in response.body for response in responses), value
        assert all(response.values(ACAO) in ([], [b"*"]) for response in responses), value


def test_a_page_known_by_its_referer_gets_no_header() -> None:
    response = ask(guard(App([(ACAO.encode(), b"*")]), PAGES[0]), (b"referer", f"{PAGES[0]}/".encode()))
    assert (response.reason, response.values(ACAO)) == ("allowed", [])
