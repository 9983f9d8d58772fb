"""The standard streams of all commands: other encodings, full disks and closed pipes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from gatekeeper.cli import app
from gatekeeper.cli import run as run_with_streams
from gatekeeper.testing import FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.rows import client_key, row

from .support import Invoked, Keys, gatekeeper

NAME = "Bücher ✓ :smile:"
LOST = "gatekeeper: the key key-1 was minted but not shown; delete it: gatekeeper keys delete key-1"
FULL = "gatekeeper: cannot write the output: No space left on device"


@pytest.fixture
def environment(fake: FakeHub, at_fake: Keys) -> dict[str, str]:
    """A hub that mints and lists a key. Its list has a bad row, which causes a warning."""
    shop = row(1, name=NAME)
    answers = {"POST": {**shop, "public_key": client_key(1)}, "PATCH": shop, "GET": [shop, {}]}

    def answer(request: HubRequest) -> HubAnswer:
        events = request.target.endswith("/events")
        return json_answer([] if events else answers[request.method], 201 if request.method == "POST" else 200)

    fake.always(answer)
    return at_fake.environment


@contextmanager
def unwritable(kind: str) -> Iterator[TextIO]:
    """A stream to a full disk, or to a pipe that is closed at its other end."""
    if kind == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        yield stream


def invoke(*arguments: str, out: TextIO, err: TextIO, **environment: str) -> int:
    """Run a command in this process with these streams, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as exited:
            run_with_streams(lambda: app(list(arguments)))
        sys.stdout.close()
        sys.stderr.close()
    assert isinstance(exited.value.code, int)
    return exited.value.code


class Streams:
    """Runs commands with files or unwritable descriptors as standard streams.

    Args:
        directory: for the files.
        environment: of the commands.
    """

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._out, self._err = directory / "out", directory / "err"
        self._environment = environment

    def encoded(self, *arguments: str, encoding: str) -> Invoked:
        """Run a command whose streams have an encoding."""
        with self._out.open("w", encoding=encoding) as out, self._err.open("w", encoding=encoding) as err:
            code = invoke(*arguments, out=out, err=err, **self._environment)
        return Invoked(code, self._out.read_text(encoding), self._err.read_text(encoding))

    def without_output(self, *arguments: str, kind: str) -> Invoked:
        """Run a command whose standard output cannot be written."""
        with unwritable(kind) as out, self._err.open("w", encoding="utf-8") as err:
            code = invoke(*arguments, out=out, err=err, **self._environment)
        return Invoked(code, "", self._err.read_text("utf-8"))

    def without_errors(self, *arguments: str, kind: str) -> Invoked:
        """Run a command whose standard error cannot be written."""
        with unwritable(kind) as err, self._out.open("w", encoding="utf-8") as out:
            code = invoke(*arguments, out=out, err=err, **self._environment)
        return Invoked(code, self._out.read_text("utf-8"), "")


@pytest.fixture
def streams(tmp_path: Path, environment: dict[str, str]) -> Streams:
    return Streams(tmp_path, environment)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_create_shows_the_key_in_any_encoding(streams: Streams, encoding: str) -> None:
    """A pipe on Windows or with LC_ALL=C lacks characters of the name, and of the mask."""
    done = streams.encoded("keys", "create", "Shop", encoding=encoding)
    assert done.code == 0, done.err
    assert f'data-client-key="{client_key(1)}"' in done.out
    assert "cher \\u2713 :smile:" in done.out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_json_is_valid_in_any_encoding(streams: Streams, encoding: str) -> None:
    done = streams.encoded("keys", "create", "Shop", "--json", encoding=encoding)
    assert done.code == 0, done.err
    assert (done.json["name"], done.json["public_key"]) == (NAME, client_key(1))


def test_json_keeps_the_characters_that_the_encoding_has(streams: Streams) -> None:
    assert NAME in streams.encoded("keys", "list", "--json", encoding="utf-8").out


def test_a_list_escapes_the_characters_that_the_encoding_lacks(streams: Streams) -> None:
    done = streams.encoded("keys", "list", encoding="latin-1")
    assert done.code == 0, done.err
    assert "\\u202600000001  Bücher \\u2713 :smile:  acme.com" in done.out


@pytest.mark.parametrize("kind", ["full disk", "closed pipe"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_key_that_cannot_be_shown_is_named(streams: Streams, kind: str, options: tuple[str, ...]) -> None:
    """The hub has minted the key. Its plaintext is lost, so the operator has to delete it."""
    done = streams.without_output("keys", "create", "Shop", *options, kind=kind)
    assert done.code == 2
    assert done.err.splitlines() == ([LOST] if kind == "closed pipe" else [FULL, LOST])


@pytest.mark.parametrize(
    "arguments",
    [
        ("lint", "acme.com"),
        ("keys", "list"),
        ("keys", "show", "key-1"),
        ("keys", "events", "key-2", "--json"),
        ("keys", "disable", "key-1", "--yes"),
        ("check", client_key(1), "https://acme.com"),
        ("--help",),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_reported_in_a_line(streams: Streams, arguments: tuple[str, ...]) -> None:
    done = streams.without_output(*arguments, kind="full disk")
    assert done.code == 2
    assert done.err.splitlines()[-1] == FULL


def test_a_reader_that_has_gone_is_not_reported(streams: Streams) -> None:
    """As in `gatekeeper lint … | head -1`."""
    assert streams.without_output("lint", "acme.com", kind="closed pipe") == (2, "", "")


@pytest.mark.parametrize("kind", ["full disk", "closed pipe"])
def test_an_unwritable_standard_error_changes_nothing(streams: Streams, kind: str) -> None:
    """The list has a bad row, about which a warning cannot be printed."""
    done = streams.without_errors("keys", "list", "--json", kind=kind)
    assert (done.code, [listed["name"] for listed in done.json]) == (0, [NAME])


# As processes, which flush their streams once more at exit


def run_unwritable(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEKEEPER_")}
    with unwritable("full disk") as full:
        return subprocess.run(
            [sys.executable, "-m", "gatekeeper", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, **environment},
            timeout=60,
            check=False,
        )


@pytest.mark.process
def test_the_interpreter_does_not_fail_again_at_exit(environment: dict[str, str]) -> None:
    done = run_unwritable("keys", "create", "Shop", **environment)
    assert (done.returncode, done.stderr.splitlines()) == (2, [FULL, LOST])


@pytest.mark.process
def test_a_process_without_streams_does_not_lose_a_key_silently(environment: dict[str, str]) -> None:
    """A shell closes the descriptors of `>&-` and `2>&-`."""
    create = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "gatekeeper", "keys", "create", "Shop"]
    done = subprocess.run(create, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, LOST)
    create[2] = 'exec "$@" 2>&-'
    done = subprocess.run(create, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, client_key(1) in done.stdout) == (0, True)


@pytest.mark.process
@pytest.mark.parametrize("owner", [("--account", "acme"), ("--all-accounts",)])
def test_a_token_that_cannot_be_shown_is_named(tmp_path: Path, owner: tuple[str, ...]) -> None:
    """Two tokens have the name, and the last one is lost."""
    options = (*owner, "--name", "ci", "--database", str(tmp_path / "hub.sqlite"))
    assert gatekeeper("hub", "token", "create", *options).returncode == 0
    done = run_unwritable("hub", "token", "create", *options)
    listed = json.loads(gatekeeper("hub", "token", "list", "--json", *options[-2:]).stdout)
    lost = f"the token {listed[1]['id']} was minted but not shown; revoke it: gatekeeper hub token revoke {listed[1]['id']}"
    assert (done.returncode, done.stderr.splitlines()) == (2, [FULL, f"gatekeeper: {lost}"])


@pytest.mark.process
def test_a_demo_that_cannot_print_stops_in_order(tmp_path: Path) -> None:
    done = run_unwritable("demo", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr.splitlines()) == (2, [FULL])
    assert list(tmp_path.iterdir()) == []
