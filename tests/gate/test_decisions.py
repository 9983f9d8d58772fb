"""Reason, Decision: the answer, its status code and its sentences."""

import json
import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import Allowlist, Decision, Gatekeeper, Reason, WidgetKey
from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.keys.client_key import ClientKey

CLIENT_KEY = ClientKey.parse("pk_live_acme_Zb3xQ9-LmN0pRsTuVwXyZ")
LAST8 = CLIENT_KEY.last8
WIDGET_KEY = WidgetKey("wk_1", "Shop", LAST8, (), agent_id="agent-7", key_sha256=CLIENT_KEY.sha256())
ORIGIN = "https://shop.acme.com:8443"

# The order of the checks, with the status codes.
STATUSES = [
    ("not_ready", 503),
    ("expired", 503),
    ("not_framed", 403),
    ("key_missing", 400),
    ("key_malformed", 400),
    ("key_conflict", 400),
    ("grant_foreign", 403),
    ("grant_invalid", 403),
    ("grant_expired", 403),
    ("key_unknown", 403),
    ("key_ambiguous", 403),
    ("key_disabled", 403),
    ("allowlist_empty", 403),
    ("origin_conflict", 400),
    ("origin_malformed", 400),
    ("origin_null", 403),
    ("origin_missing", 403),
    ("origin_not_allowed", 403),
    ("allowed", 200),
]

EVERY_DECISION = [
    Decision(reason, key, last8, origin, matched, problem=problem, retry_after=retry_after)
    for reason, key, last8, origin, matched, problem, retry_after in product(
        Reason,
        (None, WIDGET_KEY),
        (None, LAST8),
        (None, "null", ORIGIN, "http://[::ffff:102:304]"),
        (None, "{*}.acme.com"),
        (None, "it does not begin with 'pk_live_'"),
        (None, 2),
    )
]


def test_reasons_are_in_the_order_of_their_checks_with_their_status() -> None:
    assert [(str(reason), reason.status) for reason in Reason] == STATUSES


@pytest.mark.parametrize("reason", Reason)
def test_only_allowed_is_allowed(reason: Reason) -> None:
    decision = Decision(reason)
    assert decision.allowed is (reason == "allowed")
    assert decision.status == dict(STATUSES)[reason]


def test_unknown_parts_of_a_decision_are_none() -> None:
    decision = Decision(Reason.KEY_MISSING)
    assert (decision.key, decision.last8, decision.origin, decision.matched) == (None, None, None, None)
    assert (decision.problem, decision.retry_after, decision.agent_id, decision.add) == (None, None, None, None)


def test_the_pinned_agent_is_the_keys_own() -> None:
    assert Decision(Reason.ALLOWED, WIDGET_KEY).agent_id == "agent-7"
    assert Decision(Reason.ALLOWED, WidgetKey("wk_1", None, LAST8, ())).agent_id is None


def test_a_decision_cannot_be_changed() -> None:
    decision: Any = Decision(Reason.KEY_UNKNOWN)
    with pytest.raises(AttributeError):
        decision.reason = Reason.ALLOWED


def test_a_conflict_is_one_value() -> None:
    assert list(Conflict) == [CONFLICT]


# Titles and sentences.


def test_every_reason_has_its_own_short_title() -> None:
    titles = [Decision(reason).title for reason in Reason]
    assert len(set(titles)) == len(titles)
    assert all(re.fullmatch(r"[A-Z][a-z ]{4,39}", title) for title in titles)


@pytest.mark.parametrize("reason", Reason)
def test_every_sentence_is_complete_with_any_part_unknown(reason: Reason) -> None:
    decisions = [decision for decision in EVERY_DECISION if decision.reason is reason]
    assert len(decisions) == 128
    for decision in decisions:
        detail = decision.detail
        assert not re.search(r"[{}]|None|  |\s[.,:]|''|\.\.", detail), detail
        assert detail.endswith(".")
        assert detail[0].isupper() or detail.startswith((str(decision.origin), "this page")), detail
        assert 20 < len(detail) < 300


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("not_ready", "Try again in 2 s."),
        ("expired", "Try again in 2 s."),
        ("key_missing", 'Put data-client-key="…" on the script tag'),
        ("key_malformed", "malformed client key: it does not begin with 'pk_live_'. Copy the whole key"),
        ("key_conflict", "Send one"),
        ("not_framed", "only a page that embeds it in an iframe can open it"),
        ("grant_foreign", f"the page of this one is {ORIGIN}. Scripts on a customer's page send the client key."),
        ("grant_invalid", "Load the page with the widget again."),
        ("grant_expired", f"the allowed domains of the widget key …{LAST8} have changed"),
        ("key_unknown", f"no widget key …{LAST8}."),
        ("key_ambiguous", f"end with …{LAST8}, so"),
        ("key_disabled", f"The widget key …{LAST8} is disabled. Enable it again"),
        ("allowlist_empty", f"The widget key …{LAST8} allows no domain"),
        (
            "allowlist_empty",
            f"so {ORIGIN} cannot use it. If the page is yours, add '{ORIGIN}' to the key's allowed domains.",
        ),
        ("origin_conflict", "names its page twice"),
        ("origin_malformed", "malformed origin: it does not begin with 'pk_live_'. Browsers send a scheme"),
        ("origin_null", "Serve it from a domain"),
        ("origin_missing", "neither an Origin nor a Referer"),
        ("origin_not_allowed", f"{ORIGIN} is not among the allowed domains of the widget key …{LAST8}."),
        ("origin_not_allowed", f"add '{ORIGIN}' to the key's allowed domains."),
        ("allowed", f"{ORIGIN} may use the widget key …{LAST8}."),
    ],
)
def test_a_sentence_says_what_was_seen_and_what_to_do(reason: str, said: str) -> None:
    problem = "it does not begin with 'pk_live_'"
    decision = Decision(Reason(reason), WIDGET_KEY, LAST8, ORIGIN, add=ORIGIN, problem=problem, retry_after=2)
    assert said in decision.detail


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("not_ready", "Try again soon."),
        ("expired", "Try again soon."),
        ("key_malformed", "The request sends a malformed client key. Copy"),
        ("key_unknown", "There is no widget key. It"),
        ("allowlist_empty", "so this page cannot use it. If the page is yours, add its domain to"),
        ("origin_malformed", "The request sends a malformed origin. Browsers"),
        ("origin_not_allowed", "add its domain to the key's allowed domains."),
    ],
)
def test_a_sentence_omits_unknown_parts(reason: str, said: str) -> None:
    assert said in Decision(Reason(reason)).detail


def test_braces_in_quoted_text_are_not_replaced() -> None:
    decision = Decision(Reason.KEY_MALFORMED, last8="{origin}", problem="{key} and {0.__class__}")
    assert "{key} and {0.__class__}" in decision.detail


# The entry that would allow the page.


def refusal(origin: str | None, *entries: str, https_only: bool = False) -> Decision:
    row = {"id": "wk_1", "last8": LAST8, "domain_allowlist": entries}
    return Gatekeeper.from_rows([row], https_only=https_only).decide(CLIENT_KEY.value, origin)


@pytest.mark.parametrize("entries", [(), ("example.net",)])
@pytest.mark.parametrize(
    ("origin", "entry"),
    [
        ("https://shop.acme.com", "shop.acme.com"),
        ("https://shop.acme.com:8443", "https://shop.acme.com:8443"),
        ("http://shop.acme.com", "http://shop.acme.com"),
        ("http://localhost:3000", "localhost:*"),
        ("http://[::1]:3000", "[::1]:*"),
        ("http://192.168.0.10", "http://192.168.0.10"),
        ("https://xn--i-7iq.ws", "xn--i-7iq.ws"),
    ],
)
def test_a_refusal_names_the_entry_that_would_allow_the_page(origin: str, entry: str, entries: tuple[str, ...]) -> None:
    decision = refusal(origin, *entries)
    assert decision.add == entry
    assert f"add '{entry}' to the key's allowed domains" in decision.detail
    assert Allowlist.parse([entry]).allows(origin)


@pytest.mark.parametrize("entries", [(), ("example.net",)])
def test_a_refusal_names_no_entry_where_none_can_allow_the_page(entries: tuple[str, ...]) -> None:
    for decision in (
        refusal("http://[::ffff:102:304]", *entries),
        refusal("http://shop.acme.com", *entries, https_only=True),
    ):
        assert decision.add is None
        assert "serve it from a domain over https" in decision.detail


def test_a_refusal_of_an_unknown_page_speaks_of_its_domain() -> None:
    decision = refusal(None)
    assert decision.add is None
    assert "add its domain to the key's allowed domains" in decision.detail


@pytest.mark.parametrize(
    "reason", [reason for reason in Reason if reason not in (Reason.ORIGIN_NOT_ALLOWED, Reason.ALLOWLIST_EMPTY)]
)
def test_no_entry_is_suggested_where_none_would_help(reason: Reason) -> None:
    assert Decision(reason, WIDGET_KEY, LAST8, ORIGIN).add is None


# The body of a refusal.


@pytest.mark.parametrize("reason", Reason)
def test_a_body_has_the_members_of_rfc_9457_and_ours(reason: Reason) -> None:
    decision = Decision(reason, WIDGET_KEY, LAST8, ORIGIN, "acme.com", problem="it is bad", retry_after=2)
    assert json.loads(decision.problem_json()) == {
        "type": f"urn:gatekeeper:{reason.value}",
        "title": decision.title,
        "status": decision.status,
        "detail": decision.detail,
        "reason": reason.value,
        "origin": ORIGIN,
        "key": f"…{LAST8}",
        "retry_after": 2,
    }


@given(
    st.lists(
        st.builds(
            Decision,
            st.sampled_from(Reason),
            last8=st.sampled_from([None, LAST8, "00000000"]),
            origin=st.sampled_from([None, "null", ORIGIN, "https://a.example."]),
            add=st.sampled_from([None, "acme.com", ORIGIN]),
            problem=st.sampled_from([None, "it is bad", "1"]),
            retry_after=st.sampled_from([None, 1, 2]),
        ),
        min_size=2,
    )
)
def test_each_decision_has_a_body_of_its_own(decisions: list[Decision]) -> None:
    """Bodies are cached."""
    for decision in decisions:
        of_own_frame = decision.problem_json(from_own_frame=True)
        body = json.loads(decision.problem_json())
        assert decision.differs_in_own_frame == (json.loads(of_own_frame) != body)
        key = None if decision.last8 is None else f"…{decision.last8}"
        told = decision.reason, decision.status, decision.origin, key, decision.retry_after
        assert tuple(body[name] for name in ("reason", "status", "origin", "key", "retry_after")) == told
        assert (body["title"], body["detail"]) == (decision.title, decision.detail)


@pytest.mark.parametrize("reason", Reason)
def test_a_decision_tells_whether_its_body_is_another_in_the_own_frame(reason: Reason) -> None:
    decision = Decision(reason, origin="https://widgets.example")
    assert decision.differs_in_own_frame == (decision.problem_json(from_own_frame=True) != decision.problem_json())


def test_a_body_has_every_member_even_where_nothing_is_known() -> None:
    body = json.loads(Decision(Reason.KEY_MISSING).problem_json())
    assert list(body) == ["type", "title", "status", "detail", "reason", "origin", "key", "retry_after"]
    assert (body["origin"], body["key"], body["retry_after"]) == (None, None, None)


@pytest.mark.parametrize("decision", [Decision(reason, WIDGET_KEY, LAST8, ORIGIN) for reason in Reason])
def test_nothing_shown_of_a_decision_contains_the_whole_key(decision: Decision) -> None:
    for shown in (decision.problem_json().decode(), decision.detail, repr(decision)):
        assert CLIENT_KEY.value[-9:] not in shown
    assert CLIENT_KEY.sha256() not in decision.problem_json().decode()


# The exact sentences.


@pytest.mark.parametrize(
    ("reason", "title", "detail"),
    [
        ("not_ready", "Not ready yet", "The list of widget keys has not been loaded yet. Try again in 2 s."),
        (
            "expired",
            "The list of keys is too old",
            (
                "The list of widget keys could not be renewed for too long, so no key is trusted any more. "
                "The operator of the widget has to look at its connection to the hub. Try again in 2 s."
            ),
        ),
        (
            "key_missing",
            "No client key",
            (
                'The request names no client key. Put data-client-key="…" on the script tag that loads the widget, '
                "with the key that was shown when it was created."
            ),
        ),
        (
            "key_malformed",
            "Not a client key",
            (
                "The request sends a malformed client key: it is bad. "
                "Copy the whole key from where it was shown when it was created."
            ),
        ),
        (
            "key_conflict",
            "Two different client keys",
            "The request names two different client keys. Send one, in the header or in the query.",
        ),
        (
            "key_unknown",
            "Unknown client key",
            (
                f"There is no widget key …{LAST8}. It may have been deleted, belong to another account, or be mistyped: "
                "compare its last 8 characters with the list of keys."
            ),
        ),
        (
            "key_ambiguous",
            "Ambiguous client key",
            (
                f"Several widget keys end with …{LAST8}, so this one cannot be told from them. "
                "Create a new key, put it on the page, and disable the old ones."
            ),
        ),
        (
            "key_disabled",
            "Disabled client key",
            f"The widget key …{LAST8} is disabled. Enable it again, or put another key on the page.",
        ),
        (
            "allowlist_empty",
            "No domain is allowed",
            (
                f"The widget key …{LAST8} allows no domain at all, so https://shop.acme.com cannot use it. "
                "If the page is yours, add 'shop.acme.com' to the key's allowed domains."
            ),
        ),
        (
            "origin_conflict",
            "Two origins",
            "The request names its page twice. Something between the browser and here repeats headers.",
        ),
        (
            "origin_malformed",
            "Not an origin",
            (
                "The request sends a malformed origin: it is bad. "
                "Browsers send a scheme, a host and maybe a port, such as https://shop.acme.com."
            ),
        ),
        (
            "origin_null",
            "The page hides its origin",
            (
                "The page hides its origin, as sandboxed iframes, local files and some redirects do. "
                "Serve it from a domain, and give a sandboxed iframe allow-same-origin."
            ),
        ),
        (
            "origin_missing",
            "No origin",
            (
                "The request does not say which page it comes from: it has neither an Origin nor a Referer header. "
                "Use the widget on a web page, and let the page send its referrer."
            ),
        ),
        (
            "origin_not_allowed",
            "This page is not allowed",
            (
                f"https://shop.acme.com is not among the allowed domains of the widget key …{LAST8}. "
                "If the page is yours, add 'shop.acme.com' to the key's allowed domains."
            ),
        ),
        ("allowed", "Allowed", f"https://shop.acme.com may use the widget key …{LAST8}."),
    ],
)
def test_each_decision_has_its_exact_sentence(reason: str, title: str, detail: str) -> None:
    decision = Decision(
        Reason(reason), None, LAST8, "https://shop.acme.com", add="shop.acme.com", problem="it is bad", retry_after=2
    )
    assert (decision.title, decision.detail) == (title, detail)


def test_a_page_without_an_origin_is_told_to_add_its_domain() -> None:
    for reason in (Reason.ALLOWLIST_EMPTY, Reason.ORIGIN_NOT_ALLOWED):
        detail = Decision(reason, None, LAST8, "null").detail
        assert detail.endswith("If the page is yours, add its domain to the key's allowed domains.")


def test_a_conflict_is_called_a_conflict() -> None:
    assert CONFLICT.value == "conflict"


def test_a_page_that_no_entry_can_allow_is_told_to_be_served_over_https() -> None:
    detail = Decision(Reason.ORIGIN_NOT_ALLOWED, None, LAST8, "http://acme.com").detail
    assert detail.endswith(". If the page is yours, serve it from a domain over https.")
