"""What the README promises can be read off the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from gatekeeper import Allowlist, GatekeeperMiddleware, Reason

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.+?)```", README, flags=re.DOTALL)


def test_the_two_commands_stand_on_a_line_each() -> None:
    for command in (
        "python3 -m venv .venv && .venv/bin/pip install -e '.[demo]' && .venv/bin/gatekeeper demo",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
    ):
        assert f"\n{command}\n" in README


def test_the_picture_is_there() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_the_table_of_decisions_has_every_reason_in_its_order_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", README, flags=re.MULTILINE)
    assert [reason for reason, _ in rows] == [reason.value for reason in Reason]
    assert {reason: status for reason, status in rows if reason != "allowed"} == {
        reason.value: str(reason.status) for reason in Reason if reason is not Reason.ALLOWED
    }


def test_every_entry_of_the_table_of_entries_is_accepted() -> None:
    table = README.partition("## What an allowlist entry may say")[2].partition("Letter case")[0]
    entries = [
        entry for line in table.splitlines() for entry in re.findall(r"`([^`]+)`", line.split("|")[1] if "|" in line else "")
    ]
    assert len(entries) == 8
    assert Allowlist.parse(entries).rejected == ()


def test_the_example_of_mounting_runs_and_is_short() -> None:
    example = EXAMPLES[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names: dict[str, Any] = {}
    # The token of the example is cut short by an ellipsis, which no header can carry.
    exec(example.replace("…", "x"), names)
    assert isinstance(names["app"], GatekeeperMiddleware)


@pytest.mark.parametrize("example", EXAMPLES[1:])
def test_what_the_other_examples_import_is_there(example: str) -> None:
    compile(example, "README.md", "exec")
    for line in re.findall(r"^from .*$", example, flags=re.MULTILINE):
        exec(line, {})


@pytest.mark.parametrize("word", ["whitelist", "blacklist", "TODO", "@@"])
def test_words_that_the_house_does_not_use_are_not_in_it(word: str) -> None:
    assert word not in README
