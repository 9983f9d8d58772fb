"""What the commands print of their arguments."""

import json
from pathlib import Path

import pytest

from gatekeeper.testing import FakeHub
from tests.support.client_keys import KEY
from tests.support.rows import TOKEN, row

from .support import Keys, invoke


@pytest.mark.parametrize("secret", [TOKEN, KEY])
@pytest.mark.parametrize(
    "arguments",
    [
        ("lint",),
        ("check", "00000001", "--file", "ROWS"),
        ("check", "--file", "ROWS", "https://acme.com"),
        ("keys", "list", "--token", TOKEN, "--hub"),
        ("keys", "list", "--token", TOKEN, "--hub", "https://127.0.0.1:1", "--ca-file"),
        ("hub", "--listen"),
        ("hub", "--database", "DATABASE", "token", "revoke", "--yes"),
    ],
    ids=" ".join,
)
def test_a_secret_in_the_place_of_another_argument_is_masked(
    tmp_path: Path, arguments: tuple[str, ...], secret: str
) -> None:
    rows, database = tmp_path / "rows.json", tmp_path / "hub.sqlite"
    rows.write_text(json.dumps([row(1)]))
    places = {"ROWS": str(rows), "DATABASE": str(database)}
    if "DATABASE" in arguments:
        created = invoke("hub", "--database", str(database), "token", "create", "--account", "acme", "--name", "tests")
        assert created.code == 0, created.err
    for pasted in (secret, f"a '{secret}'"):
        done = invoke(*(places.get(each, each) for each in arguments), pasted)
        assert done.out + done.err
        assert secret[8:] not in done.out + done.err


def test_the_names_of_keys_are_shown_without_secrets(fake: FakeHub, at_fake: Keys) -> None:
    """Customers may write their key where its name belongs."""
    fake.lists(row(1, name=f"shop {KEY}", agent_id=TOKEN))
    for arguments in (("list", "--wide"), ("show", "key-1"), ("disable", "key-1")):
        done = at_fake(*arguments, answer="n\n")
        assert "shop pk_live_…" in done.out + done.err
        assert KEY not in done.out + done.err
        assert TOKEN not in done.out + done.err
