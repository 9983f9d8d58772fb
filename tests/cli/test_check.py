"""gatekeeper check: its output and exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from gatekeeper.demo import Demo, running_demo
from gatekeeper.testing import FakeHub

from .support import KEY, ROWS, gatekeeper, invoke


@pytest.fixture
def demo() -> Iterator[Demo]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_demo(fixed_ports=False)) as running,
    ):
        yield running


def test_check_of_an_allowed_page_names_the_key_and_the_matched_entry(rows: Path) -> None:
    done = gatekeeper("check", KEY, "https://a.acme.com", "--file", str(rows))
    assert done.returncode == 0
    assert "allowed" in done.stdout
    assert "…abcd1234 'Shop', id wk_1" in done.stdout
    assert "agent_7" in done.stdout
    assert "matched  *.acme.com" in done.stdout


def test_check_of_a_refused_page_suggests_an_entry(rows: Path) -> None:
    done = gatekeeper("check", KEY, "https://acme.com", "--file", str(rows))
    assert done.returncode == 1
    assert "refused  origin_not_allowed (403)" in done.stdout
    assert "nearest  *.acme.com, shop.acme.co" in done.stdout
    assert "add      acme.com" in done.stdout
    assert "'acme.com/x' has a path" in done.stdout


def test_check_suggests_no_entry_that_the_grammar_refuses(rows: Path) -> None:
    done = invoke("check", KEY, "https://xn--a.com", "--file", str(rows))
    assert done.code == 1
    assert "No entry can allow this page" in done.out
    assert "add      " not in done.out


def test_check_accepts_the_url_of_a_page(rows: Path) -> None:
    done = gatekeeper("check", KEY, "https://Shop.acme.com/cart?item=7#top", "--file", str(rows))
    assert done.returncode == 0
    assert "https://shop.acme.com" in done.stdout


def test_check_accepts_the_url_of_an_app(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**ROWS[0], "domain_allowlist": ["Capacitor://Localhost/"]}]))
    done = invoke("check", KEY, "capacitor://Localhost/index.html#top", "--file", str(path))
    assert done.code == 0
    assert "matched  Capacitor://Localhost/" in done.out
    refused = invoke("check", KEY, "chrome-extension://abcdefghijklmnop/popup.html", "--file", str(path))
    assert refused.code == 1
    assert "refused  origin_not_allowed (403)" in refused.out
    assert "add      chrome-extension://abcdefghijklmnop" in refused.out


def test_check_of_a_page_without_a_scheme_suggests_one(rows: Path) -> None:
    done = gatekeeper("check", KEY, "shop.acme.com", "--file", str(rows))
    assert done.returncode == 1
    assert "origin_malformed" in done.stdout
    assert "such as https://shop.acme.com" in done.stdout


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("pk_live_acme_0000efgh5678", "key_disabled"),
        ("pk_live_acme_0000nobodys0", "key_unknown"),
        ("sk_live_acme_0000abcd1234", "key_malformed"),
        ("", "key_missing"),
    ],
)
def test_check_explains_a_bad_key_without_printing_it(rows: Path, key: str, reason: str) -> None:
    done = gatekeeper("check", key, "https://acme.com", "--file", str(rows))
    assert done.returncode == 1
    assert f"refused  {reason}" in done.stdout
    assert done.stderr == ""
    assert not key or key not in done.stdout


@pytest.mark.parametrize("key", ["abcd1234", "…abcd1234", "wk_1"])
@pytest.mark.parametrize(("page", "code"), [("https://a.acme.com", 0), ("https://globex.com", 1)])
def test_check_takes_the_last_8_characters_or_the_id(rows: Path, key: str, page: str, code: int) -> None:
    """Support has what refusals and lists show, and not the whole key."""
    whole, partial = [invoke("check", each, page, "--file", str(rows)) for each in (KEY, key)]
    assert whole.code == partial.code == code
    assert whole.out == partial.out


def test_check_by_last_8_characters_needs_no_digest(tmp_path: Path) -> None:
    """Only a whole key has the digest of the row. The account is the one of the list."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**ROWS[0], "key_sha256": "0" * 64}]))
    assert invoke("check", "abcd1234", "https://a.acme.com", "--file", str(path), "--account", "acme").code == 0
    assert "key_unknown" in invoke("check", KEY, "https://a.acme.com", "--file", str(path)).out


def test_check_of_ambiguous_characters_names_the_candidates(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROWS[0], {**ROWS[0], "id": "wk_9", "domain_allowlist": ["globex.com"]}]))
    done = invoke("check", "abcd1234", "https://a.acme.com", "--file", str(path))
    assert (done.code, done.out) == (2, "")
    assert "2 keys end in abcd1234; name one by its id: wk_1, wk_9" in done.err
    for key in (KEY, "wk_1", "wk_9"):
        refused = invoke("check", key, "https://a.acme.com", "--file", str(path))
        assert refused.code == 1
        assert "refused  key_ambiguous" in refused.out
        assert "  keys     wk_1, wk_9\n" in refused.out
        as_json = invoke("check", key, "https://a.acme.com", "--file", str(path), "--json").json
        assert as_json["candidates"] == ["wk_1", "wk_9"]


@pytest.mark.parametrize(
    ("digests", "reason"),
    [
        ([None, "1" * 64], "allowed"),
        (["1" * 64, None], "allowed"),
        (["1" * 64, "2" * 64], "allowed"),
        (["1" * 64, "1" * 64], "key_ambiguous"),
        ([None, None], "key_ambiguous"),
        ([None, *["1" * 64] * 16], "key_ambiguous"),
        (["1" * 64, *["2" * 64] * 16], "key_ambiguous"),
    ],
    ids=["none-a", "a-none", "a-b", "a-a", "none-none", "none-and-16", "a-and-16"],
)
def test_check_by_id_decides_like_a_gate_among_equal_ends(tmp_path: Path, digests: list[str | None], reason: str) -> None:
    """A digest tells keys with the same end apart. A gate takes more than 16 of them for an attack."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**ROWS[0], "id": f"wk_{at}", "key_sha256": each} for at, each in enumerate(digests)]))
    done = invoke("check", "wk_0", "https://a.acme.com", "--file", str(path), "--json")
    assert (done.json["reason"], done.code) == (reason, 0 if reason == "allowed" else 1)


ACCOUNTS = [
    {**ROWS[0], "id": "wk_a", "account": "acme"},
    {**ROWS[0], "id": "wk_g", "account": "globex", "domain_allowlist": []},
]


@pytest.fixture
def all_accounts(tmp_path: Path) -> Path:
    """A file of all accounts, in which the keys of two end alike."""
    path = tmp_path / "all.json"
    path.write_text(json.dumps(ACCOUNTS))
    return path


@pytest.mark.parametrize(
    ("key", "reason", "account"),
    [
        ("pk_live_acme_0000abcd1234", "allowed", "acme"),
        ("pk_live_globex_0000abcd1234", "allowlist_empty", "globex"),
        ("pk_live_initech_0000abcd1234", "key_unknown", None),
        ("wk_a", "allowed", "acme"),
        ("wk_g", "allowlist_empty", "globex"),
    ],
)
def test_check_tells_accounts_apart(all_accounts: Path, key: str, reason: str, account: str | None) -> None:
    done = invoke("check", key, "https://a.acme.com", "--file", str(all_accounts), "--json")
    assert (done.json["reason"], done.json["account"]) == (reason, account)
    shown = invoke("check", key, "https://a.acme.com", "--file", str(all_accounts)).out
    assert (f"of the account {account}" in shown) is (account is not None)


def test_check_asks_a_hub_for_the_keys_of_all_accounts(fake: FakeHub) -> None:
    fake.lists(*ACCOUNTS)
    environment = {"GATEKEEPER_HUB": fake.url, "GATEKEEPER_TOKEN": fake.all_accounts_token}
    done = invoke("check", "pk_live_globex_0000abcd1234", "https://a.acme.com", "--json", **environment)
    assert (done.json["reason"], done.json["key_id"], done.json["account"]) == ("allowlist_empty", "wk_g", "globex")
    refused = invoke("check", KEY, "https://a.acme.com", "--account", "acme", **environment)
    assert refused.code == 2
    assert "--account is 'acme', and the token is for all accounts (sk_all_…): pass one or the other" in refused.err


def test_check_says_whose_keys_have_been_looked_at(fake: FakeHub) -> None:
    fake.lists(*ACCOUNTS)
    one = {"GATEKEEPER_HUB": fake.url, "GATEKEEPER_TOKEN": fake.token}
    done = invoke("check", "pk_live_initech_0000aaaaaaaa", "https://a.acme.com", "--json", **one)
    assert done.json["reason"] == "key_unknown"
    assert done.json["hint"] == (
        "only the keys of the account test were looked at: for others, use a token of theirs, or one for all"
    )
    all_of_them = {**one, "GATEKEEPER_TOKEN": fake.all_accounts_token}
    done = invoke("check", "pk_live_initech_0000aaaaaaaa", "https://a.acme.com", "--json", **all_of_them)
    assert (done.json["reason"], done.json["hint"]) == ("key_unknown", None)


def test_check_of_one_account_ignores_the_accounts_of_rows(all_accounts: Path) -> None:
    """Other hubs may mean something else by the field."""
    for key in ("pk_live_acme_0000abcd1234", "wk_a", "wk_g"):
        done = invoke("check", key, "https://a.acme.com", "--file", str(all_accounts), "--account", "acme", "--json")
        assert (done.json["reason"], done.json["candidates"]) == ("key_ambiguous", ["wk_a", "wk_g"])


def test_check_names_only_the_rows_that_a_key_may_be_of(tmp_path: Path) -> None:
    rows = [*ACCOUNTS, {**ROWS[0], "id": "wk_s", "account": "acme_shop"}]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    for key, candidates in [("pk_live_acme_shop_0abcd1234", ["wk_a", "wk_s"]), ("wk_s", ["wk_a", "wk_s"])]:
        done = invoke("check", key, "https://a.acme.com", "--file", str(tmp_path / "all.json"), "--json")
        assert (done.json["reason"], done.json["candidates"]) == ("key_ambiguous", candidates)


@pytest.mark.parametrize("key", ["nothing1", "…nothing1"])
def test_check_of_unknown_last_8_characters_is_an_unknown_key(rows: Path, key: str) -> None:
    done = invoke("check", key, "https://acme.com", "--file", str(rows))
    assert done.code == 1
    assert "refused  key_unknown (403)" in done.out
    assert "There is no widget key …nothing1." in done.out


def test_check_of_an_unknown_id_says_that_it_is_none(rows: Path) -> None:
    done = invoke("check", "wk_3", "https://acme.com", "--file", str(rows))
    assert done.code == 1
    assert "refused  key_malformed" in done.out
    assert "it is not the id of a key, nor its last 8 characters" in done.out


# JSON


FIELDS = {
    "allowed": False,
    "reason": "key_missing",
    "status": 400,
    "key_id": None,
    "last8": None,
    "name": None,
    "account": None,
    "disabled_at": None,
    "agent_id": None,
    "origin": "https://acme.com",
    "matched": None,
    "nearest": [],
    "add": None,
    "rejected": [],
    "candidates": [],
    "hint": None,
}
SHOP = {"key_id": "wk_1", "last8": "abcd1234", "name": "Shop", "agent_id": "agent_7"}


@pytest.mark.parametrize(
    ("key", "page", "fields"),
    [
        ("", "https://acme.com", {}),
        (
            KEY,
            "https://a.acme.com/cart",
            {
                **SHOP,
                "allowed": True,
                "reason": "allowed",
                "status": 200,
                "origin": "https://a.acme.com",
                "matched": "*.acme.com",
            },
        ),
        (
            KEY,
            "https://acme.com",
            {
                **SHOP,
                "reason": "origin_not_allowed",
                "status": 403,
                "nearest": ["*.acme.com", "shop.acme.co"],
                "add": "acme.com",
            },
        ),
        (
            "efgh5678",
            "https://acme.com",
            {
                "reason": "key_disabled",
                "status": 403,
                "key_id": "wk_2",
                "last8": "efgh5678",
                "name": "Old",
                "disabled_at": "2026-01-02",
            },
        ),
        (
            KEY,
            "acme.com",
            {
                **SHOP,
                "reason": "origin_malformed",
                "status": 400,
                "origin": None,
                "hint": "name the page with its scheme, such as https://acme.com",
            },
        ),
    ],
)
def test_check_as_json_has_the_same_fields_for_every_decision(
    rows: Path, key: str, page: str, fields: dict[str, object]
) -> None:
    done = invoke("check", key, page, "--file", str(rows), "--json")
    said = done.json
    detail = said.pop("detail")
    if fields.get("key_id") == "wk_1":
        (rejected,) = said["rejected"]
        assert (rejected["entry"], rejected["reason"]) == ("acme.com/x", "path")
        assert "has a path" in rejected["hint"]
        said["rejected"] = []
    assert said == {**FIELDS, **fields}
    assert detail
    assert done.code == (0 if said["allowed"] else 1)


def test_check_as_json_prints_no_json_where_there_is_no_decision(tmp_path: Path) -> None:
    done = invoke("check", KEY, "https://acme.com", "--file", str(tmp_path / "none.json"), "--json")
    assert (done.code, done.out) == (2, "")


def test_check_asks_a_hub_with_a_token_from_the_environment(demo: Demo) -> None:
    token = demo.headers_file.read_text().splitlines()[0].removeprefix("authorization: Bearer ")
    environment = {"GATEKEEPER_HUB": demo.hub_url, "GATEKEEPER_TOKEN": token}
    allowed = gatekeeper("check", demo.key.public_key, demo.allowed_url, **environment)
    assert allowed.returncode == 0, allowed.stderr
    refused = gatekeeper("check", demo.key.public_key, demo.refused_url, **environment)
    assert refused.returncode == 1
    assert "add      127.0.0.1:*" in refused.stdout
    assert token not in refused.stdout + refused.stderr


def test_check_with_an_unknown_token_exits_with_2_without_printing_it(demo: Demo) -> None:
    token = "sk_live_acme_aTokenThatNobodyMinted"
    done = gatekeeper("check", KEY, "https://acme.com", "--hub", demo.hub_url, GATEKEEPER_TOKEN=token)
    assert done.returncode == 2
    assert "401" in done.stderr
    assert token not in done.stdout + done.stderr


def test_check_of_an_unreachable_hub_exits_with_3() -> None:
    done = gatekeeper("check", KEY, "https://acme.com", "--hub", "http://127.0.0.1:1", GATEKEEPER_TOKEN="sk_live_acme_x")
    assert done.returncode == 3
    assert "http://127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "breaks off"),
        ('{"data": []}', "expected a JSON array"),
        (None, "cannot read"),
    ],
)
def test_check_of_an_invalid_file_explains_the_error(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_text(content)
    done = gatekeeper("check", KEY, "https://acme.com", "--file", str(path))
    assert done.returncode == 2
    assert said in done.stderr


def test_a_file_comes_before_the_hub_of_the_environment(rows: Path) -> None:
    done = invoke("check", KEY, "https://a.acme.com", "--file", str(rows), GATEKEEPER_HUB="http://127.0.0.1:1")
    assert done.code == 0
    both = invoke("check", KEY, "https://a.acme.com", "--file", str(rows), "--hub", "http://127.0.0.1:1")
    assert both.code == 2


def test_check_names_a_bad_row_and_uses_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "bad", "last8": "short", "domain_allowlist": []}, *ROWS]))
    done = gatekeeper("check", KEY, "https://a.acme.com", "--file", str(path))
    assert done.returncode == 0
    assert "row 0 (id 'bad')" in done.stderr
    assert "'last8'" in done.stderr


def test_check_warns_of_a_list_that_a_gate_would_reject(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([*ROWS, {"id": "bad"}]))
    done = gatekeeper("check", KEY, "https://a.acme.com", "--file", str(path))
    assert done.returncode == 0
    assert "rejects a list with so many bad rows" in done.stderr


def test_check_without_a_token_names_its_variable() -> None:
    done = gatekeeper("check", KEY, "https://acme.com", "--hub", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "GATEKEEPER_TOKEN" in done.stderr
