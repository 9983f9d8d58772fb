"""Databases of real hubs, with accounts of any size."""

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import anyio
import psycopg

from benchmarks import keys
from gatekeeper.hub import create_hub
from gatekeeper.hub.minting import Mint, random_text
from tests.support.postgres import PostgresCluster, find_postgres

__all__ = ("PEPPER", "Account", "Database", "Kind", "database")

Kind = Literal["sqlite", "postgres"]

PEPPER: Final = "the pepper of this benchmark"
CREATED: Final = "2026-01-02 03:04:05.000000"
APART: Final = 10_000_000  # between the first keys of two accounts, because ids are unique in a database
WORKERS: Final[dict[Kind, int]] = {"sqlite": 1, "postgres": 2}  # a SQLite file has one hub process

DESCRIBED: Final = ("id", "account", "name", "last8", "domain_allowlist", "agent_id")
KEPT: Final = ("disabled_at", "created_at", "updated_at", "key_sha256", "keyed_hash", "use_count")
KEYS: Final = ("widget_keys", (*DESCRIBED, *KEPT))
ACCOUNTS: Final = ("accounts", ("name", "revision", "revision_mark", "created_at"))
EVENTS: Final = ("events", ("key_id", "id", "account", "action", "token_name", "at", "changes", "revision", "base_mark"))
CHOSEN: Final = ("last8", "name", "domain_allowlist", "agent_id")  # what an event says of a new key

Row = tuple[object, ...]


class Account(NamedTuple):
    """An account with keys.

    Attributes:
        name: its name.
        first: the number of its first key.
        size: the number of its keys.
        admin: the token of its owner; empty if none was minted.
        gate: the token of its gates; empty if none was minted.
    """

    name: str
    first: int
    size: int
    admin: str
    gate: str

    def row(self, place: int) -> dict[str, Any]:
        """The row of a key of the account."""
        return keys.row(self.first + place)

    def client_key(self, place: int) -> str:
        """A key of the account, as its pages send it."""
        return keys.client_key(self.first + place, self.name)

    def origin(self, place: int) -> str:
        """A page on which that key is allowed."""
        return keys.origin(self.first + place)

    def enabled(self) -> list[int]:
        """The places of the keys that are not disabled."""
        return [place for place in range(self.size) if self.row(place)["disabled_at"] is None]


class Database(NamedTuple):
    """A database for a hub.

    Attributes:
        location: the path of a file, or a URL.
        workers: the number of hub processes that use it.
        cluster: the PostgreSQL server; None for a file.
    """

    location: str
    workers: int
    cluster: PostgresCluster | None

    def fill(self, **counts: int) -> list[Account]:
        """Add accounts, each with a number of keys, and with the event of each create."""
        return self._fill(counts, APART, tuple(counts))

    def fill_evenly(self, count: int, size: int, *, minted: int | None = None) -> list[Account]:
        """Add "shop0", "shop1" and so on, with the same number of keys.

        Args:
            count: the number of accounts.
            size: the keys of each.
            minted: how many of them, the first ones, have tokens; all of them by default.
        """
        names = [f"shop{number}" for number in range(count)]
        return self._fill(dict.fromkeys(names, size), size, names[:minted])

    def mint_for_all(self) -> str:
        """A token of gates that reads the keys of all accounts."""
        return anyio.run(_mint_for_all, self.location)

    def _fill(self, counts: Mapping[str, int], apart: int, minted: Sequence[str]) -> list[Account]:
        tokens = anyio.run(_mint, self.location, tuple(minted))
        made = [
            Account(name, first, counts[name], *tokens.get(name, ("", ""))) for name, first in zip(counts, count(0, apart))
        ]
        self._add(ACCOUNTS, ((each.name, 1, _mark(1), CREATED) for each in made if each.name not in tokens))
        self._add(KEYS, chain.from_iterable(map(_key_rows, made)))
        self._add(EVENTS, chain.from_iterable(map(_event_rows, made)))
        for size in {each.size for each in made}:
            named = ", ".join(f"'{each.name}'" for each in made if each.size == size)
            present = f"revision = {size + 1}, revision_mark = '{_mark(size + 1)}'"
            self._do(f"UPDATE accounts SET {present} WHERE name IN ({named})")  # noqa: S608 - constants
        self._do("ANALYZE")
        return made

    def _add(self, into: tuple[str, tuple[str, ...]], rows: Iterable[Row]) -> None:
        table, columns = into
        named = f"{table} ({', '.join(columns)})"
        if self.cluster is None:
            marks = ", ".join("?" for _ in columns)
            with closing(sqlite3.connect(self.location)) as file, file:
                file.executemany(f"INSERT INTO {named} VALUES ({marks})", rows)  # noqa: S608 - constants
            return
        with psycopg.connect(self.location) as session, session.cursor().copy(f"COPY {named} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def _do(self, statement: str) -> None:
        if self.cluster is None:
            with closing(sqlite3.connect(self.location)) as file, file:
                file.execute(statement)
            return
        with psycopg.connect(self.location, autocommit=True) as session:
            session.execute(statement.encode())


@contextmanager
def database(kind: Kind) -> Iterator[Database]:
    """Make an empty database. PostgreSQL has its default settings, so commits are synced."""
    with ExitStack() as stack:
        if kind == "sqlite":
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            yield Database(str(Path(directory) / "hub.db"), WORKERS[kind], None)
            return
        programs = find_postgres()
        if programs is None:
            raise SystemExit("this benchmark needs PostgreSQL, which is not installed: apt-get install postgresql")
        cluster = stack.enter_context(PostgresCluster(programs, settings=()))
        cluster.start()
        yield Database(cluster.create_database(), WORKERS[kind], cluster)


async def _mint(location: str, accounts: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    app = create_hub(location, pepper=PEPPER)
    async with app.router.lifespan_context(app):
        mint = app.state.hub.tokens.mint
        return {name: (await mint(name, name="owner"), await mint(name, name="gate", scope="gate")) for name in accounts}


async def _mint_for_all(location: str) -> str:
    app = create_hub(location, pepper=PEPPER)
    async with app.router.lifespan_context(app):
        token: str = await app.state.hub.tokens.mint_for_all(name="gates")
        return token


def _key_rows(account: Account) -> Iterator[Row]:
    keyed_hash = Mint(PEPPER, random_text).keyed_hash
    for place in range(account.size):
        row, client_key = account.row(place), account.client_key(place)
        entries, disabled_at = json.dumps(row["domain_allowlist"]), CREATED if row["disabled_at"] else None
        digest, kept_hash = sha256(client_key.encode()).hexdigest(), keyed_hash(client_key)
        described = (row["id"], account.name, row["name"], row["last8"], entries, row["agent_id"])
        yield *described, disabled_at, CREATED, CREATED, digest, kept_hash, 0


def _event_rows(account: Account) -> Iterator[Row]:
    # The first revision of an account is 1, and each create is the next.
    for place in range(account.size):
        row = account.row(place)
        changes = json.dumps({field: {"before": None, "after": row[field]} for field in CHOSEN})
        yield row["id"], 1, account.name, "created", "owner", CREATED, changes, place + 2, _mark(place + 1)


def _mark(revision: int) -> str:
    return f"{revision * keys.GOLDEN % 2**64:016x}"
