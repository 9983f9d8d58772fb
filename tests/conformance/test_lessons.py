"""CVEs and issues of other systems, repeated here.

Each test names the reports and does what went wrong there.
"""

import ast
import codecs
import encodings.idna
import encodings.punycode
import inspect
import itertools
import json
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import idna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from starlette.types import Receive, Scope, Send

import gatekeeper
from gatekeeper import Allowlist, CorsPolicy, InvalidEntry, InvalidOrigin, Origin, Reason
from gatekeeper.matching.pattern import Pattern
from tests.conformance.asgi import App, ask, gate_for, guard, handshake
from tests.support.client_keys import KEY

ACAO = "access-control-allow-origin"


def rejection(entry: str) -> str:
    """The reason why an entry is rejected, with a hint beside it."""
    allowlist = Allowlist.parse([entry])
    assert allowlist.patterns == ()
    (rejected,) = allowlist.rejected
    assert rejected.entry == entry
    assert rejected.hint
    return rejected.reason


def origin_header(value: str | bytes) -> tuple[bytes, bytes]:
    return b"origin", value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


# Patterns that combine


@pytest.mark.parametrize("entries", list(itertools.permutations(("https://foo.com", "https://bar.com"))))
@pytest.mark.parametrize("host", ["barfoo.com", "foobar.com", "ofoo.com", "rfoo.com", "r.com", "o.com", "oo.com", "com"])
def test_ghsa_vhxv_fg4m_p2w8_two_entries_never_make_a_third(entries: tuple[str, ...], host: str) -> None:
    """GHSA-vhxv-fg4m-p2w8 (jub0bs/cors before 0.1.3): with foo.com and bar.com listed, barfoo.com was let in."""
    allowlist = Allowlist.parse(entries)
    assert not allowlist.allows(f"https://{host}")
    assert all(allowlist.match(entry) == entry for entry in entries)


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("foo.com", "*.bar.com", "https://a.bar.com:8443", "ofoo.com")))
)
def test_ghsa_vhxv_fg4m_p2w8_the_order_of_entries_does_not_matter(order: tuple[str, ...]) -> None:
    """GHSA-vhxv-fg4m-p2w8: what a tree of patterns let in depended on the order in which they were added."""
    allowlist = Allowlist.parse(order)
    allowed = ("https://foo.com", "https://ofoo.com", "https://x.bar.com", "https://a.bar.com:8443", "https://a.bar.com")
    refused = ("https://bar.com", "https://bfoo.com", "https://foo.bar.com:8443", "https://xbar.com", "https://a.foo.com")
    assert all(map(allowlist.allows, allowed))
    assert not any(map(allowlist.allows, refused))


# Wildcards inside an origin


@pytest.mark.parametrize(
    "entry", ["h*", "ht*", "http*", "*m", "*com", "*acme.com", "a*", "acme*com", "*.*", "**", "*.*.com"]
)
def test_rs_cors_197_a_piece_of_an_origin_with_a_wildcard_is_no_entry(entry: str) -> None:
    """rs/cors#197: "h*" passed the guard against "*", and allowed everything."""
    assert rejection(entry) == "wildcard"
    assert not Allowlist.parse([entry]).allows("https://acme.com")


@pytest.mark.parametrize("entry", ["*", "*/", "https://*", "http://*", "*:*", "*:443", "https://*:*"])
def test_rs_cors_197_every_spelling_of_all_origins_is_rejected(entry: str) -> None:
    """rs/cors#197: a guard that knows one spelling of "all origins" guards nothing."""
    assert rejection(entry) == "any_origin"
    assert gate_for(entry).decide(KEY, "https://acme.com").reason is Reason.ALLOWLIST_EMPTY


# Anchors and regular expressions


@pytest.mark.parametrize(
    ("entry", "hostile"),
    [
        ("https://example.org", "https://example.org.evil.com"),
        ("https://example.org", "https://exampleXorg"),
        ("https://example.org", "https://examplexorg"),
        ("*.example.org", "https://subdomain.example.org.hacker.com"),
        ("*.example.org", "https://subdomainxexample.org"),
        ("*.example.org", "https://sub.examplexorg"),
    ],
)
def test_starlette_800_cve_2026_37737_an_entry_matches_exactly(entry: str, hostile: str) -> None:
    """Kludex/starlette#800, #801, #3165, CVE-2026-37737 (sanic-cors#68), google/clusterfuzz#5303: re.match, and "."."""
    allowlist = Allowlist.parse([entry])
    assert allowlist.patterns == (entry,)
    assert not allowlist.allows(hostile)


@pytest.mark.parametrize(
    "entry",
    [
        r"https://.*\.example\.org",
        "https://.*.example.org",
        ".*",
        "^https://example.org$",
        "https://example.org|https://evil.com",
        "https://(www.)?example.org",
        "[a-z]+.example.org",
        "example.org(:[0-9]+)",
        "example.{3}",
    ],
)
def test_cve_2026_37737_a_regular_expression_is_no_entry(entry: str) -> None:
    """CVE-2026-37737 (ashleysommer/sanic-cors#68), google/clusterfuzz#5303: the grammar has no regular expressions."""
    rejection(entry)
    assert not Allowlist.parse([entry]).allows("https://example.org")


def test_starlette_801_matching_imports_no_re_fnmatch_or_urllib() -> None:
    """Kludex/starlette#801: without regular expressions no anchor can be missing."""
    package = Path(inspect.getfile(gatekeeper)).parent
    files = [path for name in ("matching", "index") for path in sorted((package / name).glob("*.py"))]
    assert {"origins.py", "allowlist.py", "key_index.py"} <= {path.name for path in files}
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {module.partition(".")[0] for module in modules} & {"re", "regex", "fnmatch", "glob", "urllib"}


# Trailing wildcards


@pytest.mark.parametrize(
    "entry", ["https://example.*", "https://example.com*", "https://app.com.*", "example.com:80*", "a.com:*0"]
)
def test_cve_2019_25211_cve_2026_34157_a_trailing_wildcard_is_rejected(entry: str) -> None:
    """CVE-2019-25211 (gin-contrib/cors#106) and CVE-2026-34157 (wailsapp/wails#5074): what comes after the entry's text."""
    assert rejection(entry) in {"wildcard", "port"}
    hostile = ("https://example.community", "https://app.com.attacker.com", "https://example.com.attacker.com")
    assert not any(map(Allowlist.parse([entry]).allows, hostile))


@pytest.mark.parametrize(
    "hostile",
    [
        "http://localhost:3000.evil.com",
        "http://localhost:.evil.com",
        "http://localhost:*",
        "http://localhost:",
        "http://localhost:3000:3000",
        "http://localhost:3000@evil.com",
        "http://localhost:x@evil.com",
        "http://localhost:0",
        "http://localhost:03000",
        "http://localhost:65536",
        "http://localhost:３０００",
        "http://localhost:+80",
        "http://localhost: 80",
        "http://localhost.evil.com:3000",
    ],
)
def test_cve_2026_34157_any_port_means_digits(hostile: str) -> None:
    """CVE-2019-25211, CVE-2026-34157: rs/cors, Relay, asgi-cors and PostHog take localhost:3000.evil.com for localhost:*."""
    allowlist = Allowlist.parse(["localhost:*", "http://localhost:*"])
    assert allowlist.allows("http://localhost:3000")
    assert not allowlist.allows(hostile)
    for referer in (hostile, f"{hostile}/"):
        assert not gate_for("localhost:*", "http://localhost:*").decide(KEY, None, referer=referer).allowed


# Values that are no origin


@pytest.mark.parametrize(
    "hostile",
    [
        "https://malicious.com?.example.com",
        "https://malicious.com#.example.com",
        "https://malicious.com/.example.com",
        "https://malicious.com\\.example.com",
        "https://malicious.com@.example.com",
        "https://malicious.com%2f.example.com",
        "https://malicious.com%00.example.com",
        "https://malicious.com:443.example.com",
        "https://malicious.com .example.com",
        "https://malicious.com\t.example.com",
        "https://malicious.com\n.example.com",
        "https://malicious.com\0.example.com",
        "https://malicious.com;.example.com",
        "https://malicious.com,https://a.example.com",
        "https://user:word@a.example.com",
        "https://a.example.com/",
        "https://a.example.com?",
        "https://a.example.com#",
    ],
)
def test_better_auth_5624_what_is_no_origin_never_reaches_the_matcher(hostile: str) -> None:
    """better-auth/better-auth#5624: "*.example.com" matched "malicious.com?.example.com"."""
    allowlist = Allowlist.parse(["*.example.com"])
    assert allowlist.allows("https://a.example.com")
    assert not allowlist.allows(hostile)
    with pytest.raises(InvalidOrigin):
        Origin.parse(hostile)
    response = ask(guard(App(), "*.example.com"), origin_header(hostile))
    assert (response.status, response.reason, response.values(ACAO)) == (400, "origin_malformed", [b"*"])


@pytest.mark.parametrize("mark", ["/", "?", "#", "\\", "%2f", "@", ":", " ", ";", "&"])
def test_better_auth_5624_a_misleading_referer_names_no_page(mark: str) -> None:
    """better-auth/better-auth#5624: a Referer is a whole URL, so its host has to be cut out of it first."""
    decision = gate_for("*.example.com").decide(KEY, None, referer=f"https://malicious.com{mark}.example.com/")
    assert not decision.allowed
    assert decision.origin in {None, "https://malicious.com"}


@pytest.mark.parametrize("url", ["http://acme.com:3000:80/", "https://acme.com:80:443/", "http://[::1]:3000:80/"])
def test_better_auth_5624_a_referer_with_two_ports_names_no_page(url: str) -> None:
    """better-auth/better-auth#5624: parse first. No browser can visit such a URL (URL standard 4.4, "port state")."""
    with pytest.raises(InvalidOrigin):
        Origin.from_referer(url)


# Labels under a wildcard


@pytest.mark.parametrize(
    "host", ["foo..example.com", ".example.com", "..example.com", "foo.example.com.", "foo.example..com", "example.com"]
)
def test_gofiber_4437_a_wildcard_takes_neither_empty_labels_nor_the_apex(host: str) -> None:
    """gofiber/fiber#4437, #3690: foo..example.com and example.com itself matched https://*.example.com."""
    allowlist = Allowlist.parse(["https://*.example.com"])
    assert allowlist.allows("https://foo.example.com")
    assert allowlist.allows("https://a.b.example.com")
    assert not allowlist.allows(f"https://{host}")


def test_gofiber_3690_the_apex_is_a_decision_that_the_owner_is_asked_for() -> None:
    """gofiber/fiber#3690: whether "*." covers the apex was left to chance; here it does not, and the list says so."""
    (warning,) = Allowlist.parse(["*.example.com"]).warnings
    assert warning.reason == "apex_not_listed"
    both = Allowlist.parse(["*.example.com", "example.com"])
    assert both.warnings == ()
    assert both.match("https://example.com") == "example.com"
    assert both.match("https://foo.example.com") == "*.example.com"


# Default ports


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("port", "default_of"), [(80, "http"), (443, "https")])
def test_yuzu_2641_a_default_port_is_elided_only_with_its_own_scheme(scheme: str, port: int, default_of: str) -> None:
    """Tr3kkR/Yuzu#2641: ports 80 and 443 were stripped blind to the scheme, so https://h:80 was equal to https://h."""
    with_port = Allowlist.parse([f"{scheme}://h.example:{port}"])
    without = Allowlist.parse([f"{scheme}://h.example"])
    assert with_port.allows(f"{scheme}://h.example") is (scheme == default_of)
    assert without.allows(f"{scheme}://h.example")
    assert with_port.allows(f"{scheme}://h.example:{port}") is (scheme != default_of)
    assert not without.allows(f"{scheme}://h.example:{port}")
    read = Origin.from_referer(f"{scheme}://h.example:{port}/")
    assert (read == Origin.parse(f"{scheme}://h.example")) is (scheme == default_of)


# Entries as people write them

AS_PEOPLE_WRITE_THEM = [
    ("https://*.example.com", "https://www.example.com"),
    ("https://*-m.stock.example.com", "https://api-m.stock.example.com"),
    ("https://api-*.example.com", "https://api-1.example.com"),
    ("https://*.example.com/", "https://www.example.com"),
    ("/^https:\\/\\/.*\\.example\\.com$/", "https://www.example.com"),
    ("https://example.com/", "https://example.com"),
    ("HTTPS://Example.COM", "https://example.com"),
    ("https://example.com:443", "https://example.com"),
    ("http://localhost:8080", "http://localhost:8080"),
    ("localhost", "http://localhost"),
    ("localhost:*", "http://localhost:5173"),
    ("vercel.app", "https://vercel.app"),
    ("www.example.com", "https://www.example.com"),
    ("bücher.example", "https://xn--bcher-kva.example"),
    ("☃.example", "https://xn--n3h.example"),
    ("capacitor://app", "capacitor://app"),
    ("file://", "null"),
    ("null", "null"),
    ("https://example.com/shop", "https://example.com"),
    (" example.com\t", "https://example.com"),
    ("example.com, example.org", "https://example.org"),
    ("example.com example.org", "https://example.org"),
]


@pytest.mark.parametrize(("entry", "page"), AS_PEOPLE_WRITE_THEM)
def test_yorkie_1810_an_entry_works_or_is_rejected_with_a_reason(entry: str, page: str) -> None:
    """yorkie-team/yorkie#1810, ForestAdmin/agent-nodejs#1903, mdn/content#5718, Adyen/adyen-web#272: dead entries."""
    allowlist = Allowlist.parse([entry])
    if allowlist.rejected:
        assert rejection(entry)
        assert gate_for(entry).decide(KEY, page).reason is Reason.ALLOWLIST_EMPTY
    else:
        assert allowlist.match(page) == entry


def test_yorkie_1810_both_kinds_are_among_those_entries() -> None:
    """yorkie-team/yorkie#1810: the test above would prove little if all of its entries were refused."""
    rejected = [entry for entry, _ in AS_PEOPLE_WRITE_THEM if Allowlist.parse([entry]).rejected]
    assert 5 <= len(rejected) <= len(AS_PEOPLE_WRITE_THEM) - 5


@pytest.mark.parametrize(("entry", "other"), [("acme.com", "www.acme.com"), ("www.acme.com", "acme.com")])
def test_c15t_1013_the_incoming_host_is_never_rewritten(entry: str, other: str) -> None:
    """c15t/c15t#1013: "www." was stripped from the request, so that an entry with it could never match."""
    allowlist = Allowlist.parse([entry])
    assert allowlist.allows(f"https://{entry}")
    assert not allowlist.allows(f"https://{other}")
    decision = gate_for(entry).decide(KEY, f"https://{other}")
    assert (decision.reason, decision.origin, decision.add) == (Reason.ORIGIN_NOT_ALLOWED, f"https://{other}", other)


def test_adyen_272_a_rejected_entry_leaves_the_others_working() -> None:
    """Adyen/adyen-web#272, #1646: what cannot be enforced is named, and the rest of the list is."""
    allowlist = Allowlist.parse(["capacitor://*", "http://localhost:8080", "https://acme.com/pay"])
    assert allowlist.patterns == ("http://localhost:8080",)
    assert [(rejected.entry, rejected.reason) for rejected in allowlist.rejected] == [
        ("capacitor://*", "wildcard"),
        ("https://acme.com/pay", "path"),
    ]


def test_adyen_1646_an_app_that_is_listed_is_allowed() -> None:
    """Adyen/adyen-web#1646: capacitor://app could be saved, and was refused at run time."""
    decision = gate_for("capacitor://app").decide(KEY, "capacitor://app")
    assert (decision.reason, decision.matched) == (Reason.ALLOWED, "capacitor://app")


# localhost, and useful refusals


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("port", ["", ":1", ":3000", ":5173", ":8080", ":65535"])
def test_sentry_1461_localhost_works_with_every_port(scheme: str, port: str) -> None:
    """getsentry/sentry#1461, getsentry/sentry-javascript#1112: users could not get localhost:PORT right."""
    assert Allowlist.parse(["localhost:*"]).match(f"{scheme}://localhost{port}") == "localhost:*"


@pytest.mark.parametrize(
    "page",
    [
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "http://[::1]:5173",
        "https://shop.acme.com",
        "http://shop.acme.com",
        "https://shop.acme.com:8443",
        "https://xn--bcher-kva.example",
    ],
)
def test_sentry_javascript_1112_a_refusal_names_origin_and_entry(page: str) -> None:
    """getsentry/sentry-javascript#1112: users had to guess what was seen and what to write."""
    response = ask(guard(App(), "other.example"), origin_header(page))
    problem = json.loads(response.body)
    decision = gate_for("other.example").decide(KEY, page)
    assert (response.status, problem["reason"], problem["origin"]) == (403, "origin_not_allowed", page)
    assert decision.add is not None
    assert page in problem["detail"]
    assert f"'{decision.add}'" in problem["detail"]
    assert response.values(ACAO) == [b"*"]
    assert gate_for("other.example", decision.add).decide(KEY, page).allowed


# The origin null


@pytest.mark.parametrize("entries", [("acme.com",), ("null", "acme.com"), ("*.acme.com", "localhost:*")])
@pytest.mark.parametrize("referer", [None, "https://acme.com/"])
def test_sentry_4724_null_is_refused_by_its_own_reason(entries: tuple[str, ...], referer: str | None) -> None:
    """getsentry/sentry#4724, #5184, #5632, getsentry/sentry-javascript#949, qbittorrent/qBittorrent#21106."""
    headers = [] if referer is None else [(b"referer", referer.encode())]
    response = ask(guard(App(), *entries), origin_header("null"), *headers)
    assert (response.status, response.reason) == (403, "origin_null")
    assert "local files" in json.loads(response.body)["detail"]


def test_sentry_5184_null_is_never_echoed_and_never_listed() -> None:
    """getsentry/sentry#5184: every sandboxed iframe sends null, so an answer to one is an answer to all."""
    for cors in (CorsPolicy(), CorsPolicy(preflight="strict")):
        guarded = guard(App([(ACAO.encode(), b"null")]), "null", "acme.com", cors=cors)
        preflight = (b"access-control-request-method", b"POST")
        responses = [
            ask(guarded, origin_header("null")),
            ask(guarded, origin_header("null"), preflight, method="OPTIONS", keyed=False),
        ]
        assert [response.values(ACAO) for response in responses] == [[b"*"], []]
        assert {response.reason for response in responses} == {"origin_null"}
    assert {rejection(entry) for entry in ("null", "NULL", " null ")} == {"null"}


# Requests without a page


@pytest.mark.parametrize("entries", [("acme.com",), ("*.acme.com", "localhost:*")])
def test_sentry_docs_4014_a_request_without_a_page_is_refused(entries: tuple[str, ...]) -> None:
    """getsentry/sentry-docs#4014, getsentry/sentry#2822: saved pages send neither header, and were accepted."""
    app = App()
    response = ask(guard(app, *entries))
    assert (response.status, response.reason, response.values(ACAO)) == (403, "origin_missing", [b"*"])
    assert app.paths == []


@pytest.mark.parametrize("name", [b"origin", b"referer"])
def test_sentry_2822_an_empty_header_says_nothing_either(name: bytes) -> None:
    """getsentry/sentry#2822: an empty Origin fell back to the Referer, and an empty Referer to nothing."""
    app = App()
    page = (b"referer", b"https://acme.com/")
    response = ask(guard(app, "acme.com"), (name, b""), *([page] if name == b"origin" else []))
    assert (response.status, response.reason) == (400, "origin_malformed")
    assert app.paths == []


# WebSockets


@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize(
    ("origins", "reason"),
    [
        (("https://evil.test",), "origin_not_allowed"),
        (("null",), "origin_null"),
        ((), "origin_missing"),
        (("https://acme.com.",), "origin_not_allowed"),  # Chromium keeps the dot, so it is well formed: another site
        (("https://acme.com..",), "origin_malformed"),
        (("https://acme.com", "https://acme.com"), "origin_conflict"),
        (("https://acme.com", "https://evil.test"), "origin_conflict"),
    ],
)
def test_adk_python_4951_a_websocket_is_refused_before_it_opens(
    origins: tuple[str, ...], reason: str, *, extension: bool
) -> None:
    """google/adk-python#4951, miguelgrinberg/python-engineio#128, open-webui/open-webui#18410: only HTTP was checked."""
    app = App()
    headers = [origin_header(origin) for origin in origins]
    sent = handshake(guard(app, "acme.com"), *headers, (b"referer", b"https://acme.com/"), extension=extension)
    assert app.paths == []
    if extension:
        start, body = sent
        assert start["type"] == "websocket.http.response.start"
        assert (start["status"], json.loads(body["body"])["reason"]) == (Reason(reason).status, reason)
    else:
        (close,) = sent
        assert (close["type"], close["code"]) == ("websocket.close", 1008)
        assert close["reason"].startswith(f"{reason}: ")


def test_python_engineio_128_a_websocket_of_an_allowed_page_is_the_apps() -> None:
    """miguelgrinberg/python-engineio#128: the same list has to let the right page through."""
    app = App()
    assert handshake(guard(app, "acme.com"), origin_header("https://acme.com")) == [{"type": "websocket.accept"}]
    assert app.paths == ["/"]


# Hostile hosts and IDNA


class Trapped(Exception):
    """IDNA was called."""


@pytest.fixture
def no_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every function of idna, and both codecs of the standard library, raise."""

    def trap(*_args: object, **_options: object) -> NoReturn:
        raise Trapped

    for module in (idna, idna.core):
        for name, _ in inspect.getmembers(module, inspect.isfunction):
            monkeypatch.setattr(module, name, trap)
    for function in ("nameprep", "ToASCII", "ToUnicode"):
        monkeypatch.setattr(encodings.idna, function, trap)
    for function in ("punycode_encode", "punycode_decode"):
        monkeypatch.setattr(encodings.punycode, function, trap)


HOSTILE_HOSTS = [
    "xn--bcher-kva.example",
    "xn--" + "a" * 59 + ".example",
    "xn--" * 60 + "a.example",
    ".".join(["xn--a"] * 50),
    "bücher.example",
    "ａｃｍｅ.com",
    "\u0660" * 100 + ".acme.com",
    "\ufdfa" * 80 + ".acme.com",
    "\u0300" * 250,
    "\u200d" * 250 + ".acme.com",
    "\U00010000" * 60_000,
    "xn--" + "9" * 500_000,
    "a." * 100_000 + "acme.com",
]


@pytest.mark.usefixtures("no_idna")
@pytest.mark.parametrize("host", HOSTILE_HOSTS, ids=lambda host: f"{len(host)} {ascii(host)[:24]}")
def test_cve_2022_45061_no_host_of_a_request_ever_reaches_idna(host: str) -> None:
    """CVE-2022-45061 (python/cpython#98433), CVE-2024-3651 (kjd/idna#175), CVE-2026-45409: IDNA is slow on hostile hosts."""
    gate = gate_for("acme.com", "*.acme.com", "localhost:*")
    for page in (f"https://{host}", f"https://{host}".encode(), f"https://x.{host}:8443"):
        assert not gate.decide(KEY, page).allowed
        assert not gate.decide(KEY, None, referer=page).allowed
    app = App()
    guarded = guard(app, "acme.com", cors=CorsPolicy(preflight="strict"))
    assert ask(guarded, origin_header(f"https://{host}")).status in {400, 403}
    assert ask(guarded, (b"referer", f"https://{host}/".encode())).status in {400, 403}
    preflight = (b"access-control-request-method", b"POST")
    assert ask(guarded, origin_header(f"https://{host}"), preflight, method="OPTIONS", keyed=False).status in {400, 403}
    assert handshake(guarded, origin_header(f"https://{host}"))[0]["type"] == "websocket.close"
    assert app.paths == []


@pytest.mark.usefixtures("no_idna")
def test_cve_2024_3651_the_length_of_an_entry_is_checked_before_idna() -> None:
    """CVE-2024-3651 (kjd/idna#175), CVE-2026-45409: quadratic time needs a long host, and none is passed on."""
    with pytest.raises(InvalidEntry) as error:
        Pattern.parse("ü" * 254)
    assert error.value.reason == "host"
    with pytest.raises(InvalidEntry) as error:
        Pattern.parse("ü" * 100_000)
    assert error.value.reason == "too_long"


@pytest.mark.usefixtures("no_idna")
def test_cve_2022_45061_the_trap_of_these_tests_shuts() -> None:
    """CVE-2022-45061 (python/cpython#98433): entries do go through IDNA, when a list is loaded."""
    with pytest.raises(Trapped):
        Pattern.parse("bücher.example")
    for codec in ("idna", "punycode"):
        with pytest.raises(Trapped):
            codecs.encode("bücher.example", codec)
        with pytest.raises(Trapped):
            codecs.decode(b"xn--bcher-kva", codec)


def test_cve_2026_45409_no_slow_version_of_idna_is_installed() -> None:
    """CVE-2026-45409: idna before 3.15."""
    requirements = map(Requirement, metadata.requires("widget-gatekeeper") or [])
    (wanted,) = (requirement.specifier for requirement in requirements if requirement.name == "idna")
    assert not wanted.contains("3.14.9")
    assert wanted.contains(metadata.version("idna"))


# Unguarded paths

PATHS = [
    "/",
    "",
    "/api/v1/prediction/1",
    "/api/v1/public-chatbotConfig/1",
    "/api/v1/chatflows-streaming/1",
    "/widget.js",
    "/healthz/",
    "/healthz/../chat",
    "/HEALTHZ",
    "//healthz",
    "/healthz\0",
    "/healthz ",
    "/health",
    "/static",
    "/statics/x",
    "/x/static/y",
    "*",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", ""]
EXEMPT = ("/healthz", "/static/*")


@pytest.mark.parametrize("method", METHODS)
def test_flowise_5706_every_path_is_guarded_whatever_the_method(method: str) -> None:
    """FlowiseAI/Flowise#5706: /prediction was checked; /public-chatbotConfig and /chatflows-streaming stayed open."""
    app = App()
    guarded = guard(app, "acme.com", exempt=EXEMPT)
    for path in PATHS:
        assert ask(guarded, origin_header("https://evil.test"), method=method, path=path).reason == "origin_not_allowed"
        assert ask(guarded, method=method, path=path).reason == "origin_missing"
        assert ask(guarded, origin_header("https://acme.com"), method=method, path=path, keyed=False).reason == "key_missing"
        assert handshake(guarded, origin_header("https://evil.test"), path=path)[0]["type"] == "websocket.close"
    assert app.paths == []


@settings(deadline=None)
@example("/healthz")
@example("/static/x")
@example("/static/../chat")
@given(
    st.text(max_size=12).map("/{}".format)
    | st.sampled_from(EXEMPT).flatmap(lambda path: st.text(max_size=4).map(path.__add__))
)
def test_flowise_5706_a_path_is_open_only_if_it_is_listed(path: str) -> None:
    """FlowiseAI/Flowise#5706: a path is closed unless it is listed."""
    app = App()
    response = ask(guard(app, "acme.com", exempt=EXEMPT), path=path, keyed=False)
    is_listed = path == "/healthz" or (path.startswith("/static/") and not any(odd in path for odd in ("/..", "\\", "%")))
    assert (response.reason == "allowed") is is_listed
    assert app.paths == ([path] if is_listed else [])


# Empty lists


@pytest.mark.parametrize("entries", [(), ("",), ("*",), ("null", "*", "https://", "acme.com/shop")])
@pytest.mark.parametrize("page", ["https://acme.com", "http://localhost:3000", "null", "https://a..b", None])
def test_open_chat_studio_2459_an_empty_list_has_its_own_reason(entries: tuple[str, ...], page: str | None) -> None:
    """dimagi/open-chat-studio#2459 (empty meant block, "a bug"), chatwoot/chatwoot#8412 (empty meant allow, "a bug")."""
    app = App()
    headers = [] if page is None else [origin_header(page)]
    response = ask(guard(app, *entries), *headers)
    assert (response.status, response.reason) == (403, "allowlist_empty")
    assert "allows no domain" in json.loads(response.body)["detail"]
    assert app.paths == []


def test_open_chat_studio_2459_the_refusal_says_which_entry_to_add() -> None:
    """dimagi/open-chat-studio#2459: users took a blocked key for a broken one, because nothing said why."""
    page = "https://shop.acme.com"
    problem = json.loads(ask(guard(App()), origin_header(page)).body)
    assert "'shop.acme.com'" in problem["detail"]
    assert gate_for("shop.acme.com").decide(KEY, page).allowed


# Headers


@pytest.mark.parametrize(
    "asked", ["Origin", "X-Injected", "*", "origin, x-injected", "access-control-allow-origin", "x\r\nvary: y"]
)
def test_ghsa_q7jf_gf43_6x6p_nothing_of_a_request_gets_into_vary(asked: str) -> None:
    """GHSA-q7jf-gf43-6x6p: Access-Control-Request-Headers and the request's own Vary were reflected into Vary."""
    hostile = [(name, asked.encode()) for name in (b"vary", b"access-control-request-headers")]
    method = (b"access-control-request-method", asked.encode())
    for page in ("https://acme.com", "https://evil.test"):
        for policy in (CorsPolicy(), CorsPolicy(preflight="strict")):
            guarded = guard(App(), "acme.com", cors=policy)
            plain, injected = ([origin_header(page)], [origin_header(page), *hostile])
            assert ask(guarded, *injected) == ask(guarded, *plain)
            answers = [
                ask(
                    guarded, origin_header(page), (b"access-control-request-method", b"POST"), method="OPTIONS", keyed=False
                ),
                ask(guarded, origin_header(page), method, *hostile, method="OPTIONS", keyed=False),
            ]
            assert answers[0] == answers[1]
            assert answers[0].values("vary")


async def _shares_its_headers(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the body stays unread
    await send(_SHARED_START)
    await send({"type": "http.response.body", "body": App.BODY})


_SHARED_START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]}


@pytest.mark.parametrize(("page", "method"), [("https://acme.com", "GET"), ("https://evil.test", "GET"), (None, "OPTIONS")])
def test_jub0bs_0_13_6_no_response_shares_its_headers_with_the_next(page: str | None, method: str) -> None:
    """jub0bs/cors changelog, 0.13.6: outer code that changed a response's headers changed those of all later ones."""
    for app in (App([(b"x-app", b"1")]), _shares_its_headers):
        guarded = guard(app, "acme.com")
        headers = [origin_header(page or "https://acme.com")]
        if page is None:
            headers.append((b"access-control-request-method", b"POST"))
        first = ask(guarded, *headers, method=method, keyed=page is not None)
        before = list(first.headers)
        first.headers[:] = [(b"access-control-allow-origin", b"https://evil.test"), (b"x-outer", b"1")]
        second = ask(guarded, *headers, method=method, keyed=page is not None)
        assert second.headers == before
        assert second.headers is not first.headers
    assert _SHARED_START["headers"] == [(b"x-app", b"1")]
