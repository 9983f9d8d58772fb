"""What a request says, read by pure functions."""

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.web.request import ExemptPaths, Header, exempt_problems, has_header, key_in_query, single_header
from tests.web.queries import QUERIES

REFERERS: list[Header] = [(b"referer", b"a"), (b"origin", b"o"), (b"referer", b"b")]


@pytest.mark.parametrize(
    ("query", "key"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"client_key=k", b"k", id="given"),
        pytest.param(b"a=1&client_key=k&b", b"k", id="among others"),
        pytest.param(b"client_key=k&client_key=k", b"k", id="twice, equal"),
        pytest.param(b"client_key=k&client_key=m", CONFLICT, id="twice, different"),
        pytest.param(b"client_key=k&client_key=m&client_key=k", CONFLICT, id="thrice, different"),
        pytest.param(b"%63lient%5Fkey=k", b"k", id="name percent-encoded"),
        pytest.param(b"client_key=%6b%5f", b"k_", id="value percent-encoded"),
        pytest.param(b"client_key=k_&client_key=k%5F", b"k_", id="equal when decoded"),
        pytest.param(b"client_key=k%00", b"k\x00", id="encoded NUL"),
        pytest.param(b"client_key=k%", b"k%", id="percent sign alone"),
        pytest.param(b"client_key=k+", b"k ", id="plus is a space"),
        pytest.param(b"client_key=k=", b"k=", id="second equals sign"),
        pytest.param(b"client_key=k;client_key=m", b"k;client_key=m", id="semicolon is no separator"),
        pytest.param(b"CLIENT_KEY=k", None, id="name in upper case"),
        pytest.param(b"client_key%00=k", None, id="longer name"),
        pytest.param(b"client_key%3Dk", None, id="encoded equals sign"),
        pytest.param(b"client_key", None, id="without a value"),
        pytest.param(b"client_key=", None, id="empty value"),
        pytest.param(b"client_key=&client_key=k", b"k", id="empty, then given"),
        pytest.param(b"client_key=k&client_key=", b"k", id="given, then empty"),
    ],
)
def test_the_key_is_the_value_of_its_parameter(query: bytes, key: bytes | Conflict | None) -> None:
    assert key_in_query(query, b"client_key") == key


@pytest.mark.parametrize(
    ("header", "query", "key"),
    [
        (b"k", b"client_key=k", b"k"),
        (b"k", b"client_key=", b"k"),
        (b"k", b"other=m", b"k"),
        (b"k", b"client_key=m", CONFLICT),
        (CONFLICT, b"client_key=k", CONFLICT),
        (CONFLICT, b"", CONFLICT),
    ],
)
def test_the_header_and_the_query_have_to_agree(
    header: bytes | Conflict, query: bytes, key: bytes | Conflict | None
) -> None:
    assert key_in_query(query, b"client_key", header) == key


@settings(max_examples=300)
@given(QUERIES | st.binary(max_size=40))
def test_the_key_is_read_from_a_query_as_urllib_reads_it(query: bytes) -> None:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    values = {value.encode("latin-1") for name, value in pairs if name == "client_key" and value}
    expected = CONFLICT if len(values) > 1 else next(iter(values), None)
    assert key_in_query(query, b"client_key") == expected


@pytest.mark.parametrize(
    ("headers", "wanted", "value"),
    [
        ([], b"origin", None),
        (REFERERS, b"origin", b"o"),
        (REFERERS, b"referer", CONFLICT),
        (REFERERS[:1] * 2, b"referer", CONFLICT),
        (REFERERS, b"Origin", None),
        ([(b"origin", b"")], b"origin", b""),
    ],
)
def test_a_single_header_has_one_value(headers: list[Header], wanted: bytes, value: bytes | Conflict | None) -> None:
    assert single_header(headers, wanted) == value


@pytest.mark.parametrize(("wanted", "found"), [(b"origin", True), (b"referer", True), (b"ORIGIN", False), (b"", False)])
def test_a_header_is_found_by_its_lower_case_name(wanted: bytes, *, found: bool) -> None:
    assert has_header(REFERERS, wanted) is found
    assert not has_header([], wanted)


@pytest.mark.parametrize("root_path", ["", "/widget"])
@pytest.mark.parametrize(
    ("path", "exempt"),
    [
        ("/healthz", True),
        ("/static/", True),
        ("/static/widget.js", True),
        ("/static/a/b", True),
        ("/static/..a", False),
        ("/static/../chat", False),
        ("/static/a/../../chat", False),
        ("/static\\..\\chat", False),
        ("/static/a\\b", False),
        ("/static/%2e%2e/chat", False),
        ("/static", False),
        ("/statics", False),
        ("/healthz/", False),
        ("/healthzz", False),
        ("/HEALTHZ", False),
        ("/x/healthz", False),
        ("/x/static/y", False),
        ("//healthz", False),
        ("/", False),
        ("", False),
    ],
)
def test_exempt_paths_are_exact_or_below_a_prefix(root_path: str, path: str, *, exempt: bool) -> None:
    paths = ExemptPaths(("/healthz", "/static/*"))
    assert paths.covers({"path": root_path + path, "root_path": root_path}) is exempt


@pytest.mark.parametrize(
    ("scope", "exempt"),
    [
        ({"path": "/widget/healthz", "root_path": "/widget"}, False),
        ({"path": "/widget/healthz", "root_path": ""}, True),
        ({"path": "/widget/healthz"}, True),
    ],
)
def test_the_root_path_is_no_part_of_an_exempt_path(scope: dict[str, Any], *, exempt: bool) -> None:
    assert ExemptPaths(("/widget/healthz",)).covers(scope) is exempt


@pytest.mark.parametrize("paths", [(), ("/",), ("/healthz", "/static/*"), ["/healthz"], {"/a/b/*"}])
def test_valid_exempt_paths_have_no_problems(paths: Any) -> None:
    assert list(exempt_problems(paths)) == []


def test_every_wrong_exempt_path_is_reported() -> None:
    problems = list(exempt_problems(("healthz", "/ok", "/static*", "/*")))
    assert [problem.split(":")[0] for problem in problems] == [
        "exempt has 'healthz'",
        "exempt has '/static*'",
        "exempt has '/*', which guards nothing",
    ]
