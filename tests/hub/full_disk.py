"""A hub whose database is on a full disk. Runs in a mount namespace of its own."""

import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx

from gatekeeper.hub.database import Database, parse_location
from tests.needs import postgres
from tests.support.namespaces import mount
from tests.support.postgres import PostgresCluster

from .support import PATH, assert_problem, create, list_rows, running_hub

SIZES = {"postgres": "96m", "sqlite": "1m"}


async def main(kind: str, directory: Path) -> None:
    """Fill the disk of a database, see what the hub answers, and free it; the same at the start of a hub."""
    mount("-t", "tmpfs", "-o", f"size={SIZES[kind]},mode=777", "none", directory)
    filler = directory / "filler"
    with ExitStack() as stack:
        database: str | Path = directory / "hub.db"
        if kind == "postgres":
            tempfile.tempdir = str(directory)
            cluster = stack.enter_context(PostgresCluster(postgres()))
            cluster.start()
            database = cluster.url
        async with running_hub(database) as running:
            client = await running.client("acme")
            row = await create(client)
            fill(filler)
            assert_problem(await client.get("/readyz"), 503, "database_down")
            # The last pages of a table take some rows.
            answers = [await client.post(PATH, json={"name": "n" * 200}) for _ in range(100)]
            assert {answer.status_code for answer in answers} <= {httpx.codes.CREATED, httpx.codes.SERVICE_UNAVAILABLE}
            assert_problem(answers[-1], 503, "database_down")
            assert (await client.get("/healthz")).status_code == httpx.codes.OK
            filler.unlink()
            assert (await client.get("/readyz")).status_code == httpx.codes.OK
            answer = await client.patch(f"{PATH}/{row['id']}", json={"disabled": True})
            assert answer.status_code == httpx.codes.OK
        fill(filler)
        async with running_hub(Database(parse_location(database), retry_pause=0.0)) as running:
            client = await running.client_with(dict(client.headers))
            assert_problem(await client.get("/readyz"), 503, "database_down")
            filler.unlink()
            assert (await client.get("/readyz")).status_code == httpx.codes.OK
            assert row["id"] in {listed["id"] for listed in await list_rows(client)}
    print("well")  # noqa: T201 - the test reads it


def fill(filler: Path) -> None:
    """Fill the disk."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
