"""Files of keys to mint, byte by byte as spreadsheets and people write them."""

from pathlib import Path

import pytest
import typer

from gatekeeper.cli.drafts import Content, read_drafts

HEADER = b"name,domain_allowlist,agent_id\r\n"
SAVE_AS = "save the file as CSV UTF-8 (comma delimited)"


def read(directory: Path, content: bytes) -> tuple[list[tuple[int, Content]], list[str]]:
    file = directory / "customers.csv"
    file.write_bytes(content)
    drafts, bad = read_drafts(file)
    return [(draft.line, draft.content) for draft in drafts], bad


SMITH = '"Tom ""T"" Smith"'
BOOKS = [(2, Content("Bücher", ("bücher.example", "www.acme.com"), "agent-7")), (3, Content('Tom "T" Smith', (), None))]


@pytest.mark.parametrize(
    ("encoding", "line_break", "lines"),
    [
        pytest.param(
            "utf-8-sig",
            "\r\n",
            ("name,domain_allowlist,agent_id", "Bücher,bücher.example;www.acme.com,agent-7", f"{SMITH},,", ""),
            id="Excel, CSV UTF-8",
        ),
        pytest.param(
            "utf-8-sig",
            "\r\n",
            ("Name;Domain_Allowlist;Agent_ID", 'Bücher;"bücher.example;www.acme.com";agent-7', f"{SMITH};;", ""),
            id="Excel in German, CSV UTF-8",
        ),
        pytest.param(
            "utf-16",
            "\r\n",
            ("name\tdomain_allowlist\tagent_id", "Bücher\tbücher.example www.acme.com\tagent-7", f"{SMITH}\t\t", ""),
            id="Excel, Unicode Text",
        ),
        pytest.param(
            "utf-8",
            "\r",
            ('NAME, Domain_Allowlist ,"agent_id"', "Bücher, bücher.example  www.acme.com, agent-7 ", f"{SMITH},,", ""),
            id="Macintosh, another header",
        ),
        pytest.param(
            "utf-8",
            "\n",
            ("agent_id,name,domain_allowlist", 'agent-7,"Bücher","bücher.example;www.acme.com"', f'"",{SMITH},""'),
            id="other columns first, no last line break",
        ),
    ],
)
def test_files_as_spreadsheets_write_them_are_read(
    tmp_path: Path, encoding: str, line_break: str, lines: tuple[str, ...]
) -> None:
    assert read(tmp_path, line_break.join(lines).encode(encoding)) == (BOOKS, [])


def test_quoted_line_breaks_are_part_of_a_record(tmp_path: Path) -> None:
    """Alt-Enter in a cell writes a line break. The next record is counted by lines of the file."""
    drafts, bad = read(tmp_path, HEADER + b'"Two\nlines","acme.com\r\n*.acme.com",\r\n\r\nLast,,\r\nBad,a/b,\r\n')
    assert drafts == [(2, Content("Two\nlines", ("acme.com", "*.acme.com"), None)), (6, Content("Last", (), None))]
    assert [problem.partition(":")[0] for problem in bad] == ["line 7"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b'Tom "T" Smith,acme.com,', 'write a field that contains a quote as "Tom ""T"" Smith"'),
        (b'Shop, "acme.com",', "a quote is in a field without quotes around it"),
        (b'"Shop" x,acme.com,', "expected after '\"'; write a field"),
        (b'"Shop,acme.com,', "it is not valid CSV"),
        (b"Shop,acme.com", "it has 2 fields: expected 3"),
        (b"Shop,acme.com,,", "it has 4 fields: expected 3"),
        (b"Sh\0op,acme.com,", r"its name contains '\x00'"),
        (b"Shop,acme.com,agent\x1b", r"its agent_id contains '\x1b'"),
        (b"Caf\xe9,acme.com,", f"its name is not UTF-8: {SAVE_AS}"),
        (b"Shop,caf\xe9.example,", f"its domain_allowlist is not UTF-8: {SAVE_AS}"),
        (b" ,acme.com,", "it has no name"),
        (b"Shop,acme.com/cart,", "has a path"),
    ],
)
def test_a_bad_record_is_described_and_its_neighbours_are_read(tmp_path: Path, record: bytes, said: str) -> None:
    drafts, bad = read(tmp_path, HEADER + b"First,,\r\n" + record + b'\r\n"Last",,\r\n')
    assert [(line, content.name) for line, content in drafts] == [(2, "First"), (4, "Last")]
    (problem,) = bad
    assert problem.startswith("line 3: ")
    assert said in problem


def test_a_quote_that_is_never_closed_takes_no_other_line(tmp_path: Path) -> None:
    drafts, bad = read(tmp_path, HEADER + b'"Open,acme.com,\r\nShop,acme.com,\r\n"Blog,acme.com,')
    assert [(line, content.name) for line, content in drafts] == [(3, "Shop")]
    assert [problem.partition("; ")[0] for problem in bad] == [
        "line 2: it is not valid CSV: ',' expected after '\"'",
        "line 4: it is not valid CSV: a quoted field is not closed",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"name\r\nShop\r\n", "is 'name': expected the columns name,domain_allowlist,agent_id"),
        (b"name|domain_allowlist\r\n", SAVE_AS),
        ("name\tdomain_allowlist\r\n".encode("utf-16-le"), SAVE_AS),
        (b"name,domain_allowlist,name\r\n", "has a column twice"),
        (b"name;domain_allowlist;owner\r\n", "has the unknown column 'owner'"),
        (b"name,domain_allowlist,,\r\n", "has the unknown column ''"),
        (b"\xff\xfen", "is not valid UTF-16"),
        (b"\x00" * 200_000, SAVE_AS),
        (HEADER, "has no line after the first one"),
        (HEADER + b",,\r\n", "has no line after the first one"),
    ],
)
def test_a_file_that_cannot_be_read_is_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    with pytest.raises(typer.Exit) as exited:
        read(tmp_path, content)
    assert exited.value.exit_code == 2
    assert said in capsys.readouterr().err
