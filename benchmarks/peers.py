"""Which origins gatekeeper and four CORS middlewares let in.

    python -m benchmarks.peers

All have the same allowlist entries. Each cell is an answer in process, of a small app behind the middleware, to a request
with the Origin of the row. A middleware lets the origin in if `Access-Control-Allow-Origin` names it. gatekeeper answers
refused requests itself, so it lets an origin in if the app was reached. The same holds for all of them on WebSockets, which
CORS does not cover. The output is a section of gatekeeper/matching/README.md.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any, NamedTuple
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults

from asgi_cors import asgi_cors
from corsheaders.checks import check_settings
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from flask import Flask
from flask_cors import CORS
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper import Allowlist, Gatekeeper, GatekeeperMiddleware

KEY = "pk_live_acme_4fJq8ZtR2mXw9LbN6cVh1KsD7gPy3TzQ"

PEERS = {
    "Starlette": "starlette",
    "asgi-cors": "asgi-cors",
    "django-cors-headers": "django-cors-headers",
    "flask-cors": "flask-cors",
}

NO_PAGE = "¹"
OPAQUE = "²"
CHECKED = "³"
REJECTED = "⁴"
NOTES = (
    f"{NO_PAGE} No page sends this: only a client that writes its own headers does.",
    f"{OPAQUE} Any page can make a frame with this origin: `<iframe sandbox>`.",
    f"{CHECKED} `manage.py check` reports this entry.",
    f"{REJECTED} gatekeeper rejects this entry, with a reason.",
)

SECTION = """\
`python -m benchmarks.peers` asks gatekeeper and four CORS middlewares, with the same entries, about the same origins; this
is what it printed with {named}.

{table}

"In": the answer's `Access-Control-Allow-Origin` names the origin; for gatekeeper, and on WebSockets, the app was reached.
Bold: in, but should not be. A dash: no such form, or no WebSockets. The regexes are for `allow_origin_regex` (Starlette),
`CORS_ALLOWED_ORIGIN_REGEXES` (django-cors-headers) and `origins` (flask-cors), the wildcards for `host_wildcards`
(asgi-cors); "the same" stands in the list of exact origins that each of them has.

{notes}"""


class Row(NamedTuple):
    """An origin, and the entry that each middleware has for it.

    Attributes:
        entry: the entry of the gate's key; None for an empty allowlist.
        origin: the Origin header; None for no header.
        due: whether it should be let in.
        regex: the equivalent for peers with regexes.
        wildcard: the equivalent for the peer with wildcards; without either, all have the entry in a list of origins.
        note: the mark of a note on the origin.
        websocket: whether the request is a WebSocket handshake.
    """

    entry: str | None
    origin: str | None
    due: bool = False
    regex: str | None = None
    wildcard: str | None = None
    note: str = ""
    websocket: bool = False

    @property
    def is_listed(self) -> bool:
        """Whether the entry is written in a list of origins."""
        return self.regex is None and self.wildcard is None

    @property
    def entries(self) -> list[str]:
        """The entry, as a list."""
        return [] if self.entry is None else [self.entry]


LOCALHOST = Row("http://localhost:*", None, regex=r"http://localhost(:\d+)?", wildcard="http://localhost:*")
SUBDOMAINS = Row("https://*.acme.com", None, regex=r"https://.*\.acme\.com", wildcard="https://*.acme.com")

ROWS = (
    LOCALHOST._replace(origin="http://localhost:3000", due=True),
    LOCALHOST._replace(origin="http://localhost.evil.com"),
    LOCALHOST._replace(origin="http://localhost:3000.evil.com", note=NO_PAGE),
    SUBDOMAINS._replace(origin="https://shop.acme.com", due=True),
    SUBDOMAINS._replace(origin="https://acme.com"),
    SUBDOMAINS._replace(origin="https://shop.acme.com.evil.com"),
    SUBDOMAINS._replace(origin="https://shop.acme.com.evil.com", regex=r"^https://[a-z0-9-]+\.acme\.com$"),
    SUBDOMAINS._replace(origin="https://evilacme.com", regex="^https://.*.acme.com$"),
    SUBDOMAINS._replace(origin="https://evil.com/.acme.com", note=NO_PAGE),
    SUBDOMAINS._replace(origin="https://a..acme.com", note=NO_PAGE),
    Row("https://example.*", "https://example.evil.com", regex=r"https://example\..*", wildcard="https://example.*"),
    Row("acme.com", "null", note=OPAQUE),
    Row("null", "null", note=OPAQUE),
    Row("https://Acme.com", "https://acme.com", due=True),
    Row("https://acme.com:443", "https://acme.com", due=True),
    Row("https://acme.com", "https://acme.com."),
    Row(None, "https://acme.com"),
    Row("https://acme.com", "https://evil.com", websocket=True),
    Row("https://acme.com", None, note=NO_PAGE, websocket=True),
)


class Answer(NamedTuple):
    """The result of a request.

    Attributes:
        reached: whether the app was reached.
        allowed: the Access-Control-Allow-Origin of the answer.
    """

    reached: bool
    allowed: str | None


def gatekeeper(row: Row) -> str:
    """Ask a gate with one key."""
    gate = Gatekeeper.from_rows([{"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": row.entries}])
    said = "in" if _ask_asgi(lambda app: GatekeeperMiddleware(app, gate), row).reached else "out"
    return f"{said}{REJECTED}" if Allowlist.parse(row.entries).rejected else said


def starlette(row: Row) -> str:
    """Ask Starlette's CORSMiddleware, by allow_origins or allow_origin_regex."""
    if not row.is_listed and row.regex is None:
        return "-"
    listed = row.entries if row.is_listed else []
    return _said(row, _ask_asgi(lambda app: CORSMiddleware(app, listed, allow_origin_regex=row.regex), row))


def asgi(row: Row) -> str:
    """Ask asgi-cors, by hosts or host_wildcards."""
    if not row.is_listed and row.wildcard is None:
        return "-"
    options = {"hosts": row.entries} if row.is_listed else {"host_wildcards": [row.wildcard]}
    return _said(row, _ask_asgi(lambda app: asgi_cors(app, **options), row))


def django(row: Row) -> str:
    """Ask django-cors-headers, by CORS_ALLOWED_ORIGINS or CORS_ALLOWED_ORIGIN_REGEXES."""
    if row.websocket or (not row.is_listed and row.regex is None):
        return "-"
    if not settings.configured:
        settings.configure(
            MIDDLEWARE=["corsheaders.middleware.CorsMiddleware"],
            ROOT_URLCONF=(path("", lambda _: HttpResponse("reached")),),
        )
    options: dict[str, object] = (
        {"CORS_ALLOWED_ORIGINS": row.entries} if row.is_listed else {"CORS_ALLOWED_ORIGIN_REGEXES": [row.regex]}
    )
    with override_settings(**options):
        said = _said(row, _ask_wsgi(WSGIHandler(), row))
        return f"{said}{CHECKED}" if check_settings() else said


def flask(row: Row) -> str:
    """Ask flask-cors, by origins. It treats strings that look like a regex as one."""
    if row.websocket or (not row.is_listed and row.regex is None):
        return "-"
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "reached")
    CORS(app, origins=row.entries if row.regex is None else [row.regex])
    return _said(row, _ask_wsgi(app, row))


ASKED: dict[str, Callable[[Row], str]] = {
    "gatekeeper": gatekeeper,
    "Starlette": starlette,
    "asgi-cors": asgi,
    "django-cors-headers": django,
    "flask-cors": flask,
}


def answers(row: Row) -> dict[str, str]:
    """The answers for a row: in, out, or - for no answer."""
    return {name: ask(row) for name, ask in ASKED.items()}


def section() -> str:
    """The section of gatekeeper/matching/README.md, without its heading."""
    named = ", ".join(f"{name} {version(package)}" for name, package in PEERS.items())
    return SECTION.format(named=named, table="\n".join(_table()), notes="\\\n".join(NOTES))


def _table() -> Iterator[str]:
    yield _line(["origin", "entry", "elsewhere", "should be", *ASKED])
    yield "|---" * (4 + len(ASKED)) + "|"
    for row in ROWS:
        origin = ("none" if row.origin is None else f"`{row.origin}`") + row.note
        cells = [f"WebSocket, {origin}" if row.websocket else origin, "none" if row.entry is None else f"`{row.entry}`"]
        forms = {"regex": row.regex, "wildcard": row.wildcard}
        elsewhere = ", ".join(f"{name} `{form}`" for name, form in forms.items() if form is not None)
        cells += [elsewhere or "the same", "in" if row.due else "out"]
        cells += [said if row.due else said.replace("in", "**in**") for said in answers(row).values()]
        yield _line(cells)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _said(row: Row, answer: Answer) -> str:
    let_in = answer.reached if row.websocket else answer.allowed in {row.origin, "*"}
    return "in" if let_in else "out"


def _ask_asgi(guard: Callable[[ASGIApp], ASGIApp], row: Row) -> Answer:
    return asyncio.run(_answer(guard, row))


async def _answer(guard: Callable[[ASGIApp], ASGIApp], row: Row) -> Answer:
    reached = False
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal reached
        reached = True
        await receive()
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})

    async def receive() -> Message:
        if row.websocket:
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await guard(app)(_scope(row), receive, send)
    headers = {bytes(name): bytes(value).decode("latin-1") for name, value in sent[0].get("headers", ())}
    return Answer(reached, headers.get(b"access-control-allow-origin"))


def _scope(row: Row) -> dict[str, Any]:
    return {
        "type": "websocket" if row.websocket else "http",
        "method": "GET",
        "path": "/",
        "root_path": "",
        "query_string": f"client_key={KEY}".encode(),
        "scheme": "ws" if row.websocket else "http",
        "http_version": "1.1",
        "headers": [] if row.origin is None else [(b"origin", row.origin.encode())],
        "state": {},
    }


def _ask_wsgi(app: WSGIApplication, row: Row) -> Answer:
    environ: dict[str, Any] = {} if row.origin is None else {"HTTP_ORIGIN": row.origin}
    setup_testing_defaults(environ)
    headers: dict[str, str] = {}

    def start_response(_status: str, fields: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
        headers.update((name.lower(), value) for name, value in fields)
        return len

    body = b"".join(app(environ, start_response))
    return Answer(body == b"reached", headers.get("access-control-allow-origin"))


def main(print_line: Callable[[str], None] = print) -> None:
    print_line(section())


if __name__ == "__main__":
    main()
