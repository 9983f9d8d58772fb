"""A real gate with a token for all accounts, at a hub in a process of its own."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import pytest

from gatekeeper import AsyncHubClient, Gatekeeper, HubSource
from gatekeeper.client import CreatedWidgetKey
from gatekeeper.hub.accounts import ALL_ACCOUNTS
from tests.support.starting import wait_until

from .conftest import NewDatabase
from .support import hub_process, running_hub

pytestmark = [pytest.mark.anyio, pytest.mark.process]

ACCOUNTS = ("acme", "acme_shop", "globex")  # a key of the second one may be of the first
ORIGIN = "https://shop.example"
REFUSED = "https://other.example"
REPORTS = 0.2  # seconds between them


class World(NamedTuple):
    """A hub of several accounts, an admin of each, and a gate of all."""

    admins: dict[str, AsyncHubClient]
    gate: Gatekeeper
    operator: AsyncHubClient
    revoke_token: Callable[[], Coroutine[Any, Any, None]]

    async def new_keys(self) -> dict[str, CreatedWidgetKey]:
        """Create a key of each account."""
        return {
            account: await admin.widget_keys.create("shop", domain_allowlist=["shop.example"])
            for account, admin in self.admins.items()
        }

    def allows(self, key: CreatedWidgetKey) -> bool:
        """Whether the gate allows a key."""
        return self.gate.decide(key.public_key, ORIGIN).allowed

    async def sees(self, key: CreatedWidgetKey, *, allowed: bool) -> None:
        """Wait until the gate allows a key, or refuses it."""
        await until(lambda: self.allows(key) is allowed)

    async def told(self, account: str, key: CreatedWidgetKey, count: int) -> None:
        """Wait until the hub shows a key as used, and a page as refused so many times with it."""
        api = self.admins[account].widget_keys

        async def is_told() -> bool:
            pages = [(page.origin, page.count) for page in await api.refused(key.id)]
            return pages == [(REFUSED, count)] and (await api.get(key.id)).last_used_at is not None

        await until(lambda: anyio.from_thread.run(is_told))

    async def lists_its_gate(self) -> None:
        """Wait until the hub lists the gate."""

        async def is_listed() -> bool:
            return len(await self.operator.gates.list()) == 1

        await until(lambda: anyio.from_thread.run(is_listed))


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    await anyio.to_thread.run_sync(wait_until, is_so)


@asynccontextmanager
async def world(database: Any) -> AsyncIterator[World]:
    """Run a hub and a gate until the end of the block, which begins once its list is live."""
    async with running_hub(database) as running:
        tokens = {account: await running.hub.tokens.mint(account, name="admin") for account in ACCOUNTS}
        of_all = await running.hub.tokens.mint_for_all(name="gates")

    async def revoke_token() -> None:
        async with running_hub(database) as running:
            (token,) = await running.hub.tokens.list(ALL_ACCOUNTS)
            await running.hub.tokens.revoke(token.id)

    async with hub_process(database) as (url, _), AsyncHubClient(url, of_all) as operator:
        admins = {account: AsyncHubClient(url, token) for account, token in tokens.items()}
        source = HubSource(url, of_all)
        gate = Gatekeeper(source, refresh_interval=2, unknown_key_wait=0, usage_interval=REPORTS, jitter=lambda: 0.0)
        async with gate:
            made = World(admins, gate, operator, revoke_token)
            await until(lambda: gate.status.is_live)
            yield made
        for admin in admins.values():
            await admin.aclose()


async def test_keys_of_every_account_are_allowed_and_revoked_live(new_database: NewDatabase) -> None:
    async with world(new_database()) as made:
        keys = await made.new_keys()
        for key in keys.values():
            await made.sees(key, allowed=True)
        assert made.gate.status.keys == len(ACCOUNTS)
        for account, key in keys.items():
            await made.admins[account].widget_keys.update(key.id, disabled=True)
            await made.sees(key, allowed=False)
            others = [other for other in keys.values() if other.disabled_at is None and made.allows(other)]
            assert len(others) == len(ACCOUNTS) - 1 - list(keys).index(account)
        assert made.gate.status.is_live


async def test_reports_arrive_at_the_keys_of_every_account(new_database: NewDatabase) -> None:
    async with world(new_database()) as made:
        keys = await made.new_keys()
        for number, key in enumerate(keys.values(), 1):
            await made.sees(key, allowed=True)
            for _ in range(number):
                decision = made.gate.decide(key.public_key, REFUSED)
                assert not made.gate.admits(decision)
        for number, (account, key) in enumerate(keys.items(), 1):
            await made.told(account, key, number)


@pytest.mark.slow
async def test_the_gate_is_listed_for_its_token_and_for_no_account(new_database: NewDatabase) -> None:
    """A gate reports itself after 10 s at the earliest."""
    async with world(new_database()) as made:
        await made.lists_its_gate()
        assert [await admin.gates.list() for admin in made.admins.values()] == [[], [], []]


async def test_a_gate_whose_token_for_all_accounts_is_revoked_says_so(new_database: NewDatabase) -> None:
    async with world(new_database()) as made:
        keys = await made.new_keys()
        for key in keys.values():
            await made.sees(key, allowed=True)
        await made.revoke_token()
        await made.admins["globex"].widget_keys.update(keys["globex"].id, disabled=True)
        await until(lambda: str(HTTPStatus.UNAUTHORIZED.value) in (made.gate.status.last_error or ""))
        assert all(made.allows(key) for key in keys.values())  # as its last list says
