"""gatekeeper keys list: its table and its filters."""

import errno
import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from gatekeeper.cli.columns import align
from gatekeeper.cli.key_table import LEAST, key_table
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.testing import FakeHub
from tests.support.rows import TOKEN, client_key, row

from .support import Keys

ID = "0b5c1d2e-3f4a-4b6c-8d7e-9fa0b1c2d3e4"
DOMAIN = "checkout-eu-west.shop.customer-number-7.com"  # 43 characters


def keys_of(*rows: dict[str, object]) -> list[WidgetKey]:
    return [RowReader().convert(index, each) for index, each in enumerate(rows)]


# The table


def test_80_columns_hold_the_domains_whole() -> None:
    """A cut domain answers nothing, and a folded one cannot be copied."""
    keys = keys_of(row(1, id=ID, name="The shop of customer number seven", domain_allowlist=[DOMAIN, f"*.{DOMAIN[2:]}"]))
    lines = list(align(key_table(keys, wide=False), width=80, foldable=LEAST))
    assert lines == [
        f"KEY        NAME             {'ALLOWLIST':43}  STATE",
        f"…00000001  The shop of      {DOMAIN}  enabled",
        f"           customer number  *.{DOMAIN[2:]}",
        "           seven",
    ]
    assert max(map(len, lines)) <= 80


def test_long_names_and_long_domains_are_folded_and_never_cut() -> None:
    name, domain = "n" * 200, f"{'d' * 63}.{'e' * 63}.example"
    table = key_table(keys_of(row(1, name=name, domain_allowlist=[domain])), wide=False)
    lines = list(align(table, width=80, foldable=LEAST))
    assert max(map(len, lines)) <= 80
    assert "".join(line[11:23].strip() for line in lines[1:]) == name
    assert "".join(line[25:71].strip() for line in lines[1:]).removesuffix("enabled") == domain


def test_the_wide_table_has_every_field_in_full() -> None:
    used, disabled = "2026-03-04T05:06:07.891Z", "2026-03-05T00:00:00Z"
    keys = keys_of(row(1, id=ID, agent_id="agent-7", last_used_at=used, disabled_at=disabled), row(2, domain_allowlist=[]))
    _, first, second = key_table(keys, wide=True)
    assert first[3:] == ("disabled since 2026-03-05 00:00:00+00:00", ID, "agent-7", "2026-03-04 05:06:07+00:00")
    assert second[2:] == ("none: blocked", "enabled", "key-2", "", "never")


def test_a_pipe_gets_whole_lines(fake: FakeHub, at_fake: Keys) -> None:
    """A program, or a file, has no width."""
    name = "n" * 200
    fake.lists(row(1, name=name), row(2, disabled_at="2026-02-02T00:00:00Z"))
    _, first, second = at_fake("list").out.splitlines()
    assert f"…00000001  {name}  acme.com   enabled" == first
    assert second.endswith("disabled")


def test_wide_shows_the_ids(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1, id=ID))
    assert ID in at_fake("list", "--wide").out
    assert ID not in at_fake("list").out


@pytest.mark.process
def test_a_terminal_of_80_columns_gets_lines_that_fit(fake: FakeHub, tmp_path: Path) -> None:
    """The width is that of a real terminal, not of a variable."""
    fake.lists(row(1, id=ID, name="The shop of customer number seven", domain_allowlist=[DOMAIN]))
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    environment = {**kept, "GATEKEEPER_HUB": fake.url, "GATEKEEPER_TOKEN": TOKEN, "TERM": "xterm"}
    command = [sys.executable, "-m", "gatekeeper", "keys", "list"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, cwd=tmp_path
    )
    os.close(theirs)
    said = read_all(ours)
    assert process.wait(60) == 0
    lines = said.decode().split("\r\n")
    assert any(DOMAIN in line for line in lines)
    assert max(map(len, lines)) <= 80


def read_all(terminal: int) -> bytes:
    """Read a terminal until its last writer has gone, which Linux reports as EIO."""
    said = b""
    try:
        while piece := os.read(terminal, 65_536):
            said += piece
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    finally:
        os.close(terminal)
    return said


# Filters


CUSTOMERS = (
    row(1, name="Acme Shop", domain_allowlist=["*.acme.com"]),
    row(2, name="ACME blog", domain_allowlist=["http://blog.acme.com"], last_used_at="2026-01-02T03:04:05Z"),
    row(3, name=None, domain_allowlist=["*.acme.com", "https://acme.com/x"], disabled_at="2026-01-02T03:04:05Z"),
    row(4, name="Straße", domain_allowlist=["localhost:*", "App://My.App/"]),
)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), [1, 2, 3, 4]),
        (("--name", "acme"), [1, 2]),
        (("--name", "STRASSE"), [4]),
        (("--allows", "https://blog.acme.com/post?id=7"), [1, 3]),
        (("--allows", "blog.acme.com"), [1, 3]),
        (("--allows", "http://blog.acme.com"), [1, 2, 3]),
        (("--allows", "http://localhost:3000"), [4]),
        (("--allows", "https://acme.com"), []),
        (("--allows", "app://My.app/index.html"), [4]),
        (("--allows", "app://localhost"), []),
        (("--enabled",), [1, 2, 4]),
        (("--disabled",), [3]),
        (("--unused",), [1, 3, 4]),
        (("--allows", "http://blog.acme.com", "--enabled", "--unused"), [1]),
    ],
)
def test_list_takes_the_keys_that_meet_all_conditions(
    fake: FakeHub, at_fake: Keys, options: tuple[str, ...], found: list[int]
) -> None:
    fake.lists(*CUSTOMERS)
    done = at_fake("list", *options)
    assert [line.split()[0] for line in done.out.splitlines()[1:] if line.startswith("…")] == [f"…0000000{n}" for n in found]
    assert [each["id"] for each in at_fake("list", "--json", *options).json] == [f"key-{n}" for n in found]
    assert done.code == 0
    assert done.err == (f"{len(found)} of 4 keys matched\n" if options else "")


def test_an_account_without_keys_is_said(at_fake: Keys) -> None:
    done = at_fake("list")
    assert (done.code, done.out, done.err) == (0, "", "the account has no keys\n")
    assert at_fake("list", "--json").json == []
    assert at_fake("list", "--unused").err == "0 of 0 keys matched\n"


@pytest.mark.parametrize("page", ["", "https://", "https://acme.com:port", "two words"])
def test_allows_of_what_is_no_page_is_wrong_usage(fake: FakeHub, at_fake: Keys, page: str) -> None:
    done = at_fake("list", "--allows", page)
    assert done.code == 2
    assert "--allows is" in done.err
    assert fake.requests == []


# A token for all accounts


def test_the_list_of_all_accounts_says_whose_each_key_is(fake: FakeHub) -> None:
    fake.lists(row(1, account="acme"), row(1, id="key-9", account="globex", domain_allowlist=[]))
    keys = Keys({"GATEKEEPER_HUB": fake.url, "GATEKEEPER_TOKEN": fake.all_accounts_token})
    title, *lines = keys("list").out.splitlines()
    assert (title.split()[-1], [line.split()[-1] for line in lines]) == ("ACCOUNT", ["acme", "globex"])
    assert [each["account"] for each in keys("list", "--json").json] == ["acme", "globex"]
    assert "x-account-id" not in fake.requests[0].headers


def test_a_whole_key_is_found_among_all_accounts(fake: FakeHub) -> None:
    fake.lists(row(1, account="acme"), row(1, id="key-9", account="globex"))
    keys = Keys({"GATEKEEPER_HUB": fake.url, "GATEKEEPER_TOKEN": fake.all_accounts_token})
    shown = keys("show", client_key(1, "globex"))
    assert ("  id         key-9\n  account    globex\n" in shown.out, shown.code) == (True, 0)
    assert "2 keys end in 00000001; name one by its id: key-1, key-9" in keys("show", "00000001").err
    unknown = keys("show", client_key(1, "initech"))
    assert (unknown.code, "no account has a key with" in unknown.err) == (1, True)
    fake.lists()
    assert keys("list").err == "no account has a key\n"


def test_the_list_of_one_account_says_nothing_of_accounts(fake: FakeHub, at_fake: Keys) -> None:
    """Other hubs may mean something else by the field, and each key is the account's."""
    fake.lists(row(1, account="acct_17"))
    assert "ACCOUNT" not in at_fake("list", "--wide").out
    assert at_fake("show", client_key(1)).code == 0
