"""The way to the hub: private certificates, proxies, and the environment."""

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatekeeper.testing import FakeHub, json_answer
from tests import needs
from tests.support.certificates import Certificates
from tests.support.connect_proxy import ConnectProxy
from tests.support.rows import TOKEN, client_key, row

from .support import Invoked, invoke

HUB = "http://hub.test"  # no name server has it, so only a proxy leads there
SECRET = "a-secret"
COMMANDS = {
    "list": ("keys", "list"),
    "check": ("check", client_key(1), "https://acme.com"),
}
DONE = {"list": "…00000001", "check": "allowed"}  # what each says of the row


@pytest.fixture
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
def authority(certificates: Certificates, tmp_path: Path) -> str:
    return str(certificates.write_authority(tmp_path / "ca.pem"))


@pytest.fixture
def private(certificates: Certificates) -> Iterator[FakeHub]:
    """A hub whose certificate a private authority has issued."""
    with FakeHub(tls=certificates.right()) as hub:
        hub.lists(row(1))
        yield hub


@pytest.fixture
def proxy(fake: FakeHub) -> FakeHub:
    """A proxy which answers for the hub. A plain request to a proxy names the whole URL."""
    fake.lists(row(1))
    return fake


def run(command: tuple[str, ...], hub: str, *options: str, **environment: str) -> Invoked:
    return invoke(*command, "--hub", hub, *options, GATEKEEPER_TOKEN=TOKEN, **environment)


def run_through(named: str, proxy: str, hub: str, *options: str, command: str = "list") -> Invoked:
    """Run a command with a proxy, which is named by an option or a variable."""
    if named.startswith("--"):
        return run(COMMANDS[command], hub, *options, named, proxy)
    return run(COMMANDS[command], hub, *options, **{named: proxy})


def with_login(url: str) -> str:
    return url.replace("://", f"://operator:{SECRET}@")


# Certificates


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_trusts_the_authority_of_ca_file(private: FakeHub, authority: str, command: str) -> None:
    done = run(COMMANDS[command], private.url, "--ca-file", authority)
    assert DONE[command] in done.out + done.err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["list", "check"])
def test_a_private_authority_is_not_trusted_unless_it_is_named(private: FakeHub, command: str) -> None:
    done = run(COMMANDS[command], private.url)
    assert done.code == 3
    assert "CERTIFICATE_VERIFY_FAILED" in done.err
    assert private.requests == []


@pytest.mark.slow
def test_ca_file_trusts_no_other_authority(certificates: Certificates, authority: str) -> None:
    with FakeHub(tls=certificates.of_an_unknown_authority()) as other:
        assert run(COMMANDS["list"], other.url, "--ca-file", authority, SSL_CERT_FILE=authority).code == 3


def test_the_authority_can_be_named_in_the_environment(private: FakeHub, authority: str) -> None:
    assert run(COMMANDS["list"], private.url, SSL_CERT_FILE=authority).code == 0


def test_a_directory_of_authorities_can_be_named_in_the_environment(private: FakeHub, authority: str) -> None:
    """OpenSSL finds certificates in a directory by the hash of their subject."""
    directory = Path(authority).parent
    subprocess.run([needs.openssl(), "rehash", directory], check=True, timeout=60)
    assert run(COMMANDS["list"], private.url, SSL_CERT_DIR=str(directory)).code == 0


@pytest.mark.slow
def test_ca_file_takes_precedence_over_the_environment(private: FakeHub, authority: str, tmp_path: Path) -> None:
    other = Certificates().write_authority(tmp_path / "other.pem")
    assert run(COMMANDS["list"], private.url, "--ca-file", authority, SSL_CERT_FILE=str(other)).code == 0
    assert run(COMMANDS["list"], private.url, "--ca-file", str(other), SSL_CERT_FILE=authority).code == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), ""),
        (lambda path: path.write_text("not a certificate"), "has no certificate"),
        (
            lambda path: path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "has no certificate",
        ),
        (lambda path: path.touch(), "has no certificate"),
    ],
    ids=["missing", "directory", "text", "broken", "empty"],
)
@pytest.mark.parametrize("named", ["--ca-file", "SSL_CERT_FILE"])
def test_a_bad_file_of_certificates_is_one_sentence(
    tmp_path: Path, make: Callable[[Path], object], said: str, named: str
) -> None:
    path = tmp_path / "ca.pem"
    make(path)
    options = (named, str(path)) if named == "--ca-file" else ()
    done = run(COMMANDS["check"], "https://127.0.0.1:1", *options, **({} if options else {named: str(path)}))
    assert done.code == 2
    assert named in done.err
    assert said in done.err
    assert "in PEM" in done.err
    assert len(done.err.splitlines()) == 1


# Proxies


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_goes_through_the_proxy(proxy: FakeHub, command: str) -> None:
    done = run(COMMANDS[command], HUB, "--proxy", proxy.url)
    assert DONE[command] in done.out + done.err
    assert [request.target for request in proxy.requests] == [f"{HUB}/api/v1/widget-keys"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_can_be_named_in_the_environment(proxy: FakeHub, name: str) -> None:
    assert run(COMMANDS["list"], HUB, **{name: proxy.url}).code == 0
    assert proxy.requests[0].target.startswith(HUB)


def test_the_address_of_a_proxy_needs_no_scheme(proxy: FakeHub) -> None:
    assert run(COMMANDS["list"], HUB, "--proxy", proxy.url.removeprefix("http://")).code == 0


@pytest.mark.slow
def test_no_proxy_leads_straight_to_the_hub(proxy: FakeHub) -> None:
    nowhere = "http://127.0.0.1:1"
    assert run(COMMANDS["list"], proxy.url, HTTP_PROXY=nowhere, NO_PROXY="127.0.0.1").code == 0
    assert run(COMMANDS["list"], proxy.url, HTTP_PROXY=nowhere).code == 3
    assert run(COMMANDS["list"], proxy.url, "--proxy", nowhere, NO_PROXY="127.0.0.1").code == 3


@pytest.mark.parametrize("name", ["--proxy", "HTTPS_PROXY"])
def test_a_tunnel_leads_to_a_private_hub_and_hides_the_token(private: FakeHub, authority: str, name: str) -> None:
    """A proxy sees the host and the port of an https hub, and no header of the request."""
    with ConnectProxy(private.url) as tunnel:
        done = run_through(name, with_login(tunnel.url), private.url, "--ca-file", authority)
    assert done.code == 0, done.err
    (head,) = tunnel.heads
    assert head.startswith(f"CONNECT {private.url.removeprefix('https://')} HTTP/1.1\r\n")
    assert base64.b64encode(f"operator:{SECRET}".encode()).decode() in head
    assert TOKEN not in head
    assert "proxy-authorization" not in private.requests[0].headers


def test_a_proxy_may_speak_tls_itself(private: FakeHub, authority: str) -> None:
    assert run(COMMANDS["list"], HUB, "--proxy", private.url, "--ca-file", authority).code == 0
    assert private.requests[0].target.startswith(HUB)


@pytest.mark.slow
@pytest.mark.parametrize("hub", [HUB, "https://hub.test"])
@pytest.mark.parametrize("name", ["--proxy", "ALL_PROXY"])
def test_the_credentials_of_a_proxy_are_never_printed(fake: FakeHub, hub: str, name: str) -> None:
    fake.always(json_answer("login first", 407))
    url = with_login(fake.url)
    done = run_through(name, url, hub)
    assert done.code in {2, 3}
    assert "407" in done.err
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("--proxy", "ftp://operator:a-secret@proxy"),
        ("--proxy", "http://operator:a-secret@proxy:port"),
        ("--proxy", "http://operator:a-secret@"),
        ("--proxy", ""),
        ("HTTP_PROXY", "ftp://operator:a-secret@proxy"),
        ("HTTP_PROXY", "http://operator:a-secret@proxy:port"),
    ],
)
def test_a_bad_proxy_is_one_sentence_without_its_credentials(name: str, url: str) -> None:
    done = run_through(name, url, HUB)
    assert done.code == 2
    assert name in done.err
    assert "such as http://proxy.example:3128" in done.err
    assert SECRET not in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["list", "check"])
@pytest.mark.parametrize("name", ["--proxy", "HTTP_PROXY"])
def test_a_proxy_that_cannot_be_reached_is_named(fake: FakeHub, name: str, command: str) -> None:
    """The error alone would blame the hub, which answers."""
    url = with_login("http://127.0.0.1:1")
    done = run_through(name, url, fake.url, command=command)
    assert done.code == 3
    assert f"a proxy may be in the way, see {name}" in done.err
    assert SECRET not in done.err
    assert fake.requests == []


def test_socks_without_its_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # which makes its import fail
    done = run(COMMANDS["list"], HUB, "--proxy", "socks5://operator:a-secret@127.0.0.1:1")
    assert done.code == 2
    assert "pip install 'httpx[socks]'" in done.err
    assert SECRET not in done.err


# Other files of the environment


def test_netrc_does_not_replace_the_token(fake: FakeHub, tmp_path: Path) -> None:
    """Some HTTP libraries send the login of this file in place of Authorization."""
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login operator password {SECRET}\n")
    netrc.chmod(0o600)
    assert run(COMMANDS["list"], fake.url, HOME=str(tmp_path), NETRC=str(netrc)).code == 0
    assert fake.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


# What the errors call the options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--hub", "hub.example"), "--hub is 'hub.example'"),
        (("--hub", "https://hub.example?x"), "--hub has a user name, a query or a fragment"),
        (("--token", "nothing"), "pass --account"),
        (("--account", ""), "--account is ''"),
        (("--suffix-field", "id"), "--suffix-field is 'id'"),
    ],
)
@pytest.mark.parametrize("command", ["list", "check"])
def test_errors_name_options_and_no_arguments_of_python(options: tuple[str, ...], said: str, command: str) -> None:
    done = run(COMMANDS[command], "http://127.0.0.1:1", *options)
    assert done.code == 2
    assert said in done.err
    assert not [word for word in ("base_url", "account=", "suffix_field", "token=") if word in done.err]


@pytest.mark.parametrize("command", ["list", "check"])
def test_a_row_without_the_field_names_the_option(fake: FakeHub, command: str) -> None:
    fake.lists({"id": "key-1", "key_suffix": "00000001", "domain_allowlist": []})
    assert "pass its name as --suffix-field" in run(COMMANDS[command], fake.url).err


@pytest.mark.parametrize(("command", "code"), [("list", 1), ("check", 2)])
def test_a_hub_that_asks_for_an_account_names_the_option(fake: FakeHub, command: str, code: int) -> None:
    fake.always(json_answer({"error": "Missing X-Account-ID header"}, 400))
    done = run(COMMANDS[command], fake.url)
    assert done.code == code
    assert "pass --account" in done.err
