"""gatekeeper keys refused, against the reference hub and others."""

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from gatekeeper.cli.refused import AdvisedPage, advise
from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.real_hub import Served
from tests.support.rows import TOKEN, row

from .support import Keys, invoke

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SHOP = "https://shop.acme.com"
KEY = WidgetKey("key-1", "Shop", "abcd1234", ("acme.com",), None, None)


def refused(origin: str | None = SHOP, **fields: Any) -> RefusedPage:
    usual: dict[str, Any] = {"key_id": "key-1", "reason": "origin_not_allowed", "count": 3, "first_at": NOON}
    return RefusedPage(**{"origin": origin, **usual, "last_at": NOON + timedelta(hours=1), "entry": origin, **fields})


def advice(page: RefusedPage, *rows: WidgetKey, options: tuple[str, ...] = ()) -> AdvisedPage:
    (advised,) = advise([page], rows or (KEY,), options)
    assert sum(part is not None for part in (advised.matched, advised.command, advised.detail)) == 1
    return advised


def report(served: Served, *pages: RefusedPage) -> None:
    """Report pages like a gate."""
    headers = {"Authorization": f"Bearer {served.gate_token}"}
    body = msgspec.to_builtins(pages)
    answer = httpx.post(f"{served.url}{PATH}/refused", json=body, headers=headers, trust_env=False)
    assert answer.status_code == httpx.codes.NO_CONTENT, answer.text


# What helps against each refusal


@pytest.mark.parametrize(
    ("origin", "entry"),
    [
        (SHOP, "shop.acme.com"),
        ("https://shop.acme.com:8443", "https://shop.acme.com:8443"),
        ("http://acme.org", "http://acme.org"),
        ("http://localhost:3000", "'localhost:*'"),
        ("https://[2001:db8::1]", "'[2001:db8::1]'"),
    ],
)
@pytest.mark.parametrize("reason", ["origin_not_allowed", "allowlist_empty"])
def test_the_command_adds_the_narrowest_entry_for_the_page(origin: str, entry: str, reason: str) -> None:
    key = KEY if reason == "origin_not_allowed" else msgspec.structs.replace(KEY, domain_allowlist=())
    assert advice(refused(origin, reason=reason), key).command == f"gatekeeper keys allow abcd1234 {entry}"


def test_the_command_never_has_the_entry_of_a_report() -> None:
    """A gate's token may report anything, and an administrator runs the command."""
    assert advice(refused(entry="$(reboot)")).command == "gatekeeper keys allow abcd1234 shop.acme.com"


def test_the_command_names_a_key_by_its_id_where_its_end_does_not() -> None:
    twin = msgspec.structs.replace(KEY, id="key-2")
    assert advice(refused(), KEY, twin).command == "gatekeeper keys allow key-1 shop.acme.com"
    dashed = msgspec.structs.replace(KEY, last8="-bcd1234")
    assert advice(refused(), dashed).command == "gatekeeper keys allow key-1 shop.acme.com"


def test_the_command_takes_an_entry_with_a_dash_for_no_option() -> None:
    assert advice(refused("https://-shop.example")).command == "gatekeeper keys allow -- abcd1234 -shop.example"


def test_a_page_that_is_allowed_by_now_is_marked() -> None:
    allowing = msgspec.structs.replace(KEY, domain_allowlist=("acme.com", "*.acme.com"))
    for reason in ("origin_not_allowed", "allowlist_empty", "key_disabled"):
        assert advice(refused(reason=reason), allowing).matched == "*.acme.com"


def test_a_key_with_a_digest_is_decided_like_any_other() -> None:
    key = msgspec.structs.replace(KEY, domain_allowlist=("*.acme.com",), key_sha256="0" * 64)
    assert advice(refused(), key).matched == "*.acme.com"


def test_a_key_of_any_account_is_decided_like_any_other() -> None:
    """Other hubs may mean something else by the field."""
    for account in ("acme", "acct_17", "Acme Inc."):
        key = msgspec.structs.replace(KEY, domain_allowlist=("*.acme.com",), account=account)
        assert advice(refused(), key).matched == "*.acme.com"


def test_a_page_over_http_may_be_refused_by_https_only() -> None:
    """A gate with https_only names no entry for it. One that is allowed on other gates is not shown as allowed."""
    page = refused("http://acme.com", entry=None)
    said = advice(page).detail or ""
    assert "https_only=True refuse: serve it over https. Other gates allow it now, by acme.com." in said
    for reason in ("origin_not_allowed", "allowlist_empty"):
        said = advice(refused("http://acme.org", reason=reason, entry=None)).detail or ""
        assert "https_only=True refuse" in said
        assert "own host" in said
    assert advice(refused("http://acme.com")).matched == "acme.com"
    assert advice(refused("http://acme.com", reason="key_disabled", entry=None)).matched == "acme.com"
    assert "https_only" not in (advice(refused("http://localhost:3000", entry=None)).detail or "")


def test_a_page_that_no_entry_can_allow_has_no_command() -> None:
    for origin in ("https://xn--a.com", "http://xn--a.com:8080"):
        assert "No entry can allow this page: 'xn--a.com' is not an" in (advice(refused(origin)).detail or "")


def test_a_disabled_key_has_to_be_enabled_first() -> None:
    disabled = msgspec.structs.replace(KEY, disabled_at="2026-01-02T00:00:00Z", domain_allowlist=("*.acme.com",))
    for reason in ("origin_not_allowed", "key_disabled"):
        assert "…abcd1234 is disabled. Enable it again" in (advice(refused(reason=reason), disabled).detail or "")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (refused("null", reason="origin_null", entry=None), "allow-same-origin"),
        (refused(None, reason="origin_missing", entry=None), "neither an Origin nor a Referer"),
        (refused(None, reason="origin_malformed", entry=None), "Browsers send a scheme"),
        (refused("https://shop.acme.com.", entry=None), "open it without the dot"),
        (refused(reason="grant_expired", entry=None), "Load the page with the widget again"),
        (refused("https://widgets.example", entry=None), "the widget's own host, do not allow it"),
        (refused(reason="moon_phase", entry=None), "does not know the reason"),
        (refused(key_id="key-9"), "no such key any more"),
    ],
)
def test_where_no_entry_helps_the_advice_says_what_does(page: RefusedPage, said: str) -> None:
    assert said in (advice(page).detail or "")


# What the command prints


def test_an_owner_sees_a_refused_page_and_allows_it(keys: Keys, served: Served) -> None:
    """The printed command is run as it is. Then the page is shown as allowed."""
    created = keys("create", "Shop", "--allow", "acme.com", "--json").json
    now = datetime.now(UTC).replace(microsecond=0)
    report(served, refused(key_id=created["id"], count=1204, first_at=now - timedelta(hours=1), last_at=now))
    for named in ((), (created["last8"],), (created["id"],), (f" {created['public_key']}",)):
        assert keys("refused", *named).out.splitlines() == [
            f"…{created['last8']} Shop",
            "  https://shop.acme.com",
            "    refused  1204 times: origin_not_allowed",
            f"    between  {now - timedelta(hours=1)} and {now}",
            f"    to allow gatekeeper keys allow {created['last8']} shop.acme.com",
        ]
    command = shlex.split(keys("refused").out.splitlines()[-1].partition("to allow ")[2])
    assert keys(*command[2:]).code == 0
    assert keys("refused").out.splitlines()[-1] == "    allowed  now, by shop.acme.com"


def test_pages_are_grouped_by_key_and_fit_80_columns(keys: Keys, served: Served) -> None:
    first, second = (keys("create", name, "--json").json for name in ("First", "Second"))
    now = datetime.now(UTC)
    times: dict[str, Any] = {"first_at": now, "last_at": now}
    report(
        served,
        refused(key_id=first["id"], count=1, **times),
        refused(key_id=second["id"], count=2, **times),
        refused("https://acme.com", key_id=first["id"], count=3, **times),
    )
    lines = keys("refused").out.splitlines()
    assert [line.strip() for line in lines if not line.startswith("    ")] == [
        f"…{first['last8']} First",
        "https://acme.com",
        SHOP,
        f"…{second['last8']} Second",
        SHOP,
    ]
    assert max(map(len, lines)) <= 80
    assert [page["count"] for page in keys("refused", "--json").json] == [3, 2, 1]
    assert [page["count"] for page in keys("refused", second["id"], "--json").json] == [2]


def at_hub(fake: FakeHub, *pages: Any) -> None:
    """Let the hub list these refused pages, and a key."""

    def answer(request: HubRequest) -> HubAnswer:
        return json_answer(list(pages) if "/refused" in request.target else [row(1)])

    fake.always(answer)


def test_json_has_the_page_and_the_advice(fake: FakeHub, at_fake: Keys) -> None:
    at_hub(fake, msgspec.to_builtins(refused()))
    assert at_fake("refused", "--json").json == [
        {
            "key_id": "key-1",
            "origin": SHOP,
            "reason": "origin_not_allowed",
            "count": 3,
            "first_at": "2026-01-02T12:00:00Z",
            "last_at": "2026-01-02T13:00:00Z",
            "entry": SHOP,
            "last8": "00000001",
            "name": "shop",
            "matched": None,
            "command": "gatekeeper keys allow 00000001 shop.acme.com",
            "detail": None,
        }
    ]


def test_the_command_leads_to_the_hub_of_the_options(fake: FakeHub) -> None:
    """A token on the command line is not printed, but named."""
    at_hub(fake, msgspec.to_builtins(refused()))
    done = invoke("keys", "refused", "--hub", fake.url, "--token", TOKEN, "--account", "acme")
    assert f"gatekeeper keys allow --hub {fake.url} --account acme 00000001 shop.acme.com" in done.out
    assert "the commands need your --token, too" in done.err
    assert TOKEN not in done.out + done.err


def test_what_a_hub_says_cannot_write_to_the_terminal(fake: FakeHub, at_fake: Keys) -> None:
    at_hub(fake, msgspec.to_builtins(refused("\x1b[2J", reason="[red]\n")))
    done = at_fake("refused")
    assert r"'\x1b[2J'" in done.out
    assert r"'[red]\n'" in done.out
    assert "\x1b" not in done.out


def test_no_refused_page_is_said_with_what_to_check(keys: Keys) -> None:
    created = keys("create", "Shop", "--json").json
    for arguments, which in (((), "this account"), ((created["id"],), f"the key …{created['last8']}")):
        done = keys("refused", *arguments)
        assert (done.code, done.out) == (0, "")
        assert f"no refused page of {which}" in done.err
        assert "usage_interval" in done.err
        assert "enforce=False" in done.err
    assert keys("refused", "--json").json == []


def test_an_unknown_key_is_refused_before_the_hub_is_asked(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1))
    done = at_fake("refused", "nothing1")
    assert done.code == 1
    assert "no key with the id or the last 8 characters 'nothing1'" in done.err
    assert [request.target for request in fake.requests] == [PATH]


@pytest.fixture(
    params=[
        (HubAnswer(404), 1),
        (HubAnswer(405), 1),
        (HubAnswer(200, b"<html>", {"content-type": "text/html"}), 2),
        (json_answer({"pages": []}), 2),
    ],
    ids=lambda given: f"{given[0].status} {given[0].body!r}",
)
def lacking(request: pytest.FixtureRequest, fake: FakeHub) -> int:
    """A hub without the endpoint; gives the exit code."""
    answer: HubAnswer = request.param[0]
    code: int = request.param[1]
    fake.always(lambda asked: answer if "/refused" in asked.target else json_answer([row(1)]))
    return code


def test_a_hub_without_the_endpoint_is_explained(at_fake: Keys, lacking: int) -> None:
    done = at_fake("refused")
    assert (done.code, done.out) == (lacking, "")
    assert "this hub does not list refused pages; newer versions of the reference hub do (the hub at" in done.err


def test_other_failures_of_the_hub_are_its_own(fake: FakeHub, at_fake: Keys, served: Served) -> None:
    fake.always(lambda asked: HubAnswer(500) if "/refused" in asked.target else json_answer([row(1)]))
    done = at_fake("refused")
    assert done.code == 3
    assert "does not list" not in done.err
    gate = invoke("keys", "refused", GATEKEEPER_HUB=served.url, GATEKEEPER_TOKEN=served.gate_token)
    assert gate.code == 1
    assert "token create --scope admin" in gate.err
