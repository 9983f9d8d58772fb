"""The headers of a request for the list."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from gatekeeper.hub.accounts import Revision
from gatekeeper.hub.list_request import MAX_WAIT, ListRequest, read_list_request

MARK = "0123456789abcdef"

# What a field of a header may have, according to the parsers of HTTP/1.1.
field_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))


def asked_by(*fields: tuple[str, str]) -> ListRequest:
    """Read a request with these fields of headers."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    return read_list_request(Request({"type": "http", "method": "GET", "headers": headers}))


def wait_of(*values: str) -> int | None:
    """Read the wait of a request with these fields of Prefer."""
    return asked_by(*(("Prefer", value) for value in values)).wait


def takes_delta(*values: str) -> bool:
    """Read whether a request with these fields of A-IM takes a delta."""
    return asked_by(*(("A-IM", value) for value in values)).takes_delta


def test_a_request_without_headers_asks_for_the_list() -> None:
    assert asked_by() == ListRequest(frozenset(), takes_delta=False, takes_gzip=False, wait=None)


def test_each_header_is_read() -> None:
    fields = [("If-None-Match", '"a", W/"b"'), ("A-IM", "rows"), ("Accept-Encoding", "gzip"), ("Prefer", "wait=10")]
    assert asked_by(*fields) == ListRequest(frozenset({'"a"', 'W/"b"'}), takes_delta=True, takes_gzip=True, wait=10)


@pytest.mark.parametrize(
    "value",
    ["rows", "ROWS", " rows ", "rows;q=1", "rows;q=0.001", "rows ; Q = 0.5", "vcdiff, rows, gzip", ",rows,", "rows;q=1.000"],
)
def test_a_im_names_rows(value: str) -> None:
    assert takes_delta(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "row",
        "rowset",
        "xrows",
        "rows;q=0",
        "rows;q=0.000",
        "rows; q=0",
        "rows;q=",
        "rows;q=x",
        "rows;x=1",
        "rows q=1",
        "vcdiff",
        "vcdiff;rows",
        '"rows"',
        "rows=1",
        "identity",
        "*",
    ],
)
def test_a_im_does_not_name_rows(value: str) -> None:
    assert not takes_delta(value)


def test_a_im_can_be_in_several_fields() -> None:
    assert takes_delta("vcdiff", "rows")
    assert not takes_delta("vcdiff", "gzip")


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("wait=1", 1),
        ("wait=10", 10),
        ("wait=60", MAX_WAIT),
        ("wait=61", MAX_WAIT),
        ("wait=" + "9" * 5000, MAX_WAIT),
        ("wait=007", 7),
        ("WAIT=10", 10),
        (" wait = 10 ", 10),
        ("wait\t=\t10", 10),
        ('wait="10"', 10),
        ("wait=10; x=y", 10),
        ('wait=10 ;x="a,b";y', 10),
        ("respond-async, wait=10", 10),
        ("wait=10, respond-async", 10),
        (",, wait=10,,", 10),
        ("wait=10, wait=20", 10),
        ('foo="a, wait=5, b", wait=10', 10),
        (r'foo="a\", wait=5, \"b", wait=10', 10),
        (r'foo; bar="wait=5, ", wait=10', 10),
        ("a b, wait=10", 10),
    ],
)
def test_prefer_names_a_wait(value: str, wait: int) -> None:
    assert wait_of(value) == wait


@pytest.mark.parametrize(
    "value",
    [
        "",
        "wait",
        "wait=",
        'wait=""',
        "wait=0",
        "wait=000",
        "wait=-1",
        "wait=+1",
        "wait=1.5",
        "wait=1e1",
        "wait=ten",
        "wait=1 0",
        "wait=²",
        "wait=10s",
        "wait=0x10",
        "wait==10",
        "wait 10",
        "wait:10",
        "await=10",
        "waits=10",
        "x; wait=10",
        "x=wait=10",
        '"wait"=10',
        '"wait=10"',
        'wait="10',
        'wait=10"',
        'x="y, wait=10',
        "wait=ten, wait=10",
        "wait, wait=10",
        "respond-async",
    ],
)
def test_prefer_names_no_wait(value: str) -> None:
    assert wait_of(value) is None


def test_of_several_fields_the_first_wait_counts() -> None:
    assert wait_of("respond-async", "wait=10", "wait=20") == 10


@given(st.lists(field_values, max_size=3))
@example(['"\\' * 16_000])
@example(['"\\",' * 8_000])
@example(["wait" + " " * 32_000 + "x"])
@example(["wait=" + " " * 32_000 + "x"])
@example(["x," * 16_000])
@example([";" * 32_000 + '"'])
def test_no_header_is_an_error(values: list[str]) -> None:
    asked = asked_by(*((name, value) for name in ("A-IM", "Prefer", "Accept-Encoding", "If-None-Match") for value in values))
    assert asked.wait is None or 1 <= asked.wait <= MAX_WAIT
    assert len(asked.bases) <= len(asked.tags)


tokens = st.text("abcXYZ019-_!#", min_size=1, max_size=8)
words = tokens | st.text("ab ,;=019", max_size=12).map('"{}"'.format)
parameters = st.tuples(tokens, words).map("; {0[0]}={0[1]}".format) | tokens.map(";{}".format) | st.just("")
others = st.builds("{}={}{}".format, tokens.filter(lambda token: token.lower() != "wait"), words, parameters)


@given(st.lists(others, max_size=4), st.integers(1, 10**30), st.lists(others, max_size=4), st.booleans())
def test_a_wait_is_found_among_other_preferences(before: list[str], wait: int, after: list[str], quoted: bool) -> None:  # noqa: FBT001 - drawn
    named = f'Wait="{wait}"' if quoted else f"wait={wait}"
    assert wait_of(", ".join([*before, named, *after])) == min(wait, MAX_WAIT)
    assert wait_of(*before, named, *after) == min(wait, MAX_WAIT)
    assert wait_of(*before, *after) is None


def test_the_bases_are_the_revisions_with_their_tags_as_sent() -> None:
    tags = f'W/"41-{MARK}", "42-{MARK}", "other", *, W/"043-{MARK}"'
    assert asked_by(("If-None-Match", tags), ("A-IM", "rows")).bases == {
        Revision(41, MARK): f'W/"41-{MARK}"',
        Revision(42, MARK): f'"42-{MARK}"',
    }
    assert asked_by(("If-None-Match", tags)).bases == {}
    assert asked_by(("A-IM", "rows")).bases == {}
