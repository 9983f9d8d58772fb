"""gatekeeper keys, against the reference hub and a misbehaving one."""

import json
from pathlib import Path
from typing import Any

import pytest

from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer, json_answer
from tests.support.real_hub import Served
from tests.support.rows import TOKEN, client_key, row

from .support import Keys, gatekeeper

UNREACHABLE = {"GATEKEEPER_HUB": "http://127.0.0.1:1", "GATEKEEPER_TOKEN": TOKEN}


def mint(keys: Keys, *arguments: str) -> dict[str, Any]:
    created: dict[str, Any] = keys("create", "shop", "--json", *arguments).json
    return created


# What each command does


def test_create_prints_the_script_tag_and_that_the_key_is_shown_once(keys: Keys) -> None:
    done = keys("create", "Shop", "--allow", "acme.com", "--allow", "*.acme.com", "--agent", "agent-7")
    assert done.code == 0
    (listed,) = keys.rows()
    assert (listed["name"], listed["domain_allowlist"], listed["agent_id"]) == (
        "Shop",
        ["acme.com", "*.acme.com"],
        "agent-7",
    )
    (tag,) = [line for line in done.out.splitlines() if "<script" in line]
    assert tag.strip().startswith('<script src="https://widgets.example/widget.js" data-client-key="pk_live_acme_')
    assert f'{listed["last8"]}" async></script>' in tag
    assert "is an example: --widget-url takes that of your widget" in done.out
    assert "will not be shown again" in done.err


def test_create_uses_the_url_of_the_widget(keys: Keys) -> None:
    done = keys("create", "Shop", "--widget-url", "https://w.acme.com/w.js")
    assert '<script src="https://w.acme.com/w.js" data-client-key="pk_live_' in done.out
    assert "is an example" not in done.out


def test_create_with_json_prints_only_the_row_with_the_plaintext(keys: Keys) -> None:
    done = keys("create", "Shop", "--json")
    assert done.json["public_key"].endswith(done.json["last8"])
    assert "will not be shown again" in done.err


def test_no_other_command_prints_the_plaintext(keys: Keys) -> None:
    created = mint(keys, "--allow", "acme.com")
    for arguments in (
        ("list",),
        ("list", "--json"),
        ("show", created["id"]),
        ("show", created["id"], "--json"),
        ("allow", created["id"], "*.acme.com"),
        ("pin", created["id"], "agent-7"),
        ("disable", created["id"], "--yes"),
        ("delete", created["id"], "--yes"),
    ):
        done = keys(*arguments)
        assert done.code == 0, done.err
        assert created["public_key"] not in done.out + done.err


def test_check_reads_the_output_of_list_as_json(keys: Keys, tmp_path: Path) -> None:
    created = mint(keys, "--allow", "acme.com")
    file = tmp_path / "rows.json"
    file.write_text(keys("list", "--json").out)
    done = gatekeeper("check", created["public_key"], "https://acme.com", "--file", str(file))
    assert done.returncode == 0, done.stdout


def test_show_explains_the_entries(keys: Keys) -> None:
    created = mint(keys, "--allow", "*.acme.com")
    done = keys("show", created["last8"])
    assert created["id"] in done.out
    assert "every subdomain of acme.com (not acme.com itself)" in done.out
    assert keys("show", created["last8"], "--json").json["id"] == created["id"]


def test_show_prints_times_to_the_second_in_utc(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1, last_used_at="2026-03-04T05:06:07.891+01:00", disabled_at="2026-03-05T00:00:00Z"))
    said = at_fake("show", "key-1").out
    assert "created    2026-01-02 03:04:05+00:00, last used 2026-03-04 04:06:07+00:00" in said
    assert "disabled since 2026-03-05 00:00:00+00:00" in said


def test_rename_changes_only_the_name(keys: Keys) -> None:
    created = mint(keys, "--allow", "acme.com")
    assert "New shop" in keys("rename", created["last8"], "New shop").out
    (listed,) = keys.rows()
    assert (listed["name"], listed["domain_allowlist"]) == ("New shop", ["acme.com"])
    assert keys("rename", created["id"], "Newer shop", "--json").json["name"] == "Newer shop"


def test_rename_to_nothing_is_refused_by_the_hub(keys: Keys) -> None:
    created = mint(keys)
    assert keys("rename", created["id"], "").code == 1
    assert keys.rows()[0]["name"] == "shop"


def test_allow_adds_new_entries_and_disallow_removes_them(keys: Keys) -> None:
    created = mint(keys, "--allow", "acme.com")
    assert keys("allow", created["last8"], "*.acme.com", "ACME.com", "https://globex.com").code == 0
    assert keys.rows()[0]["domain_allowlist"] == ["acme.com", "*.acme.com", "https://globex.com"]
    assert keys("disallow", created["last8"], "HTTPS://globex.com:443/", "acme.com", "--yes").code == 0
    assert keys.rows()[0]["domain_allowlist"] == ["*.acme.com"]


def test_allow_of_a_present_entry_sends_nothing(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1))
    assert at_fake("allow", "key-1", "Acme.com").code == 0
    assert {request.method for request in fake.requests} == {"GET"}


@pytest.mark.parametrize("command", [("create", "shop", "--allow"), ("allow", "key-1")])
def test_entries_are_validated_before_they_are_sent(fake: FakeHub, at_fake: Keys, command: tuple[str, ...]) -> None:
    fake.lists(row(1))
    done = at_fake(*command, "https://acme.com/shop")
    assert done.code == 2
    assert "rejected  https://acme.com/shop  (path)" in done.err
    assert "nothing was sent" in done.err
    assert {request.method for request in fake.requests} <= {"GET"}


def test_warnings_and_tips_are_printed_and_change_nothing(keys: Keys) -> None:
    created = mint(keys)
    done = keys("allow", created["id"], "*.acme.com", "shop.example")
    assert done.code == 0
    assert "warning '*.acme.com' does not allow acme.com itself" in done.err
    assert "tip 'shop.example' allows no subdomain" in done.err
    assert keys.rows()[0]["domain_allowlist"] == ["*.acme.com", "shop.example"]


def test_disallow_of_an_absent_entry_lists_the_present_ones(keys: Keys) -> None:
    created = mint(keys, "--allow", "acme.com")
    done = keys("disallow", created["id"], "globex.com", "--yes")
    assert done.code == 2
    assert "has no globex.com; its entries are: acme.com" in done.err


def test_pin_and_unpin(keys: Keys) -> None:
    created = mint(keys)
    assert keys("pin", created["id"], "agent-7", "--json").json["agent_id"] == "agent-7"
    assert keys("unpin", created["id"], "--json").json["agent_id"] is None


def test_disable_and_enable(keys: Keys) -> None:
    created = mint(keys)
    assert keys("disable", created["id"], "--yes", "--json").json["disabled_at"] is not None
    assert keys("enable", created["id"], "--json").json["disabled_at"] is None


def test_delete_removes_a_key_that_was_never_used(keys: Keys) -> None:
    created = mint(keys)
    done = keys("delete", created["last8"], "--yes")
    assert (done.code, "is deleted" in done.out) == (0, True)
    assert keys.rows() == []


def test_delete_says_that_a_used_key_stays(fake: FakeHub, at_fake: Keys) -> None:
    fake.then(json_answer([row(1)]), json_answer(row(1, disabled_at="2026-02-02T00:00:00Z")))
    done = at_fake("delete", "key-1", "--yes")
    assert (done.code, "its row stays" in done.out) == (0, True)


def test_events_of_the_reference_hub_name_the_token_and_the_change(keys: Keys) -> None:
    created = mint(keys, "--allow", "acme.com")
    keys("pin", created["id"], "agent-7")
    assert [event["action"] for event in keys("events", created["last8"], "--json").json] == ["created", "updated"]
    said = keys("events", created["last8"]).out
    assert "updated by tests\n  agent: none -> agent-7\n" in said
    assert "\n  allowlist: acme.com\n" in said


@pytest.mark.parametrize("named", ["id", "last8", "public_key"])
def test_events_of_a_deleted_key_are_found_by_all_its_names(keys: Keys, named: str) -> None:
    """The list no longer has the key. The reference hub knows the events by its last 8 characters."""
    created = mint(keys)
    other = mint(keys)
    for each in (created, other):
        keys("delete", each["id"], "--yes")
    done = keys("events", created[named], "--json")
    assert {event["key_id"] for event in done.json} == {created["id"]}
    assert done.json[-1]["action"] == "deleted"


def test_a_hub_that_knows_deleted_keys_by_id_alone_is_explained(fake: FakeHub, at_fake: Keys) -> None:
    """`delete` prints the id for this case."""
    fake.then(json_answer([row(1)]), HubAnswer(204))
    assert "its events stay, by its id key-1" in at_fake("delete", "00000001", "--yes").out
    fake.then(json_answer([]), json_answer("Not Found", 404))
    done = at_fake("events", "…00000001")
    assert done.code == 1
    assert "name it by its id, which `gatekeeper keys delete` printed" in done.err
    assert fake.requests[-1].target.endswith("/00000001/events")
    fake.then(json_answer([]), json_answer([]))
    assert at_fake("events", "key-1", "--json").json == []
    assert fake.requests[-1].target.endswith("/key-1/events")


def test_a_hub_without_events_is_reported_as_it_answers(fake: FakeHub, at_fake: Keys) -> None:
    fake.then(json_answer([row(1)]), json_answer("Not Found", 404))
    done = at_fake("events", "key-1")
    assert done.code == 1
    assert "answered 404" in done.err
    assert "deleted" not in done.err


# Which key a command finds


def test_a_key_can_be_given_by_id_or_last_8_characters(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1), row(2))
    for named in ("key-2", "00000002", "…00000002"):
        assert at_fake("show", named, "--json").json["id"] == "key-2"


def test_a_whole_key_names_its_own_row_and_is_not_printed(keys: Keys) -> None:
    """Users paste what they have. The digest tells keys with the same end apart."""
    created = mint(keys)
    assert keys("show", created["public_key"], "--json").json["id"] == created["id"]
    same_end, unknown = f"pk_live_acme_x{created['last8']}", "pk_live_acme_0000unknown1"
    for arguments in (("show", same_end), ("disable", same_end, "--yes"), ("events", unknown)):
        done = keys(*arguments)
        assert done.code == 1
        assert "'pk_live_…'" in done.err
        assert arguments[1] not in done.out + done.err


@pytest.mark.parametrize(
    "pasted",
    [
        TOKEN,
        f"Bearer {TOKEN}",
        f"<script data-client-key='{client_key(1)}'>",
        f"data-client-key={client_key(1)}",
        f"pk_live_acme_{'x' * 128}",
    ],
)
@pytest.mark.parametrize("command", [("show",), ("rename", "Shop"), ("delete", "--yes"), ("events",)])
def test_a_pasted_secret_is_neither_printed_nor_sent(
    fake: FakeHub, at_fake: Keys, command: tuple[str, ...], pasted: str
) -> None:
    """A secret in a URL would be in the logs of the hub and of the proxies before it."""
    fake.lists(row(2))
    name, *others = command
    done = at_fake(name, pasted, *others)
    assert done.code == (2 if name == "events" else 1)
    assert "k_live_…" in done.err
    assert "live_acme" not in done.out + done.err
    assert [request.target for request in fake.requests] == [PATH]


@pytest.mark.parametrize("named", [" key-1 ", "\t00000001", f" {client_key(1)}\n"])
def test_white_space_around_a_key_is_ignored(fake: FakeHub, at_fake: Keys, named: str) -> None:
    fake.then(json_answer([row(1)]), json_answer([row(1)]), json_answer([]))
    assert at_fake("show", named, "--json").json["id"] == "key-1"
    assert at_fake("events", named, "--json").json == []
    assert fake.requests[-1].target == f"{PATH}/key-1/events"


def test_ambiguous_last_8_characters_are_refused(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1), row(2, last8="00000001"))
    done = at_fake("disable", "00000001", "--yes")
    assert done.code == 2
    assert "name one by its id: key-1, key-2" in done.err
    assert {request.method for request in fake.requests} == {"GET"}


def test_an_id_takes_precedence_over_last_8_characters(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1), row(2, id="00000001"))
    assert at_fake("show", "00000001", "--json").json["last8"] == "00000002"


@pytest.mark.parametrize("command", ["show", "enable", "unpin", "delete"])
def test_an_unknown_key_is_refused(fake: FakeHub, at_fake: Keys, command: str) -> None:
    fake.lists(row(1))
    done = at_fake(command, "nothing!")
    assert done.code == 1
    assert "no key with the id or the last 8 characters 'nothing!'" in done.err


def test_a_bad_row_is_named_and_the_others_are_listed(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1), {"id": "key-2"})
    done = at_fake("list", "--json")
    assert [listed["id"] for listed in done.json] == ["key-1"]
    assert "left out: row 1 (id 'key-2')" in done.err


# Questions


@pytest.mark.parametrize("command", [("disable",), ("delete",), ("disallow", "acme.com")])
@pytest.mark.parametrize(
    ("answer", "code", "said"), [("n\n", 1, "nothing was changed"), ("\n", 1, "nothing was changed"), ("", 2, "add --yes")]
)
def test_destructive_commands_ask_first(
    fake: FakeHub, at_fake: Keys, command: tuple[str, ...], answer: str, code: int, said: str
) -> None:
    fake.lists(row(1))
    name, *entries = command
    done = at_fake(name, "key-1", *entries, answer=answer)
    assert done.code == code
    assert "the key …00000001 (shop)" in done.err
    assert said in done.err
    assert {request.method for request in fake.requests} == {"GET"}


def test_a_confirmed_command_runs(keys: Keys) -> None:
    created = mint(keys)
    assert keys("delete", created["id"], answer="y\n").code == 0
    assert keys.rows() == []


def test_removing_the_last_entry_warns_that_it_blocks_the_key(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1))
    assert "No entry is left, which blocks the key." in at_fake("disallow", "key-1", "acme.com", answer="n\n").err


# Exit codes, errors and options


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (json_answer("no", 400), 1),
        (json_answer("no", 401), 1),
        (json_answer("no", 403), 1),
        (json_answer("no", 404), 1),
        (json_answer("no", 429, retry_after="100"), 3),
        (json_answer("no", 503, retry_after="100"), 3),
        (HubAnswer(302, headers={"location": "https://elsewhere.example"}), 2),
        (HubAnswer(200, b"<html>"), 2),
    ],
)
def test_the_exit_code_tells_refusals_from_failures_of_the_hub(
    fake: FakeHub, at_fake: Keys, answer: HubAnswer, code: int
) -> None:
    fake.always(answer)
    done = at_fake("list")
    assert done.code == code
    assert fake.url in done.err or "JSON array" in done.err


def test_an_unreachable_hub_exits_with_3_and_its_url() -> None:
    done = Keys(UNREACHABLE)("create", "shop")
    assert done.code == 3
    assert "http://127.0.0.1:1" in done.err


def test_the_errors_of_the_hub_are_printed(fake: FakeHub, at_fake: Keys) -> None:
    problem = {"detail": "1 entry is wrong", "errors": [{"entry": "acme.com", "reason": "shared", "hint": "\x1b[2Jno"}]}
    fake.always(json_answer(problem, 400))
    done = at_fake("create", "shop", "--allow", "acme.com")
    assert done.code == 1
    assert "1 entry is wrong" in done.err
    assert "reason: shared" in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GATEKEEPER_HUB": "", "GATEKEEPER_TOKEN": TOKEN}, "GATEKEEPER_HUB"),
        ({"GATEKEEPER_HUB": "http://127.0.0.1:1", "GATEKEEPER_TOKEN": ""}, "GATEKEEPER_TOKEN"),
        ({"GATEKEEPER_HUB": "hub.example", "GATEKEEPER_TOKEN": TOKEN}, "--hub"),
    ],
)
def test_a_missing_hub_or_token_is_reported_with_its_variable(environment: dict[str, str], said: str) -> None:
    done = Keys(environment)("list")
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    "arguments", [(), ("create",), ("nonsense",), ("list", "--nonsense"), ("allow", "key-1"), ("import",)]
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert Keys(UNREACHABLE)(*arguments).code == 2


def test_options_take_precedence_over_the_environment(fake: FakeHub) -> None:
    assert Keys(UNREACHABLE)("list", "--json", "--hub", fake.url, "--token", "other", "--account", "globex").json == []
    headers = fake.requests[0].headers
    assert (headers["authorization"], headers["x-account-id"]) == ("Bearer other", "globex")


def test_the_token_is_never_printed(fake: FakeHub, at_fake: Keys) -> None:
    fake.always(json_answer({"detail": f"no such token: {TOKEN}"}, 401))
    done = at_fake("list")
    assert TOKEN not in done.out + done.err


def test_control_characters_are_not_printed(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1, name="\x1b[31m[red]shop[/]\r\nkey", agent_id="\x1b[2J", domain_allowlist=["\x1b[2J"]))
    for arguments in (("list",), ("show", "key-1"), ("disable", "key-1")):
        done = at_fake(*arguments, answer="n\n")
        assert "\x1b" not in done.out + done.err
        assert "[red]shop[/]" in done.out + done.err


def test_control_characters_of_ids_and_entries_are_not_printed(fake: FakeHub, at_fake: Keys) -> None:
    fake.lists(row(1, id="a\x1b[31m\u202e"), row(2, id="b\nforged", last8="00000001"), row(3))
    done = at_fake("show", "00000001")
    assert done.code == 2
    assert r"name one by its id: 'a\x1b[31m\u202e', 'b\nforged'" in done.err
    absent = at_fake("disallow", "key-3", "\x1b[2J", "--yes")
    assert absent.code == 2
    assert r"has no '\x1b[2J'" in absent.err


def test_a_token_of_a_gate_lists_keys_and_creates_none(served: Served) -> None:
    gate = Keys({"GATEKEEPER_HUB": served.url, "GATEKEEPER_TOKEN": served.gate_token})
    assert gate("list", "--json").json == []
    refused = gate("create", "Shop", "--allow", "acme.com")
    assert (refused.code, refused.out) == (1, "")
    assert "gatekeeper hub token create --scope admin" in refused.err


@pytest.mark.process
def test_the_commands_run_as_a_process(served: Served) -> None:
    environment = {"GATEKEEPER_HUB": served.url, "GATEKEEPER_TOKEN": served.token}
    created = gatekeeper("keys", "create", "Shop", "--allow", "acme.com", "--json", **environment)
    assert created.returncode == 0, created.stderr
    listed = gatekeeper("keys", "list", "--json", **environment)
    assert [each["id"] for each in json.loads(listed.stdout)] == [json.loads(created.stdout)["id"]]
    assert gatekeeper("keys", "show", "nothing!", **environment).returncode == 1
