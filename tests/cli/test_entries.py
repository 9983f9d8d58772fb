"""gatekeeper keys allow and disallow, while others change the same key."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gatekeeper.cli.entries import MAX_ATTEMPTS
from gatekeeper.testing.fake_hub import PATH, FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.postgres import PostgresCluster
from tests.support.real_hub import served_hub
from tests.support.rows import row

from .support import Keys, gatekeeper


def single_rows(fake: FakeHub, answer: Callable[[HubRequest], HubAnswer]) -> None:
    """List one key, and answer requests for its row."""
    fake.always(lambda request: json_answer([row(1)]) if request.target == PATH else answer(request))


def changes(fake: FakeHub) -> list[tuple[list[str], str | None]]:
    """The allowlists that were sent, each with its condition."""
    sent = [request for request in fake.requests if request.method == "PATCH"]
    return [(request.json["domain_allowlist"], request.headers.get("if-match")) for request in sent]


@pytest.mark.parametrize(
    ("command", "theirs", "expected"),
    [
        (("allow", "key-1", "new.com"), ["acme.com", "theirs.com"], ["acme.com", "theirs.com", "new.com"]),
        (("disallow", "key-1", "acme.com", "--yes"), ["acme.com", "theirs.com"], ["theirs.com"]),
    ],
)
def test_an_entry_of_someone_else_meanwhile_stays(
    fake: FakeHub, at_fake: Keys, command: tuple[str, ...], theirs: list[str], expected: list[str]
) -> None:
    def answer(request: HubRequest) -> HubAnswer:
        if request.method == "PATCH":
            return json_answer(row(1)) if request.headers["if-match"] == '"2"' else HubAnswer(412)
        if changes(fake):
            return json_answer(row(1, domain_allowlist=theirs), etag='"2"')
        return json_answer(row(1), etag='"1"')

    single_rows(fake, answer)
    assert at_fake(*command).code == 0
    (_, first), second = changes(fake)
    assert (first, second) == ('"1"', (expected, '"2"'))


@pytest.mark.parametrize(
    ("command", "theirs"),
    [(("allow", "key-1", "new.com"), ["acme.com", "NEW.com"]), (("disallow", "key-1", "acme.com", "--yes"), ["theirs.com"])],
)
def test_a_change_that_someone_else_has_made_meanwhile_is_not_sent(
    fake: FakeHub, at_fake: Keys, command: tuple[str, ...], theirs: list[str]
) -> None:
    single_rows(fake, lambda _: json_answer(row(1, domain_allowlist=theirs), etag='"2"'))
    done = at_fake(*command, "--json")
    assert (done.code, done.json["domain_allowlist"], changes(fake)) == (0, theirs, [])


def test_a_row_that_always_changes_first_is_given_up(fake: FakeHub, at_fake: Keys) -> None:
    single_rows(fake, lambda request: HubAnswer(412) if request.method == "PATCH" else json_answer(row(1), etag='"1"'))
    done = at_fake("allow", "key-1", "new.com")
    assert done.code == 1
    assert "412: the row has changed since it was read" in done.err
    assert changes(fake) == [(["acme.com", "new.com"], '"1"')] * MAX_ATTEMPTS


@pytest.mark.parametrize(
    "answer", [HubAnswer(404), HubAnswer(405), json_answer([row(1)]), json_answer(row(1)), json_answer(row(1), etag='W/"1"')]
)
def test_a_hub_without_single_rows_or_etags_is_changed_all_the_same(fake: FakeHub, at_fake: Keys, answer: HubAnswer) -> None:
    single_rows(fake, lambda request: json_answer(row(1)) if request.method == "PATCH" else answer)
    assert at_fake("allow", "key-1", "new.com").code == 0
    assert at_fake("disallow", "key-1", "acme.com", "--yes").code == 0
    assert changes(fake) == [(["acme.com", "new.com"], None), ([], None)]


@pytest.mark.process
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_six_at_once_leave_six_entries(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> None:
    """Each of six processes adds one entry to the same key, and then each removes its own."""
    url = None
    if database == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        url = cluster.create_schema()
    entries = [f"shop{number}.com" for number in range(6)]
    with served_hub(tmp_path, url) as served, ThreadPoolExecutor(6) as pool:
        keys = Keys({"GATEKEEPER_HUB": served.url, "GATEKEEPER_TOKEN": served.token})
        key_id = keys("create", "Shop", "--json").json["id"]

        def at_once(command: str, *options: str) -> list[int]:
            done = pool.map(lambda entry: gatekeeper("keys", command, key_id, entry, *options, **keys.environment), entries)
            return [process.returncode for process in done]

        assert at_once("allow") == [0] * 6
        assert sorted(keys.rows()[0]["domain_allowlist"]) == entries
        assert at_once("disallow", "--yes") == [0] * 6
        assert keys.rows()[0]["domain_allowlist"] == []
