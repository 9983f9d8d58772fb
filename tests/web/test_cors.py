"""CorsPolicy, its headers, and the Content-Security-Policy of an allowlist."""

from typing import Any

import pytest

from gatekeeper import Allowlist, ConfigError, CorsPolicy
from gatekeeper.web.cors import CorsHeaders, frame_ancestors, is_token, merge_vary

ORIGIN = b"https://shop.acme.com"


def listed(value: bytes) -> set[str]:
    """Read a list header, ignoring order and letter case."""
    return {name.strip().lower() for name in value.decode("ascii").split(",")}


def answer_to_preflight(policy: CorsPolicy, *asked: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    """Answer a preflight, and assert that no header is repeated."""
    headers = CorsHeaders(policy, "data-client-key").preflight(ORIGIN, asked)
    assert len(dict(headers)) == len(headers)
    return dict(headers)


def test_the_default_policy_is_narrow_and_sends_no_credentials() -> None:
    policy = CorsPolicy()
    assert (policy.allow_methods, policy.allow_headers) == (("GET", "HEAD", "POST"), ("content-type",))
    assert (policy.expose_headers, policy.max_age, policy.preflight) == ((), 600, "open")
    assert (policy.allow_credentials, policy.allow_private_network) == (False, False)


def test_a_policy_is_frozen() -> None:
    policy: Any = CorsPolicy()
    with pytest.raises(AttributeError):
        policy.max_age = -1


def test_a_policy_takes_only_keyword_arguments() -> None:
    policy: Any = CorsPolicy
    with pytest.raises(TypeError):
        policy(("GET",))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("allow_methods", ("GET", "*"), "allow_methods has '*'"),
        ("allow_methods", ("GET POST",), "allow_methods has 'GET POST'"),
        ("allow_methods", "GET", "allow_methods is one string, 'GET': expected a tuple of names, such as ('GET',)"),
        ("allow_headers", ("",), "allow_headers has ''"),
        ("allow_headers", ("x-a\r\nset-cookie: a=b",), "allow_headers has 'x-a\\r\\nset-cookie: a=b'"),
        ("allow_headers", ("x-a,x-b",), "allow_headers has 'x-a,x-b'"),
        ("allow_headers", (b"x-a",), "allow_headers has b'x-a'"),
        ("allow_headers", "content-type", "allow_headers is one string, 'content-type'"),
        ("expose_headers", ("*",), "expose_headers has '*'"),
        ("expose_headers", ("x-ä",), "expose_headers has 'x-ä'"),
        ("expose_headers", (None,), "expose_headers has None"),
        ("max_age", -1, "max_age is -1"),
        ("max_age", 1.5, "max_age is 1.5"),
        ("max_age", True, "max_age is True"),
        ("max_age", "600", "max_age is '600'"),
        ("max_age", None, "max_age is None"),
        ("preflight", "lax", "preflight is 'lax': expected 'open' or 'strict'"),
        ("preflight", None, "preflight is None"),
    ],
)
def test_a_wrong_option_is_reported_with_its_value(option: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        CorsPolicy(**{option: value})
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(said)
    assert str(error.value).startswith("gatekeeper: ")


def test_all_mistakes_are_reported_together() -> None:
    wrong: dict[str, Any] = {
        "allow_methods": ("G T", "*"),
        "allow_headers": "content-type",
        "expose_headers": ("x a",),
        "max_age": -1,
        "preflight": "lax",
    }
    with pytest.raises(ConfigError) as error:
        CorsPolicy(**wrong)
    beginnings = [problem.split()[0] for problem in error.value.problems]
    assert beginnings == ["allow_methods", "allow_methods", "allow_headers", "expose_headers", "max_age", "preflight"]


@pytest.mark.parametrize("max_age", [0, 86_400])
def test_max_age_may_be_0_or_more_seconds(max_age: int) -> None:
    answer = answer_to_preflight(CorsPolicy(max_age=max_age))
    assert answer[b"access-control-max-age"] == str(max_age).encode()


@pytest.mark.parametrize("name", ["GET", "x-a", "X_a.1", "!#$%&'*+-.^_`|~"])
def test_a_token_is_a_name(name: str) -> None:
    assert is_token(name)


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "a:", "a/b", "é", "a\x00", "(a)", b"GET", None, 1])
def test_other_values_are_not_names(name: object) -> None:
    assert not is_token(name)


def test_the_answer_to_a_preflight_has_the_policy_and_nothing_else() -> None:
    policy = CorsPolicy(allow_methods=("GET", "PUT"), allow_headers=("content-type", "x-trace"), max_age=5)
    answer = answer_to_preflight(policy)
    assert answer[b"access-control-allow-origin"] == b"*"
    assert listed(answer[b"access-control-allow-methods"]) == {"get", "put"}
    assert listed(answer[b"access-control-allow-headers"]) == {"content-type", "x-trace", "data-client-key"}
    assert answer[b"access-control-max-age"] == b"5"
    assert listed(answer[b"vary"]) == {"origin", "access-control-request-method", "access-control-request-headers"}
    assert len(answer) == 5


def test_the_key_header_is_always_allowed() -> None:
    answer = answer_to_preflight(CorsPolicy(allow_headers=()))
    assert answer[b"access-control-allow-headers"] == b"data-client-key"


def test_preflights_and_responses_both_allow_credentials() -> None:
    policy = CorsPolicy(allow_credentials=True, preflight="strict")
    assert answer_to_preflight(policy)[b"access-control-allow-credentials"] == b"true"
    assert (b"access-control-allow-credentials", b"true") in CorsHeaders(policy, "data-client-key").allowed


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_a_private_network_is_opened_if_asked_and_allowed(*, asked: bool, allowed: bool) -> None:
    sent = [(b"access-control-request-private-network", b"true")] if asked else []
    answer = answer_to_preflight(CorsPolicy(allow_private_network=allowed), *sent)
    opened = {b"access-control-allow-private-network": b"true"} if asked and allowed else {}
    assert {name: value for name, value in answer.items() if b"private" in name} == opened
    assert ("access-control-request-private-network" in listed(answer[b"vary"])) is allowed


def test_no_two_preflights_share_a_list() -> None:
    headers = CorsHeaders(CorsPolicy(preflight="strict"), "data-client-key")
    first = headers.preflight(ORIGIN, ())
    first.append((b"set-cookie", b"a=b"))
    second = headers.preflight(b"https://blog.acme.com", ())
    assert b"set-cookie" not in dict(second)
    assert dict(second)[b"access-control-allow-origin"] == b"https://blog.acme.com"


def test_responses_vary_by_the_origin_and_the_key_header() -> None:
    headers = CorsHeaders(CorsPolicy(), "x-key")
    assert headers.allowed == (headers.vary,)
    assert headers.vary[0] == headers.vary_with_referer[0] == b"vary"
    assert listed(headers.vary[1]) == {"origin", "x-key"}
    assert listed(headers.vary_with_referer[1]) == {"origin", "x-key", "referer"}


def test_exposed_headers_are_in_responses_and_not_in_preflights() -> None:
    policy = CorsPolicy(expose_headers=("X-Trace", "ETag"))
    allowed = dict(CorsHeaders(policy, "data-client-key").allowed)
    assert listed(allowed[b"access-control-expose-headers"]) == {"x-trace", "etag"}
    assert b"access-control-expose-headers" not in answer_to_preflight(policy)


@pytest.mark.parametrize(
    ("entry", "sources"),
    [
        ("acme.com", "https://acme.com http://acme.com"),
        ("*.acme.com", "https://*.acme.com http://*.acme.com"),
        ("https://acme.com", "https://acme.com"),
        ("http://acme.com", "http://acme.com"),
        ("acme.com:8443", "https://acme.com:8443 http://acme.com:8443"),
        ("localhost:*", "https://localhost:* http://localhost:*"),
        ("192.168.0.10:3000", "https://192.168.0.10:3000 http://192.168.0.10:3000"),
        ("bücher.example", "https://xn--bcher-kva.example http://xn--bcher-kva.example"),
        ("Capacitor://App.Acme.com/", "capacitor://app.acme.com"),
        ("app://localhost:3000", "app://localhost:3000"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
    ],
)
def test_an_entry_becomes_its_csp_sources(entry: str, sources: str) -> None:
    name, value = frame_ancestors(Allowlist.parse([entry]))
    assert (name, value.decode()) == (b"content-security-policy", f"frame-ancestors {sources}")


@pytest.mark.parametrize(
    ("entry", "sources"),
    [
        ("acme.com", "https://acme.com"),
        ("*.acme.com", "https://*.acme.com"),
        ("localhost:*", "https://localhost:* http://localhost:*"),
        ("*.localhost", "https://*.localhost http://*.localhost"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://acme.com", "'none'"),
        ("capacitor://app.acme.com", "capacitor://app.acme.com"),
    ],
)
def test_https_only_keeps_http_for_loopback_names(entry: str, sources: str) -> None:
    _, value = frame_ancestors(Allowlist.parse([entry], https_only=True))
    assert value.decode() == f"frame-ancestors {sources}"


@pytest.mark.parametrize("entries", [[], ["*"], ["[::1]:*"], ["my_shop.acme.com"], ["app://my_app"], ["a b"]])
def test_without_a_csp_source_no_page_may_frame(entries: list[str]) -> None:
    assert frame_ancestors(Allowlist.parse(entries)) == (b"content-security-policy", b"frame-ancestors 'none'")


def test_a_deleted_key_lets_no_page_frame() -> None:
    assert frame_ancestors(None)[1] == b"frame-ancestors 'none'"


def test_entries_without_csp_syntax_are_left_out() -> None:
    _, value = frame_ancestors(Allowlist.parse(["[::1]:*", "https://a.test", "my_shop.acme.com", "https://b.test:1"]))
    assert value == b"frame-ancestors https://a.test https://b.test:1"


def test_no_entry_can_inject_a_directive() -> None:
    entries = [
        "a.test; script-src *",
        "a.test;",
        "https://a.test;x",
        "a.test,b.test",
        "a.test 'self'",
        "app://a;x",
        "app;x://a",
    ]
    assert frame_ancestors(Allowlist.parse(entries))[1] == b"frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("members", "merged"),
    [
        (b"Accept-Encoding", b"Origin, x-key, Accept-Encoding"),
        (b" ORIGIN ,\tX-Key", b"Origin, x-key"),
        (b"", b"Origin, x-key"),
        (b"a,,b , a", b"Origin, x-key, a, b"),
        (b"a, *", b"*"),
    ],
)
def test_the_members_of_two_vary_headers_become_one(members: bytes, merged: bytes) -> None:
    headers = [(b"x-own", b"1"), (b"vary", b"Origin, x-key"), (b"x-more", b"2")]
    merge_vary(headers, members)
    assert headers == [(b"x-own", b"1"), (b"vary", merged), (b"x-more", b"2")]
