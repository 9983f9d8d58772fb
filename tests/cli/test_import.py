"""gatekeeper keys import, against the reference hub and a misbehaving one."""

import csv
import io
import os
import resource
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gatekeeper.testing import FakeHub, HubAnswer, json_answer
from tests.support.certificates import Certificates
from tests.support.connect_proxy import ConnectProxy
from tests.support.rows import TOKEN, client_key, row

from .support import Keys


def write(directory: Path, *lines: str) -> Path:
    file = directory / "rows.csv"
    file.write_text("\n".join(["name,domain_allowlist,agent_id", *lines, ""]), encoding="utf-8", errors="surrogateescape")
    return file


def minted(file: Path) -> list[list[str]]:
    """The line, the name, the id and the plaintext of each key in a file of keys."""
    header, *records = csv.reader(io.StringIO(file.read_text(), newline=""), strict=True)
    assert header == ["line", "name", "domain_allowlist", "agent_id", "id", "public_key"]
    return [[line, name, key_id, key] for line, name, _, _, key_id, key in records]


def test_import_mints_a_key_per_line_into_a_file_only_for_the_owner(keys: Keys, tmp_path: Path) -> None:
    file = write(tmp_path, "Shop,acme.com *.acme.com,agent-7", '"Blog ""x""",blog.acme.com;www.acme.com,', "Bare,,")
    done = keys("import", str(file))
    assert done.code == 0, done.err
    target = tmp_path / "rows.keys.csv"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [(listed["name"], listed["domain_allowlist"], listed["agent_id"]) for listed in keys.rows()] == [
        ("Shop", ["acme.com", "*.acme.com"], "agent-7"),
        ('Blog "x"', ["blog.acme.com", "www.acme.com"], None),
        ("Bare", [], None),
    ]
    for (line, *_, key_id, public_key), listed, number in zip(minted(target), keys.rows(), (2, 3, 4), strict=True):
        assert (line, key_id) == (str(number), listed["id"])
        assert public_key.endswith(listed["last8"])
        assert public_key not in done.out + done.err


def test_a_bad_line_is_named_and_the_others_are_imported(keys: Keys, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "Shop,acme.com,",
        "Path,acme.com/shop,",
        '"Open,acme.com,',
        "Few,acme.com",
        "Many,acme.com,,,",
        ",acme.com,",
        "",
        "Caf\udce9,acme.com,",
        "x" * 201 + ",acme.com,",
        "Last,acme.com,",
    )
    done = keys("import", str(file))
    assert done.code == 1
    assert [listed["name"] for listed in keys.rows()] == ["Shop", "Last"]
    for line, said in (
        (3, "'acme.com/shop' has a path"),
        (4, ""),
        (5, "it has 2 fields: expected 3"),
        (6, "it has 5 fields"),
        (7, "it has no name"),
        (9, "not UTF-8"),
        (10, "200"),
    ):
        assert [text for text in done.err.splitlines() if f"line {line}: " in text and said in text], (line, done.err)
    assert "7 lines failed" in done.err
    assert "--resume" in done.err


def test_an_import_can_be_resumed(keys: Keys, tmp_path: Path) -> None:
    file = write(tmp_path, "Shop,acme.com,", "Path,acme.com/shop,", "Last,acme.com,")
    assert keys("import", str(file)).code == 1
    write(tmp_path, "Shop,acme.com,", "Path,acme.com,", "Last,acme.com,")
    done = keys("import", str(file), "--resume")
    assert done.code == 0, done.err
    assert [listed["name"] for listed in keys.rows()] == ["Shop", "Last", "Path"]
    assert [line for line, *_ in minted(tmp_path / "rows.keys.csv")] == ["2", "4", "3"]
    assert keys("import", str(file), "--resume").code == 0
    assert len(keys.rows()) == 3


def test_an_import_never_overwrites_a_file(keys: Keys, tmp_path: Path) -> None:
    file = write(tmp_path, "Shop,acme.com,")
    target = tmp_path / "rows.keys.csv"
    target.write_text("the only copy")
    done = keys("import", str(file))
    assert done.code == 2
    assert "already exists" in done.err
    assert target.read_text() == "the only copy"
    assert keys("import", str(file), "--resume").code == 2
    assert keys.rows() == []
    assert target.read_text() == "the only copy"


def test_an_import_does_not_follow_a_symlink(keys: Keys, tmp_path: Path) -> None:
    file = write(tmp_path, "Shop,acme.com,")
    (tmp_path / "rows.keys.csv").symlink_to(tmp_path / "elsewhere")
    assert keys("import", str(file)).code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_import_keeps_the_minted_keys_and_says_how_to_resume(fake: FakeHub, at_fake: Keys, tmp_path: Path) -> None:
    created = json_answer({**row(1), "public_key": "pk_live_acme_00000001"}, 201)
    fake.then(created, HubAnswer(503))
    file = write(tmp_path, "Shop,acme.com,", "Blog,acme.com,", "Last,acme.com,")
    done = at_fake("import", str(file))
    assert done.code == 3
    assert f"Minted and written to {tmp_path / 'rows.keys.csv'}: 1 key." in done.err
    assert f"gatekeeper keys import {file} --out {tmp_path / 'rows.keys.csv'} --resume" in done.err
    assert minted(tmp_path / "rows.keys.csv") == [["2", "Shop", "key-1", "pk_live_acme_00000001"]]
    assert len(fake.requests) == 2


def test_a_hub_that_asks_for_an_account_names_the_option(fake: FakeHub, at_fake: Keys, tmp_path: Path) -> None:
    fake.always(json_answer({"error": "Missing X-Account-ID header"}, 400))
    done = at_fake("import", str(write(tmp_path, "Shop,acme.com,")))
    assert done.code == 1
    assert "pass --account; it says" in done.err


@pytest.mark.parametrize(("status", "code"), [(401, 1), (403, 1), (404, 3), (429, 3), (500, 3)])
def test_an_import_stops_at_the_first_failure_of_the_hub(
    fake: FakeHub, at_fake: Keys, tmp_path: Path, status: int, code: int
) -> None:
    fake.always(HubAnswer(status))
    assert at_fake("import", str(write(tmp_path, "Shop,acme.com,", "Blog,acme.com,"))).code == code
    assert len(fake.requests) == 1


def test_each_key_is_written_before_the_next_one_is_minted(fake: FakeHub, at_fake: Keys, tmp_path: Path) -> None:
    seen: list[int] = []

    def create(_: object) -> HubAnswer:
        seen.append(len((tmp_path / "rows.keys.csv").read_text().splitlines()))
        return json_answer({**row(len(seen)), "public_key": f"pk_live_acme_{len(seen):08d}"}, 201)

    fake.always(create)
    assert at_fake("import", str(write(tmp_path, *(f"Key {number},acme.com," for number in range(5))))).code == 0
    assert seen == [1, 2, 3, 4, 5]


def test_a_changed_file_is_resumed_by_the_content_of_its_lines(keys: Keys, tmp_path: Path) -> None:
    """Lines were inserted, moved, removed and corrected since."""
    file = write(tmp_path, "Shop,acme.com,", "Blog,blog.acme.com;www.acme.com,agent-7", "Gone,gone.example,", "Bad,a/b,")
    assert keys("import", str(file)).code == 1
    write(tmp_path, "New,new.example,", "Blog,blog.acme.com www.acme.com,agent-7", "Shop,acme.com,", "Bad,b.example,")
    done = keys("import", str(file), "--resume")
    assert done.code == 0, done.err
    gone = minted(tmp_path / "rows.keys.csv")[2][2]
    assert f"the key {gone} (Gone) in {tmp_path / 'rows.keys.csv'} has no line in {file} any more" in done.err
    assert [listed["name"] for listed in keys.rows()] == ["Shop", "Blog", "Gone", "New", "Bad"]


def test_lines_with_equal_fields_are_counted(fake: FakeHub, at_fake: Keys, tmp_path: Path) -> None:
    """A third line like the first two is inserted before them. It gets a key, once."""

    def create(_: object) -> HubAnswer:
        return json_answer({**row(len(fake.requests)), "public_key": client_key(len(fake.requests))}, 201)

    fake.always(create)
    file = write(tmp_path, "Shop,acme.com,", "Shop,acme.com,")
    assert at_fake("import", str(file)).code == 0
    write(tmp_path, "Shop,acme.com,", "Shop,acme.com,", "Shop,acme.com,")
    for _ in range(2):
        assert at_fake("import", str(file), "--resume").code == 0
        assert len(fake.requests) == 3


def test_a_line_whose_key_has_other_fields_is_refused(keys: Keys, tmp_path: Path) -> None:
    """A second key of the same name is hardly what the change of a line asks for."""
    file = write(tmp_path, "Shop,acme.com,")
    assert keys("import", str(file)).code == 0
    write(tmp_path, "Shop,acme.com *.acme.com,", "Blog,acme.com,")
    done = keys("import", str(file), "--resume")
    assert done.code == 1
    (shop, blog) = keys.rows()
    assert (shop["name"], shop["domain_allowlist"], blog["name"]) == ("Shop", ["acme.com"], "Blog")
    assert f"line 2: 'Shop' has the key {shop['id']}, with other fields" in done.err
    assert "has no line" not in done.err


def test_names_that_look_like_formulas_are_harmless_and_resumed(keys: Keys, tmp_path: Path) -> None:
    """Spreadsheets run what begins with such characters, and where the comma is the decimal sign, they split at `;`."""
    names = ["=HYPERLINK(1)", "+1", "-1", "@x", "'=quoted", "'plain", "a;=1", 'a;"=1', "a\n@x", "a,'-b=c"]
    file = write(tmp_path, *('"{}",,'.format(name.replace('"', '""')) for name in names))
    assert keys("import", str(file)).code == 0
    written = [name for _, name, _, _ in minted(tmp_path / "rows.keys.csv")]
    assert written[:6] == ["'=HYPERLINK(1)", "'+1", "'-1", "'@x", "''=quoted", "'plain"]
    assert written[6:] == ["a;'=1", "a;'\"=1", "a\n'@x", "a,''-b=c"]
    assert keys("import", str(file), "--resume").code == 0
    assert [listed["name"] for listed in keys.rows()] == names


def test_a_quoted_line_break_is_part_of_a_name(keys: Keys, tmp_path: Path) -> None:
    file = write(tmp_path, '"Two', 'lines",acme.com,', "Last,acme.com,")
    for options in ((), ("--resume",)):
        assert keys("import", str(file), *options).code == 0
    assert [listed["name"] for listed in keys.rows()] == ["Two\nlines", "Last"]
    assert [line for line, *_ in minted(tmp_path / "rows.keys.csv")] == ["2", "4"]


# Shells start programs in the background with SIGINT ignored, and children inherit that. An import then ignores it, too.
AS_AT_A_TERMINAL = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('gatekeeper', run_name='__main__', alter_sys=True)"
)


@pytest.mark.process
@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_import_once_the_key_is_saved(
    fake: FakeHub, at_fake: Keys, tmp_path: Path, ending: signal.Signals, code: int
) -> None:
    """The signal comes while the hub mints the second key. The printed command continues."""

    def created(number: int) -> HubAnswer:
        return json_answer({**row(number), "public_key": client_key(number)}, 201)

    (tmp_path / "of [acme] 1").mkdir()
    file = write(tmp_path / "of [acme] 1", "First,,", "Second,,", "Third,,", "Fourth,,")
    hold = fake.hold()
    second = created(2)
    fake.then(created(1), HubAnswer(201, second.body, second.headers, hold=hold))
    token = {"GATEKEEPER_TOKEN": at_fake.environment["GATEKEEPER_TOKEN"]}
    command = [sys.executable, "-c", AS_AT_A_TERMINAL, "keys", "import", str(file), "--hub", fake.url]
    importing = subprocess.Popen(command, env={**os.environ, **token}, stderr=subprocess.PIPE, text=True)
    fake.wait_for_requests(2)
    importing.send_signal(ending)
    importing.send_signal(ending)
    hold.release()
    _, said = importing.communicate(timeout=30)
    assert importing.returncode == code
    assert f"stopped by {ending.name}: 2 keys minted and written to {file.with_suffix('.keys.csv')}, 2 lines left" in said
    assert "Traceback" not in said
    program, *again = shlex.split(said.partition("To continue: ")[2])
    assert program == "gatekeeper"
    fake.then(created(3), created(4))
    assert Keys(token)(*again[1:]).code == 0
    assert [key for *_, key in minted(file.with_suffix(".keys.csv"))] == [client_key(number) for number in (1, 2, 3, 4)]
    assert [request.json["name"] for request in fake.requests] == ["First", "Second", "Third", "Fourth"]


@pytest.mark.process
def test_a_kill_in_the_middle_loses_no_minted_key(fake: FakeHub, at_fake: Keys, tmp_path: Path) -> None:
    file = write(tmp_path, "First,,", "Second,,", "Third,,")

    def created(number: int) -> HubAnswer:
        return json_answer({**row(number), "public_key": client_key(number)}, 201)

    hold = fake.hold()
    fake.then(created(1), created(2), HubAnswer(500, hold=hold))
    command = [sys.executable, "-m", "gatekeeper", "keys", "import", str(file)]
    with subprocess.Popen(command, env={**os.environ, **at_fake.environment}, stderr=subprocess.DEVNULL) as importing:
        fake.wait_for_requests(3)
        importing.kill()
    hold.release()
    assert [key for *_, key in minted(tmp_path / "rows.keys.csv")] == [client_key(1), client_key(2)]
    fake.then(created(3))
    assert at_fake("import", str(file), "--resume").code == 0
    assert [key for *_, key in minted(tmp_path / "rows.keys.csv")] == [client_key(1), client_key(2), client_key(3)]
    assert [request.json["name"] for request in fake.requests] == ["First", "Second", "Third", "Third"]


def command_of(said: str) -> list[str]:
    """The words of the printed command that continues."""
    (line,) = [line for line in said.splitlines() if "To continue" in line]
    return shlex.split(line.partition("To continue")[2].partition(": ")[2])


def test_the_printed_command_has_every_option_that_leads_to_the_hub(tmp_path: Path) -> None:
    """The hub has a private certificate behind a proxy, and another field for the last 8 characters."""
    certificates = Certificates()
    authority = certificates.write_authority(tmp_path / "ca.pem")
    with FakeHub(tls=certificates.right()) as hub, ConnectProxy(hub.url) as tunnel:
        options = ["--hub", hub.url, "--account", "acme", "--suffix-field", "end"]
        options += ["--ca-file", str(authority), "--proxy", tunnel.url]
        created = json_answer({"id": "key-1", "end": "00000001", "public_key": client_key(1), "domain_allowlist": []}, 201)
        hub.then(HubAnswer(401), created)
        keys = Keys({"GATEKEEPER_TOKEN": TOKEN})
        file = write(tmp_path, "Shop,,")
        again = command_of(keys("import", str(file), *options).err)
        assert again == [
            "gatekeeper",
            "keys",
            "import",
            str(file),
            "--out",
            str(tmp_path / "rows.keys.csv"),
            *options,
            "--resume",
        ]
        assert keys(*again[2:]).code == 0
    assert [key for *_, key in minted(tmp_path / "rows.keys.csv")] == [client_key(1)]
    assert len(tunnel.heads) == 2


def test_the_printed_command_has_no_secret_but_names_its_option(fake: FakeHub, tmp_path: Path) -> None:
    fake.always(HubAnswer(401))
    file = write(tmp_path, "Shop,,")
    proxy = fake.url.replace("://", "://operator:a-secret@")
    done = Keys({})("import", str(file), "--hub", "http://hub.test", "--token", TOKEN, "--proxy", proxy)
    assert done.code == 1
    assert "To continue, with your --token and --proxy: gatekeeper keys import " in done.err
    assert command_of(done.err)[-3:] == ["--hub", "http://hub.test", "--resume"]
    assert TOKEN not in done.out + done.err
    assert "a-secret" not in done.out + done.err


@pytest.mark.slow
@pytest.mark.parametrize("named", ["--proxy", "HTTP_PROXY"])
def test_a_proxy_that_cannot_be_reached_is_named(fake: FakeHub, at_fake: Keys, tmp_path: Path, named: str) -> None:
    proxy = "http://127.0.0.1:1"
    options, environment = (["--proxy", proxy], {}) if named == "--proxy" else ([], {named: proxy})
    done = at_fake("import", str(write(tmp_path, "Shop,,")), *options, **environment)
    assert done.code == 3
    assert done.err.count(f"a proxy may be in the way, see {named}. Minted and written to") == 1
    assert fake.requests == []


@pytest.mark.parametrize("header", ["", "name", "name,allowlist", "name,domain_allowlist,name"])
def test_a_file_with_other_columns_is_refused(keys: Keys, tmp_path: Path, header: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"{header}\nShop,acme.com\n")
    done = keys("import", str(file))
    assert done.code == 2
    assert "expected the columns name,domain_allowlist,agent_id" in done.err
    assert not (tmp_path / "rows.keys.csv").exists()


def test_a_byte_order_mark_and_a_missing_last_column_are_accepted(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("\ufeffname,domain_allowlist\r\nBücher,bücher.example\r\n".encode())
    assert keys("import", str(file), "--out", str(tmp_path / "keys")).code == 0
    assert [listed["name"] for listed in keys.rows()] == ["Bücher"]


def test_a_missing_file_exits_with_2(keys: Keys, tmp_path: Path) -> None:
    assert keys("import", str(tmp_path / "nothing.csv")).code == 2
    assert keys("import", str(write(tmp_path, "Shop,,")), "--resume").code == 2


def test_a_truncated_file_of_keys_is_not_resumed(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "rows.keys.csv").write_text("line,name,domain_allowlist,agent_id,id,public_key\r\n2,Shop,,,key-1,pk_live_")
    done = keys("import", str(write(tmp_path, "Shop,,")), "--resume")
    assert (done.code, "cut short" in done.err) == (2, True)
    assert keys.rows() == []


def test_a_key_that_cannot_be_saved_is_named_and_stops_the_import(fake: FakeHub, at_fake: Keys, tmp_path: Path) -> None:
    fake.always(lambda _: json_answer({**row(1), "public_key": client_key(1)}, 201))
    file = write(tmp_path, "First,,", "Second,,")

    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))

    done = subprocess.run(
        [sys.executable, "-B", "-m", "gatekeeper", "keys", "import", str(file)],
        env={**os.environ, **at_fake.environment},
        capture_output=True,
        text=True,
        preexec_fn=fill_the_disk,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "the key key-1 of line 2 was minted but not saved: delete it with `gatekeeper keys delete key-1`" in done.stderr
    assert minted(tmp_path / "rows.keys.csv") == []
    assert "Traceback" not in done.stderr
    assert client_key(1) not in done.stdout + done.stderr
    assert len(fake.requests) == 1


def test_a_file_that_cannot_be_created_stops_the_import_first(fake: FakeHub, at_fake: Keys, tmp_path: Path) -> None:
    file = write(tmp_path, "Shop,,")
    done = at_fake("import", str(file), "--out", str(tmp_path / "nowhere" / "keys"))
    assert (done.code, "cannot write" in done.err) == (2, True)
    assert fake.requests == []


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"name,key\n", b"line,name,domain_allowlist,agent_id,id,public_key\n2,Shop,key-1\n", None]
)
def test_a_file_of_another_program_is_not_resumed(
    fake: FakeHub, at_fake: Keys, tmp_path: Path, content: bytes | None
) -> None:
    target = tmp_path / "rows.keys.csv"
    target.mkdir() if content is None else target.write_bytes(content)
    done = at_fake("import", str(write(tmp_path, "Shop,,")), "--resume")
    assert done.code == 2
    assert str(target) in done.err
    assert fake.requests == []
