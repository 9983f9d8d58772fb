"""What a guard adds to an allowed request, in process: a floor for any guard, gatekeeper, Starlette's CORSMiddleware.

    python -m benchmarks.overhead [--rounds 30] [--requests 2000] [--json]

Every round runs every contender once, in an order that changes from round to round, on requests with the 15 headers of a
Chromium fetch, made anew because servers make them anew. What a contender adds is the median, over the rounds, of its time
less that of the bare app in the same round. The app is Starlette's, with one route that answers a little JSON.
"""

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper import Gatekeeper, GatekeeperMiddleware

KEY = b"pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsD7gPy3TzQ"
ORIGIN = b"https://shop.acme.com"
BATCH = 100  # requests made ahead of a timed run: few enough to stay in the processor's cache, as a server's do

# A GET with one header of its own by Chromium 156, in its order.
HEADERS = (
    (b"host", b"widgets.example"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua-platform", b'"Linux"'),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
    ),
    (b"sec-ch-ua", b'"Chromium";v="156", "Not)A;Brand";v="24"'),
    (b"data-client-key", KEY),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"accept", b"*/*"),
    (b"origin", ORIGIN),
    (b"sec-fetch-site", b"cross-site"),
    (b"sec-fetch-mode", b"cors"),
    (b"sec-fetch-dest", b"empty"),
    (b"referer", b"https://shop.acme.com/"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-US,en;q=0.9"),
)


class Floor:
    """A bare loop over the headers, one dictionary hit and a wrapped send: what any guard has to do."""

    def __init__(self, app: ASGIApp, known: dict[tuple[bytes | None, bytes | None], object]) -> None:
        self.app = app
        self.known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = origin = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"data-client-key":
                key = value
        self.known.get((key, origin))

        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"access-control-allow-origin", origin))
            await send(message)

        await self.app(scope, receive, wrapped)


async def _config(request: Request) -> JSONResponse:  # noqa: ARG001 - the signature of an endpoint
    return JSONResponse({"agent_id": "agent_7"}, headers={"cache-control": "no-store", "x-request-id": "7f3c2d"})


def contenders() -> dict[str, ASGIApp]:
    """The same app, bare and behind each guard; the mere app's stack of middleware is built once for all."""
    app = Starlette(routes=[Route("/api/v1/widget/config", _config)]).build_middleware_stack()
    row = {"id": "1", "name": "shop", "last8": KEY[-8:].decode(), "domain_allowlist": ["shop.acme.com"]}
    gate = Gatekeeper.from_rows([row])
    if not gate.decide(KEY, ORIGIN).allowed:
        raise SystemExit("the benchmark's own request is refused")
    return {
        "bare": app,
        "floor": Floor(app, {(KEY, ORIGIN): object()}),
        "gatekeeper": GatekeeperMiddleware(app, gate),
        "CORSMiddleware": CORSMiddleware(app, allow_origins=[ORIGIN.decode()]),
    }


def measure(rounds: int, requests: int) -> dict[str, list[float]]:
    """Nanoseconds that each contender takes for a request, one figure for each round."""
    apps = contenders()
    taken: dict[str, list[float]] = {name: [] for name in apps}
    order = list(apps)
    shuffle = random.Random(1).shuffle
    gc.disable()
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            taken[name].append(_time(apps[name], requests))
        gc.collect()
    gc.enable()
    return taken


def summary(taken: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """For each contender the median of what it adds to the bare app, and the quartiles, in nanoseconds."""
    figures = {}
    for name, times in taken.items():
        if name == "bare":
            continue
        added = [time - bare for time, bare in zip(times, taken["bare"], strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        figures[name] = {"added_ns": middle, "quartile_1_ns": low, "quartile_3_ns": high}
    return figures


def _time(contender: ASGIApp, requests: int) -> float:
    total = 0
    for _ in range(requests // BATCH):
        scopes = [_scope() for _ in range(BATCH)]
        begun = time.perf_counter_ns()
        for scope in scopes:
            _run(contender(scope, _receive, _send))
        total += time.perf_counter_ns() - begun
    return total / (requests // BATCH * BATCH)


def _scope() -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/widget/config",
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "headers": [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in HEADERS],
        "state": {},
    }


def _run(awaitable: Awaitable[None]) -> None:
    try:
        awaitable.send(None)  # type: ignore[attr-defined] # a coroutine: nothing in it waits, so one step is all of it
    except StopIteration:
        return
    raise AssertionError("a contender waited for something")


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def main(argv: list[str] | None = None, print_line: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--requests", type=int, default=2000, help="requests of a contender in a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    figures = summary(measure(options.rounds, options.requests))
    floor, cors = figures["floor"]["added_ns"], figures["CORSMiddleware"]["added_ns"]
    for figure in figures.values():
        figure |= {"of_floor": figure["added_ns"] / floor, "of_cors": figure["added_ns"] / cors}
    if options.json:
        print_line(json.dumps({"rounds": options.rounds, "requests": options.requests, "figures": figures}, indent=2))
        return
    print_line(f"added to an allowed request, medians of {options.rounds} rounds of {options.requests} requests")
    print_line(f"{'':16}{'added':>10}{'quartiles':>20}{'x floor':>10}{'x CORS':>9}")
    for name, figure in figures.items():
        spread = f"{figure['quartile_1_ns'] / 1000:.2f}-{figure['quartile_3_ns'] / 1000:.2f} µs"
        print_line(
            f"{name:16}{figure['added_ns'] / 1000:>7.2f} µs{spread:>20}{figure['of_floor']:>10.2f}{figure['of_cors']:>9.2f}"
        )


if __name__ == "__main__":
    main()
