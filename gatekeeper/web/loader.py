"""The loader: JavaScript that puts a widget into a customer's page. Answers the paths that need no key."""

import hashlib
import re
from collections.abc import Collection, Iterator
from importlib.resources import files
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper.web.answers import KEY_HEADER, Answer, send_answer
from gatekeeper.web.cors import PUBLIC, as_public
from gatekeeper.web.request import Header, Paths, path_problems, route_path

__all__ = ("LOADER_FILES", "Unguarded", "loader_problems", "public")

LOADER_FILES: Final = ("widget.js", "widget.mjs", "frame.js")
KEY_NAMES: Final = (KEY_HEADER, "client_key")  # the header and the query parameter that they send
MAX_AGE: Final = 300  # seconds for which browsers use a file without asking, so that an update reaches pages soon

_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[\w.~-]+)+", re.ASCII)
_HEADERS: Final[tuple[Header, ...]] = (
    PUBLIC,  # modules are fetched in cors mode
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"cache-control", f"public, max-age={MAX_AGE}".encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
)


class Unguarded:
    """Answers requests that are not decided before they reach the app.

    Args:
        app: the guarded app, which answers on exempt paths.
        exempt: as for GatekeeperMiddleware.
        loader_path: as for GatekeeperMiddleware.
        key_in_body: as for GatekeeperMiddleware.
        checked: the same app where its endpoints find the key.

    Attributes:
        covers: whether a request is for one of these paths.
        needs_no_key: whether a request or a WebSocket, which has no body, is for one of those without a key.
    """

    def __init__(
        self, app: ASGIApp, exempt: Collection[str], loader_path: str | None, key_in_body: Collection[str], checked: ASGIApp
    ) -> None:
        self._app = app
        self._checked = checked
        self._files = {} if loader_path is None else {f"{loader_path}/{name}": _LoaderFile(name) for name in LOADER_FILES}
        self.covers = Paths((*exempt, *self._files, *key_in_body)).covers
        self.needs_no_key = Paths((*exempt, *self._files)).covers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a connection that is covered."""
        app = self._files.get(route_path(scope), self._app) if self.needs_no_key(scope) else self._checked
        await app(scope, receive, send)


def public(app: ASGIApp) -> ASGIApp:
    """Let any page read the answers of an app.

    Preflights are left to the app: an answer to one would allow more than to read.

    Args:
        app: the app.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_public(message: Message) -> None:
            await send(as_public(message) if message["type"] == "http.response.start" else message)

        is_read = scope["type"] == "http" and scope["method"] != "OPTIONS"
        await app(scope, receive, send_public if is_read else send)

    return answer


class _LoaderFile:
    """Serves one file of the loader to any page."""

    def __init__(self, name: str) -> None:
        self._content = files("gatekeeper.web").joinpath("assets", name).read_bytes()
        self._etag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'.encode("ascii")

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send_answer(send, self._answer(scope))
        else:
            await send({"type": "websocket.close", "code": 1000})  # refuses the handshake

    def _answer(self, scope: Scope) -> Answer:
        method = scope["method"]
        if method not in {"GET", "HEAD"}:
            return Answer(405, [(b"allow", b"GET, HEAD"), (b"content-length", b"0")], b"")
        headers = [*_HEADERS, (b"etag", self._etag)]
        if _has_validator(scope, self._etag):
            return Answer(304, headers, b"")
        content = (
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"content-length", str(len(self._content)).encode("ascii")),
        )
        return Answer(200, [*headers, *content], b"" if method == "HEAD" else self._content)


def _has_validator(scope: Scope, etag: bytes) -> bool:
    """Whether If-None-Match names an ETag. They are compared weakly: proxies that compress make it weak."""
    given = b",".join(value for name, value in scope.get("headers") or () if name == b"if-none-match")
    return any(each.strip().removeprefix(b"W/") in {etag, b"*"} for each in given.split(b","))


def loader_problems(loader_path: object, key_names: tuple[object, object], **others: Collection[str]) -> Iterator[str]:
    """Yield one sentence for each mistake in the option `loader_path`.

    Args:
        loader_path: as for GatekeeperMiddleware.
        key_names: `key_header` and `key_query` of GatekeeperMiddleware.
        others: the paths of its other options, by their names.
    """
    if loader_path is None:
        return
    if not isinstance(loader_path, str) or _PATH.fullmatch(loader_path) is None:
        yield (
            f"loader_path is {loader_path!r}: expected a path such as '/gatekeeper', without '/' at the end, "
            "of letters, digits, '-', '.', '_', '~'"
        )
        return
    header, query = key_names
    if (str(header).lower(), query) != KEY_NAMES:
        yield f"loader_path needs the default key_header and key_query: its files send {' and '.join(map(repr, KEY_NAMES))}"
    for option, paths in others.items():
        if any(path_problems(option, paths)):
            continue  # these are reported
        covered = [path for name in LOADER_FILES if Paths(paths).covers({"path": (path := f"{loader_path}/{name}")})]
        if covered:
            yield f"loader_path is {loader_path!r}, but {option} covers {covered[0]!r} too: choose another path for one"
