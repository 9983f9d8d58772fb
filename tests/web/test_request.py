"""What a request says, read by pure functions."""

from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette._utils import get_route_path

from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.web import request
from gatekeeper.web.request import Header, Paths, has_header, path_problems, single_header, value_in_query
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
    assert value_in_query(query, b"client_key") == key


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
    assert value_in_query(query, b"client_key", header) == key


@settings(max_examples=300)
@given(QUERIES | st.binary(max_size=40))
def test_the_key_is_read_from_a_query_as_urllib_reads_it(query: bytes) -> None:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    values = {value.encode("latin-1") for name, value in pairs if name == "client_key" and value}
    expected = CONFLICT if len(values) > 1 else next(iter(values), None)
    assert value_in_query(query, b"client_key") == expected


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
    paths = Paths(("/healthz", "/static/*"))
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
    assert Paths(("/widget/healthz",)).covers(scope) is exempt


@pytest.mark.parametrize("paths", [(), ("/",), ("/healthz", "/static/*"), ["/healthz"], {"/a/b/*"}])
def test_valid_exempt_paths_have_no_problems(paths: Any) -> None:
    assert list(path_problems("exempt", paths)) == []


def test_every_wrong_exempt_path_is_reported() -> None:
    problems = list(path_problems("exempt", ("healthz", "/ok", "/static*", "/*")))
    assert [problem.split(":")[0] for problem in problems] == [
        "exempt has 'healthz'",
        "exempt has '/static*'",
        "exempt has '/*', which guards nothing",
    ]


LONG = 65_536
# The names are those of no parameter, of the beginning of one, and of the parameter itself.
LONG_QUERIES = {
    "separators": b"&",
    "percent signs": b"%=%&",
    "names that begin like the key's": b"client_ke&",
    "encoded names that begin like the key's": b"%63%6c%69%65%6e%74%5f%6b%65&",
    "one key, many times": b"client_key=k&",
    "one encoded key, many times": b"client_key=%6b&",
    "one key in two spellings": b"client_key=%6b&client_key=k&",
    "empty keys": b"client_key=&",
    "names longer than the key's": b"%63" * 11 + b"=%41&",
    "one value": b"%41",
}


@pytest.mark.parametrize("shape", LONG_QUERIES)
def test_a_long_query_decodes_no_name_and_few_values(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """65 KB of "%=%&" took 87 ms before any decision: every name and every value was decoded."""
    decoded: list[bytes] = []

    def counted(text: bytes) -> bytes:
        decoded.append(text)
        return unquote_to_bytes(text)

    monkeypatch.setattr(request, "unquote_to_bytes", counted)
    query = (LONG_QUERIES[shape] * (LONG // len(LONG_QUERIES[shape]) + 1))[:LONG]
    keys = [value_in_query(query, b"client_key"), value_in_query(b"client_key=" + query, b"client_key")]
    assert len(decoded) <= 2 * request.MOST_SPELLINGS
    assert all(len(text) <= request.LONGEST_VALUE for text in decoded)
    assert all(key is None or isinstance(key, bytes | Conflict) for key in keys)


def test_a_name_is_found_in_every_spelling() -> None:
    spellings = [b"client_key", b"client%5Fkey", b"client%5fkey", b"%63%6C%69%65%6e%74%5F%6B%65%79", b"%63lient_ke%79"]
    for name in spellings:
        assert value_in_query(b"a=1&" + name + b"=k&b=2", b"client_key") == b"k"
        assert value_in_query(name + b"=k&client_key=m", b"client_key") is CONFLICT
    for name in (b"client%2Dkey", b"%63lient_keys", b"client_ke", b"client%255Fkey", b"client_key%20"):
        assert value_in_query(name + b"=k", b"client_key") is None


def test_a_key_in_too_many_spellings_is_a_conflict() -> None:
    letters = b"abcde"
    spelled = [
        b"client_key="
        + b"".join(b"%%%x" % letter if number >> bit & 1 else b"%c" % letter for bit, letter in enumerate(letters))
        for number in range(request.MOST_SPELLINGS + 1)
    ]
    assert value_in_query(b"&".join(spelled[:-1] * 2), b"client_key") == letters
    assert value_in_query(b"&".join(spelled), b"client_key") is CONFLICT


@pytest.mark.parametrize("length", [request.LONGEST_VALUE, request.LONGEST_VALUE + 3])
def test_a_value_too_long_for_a_key_is_not_decoded(length: int) -> None:
    value = b"%6b" * (length // 3)
    read = value_in_query(b"client_key=" + value, b"client_key")
    assert read == (b"k" * 128 if length == request.LONGEST_VALUE else value)


NAME_PIECES = st.sampled_from(["%2b", "%2B", "%25", "%26", "%41", "%61", *"aB%+&=.4125*-"])


@settings(max_examples=500)
@given(
    st.text("aB%+&.4125*-", min_size=1, max_size=4),
    st.lists(st.lists(NAME_PIECES, max_size=8).map("".join), max_size=4),
)
def test_a_parameter_of_any_name_is_found_as_urllib_finds_it(name: str, parts: list[str]) -> None:
    query = "&".join([*parts, *(part.replace("&", "") + "=k" for part in parts)])
    pairs = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    values = {value.encode("latin-1") for found, value in pairs if found == name and value}
    expected = CONFLICT if len(values) > 1 else next(iter(values), None)
    assert value_in_query(query.encode(), name.encode()) == expected


@pytest.mark.parametrize(
    ("root_path", "path", "exempt"),
    [
        ("/w", "/widget.js", True),
        ("/w", "/w/widget.js", True),
        ("/", "/widget.js", True),
        ("/widget", "/widget.js", True),
        ("/widget.js", "/widget.js", False),
        ("/w/", "/w/widget.js", False),
        ("/w", "/w/w/widget.js", False),
        (None, "/widget.js", True),
    ],
)
def test_the_root_path_is_cut_at_the_end_of_a_segment(root_path: str | None, path: str, *, exempt: bool) -> None:
    """FastAPI(root_path="/w") refused "/widget.js", and "/" disabled every exemption."""
    assert Paths(("/widget.js",)).covers({"path": path, "root_path": root_path}) is exempt


PATHS = st.lists(st.sampled_from(["", "w", "widget.js", "W"]), max_size=3).map("/".join)


@given(PATHS, PATHS)
def test_the_root_path_is_cut_as_starlette_cuts_it(root_path: str, path: str) -> None:
    scope = {"path": f"/{path}", "root_path": f"/{root_path}" if root_path else ""}
    below = get_route_path(scope)
    assert Paths((below or "/none",)).covers(scope) is bool(below)
