"""Revocations end the streams of every event loop, even with slow clients."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from gatekeeper import FileSource, Gatekeeper, GatekeeperMiddleware
from tests.integration.conftest import DEADLINE, PAGE, ROW, Serve, write_rows
from tests.support.client_keys import KEY
from tests.support.starting import wait_until

OTHER_PAGE = "https://blog.acme.com"
QUERY = {"client_key": KEY}


async def events(_request: Request) -> StreamingResponse:
    """Send one event, and wait."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await anyio.sleep_forever()

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def flood(_request: Request) -> StreamingResponse:
    """Send more than any buffer holds."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"data: " + b"x" * 60_000 + b"\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


def guarded(path: Path, *, close_streams_on_revoke: bool = True) -> tuple[Gatekeeper, GatekeeperMiddleware]:
    """Guard an app by a list that only the test refreshes."""
    write_rows(path, {**ROW, "domain_allowlist": [PAGE, OTHER_PAGE]})
    gate = Gatekeeper(FileSource(path), refresh_interval=3600, close_streams_on_revoke=close_streams_on_revoke)
    return gate, GatekeeperMiddleware(Starlette(routes=[Route("/", events), Route("/flood", flood)]), gate)


def fetches(gate: Gatekeeper) -> int:
    """Count the fetches of all event loops."""
    counters = gate.status.counters
    return counters.get("refresh_changed", 0) + counters.get("refresh_unchanged", 0)


def test_a_list_applied_in_one_event_loop_ends_the_streams_of_others(serve: Serve, tmp_path: Path) -> None:
    gate, app = guarded(tmp_path / "keys.json")
    first, second = serve(app), serve(app)
    headers = {"Origin": PAGE}
    with (
        first.client.stream("GET", "/", params=QUERY, headers=headers) as here,
        second.client.stream("GET", "/", params=QUERY, headers=headers) as there,
        second.client.stream("GET", "/", params=QUERY, headers={"Origin": OTHER_PAGE}) as untouched,
    ):
        streams = [response.iter_raw() for response in (here, there, untouched)]
        assert [next(pieces) for pieces in streams] == [b"data: first\n\n"] * 3
        wait_until(lambda: fetches(gate), lambda count: count == 2)  # the second event loop's may come after its answers
        write_rows(tmp_path / "keys.json", {**ROW, "domain_allowlist": [OTHER_PAGE]})
        assert asyncio.run(gate.refresh()).outcome == "changed"
        assert [list(pieces) for pieces in streams[:2]] == [[], []]
        assert gate.status.counters["streams_closed"] == 2
        write_rows(tmp_path / "keys.json")
        asyncio.run(gate.refresh())
        assert list(streams[2]) == []


def test_a_client_that_does_not_read_delays_no_other_client(serve: Serve, tmp_path: Path) -> None:
    gate, app = guarded(tmp_path / "keys.json")
    served = serve(app)
    with served.connect() as deaf:
        deaf.sendall(f"GET /flood?client_key={KEY} HTTP/1.1\r\nHost: widgets.test\r\nOrigin: {PAGE}\r\n\r\n".encode())
        assert deaf.recv(1) == b"H"
        with served.client.stream("GET", "/", params=QUERY, headers={"Origin": PAGE}) as response:
            pieces = response.iter_raw()
            assert next(pieces) == b"data: first\n\n"
            write_rows(tmp_path / "keys.json")
            asyncio.run(gate.refresh())
            assert list(pieces) == []
        read = b""
        while not read.endswith(b"\r\n0\r\n\r\n"):
            piece = deaf.recv(1 << 20)
            assert piece
            read = read[-16:] + piece
    assert gate.status.counters["streams_closed"] == 2


@pytest.mark.parametrize("option", [True, False])
def test_the_option_decides_whether_streams_end(serve: Serve, tmp_path: Path, option: bool) -> None:  # noqa: FBT001 - a parameter of the test
    gate, app = guarded(tmp_path / "keys.json", close_streams_on_revoke=option)
    served = serve(app)
    with served.connect() as connection:
        connection.sendall(f"GET /?client_key={KEY} HTTP/1.1\r\nHost: widgets.test\r\nOrigin: {PAGE}\r\n\r\n".encode())
        read = b""
        while b"data: first" not in read:
            read += connection.recv(1 << 16)
        write_rows(tmp_path / "keys.json")
        asyncio.run(gate.refresh())
        assert served.get("/", params=QUERY, headers={"Origin": PAGE}).status_code == 403
        connection.settimeout(DEADLINE if option else 1.0)
        began = time.monotonic()
        try:
            while not read.endswith(b"0\r\n\r\n"):
                read += connection.recv(1 << 16)
        except TimeoutError:
            assert not option
            assert time.monotonic() - began >= 1
        assert read.endswith(b"0\r\n\r\n") == option
