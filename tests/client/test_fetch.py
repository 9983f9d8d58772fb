"""fetch: the list as it came, for sources."""

import anyio
import pytest

from gatekeeper import (
    AsyncHubClient,
    HubAuthenticationError,
    HubProtocolError,
)
from tests.support.fake_hub import PATH, Answer, FakeHub, json_answer
from tests.support.rows import TOKEN, as_json, row


async def is_unchanged(client: AsyncHubClient, validator: str | None = None) -> bool:
    """Fetch the list, if it is another one than the validator names."""
    async with client.widget_keys.fetch(validator) as listing:
        return listing is None


@pytest.mark.anyio
async def test_fetch_gives_the_bytes_and_the_entity_tag(hub: FakeHub) -> None:
    hub.lists(row(1), etag='W/"7"')
    async with AsyncHubClient(hub.url, TOKEN) as client, client.widget_keys.fetch() as listing:
        assert listing is not None
        assert (await listing.read(), listing.validator) == (as_json(row(1)), 'W/"7"')
    request = hub.requests[0]
    assert (request.method, request.target, request.headers["cache-control"]) == ("GET", PATH, "no-cache")
    assert "if-none-match" not in request.headers


@pytest.mark.anyio
async def test_fetch_gives_no_entity_tag_where_there_was_none(hub: FakeHub) -> None:
    hub.lists(row(1))
    async with AsyncHubClient(hub.url, TOKEN) as client, client.widget_keys.fetch() as listing:
        assert listing is not None
        assert (await listing.read(), listing.validator) == (as_json(row(1)), None)


@pytest.mark.anyio
async def test_fetch_sends_the_entity_tag_back_as_it_came_and_gives_none_for_the_same_list(hub: FakeHub) -> None:
    hub.lists(row(1), etag='W/"7"')
    async with AsyncHubClient(hub.url, TOKEN) as client:
        assert await is_unchanged(client, 'W/"7"')
        assert not await is_unchanged(client, '"7"')
    assert [request.headers["if-none-match"] for request in hub.requests] == ['W/"7"', '"7"']


@pytest.mark.anyio
async def test_not_modified_is_no_answer_to_a_fetch_that_did_not_ask_for_it(hub: FakeHub) -> None:
    hub.always(Answer(304))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubProtocolError):
            await is_unchanged(client)


@pytest.mark.anyio
async def test_not_modified_about_another_list_is_no_answer_and_weak_tags_are_as_good_as_strong_ones(hub: FakeHub) -> None:
    async with AsyncHubClient(hub.url, TOKEN) as client:
        hub.then(Answer(304, headers={"etag": 'W/"7"'}), Answer(304), Answer(304, headers={"etag": '"8"'}))
        assert await is_unchanged(client, '"7"')
        assert await is_unchanged(client, '"7"')
        with pytest.raises(HubProtocolError):
            await is_unchanged(client, '"7"')


@pytest.mark.anyio
async def test_fetch_raises_what_the_hub_answers(hub: FakeHub) -> None:
    hub.always(json_answer("Invalid token", 401))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with pytest.raises(HubAuthenticationError, match="Invalid token"):
            await is_unchanged(client)


@pytest.mark.anyio
async def test_a_cancelled_call_is_cancelled_and_not_an_error_of_the_hub(hub: FakeHub) -> None:
    hub.always(Answer(hold=hub.hold()))
    async with AsyncHubClient(hub.url, TOKEN) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.widget_keys.list()
    assert scope.cancelled_caught
