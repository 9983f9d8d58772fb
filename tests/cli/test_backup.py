"""gatekeeper hub backup, restore: what they print, ask and refuse."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gatekeeper import HubClient
from tests.support.real_hub import served_hub

from .support import Invoked, invoke

pytestmark = pytest.mark.process

PEPPER = "the pepper of these tests"


def run(database: Path | str, *arguments: str, answer: str | None = None, pepper: str = PEPPER) -> Invoked:
    """Run `gatekeeper hub` with a database and a pepper in the environment."""
    return invoke("hub", *arguments, answer=answer, GATEKEEPER_DATABASE=str(database), GATEKEEPER_PEPPER=pepper)


def token_ids(database: Path) -> list[str]:
    """List the ids of the tokens."""
    return [token["id"] for token in run(database, "token", "list", "--json").json]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database whose key and token have been revoked since its backup in backup.db."""
    path = tmp_path / "hub.db"
    with served_hub(tmp_path) as served, HubClient(served.url, served.token) as client:
        key = client.widget_keys.create("[Shop]")
        _, of_gate = token_ids(path)
        assert run(path, "token", "revoke", "--yes", of_gate).code == 0
        assert run(path, "backup", str(tmp_path / "backup.db")).code == 0
        client.widget_keys.update(key.id, disabled=True)
    assert run(path, "token", "revoke", "--yes", *token_ids(path)).code == 0
    return path


def test_a_backup_says_that_it_lacks_the_pepper(database: Path) -> None:
    second = database.with_name("second.db")
    done = run(database, "backup", str(second))
    assert (done.code, done.err) == (0, "")
    assert f"{database} is backed up in {second}, without its pepper" in done.out
    assert second.exists()


def test_a_restore_lists_the_revocations_that_it_undoes_and_asks(database: Path) -> None:
    backup = str(database.with_name("backup.db"))
    refused = run(database, "restore", backup, answer="n\n")
    assert (refused.code, "nothing was changed" in refused.err) == (1, True)
    assert "1 key disabled or deleted since the backup will be allowed again" in refused.err
    assert "1 token revoked since the backup will be accepted again" in refused.err
    assert "[Shop]" in refused.err
    assert token_ids(database) == []
    done = run(database, "restore", backup, answer="y\n")
    assert done.code == 0, done.err
    (aside,) = database.parent.glob("hub.db.replaced-*")
    assert f"{database} is restored; {aside} has what it replaced" in done.out
    (token,) = token_ids(database)
    assert token in refused.err


def test_a_restore_names_revived_tokens_for_all_accounts(database: Path) -> None:
    assert run(database, "token", "create", "--all-accounts", "--name", "gates").code == 0
    backup = str(database.with_name("second.db"))
    assert run(database, "backup", backup).code == 0
    (token,) = token_ids(database)
    assert run(database, "token", "revoke", "--yes", token).code == 0
    done = run(database, "restore", "--yes", backup)
    assert "1 token revoked since the backup will be accepted again" in done.err
    assert f"{token}  all accounts  gates" in done.err
    assert token_ids(database) == [token]


def test_a_restore_needs_an_answer_or_yes(database: Path) -> None:
    backup = str(database.with_name("backup.db"))
    unanswered = run(database, "restore", backup)
    assert (unanswered.code, "--yes" in unanswered.err) == (2, True)
    assert token_ids(database) == []
    assert run(database, "restore", "--yes", backup).code == 0
    assert len(token_ids(database)) == 1


def test_a_restore_counts_what_was_made_since_the_backup(database: Path) -> None:
    assert run(database, "token", "create", "--account", "acme", "--name", "since").code == 0
    done = run(database, "restore", "--yes", str(database.with_name("backup.db")))
    assert "0 keys and 1 token made since the backup will be unknown" in done.err


def test_a_restore_to_another_place_makes_no_pepper(database: Path, tmp_path: Path) -> None:
    """A new pepper would recognise no token of the backup."""
    backup, elsewhere = str(database.with_name("backup.db")), tmp_path / "elsewhere" / "hub.db"
    elsewhere.parent.mkdir()
    done = run(elsewhere, "restore", "--yes", backup, pepper="")
    assert (done.code, "--pepper-file" in done.err) == (2, True)
    assert list(elsewhere.parent.iterdir()) == []
    assert run(elsewhere, "restore", "--yes", backup).code == 0
    assert [path.name for path in elsewhere.parent.iterdir()] == ["hub.db"]
    assert len(token_ids(elsewhere)) == 1


def test_a_damaged_database_is_said_to_be_too_damaged_to_compare(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 10)
    done = run(database, "restore", "--yes", str(database.with_name("backup.db")))
    assert (done.code, "too damaged" in done.err) == (0, True)
    assert len(token_ids(database)) == 1


def test_refusals_are_sentences_and_change_nothing(database: Path, tmp_path: Path) -> None:
    backup, missing = str(database.with_name("backup.db")), tmp_path / "missing"
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for done, said in (
        (run(database, "backup", backup), f"{backup} exists already"),
        (run(database, "backup", str(missing / "b.db")), f"cannot write {missing}"),
        (run(missing, "backup", str(tmp_path / "b.db")), f"there is no database {missing}"),
        (run(database, "restore", "--yes", str(missing)), f"there is no {missing}"),
        (run(database, "restore", "--yes", str(database)), "is the database itself"),
        (run(database, "restore", "--yes", str(tmp_path)), f"copying {tmp_path}: unable to open database file"),
        (run(database, "restore", "--yes", backup, pepper="another one"), "the pepper is not that of the database"),
        (run("postgresql://hub@127.0.0.1/hub", "backup", "b.db"), "use pg_dump and pg_restore"),
        (run("postgresql://hub@127.0.0.1/hub", "restore", backup), "use pg_dump and pg_restore"),
    ):
        assert (done.code, done.out) == (2, "")
        assert said in done.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_database_in_use_is_not_restored(database: Path) -> None:
    with served_hub(database.parent):
        done = run(database, "restore", "--yes", str(database.with_name("backup.db")))
    assert (done.code, f"{database} is in use" in done.err) == (2, True)


def test_a_restore_that_is_stopped_at_its_question_leaves_nothing(database: Path) -> None:
    """The copy of the backup beside the database is removed on SIGTERM."""
    before = set(database.parent.iterdir())
    arguments = ["restore", str(database.with_name("backup.db")), "--database", str(database)]
    process = subprocess.Popen(
        [sys.executable, "-m", "gatekeeper", "hub", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GATEKEEPER_PEPPER": PEPPER},
    )
    assert process.stderr is not None
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(process.stderr.fileno(), 1000)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert set(database.parent.iterdir()) == before
    assert token_ids(database) == []
