"""Plaintexts appear in one answer and nowhere else."""

import logging
from typing import Any

import httpx
import pytest

from gatekeeper.hub.minting import Mint, random_text
from gatekeeper.hub.rows import CreatedKeyRow
from gatekeeper.hub.store import KeyStore

from .conftest import NewDatabase
from .support import PATH, PEPPER, RunningHub, running_hub, stored_bytes, use

pytestmark = pytest.mark.anyio


async def test_the_database_contains_no_plaintext(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as running:
        token = await running.hub.tokens.mint("acme", name="ci")
        of_all = await running.hub.tokens.mint_for_all(name="gates")
        client = await running.client_with({"Authorization": f"Bearer {token}"})
        created = (await client.post(PATH, json={"name": "shop"})).json()
        await client.patch(f"{PATH}/{created['id']}", json={"name": "renamed", "disabled": True})
        while_running = stored_bytes(database)
    afterwards = stored_bytes(database)
    for stored in (while_running, afterwards):
        assert created["last8"].encode() in stored
        assert created["key_sha256"].encode() in stored
        for secret in (created["public_key"], token, of_all):
            random = secret.rpartition("_")[2]
            assert random.encode() not in stored
            assert random[:-8].encode() not in stored
        assert PEPPER.encode() not in stored


async def test_the_database_contains_keyed_hashes_of_key_and_token(new_database: NewDatabase) -> None:
    database = new_database()
    async with running_hub(database) as running:
        token = await running.hub.tokens.mint("acme", name="ci")
        client = await running.client_with({"Authorization": f"Bearer {token}"})
        key = (await client.post(PATH, json={"name": "shop"})).json()["public_key"]
    mint = Mint(PEPPER, random_text)
    for plaintext in (key, token):
        assert mint.keyed_hash(plaintext).encode() in stored_bytes(database)
        assert Mint("another", random_text).keyed_hash(plaintext) != mint.keyed_hash(plaintext)


async def test_only_the_answer_to_a_create_has_the_plaintext(hub: RunningHub, acme: httpx.AsyncClient) -> None:
    created = (await acme.post(PATH, json={"name": "shop"})).json()
    path = f"{PATH}/{created['id']}"
    await use(acme, created, hub.clock.now)
    answers = [await acme.get(PATH), await acme.patch(path, json={"name": "renamed"}), await acme.delete(path)]
    for answer in answers:
        assert answer.status_code == httpx.codes.OK
        assert created["public_key"][:-8] not in answer.text
        assert "public_key" not in answer.text


async def test_logs_contain_no_plaintext(
    hub: RunningHub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = await hub.hub.tokens.mint("acme", name="ci")
    client = await hub.client_with({"Authorization": f"Bearer {token}"})
    key = (await client.post(PATH, json={"name": "shop"})).json()["public_key"]
    await client.get(PATH)
    printed = capfd.readouterr()
    for said in (caplog.text, printed.out, printed.err):
        assert key not in said
        assert token not in said


async def test_the_repr_of_a_new_key_hides_the_plaintext(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[CreatedKeyRow] = []
    create = KeyStore.create

    async def remember(*arguments: Any) -> CreatedKeyRow:
        made.append(await create(*arguments))
        return made[-1]

    monkeypatch.setattr(KeyStore, "create", remember)
    client = await hub.client("acme")
    key = (await client.post(PATH, json={"name": "shop"})).json()["public_key"]
    assert made[0].public_key == key
    assert key not in repr(made)
    assert key not in repr(made[0].__rich_repr__())
    assert made[0].last8 in repr(made)
