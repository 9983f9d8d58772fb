"""Public suffixes and shared hosts, from the bundled list."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tldextract import TLDExtract

import gatekeeper
from gatekeeper.matching.suffixes import is_public_suffix, is_shared_host

# Runs in its own process in an empty directory. Sockets fail, and attempts to connect or to write a file are recorded.
OFFLINE = """
import os, socket, sys

tries = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        tries.append((event, arguments))
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink"):
        tries.append((event, arguments))
    elif event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        tries.append((event, arguments))

class NoSocket(socket.socket):
    def __init__(self, *arguments, **options):
        raise OSError("the test has no network")

sys.addaudithook(watch)
socket.socket = NoSocket

from gatekeeper import Allowlist

allowlist = Allowlist.parse(["*.co.uk", "*.github.io", "*.acme.com", "*.zendesk.com"])
print(allowlist.patterns, [rejected.reason for rejected in allowlist.rejected], len(allowlist.warnings), tries)
"""


def run(code: str, directory: Path) -> str:
    """Run code in a new interpreter, in a directory of its own."""
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR", "TEMP", "TMP"), str(directory))
    environment = os.environ | places | {"PYTHONPATH": str(Path(gatekeeper.__file__).parents[1])}
    environment.pop("TLDEXTRACT_CACHE", None)
    ran = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("com", id="a top-level domain"),
        pytest.param("co.uk", id="a rule of ICANN's"),
        pytest.param("kobe.jp", id="the base of a wildcard rule: *.kobe.jp"),
        pytest.param("anything.kobe.jp", id="a suffix by a wildcard rule"),
        pytest.param("github.io", id="a private rule"),
        pytest.param("vercel.app", id="a private rule of a newer host"),
        pytest.param("s3.amazonaws.com", id="a private rule of three labels"),
        pytest.param("xn--p1ai", id="an internationalised top-level domain"),
        pytest.param("xn--55qx5d.cn", id="an internationalised rule of ICANN's"),
    ],
)
def test_a_host_open_to_registrations_is_a_public_suffix(host: str) -> None:
    assert is_public_suffix(host)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("acme.com", id="a registered domain"),
        pytest.param("acme.co.uk", id="a domain below a suffix"),
        pytest.param("alice.github.io", id="a customer's host below a private suffix"),
        pytest.param("city.kobe.jp", id="an exception of a wildcard rule: !city.kobe.jp"),
        pytest.param("shop.anything.kobe.jp", id="a domain below a suffix by a wildcard rule"),
        pytest.param("xn--bcher-kva.xn--p1ai", id="a domain below an internationalised suffix"),
        pytest.param("evilco.uk", id="a domain that ends with the letters of a suffix"),
        pytest.param("localhost", id="this machine"),
        pytest.param("shop.localhost", id="a name of this machine"),
        pytest.param("intranet", id="a name that the list does not know"),
    ],
)
def test_a_host_with_one_owner_is_not_a_public_suffix(host: str) -> None:
    assert not is_public_suffix(host)


@pytest.mark.slow
def test_every_rule_and_its_neighbours_agree_with_tldextract() -> None:
    extract = TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)
    wildcards = {rule.removeprefix("*.") for rule in extract.tlds if rule.startswith("*.")}
    named = {idna(rule.lstrip("*!").removeprefix(".")) for rule in extract.tlds}
    hosts = [
        around for host in named for around in (host, f"shop.{host}", f"a.shop.{host}", host.partition(".")[2]) if around
    ]
    assert len(hosts) > 20_000
    assert [
        host
        for host in hosts
        if is_public_suffix(host) is not (extract.extract_str(host).suffix == host or host in wildcards)
    ] == []


def idna(host: str) -> str:
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in host.split("."))


@pytest.mark.parametrize("host", ["zendesk.com", "wordpress.com", "tumblr.com", "amazonaws.com"])
def test_a_host_with_customers_subdomains_is_shared(host: str) -> None:
    assert is_shared_host(host)
    assert not is_public_suffix(host)


@pytest.mark.parametrize("host", ["acme.com", "shop.zendesk.com", "evilzendesk.com", "alice.github.io", "localhost"])
def test_a_host_with_one_owner_is_not_shared(host: str) -> None:
    assert not is_shared_host(host)


def test_the_list_needs_no_network_and_writes_nothing(tmp_path: Path) -> None:
    said = run(OFFLINE, tmp_path)
    assert said == "('*.acme.com', '*.zendesk.com') ['wildcard_public_suffix', 'wildcard_public_suffix'] 3 []"
    assert list(tmp_path.iterdir()) == []


def test_the_list_is_read_for_the_first_wildcard(tmp_path: Path) -> None:
    code = """
import sys
from gatekeeper import Allowlist
from gatekeeper.matching.suffixes import has_public_suffixes
for entries in ([], ["acme.com", "https://acme.co.uk"], ["*.localhost", "*.com"], ["*.acme.com"]):
    Allowlist.parse(entries)
    print(has_public_suffixes(), "tldextract" in sys.modules)
"""
    assert run(code, tmp_path).splitlines() == [*["False False"] * 3, "True False"]


EXPECTED = "com\n*.ck\n!www.ck\nрф\ngithub.io\n".encode()


@pytest.mark.parametrize(
    "copy", [None, b"", b"// ===BEGIN ICANN DOMAINS===\ncom\n", b'["com", "github.io"]', EXPECTED + b"suffi\xf8.test\n"]
)
def test_tldextract_is_asked_where_its_copy_is_not_what_it_was(copy: bytes | None, tmp_path: Path) -> None:
    package = tmp_path / "tldextract"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "class TLDExtract:\n    def __init__(self, **options): self.tlds = ['com', 'suffix.test']\n", encoding="utf-8"
    )
    if copy is not None:
        package.joinpath(".tld_set_snapshot").write_bytes(copy)
    code = """
from gatekeeper.matching.suffixes import is_public_suffix
print(is_public_suffix("suffix.test"), is_public_suffix("acme.test"))
"""
    assert run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}){code}", tmp_path) == "True False"
