"""gatekeeper hub: processes, signals, files and databases."""

import json
import os
import re
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
import psycopg
import pytest
from typer.testing import CliRunner, Result

from gatekeeper import HubAuthenticationError, HubClient, HubServerError
from gatekeeper.cli import app
from tests.client.support import free_port
from tests.support.postgres import PostgresCluster

from .support import gatekeeper, invoke

pytestmark = pytest.mark.process

LIST = "/api/v1/widget-keys"
PEPPER = "the pepper of these tests"
ANY_PORT = ("--listen", "127.0.0.1:0")  # the default may be taken by another program


class Running(NamedTuple):
    """A running hub.

    Attributes:
        url: its URL.
        process: the process, or the parent of the workers.
        logged: its log during the start.
    """

    url: str
    process: subprocess.Popen[str]
    logged: str

    def end(self, ending: signal.Signals = signal.SIGTERM) -> str:
        """Stop the hub, and return its log since the start."""
        self.process.send_signal(ending)
        _, logged = self.process.communicate(timeout=30)
        return logged


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Running]:
    """Run `gatekeeper hub` on a free port until the block ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEKEEPER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gatekeeper", "hub", "--listen", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, **environment},
    )
    try:
        yield Running(*_wait_until_served(process))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _wait_until_served(process: subprocess.Popen[str]) -> tuple[str, subprocess.Popen[str], str]:
    assert process.stderr is not None
    logged, url, complete = "", "", False
    while not (url and complete):
        line = process.stderr.readline()
        assert line, logged
        logged += line
        complete = complete or "startup complete" in line
        found = re.search(r"running on (http://\S+)", line)
        url = found[1] if found else url
    return url, process, logged


def mint(database: Path | str, *, account: str = "acme", **environment: str) -> str:
    done = gatekeeper(
        "hub", "token", "create", "--account", account, "--name", "ci", GATEKEEPER_DATABASE=str(database), **environment
    )
    assert done.returncode == 0, done.stderr
    assert "will not be shown again" in done.stderr
    return done.stdout.strip()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # The other child is the resource tracker of multiprocessing.
    return [int(child) for child in children if "spawn_main" in command_lines([int(child)])]


def command_lines(pids: list[int]) -> str:
    return "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)


# Serving


def test_a_hub_stops_cleanly_and_keeps_its_keys(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    token = mint(database)
    with running("--database", str(database)) as hub, HubClient(hub.url, token) as client:
        created = client.widget_keys.create("shop", domain_allowlist=["acme.com"])
        logged = hub.logged + hub.end()
        assert hub.process.returncode == 0
    assert token not in logged
    assert created.public_key not in logged
    with running("--database", str(database)) as hub, HubClient(hub.url, token) as client:
        assert [key.id for key in client.widget_keys.list()] == [created.id]
        hub.end(signal.SIGINT)
        assert hub.process.returncode == 0


def test_endless_headers_neither_fill_the_memory_nor_stop_the_hub(tmp_path: Path) -> None:
    """120 MB of header lines from a client without a token took 2 GB."""
    lines = b"a: b\r\n" * 20_000
    with running("--database", str(tmp_path / "hub.sqlite")) as hub:
        before = peak_memory(hub.process)
        with socket.create_connection(("127.0.0.1", httpx.URL(hub.url).port or 0), timeout=20) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: hub\r\n")
            sent = 0
            with suppress(ConnectionError):
                while sent < 1000:
                    connection.sendall(lines)
                    sent += 1
        assert sent < 1000
        assert httpx.get(f"{hub.url}/healthz", trust_env=False).status_code == httpx.codes.OK
        assert peak_memory(hub.process) - before < 20_000


def peak_memory(process: subprocess.Popen[str]) -> int:
    """The most memory that a process had, in KB."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[0])


def test_an_open_request_is_answered_before_the_hub_stops(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    token = mint(database)
    body = json.dumps({"name": "shop"}).encode()
    head = (
        "POST /api/v1/widget-keys HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with running("--database", str(database)) as hub:
        with socket.create_connection(("127.0.0.1", httpx.URL(hub.url).port or 0), timeout=20) as connection:
            connection.sendall(head.encode())
            # The hub sends 100 Continue once it handles the request.
            assert connection.recv(1000).startswith(b"HTTP/1.1 100")
            hub.process.send_signal(signal.SIGTERM)
            assert hub.process.stderr is not None
            assert any("Shutting down" in line for line in iter(hub.process.stderr.readline, ""))
            connection.sendall(body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 201")
        assert hub.process.wait(20) == 0


def test_the_pepper_is_not_in_logs_or_process_lists(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    with running("--database", str(database), GATEKEEPER_PEPPER=PEPPER) as hub:
        assert PEPPER not in command_lines([hub.process.pid])
        assert PEPPER not in hub.logged + hub.end()
    assert not (tmp_path / "hub.sqlite.pepper").exists()


def test_several_workers_share_a_postgresql_database_and_stop_together(postgres: PostgresCluster) -> None:
    database = postgres.create_schema()
    environment = {"GATEKEEPER_DATABASE": database, "GATEKEEPER_PEPPER": PEPPER}
    token = mint(database, GATEKEEPER_PEPPER=PEPPER)
    with running("--workers", "2", **environment) as hub:
        workers = workers_of(hub.process)
        assert len(workers) == 2
        shown = command_lines([hub.process.pid, *workers])
        assert PEPPER not in shown
        assert database not in shown
        # Each connection may reach a different worker.
        for number in range(8):
            with HubClient(hub.url, token) as client:
                client.widget_keys.create(f"shop {number}")
        with HubClient(hub.url, token) as client:
            assert [key.name for key in client.widget_keys.list()] == [f"shop {number}" for number in range(8)]
        logged = hub.logged + hub.end()
        assert hub.process.returncode == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert PEPPER not in logged
    assert token not in logged


@contextmanager
def waiting_clients(url: str, token: str, count: int, *, seconds: int = 60) -> Iterator[list[socket.socket]]:
    """Open connections whose requests wait for a change."""
    address = (httpx.URL(url).host, httpx.URL(url).port or 0)
    headers = {"Authorization": f"Bearer {token}"}
    etag = httpx.get(f"{url}{LIST}", headers=headers, trust_env=False).headers["ETag"]
    head = (
        f"GET {LIST} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\nIf-None-Match: {etag}\r\n"
        f"A-IM: rows\r\nPrefer: wait={seconds}\r\n\r\n"
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]
        for client in clients:
            client.sendall(head.encode())
        # A request that comes later is received later. Some of them may still wait for their turn to be read.
        httpx.get(f"{url}{LIST}", headers=headers, trust_env=False)
        yield clients


def first_line(client: socket.socket) -> str:
    return client.recv(65536).partition(b"\r\n")[0].decode()


def answer_until_the_end(client: socket.socket) -> str:
    return b"".join(iter(lambda: client.recv(65536), b"")).decode()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_signal_to_stop_answers_all_that_wait_and_closes(tmp_path: Path, ending: signal.Signals) -> None:
    database = tmp_path / "hub.sqlite"
    token = mint(database)
    with running("--database", str(database)) as hub, waiting_clients(hub.url, token, 200) as clients:
        logged = hub.end(ending)
        assert hub.process.returncode == 0
        answers = [answer_until_the_end(client) for client in clients]
    assert "graceful shutdown exceeded" not in logged
    assert {answer.partition("\r\n")[0] for answer in answers} == {"HTTP/1.1 304 Not Modified"}
    assert all("\r\nconnection: close\r\n" in answer.lower() for answer in answers)


def test_workers_tell_of_each_others_changes_and_stop_together(postgres: PostgresCluster) -> None:
    database = postgres.create_schema()
    environment = {"GATEKEEPER_DATABASE": database, "GATEKEEPER_PEPPER": PEPPER}
    token = mint(database, GATEKEEPER_PEPPER=PEPPER)
    with running("--workers", "2", "--listen-database", database, **environment) as hub:
        # Each connection may reach a different worker.
        for number in range(3):
            with waiting_clients(hub.url, token, 40) as clients, HubClient(hub.url, token) as client:
                client.widget_keys.create(f"shop {number}")
                assert {first_line(each) for each in clients} == {"HTTP/1.1 226 IM Used"}
        with waiting_clients(hub.url, token, 40) as clients:
            hub.process.send_signal(signal.SIGTERM)
            assert {first_line(each) for each in clients} == {"HTTP/1.1 304 Not Modified"}
            assert hub.process.wait(20) == 0


@pytest.mark.slow
def test_a_wait_may_be_longer_than_the_hub_keeps_a_connection(tmp_path: Path) -> None:
    """The server closes a connection on which no request begins for 5 s."""
    database = tmp_path / "hub.sqlite"
    token = mint(database)
    with running("--database", str(database)) as hub, httpx.Client(base_url=hub.url, trust_env=False, timeout=30) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        etag = client.get(LIST).headers["ETag"]
        begun = time.monotonic()
        answer = client.get(LIST, headers={"If-None-Match": etag, "Prefer": "wait=7"})
        assert time.monotonic() - begun >= 7
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (304, "wait=7")


def test_the_hub_raises_its_limit_of_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with running("--database", str(tmp_path / "hub.sqlite")) as hub:
            limits = Path(f"/proc/{hub.process.pid}/limits").read_text(encoding="ascii")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert re.search(rf"Max open files +{hard} +{hard}", limits)


def test_a_second_database_url_for_a_file_is_refused(tmp_path: Path) -> None:
    url = "postgresql://user:secret@host/hub"
    done = gatekeeper("hub", "--database", str(tmp_path / "hub.sqlite"), "--listen-database", url)
    assert done.returncode == 2
    assert "listen_database is for PostgreSQL" in done.stderr
    assert "secret" not in done.stderr


def test_several_workers_on_a_sqlite_file_are_refused(tmp_path: Path) -> None:
    done = gatekeeper("hub", "--database", str(tmp_path / "hub.sqlite"), "--workers", "2")
    assert done.returncode == 2
    assert "2 workers need a PostgreSQL database" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_hub_starts_and_answers_503_if_postgresql_is_down() -> None:
    environment = {
        "GATEKEEPER_DATABASE": f"postgresql://hub:secret@127.0.0.1:{free_port()}/hub",
        "GATEKEEPER_PEPPER": PEPPER,
    }
    with running(**environment) as hub:
        with HubClient(hub.url, "sk_live_acme_abc", max_attempts=1) as client, pytest.raises(HubServerError) as caught:
            client.widget_keys.list()
        assert caught.value.status == 503
        logged = hub.logged + hub.end()
    assert "does not answer" in logged
    assert "secret" not in logged


@pytest.mark.parametrize("listen", ["", "8700", ":8700", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:8700", "h:p"])
def test_an_invalid_listen_address_is_refused(tmp_path: Path, listen: str) -> None:
    done = gatekeeper("hub", "--database", str(tmp_path / "hub.sqlite"), "--listen", listen)
    assert done.returncode == 2
    assert "expected host:port" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = gatekeeper("hub", "--database", str(tmp_path / "hub.sqlite"), "--listen", address)
    assert done.returncode == 2
    assert f"cannot listen on {address}: Address already in use" in done.stderr


# The database


def test_migrate_creates_a_file_with_a_pepper_and_is_idempotent(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    for _ in range(2):
        done = gatekeeper("hub", "migrate", "--database", str(database))
        assert done.returncode == 0, done.stderr
        assert "newest schema" in done.stdout
    assert database.exists()
    assert mint(database).startswith("sk_live_acme_")


def test_a_database_readable_by_others_is_a_warning(tmp_path: Path) -> None:
    """Files from before were created with the mode of the umask."""
    database = tmp_path / "hub.sqlite"
    assert "other users" not in invoke("hub", "--database", str(database), *CREATE).err
    database.chmod(0o644)
    assert f"chmod 600 {database}" in invoke("hub", "--database", str(database), "token", "list").err


READING = [("token", "list"), ("token", "revoke", "1"), ("backup", "backup.sqlite")]


@pytest.mark.parametrize("command", READING)
def test_a_reading_command_creates_no_file_and_names_what_is_missing(tmp_path: Path, command: tuple[str, ...]) -> None:
    """In the wrong directory, it would find an empty hub instead of the one that runs."""
    database = tmp_path / "hub.sqlite"
    for environment in ({}, {"GATEKEEPER_PEPPER": PEPPER}):
        done = invoke("hub", *command, GATEKEEPER_DATABASE=str(database), **environment)
        assert (done.code, done.out) == (2, "")
        assert f"there is no database {database}" in done.err
        assert list(tmp_path.iterdir()) == []


def test_a_reading_command_changes_no_database_of_another_program(tmp_path: Path) -> None:
    database = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE orders (id INTEGER)")
    content = database.read_bytes()
    done = invoke("hub", "token", "list", GATEKEEPER_DATABASE=str(database), GATEKEEPER_PEPPER=PEPPER)
    assert done.code == 2
    assert f"{database} has no tables of a hub" in done.err
    assert database.read_bytes() == content


def test_a_reading_command_creates_no_tables_in_postgresql(postgres: PostgresCluster) -> None:
    database = postgres.create_schema()
    done = invoke("hub", "token", "list", GATEKEEPER_DATABASE=database, GATEKEEPER_PEPPER=PEPPER)
    assert done.code == 2
    assert f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres has no tables of a hub" in done.err
    with psycopg.connect(database) as server:
        assert server.execute("SELECT 1 FROM pg_tables WHERE schemaname = current_schema").fetchall() == []


def test_migrate_needs_no_pepper_for_postgresql(postgres: PostgresCluster) -> None:
    database = postgres.create_schema()
    done = gatekeeper("hub", "migrate", GATEKEEPER_DATABASE=database)
    assert done.returncode == 0, done.stderr
    assert mint(database, GATEKEEPER_PEPPER=PEPPER).startswith("sk_live_acme_")


@pytest.mark.parametrize("command", [ANY_PORT, ("migrate",), ("token", "list")])
def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path, command: tuple[str, ...]) -> None:
    database = tmp_path / "hub.sqlite"
    database.write_text("this is a letter, and no database; " * 100)
    done = gatekeeper("hub", *command, GATEKEEPER_DATABASE=str(database), GATEKEEPER_PEPPER=PEPPER)
    assert done.returncode == 2
    assert str(database) in done.stderr.replace("\n", "")
    assert "file is not a database" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "database", ["mysql://hub@127.0.0.1/hub", ":memory:", "", "postgresql://hub@127.0.0.1/hub?ssl=true"]
)
@pytest.mark.parametrize("command", [ANY_PORT, ("migrate",), ("token", "list")])
def test_an_invalid_database_is_refused_and_gets_no_pepper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = gatekeeper("hub", "--database", database, *command)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_postgresql_server_exits_with_3() -> None:
    database = f"postgresql://hub:secret@127.0.0.1:{free_port()}/hub"
    for command in (("migrate",), ("token", "list")):
        done = gatekeeper("hub", *command, GATEKEEPER_DATABASE=database, GATEKEEPER_PEPPER=PEPPER)
        assert done.returncode == 3
        assert "does not answer" in done.stderr
        assert "Connection refused" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (ANY_PORT, "permission denied for schema public"),
        (("migrate",), "permission denied for schema public"),
        (("token", "list"), "has no tables of a hub"),
    ],
)
def test_a_role_that_may_not_create_tables_exits_with_2(
    postgres: PostgresCluster, command: tuple[str, ...], said: str
) -> None:
    database = postgres.create_database()
    role = f"powerless_{uuid4().hex}"
    with psycopg.connect(postgres.url) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
    database = database.replace("postgres@", f"{role}:secret@")
    done = gatekeeper("hub", *command, GATEKEEPER_DATABASE=database, GATEKEEPER_PEPPER=PEPPER)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


# The pepper


def test_a_new_file_gets_a_pepper_readable_only_by_the_owner(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    done = gatekeeper("hub", "token", "create", "--account", "acme", "--name", "ci", "--database", str(database))
    pepper = tmp_path / "hub.sqlite.pepper"
    assert stat.S_IMODE(pepper.stat().st_mode) == 0o600
    assert len(pepper.read_text().strip()) == 64
    assert str(pepper) in done.stderr
    assert pepper.read_text().strip() not in done.stdout + done.stderr


def test_an_existing_file_without_its_pepper_gets_no_new_one(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    mint(database)
    (tmp_path / "hub.sqlite.pepper").unlink()
    done = gatekeeper("hub", "token", "list", "--database", str(database))
    assert done.returncode == 2
    assert "--pepper-file" in done.stderr
    assert not (tmp_path / "hub.sqlite.pepper").exists()


def test_a_pepper_file_takes_precedence_over_the_environment(tmp_path: Path) -> None:
    database, pepper = tmp_path / "hub.sqlite", tmp_path / "pepper"
    pepper.write_text(f"{PEPPER}\n")
    pepper.chmod(0o600)
    token = mint(database, GATEKEEPER_PEPPER=PEPPER)
    arguments = ("--database", str(database), "--pepper-file", str(pepper))
    with running(*arguments, GATEKEEPER_PEPPER="another") as hub, HubClient(hub.url, token) as client:
        assert client.widget_keys.list() == []
        hub.end()


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "not text"), (None, "cannot read")]
)
def test_an_unreadable_pepper_is_reported(tmp_path: Path, content: bytes | None, said: str) -> None:
    pepper = tmp_path / "pepper"
    if content is not None:
        pepper.write_bytes(content)
    done = gatekeeper("hub", "--database", str(tmp_path / "hub.sqlite"), "--pepper-file", str(pepper), *ANY_PORT)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_pepper_readable_by_others_is_a_warning(tmp_path: Path) -> None:
    pepper = tmp_path / "pepper"
    pepper.write_text(PEPPER)
    pepper.chmod(0o644)
    done = gatekeeper("hub", "migrate", "--database", str(tmp_path / "hub.sqlite"), "--pepper-file", str(pepper))
    assert done.returncode == 0
    assert f"chmod 600 {pepper}" in done.stderr


CREATE = ("token", "create", "--account", "acme", "--name", "ci")


@pytest.mark.parametrize(
    "command", [("--listen", "127.0.0.1:0"), ("token", "list"), ("token", "revoke", "1", "--yes"), CREATE]
)
def test_another_pepper_is_refused_with_a_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    """With it, the hub would refuse every token."""
    database = str(tmp_path / "hub.sqlite")
    assert invoke("hub", *CREATE, GATEKEEPER_DATABASE=database, GATEKEEPER_PEPPER=PEPPER).code == 0
    done = invoke("hub", *command, GATEKEEPER_DATABASE=database, GATEKEEPER_PEPPER="another one")
    assert (done.code, done.out) == (2, "")
    assert "the pepper is not that of the database" in done.err
    assert "another one" not in done.err
    listed = invoke("hub", "token", "list", "--json", GATEKEEPER_DATABASE=database, GATEKEEPER_PEPPER=PEPPER)
    assert len(listed.json) == 1


def test_a_postgresql_database_needs_a_given_pepper() -> None:
    done = gatekeeper("hub", *ANY_PORT, GATEKEEPER_DATABASE="postgresql://hub@127.0.0.1:1/hub")
    assert done.returncode == 2
    assert "GATEKEEPER_PEPPER" in done.stderr
    assert "openssl rand -hex 32" in done.stderr


# Tokens


def tokens(environment: Mapping[str, str], *arguments: str) -> list[dict[str, str]]:
    done = gatekeeper("hub", "token", "list", "--json", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, str]] = json.loads(done.stdout)
    return listed


def test_tokens_are_listed_without_their_plaintexts(tmp_path: Path) -> None:
    environment = {"GATEKEEPER_DATABASE": str(tmp_path / "hub.sqlite")}
    plaintexts = [mint(tmp_path / "hub.sqlite", account=account) for account in ("acme", "globex")]
    assert [(token["account"], token["name"]) for token in tokens(environment)] == [("acme", "ci"), ("globex", "ci")]
    assert [token["account"] for token in tokens(environment, "--account", "globex")] == ["globex"]
    shown = gatekeeper("hub", "token", "list", **environment).stdout
    assert tokens(environment)[0]["id"] in shown
    assert not [plaintext for plaintext in plaintexts if plaintext in shown]


def run_token(database: Path, *arguments: str) -> Result:
    """Run a command for tokens in this process."""
    return CliRunner().invoke(app, ["hub", "token", *arguments], env={"GATEKEEPER_DATABASE": str(database)})


@pytest.mark.parametrize(
    ("options", "scope"), [((), "admin"), (("--scope", "admin"), "admin"), (("--scope", "gate"), "gate")]
)
def test_a_token_has_the_given_scope_or_admin(tmp_path: Path, options: tuple[str, ...], scope: str) -> None:
    """Scripts from before there were scopes go on, and the command says that a gate needs less."""
    database = tmp_path / "hub.sqlite"
    minted = run_token(database, "create", "--account", "acme", "--name", "ci", *options)
    assert (minted.exit_code, len(minted.stdout.splitlines())) == (0, 1)
    assert ("For a gate, mint one with --scope gate" in minted.stderr) is (scope == "admin")
    assert [listed["scope"] for listed in json.loads(run_token(database, "list", "--json").stdout)] == [scope]
    assert f" {scope} " in run_token(database, "list").stdout


def test_a_token_may_be_for_all_accounts(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    run_token(database, "create", "--account", "acme", "--name", "ci")
    for options in ((), ("--scope", "gate")):
        minted = run_token(database, "create", "--all-accounts", "--name", "gates", *options)
        assert (minted.exit_code, bool(re.fullmatch(r"sk_all_[A-Za-z0-9]{32}\n", minted.stdout))) == (0, True)
        assert "list the keys of all accounts and report on them" in minted.stderr
    listed = json.loads(run_token(database, "list", "--json").stdout)
    assert [(row["account"], row["name"], row["scope"]) for row in listed] == [
        ("acme", "ci", "admin"),
        ("*", "gates", "gate"),
        ("*", "gates", "gate"),
    ]
    assert [row["account"] for row in json.loads(run_token(database, "list", "--json", "--account", "*").stdout)] == [
        "*",
        "*",
    ]
    shown = run_token(database, "list").stdout.splitlines()
    assert re.search(rf"^{listed[1]['id']}  all accounts  gates +gate +2", shown[2])
    revoked = run_token(database, "revoke", "--yes", listed[1]["id"])
    assert (revoked.exit_code, "the token gates of all accounts is revoked" in revoked.stdout) == (0, True)
    assert [row["id"] for row in json.loads(run_token(database, "list", "--json").stdout)] == [
        listed[0]["id"],
        listed[2]["id"],
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "expected --account with the account whose keys the token is for; or --all-accounts"),
        (("--scope", "gate"), "expected --account"),
        (("--account", "acme", "--all-accounts"), "--account and --all-accounts exclude each other"),
        (("--all-accounts", "--scope", "admin"), "a token for all accounts has the scope gate"),
        (("--account", "*"), "account '*' does not match"),
        (("--account", "*", "--scope", "gate"), "account '*' does not match"),
        (("--account", ""), "account '' does not match"),
    ],
)
def test_a_token_is_for_one_account_or_for_all(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    database = tmp_path / "hub.sqlite"
    refused = run_token(database, "create", "--name", "ci", *options)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert said in refused.stderr
    if "does not match" not in said:
        assert not database.exists()
    elif json.loads(run_token(database, "list", "--json").stdout):
        pytest.fail("a token was minted")


def test_80_columns_hold_the_ids_of_tokens_whole(tmp_path: Path) -> None:
    """`token revoke` needs them in one piece."""
    database = tmp_path / "hub.sqlite"
    name = "the continuous integration of acme"
    run_token(database, "create", "--account", "acme-incorporated", "--name", name)
    (token,) = json.loads(run_token(database, "list", "--json").stdout)
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "80", "LINES": "24", "GATEKEEPER_DATABASE": str(database)}
    lines = CliRunner().invoke(app, ["hub", "token", "list"], env=terminal).stdout.splitlines()
    assert token["id"] in lines[1]
    assert max(map(len, lines)) <= 80
    assert "".join(line[48:57] for line in lines[1:]).replace(" ", "") == name.replace(" ", "")


def test_an_unknown_scope_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    refused = run_token(database, "create", "--account", "acme", "--name", "ci", "--scope", "reader")
    assert refused.exit_code == 2
    assert all(f"'{scope}'" in refused.stderr for scope in ("reader", "gate", "admin"))
    assert not database.exists()


def test_a_revoked_token_is_refused_at_the_next_request(tmp_path: Path) -> None:
    database = tmp_path / "hub.sqlite"
    environment = {"GATEKEEPER_DATABASE": str(database)}
    token = mint(database)
    (listed,) = tokens(environment)
    with running(**environment) as hub, HubClient(hub.url, token) as client:
        assert client.widget_keys.list() == []
        done = gatekeeper("hub", "token", "revoke", listed["id"], "--yes", **environment)
        assert (done.returncode, "the token ci of acme is revoked" in done.stdout) == (0, True)
        with pytest.raises(HubAuthenticationError):
            client.widget_keys.list()
        hub.end()
    again = gatekeeper("hub", "token", "revoke", listed["id"], "--yes", **environment)
    assert (again.returncode, "there is no token" in again.stderr) == (1, True)


def test_revoking_a_token_needs_a_confirmation(tmp_path: Path) -> None:
    environment = {"GATEKEEPER_DATABASE": str(tmp_path / "hub.sqlite")}
    mint(tmp_path / "hub.sqlite")
    (listed,) = tokens(environment)
    done = gatekeeper("hub", "token", "revoke", listed["id"], **environment)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert tokens(environment) == [listed]


def test_an_invalid_account_is_refused(tmp_path: Path) -> None:
    done = gatekeeper("hub", "token", "create", "--account", "Acme!", "--name", "ci", "--database", str(tmp_path / "hub"))
    assert done.returncode == 2
    assert "account 'Acme!'" in done.stderr


def test_options_of_the_command_override_those_before_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    named = ("token", "create", "--account", "acme", "--name", "ci")
    assert gatekeeper("hub", "--database", str(first), *named).returncode == 0
    assert gatekeeper("hub", "--database", str(first), *named, "--database", str(second)).returncode == 0
    assert len(tokens({"GATEKEEPER_DATABASE": str(first)})) == 1
    assert len(tokens({"GATEKEEPER_DATABASE": str(second)})) == 1
